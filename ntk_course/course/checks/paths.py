"""Checks of chapters 9 and 10: path kernels."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from .core import Outcome, compare, random

__all__ = [
    "step_of_the_output",
    "prediction_of_a_machine",
    "discrete_path_kernel",
    "error_of_freezing",
    "finer_steps",
    "nodes_for_a_linear_network",
    "turning_times",
    "integral_by_pieces",
    "coefficients_of_a_loss",
    "carried_jacobians",
    "change_by_midpoints",
]


def step_of_the_output(answer: Callable) -> Outcome:
    """Check ``answer(mean_test, training, a, lr) -> (K,)``: the change of a test output over one step, eq. (40)-(41)."""
    cases = [(random(3, 7), random(n, 3, 7, seed=1), random(n, 3, seed=2), 0.3) for n in (4, 5)]

    def change(mean, training, a):
        return torch.einsum("kd,bjd,bj->k", mean, training, a)

    return compare(
        answer,
        cases,
        lambda m, t, a, lr: lr / len(t) * change(m, t, a),
        {
            "This is the sum over the batch; the loss is its mean, so divide by B.": lambda m, t, a, lr: lr * change(m, t, a),
            "The sign is turned: a is minus the gradient already.": lambda m, t, a, lr: -lr / len(t) * change(m, t, a),
            "The step size is in it twice: once is enough.": lambda m, t, a, lr: lr**2 / len(t) * change(m, t, a),
            "The step size is missing.": lambda m, t, a, lr: change(m, t, a) / len(t),
            "The blocks are transposed: J(x) J(x_i)^T, not J(x_i) J(x)^T, multiplies a_i.": (
                lambda m, t, a, lr: lr / len(t) * torch.einsum("bkd,jd,bj->k", t, m, a)
            ),
        },
    )


def prediction_of_a_machine(answer: Callable) -> Outcome:
    """Check ``answer(b, kernel, gradients, eps) -> (N_test, K)``: the machine of Theorem 3.7 from dL/df and a bare kernel."""
    cases = [(random(2, 3, seed=s), random(2, n, 3, 3, seed=s + 1), random(n, 3, seed=s + 2), 0.2) for s, n in ((0, 4), (5, 6))]

    def summed(kernel, g):
        return torch.einsum("nmij,mj->ni", kernel, g)

    return compare(
        answer,
        cases,
        lambda b, k, g, eps: b - eps * summed(k, g) / k.shape[1],
        {
            "The step size is in it twice, once from (8) and once from (51), and so is the sign. Read one of them.": (
                lambda b, k, g, eps: b + eps**2 * summed(k, g) / k.shape[1]
            ),
            "The step size is in it twice; it must appear once.": lambda b, k, g, eps: b - eps**2 * summed(k, g) / k.shape[1],
            "The sign is turned: a step goes against the gradient.": lambda b, k, g, eps: b + eps * summed(k, g) / k.shape[1],
            "This is the sum over the training points; the loss was their mean.": lambda b, k, g, eps: b - eps * summed(k, g),
            "The bias b is missing.": lambda b, k, g, eps: -eps * summed(k, g) / k.shape[1],
        },
    )


def discrete_path_kernel(answer: Callable) -> Outcome:
    """Check ``answer(test, training, lr) -> (N_test, N, K, K)`` from Jacobians (S + 1, ., K, d) at all weight states."""
    cases = [(random(s + 1, 2, 3, 6), random(s + 1, 4, 3, 6, seed=1), 0.1) for s in (1, 3)]

    def gram(test, training):
        return torch.einsum("snid,smjd->nmij", test, training)

    return compare(
        answer,
        cases,
        lambda te, tr, lr: lr * gram(te[:-1], tr[:-1]) / tr.shape[1],
        {
            "The last weight state is in the sum, but no step starts there: S + 1 states make S steps.": (
                lambda te, tr, lr: lr * gram(te, tr) / tr.shape[1]
            ),
            "These are the Jacobians at the ends of the steps; the discrete path kernel takes them at the start.": (
                lambda te, tr, lr: lr * gram(te[1:], tr[1:]) / tr.shape[1]
            ),
            "Divide by the number of training points: the loss is a mean.": lambda te, tr, lr: lr * gram(te[:-1], tr[:-1]),
            "The step size is missing: here it belongs to the kernel.": lambda te, tr, lr: gram(te[:-1], tr[:-1]) / tr.shape[1],
            "The blocks are transposed: entry [n, m, i, j] is output i of the test point.": (
                lambda te, tr, lr: lr * gram(te[:-1], tr[:-1]).mT / tr.shape[1]
            ),
        },
    )


def error_of_freezing(answer: Callable) -> Outcome:
    """Check ``answer(h, w, step) -> float``: true change of f(w) = w.Hw/2 over a step minus what a frozen gradient gives."""
    cases = []
    for seed in range(3):
        h = random(4, 4, seed=seed)
        cases.append((h + h.T, random(4, seed=seed + 10), random(4, seed=seed + 20)))
    return compare(
        answer,
        cases,
        lambda h, w, d: d @ h @ d / 2,
        {
            "Twice too much: the Taylor series has a factor 1/2 there.": lambda h, w, d: d @ h @ d,
            "This is the first-order change, which the frozen gradient does see.": lambda h, w, d: w @ h @ d,
            "This is the true change; take away the frozen one.": lambda h, w, d: w @ h @ d + d @ h @ d / 2,
            "The sign is turned: true minus frozen.": lambda h, w, d: -(d @ h @ d) / 2,
        },
    )


def finer_steps(answer: Callable) -> Outcome:
    """Check ``answer(error, lr, steps, wanted) -> (lr, steps)``: for a DPK error of first order at the same lr * steps."""
    cases = [(0.08, 0.4, 10, 0.01), (0.05, 0.1, 40, 0.0125)]
    return compare(
        answer,
        cases,
        lambda e, lr, s, t: (lr * t / e, round(s * e / t)),
        {
            "The training time must stay the same: smaller steps, so more of them.": lambda e, lr, s, t: (lr * t / e, s),
            "That is for an error of second order. Each step's is, but there are more steps.": lambda e, lr, s, t: (
                lr * math.sqrt(t / e),
                round(s * math.sqrt(e / t)),
            ),
            "The ratio is upside down: these steps are larger.": lambda e, lr, s, t: (lr * e / t, round(s * t / e)),
        },
    )


def nodes_for_a_linear_network(answer: Callable) -> Outcome:
    """Check ``answer(layers) -> int``: the fewest Gauss nodes that are exact for a deep linear network."""
    return compare(
        answer,
        [(n,) for n in range(1, 9)],
        lambda n: math.ceil(n / 2),
        {
            "That is for the output, of degree L in t. The integral is over its Jacobian, of degree L - 1.": (
                lambda n: math.ceil((n + 1) / 2)
            ),
            "Q nodes are exact up to degree 2Q - 1, so about half as many will do.": lambda n: n,
            "That is the degree of the Jacobian; Q nodes are exact up to degree 2Q - 1.": lambda n: n - 1,
            "Round up: with an odd number of layers this is one too few.": lambda n: n // 2,
        },
    )


def turning_times(answer: Callable) -> Outcome:
    """Check ``answer(x, w0, b0, w1, b1) -> times``: where in (0, 1) hidden units turn, in order."""
    cases = [
        (random(5, seed=s), random(12, 5, seed=s + 1), random(12, seed=s + 2), random(12, 5, seed=s + 3), random(12, seed=s + 4))
        for s in (0, 10, 20)
    ]

    def roots(x, w0, b0, w1, b1):
        h0, h1 = w0 @ x + b0, w1 @ x + b1
        return h0 / (h0 - h1)

    def inside(t):
        return t[(t > 0) & (t < 1)]

    return compare(
        answer,
        cases,
        lambda *a: inside(roots(*a)).sort().values,
        {
            "Some of these are outside the step: keep those between 0 and 1.": lambda *a: roots(*a).sort().values,
            "These are measured from the end of the step: t = h0 / (h0 - h1).": lambda *a: (1 - inside(roots(*a))).sort().values,
            "The times are right, but not in order.": lambda *a: inside(roots(*a)),
            "The biases move too: h = w x + b.": lambda x, w0, b0, w1, b1: inside(roots(x, w0, 0 * b0, w1, 0 * b1)).sort().values,
        },
    )


def integral_by_pieces(answer: Callable) -> Outcome:
    """Check ``answer(f, breakpoints, nodes) -> float``: the integral of f over [0, 1], Gauss nodes on every piece."""
    cases = [
        (lambda t: abs(t - 0.3) + 2.0, [0.3], 2),
        (lambda t: 3 * abs(t - 0.2) - abs(t - 0.55) * t, [0.2, 0.55], 3),
        (lambda t: t**3, [], 2),
    ]

    def gauss(f, ends, nodes, shift=True, scale=True):
        t, w = np.polynomial.legendre.leggauss(nodes)
        total = 0.0
        for a, b in zip(ends[:-1], ends[1:], strict=True):
            at = (a + b) / 2 + (b - a) / 2 * t if shift else t
            total += sum(w * f(at)) * ((b - a) / 2 if scale else 0.5)
        return total

    return compare(
        answer,
        cases,
        lambda f, b, n: gauss(f, [0, *b, 1], n),
        {
            "One rule over the whole step does not see the kinks: cut it at the breakpoints.": lambda f, b, n: gauss(
                f, [0, 1], n
            ),
            "Each piece counts by its length: scale the weights with it.": lambda f, b, n: gauss(f, [0, *b, 1], n, scale=False),
            "leggauss gives nodes on [-1, 1]; move them into each piece.": lambda f, b, n: gauss(f, [0, *b, 1], n, shift=False),
            "The pieces before the first and after the last breakpoint count too.": lambda f, b, n: gauss(f, b, n),
        },
    )


def coefficients_of_a_loss(answer: Callable) -> Outcome:
    """Check ``answer(f, y, loss) -> (N, K)``: a = -dL/df for "log_softmax", "cross_entropy" and "squared"."""
    y = torch.tensor([0, 2, 1, 2])
    cases = [(random(4, 3).log_softmax(1), y, "log_softmax"), (random(4, 3), y, "cross_entropy"), (random(4, 3), y, "squared")]

    def right(f, y, loss, first=False, sign=1.0, factor=1.0):
        p = F.one_hot(y, f.shape[1]).to(f)
        if loss == "log_softmax" and not first:
            return sign * p
        return sign * (factor * (p - f) if loss == "squared" else p - f.softmax(1))

    return compare(
        answer,
        cases,
        right,
        {
            "With the log-softmax inside the network L = -f_y, and its gradient has no softmax in it.": (
                lambda f, y, loss: right(f, y, loss, first=True)
            ),
            "These are the gradients; a is minus the gradient.": lambda f, y, loss: right(f, y, loss, sign=-1.0),
            "The squared loss has a factor 1/2 here, so no 2 remains.": lambda f, y, loss: right(f, y, loss, factor=2.0),
        },
    )


def carried_jacobians(answer: Callable) -> Outcome:
    """Check ``answer(means, lrs, mu) -> (S, d)``: what a gradient of step r meets under momentum, T_r."""
    cases = [(random(s, 4), torch.linspace(0.3, 0.1, s, dtype=torch.float64), 0.8) for s in (3, 5)]

    def backwards(means, lrs, mu, order=-1):
        carried, out = torch.zeros_like(means[0]), torch.zeros_like(means)
        for r in range(len(means))[::order]:
            out[r] = carried = lrs[r] * means[r] + mu * carried
        return out

    return compare(
        answer,
        cases,
        backwards,
        {
            "A gradient moves the weights in later steps, not in earlier ones: go backwards.": (
                lambda m, lrs, mu: backwards(m, lrs, mu, order=1)
            ),
            "This is without momentum: later steps add mu times what they carry.": lambda m, lrs, mu: lrs[:, None] * m,
            "Each step has its own step size: it multiplies that step's Jacobian only.": (
                lambda m, lrs, mu: lrs[:, None] * backwards(m, torch.ones_like(lrs), mu)
            ),
        },
    )


def change_by_midpoints(answer: Callable) -> Outcome:
    """Check ``answer(gradient, states) -> float``: a path's total change, each gradient taken in the middle of its step."""
    centre = random(4, seed=3)

    def gradient(w):
        w = torch.as_tensor(w, dtype=torch.float64)
        return torch.cos(w - centre) * (w @ w)

    cases = [(gradient, random(s + 1, 4, seed=s).cumsum(0)) for s in (2, 5)]

    def summed(g, w, where):
        return sum(float(where(g, a, b) @ (b - a)) for a, b in zip(w[:-1], w[1:], strict=True))

    return compare(
        answer,
        cases,
        lambda g, w: summed(g, w, lambda g, a, b: g((a + b) / 2)),
        {
            "The gradient at the start of each step: that is the discrete path kernel's choice.": (
                lambda g, w: summed(g, w, lambda g, a, b: g(a))
            ),
            "The gradient at the end of each step; wanted the middle.": lambda g, w: summed(g, w, lambda g, a, b: g(b)),
            "The mean of the two ends is the trapezoidal rule; wanted one gradient, in the middle.": (
                lambda g, w: summed(g, w, lambda g, a, b: (g(a) + g(b)) / 2)
            ),
            "One step from the first state to the last; wanted every step of the path.": lambda g, w: summed(
                g, w[[0, -1]], lambda g, a, b: g((a + b) / 2)
            ),
        },
    )
