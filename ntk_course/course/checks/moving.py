"""Checks of chapter 12: moving weights a little."""

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

from .core import Outcome, compare, random

__all__ = [
    "moves_of_units",
    "kernel_of_hidden_units",
    "units_needed",
    "share_of_flips",
    "smallest_move",
]


def moves_of_units(answer: Callable) -> Outcome:
    """Check ``answer(signs, transported, epsilon) -> (m, d)``: how far each unit's weights move."""
    cases = [(torch.tensor([1.0, -1, 1, -1], dtype=torch.float64)[: 2 * n], random(2 * n, 3, seed=n), 0.4) for n in (1, 2)]

    def scaled(s, t, e, power=0.5):
        return s[:, None] * t / (e * len(s) ** power)

    return compare(
        answer,
        cases,
        scaled,
        {
            "The signs are missing: a unit with a negative sign must move the other way.": (
                lambda s, t, e: scaled(torch.ones_like(s), t, e)
            ),
            "Divide by the root of m; the network has the other root itself.": lambda s, t, e: scaled(s, t, e, 1.0),
            "epsilon is on the wrong side: the network multiplies by it, so the moves are divided.": (
                lambda s, t, e: scaled(s, t, e) * e**2
            ),
            "The moves do not shrink with the number of units: divide by its root.": lambda s, t, e: scaled(s, t, e, 0.0),
        },
    )


def kernel_of_hidden_units(answer: Callable) -> Outcome:
    """Check ``answer(x, other) -> float``: the tangent kernel of infinitely many hidden units, with biases."""
    cases = [(random(3, seed=s), random(3, seed=s + 10)) for s in range(3)]

    def kernel(a, b, one=1.0, turn=lambda t: (math.pi - t) / (2 * math.pi)):
        a, b = F.pad(a, (0, 1), value=one), F.pad(b, (0, 1), value=one)
        return float(a @ b) * turn(math.acos(float(a @ b / a.norm() / b.norm())))

    return compare(
        answer,
        cases,
        kernel,
        {
            "The bias is missing: append a one to both points.": lambda a, b: kernel(a, b, one=0.0),
            "A unit is on at one point half of the time, so for equal points this must be half the square: 2 pi.": (
                lambda a, b: kernel(a, b, turn=lambda t: (math.pi - t) / math.pi)
            ),
            "This is the probability that exactly one of the two is on; wanted both.": (
                lambda a, b: kernel(a, b, turn=lambda t: t / (2 * math.pi))
            ),
            "The inner product of the points is missing.": lambda a, b: kernel(a, b) / float(a @ b + 1),
        },
    )


def units_needed(answer: Callable) -> Outcome:
    """Check ``answer(error, units, wanted) -> int``: how many units bring a Monte Carlo error down to one that is wanted."""
    cases = [(0.1, 1000, 0.05), (0.2, 64, 0.05)]
    return compare(
        answer,
        cases,
        lambda e, m, w: round(m * (e / w) ** 2),
        {
            "The error falls like the root of the number of units: half the error takes four times as many.": (
                lambda e, m, w: round(m * e / w)
            ),
            "The exponent is turned round: square the ratio of the errors.": lambda e, m, w: round(m * (e / w) ** 0.5),
            "The ratio is upside down: a smaller error takes more units.": lambda e, m, w: round(m * (w / e) ** 2),
        },
    )


def share_of_flips(answer: Callable) -> Outcome:
    """Check ``answer(weights, moves, x) -> float``: the share of (point, unit) pairs whose unit turns, bias last."""
    cases = [(random(12, 4, seed=s), 0.7 * random(12, 4, seed=s + 5), random(6, 3, seed=s + 9)) for s in range(3)]

    def on(w, x, one=1.0):
        return F.pad(x, (0, 1), value=one) @ w.T > 0

    return compare(
        answer,
        cases,
        lambda w, t, x: float((on(w, x) != on(w + t, x)).double().mean()),
        {
            "This is the number of flips; wanted their share.": lambda w, t, x: float((on(w, x) != on(w + t, x)).sum()),
            "Units that turn off count as well as those that turn on.": lambda w, t, x: float(
                (~on(w, x) & on(w + t, x)).double().mean()
            ),
            "The bias is missing: append a one to the points.": lambda w, t, x: float(
                (on(w, x, 0.0) != on(w + t, x, 0.0)).double().mean()
            ),
            "This compares the sign of the move; wanted the unit before and after it.": lambda w, t, x: float(
                (on(w, x) != on(t, x)).double().mean()
            ),
        },
    )


def smallest_move(answer: Callable) -> Outcome:
    """Check ``answer(features, change) -> (d,)``: the shortest move whose first-order change is ``change`` (N,)."""

    def move(phi, r):
        return phi.T @ torch.linalg.solve(phi @ phi.T, r)

    return compare(
        answer,
        [(random(n, d, seed=d), random(n, seed=n)) for n, d in ((3, 9), (5, 20))],
        move,
        {
            "That is one gradient step: it points the right way for no sample. Solve with the Gram matrix first.": (
                lambda phi, r: phi.T @ r
            ),
            "These are the coefficients (N,) of the kernel machine; the move is their combination of features.": (
                lambda phi, r: torch.linalg.solve(phi @ phi.T, r)
            ),
            "A ridge gives a shorter move that does not reach the change: without it, please.": (
                lambda phi, r: phi.T @ torch.linalg.solve(phi @ phi.T + torch.eye(len(r), dtype=phi.dtype), r)
            ),
        },
    )
