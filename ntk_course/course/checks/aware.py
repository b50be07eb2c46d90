"""Checks of chapters 13 and 14: label-aware kernels, and comparing kernels."""

import math

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from .core import Check
from .draws import Draw

__all__ = [
    "label_agreement",
    "label_product_at",
    "label_product_without_itself",
    "elasticity_of",
    "kernel_after_one_point",
    "centred_alignment",
    "supported_labels",
    "paired_difference",
    "cost_exponent",
    "agreement_beyond_chance",
]


# ----- chapter 13


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


def _kernels(draw: Draw):
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
    yield next(iter(_kernels(draw)))
    for k in (2, 3, 2, 3):
        n = draw.integer(6, 9)
        y = draw.labels(n, k)
        y[: 2 * k] = torch.arange(k).repeat(2)[: 2 * k]
        features = torch.cat([draw.normal(n, 4), 2 + torch.zeros(n, 1, dtype=torch.float64)], 1) * (0.5 + draw.normal(n, 1).abs())
        yield features @ features.T, y
    yield next(iter(_kernels(draw)))[0] * torch.tensor([[1.0, 1, -1], [1, 1, -1], [-1, -1, 1]]).double(), torch.tensor([0, 0, 1])


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


# ----- chapter 14


def _aligned(g: Tensor, y: Tensor, centred: bool = True, root: bool = True, target: bool = True) -> float:
    t = torch.outer(y, y)

    def middle(m: Tensor) -> Tensor:
        return m - m.mean(0) - m.mean(1, keepdim=True) + m.mean()

    if centred:
        g, t = middle(g), middle(t) if target else t
    scale = g.norm() * t.norm()
    return float((g * t).sum() / (scale if root else scale**2))


centred_alignment = Check(
    number="14.1",
    wants="answer(gram, y) -> float",
    reference=_aligned,
    cases=_kernels,
    mistakes={
        "Centre both matrices first: a constant kernel must have no alignment.": lambda g, y: _aligned(g, y, centred=False),
        "Divide by the norms, not by their squares.": lambda g, y: _aligned(g, y, root=False),
        "The label products are centred too, before their norm is taken.": lambda g, y: _aligned(g, y, target=False),
        "Only the columns are centred; rows lose their means too.": (
            lambda g, y: (lambda a, b: float((a * b).sum() / a.norm() / b.norm()))(
                g - g.mean(0), torch.outer(y, y) - torch.outer(y, y).mean(0)
            )
        ),
        "The overall mean is missing: taking away both means takes it away twice.": (
            lambda g, y: (lambda f: (lambda a, b: float((a * b).sum() / a.norm() / b.norm()))(f(g), f(torch.outer(y, y))))(
                lambda m: m - m.mean(0) - m.mean(1, keepdim=True)
            )
        ),
    },
)


def _supports(draw: Draw):
    yield (torch.tensor([[[1.0, 1.0, 1.0]], [[2.5, 0.0, 0.0]]], dtype=torch.float64),)
    for _ in range(4):
        k, m, n = draw.sizes(3, 2, 9)
        yield (draw.normal(k, m, n),)


supported_labels = Check(
    number="14.2",
    wants="answer(kernels) -> (M,)",
    reference=lambda k: k.mean(2).argmax(0),
    cases=_supports,
    mistakes={
        "Add up over the training points first; the single largest value is one neighbour's opinion.": lambda k: k.amax(2).argmax(
            0
        ),
        "Support is similarity: take the largest, not the smallest.": lambda k: k.mean(2).argmin(0),
        "The first axis runs over the labels; this is the best training point.": lambda k: k.mean(0).argmax(1),
        "This is the support itself; wanted the label that has most of it.": lambda k: k.mean(2).amax(0),
        "A negative value speaks against a label: do not take absolute values.": lambda k: k.abs().mean(2).argmax(0),
    },
)


def _scores(draw: Draw):
    yield np.array([2.0, 4.0, 3.0]), np.array([1.0, 2.0, 3.0])
    for n in draw.sizes(4, 3, 9):
        base = 3 * draw.normal(n).numpy()  # seeds differ more than the kernels
        yield base + draw.normal(n).numpy(), base + draw.normal(n).numpy()


def _paired(a, b, quantile: float | None = None, ddof: int = 1) -> tuple[float, float]:
    d = np.asarray(a) - np.asarray(b)
    t = stats.t.ppf(0.975, len(d) - 1) if quantile is None else quantile
    return float(d.mean()), float(t * d.std(ddof=ddof) / math.sqrt(len(d)))


def _unpaired(a, b) -> tuple[float, float]:
    spread = math.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / len(a))
    return float(np.mean(a) - np.mean(b)), float(stats.t.ppf(0.975, 2 * len(a) - 2) * spread)


