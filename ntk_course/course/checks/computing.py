"""Checks of chapter 2: computing the tangent kernel."""

import math

import torch
from torch import Tensor

from ...kernels.named import entk
from ...models.networks import mlp
from .core import Check
from .draws import Draw

__all__ = [
    "jacobian_memory",
    "entk_from_gradients",
    "pseudo_ntk",
    "nothing_in_common",
    "linear_layer_share",
    "positions_to_form",
]


def _memories(draw: Draw):
    yield 1024, 2, 1024, 4
    for size in draw.each((2, 4, 8)):
        yield draw.integer(100, 70_000), draw.integer(3, 100), draw.integer(1_000, 10_000_000), size


jacobian_memory = Check(
    number="2.1",
    wants="answer(n, k, d, bytes_each) -> float",
    reference=lambda n, k, d, b: n * k * d * b / 2**30,
    cases=_memories,
    mistakes={
        "One row for each sample is not enough: each of the K outputs has a gradient of its own.": lambda n, k, d, b: (
            n * d * b / 2**30
        ),
        "These are gigabytes (10^9); a GiB is 2^30 bytes.": lambda n, k, d, b: n * k * d * b / 1e9,
        "These are bytes; divide by 2^30.": lambda n, k, d, b: n * k * d * b,
        "These are MiB; a GiB is 2^30 bytes.": lambda n, k, d, b: n * k * d * b / 2**20,
        "The size of one number is missing: multiply by bytes_each.": lambda n, k, d, b: n * k * d / 2**30,
        "That is the kernel, N^2 K^2 numbers; wanted the Jacobian.": lambda n, k, d, b: n * n * k * k * b / 2**30,
        "Rounded: wanted the number itself.": lambda n, k, d, b: float(round(n * k * d * b / 2**30)),
    },
)


def _networks(draw: Draw):
    """Networks with two hidden layers: with one, every K x K block is symmetric. The first is worked out by hand."""
    layers = [torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2)]
    by_hand = torch.nn.Sequential(*layers).double()
    values = iter((1.0, -1.0, 0.0, 1.0, 2.0, 1.0, 1.0, -1.0, 0.0, 1.0, 1.0, 2.0, -1.0, 1.0, 0.0, 0.0))
    with torch.no_grad():
        for parameter in by_hand.parameters():
            parameter.copy_(torch.tensor([next(values) for _ in range(parameter.numel())]).view_as(parameter))
    yield by_hand, torch.tensor([[1.0]], dtype=torch.float64), torch.tensor([[-1.0], [2.0]], dtype=torch.float64)
    for activation in ("tanh", "relu", "tanh"):
        n, m, k, d = draw.sizes(4, 2, 7)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw.integer(0, 2**31))
            model = mlp((d, 6, 5, k), activation).double()
        yield model, draw.normal(n, d), draw.normal(m, d)


def _some(keep):
    """Return the kernel of some parameters only."""

    def kernel(model, x1, x2):
        everyone = [name for name, _ in model.named_parameters()]
        names = [name for name in everyone if keep(name, everyone)]
        params = [dict(model.named_parameters())[name] for name in names]

        def rows(x):
            out = []
            for x_n in x:
                z = model(x_n[None])[0]
                grads = [torch.autograd.grad(z_i, params, retain_graph=True) for z_i in z]
                out.append(torch.stack([torch.cat([g.flatten() for g in each]) for each in grads]))
            return torch.stack(out)

        return torch.einsum("nid,mjd->nmij", rows(x1), rows(x2))

    return kernel


