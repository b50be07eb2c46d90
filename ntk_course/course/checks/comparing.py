"""Checks of chapter 14: comparing kernels."""

import math

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from .core import Check
from .draws import Draw
from .label_aware import kernels_of_two_classes

__all__ = [
    "centred_alignment",
    "supported_labels",
    "paired_difference",
    "cost_exponent",
    "agreement_beyond_chance",
]


def _centred(m: Tensor) -> Tensor:
    return m - m.mean(0) - m.mean(1, keepdim=True) + m.mean()


def _aligned(g: Tensor, y: Tensor, centred: bool = True, root: bool = True, target: bool = True) -> float:
    t = torch.outer(y, y)
    if centred:
        g, t = _centred(g), _centred(t) if target else t
    scale = g.norm() * t.norm()
    return float((g * t).sum() / (scale if root else scale**2))


centred_alignment = Check(
    number="14.1",
    wants="answer(gram, y) -> float",
    reference=_aligned,
    cases=kernels_of_two_classes,
    mistakes={
        "Not centred, or centred without `keepdim=True` and the total mean: take the means away first, of both matrices.": lambda g, y: (
            _aligned(g, y, centred=False)
        ),
        "Divide by the norms, not by their squares.": lambda g, y: _aligned(g, y, root=False),
        "The label products are centred too, before their norm is taken.": lambda g, y: _aligned(g, y, target=False),
        "The kernel is centred too, not the labels' products alone.": lambda g, y: (
            lambda t: float((g * t).sum() / g.norm() / t.norm())
        )(_centred(torch.outer(y, y))),
        "Only the mean of all entries is gone (or `keepdim=True` is, to the same effect): rows and columns lose theirs.": lambda g, y: (
            (lambda a, b: float((a * b).sum() / a.norm() / b.norm()))(g - g.mean(), torch.outer(y, y) - torch.outer(y, y).mean())
        ),
        "Not divided by the norms.": lambda g, y: float((_centred(g) * _centred(torch.outer(y, y))).sum()),
        "Only one of the two is centred, rows or columns; both lose their means.": (
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
    # mean 0, 1; votes 1, 0; with values below 0 cut off 1, 1; by its own norm 0, 1
    yield (torch.tensor([[[5.0, 0.0, 0.0], [2.0, 2.0, -9.0]], [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]], dtype=torch.float64),)
    yield (torch.tensor([[[4.0, -4.0, 1.0]], [[0.5, 0.4, 0.3]]], dtype=torch.float64),)
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
        "This counts votes, one a training point; wanted the mean of the values.": lambda k: (
            torch.mode(k.argmax(0), dim=1).values
        ),
        "This counts positive values; wanted their mean, a large one counts for more.": lambda k: (
            (k > 0).double().mean(2).argmax(0)
        ),
        "A negative value speaks against a label: do not cut it off.": lambda k: k.clamp(min=0).mean(2).argmax(0),
        "The softmax over the labels is no part of it: the mean of the values themselves.": lambda k: (
            k.softmax(0).mean(2).argmax(0)
        ),
        "Each label's values are divided by their own norm; wanted the values themselves.": lambda k: (
            (k / k.norm(dim=2, keepdim=True)).mean(2).argmax(0)
        ),
        "The median is another label at times; wanted the mean.": lambda k: k.median(2).values.argmax(0),
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
        "Welch's or another unpaired test: the same images make the two go together; take differences first.": lambda a, b: (
            float(np.mean(a) - np.mean(b)),
            float(stats.t.ppf(0.975, len(a) - 1) * math.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / len(a))),
        ),
        "Divide by the root of n, not by n.": lambda a, b: (_paired(a, b)[0], _paired(a, b)[1] / math.sqrt(len(a))),
        "Twice the standard error is for many draws: Student's t with n - 1 degrees of freedom.": lambda a, b: _paired(a, b, 2.0),
        "Divide by n - 1, and take Student's t in the place of 1.96.": lambda a, b: _paired(a, b, 1.96, ddof=0),
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
        "The slopes between neighbours are averaged; wanted one line through all points, by least squares.": lambda n, s: float(
            np.mean(np.diff(np.log(s)) / np.diff(np.log(n)))
        ),
        "The sizes are no logarithms: take those of the seconds too.": lambda n, s: float(np.polyfit(np.log(n), s, 1)[0]),
        "The axes are turned round: seconds against size.": lambda n, s: float(np.polyfit(np.log(s), np.log(n), 1)[0]),
        "Fit a line to all points; two of them carry the noise of two runs.": lambda n, s: (
            math.log(s[-1] / s[0]) / math.log(n[-1] / n[0])
        ),
        "Fit a line to all points; the smallest and the largest size are two of them.": lambda n, s: (
            math.log(s[n.argmax()] / s[n.argmin()]) / math.log(n.max() / n.min())
        ),
        "This is the intercept; np.polyfit returns the slope first.": lambda n, s: float(np.polyfit(np.log(n), np.log(s), 1)[1]),
        "Rounded: a fit need not be a whole number, and its digits say how well it is one.": (
            lambda n, s: float(round(float(np.polyfit(np.log(n), np.log(s), 1)[0])))
        ),
    },
)


def _classifiers(draw: Draw):
    # right and right, wrong the same way, wrong in two ways, one of them right; class 3 of four does not occur
    yield torch.tensor([0, 0, 1, 2, 0]), torch.tensor([0, 0, 2, 2, 1]), torch.tensor([0, 1, 0, 2, 1]), 4
    # two classes: two wrong answers are always the same; and agreement below chance
    yield torch.tensor([0, 1, 0, 1]), torch.tensor([1, 0, 0, 1]), torch.tensor([0, 0, 0, 1]), 2
    yield torch.tensor([0, 1, 0, 0]), torch.tensor([1, 0, 1, 0]), torch.tensor([0, 0, 1, 0]), 2
    for k, n in zip(draw.sizes(3, 3, 9), (12, 20, 40), strict=True):
        y = draw.labels(n, k - 1)  # one class does not occur

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
        "Divide by K - 1, the number of wrong classes, for any number of classes.": lambda f, s, y, k: _beyond(
            f, s, y, k, ways=1
        ),
        "K is `classes`, also where a class does not occur among the labels.": lambda f, s, y, k: _beyond(
            f, s, y, len(y.unique())
        ),
        "They agree too where both are wrong in the same way.": lambda f, s, y, k: _beyond(
            torch.where(f == y, f, -1), torch.where(s == y, s, -2), y, k
        ),
        "Two wrong answers agree only if they are the same.": lambda f, s, y, k: _beyond(
            torch.where(f == y, f, -1), torch.where(s == y, s, -1), y, k
        ),
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