paired_difference = Check(
    number="14.3",
    wants="answer(a, b) -> (float, float)",
    reference=_paired,
    cases=_scores,
    mistakes={
        "Seed by seed the two saw the same images: take differences first, then their spread.": _unpaired,
        "Few seeds: Student's t with n - 1 degrees of freedom, not 1.96.": lambda a, b: _paired(a, b, 1.96),
        "Divide the squares by n - 1: the mean was estimated from the same numbers.": lambda a, b: _paired(a, b, ddof=0),
        "One-sided: a 95 % interval leaves 2.5 % on either side.": lambda a, b: _paired(a, b, stats.t.ppf(0.95, len(a) - 1)),
        "This is the whole width; wanted half of it.": lambda a, b: (_paired(a, b)[0], 2 * _paired(a, b)[1]),
        "This is the standard error; the interval reaches t times as far.": lambda a, b: _paired(a, b, 1.0),
        "This is the spread of one difference; that of their mean is smaller by the root of n.": (
            lambda a, b: (_paired(a, b)[0], _paired(a, b)[1] * math.sqrt(len(a)))
        ),
        "The sign is turned: a minus b.": lambda a, b: (-_paired(a, b)[0], _paired(a, b)[1]),
        "These are n degrees of freedom; n - 1 are left once the mean is known.": lambda a, b: _paired(
            a, b, stats.t.ppf(0.975, len(a))
        ),
        "These are the two ends of the interval; wanted its middle and half its width.": (
            lambda a, b: (_paired(a, b)[0] - _paired(a, b)[1], _paired(a, b)[0] + _paired(a, b)[1])
        ),
    },
)


def _costs(draw: Draw):
    yield np.array([100.0, 200.0, 400.0]), np.array([0.01, 0.04, 0.16])
    for _ in range(3):
        n = draw.integer(4, 7)
        sizes = 100.0 * 2.0 ** draw.order(8)[:n].double().numpy()
        yield sizes, draw.uniform(1e-6, 1e-3) * sizes ** draw.uniform(0.8, 3.2, 2) * np.exp(0.1 * draw.normal(n).numpy())


cost_exponent = Check(
    number="14.4",
    wants="answer(sizes, seconds) -> float",
    reference=lambda n, s: float(np.polyfit(np.log(n), np.log(s), 1)[0]),
    cases=_costs,
    mistakes={
        "Take logarithms of both: a power is a straight line then.": lambda n, s: float(np.polyfit(n, s, 1)[0]),
        "Take logarithms of the sizes too.": lambda n, s: float(np.polyfit(n, np.log(s), 1)[0]),
        "The axes are turned round: seconds against size.": lambda n, s: float(np.polyfit(np.log(s), np.log(n), 1)[0]),
        "Fit a line to all points; two of them carry the noise of two runs.": lambda n, s: (
            math.log(s[-1] / s[0]) / math.log(n[-1] / n[0])
        ),
        "This is the intercept; np.polyfit returns the slope first.": lambda n, s: float(np.polyfit(np.log(n), np.log(s), 1)[1]),
        "Rounded: a fit need not be a whole number, and its digits say how well it is one.": (
            lambda n, s: float(round(float(np.polyfit(np.log(n), np.log(s), 1)[0])))
        ),
    },
)


def _classifiers(draw: Draw):
    yield torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2]), 3
    for k, n in zip(draw.sizes(3, 3, 9), (12, 20, 40), strict=True):
        y = draw.labels(n, k)

        def guess(share: float, y=y, n=n, k=k) -> Tensor:
            return torch.where(draw.bits(n, share=share), y, draw.integers(0, k - 1, n))

        yield guess(0.6), guess(0.7), y, k


def _beyond(
    first, second, y, k, wrong_too: bool = True, subtract: bool = True, divide: bool = True, ways: int | None = None
) -> float:
    a, b = float((first == y).double().mean()), float((second == y).double().mean())
    chance = a * b + ((1 - a) * (1 - b) / (k - 1 if ways is None else ways) if wrong_too else 0.0)
    alike = float((first == second).double().mean())
    return (alike - chance * subtract) / ((1 - chance) if divide else 1.0)


agreement_beyond_chance = Check(
    number="14.5",
    wants="answer(first, second, labels, classes) -> float",
    reference=_beyond,
    cases=_classifiers,
    mistakes={
        "Two wrong answers can be the same by chance too, with probability 1/(K - 1).": lambda f, s, y, k: _beyond(
            f, s, y, k, wrong_too=False
        ),
        "There are K - 1 wrong classes, not K.": lambda f, s, y, k: _beyond(f, s, y, k, ways=k),
        "Two wrong answers are not always the same: one of K - 1 wrong classes.": lambda f, s, y, k: _beyond(f, s, y, k, ways=1),
        "This is the plain agreement: two good classifiers have it without knowing of each other.": (
            lambda f, s, y, k: _beyond(f, s, y, k, subtract=False, divide=False)
        ),
        "Divide by what there is to gain, one minus the agreement by chance.": lambda f, s, y, k: _beyond(
            f, s, y, k, divide=False
        ),
        "This is Cohen's kappa, from how often each class was answered; here chance comes from the two accuracies.": (
            lambda f, s, y, k: (lambda po, pe: float((po - pe) / (1 - pe)))(
                (f == s).double().mean(), sum((f == c).double().mean() * (s == c).double().mean() for c in range(k))
            )
        ),
    },
)
