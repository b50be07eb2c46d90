"""Checks of chapter 12: moving weights by transport."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .core import Check
from .draws import Draw
from .values import shown

__all__ = ["moves_of_units", "leaving_share", "units_needed", "share_of_flips", "smallest_move"]


def _transports(draw: Draw):
    yield (
        torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64),
        torch.tensor([[2.0], [2.0], [-1.0], [4.0]], dtype=torch.float64),
        0.5,
    )
    for _ in range(3):
        m, d = 2 * draw.integer(2, 6), draw.integer(2, 3)
        yield (
            torch.tensor([1.0, -1.0] * (m // 2), dtype=torch.float64)[draw.order(m)],
            draw.normal(m, d),
            draw.uniform(0.05, 0.9, 2),
        )


def _scaled(s: Tensor, t: Tensor, e: float, power: float = 0.5) -> Tensor:
    return s[:, None] * t / (e * len(s) ** power)


moves_of_units = Check(
    number="12.1",
    wants="answer(signs, transported, epsilon) -> (m, d)",
    reference=_scaled,
    cases=_transports,
    mistakes={
        "The signs are missing: a unit with a negative sign must move the other way.": lambda s, t, e: _scaled(
            torch.ones_like(s), t, e
        ),
        "Divide by the root of m; the network has the other root itself.": lambda s, t, e: _scaled(s, t, e, 1.0),
        "epsilon is on the wrong side: the network multiplies by it, so the moves are divided.": lambda s, t, e: (
            _scaled(s, t, e) * e**2
        ),
        "epsilon is missing.": lambda s, t, e: _scaled(s, t, 1.0),
        "The moves do not shrink with the number of units: divide by its root.": lambda s, t, e: _scaled(s, t, e, 0.0),
        "This divides by the root of the dimension; it is the number of units that counts.": (
            lambda s, t, e: _scaled(s, t, e) * (len(s) / t.shape[1]) ** 0.5
        ),
    },
)


def _two_points(draw: Draw):
    yield torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    yield torch.tensor([2.0, 0.0], dtype=torch.float64), torch.tensor([2.0, 0.0], dtype=torch.float64)
    while True:  # equal points, at which rounding brings the cosine above 1
        a = draw.normal(3)
        b = F.pad(a, (0, 1), value=1.0)
        if b @ b / b.norm() / b.norm() > 1:
            yield a, a.clone()
            break
    for d in draw.sizes(4, 2, 6):
        yield draw.normal(d), draw.normal(d)


def _angle(a: Tensor, b: Tensor, one: float = 1.0) -> float:
    a, b = F.pad(a, (0, 1), value=one), F.pad(b, (0, 1), value=one)
    return math.acos(max(-1.0, min(1.0, float(a @ b / a.norm() / b.norm()))))


def _share_judged(got, wanted, x: Tensor, other: Tensor) -> bool | str:
    """Allow what the arc cosine near 1 loses in float32."""
    if not isinstance(got, Tensor) or got.shape != wanted.shape:
        return False
    if bool(got.isnan()):
        return "There is a NaN: rounding can bring a cosine above 1, and then there is no angle. Clamp it."
    return float(got) >= 0 - 1e-12 and abs(float(got - wanted)) < 3e-4


leaving_share = Check(
    number="12.2",
    wants="answer(x, other) -> float",
    reference=lambda a, b: _angle(a, b) / math.pi,
    cases=_two_points,
    judge=_share_judged,
    mistakes={
        "The bias is missing: append a one to both points.": lambda a, b: _angle(a, b, one=0.0) / math.pi,
        "That is the share on at both of them; wanted those on at exactly one.": lambda a, b: (
            (math.pi - _angle(a, b)) / (2 * math.pi)
        ),
        "A unit can be on at the first only, or at the second only; this is one of the two.": lambda a, b: (
            _angle(a, b) / (2 * math.pi)
        ),
        "That is the angle; the share is the part of a half turn.": lambda a, b: _angle(a, b),
        "That is the share of units that agree, on at both or off at both.": lambda a, b: 1 - _angle(a, b) / math.pi,
    },
)


def _planned(draw: Draw):
    yield 0.1, 1000, 0.05
    yield 0.1, 1000, 0.04
    for _ in range(5):
        ratio = draw.integer(2, 9)
        wanted = draw.uniform(0.01, 0.2, 3)
        yield wanted * ratio, draw.integer(10, 3000), wanted


units_needed = Check(
    number="12.3",
    wants="answer(error, units, wanted) -> int",
    reference=lambda e, m, w: round(m * (e / w) ** 2),
    cases=_planned,
    judge=lambda got, wanted, *case: got.shape == wanted.shape and abs(float(got - wanted)) <= 1,  # rounded either way, or even
    mistakes={
        "The error falls like the root of the number of units: half the error takes four times as many.": lambda e, m, w: round(
            m * e / w
        ),
        "The exponent is turned round: square the ratio of the errors.": lambda e, m, w: round(m * (e / w) ** 0.5),
        "The ratio is upside down: a smaller error takes more units.": lambda e, m, w: round(m * (w / e) ** 2),
        "This is how many more; wanted how many in all.": lambda e, m, w: round(m * (e / w) ** 2) - m,
        "This is the factor; multiply the units by it.": lambda e, m, w: (e / w) ** 2,
    },
)


def _flips(draw: Draw):
    yield (
        torch.tensor([[1.0, -0.5]], dtype=torch.float64),
        torch.tensor([[-2.0, 0.0]], dtype=torch.float64),
        torch.tensor([[1.0], [0.0]], dtype=torch.float64),
    )
    # exactly at zero before the move, on after it: a unit is on where its input is positive
    yield (
        torch.tensor([[1.0, 0.0]], dtype=torch.float64),
        torch.tensor([[0.0, 1.0]], dtype=torch.float64),
        torch.tensor([[0.0], [2.0], [-3.0]], dtype=torch.float64),
    )
    # at zero before, so off, and off after it
    yield (
        torch.tensor([[1.0, 0.0]], dtype=torch.float64),
        torch.tensor([[0.0, -1.0]], dtype=torch.float64),
        torch.tensor([[0.0], [3.0]], dtype=torch.float64),
    )
    # on before, exactly at zero after it
    yield (
        torch.tensor([[1.0, 1.0]], dtype=torch.float64),
        torch.tensor([[0.0, -1.0]], dtype=torch.float64),
        torch.tensor([[0.0], [2.0]], dtype=torch.float64),
    )
    for _ in range(3):
        m, d, n = draw.sizes(3, 2, 9)
        yield draw.normal(m, d + 1), draw.uniform(0.3, 1.2, 2) * draw.normal(m, d + 1), draw.normal(n, d)


def _on(w: Tensor, x: Tensor, one: float = 1.0) -> Tensor:
    return F.pad(x, (0, 1), value=one) @ w.T > 0


share_of_flips = Check(
    number="12.4",
    wants="answer(weights, moves, x) -> float",
    reference=lambda w, t, x: float((_on(w, x) != _on(w + t, x)).double().mean()),
    cases=_flips,
    mistakes={
        "This is the number of flips; wanted their share.": lambda w, t, x: float((_on(w, x) != _on(w + t, x)).sum()),
        "Units that turn off count as well as those that turn on.": lambda w, t, x: float(
            (~_on(w, x) & _on(w + t, x)).double().mean()
        ),
        "Units that turn on count as well as those that turn off.": lambda w, t, x: float(
            (_on(w, x) & ~_on(w + t, x)).double().mean()
        ),
        "The bias is missing: append a one to the points.": lambda w, t, x: float(
            (_on(w, x, 0.0) != _on(w + t, x, 0.0)).double().mean()
        ),
        "This compares the sign of the move; wanted the unit before and after it.": lambda w, t, x: float(
            (_on(w, x) != _on(t, x)).double().mean()
        ),
        "This is the share of units that turn at some point; wanted that of pairs.": lambda w, t, x: float(
            (_on(w, x) != _on(w + t, x)).any(0).double().mean()
        ),
    },
)


def _changes(draw: Draw):
    yield torch.tensor([[3.0, 4.0]], dtype=torch.float64), torch.tensor([5.0], dtype=torch.float64)
    for _ in range(3):
        n = draw.integer(2, 5)
        yield draw.normal(n, n + draw.integer(2, 9)), draw.normal(n)


def _move(phi: Tensor, r: Tensor) -> Tensor:
    return phi.T @ torch.linalg.solve(phi @ phi.T, r)


def _shortest(got, wanted, features: Tensor, change: Tensor) -> bool | str:
    if not isinstance(got, Tensor) or got.shape != wanted.shape:
        return False
    reached = features @ got
    if not torch.allclose(reached, change, atol=1e-3 * float(change.abs().max()), rtol=1e-3):
        return f"This move changes the outputs by {shown(reached)} to first order; wanted {shown(change)}."
    if float(got.norm()) > 1.001 * float(wanted.norm()):
        return f"It reaches the change, but a shorter move does too: of length {float(wanted.norm()):.3g}, yours has {float(got.norm()):.3g}."
    return True


smallest_move = Check(
    number="12.5",
    wants="answer(features, change) -> (d,)",
    reference=_move,
    cases=_changes,
    judge=_shortest,
    mistakes={
        "This is one gradient step, Phi^T r: solve with the Gram matrix Phi Phi^T first.": lambda phi, r: phi.T @ r,
        "These are the coefficients (N,) of the kernel machine; the move is their combination of features.": lambda phi, r: (
            torch.linalg.solve(phi @ phi.T, r)
        ),
        "A ridge gives a shorter move that does not reach the change: without it, please.": (
            lambda phi, r: phi.T @ torch.linalg.solve(phi @ phi.T + torch.eye(len(r), dtype=phi.dtype), r)
        ),
        "The sign is turned: the outputs are to change by `change`.": lambda phi, r: -_move(phi, r),
    },
)