entk_from_gradients = Check(
    number="2.2",
    wants="answer(model, x1, x2) -> (N, M, K, K)",
    reference=entk,
    cases=_networks,
    mistakes={
        "Each K x K block is transposed: entry [n, m, i, j] pairs output i of x1[n] with output j of x2[m].": (
            lambda *a: entk(*a).transpose(2, 3)
        ),
        "The axes are in another order: wanted (N, M, K, K), the two samples first, then their outputs.": (
            lambda *a: entk(*a).permute(0, 2, 1, 3)
        ),
        "There is a factor 1/K too many: that belongs to the pseudo-NTK.": lambda model, a, b: (
            entk(model, a, b) / entk(model, a, b).shape[-1]
        ),
        "This is a single number for each pair: the outputs must not be summed over.": lambda *a: entk(*a).sum((2, 3)),
        "These are the weights' gradients alone; biases are parameters too.": _some(lambda name, names: "bias" not in name),
        "This is the last layer alone; every parameter belongs to the Jacobian.": _some(lambda name, names: name in names[-2:]),
        "This is the kernel of x1 with itself; the second argument is x2.": lambda model, a, b: entk(model, a),
        "These are gradients of the probabilities; wanted those of the logits.": lambda model, a, b: entk(
            torch.nn.Sequential(model, torch.nn.Softmax(1)), a, b
        ),
    },
)


def _kernels(draw: Draw):
    for case in _networks(draw):
        yield (entk(*case).detach(),)


pseudo_ntk = Check(
    number="2.3",
    wants="answer(kernel) -> (N, M)",
    reference=lambda kernel: kernel.sum((2, 3)) / kernel.shape[-1],
    cases=_kernels,
    mistakes={
        "The factor 1/K is missing: divide the sum of the K x K entries by K.": lambda kernel: kernel.sum((2, 3)),
        "This is the mean of the K x K entries, a factor 1/K^2; wanted 1/K.": lambda kernel: kernel.mean((2, 3)),
        "This is the trace divided by K: the off-diagonal entries belong to the sum as well.": (
            lambda kernel: kernel.diagonal(dim1=2, dim2=3).mean(-1)
        ),
        "This divides by the number of samples; K is the length of the last two axes.": lambda kernel: (
            kernel.sum((2, 3)) / kernel.shape[0]
        ),
        "The sums run over the samples; K is in the last two axes.": lambda kernel: kernel.sum((0, 1)) / kernel.shape[-1],
    },
)


def _blind(got, wanted) -> bool | str:
    if not (isinstance(got, Tensor) and got.dim() == 2 and got.shape[0] == got.shape[1] and len(got) >= 2):
        return "Return one square block K(x, x), at least 2 x 2."
    scale = float(got.abs().max())
    if not torch.allclose(got, got.T, atol=1e-6 * scale):
        return "K(x, x) = J J^T is symmetric; this is not."
    if float(torch.linalg.eigvalsh(got)[0]) < -1e-6 * scale:
        return "K(x, x) = J J^T has no negative eigenvalue; this has one."
    if scale == 0:
        return "Every entry is zero, and a block of zeros was excluded."
    if abs(float(got.sum())) > 1e-6 * scale * len(got):
        return f"Its pseudo-NTK, the sum of the entries over K, is {float(got.sum()) / len(got):.3g}; wanted 0."
    return True


nothing_in_common = Check(
    number="2.4",
    wants="answer() -> (K, K)",
    reference=lambda: torch.tensor([[1.0, -1.0], [-1.0, 1.0]]),
    cases=lambda draw: [()],
    judge=_blind,
)


def _layers(draw: Draw):
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    yield 2 * one, 3 * one, one, one
    # two positions, one channel: every t meets every u
    two = torch.tensor([[[1.0], [2.0]]], dtype=torch.float64)
    yield two, torch.tensor([[[1.0], [-3.0]]], dtype=torch.float64), 3 * two, torch.tensor([[[2.0], [5.0]]], dtype=torch.float64)
    for _ in range(3):
        n, m, t, p, q = draw.sizes(5, 2, 7)
        yield draw.normal(n, t, p), draw.normal(n, t, q), draw.normal(m, t, p), draw.normal(m, t, q)


def _share(a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, bias: float = 1.0) -> Tensor:
    inputs, sent = torch.einsum("ntp,mup->nmtu", a1, a2), torch.einsum("ntq,muq->nmtu", b1, b2)
    return ((inputs + bias) * sent).sum((2, 3))


