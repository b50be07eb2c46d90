"""Checks of chapter 13: label-aware kernels."""

import torch
from torch import Tensor

from .core import Check
from .draws import Draw

__all__ = [
    "label_agreement",
    "label_product_at",
    "label_product_without_itself",
    "elasticity_of",
    "kernel_after_one_point",
]


def _binary(draw: Draw):
    yield (torch.tensor([0, 1, 1]),)
    yield (torch.tensor([1, 0, 0, 1, 1]),)
    for _ in range(3):
        yield (draw.labels(draw.integer(4, 8), 2),)


def _products(y: Tensor, own: float = 0.0) -> Tensor:
    s = 2.0 * y.double() - 1
    return torch.outer(s, s).fill_diagonal_(own)


label_agreement = Check(
    number="13.1",
    wants="answer(y) -> (N, N)",
    reference=_products,
    cases=_binary,
    mistakes={
        "Labels are 0 and 1 here: make them -1 and 1 before multiplying.": lambda y: torch.outer(
            y.double(), y.double()
        ).fill_diagonal_(0),
        "A sample agrees with itself whatever its label: the diagonal is no evidence, and stays zero.": lambda y: _products(
            y, own=1.0
        ),
        "Two samples of class 0 agree as well: their product is +1.": lambda y: (
            2 * torch.outer(y.double(), y.double()) - 1
        ).fill_diagonal_(0),
        "A pair of two classes counts -1, not 0.": lambda y: (y[:, None] == y).double().fill_diagonal_(0),
    },
)


def _pairs(n: int, draw: Draw) -> tuple[Tensor, Tensor]:
    return draw.gram(n), 2.0 * draw.labels(n, 2).double() - 1


def _estimate(gram: Tensor, y: Tensor, h: float, left_out=(), sign: float = -1.0, power: int = 2, divide: bool = True) -> float:
    width = float(gram.max() - gram.min())
    weights = width**power + sign * (float(h) - gram) ** 2
    for i, j in left_out:
        weights[i, j] = 0
    above, below = float((weights * torch.outer(y, y)).sum()), float(weights.sum())
    return above / below if divide else above / (len(y) ** 2 - len(left_out))


def _values(draw: Draw):
    yield torch.tensor([[2.0, 1.0], [1.0, 4.0]], dtype=torch.float64), torch.tensor([1.0, -1.0], dtype=torch.float64), 3.0
    for _ in range(4):
        gram, y = _pairs(draw.integer(4, 8), draw)
        yield gram, y, draw.uniform(float(gram.min()), float(gram.max()), 3)


label_product_at = Check(
    number="13.2",
    wants="answer(gram, y, h) -> float",
    reference=_estimate,
    cases=_values,
    mistakes={
        "Pairs with a kernel value near h count more: the squared distance is subtracted.": lambda g, y, h: _estimate(
            g, y, h, sign=1.0
        ),
        "sigma is squared, as the distance is.": lambda g, y, h: _estimate(g, y, h, power=1),
        "Not divided: Z is a weighted mean of label products.": lambda g, y, h: float(
            (((g.max() - g.min()) ** 2 - (h - g) ** 2) * torch.outer(y, y)).sum()
        ),
        "Divide by the sum of the weights, not by the number of pairs.": lambda g, y, h: _estimate(g, y, h, divide=False),
        "A sample with itself is in the sums too: they run over all i and j.": (
            lambda g, y, h: _estimate(g, y, h, {(i, i) for i in range(len(y))})
        ),
        "sigma is the whole range of H, largest less smallest entry, not the largest entry.": (
            lambda g, y, h: float(((g.max() ** 2 - (h - g) ** 2) * torch.outer(y, y)).sum() / (g.max() ** 2 - (h - g) ** 2).sum())
        ),
        "sigma is the whole range of H, not its standard deviation.": (
            lambda g, y, h: float(((g.var() - (h - g) ** 2) * torch.outer(y, y)).sum() / (g.var() - (h - g) ** 2).sum())
        ),
    },
)


def _places(draw: Draw):
    small = torch.tensor([[2.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 1.0]], dtype=torch.float64)
    yield small, torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64), 0, 1
    larger = torch.tensor(
        [[2.0, 1.0, 0.0, 1.0], [1.0, 3.0, 0.5, 0.2], [0.0, 0.5, 1.0, 0.3], [1.0, 0.2, 0.3, 4.0]], dtype=torch.float64
    )
    yield larger, torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64), 0, 2  # the pair with the smallest value
    for _ in range(4):
        gram, y = _pairs(draw.integer(4, 8), draw)
        i, j = draw.order(len(y))[:2].tolist()
        yield gram, y, i, j


def _narrower(gram: Tensor, y: Tensor, i: int, j: int) -> float:
    kept = torch.ones_like(gram, dtype=torch.bool)
    kept[i, j] = kept[j, i] = False
    weights = (gram[kept].max() - gram[kept].min()) ** 2 - (gram[i, j] - gram) ** 2
    weights[~kept] = 0
    return float((weights * torch.outer(y, y)).sum() / weights.sum())


