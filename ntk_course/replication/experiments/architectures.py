"""Kernels of seven architectures: how fast finite networks come to them, what they learn from few images, random features of one."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, gelu, one_hot

from ...analysis.regression import kernel_ridge
from ...kernels.bound import empirical
from ...kernels.infinite import Kernels, limit, random_features
from ...models.unit_weights import standardised
from ...tangents.cotangents import basis
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import both_splits, slope, together


class Residual(nn.Module):
    """A branch of a norm, an activation and a layer, beside the way past it."""

    def __init__(self, n: int):
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(n), nn.Linear(n, n)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n) to (N, n)."""
        return x + self.layer(torch.relu(self.norm(x)))


class Rows(nn.Module):
    """A recurrent network that reads an image row by row."""

    def __init__(self, channels: int, side: int, n: int):
        super().__init__()
        self.rnn = nn.RNN(channels * side, n, batch_first=True, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to the last state (N, n)."""
        return self.rnn(x.transpose(1, 2).flatten(2))[0][:, -1]


class Patches(nn.Module):
    """One block of a vision transformer on four by four patches: attention with scores over the width, shared queries and keys."""

    def __init__(self, channels: int, side: int, n: int):
        super().__init__()
        patch = side // 4
        self.embed = nn.Conv2d(channels, n, patch, stride=patch)
        self.positions = nn.Parameter(torch.randn((side // patch) ** 2, n))
        self.query, self.value, self.mix = (nn.Linear(n, n, bias=False) for _ in range(3))
        self.up, self.down = nn.Linear(n, n), nn.Linear(n, n)
        self.before, self.between = nn.LayerNorm(n), nn.LayerNorm(n)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to the mean over tokens (N, n)."""
        h = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        g = self.before(h)
        q = self.query(g)
        scores = torch.softmax(q @ q.transpose(1, 2) / q.shape[-1], -1)
        h = h + self.mix(scores @ self.value(g))
        h = h + self.down(gelu(self.up(self.between(h))))
        return h.mean(1)


class Pixels(nn.Module):
    """Two graph convolutions: every pixel takes the mean over itself and its neighbours, all pixels alike."""

    def __init__(self, channels: int, side: int, n: int):
        super().__init__()
        place = torch.arange(side)
        near = (place[:, None] - place).abs() <= 1
        edges = torch.kron(near, near) & (torch.cdist(_grid(side), _grid(side), p=1) <= 1)
        self.register_buffer("edges", edges / edges.sum(1, keepdim=True))
        self.first, self.second = nn.Linear(channels, n), nn.Linear(n, n)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to the mean over pixels (N, n)."""
        h = x.flatten(2).transpose(1, 2)
        h = torch.relu(self.first(self.edges @ h))
        return torch.relu(self.second(self.edges @ h)).mean(1)


def _grid(side: int) -> Tensor:
    place = torch.arange(side, dtype=torch.float32)
    return torch.cartesian_prod(place, place)


def _convolutions(channels: int, n: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, n, 3, padding=1), nn.ReLU(), nn.Conv2d(n, n, 3, padding=1), nn.ReLU()]


# By name: from the width n, the channels and the side of an image to what comes before the last layer, and that layer's inputs.
BODIES: dict[str, Callable[[int, int, int], tuple[list[nn.Module], int]]] = {
    "dense": lambda n, c, s: ([nn.Flatten(), nn.Linear(c * s * s, n), nn.ReLU(), nn.Linear(n, n), nn.ReLU()], n),
    "residual": lambda n, c, s: ([nn.Flatten(), nn.Linear(c * s * s, n), Residual(n), Residual(n)], n),
    "convolutional": lambda n, c, s: ([*_convolutions(c, n), nn.Flatten()], n * s * s),
    "convolutional, pooled": lambda n, c, s: ([*_convolutions(c, n), nn.AdaptiveAvgPool2d(1), nn.Flatten()], n),
    "recurrent": lambda n, c, s: ([Rows(c, s, n)], n),
    "attention": lambda n, c, s: ([Patches(c, s, n)], n),
    "graph": lambda n, c, s: ([Pixels(c, s, n)], n),
}


def build(name: str, width: int, channels: int, side: int, outputs: int = 10) -> nn.Sequential:
    """Build one of the networks, initialised as torch does it."""
    body, n = BODIES[name](width, channels, side)
    return nn.Sequential(*body, nn.Linear(n, outputs)).eval()


def drawn(net: nn.Module, w_std: float, b_std: float) -> nn.Module:
    """Draw weights of the same scale at every width, which torch's own biases have not: they vanish with it."""
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "norm" in name or "before" in name or "between" in name:
                continue
            scale = 1.0 if name.endswith("positions") else b_std if "bias" in name else w_std / p[0].numel() ** 0.5
            p.copy_(torch.randn_like(p) * scale)
    return net


@dataclass(frozen=True)
class Config:
    """Settings; float64, on the CPU.

    Attributes:
        data: name of the data set.
        side: to which images are shrunk, by means over squares.
        networks: of :data:`BODIES`.
        widths: of the finite networks.
        few: images whose kernels are compared.
        pool: images that training samples are drawn from.
        tested: images of the test split.
        sizes: samples drawn.
        ridge: of the regressions, as a share of the kernel's mean diagonal.
        w_std: of all networks.
        b_std: likewise.
        counts: random features a layer, of the dense network's kernel.
        seeds: of networks, draws and features.
    """

    data: str = "mnist"
    side: int = 14
    networks: tuple[str, ...] = tuple(BODIES)
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    few: int = 6
    pool: int = 300
    tested: int = 300
    sizes: tuple[int, ...] = (50, 100, 200)
    ridge: float = 1e-3
    w_std: float = 1.0
    b_std: float = 0.1
    counts: tuple[int, ...] = (64, 256, 1024, 4096)
    seeds: tuple[int, ...] = tuple(range(20))


# "smoke", "class" (digits), "paper" (MNIST at 14 x 14) or "narrow" (CIFAR-10 at 8 x 8, on a CPU).
PRESETS = {
    "smoke": Config(
        data="digits", side=4, widths=(16, 32), few=3, pool=30, tested=20, sizes=(10, 20), counts=(16, 64), seeds=(0, 1)
    ),
    "class": Config(data="digits", side=8),
    "paper": Config(),
    "narrow": Config(data="cifar10", side=8),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Compare finite networks with their limits, and regress with the limits; rows by part, network and seed."""
    learnt, test = both_splits(config.data)
    data = together([learnt, test])
    order = torch.randperm(len(learnt.x), generator=torch.Generator().manual_seed(0))[: config.pool]
    x, asked = (_shrunk(images, config.side) for images in (learnt.x[order], test.x[: config.tested]))
    y, wanted = learnt.y[order], test.y[: config.tested]
    targets = one_hot(y, data.num_classes).double() - 1 / data.num_classes
    channels = x.shape[1]

    @cache
    def world(name: str) -> tuple[Kernels, Kernels]:
        """Return the limit's kernels of the pool, and of the images asked about with the pool."""
        net = build(name, 32, channels, config.side)
        own = {n: 1.0 for n, _ in net.named_parameters() if n.endswith("positions")}
        how = {"w_std": config.w_std, "b_std": config.b_std, "deviations": own}
        return limit(net, x, **how), limit(net, asked, x, **how)

    def widths(seed: int, name: str) -> list[dict]:
        rows = []
        for n in config.widths:
            torch.manual_seed(1000 * seed + n)
            net = drawn(build(name, n, channels, config.side), config.w_std, config.b_std).double()
            infinite = limit(net, x[: config.few]).ntk
            found = empirical(standardised(net), basis)(x[: config.few])
            rows.append({"part": "width", "network": name, "width": n, "error": _off(found, infinite)})
        return rows

    def accuracy(seed: int, name: str) -> list[dict]:
        rows, (own, cross) = [], world(name)
        for size in config.sizes:
            chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(1000 * seed + size))[:size]
            row = {"part": "accuracy", "network": name, "samples": size}
            for kind in ("nngp", "ntk"):
                gram, other = getattr(own, kind), getattr(cross, kind)
                row[kind] = _accuracy(gram[chosen][:, chosen], other[:, chosen], targets[chosen], wanted, config.ridge)
            rows.append(row)
        return rows

    def features(seed: int, name: str) -> list[dict]:
        rows, (own, cross) = [], world("dense")
        exact = _accuracy(own.ntk, cross.ntk, targets, wanted, config.ridge)
        for count in config.counts:
            how = {"depth": 2, "count": count, "w_std": config.w_std, "b_std": config.b_std, "seed": seed}
            mine, theirs = random_features(x, **how), random_features(asked, **how)
            rows.append(
                {
                    "part": "features",
                    "count": count,
                    "error": _off(mine @ mine.T, own.ntk),
                    "accuracy": _accuracy(mine @ mine.T, theirs @ mine.T, targets, wanted, config.ridge),
                    "exact": exact,
                }
            )
        return rows

    kinds = {"width": widths, "accuracy": accuracy, "features": features}
    parts = [(kind, name) for kind in ("width", "accuracy") for name in config.networks] + [("features", "dense")]
    return over_seeds(
        "architectures",
        preset,
        config,
        data,
        lambda seed, kind, name: kinds[kind](seed, name),
        device=torch.device("cpu"),
        parts=parts,
        folder=folder,
        progress=progress,
    )


def _shrunk(images: Tensor, side: int) -> Tensor:
    """Return images (N, C, side, side) in float64, of mean square 1."""
    small = avg_pool2d(images.double(), images.shape[-1] // side)
    return small / small.square().mean((1, 2, 3), keepdim=True).sqrt()


def _off(found: Tensor, wanted: Tensor) -> float:
    """Return the relative error in the Frobenius norm."""
    return float((found - wanted).norm() / wanted.norm())


def _accuracy(gram: Tensor, cross: Tensor, targets: Tensor, wanted: Tensor, ridge: float) -> float:
    fit = kernel_ridge(gram, targets, ridge * float(gram.diagonal().mean()))
    return float((fit.predict(cross).argmax(1) == wanted).double().mean())


def quoted(result: Result) -> list[Quoted]:
    """Set the rate of convergence, and the gain of pooling, beside the run."""
    found = []
    for name, rows in result.frame(part="width").groupby("network", sort=False):
        slopes = [slope(mine.width, mine.error) for _, mine in rows.groupby("seed")]
        found.append(Quoted.of("Any architecture", f"power of the width in the kernel's error, {name}", None, slopes))
    rows = result.frame(part="accuracy")
    by = rows[rows.samples == rows.samples.max()].pivot(index="seed", columns="network", values="ntk")
    gain = 100 * (by["convolutional, pooled"] - by["convolutional"])
    found.append(Quoted.of("Pooling", "accuracy gained by pooling, points", None, gain.tolist()))
    rows = result.frame(part="features")
    slopes = [slope(mine["count"], mine.error) for _, mine in rows.groupby("seed")]
    found.append(Quoted.of("Random features", "power of their number in the kernel's error", None, slopes))
    return found


# Columns of the rows, by part; "seed" is added to each.
COLUMNS = {
    "width": ("network", "width", "error"),
    "accuracy": ("network", "samples", "nngp", "ntk"),
    "features": ("count", "error", "accuracy", "exact"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, of_ours=True)