linear_layer_share = Check(
    number="2.5",
    wants="answer(a1, b1, a2, b2) -> (N, M)",
    reference=_share,
    cases=_layers,
    mistakes={
        "The bias is missing: its gradient is the sum of b over positions, so the first factor is a a' + 1.": (
            lambda a1, b1, a2, b2: _share(a1, b1, a2, b2, bias=0.0)
        ),
        "Every position meets its own only; the gradient is a sum over positions, so every t meets every u.": (
            lambda a1, b1, a2, b2: ((torch.einsum("ntp,mtp->nmt", a1, a2) + 1) * torch.einsum("ntq,mtq->nmt", b1, b2)).sum(2)
        ),
        "Inputs and cotangents are summed over positions before they are multiplied; the outer products come first.": (
            lambda a1, b1, a2, b2: (a1.sum(1) @ a2.sum(1).T + 1) * (b1.sum(1) @ b2.sum(1).T)
        ),
        "The two products are added; the inner product of outer products is their product.": (
            lambda a1, b1, a2, b2: (torch.einsum("ntp,mup->nmtu", a1, a2) + torch.einsum("ntq,muq->nmtu", b1, b2)).sum((2, 3))
        ),
        "The 1 sits at the wrong factor: the bias pairs b with b, so it is (a a' + 1) (b b').": (
            lambda a1, b1, a2, b2: (torch.einsum("ntp,mup->nmtu", a1, a2) * (torch.einsum("ntq,muq->nmtu", b1, b2) + 1)).sum(
                (2, 3)
            )
        ),
        "The bias is counted where t = u only; its gradient is a sum over positions too.": (
            lambda a1, b1, a2, b2: _share(a1, b1, a2, b2, bias=0.0) + torch.einsum("ntq,mtq->nm", b1, b2)
        ),
        "Positions and channels are one axis here: sum over the channels of each pair of positions, then over the pairs.": (
            lambda a1, b1, a2, b2: (a1.flatten(1) @ a2.flatten(1).T + 1) * (b1.flatten(1) @ b2.flatten(1).T)
        ),
        "Position t of the inputs must meet position t of the cotangents: the same t and u in both factors.": (
            lambda a1, b1, a2, b2: ((torch.einsum("ntp,mup->nmtu", a1, a2) + 1) * torch.einsum("ntq,muq->nmut", b1, b2)).sum(
                (2, 3)
            )
        ),
        "This is the mean over positions; a gradient is the sum.": lambda a1, b1, a2, b2: (
            _share(a1, b1, a2, b2) / a1.shape[1] ** 2
        ),
    },
)


def _shapes(draw: Draw):
    yield 4, 4
    yield 1, 1
    yield 2, 2
    yield 25, 6
    yield 8, 3  # p q = 24 = 2 (p + q + 1): below 2^2, above 1
    yield 4, 8
    yield 14, 4  # 56, T = 2: 4 * 19 = 76
    yield 99, 100
    for _ in range(6):
        yield draw.integer(2, 600), draw.integer(2, 600)
    # exactly equal at T = 2: p q = 4 (p + q + 1), that is (p - 4)(q - 4) = 20
    yield from ((5, 24), (6, 14), (8, 9), (24, 5))
    yield 8, 10  # 80 lies between 4 (p + q + 1) and 4 (p + q + 2)
    yield 7, 10  # 70 lies between 4 (p + q) and 4 (p + q + 1)


positions_to_form = Check(
    number="2.6",
    wants="answer(p, q) -> int",
    reference=lambda p, q: math.isqrt(-(-p * q // (p + q + 1)) - 1) + 1 if p * q > p + q + 1 else 1,
    cases=_shapes,
    mistakes={
        "The factors meet at every pair of positions: T^2 of them, not T.": lambda p, q: max(1, -(-p * q // (p + q + 1))),
        "Rounded down: at that T the factors are still cheaper.": lambda p, q: max(1, math.isqrt(p * q // (p + q + 1))),
        "Where both cost the same, forming costs no more: T counts.": lambda p, q: math.isqrt(p * q // (p + q + 1)) + 1,
        "A pair of positions costs p + q + 1: two inner products, and one multiply-add to combine them.": (
            lambda p, q: max(1, math.isqrt(-(-p * q // (p + q)) - 1) + 1)
        ),
        "Not rounded: a number of positions is whole.": lambda p, q: math.sqrt(p * q / (p + q + 1)),
    },
)
