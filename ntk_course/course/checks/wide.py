"""Checks of chapter 3: infinitely wide networks."""

import math
from collections.abc import Callable

import torch

from .core import Outcome, compare, random

__all__ = [
    "relu_expectations",
    "tangent_recursion",
    "flow_answer",
    "share_along_first",
    "first_covariance",
    "width_for",
]


def _gram(n: int, seed: int) -> torch.Tensor:
    a = random(n, n + 3, seed=seed)
    return a @ a.T / (n + 3)


def _layer(k12, k11, k22, full=2 * math.pi, slope=1.0):
    angle = math.acos(max(-1.0, min(1.0, k12 / math.sqrt(k11 * k22))))
    value = math.sqrt(k11 * k22) / full * (math.sin(angle) + (math.pi - angle) * math.cos(angle))
    return value, slope * (math.pi - angle) / full


def relu_expectations(answer: Callable) -> Outcome:
    """Check ``answer(k12, k11, k22) -> (float, float)``: the mean products of ReLUs and of their slopes."""
    return compare(
        answer,
        [(0.3, 1.0, 1.0), (-0.5, 2.0, 0.7), (1.2, 1.5, 3.0)],
        _layer,
        {
            "Half of the units are on at one input: with equal inputs the slopes must give 1/2. Divide by 2 pi.": (
                lambda a, b, c: _layer(a, b, c, full=math.pi)
            ),
            "The angle belongs to the correlation: divide the covariance by both standard deviations.": (
                lambda a, b, c: _layer(max(-1.0, min(1.0, a)), 1.0, 1.0)
            ),
            "The product of ReLUs has the size of the inputs; the root of both variances is missing.": (
                lambda a, b, c: (_layer(a, b, c)[0] / math.sqrt(b * c), _layer(a, b, c)[1])
            ),
            "This is the share of units on at exactly one of the inputs; wanted both.": (
                lambda a, b, c: (_layer(a, b, c)[0], 0.5 - _layer(a, b, c)[1])
            ),
        },
    )


def tangent_recursion(answer: Callable) -> Outcome:
    """Check ``answer(products, variances, slopes) -> float``: the NTK from each layer's expectations, w_std 2 ** .5, no bias."""
    cases = [([0.7], [0.4], [0.3]), ([0.9, 0.7, 0.8], [0.5, 0.45, 0.4], [0.4, 0.35, 0.45])]

    def recursion(first, values, slopes, scale=2.0, damp=True, start=True):
        theta = 2.0 * first[0] if start else 0.0
        for value, slope in zip(values, slopes, strict=True):
            theta = 2.0 * value + (scale * slope if damp else 1.0) * theta
        return theta

    return compare(
        answer,
        cases,
        recursion,
        {
            "Each layer multiplies what lies below by its slopes: the factor is missing.": (
                lambda f, v, s: recursion(f, v, s, damp=False)
            ),
            "The weights of a layer scale the gradient too: sigma_w squared belongs before the slopes.": (
                lambda f, v, s: recursion(f, v, s, scale=1.0)
            ),
            "The first layer has weights of its own: start from Sigma_1, not from zero.": (
                lambda f, v, s: recursion(f, v, s, start=False)
            ),
            "This is the kernel of the last layer alone, the NNGP; the layers below are missing.": lambda f, v, s: 2.0 * v[-1],
        },
    )


def flow_answer(answer: Callable) -> Outcome:
    """Check ``answer(gram, cross, targets, time) -> (M,)``: what linear dynamics from output 0 answer at a time."""
    cases = [(_gram(4, s), random(3, 4, seed=s + 5), random(4, seed=s + 9), t) for s, t in ((0, 0.7), (1, 3.0))]

    def flow(h, k, y, t, sign=-1.0, inverse=True):
        values, vectors = torch.linalg.eigh(h)
        share = (1 - (sign * values * t).exp()) / (values if inverse else 1.0)
        return k @ vectors @ (share * (vectors.T @ y))

    return compare(
        answer,
        cases,
        flow,
        {
            "The residual decays: the exponent is minus the kernel times the time.": lambda h, k, y, t: flow(h, k, y, t, 1.0),
            "The inverse of the kernel is missing.": lambda h, k, y, t: flow(h, k, y, t, inverse=False),
            "This is the end of training; at a finite time not everything is learnt.": (
                lambda h, k, y, t: k @ torch.linalg.solve(h, y)
            ),
            "This is what is left to learn, not what has been learnt: I minus the exponential.": (
                lambda h, k, y, t: k @ torch.linalg.solve(h, y) - flow(h, k, y, t)
            ),
        },
    )


