"""Checks of chapters 13 and 14: label-aware kernels, and comparing kernels."""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy import stats

from .core import Outcome, compare, random

__all__ = [
    "label_product_at",
    "label_product_without_itself",
    "elasticity_of",
    "kernel_after_one_point",
    "centred_alignment",
    "paired_difference",
    "cost_exponent",
    "supported_labels",
    "label_agreement",
    "agreement_beyond_chance",
]


def _problem(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    a = random(n, n + 2, seed=seed)
    return a @ a.T, torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, -1.0, 1.0][:n], dtype=torch.float64)


def _estimate(gram, y, h, left_out=(), sign=-1.0, power=2, divide=True):
    width = float(gram.max() - gram.min())
    above = below = 0.0
    for i in range(len(y)):
        for j in range(len(y)):
            if (i, j) not in left_out:
                weight = width**power + sign * float(h - gram[i, j]) ** 2
                above, below = above + weight * float(y[i] * y[j]), below + weight
    return above / below if divide else above / (len(y) ** 2 - len(left_out))


def label_product_at(answer: Callable) -> Outcome:
    """Check ``answer(gram, y, h) -> float``: the estimate of a label product at the kernel value h, LANTK-HR version 1."""
    cases = [(*_problem(n, s), h) for n, s, h in ((5, 0, 1.0), (7, 1, -0.5))]
    return compare(
        answer,
        cases,
        _estimate,
        {
            "Pairs with a kernel value near h count more: the squared distance is subtracted.": (
                lambda g, y, h: _estimate(g, y, h, sign=1.0)
            ),
            "sigma is squared, as the distance is.": lambda g, y, h: _estimate(g, y, h, power=1),
            "Divide by the sum of the weights, not by the number of pairs.": lambda g, y, h: _estimate(g, y, h, divide=False),
        },
    )


def label_product_without_itself(answer: Callable) -> Outcome:
    """Check ``answer(gram, y, i, j) -> float``: the estimate for a training pair that must not see its own labels' product."""
    cases = [(*_problem(5, 2), 0, 3), (*_problem(7, 3), 4, 1)]
    return compare(
        answer,
        cases,
        lambda g, y, i, j: _estimate(g, y, g[i, j], {(i, j), (j, i)}),
        {
            "The pair sees itself: its own product is in the sums.": lambda g, y, i, j: _estimate(g, y, g[i, j]),
            "The same pair is there twice, as (i, j) and as (j, i): leave both out.": (
                lambda g, y, i, j: _estimate(g, y, g[i, j], {(i, j)})
            ),
            "You left out every pair that contains one of the two; wanted this pair only.": lambda g, y, i, j: _estimate(
                g, y, g[i, j], {(a, b) for a in range(len(y)) for b in range(len(y)) if {a, b} & {i, j}}
            ),
        },
    )


def elasticity_of(answer: Callable) -> Outcome:
    """Check ``answer(gram, y) -> float``: the local elasticity of a kernel on its own training points."""
    cases = [_problem(5, 4), _problem(7, 5)]

    def elasticity(g, y, unit=True, own=False, ratio=False):
        d = g.diagonal().sqrt()
        k, same = g / (d[:, None] * d) if unit else g, y[:, None] == y
        within = k[same] if own else k[same & ~torch.eye(len(y), dtype=torch.bool)]
        within, between = float(within.mean()), float(k[~same].mean())
        return within / between if ratio else within / (within + between)

    return compare(
        answer,
        cases,
        elasticity,
        {
            "Scale the kernel to a unit diagonal first, or long samples decide.": lambda g, y: elasticity(g, y, unit=False),
            "A sample is no pair with itself: leave the diagonal out.": lambda g, y: elasticity(g, y, own=True),
            "Divide by the sum of both means, so that the value is a share.": lambda g, y: elasticity(g, y, ratio=True),
        },
    )


def kernel_after_one_point(answer: Callable) -> Outcome:
    """Check ``answer(h, k4, y) -> float``: the kernel value of a single training point after training, by the hierarchy."""
    return compare(
        answer,
        [(2.0, 0.3, 1.0), (0.5, -0.1, 2.0)],
        lambda h, k4, y: h + k4 * y**2 / (2 * h**2),
        {
            "The residual decays while K3 grows: the double integral has a factor one half.": (
                lambda h, k4, y: h + k4 * y**2 / h**2
            ),
            "The target enters twice, once for K2 and once for K3: square it.": lambda h, k4, y: h + k4 * y / (2 * h**2),
            "Each integral over time brings 1/h: square it.": lambda h, k4, y: h + k4 * y**2 / (2 * h),
            "This is the change; add the kernel at the start.": lambda h, k4, y: k4 * y**2 / (2 * h**2),
        },
    )


def centred_alignment(answer: Callable) -> Outcome:
    """Check ``answer(gram, y) -> float``: the centred alignment of a kernel with labels -1 and 1."""
    cases = [_problem(5, 6), _problem(7, 7)]

    def aligned(g, y, centred=True, root=True):
        t = y[:, None] * y
        if centred:
            g, t = (m - m.mean(0) - m.mean(1, keepdim=True) + m.mean() for m in (g, t))
        scale = g.norm() * t.norm()
        return float((g * t).sum() / (scale if root else scale**2))

    return compare(
        answer,
        cases,
        aligned,
        {
            "Centre both matrices first: a constant kernel must have no alignment.": lambda g, y: aligned(g, y, centred=False),
            "Divide by the norms, not by their squares.": lambda g, y: aligned(g, y, root=False),
        },
    )


