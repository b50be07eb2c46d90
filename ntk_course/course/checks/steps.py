"""Checks of chapter 9: from gradient flow to discrete steps."""

import math

import torch
from torch import Tensor

from .core import Check
from .draws import Draw, Formula
from .values import shown

__all__ = [
    "step_of_the_output",
    "prediction_of_a_machine",
    "discrete_path_kernel",
    "error_of_freezing",
    "finer_steps",
    "change_by_midpoints",
]


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
    yield (
        Formula(lambda w: 2 * torch.as_tensor(w, dtype=torch.float64), "w -> 2 w"),
        torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64),
    )
    for _ in range(3):
        s, d = draw.sizes(2, 2, 7)
        centre = draw.normal(d)

        def gradient(w, centre=centre):
            w = torch.as_tensor(w, dtype=torch.float64)
            return torch.cos(w - centre) * (w @ w)

        yield Formula(gradient, f"w -> |w|^2 cos(w - {shown(centre)})"), draw.normal(s, d).cumsum(0)


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
