"""Time kernels of twenty kinds of models against the plain torch.func recipe: per-sample gradients by vmap, then products.

    OMP_NUM_THREADS=1 python benchmarks/models.py [--only lora gpt] [--repeats 7] [--device cuda]

For each model the lpNTK of 128 samples and the eNTK of 24, float32, one thread; both ways alternate, and what is printed is
the median of the ratios of neighbours, how long ours takes, the relative difference, and by which route the gradients
come. Exits with 1 where the recipe is faster, or where fewer than half of the models gain a factor of two.
"""

import argparse
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn import functional as F

import ntk_course as ntk


class Block(nn.Module):
    """A transformer block, its attention written out or by nn.MultiheadAttention, causal or not."""

    def __init__(self, width: int, heads: int = 4, multihead: bool = False, causal: bool = False):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.attend = nn.MultiheadAttention(width, heads, batch_first=True) if multihead else None
        self.qkv = None if multihead else nn.Linear(width, 3 * width)
        self.out = None if multihead else nn.Linear(width, width)
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        h = self.before(x)
        if self.attend is not None:
            h = self.attend(h, h, h, need_weights=False)[0]
        else:
            q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in self.qkv(h).chunk(3, 2))
            h = self.out(F.scaled_dot_product_attention(q, k, v, is_causal=self.causal).transpose(1, 2).flatten(2))
        x = x + h
        return x + self.mlp(self.between(x))


class ViT(nn.Module):
    def __init__(self, width: int = 64, multihead: bool = False):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, stride=4)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 17, width))
        self.blocks = nn.Sequential(*(Block(width, multihead=multihead) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x):
        h = self.patch(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(len(x), -1, -1), h], 1) + self.places
        return self.head(self.norm(self.blocks(h))[:, 0])


class GPT(nn.Module):
    def __init__(self, width: int = 64, words: int = 100):
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(32, width)
        self.blocks = nn.Sequential(*(Block(width, causal=True) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10, bias=False)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.words(x) + self.places(torch.arange(x.shape[1], device=x.device))))[:, -1])


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(16, 32), nn.Linear(32, 10)

    def forward(self, x):
        h = x.new_zeros(len(x), 32)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return self.head(h)


class ConvNeXt(nn.Module):
    def __init__(self, width: int = 32):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, stride=4)
        self.depth, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale, self.head = nn.Parameter(torch.full((width,), 0.1)), nn.Linear(width, 10)

    def forward(self, x):
        h = self.stem(x)
        d = self.norm(self.depth(h).permute(0, 2, 3, 1))
        h = h.permute(0, 2, 3, 1) + self.scale * self.narrow(F.gelu(self.wide(d)))
        return self.head(h.mean((1, 2)))


class SqueezeExcite(nn.Module):
    def __init__(self, width: int = 16):
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(3, width, 3, padding=1), nn.Linear(width, 4), nn.Linear(4, width)
        self.next, self.head = nn.Conv2d(width, width, 3, padding=1), nn.Linear(width, 10)

    def forward(self, x):
        h = self.conv(x).relu()
        h = h * self.up(self.down(h.mean((2, 3))).relu()).sigmoid()[:, :, None, None]
        return self.head(self.next(h).relu().mean((2, 3)))


class UNet(nn.Module):
    def __init__(self, width: int = 8):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 2 * width, 3, padding=1)
        self.up, self.c = nn.ConvTranspose2d(2 * width, width, 2, stride=2), nn.Conv2d(2 * width, 1, 3, padding=1)

    def forward(self, x):
        one = self.a(x).relu()
        two = self.b(F.max_pool2d(one, 2)).relu()
        return self.c(torch.cat([one, self.up(two)], 1)).mean((2, 3))


class LoRA(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64).requires_grad_(False) for _ in range(3))
        self.down = nn.ParameterList(nn.Parameter(torch.randn(4, 64) / 8) for _ in range(3))
        self.up = nn.ParameterList(nn.Parameter(torch.randn(64, 4) / 2) for _ in range(3))
        self.head = nn.Linear(64, 10).requires_grad_(False)

    def forward(self, x):
        for layer, down, up in zip(self.layers, self.down, self.up, strict=True):
            x = torch.tanh(layer(x) + (x @ down.T) @ up.T)
        return self.head(x)


class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.pair, self.head = nn.Linear(32, 24), nn.Bilinear(24, 24, 16), nn.Linear(16, 10)

    def forward(self, x):
        h = torch.tanh(self.first(x))
        return self.head(torch.tanh(self.pair(h, h)))


class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("edges", (torch.rand(12, 12) < 0.3).float())
        self.a, self.b, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 10)

    def forward(self, x):
        h = torch.relu(self.edges @ self.a(x))
        return self.head(torch.relu(self.edges @ self.b(h)).mean(1))


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.other = ntk.mlp((784, 256, 10)), nn.Linear(784, 512)

    def forward(self, x):
        return self.body(x)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.body = nn.Parameter(torch.ones(784)), ntk.mlp((784, 512, 10))

    def forward(self, x):
        return self.body(x * self.scale)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(3000, 64), nn.Linear(64, 10)

    def forward(self, x):
        return self.head(torch.tanh(self.words(x)).mean(1))


