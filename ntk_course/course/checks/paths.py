"""Checks of chapters 9 and 10: path kernels."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .core import Check
from .draws import Draw

__all__ = [
    "step_of_the_output",
    "prediction_of_a_machine",
    "discrete_path_kernel",
    "error_of_freezing",
    "finer_steps",
    "change_by_midpoints",
    "coefficients_of_a_loss",
    "nodes_for_a_linear_network",
    "turning_times",
    "integral_by_pieces",
    "carried_jacobians",
    "kinks_you_missed",
]


# ----- chapter 9


def _batches(draw: Draw):
    one = torch.ones(1, 1, dtype=torch.float64)
    yield 2 * one, torch.tensor([[[1.0]], [[3.0]]], dtype=torch.float64), torch.tensor([[1.0], [-2.0]], dtype=torch.float64), 0.5
    for _ in range(3):
        b, k, d = draw.sizes(3, 2, 7)
        yield draw.normal(k, d), draw.normal(b, k, d), draw.normal(b, k), draw.uniform(0.01, 0.9, 3)


def _change(mean: Tensor, training: Tensor, a: Tensor) -> Tensor:
    return torch.einsum("kd,bjd,bj->k", mean, training, a)


step_of_the_output = Check(
    number="9.1",
    wants="answer(mean_test, training, a, lr) -> (K,)",
    reference=lambda m, t, a, lr: lr / len(t) * _change(m, t, a),
    cases=_batches,
    mistakes={
        "This is the sum over the batch; the loss is its mean, so divide by B.": lambda m, t, a, lr: lr * _change(m, t, a),
        "The sign is turned: a is minus the gradient already.": lambda m, t, a, lr: -lr / len(t) * _change(m, t, a),
        "The step size is in it twice: once is enough.": lambda m, t, a, lr: lr**2 / len(t) * _change(m, t, a),
        "The step size is missing.": lambda m, t, a, lr: _change(m, t, a) / len(t),
        "This divides by K; the mean is over the B samples.": lambda m, t, a, lr: lr / len(m) * _change(m, t, a),
        "The blocks are transposed: J(x) J(x_i)^T, not J(x_i) J(x)^T, multiplies a_i.": (
            lambda m, t, a, lr: lr / len(t) * torch.einsum("bkd,jd,bj->k", t, m, a)
        ),
        "The means are taken of J and of a apart; the mean of a product is not the product of the means.": (
            lambda m, t, a, lr: lr * m @ t.mean(0).T @ a.mean(0)
        ),
    },
)


def _machines(draw: Draw):
    one = torch.ones(1, 1, dtype=torch.float64)
    yield one, torch.tensor([[[[2.0]], [[4.0]]]], dtype=torch.float64), torch.tensor([[1.0], [-3.0]], dtype=torch.float64), 0.5
    for _ in range(3):
        m, n, k = draw.sizes(3, 2, 7)
        yield draw.normal(m, k), draw.normal(m, n, k, k), draw.normal(n, k), draw.uniform(0.01, 0.9, 3)


def _summed(kernel: Tensor, g: Tensor) -> Tensor:
    return torch.einsum("nmij,mj->ni", kernel, g)


prediction_of_a_machine = Check(
    number="9.2",
    wants="answer(b, kernel, gradients, eps) -> (N_test, K)",
    reference=lambda b, k, g, eps: b - eps * _summed(k, g) / k.shape[1],
    cases=_machines,
    mistakes={
        "The step size is in it twice, once from (8) and once from (51), and so is the sign. Read one of them.": (
            lambda b, k, g, eps: b + eps**2 * _summed(k, g) / k.shape[1]
        ),
        "The step size is in it twice; it must appear once.": lambda b, k, g, eps: b - eps**2 * _summed(k, g) / k.shape[1],
        "The step size is missing.": lambda b, k, g, eps: b - _summed(k, g) / k.shape[1],
        "The sign is turned: a step goes against the gradient.": lambda b, k, g, eps: b + eps * _summed(k, g) / k.shape[1],
        "This is the sum over the training points; the loss was their mean.": lambda b, k, g, eps: b - eps * _summed(k, g),
        "The bias b is missing.": lambda b, k, g, eps: -eps * _summed(k, g) / k.shape[1],
        "The blocks are transposed: entry [n, m, i, j] pairs output i of the test point with output j of the training point.": (
            lambda b, k, g, eps: b - eps * _summed(k.mT, g) / k.shape[1]
        ),
        "This divides by the number of test points; the mean is over the training points.": lambda b, k, g, eps: (
            b - eps * _summed(k, g) / k.shape[0]
        ),
    },
)


def _trajectories(draw: Draw):
    yield (
        torch.tensor([[[[1.0]]], [[[2.0]]], [[[3.0]]]], dtype=torch.float64),
        torch.tensor([[[[1.0]], [[2.0]]], [[[2.0]], [[1.0]]], [[[5.0]], [[7.0]]]], dtype=torch.float64),
        0.5,
    )
    for _ in range(3):
        s, m, n, k, d = draw.sizes(5, 2, 7)
        yield draw.normal(s, m, k, d), draw.normal(s, n, k, d), draw.uniform(0.01, 0.9, 3)


def _dpk(test: Tensor, training: Tensor) -> Tensor:
    return torch.einsum("snid,smjd->nmij", test, training)


discrete_path_kernel = Check(
    number="9.3",
    wants="answer(test, training, lr) -> (N_test, N, K, K)",
    reference=lambda te, tr, lr: lr * _dpk(te[:-1], tr[:-1]) / tr.shape[1],
    cases=_trajectories,
    mistakes={
        "The last weight state is in the sum, but no step starts there: S + 1 states make S steps.": (
            lambda te, tr, lr: lr * _dpk(te, tr) / tr.shape[1]
        ),
        "These are the Jacobians at the ends of the steps; the discrete path kernel takes them at the start.": (
            lambda te, tr, lr: lr * _dpk(te[1:], tr[1:]) / tr.shape[1]
        ),
        "Divide by the number of training points: the loss is a mean.": lambda te, tr, lr: lr * _dpk(te[:-1], tr[:-1]),
        "This divides by the number of test points; the mean is over the training points.": (
            lambda te, tr, lr: lr * _dpk(te[:-1], tr[:-1]) / te.shape[1]
        ),
        "The step size is missing: here it belongs to the kernel.": lambda te, tr, lr: _dpk(te[:-1], tr[:-1]) / tr.shape[1],
        "The blocks are transposed: entry [n, m, i, j] is output i of the test point.": (
            lambda te, tr, lr: lr * _dpk(te[:-1], tr[:-1]).mT / tr.shape[1]
        ),
        "This is the mean over the steps; the path adds them up.": lambda te, tr, lr: (
            lr * _dpk(te[:-1], tr[:-1]) / tr.shape[1] / (len(te) - 1)
        ),
        "Every state of the test points meets every state of the training points; a step pairs equal times.": (
            lambda te, tr, lr: lr * torch.einsum("nid,mjd->nmij", te[:-1].sum(0), tr[:-1].sum(0)) / tr.shape[1]
        ),
    },
)


def _quadratics(draw: Draw):
    for curvature in (2.0, -2.0):
        yield (
            torch.tensor([[curvature]], dtype=torch.float64),
            torch.tensor([3.0], dtype=torch.float64),
            torch.tensor([0.5], dtype=torch.float64),
        )
    for d in draw.sizes(3, 2, 6):
        h = draw.normal(d, d)
        yield h + h.T, draw.normal(d), draw.normal(d)


error_of_freezing = Check(
    number="9.4",
    wants="answer(h, w, step) -> float",
    reference=lambda h, w, d: d @ h @ d / 2,
    cases=_quadratics,
    mistakes={
        "Twice too much: the Taylor series has a factor 1/2 there.": lambda h, w, d: d @ h @ d,
        "This is the first-order change, which the frozen gradient does see.": lambda h, w, d: w @ h @ d,
        "This is the true change; take away the frozen one.": lambda h, w, d: w @ h @ d + d @ h @ d / 2,
        "The sign is turned (true minus frozen), or the gradient is that of the step's end.": lambda h, w, d: -(d @ h @ d) / 2,
        "An error has a sign here: do not take the absolute value.": lambda h, w, d: (d @ h @ d / 2).abs(),
    },
)


def _finer(draw: Draw):
    yield 0.08, 0.4, 10, 0.01
    for _ in range(4):
        times = draw.integer(2, 9)
        error = draw.uniform(0.01, 0.2, 3)
        yield error, draw.uniform(0.05, 0.9, 3), draw.integer(3, 60), error / times


def _same_time(got, wanted, error: float, lr: float, steps: int, target: float) -> bool:
    """Allow one step more or less than the exact number, by rounding either way, with the rate that goes with it."""
    if got.shape != wanted.shape:
        return False
    (rate, count), (wanted_rate, wanted_count) = got.tolist(), wanted.tolist()
    near = abs(count - wanted_count) <= 1.001
    return near and min(abs(rate - wanted_rate) / wanted_rate, abs(rate * count - lr * steps) / (lr * steps)) < 1e-4


finer_steps = Check(
    number="9.5",
    wants="answer(error, lr, steps, wanted) -> (lr, steps)",
    reference=lambda e, lr, s, t: (lr * t / e, s * e / t),
    cases=_finer,
    judge=_same_time,
    mistakes={
        "The training time must stay the same: smaller steps, so more of them.": lambda e, lr, s, t: (lr * t / e, s),
        "That is for an error of second order. Each step's is, but there are more steps.": (
            lambda e, lr, s, t: (lr * math.sqrt(t / e), s * math.sqrt(e / t))
        ),
        "That is for an error of second order, rounded. Each step's is, but there are more steps.": (
            lambda e, lr, s, t: (lr * math.sqrt(t / e), round(s * math.sqrt(e / t)))
        ),
        "The ratio is upside down: these steps are larger.": lambda e, lr, s, t: (lr * e / t, s * t / e),
        "The pair is in the other order: step size first.": lambda e, lr, s, t: (s * e / t, lr * t / e),
        "The step size must shrink too: the training time is lr * steps.": lambda e, lr, s, t: (lr, s * e / t),
    },
)


def _gradients(draw: Draw):
    def square(w):
        return 2 * torch.as_tensor(w, dtype=torch.float64)

    yield square, torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    for _ in range(3):
        s, d = draw.sizes(2, 2, 7)
        centre = draw.normal(d)

        def gradient(w, centre=centre):
            w = torch.as_tensor(w, dtype=torch.float64)
            return torch.cos(w - centre) * (w @ w)

        yield gradient, draw.normal(s, d).cumsum(0)


def _along(g, w: Tensor, where) -> float:
    return sum(float(where(g, a, b) @ (b - a)) for a, b in zip(w[:-1], w[1:], strict=True))


change_by_midpoints = Check(
    number="9.6",
    wants="answer(gradient, states) -> float",
    reference=lambda g, w: _along(g, w, lambda g, a, b: g((a + b) / 2)),
    cases=_gradients,
    mistakes={
        "The gradient at the start of each step: that is the discrete path kernel's choice.": lambda g, w: _along(
            g, w, lambda g, a, b: g(a)
        ),
        "The gradient at the end of each step; wanted the middle.": lambda g, w: _along(g, w, lambda g, a, b: g(b)),
        "The mean of the two ends is the trapezoidal rule; wanted one gradient, in the middle.": (
            lambda g, w: _along(g, w, lambda g, a, b: (g(a) + g(b)) / 2)
        ),
        "One step from the first state to the last; wanted every step of the path.": (
            lambda g, w: _along(g, w[[0, -1]], lambda g, a, b: g((a + b) / 2))
        ),
        "The sign is turned: from the earlier state to the later.": lambda g, w: -_along(g, w, lambda g, a, b: g((a + b) / 2)),
        "This is the mean over the steps; changes add up.": lambda g, w: (
            _along(g, w, lambda g, a, b: g((a + b) / 2)) / (len(w) - 1)
        ),
    },
)


# ----- chapter 10


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


class _Kinked:
    """A function exp(c t) + sum_i b_i |t - a_i|, which few nodes do not integrate exactly, and which can be read."""

    def __init__(self, c: float, at: list[float], by: list[float]):
        self.c, self.at, self.by = c, at, by

    def __call__(self, t):
        return np.exp(self.c * np.asarray(t)) + sum(b * abs(t - a) for a, b in zip(self.at, self.by, strict=True))

    def __repr__(self) -> str:
        kinks = "".join(f" {'+' if b > 0 else '-'} {abs(b):g} |t - {a:g}|" for a, b in zip(self.at, self.by, strict=True))
        return f"exp({self.c:g} t){kinks}"


def _kinked(draw: Draw):
    yield _Kinked(0.0, [0.5], [1.0]), [0.5], 1
    yield _Kinked(2.0, [], []), [], 2
    for nodes in (1, 2, 3):
        at = sorted(draw.uniform(0.05, 0.95, 3) for _ in range(draw.integer(1, 3)))
        yield _Kinked(draw.uniform(2, 4, 1), at, [draw.choice((-3.0, -1.5, 1.5, 3.0)) for _ in at]), at, nodes


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
