"""Checks of chapter 11: reading path kernels."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .core import Outcome, compare, random

__all__ = [
    "most_to_blame",
    "gap_without",
    "is_a_kernel",
    "growth_and_angle",
    "posterior_deviation",
]


def most_to_blame(answer: Callable) -> Outcome:
    """Check ``answer(points, said, right, count) -> indices``: the training points that pushed most towards a mistake."""
    cases = [(random(9, 4, seed=s), 1, 3, 3) for s in range(4)]

    def top(value, count):
        return value.argsort(descending=True)[:count]

    return compare(
        answer,
        cases,
        lambda p, s, r, n: top(p[:, s] - p[:, r], n),
        {
            "These raised the wrong class; a mistake is a matter of wrong minus right.": lambda p, s, r, n: top(p[:, s], n),
            "These pushed towards the right class.": lambda p, s, r, n: top(p[:, r] - p[:, s], n),
            "These pushed hardest, in either direction; keep the sign.": lambda p, s, r, n: top((p[:, s] - p[:, r]).abs(), n),
        },
    )


def gap_without(answer: Callable) -> Outcome:
    """Check ``answer(train, x, y, drop, x_test, said, right) -> float``: the gap after training again without some points."""

    class Fit:
        """A stand-in for a training path: nearest class means, so that the check takes no time."""

        def __init__(self, x: Tensor, y: Tensor):
            self.means = torch.stack([x[y == k].mean(0) if (y == k).any() else torch.zeros_like(x[0]) for k in range(3)])

        def log_probs(self, x: Tensor) -> Tensor:
            return (-torch.cdist(x, self.means)).log_softmax(1)

    y = torch.arange(12) % 3
    cases = [(Fit, random(12, 2, seed=s), y, torch.tensor([1, 4, 6]), random(1, 2, seed=s + 5), 1, 0) for s in (0, 1)]

    def gap(train, x, y, keep, x_test, said, right):
        z = train(x[keep], y[keep]).log_probs(x_test)[0]
        return z[said] - z[right]

    def others(x, drop):
        keep = torch.ones(len(x), dtype=torch.bool)
        keep[drop] = False
        return keep

    return compare(
        answer,
        cases,
        lambda train, x, y, drop, x_test, s, r: gap(train, x, y, others(x, drop), x_test, s, r),
        {
            "This trains on the dropped points only; train on all others.": (
                lambda train, x, y, drop, x_test, s, r: gap(train, x, y, drop, x_test, s, r)
            ),
            "Nothing was dropped.": lambda train, x, y, drop, x_test, s, r: gap(train, x, y, slice(None), x_test, s, r),
            "The sign is turned: log-probability of the class said minus that of the right one.": (
                lambda train, x, y, drop, x_test, s, r: -gap(train, x, y, others(x, drop), x_test, s, r)
            ),
        },
    )


def is_a_kernel(answer: Callable) -> Outcome:
    """Check ``answer(gram) -> bool`` for Gram matrices (M, M, K, K): symmetric, and no negative eigenvalue."""
    phi = random(4, 3, 20)
    good = torch.einsum("nid,mjd->nmij", phi, phi)
    indefinite = good - 60 * torch.einsum("nm,ij->nmij", torch.eye(4).double(), torch.eye(3).double())
    lopsided = good * torch.linspace(1, 2, 4).double()[None, :, None, None]
    # symmetric points by points, but not with the outputs exchanged too
    twisted = 60 * torch.einsum("nm,ij->nmij", torch.eye(4).double(), torch.eye(3).double()) + random(3, 3, seed=3)
    cases = [(good,), (indefinite,), (lopsided,), (twisted,), (60 * torch.ones(2, 2, 1, 1).double(),)]

    def matrix(g):
        n, _, k, _ = g.shape
        return g.permute(0, 2, 1, 3).reshape(n * k, n * k)

    def symmetric(g):
        return torch.allclose(g, g.T)

    def definite(g):
        return float(torch.linalg.eigvalsh((g + g.T) / 2)[0]) > -1e-9 * float(g.abs().max())

    return compare(
        answer,
        cases,
        lambda g: symmetric(matrix(g)) and definite(matrix(g)),
        {
            "Symmetry is not enough: look at the eigenvalues too.": lambda g: symmetric(matrix(g)),
            "Eigenvalues are not enough: eigvalsh reads one triangle and does not notice that the other differs.": (
                lambda g: definite(matrix(g))
            ),
            "Exchange the points and the outputs together: the transpose of entry [n, m, i, j] is [m, n, j, i].": (
                lambda g: torch.allclose(g, g.transpose(0, 1)) and definite(matrix(g))
            ),
            "Always true is no test.": lambda g: True,
        },
    )


def growth_and_angle(answer: Callable) -> Outcome:
    """Check ``answer(first, last) -> (growth, degrees)``: how weights grew and by which angle they turned."""
    cases = [(random(9, seed=s), random(9, seed=s) + 0.7 * random(9, seed=s + 1)) for s in (0, 5)]

    def both(a, b):
        return float(b.norm() / a.norm()), float(torch.rad2deg(torch.arccos(a @ b / a.norm() / b.norm())))

    return compare(
        answer,
        cases,
        both,
        {
            "The angle is in radians.": lambda a, b: (both(a, b)[0], math.radians(both(a, b)[1])),
            "This is how far the weights moved, not how much their norm grew.": lambda a, b: (
                float((b - a).norm() / a.norm()),
                both(a, b)[1],
            ),
            "This is the cosine; wanted the angle.": lambda a, b: (both(a, b)[0], math.cos(math.radians(both(a, b)[1]))),
            "The growth is the ratio of the norms, 1 for none.": lambda a, b: (both(a, b)[0] - 1, both(a, b)[1]),
        },
    )


def posterior_deviation(answer: Callable) -> Outcome:
    """Check ``answer(k_train, k_cross, k_test, noise) -> float``: a Gaussian process's standard deviation at one point."""
    cases = []
    for seed in range(3):
        phi = random(6, 4, seed=seed)
        gram = phi @ phi.T
        cases.append((gram[:5, :5], gram[5, :5], gram[5, 5], 0.3))

    def variance(k, c, t, noise):
        return t - c @ torch.linalg.solve(k + noise * torch.eye(len(k), dtype=k.dtype), c)

    return compare(
        answer,
        cases,
        lambda *a: variance(*a).sqrt(),
        {
            "This is the variance; take its root.": variance,
            "The noise is missing, it is added to the diagonal of the training block.": (
                lambda k, c, t, noise: variance(k, c, t, 1e-9).clamp(min=0).sqrt()
            ),
            "noise is a variance already, not to be squared.": lambda k, c, t, noise: variance(k, c, t, noise**2).sqrt(),
            "This is the prior's deviation; take away what the training points explain.": lambda k, c, t, noise: t.sqrt(),
        },
    )