def mobile() -> nn.Module:
    """Build depthwise separable convolutions with batch norm, in eval mode."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1)]
    for _ in range(2):
        layers += [nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.ReLU6()]
        layers += [nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)).eval()


def pictures(channels: int, size: int) -> Callable[[int], Tensor]:
    return lambda n: torch.randn(n, channels, size, size)


def tokens(words: int, length: int) -> Callable[[int], Tensor]:
    return lambda n: torch.randint(0, words, (n, length))


def numbers(*shape: int) -> Callable[[int], Tensor]:
    return lambda n: torch.randn(n, *shape)


weight_norm = nn.utils.parametrizations.weight_norm
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "MLP 784-512-512-10": (lambda: ntk.mlp((784, 512, 512, 10)), numbers(784)),
    "MLP, scaled input": (Scaled, numbers(784)),
    "MLP, RMSNorm": (
        lambda: nn.Sequential(nn.Linear(128, 128), nn.RMSNorm(128), nn.SiLU(), nn.Linear(128, 10)),
        numbers(128),
    ),
    "MLP, weight norm": (
        lambda: nn.Sequential(weight_norm(nn.Linear(64, 64)), nn.Tanh(), weight_norm(nn.Linear(64, 10))),
        numbers(64),
    ),
    "MLP, unused head": (Unused, numbers(784)),
    "LoRA factors": (LoRA, numbers(64)),
    "bilinear": (Bilinear, numbers(32)),
    "LeNet-5": (ntk.lenet5, pictures(1, 28)),
    "CNN, batch norm": (mobile, pictures(3, 16)),
    "Conv1d": (
        lambda: nn.Sequential(
            nn.Conv1d(4, 16, 5), nn.ReLU(), nn.Conv1d(16, 16, 5), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 10)
        ),
        numbers(4, 100),
    ),
    "Conv3d": (
        lambda: nn.Sequential(
            nn.Conv3d(1, 8, 3), nn.ReLU(), nn.Conv3d(8, 8, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 10)
        ),
        numbers(1, 10, 10, 10),
    ),
    "transposed convolution": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(4, 16, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(16, 8, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 10),
        ),
        pictures(4, 8),
    ),
    "instance norm": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3),
            nn.InstanceNorm2d(16, affine=True),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 10),
        ),
        pictures(3, 12),
    ),
    "ConvNeXt block": (ConvNeXt, pictures(3, 32)),
    "squeeze and excite": (SqueezeExcite, pictures(3, 16)),
    "U-Net": (UNet, pictures(1, 16)),
    "GRU cell, 5 steps": (Cell, numbers(5, 16)),
    "ViT": (ViT, pictures(3, 16)),
    "ViT, MultiheadAttention": (lambda: ViT(multihead=True), pictures(3, 16)),
    "GPT, 32 tokens": (GPT, tokens(100, 32)),
    "embedding of 3,000": (Words, tokens(3000, 16)),
    "graph of 12 nodes": (Graph, numbers(12, 8)),
}


def recipe(model: nn.Module, x: Tensor, c: Tensor | None) -> Tensor:
    """Compute a kernel as one would without this package: the eNTK where c is None."""
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def output(free, one):
        return functional_call(model, free, (one[None],))[0]

    if c is None:
        found = vmap(jacrev(output), (None, 0))(weights, x)
        return sum(torch.einsum("nad,mbd->nmab", g.flatten(2), g.flatten(2)) for g in found.values())
    found = vmap(grad(lambda free, one, v: output(free, one) @ v), (None, 0, 0))(weights, x, c)
    return sum(g.flatten(1) @ g.flatten(1).T for g in found.values())


def seconds(call: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    out = call()
    if out.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compared(model: nn.Module, x: Tensor, entk: bool, repeats: int) -> tuple[float, float, float]:
    """Return the median time of ours, the median ratio of neighbouring runs, and the relative difference."""
    k = model(x[:1]).shape[1]
    y = torch.arange(len(x), device=x.device) % k
    c = None if entk else ntk.labelled(y)(torch.zeros(len(x), k, device=x.device))

    def ours() -> Tensor:
        return ntk.entk(model, x) if entk else ntk.lpntk(model, x, y)

    def theirs() -> Tensor:
        return recipe(model, x, c)

    one, other = ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    ratio, mine = statistics.median(t / o for o, t in pairs), statistics.median(o for o, _ in pairs)
    return mine, ratio, float((one - other).norm() / other.norm())


def main() -> int:
    """Run, print a table, and return 0 when the recipe is nowhere faster and half of the models gain a factor of two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="words of the names of models")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if lost := [word for word in args.only if not any(word.lower() in name.lower() for name in MODELS)]:
        parser.error(f"--only: got {', '.join(lost)}; wanted words of {', '.join(MODELS)}")
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # the recipe in the precision that ours keeps by itself
    warnings.simplefilter("ignore")
    print(f"{'model':26}{'lpNTK ours':>11}{'ratio':>7}{'error':>9}{'eNTK ours':>11}{'ratio':>7}{'error':>9}  routes")
    ratios: list[float] = []
    for name, (build, draw) in MODELS.items():
        if args.only and not any(word.lower() in name.lower() for word in args.only):
            continue
        torch.manual_seed(0)
        model = build().to(args.device)
        line = f"{name:26}"
        for n, entk in ((128, False), (24, True)):
            mine, ratio, error = compared(model, draw(n).to(args.device), entk, args.repeats)
            ratios.append(ratio)
            line += f"{1e3 * mine:8.1f} ms{ratio:7.2f}{error:9.0e}"
        routes = Counter(ntk.Gram(model, draw(2).to(args.device), ntk.ones).routes.values())
        print(f"{line}  {', '.join(f'{route} {count}' for route, count in routes.items())}", flush=True)
    slower, double = sum(r < 1 for r in ratios), sum(r >= 2 for r in ratios)
    print(f"{len(ratios)} ratios: {slower} below 1, {double} of at least 2")
    return int(slower > 0 or 2 * double < len(ratios))


if __name__ == "__main__":
    raise SystemExit(main())