label_product_without_itself = Check(
    number="13.3",
    wants="answer(gram, y, i, j) -> float",
    reference=lambda g, y, i, j: _estimate(g, y, g[i, j], {(i, j), (j, i)}),
    cases=_places,
    mistakes={
        "sigma stays the range of all of H; only the two sums leave the pair out.": lambda g, y, i, j: _narrower(g, y, i, j),
        "The pair sees itself: its own product is in the sums.": lambda g, y, i, j: _estimate(g, y, g[i, j]),
        "The same pair is there twice, as (i, j) and as (j, i): leave both out.": lambda g, y, i, j: _estimate(
            g, y, g[i, j], {(i, j)}
        ),
        "You left out every pair that contains one of the two; wanted this pair only.": (
            lambda g, y, i, j: _estimate(g, y, g[i, j], {(a, b) for a in range(len(y)) for b in range(len(y)) if {a, b} & {i, j}})
        ),
        "Out of the numerator only: its weight is still in the denominator.": (
            lambda g, y, i, j: (
                _estimate(g, y, g[i, j])
                - 2 * float((g.max() - g.min()) ** 2 * y[i] * y[j]) / float(((g.max() - g.min()) ** 2 - (g[i, j] - g) ** 2).sum())
            )
        ),
        "The diagonal is left out too; a sample with itself is another pair.": (
            lambda g, y, i, j: _estimate(g, y, g[i, j], {(i, j), (j, i), *((a, a) for a in range(len(y)))})
        ),
    },
)


def kernels_of_two_classes(draw: Draw):
    """Yield a Gram matrix and labels -1 and 1, two or more of each but in the first case."""
    yield (
        torch.tensor([[1.0, 0.5, 0.2], [0.5, 1.0, 0.1], [0.2, 0.1, 1.0]], dtype=torch.float64),
        torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64),
    )
    for _ in range(4):
        gram, y = _pairs(draw.integer(5, 9), draw)
        y[:4] = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
        yield gram, y


def _any_labels(draw: Draw):
    """Yield kernels whose means are away from zero, so that their share is a number, with labels of two classes or three."""
    yield next(iter(kernels_of_two_classes(draw)))
    for k in (2, 3, 2, 3):
        n = draw.integer(6, 9)
        y = draw.labels(n, k)
        y[: 2 * k] = torch.arange(k).repeat(2)[: 2 * k]
        features = torch.cat([draw.normal(n, 4), 2 + torch.zeros(n, 1, dtype=torch.float64)], 1) * (0.5 + draw.normal(n, 1).abs())
        yield features @ features.T, y
    yield (
        next(iter(kernels_of_two_classes(draw)))[0] * torch.tensor([[1.0, 1, -1], [1, 1, -1], [-1, -1, 1]]).double(),
        torch.tensor([0, 0, 1]),
    )


def _elasticity(g: Tensor, y: Tensor, unit: bool = True, own: bool = False, ratio: bool = False) -> float:
    d = g.diagonal().sqrt()
    k, alike = g / (d[:, None] * d) if unit else g, y[:, None] == y
    within = k[alike] if own else k[alike & ~torch.eye(len(y), dtype=torch.bool)]
    within, between = float(within.mean()), float(k[~alike].mean())
    return within / between if ratio else within / (within + between)


elasticity_of = Check(
    number="13.4",
    wants="answer(gram, y) -> float",
    reference=_elasticity,
    cases=_any_labels,
    mistakes={
        "Scale the kernel to a unit diagonal first, or long samples decide.": lambda g, y: _elasticity(g, y, unit=False),
        "A sample is no pair with itself: leave the diagonal out.": lambda g, y: _elasticity(g, y, own=True),
        "Divide by the sum of both means, so that the value is a share.": lambda g, y: _elasticity(g, y, ratio=True),
        "This is the share of the pairs of two classes.": lambda g, y: 1 - _elasticity(g, y),
        "Sums depend on how many pairs there are; take means.": (
            lambda g, y: (lambda k, s, o: float(k[s & ~o].sum() / (k[s & ~o].sum() + k[~s].sum())))(
                g / torch.outer(g.diagonal().sqrt(), g.diagonal().sqrt()), y[:, None] == y, torch.eye(len(y), dtype=torch.bool)
            )
        ),
        "The diagonal is the square of a length: divide by the root of both.": (
            lambda g, y: _elasticity(g / torch.outer(g.diagonal(), g.diagonal()), y, unit=False)
        ),
        "Means can be negative, and belong in as they are: do not take absolute values.": lambda g, y: _elasticity(g.abs(), y),
    },
)


def _points(draw: Draw):
    yield 2.0, 0.4, 1.0
    for _ in range(4):
        yield draw.uniform(0.3, 3, 2), draw.uniform(-1, 1, 2), draw.uniform(-2, 2, 2)


kernel_after_one_point = Check(
    number="13.5",
    wants="answer(h, k4, y) -> float",
    reference=lambda h, k4, y: h + k4 * y**2 / (2 * h**2),
    cases=_points,
    mistakes={
        "The residual decays while K3 grows: the double integral has a factor one half.": lambda h, k4, y: h + k4 * y**2 / h**2,
        "The target enters twice, once for K2 and once for K3: square it.": lambda h, k4, y: h + k4 * y / (2 * h**2),
        "Each integral over time brings 1/h: square it.": lambda h, k4, y: h + k4 * y**2 / (2 * h),
        "This is the change; add the kernel at the start.": lambda h, k4, y: k4 * y**2 / (2 * h**2),
        "The sign is turned: K3 grows towards the residual, and K2 with it.": lambda h, k4, y: h - k4 * y**2 / (2 * h**2),
    },
)
