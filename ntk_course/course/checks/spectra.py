"""Checks of chapter 16: eigenvalues on the circle, waves learnt in turn, the budget of samples, predicted and estimated errors."""

import math

import torch
from torch import Tensor

from ...analysis.eigenframework import learning_curve
from .core import Check
from .draws import Draw

__all__ = ["eigenvalue_on_the_circle", "steps_to_learn", "shares_of_the_budget", "predicted_error", "error_from_the_samples"]


def _profiles(draw: Draw):
    yield torch.tensor([3.0, 1.0, -1.0, 1.0], dtype=torch.float64), 1
    yield torch.tensor([3.0, 1.0, -1.0, 1.0], dtype=torch.float64), 0
    for points, ell in ((12, 0), (9, 2), (16, 3), (10, 1)):
        angle = torch.arange(points, dtype=torch.float64) * 2 * math.pi / points
        yield sum(draw.uniform(0.2, 1) * torch.cos(k * angle) for k in range(points // 2)), ell


def _wave(k: Tensor, ell: int, half: bool = False) -> Tensor:
    return torch.cos(ell * torch.arange(len(k), dtype=torch.float64) * (1 if half else 2) * math.pi / len(k))


eigenvalue_on_the_circle = Check(
    number="16.1",
    wants="answer(values, ell) -> float",
    reference=lambda k, ell: float((k * _wave(k, ell)).mean()),
    cases=_profiles,
    mistakes={
        "The mean over the circle, not the sum: p is a distribution.": lambda k, ell: float((k * _wave(k, ell)).sum()),
        "That is the coefficient of the cosine in k's series; cosine and sine share it, and each has half.": lambda k, ell: float(
            (2 if ell else 1) * (k * _wave(k, ell)).mean()
        ),
        "The last angle is not 2 pi: M angles divide the circle into M parts.": lambda k, ell: float(
            (k * torch.cos(ell * torch.linspace(0, 2 * math.pi, len(k), dtype=torch.float64))).mean()
        ),
        "The angles go all the way round, not half of it.": lambda k, ell: float((k * _wave(k, ell, half=True)).mean()),
        "An eigenvalue is linear in the kernel: no square.": lambda k, ell: float((k * _wave(k, ell)).mean() ** 2),
    },
)


def _waits(draw: Draw):
    yield 0.5, 1.0, 0.5
    yield 0.5, 1.0, 0.75
    for _ in range(4):
        value = draw.uniform(0.05, 3, 2)
        yield value, round(draw.uniform(0.1, 0.9) / value, 3), draw.uniform(0.15, 0.95, 2)


steps_to_learn = Check(
    number="16.2",
    wants="answer(eigenvalue, rate, share) -> float",
    reference=lambda lam, rate, share: math.log(1 - share) / math.log(1 - rate * lam),
    cases=_waits,
    mistakes={
        "That is the time of the flow; a step multiplies what is left by 1 - eta lambda, whose logarithm is larger in size.": (
            lambda lam, rate, share: -math.log(1 - share) / (rate * lam)
        ),
        "What is left is 1 - share.": lambda lam, rate, share: math.log(share) / math.log(1 - rate * lam),
        "A step multiplies the error, not the square of it.": lambda lam, rate, share: (
            math.log(1 - share) / (2 * math.log(1 - rate * lam))
        ),
        "What is learnt multiplies up; shares of steps do not add.": lambda lam, rate, share: share / (rate * lam),
        "The rate is missing.": lambda lam, rate, share: math.log(1 - share) / math.log(abs(1 - lam) or 0.5),
    },
)


def _level(lam: Tensor, n: int, ridge: float) -> float:
    return learning_curve(lam, lam, n, ridge=ridge).constant


def _shares(lam: Tensor, n: int, ridge: float) -> Tensor:
    return lam / (lam + _level(lam, n, ridge))


def _budgets(draw: Draw):
    yield torch.tensor([1.0, 1.0, 1.0, 1.0], dtype=torch.float64), 2, 0.0
    yield torch.tensor([1.0, 1.0, 1.0, 1.0], dtype=torch.float64), 2, 1.0
    yield torch.tensor([4.0, 1.0], dtype=torch.float64), 1, 0.0
    for ridge in (0.0, draw.uniform(0.1, 2, 2), draw.uniform(0.1, 2, 2)):
        count = draw.integer(6, 12)
        lam = draw.normal(count).abs() + 0.05
        yield lam[draw.order(count)], draw.integer(2, count - 2), ridge


def _by_hand(lam: Tensor, n: int, ridge: float) -> Tensor:
    top = lam >= lam.sort(descending=True).values[n - 1]
    return top.to(lam)


shares_of_the_budget = Check(
    number="16.3",
    wants="answer(eigenvalues, samples, ridge) -> (R,)",
    reference=_shares,
    cases=_budgets,
    mistakes={
        "The ridge takes a part of the budget: delta over kappa.": lambda lam, n, ridge: _shares(lam, n, 0.0),
        "The ridge is divided by kappa in the sum, it is not added to kappa.": lambda lam, n, ridge: (
            lam / (lam + _level(lam, n, 0.0) + ridge)
        ),
        "The level is not the ridge over the samples: that leaves out what the small eigenvalues add to it.": lambda lam, n, ridge: (
            lam / (lam + ridge / n)
        ),
        "Shares in proportion to the eigenvalues add up to n as well, but the largest would be learnt more than wholly.": (
            lambda lam, n, ridge: n * lam / lam.sum()
        ),
        "The first n are not learnt wholly and the others not at all: every eigenfunction has a share.": _by_hand,
        "That is what is not learnt, 1 less the learnability.": lambda lam, n, ridge: 1 - _shares(lam, n, ridge),
        "These are the squares of the learnabilities.": lambda lam, n, ridge: _shares(lam, n, ridge) ** 2,
    },
)


def _errors(draw: Draw):
    half = torch.tensor([0.5, 0.25], dtype=torch.float64)
    yield half, torch.tensor([1.0, 2.0], dtype=torch.float64), 1, 0.0
    yield half, torch.tensor([1.0, 2.0], dtype=torch.float64), 2, 1.0
    for noise in (0.0, draw.uniform(0.1, 1, 2), draw.uniform(0.1, 1, 2)):
        count = draw.integer(4, 9)
        shares = torch.sigmoid(draw.normal(count))
        yield shares, draw.normal(count), int(shares.sum()) + draw.integer(1, 3), noise


def _error(shares, v, n, noise, *, factor=2, missed=2, target=2, noisy=True) -> float:
    over = n / (n - float((shares**factor).sum())) if factor else 1.0
    return over * (float(((1 - shares) ** missed * v.abs() ** target).sum()) + (noise if noisy else 0)) + (0 if noisy else noise)


predicted_error = Check(
    number="16.4",
    wants="answer(learnabilities, coefficients, samples, noise) -> float",
    reference=_error,
    cases=_errors,
    mistakes={
        "The factor n / (n - sum of squares) is missing: the fit follows its sample.": lambda s, v, n, z: _error(
            s, v, n, z, factor=0
        ),
        "Squares of the learnabilities in the factor: their plain sum is n without a ridge, and the factor infinite.": (
            lambda s, v, n, z: _error(s, v, n, z, factor=1)
        ),
        "What is missed of a coefficient is squared.": lambda s, v, n, z: _error(s, v, n, z, missed=1),
        "The coefficients are squared: the error is a mean square.": lambda s, v, n, z: _error(s, v, n, z, target=1),
        "The noise is fitted too: the factor multiplies it.": lambda s, v, n, z: _error(s, v, n, z, noisy=False),
        "The noise of the new targets counts as error too.": lambda s, v, n, z: _error(s, v, n, 0.0),
        "noise is the variance already.": lambda s, v, n, z: _error(s, v, n, z**2),
    },
)


def _samples(draw: Draw):
    yield torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64)), torch.tensor([2.0, 4.0], dtype=torch.float64), 1.0
    for _ in range(4):
        n, d = draw.sizes(2, 3, 8)
        phi = draw.normal(n, d)
        yield phi @ phi.T + 0.1 * torch.eye(n, dtype=torch.float64), draw.normal(n), draw.uniform(0.2, 2, 2)