def share_along_first(answer: Callable) -> Outcome:
    """Check ``answer(gram, y, count) -> float``: the share of the targets along the ``count`` largest eigenvectors."""
    cases = [(_gram(6, s), random(6, seed=s + 3), c) for s, c in ((0, 1), (1, 2), (2, 4))]

    def share(h, y, c, largest=True, power=2):
        along = (torch.linalg.eigh(h)[1].T @ y).abs().pow(power)
        return float((along[-c:] if largest else along[:c]).sum() / y.abs().pow(power).sum())

    return compare(
        answer,
        cases,
        share,
        {
            "torch.linalg.eigh puts the smallest eigenvalue first; take the last columns.": (
                lambda h, y, c: share(h, y, c, largest=False)
            ),
            "Shares add up to one for squares, not for absolute values.": lambda h, y, c: share(h, y, c, power=1),
            "Divide by the squared norm of the targets.": lambda h, y, c: share(h, y, c) * float(y.square().sum()),
        },
    )


def first_covariance(answer: Callable) -> Outcome:
    """Check ``answer(x1, x2, w_std, b_std) -> float``: the covariance of a first-layer preactivation at two inputs (d,)."""
    return compare(
        answer,
        [(random(d, seed=d), random(d, seed=d + 20), 1.5, 0.3) for d in (3, 8)],
        lambda a, b, w, s: w**2 * (a @ b) / len(a) + s**2,
        {
            "The weights carry the factor 1/sqrt(d), so the inner product is divided by d.": (
                lambda a, b, w, s: w**2 * (a @ b) + s**2
            ),
            "This is a covariance: sigma_w and sigma_b enter squared.": lambda a, b, w, s: w * (a @ b) / len(a) + s,
            "The bias is the same at both inputs, so it is correlated with itself: add sigma_b squared.": (
                lambda a, b, w, s: w**2 * (a @ b) / len(a)
            ),
            "Divide by d once: the factor 1/sqrt(d) comes once from each input.": (
                lambda a, b, w, s: w**2 * (a @ b) / len(a) ** 0.5 + s**2
            ),
        },
    )


def width_for(answer: Callable) -> Outcome:
    """Check ``answer(widths, deviations, target) -> float``: the width at which a fitted power law reaches a deviation."""
    cases = []
    for power, seed in ((-0.5, 0), (-0.6, 1)):
        widths = torch.tensor([32.0, 64.0, 128.0, 512.0], dtype=torch.float64)
        cases.append((widths, 2.0 * widths**power * (0.1 * random(4, seed=seed)).exp(), 0.01))

    def fitted(widths, deviations, target, power=None, logs=True):
        x, y = (widths.log(), deviations.log()) if logs else (widths, deviations)
        slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum() if power is None else power
        start = y.mean() - slope * x.mean()
        wanted = ((math.log(target) if logs else target) - start) / slope
        return float(wanted.exp() if logs else wanted)

    return compare(
        answer,
        cases,
        fitted,
        {
            "A power law is a line on logarithmic axes: fit the logarithms.": lambda w, d, t: fitted(w, d, t, logs=False),
            "You took the slope -1/2 for granted: fit it.": lambda w, d, t: fitted(w, d, t, power=-0.5),
            "This scales the last point with slope -1/2; fit a line to all of them.": (
                lambda w, d, t: float(w[-1] * (d[-1] / t) ** 2)
            ),
        },
    )
