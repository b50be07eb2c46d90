"""Checks of chapter 10: exactness."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .core import Check
from .draws import Draw, Formula

__all__ = [
    "coefficients_of_a_loss",
    "nodes_for_a_linear_network",
    "turning_times",
    "integral_by_pieces",
    "carried_jacobians",
    "kinks_you_missed",
]


def _outputs(draw: Draw):
    yield torch.tensor([[0.0, 1.0]], dtype=torch.float64), torch.tensor([0]), "squared"
    for loss in ("log_softmax", "cross_entropy", "squared"):
        n, k = draw.sizes(2, 2, 7)
        f = draw.normal(n, k)
        yield f.log_softmax(1) if loss == "log_softmax" else f, draw.labels(n, k), loss


def _coefficients(f: Tensor, y: Tensor, loss: str, first: bool = False, sign: float = 1.0, factor: float = 1.0) -> Tensor:
    p = F.one_hot(y, f.shape[1]).to(f)
    if loss == "log_softmax" and not first:
        return sign * p
    return sign * (factor * (p - f) if loss == "squared" else p - f.softmax(1))


coefficients_of_a_loss = Check(
    number="10.1",
    wants="answer(f, y, loss) -> (N, K)",
    reference=_coefficients,
    cases=_outputs,
    mistakes={
        "With the log-softmax inside the network L = -f_y, and its gradient has no softmax in it.": lambda f, y, loss: (
            _coefficients(f, y, loss, first=True)
        ),
        "These are the gradients; a is minus the gradient.": lambda f, y, loss: _coefficients(f, y, loss, sign=-1.0),
        "The squared loss has a factor 1/2 here, so no 2 remains.": lambda f, y, loss: _coefficients(f, y, loss, factor=2.0),
        "These are means over the batch already; a is each sample's own.": lambda f, y, loss: _coefficients(f, y, loss) / len(f),
        "The squared loss has no softmax in it: there f - e_y is the gradient.": (
            lambda f, y, loss: _coefficients(f, y, "cross_entropy" if loss == "squared" else loss)
        ),
    },
)

nodes_for_a_linear_network = Check(
    number="10.2",
    wants="answer(layers) -> int",
    reference=lambda n: math.ceil(n / 2),
    cases=lambda draw: [(n,) for n in (1, 2, 3, 4, 5, 6, 7, 8, draw.integer(9, 40))],
    mistakes={
        "That is for the output, of degree L in t. The integral is over its Jacobian, of degree L - 1.": lambda n: math.ceil(
            (n + 1) / 2
        ),
        "Q nodes are exact up to degree 2Q - 1, so about half as many will do.": lambda n: n,
        "That is the degree of the Jacobian; Q nodes are exact up to degree 2Q - 1.": lambda n: n - 1,
        "Round up: with an odd number of layers this is one too few.": lambda n: n // 2,
        "Not rounded: a number of nodes is whole.": lambda n: n / 2,
    },
)


def _units(draw: Draw):
    one = torch.ones(1, dtype=torch.float64)
    yield (
        one,
        torch.tensor([[-1.0], [1.0], [2.0]], dtype=torch.float64),
        torch.zeros(3),
        torch.tensor([[3.0], [-1.0], [3.0]], dtype=torch.float64),
        torch.zeros(3),
    )
    yield one, one[:, None], 0 * one, 3 * one[:, None], 0 * one  # nobody turns
    # zero at the start, zero at the end: neither lies within the step
    yield (
        one,
        torch.tensor([[0.0], [1.0], [1.0]]).double(),
        torch.zeros(3),
        torch.tensor([[1.0], [0.0], [-1.0]]).double(),
        torch.zeros(3),
    )
    yield one, one[:, None], -2 * one, one[:, None], 2 * one  # only the bias moves
    for _ in range(3):
        h, d = draw.integer(8, 16), draw.integer(3, 6)
        yield draw.normal(d), draw.normal(h, d), draw.normal(h), draw.normal(h, d), draw.normal(h)


def _roots(x, w0, b0, w1, b1) -> Tensor:
    h0, h1 = w0.double() @ x.double() + b0, w1.double() @ x.double() + b1
    return h0 / (h0 - h1)


def _within(t: Tensor) -> Tensor:
    return t[(t > 0) & (t < 1)]


turning_times = Check(
    number="10.3",
    wants="answer(x, w0, b0, w1, b1) -> times",
    reference=lambda *a: _within(_roots(*a)).sort().values,
    cases=_units,
    mistakes={
        "Some of these are outside the step: keep those between 0 and 1.": lambda *a: _roots(*a).sort().values,
        "These are measured from the end of the step: t = h0 / (h0 - h1).": lambda *a: (1 - _within(_roots(*a))).sort().values,
        "The times are right, but not in order.": lambda *a: _within(_roots(*a)),
        "The biases move too: h = w x + b.": lambda x, w0, b0, w1, b1: _within(_roots(x, w0, 0 * b0, w1, 0 * b1)).sort().values,
        "Only units that turn off are found; others turn on.": (
            lambda x, w0, b0, w1, b1: _within(_roots(x, w0, b0, w1, b1)[(w0.double() @ x + b0) > 0]).sort().values
        ),
        "Only units that turn on are found; others turn off.": (
            lambda x, w0, b0, w1, b1: _within(_roots(x, w0, b0, w1, b1)[(w0.double() @ x + b0) < 0]).sort().values
        ),
    },
)


def _kinks(c: float, at: list[float], by: list[float]) -> Formula:
    """Return exp(c t) + sum_i b_i |t - a_i|, which few nodes do not integrate exactly."""
    words = "".join(f" {'+' if b > 0 else '-'} {abs(b):g} |t - {a:g}|" for a, b in zip(at, by, strict=True))
    return Formula(
        lambda t: np.exp(c * np.asarray(t)) + sum(b * abs(t - a) for a, b in zip(at, by, strict=True)), f"exp({c:g} t){words}"
    )


def _kinked(draw: Draw):
    yield _kinks(0.0, [0.5], [1.0]), [0.5], 1
    yield _kinks(2.0, [], []), [], 2
    for nodes in (1, 2, 3):
        at = sorted(draw.uniform(0.05, 0.95, 3) for _ in range(draw.integer(1, 3)))
        yield _kinks(draw.uniform(2, 4, 1), at, [draw.choice((-3.0, -1.5, 1.5, 3.0)) for _ in at]), at, nodes


def _gauss(f, ends: list, nodes: int, shift: bool = True, scale: bool = True) -> float:
    t, w = np.polynomial.legendre.leggauss(nodes)
    total = 0.0
    for a, b in zip(ends[:-1], ends[1:], strict=True):
        at = (a + b) / 2 + (b - a) / 2 * t if shift else t
        total += float(sum(w * f(at)) * ((b - a) / 2 if scale else 0.5))
    return total


integral_by_pieces = Check(
    number="10.4",
    wants="answer(f, breakpoints, nodes) -> float",
    reference=lambda f, b, n: _gauss(f, [0, *b, 1], n),
    cases=_kinked,
    mistakes={
        "One rule over the whole step does not see the kinks: cut it at the breakpoints.": lambda f, b, n: _gauss(f, [0, 1], n),
        "Each piece counts by its length: scale the weights with it.": lambda f, b, n: _gauss(f, [0, *b, 1], n, scale=False),
        "leggauss gives nodes on [-1, 1]; move them into each piece.": lambda f, b, n: _gauss(f, [0, *b, 1], n, shift=False),
        "The pieces before the first and after the last breakpoint count too.": lambda f, b, n: _gauss(f, b, n),
        "The weights of leggauss add up to 2, the length of [-1, 1]: half of the piece's length belongs before the sum.": (
            lambda f, b, n: 2 * _gauss(f, [0, *b, 1], n)
        ),
        "The last piece is missing, from the last breakpoint to 1.": lambda f, b, n: _gauss(f, [0, *b], n),
        "The first piece is missing, from 0 to the first breakpoint.": lambda f, b, n: _gauss(f, [*b, 1], n),
    },
)


def _momenta(draw: Draw):
    yield torch.tensor([[1.0], [10.0]], dtype=torch.float64), torch.tensor([0.5, 0.1], dtype=torch.float64), 0.9
    for _ in range(3):
        s, d = draw.sizes(2, 2, 7)
        yield (
            draw.normal(s, d),
            torch.tensor([draw.uniform(0.05, 0.5, 2) for _ in range(s)], dtype=torch.float64),
            draw.uniform(0.1, 0.95, 2),
        )


def _backwards(means: Tensor, lrs: Tensor, mu: float, order: int = -1) -> Tensor:
    carried, out = torch.zeros_like(means[0]), torch.zeros_like(means)
    for r in range(len(means))[::order]:
        out[r] = carried = lrs[r] * means[r] + mu * carried
    return out


carried_jacobians = Check(
    number="10.6",
    wants="answer(means, lrs, mu) -> (S, d)",
    reference=_backwards,
    cases=_momenta,
    mistakes={
        "A gradient moves the weights in later steps, not in earlier ones: go backwards.": lambda m, lrs, mu: _backwards(
            m, lrs, mu, order=1
        ),
        "This is without momentum: later steps add mu times what they carry.": lambda m, lrs, mu: lrs[:, None] * m,
        "Each step has its own step size: it multiplies that step's Jacobian only.": (
            lambda m, lrs, mu: lrs[:, None] * _backwards(m, torch.ones_like(lrs), mu)
        ),
        "The powers of mu are missing: a step s meets the gradient of step r by mu^(s - r).": lambda m, lrs, mu: _backwards(
            m, lrs, 1.0
        ),
        "The rows are in the other order: T_0 belongs to the first step.": lambda m, lrs, mu: _backwards(m, lrs, mu).flip(0),
        "The step sizes are missing.": lambda m, lrs, mu: _backwards(m, torch.ones_like(lrs), mu),
    },
)


def _ramps(draw: Draw):
    yield 0.5, 1.0
    yield 0.0, 2.0
    yield 1.0, 2.0
    for _ in range(5):
        yield draw.uniform(0, 1, 2), draw.uniform(-3, 3, 2)


kinks_you_missed = Check(
    number="10.5",
    wants="answer(at, jump) -> float",
    reference=lambda at, jump: jump * (max(0.0, 1 - at) - (1.0 if at < 0.5 else 0.5 if at == 0.5 else 0.0)),
    cases=lambda draw: [case for case in _ramps(draw) if case[0] != 0.5] + [(0.25, 1.0), (0.75, 1.0)],
    mistakes={
        "The sign is turned: true minus computed.": lambda at, jump: -jump * (max(0.0, 1 - at) - (1.0 if at < 0.5 else 0.0)),
        "This is the true change; subtract what the node in the middle gives.": lambda at, jump: jump * (1 - at),
        "This is what the node in the middle gives; the true change is the jump times the time after it.": lambda at, jump: (
            jump * float(at < 0.5)
        ),
        "The jump is on from its time to the end: 1 - at, not at.": lambda at, jump: jump * (at - float(at < 0.5)),
        "Before the middle the node sees the jump, after it not: it is a half that decides.": lambda at, jump: (
            jump * (1 - at) - jump / 2
        ),
    },
)