def _estimate(gram: Tensor, y: Tensor, ridge: float, top: int = 2, below: int = 2, mean: bool = True) -> float:
    inverse = torch.linalg.inv(gram + ridge * torch.eye(len(gram), dtype=gram.dtype))
    level = inverse.diagonal().mean() if mean else inverse.trace()
    return float((inverse @ y).abs().pow(top).mean() / level**below)


def _left_out(gram: Tensor, y: Tensor, ridge: float) -> float:
    inverse = torch.linalg.inv(gram + ridge * torch.eye(len(gram), dtype=gram.dtype))
    return float((inverse @ y / inverse.diagonal()).square().mean())


error_from_the_samples = Check(
    number="16.5",
    wants="answer(gram, targets, ridge) -> float",
    reference=_estimate,
    cases=_samples,
    mistakes={
        "That is the training error: divide it by the square of how much of it is left of any labels.": lambda g, y, r: (
            r**2 * _estimate(g, y, r, below=0)
        ),
        "The trace is divided by n.": lambda g, y, r: _estimate(g, y, r, mean=False),
        "The denominator is squared.": lambda g, y, r: _estimate(g, y, r, below=1),
        "The ridge is missing: K + delta I.": lambda g, y, r: _estimate(g, y, 0.0),
        "That is leaving one out, with every sample's own diagonal entry; here the mean of the diagonal stands for all.": _left_out,
        "The mean over samples is missing above.": lambda g, y, r: len(g) * _estimate(g, y, r),
        "Nothing is left to multiply by the ridge: it stands above and below, and cancels.": lambda g, y, r: (
            r**2 * _estimate(g, y, r)
        ),
    },
)