def paired_difference(answer: Callable) -> Outcome:
    """Check ``answer(a, b) -> (float, float)``: the mean difference of two kernels over seeds, and half its 95 % interval."""
    cases = [(random(5, seed=s).numpy(), random(5, seed=s + 1).numpy()) for s in range(2)]

    def paired(a, b, quantile=None, ddof=1):
        d = np.asarray(a) - np.asarray(b)
        t = stats.t.ppf(0.975, len(d) - 1) if quantile is None else quantile
        return d.mean(), t * d.std(ddof=ddof) / math.sqrt(len(d))

    def unpaired(a, b):
        spread = math.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / len(a))
        return np.mean(a) - np.mean(b), stats.t.ppf(0.975, 2 * len(a) - 2) * spread

    return compare(
        answer,
        cases,
        paired,
        {
            "Seed by seed the two saw the same images: take differences first, then their spread.": unpaired,
            "Five seeds are few: Student's t with n - 1 degrees of freedom, not 1.96.": lambda a, b: paired(a, b, 1.96),
            "Divide the squares by n - 1: the mean was estimated from the same numbers.": lambda a, b: paired(a, b, ddof=0),
            "One-sided: a 95 % interval leaves 2.5 % on either side.": (lambda a, b: paired(a, b, stats.t.ppf(0.95, len(a) - 1))),
        },
    )


def cost_exponent(answer: Callable) -> Outcome:
    """Check ``answer(sizes, seconds) -> float``: the power of the size with which a cost grows."""
    sizes = np.array([100.0, 200.0, 400.0, 800.0])
    cases = [(sizes, 3e-6 * sizes**2 * np.array([1, 1.1, 0.95, 1.0])), (sizes, 1e-3 * sizes * np.array([1.0, 0.9, 1.0, 1.1]))]
    return compare(
        answer,
        cases,
        lambda n, s: np.polyfit(np.log(n), np.log(s), 1)[0],
        {
            "Take logarithms of both: a power is a straight line then.": lambda n, s: np.polyfit(n, s, 1)[0],
            "The axes are turned round: seconds against size.": lambda n, s: np.polyfit(np.log(s), np.log(n), 1)[0],
            "Fit a line to all points; two of them carry the noise of two runs.": (
                lambda n, s: math.log(s[-1] / s[0]) / math.log(n[-1] / n[0])
            ),
        },
    )


def supported_labels(answer: Callable) -> Outcome:
    """Check ``answer(kernels) -> (M,)``: for each test point the label that the labelled training points support most."""
    cases = [(random(k, m, 6, seed=k),) for k, m in ((2, 5), (4, 8))]
    return compare(
        answer,
        cases,
        lambda k: k.mean(2).argmax(0),
        {
            "Add up over the training points first; the single largest value is one neighbour's opinion.": (
                lambda k: k.amax(2).argmax(0)
            ),
            "Support is similarity: take the largest, not the smallest.": lambda k: k.mean(2).argmin(0),
            "The first axis runs over the labels; this is the best training point.": lambda k: k.mean(0).argmax(1),
        },
    )


def label_agreement(answer: Callable) -> Outcome:
    """Check ``answer(y) -> (N, N)``: label products of 0/1 labels (N,), without what a sample says about itself."""

    def products(y, own=0.0):
        s = 2.0 * y.double() - 1
        found = torch.outer(s, s)
        found.fill_diagonal_(own)
        return found

    return compare(
        answer,
        [(torch.tensor(y),) for y in ([0, 1, 1], [1, 0, 0, 1, 1])],
        products,
        {
            "Labels are 0 and 1 here: make them -1 and 1 before multiplying.": (
                lambda y: torch.outer(y.double(), y.double()).fill_diagonal_(0)
            ),
            "A sample agrees with itself whatever its label: the diagonal is no evidence, and stays zero.": (
                lambda y: products(y, own=1.0)
            ),
            "Two samples of class 0 agree as well: their product is +1.": (
                lambda y: (2 * torch.outer(y.double(), y.double()) - 1).fill_diagonal_(0)
            ),
        },
    )


def agreement_beyond_chance(answer: Callable) -> Outcome:
    """Check ``answer(first, second, labels, classes) -> float``: agreement of two classifiers beyond what accuracy explains."""
    generator = torch.Generator().manual_seed(0)
    cases = []
    for n, k in ((12, 3), (40, 10)):
        y, other = (torch.randint(0, k, (n,), generator=generator) for _ in range(2))
        cases.append((torch.where(random(n, seed=n) > -0.5, y, other), torch.where(random(n, seed=n + 1) > -0.3, y, other), y, k))

    def beyond(first, second, y, k, wrong_too=True, subtract=True, divide=True):
        a, b = float((first == y).double().mean()), float((second == y).double().mean())
        chance = a * b + ((1 - a) * (1 - b) / (k - 1) if wrong_too else 0.0)
        same = float((first == second).double().mean())
        return (same - chance * subtract) / ((1 - chance) if divide else 1.0)

    return compare(
        answer,
        cases,
        beyond,
        {
            "Two wrong answers can be the same by chance too, with probability 1/(K - 1).": (
                lambda f, s, y, k: beyond(f, s, y, k, wrong_too=False)
            ),
            "This is the plain agreement: two good classifiers have it without knowing of each other.": (
                lambda f, s, y, k: beyond(f, s, y, k, subtract=False, divide=False)
            ),
            "Divide by what there is to gain, one minus the agreement by chance.": (
                lambda f, s, y, k: beyond(f, s, y, k, divide=False)
            ),
        },
    )
