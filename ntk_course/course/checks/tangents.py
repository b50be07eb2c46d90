"""Checks of chapters 1 and 2: one step of SGD, and computing the tangent kernel."""

from collections.abc import Callable

import numpy as np
import torch

from ...analysis.one_step import softmax_jacobian
from ...kernels.named import entk
from ...models.networks import mlp
from ...tangents.layout import explicit_is_cheaper
from .core import Outcome, compare, random

__all__ = [
    "jacobian_of_softmax",
    "change_of_prediction",
    "slope_on_log_axes",
    "change_from_a_batch",
    "jacobian_memory",
    "entk_from_jacobians",
    "pseudo_ntk",
    "linear_layer_share",
    "form_the_gradient",
]


def _one_step_cases() -> list[tuple]:
    q = random(4, 3, seed=1).softmax(1)
    return [(0.1, q[i], random(3, 3, seed=i), torch.eye(3, dtype=torch.float64)[i % 3] - q[(i + 1) % 4]) for i in range(4)]


def jacobian_of_softmax(answer: Callable) -> Outcome:
    """Check ``answer(q) -> (K, K)``: the Jacobian of the softmax at logits whose softmax is q (K,)."""
    cases = [(random(k, seed=k).softmax(0),) for k in (2, 3, 5)]
    return compare(
        answer,
        cases,
        softmax_jacobian,
        {
            "The sign is turned round: raising a logit raises its own probability, so the diagonal is positive.": (
                lambda q: -softmax_jacobian(q)
            ),
            "Only the diagonal is there. Raising one logit lowers the other probabilities: entry (i, j) is -q_i q_j.": (
                lambda q: torch.diag(q * (1 - q))
            ),
            "The diagonal lacks its -q_i^2: diag(q) - q q^T subtracts the outer product on the diagonal too.": (
                lambda q: torch.diag(q) - torch.outer(q, q) * (1 - torch.eye(len(q), dtype=q.dtype))
            ),
        },
    )


def change_of_prediction(answer: Callable) -> Outcome:
    """Check ``answer(eta, q_o, K_ou, error_u) -> (K,)``: eq. (1), eta A(x_o) K(x_o, x_u) (p - q)(x_u)."""

    def right(eta, q, k, e):
        return eta * softmax_jacobian(q) @ k @ e

    return compare(
        answer,
        _one_step_cases(),
        right,
        {
            "The sign of the error is turned round: SGD goes down the loss, so the last factor is p - q, not q - p.": (
                lambda *a: -right(*a)
            ),
            "This is the change of the logits. The softmax is not differentiated: multiply by A(x_o) from the left.": (
                lambda eta, q, k, e: eta * k @ e
            ),
            "The K x K block is transposed: its rows belong to the outputs of x_o, its columns to those of x_u.": (
                lambda eta, q, k, e: eta * softmax_jacobian(q) @ k.T @ e
            ),
            "The learning rate is missing.": lambda eta, q, k, e: softmax_jacobian(q) @ k @ e,
            "The learning rate appears twice: the step is -eta times the gradient, once.": (
                lambda eta, q, k, e: eta * right(eta, q, k, e)
            ),
        },
    )


def slope_on_log_axes(answer: Callable) -> Outcome:
    """Check ``answer(etas, errors) -> float``: the least-squares slope of log(error) against log(eta)."""
    etas = np.logspace(-4, -1, 7)
    cases = [(etas, 3.0 * etas**2 * np.exp(0.1 * np.sin(np.arange(7)))), (etas[::-1].copy(), 0.2 * etas[::-1] ** 1.5)]

    def fit(x, y):
        return np.polyfit(x, y, 1)[0]

    return compare(
        answer,
        cases,
        lambda e, r: fit(np.log(e), np.log(r)),
        {
            "This is the slope on linear axes: take logarithms of both before you fit.": lambda e, r: fit(e, r),
            "The axes are swapped: fit log(error) as a function of log(eta).": lambda e, r: fit(np.log(r), np.log(e)),
            "This is the intercept; np.polyfit returns the slope first.": lambda e, r: np.polyfit(np.log(e), np.log(r), 1)[1],
            "Only the errors are in logarithms: take log(eta) too.": lambda e, r: fit(e, np.log(r)),
        },
    )


def change_from_a_batch(answer: Callable) -> Outcome:
    """Check ``answer(eta, q_o, K_o, errors) -> (K,)``: one step on the mean loss of B samples; K_o (B, K, K), errors (B, K)."""
    q = random(3, seed=5).softmax(0)
    cases = [(0.1, q, random(b, 3, 3, seed=b), random(b, 3, seed=b + 10)) for b in (2, 5)]

    def total(eta, q, k, e):
        return eta * softmax_jacobian(q) @ torch.einsum("bij,bj->i", k, e)

    return compare(
        answer,
        cases,
        lambda eta, q, k, e: total(eta, q, k, e) / len(e),
        {
            "This is a step on the sum of the losses. The batch loss is a mean: divide by B.": total,
            "Only the first sample of the batch is used: add up the influence of all of them.": (
                lambda eta, q, k, e: eta * softmax_jacobian(q) @ k[0] @ e[0]
            ),
            "The mean is taken of K and of the errors apart; the mean of a product is not the product of the means.": (
                lambda eta, q, k, e: eta * softmax_jacobian(q) @ k.mean(0) @ e.mean(0)
            ),
            "The softmax is not differentiated: multiply by A(x_o) from the left.": (
                lambda eta, q, k, e: eta * torch.einsum("bij,bj->i", k, e) / len(e)
            ),
        },
    )


def jacobian_memory(answer: Callable) -> Outcome:
    """Check ``answer(n, k, d, bytes_each) -> float``: GiB (2^30 bytes) that the Jacobian of n samples takes."""
    return compare(
        answer,
        [(512, 10, 61_706, 4), (60_000, 10, 61_706, 4), (64, 3, 1000, 8)],
        lambda n, k, d, b: n * k * d * b / 2**30,
        {
            "One row for each sample is not enough: each of the K outputs has a gradient of its own.": (
                lambda n, k, d, b: n * d * b / 2**30
            ),
            "These are gigabytes (10^9); a GiB is 2^30 bytes.": lambda n, k, d, b: n * k * d * b / 1e9,
            "These are bytes; divide by 2^30.": lambda n, k, d, b: n * k * d * b,
            "The size of one number is missing: multiply by bytes_each.": lambda n, k, d, b: n * k * d / 2**30,
        },
    )


def _network_cases() -> list[tuple]:
    cases = []
    for seed, activation in ((0, "tanh"), (1, "relu")):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = mlp((5, 7, 6, 3), activation).double()  # two hidden layers: with one, every K x K block is symmetric
        cases.append((model, random(4, 5, seed=seed), random(2, 5, seed=seed + 1)))
    return cases


def entk_from_jacobians(answer: Callable) -> Outcome:
    """Check ``answer(model, x1, x2) -> (N, M, K, K)``: the empirical NTK."""
    return compare(
        answer,
        _network_cases(),
        entk,
        {
            "Each K x K block is transposed: entry [n, m, i, j] pairs output i of x1[n] with output j of x2[m].": (
                lambda *a: entk(*a).transpose(2, 3)
            ),
            "The axes are in another order: wanted (N, M, K, K), the two samples first, then their outputs.": (
                lambda *a: entk(*a).permute(0, 2, 1, 3)
            ),
            "There is a factor 1/K too many: that belongs to the pseudo-NTK.": lambda *a: entk(*a) / 3,
            "This is a single number for each pair: the outputs must not be summed over.": lambda *a: entk(*a).sum((2, 3)),
        },
    )


def pseudo_ntk(answer: Callable) -> Outcome:
    """Check ``answer(kernel) -> (N, M)``: the pseudo-NTK from the empirical NTK (N, M, K, K)."""
    cases = [(entk(*case),) for case in _network_cases()]
    return compare(
        answer,
        cases,
        lambda kernel: kernel.sum((2, 3)) / kernel.shape[-1],
        {
            "The factor 1/K is missing: divide the sum of the K x K entries by K.": lambda kernel: kernel.sum((2, 3)),
            "This is the mean of the K x K entries, a factor 1/K^2; wanted 1/K.": lambda kernel: kernel.mean((2, 3)),
            "This is the trace divided by K: the off-diagonal entries belong to the sum as well.": (
                lambda kernel: kernel.diagonal(dim1=2, dim2=3).mean(-1)
            ),
        },
    )


def linear_layer_share(answer: Callable) -> Outcome:
    """Check ``answer(a1, b1, a2, b2) -> (N, M)``: a linear layer's share of the kernel, weights and biases."""
    cases = [(random(4, 6), random(4, 3, seed=1), random(5, 6, seed=2), random(5, 3, seed=3))]
    return compare(
        answer,
        cases,
        lambda a1, b1, a2, b2: (a1 @ a2.T + 1) * (b1 @ b2.T),
        {
            "The bias is missing: its gradient is b alone, which adds (b1 b2^T), so the first factor is a1 a2^T + 1.": (
                lambda a1, b1, a2, b2: (a1 @ a2.T) * (b1 @ b2.T)
            ),
            "The two products are added; the inner product of outer products is their product.": (
                lambda a1, b1, a2, b2: a1 @ a2.T + b1 @ b2.T
            ),
            "The 1 sits at the wrong factor: the bias pairs b with b, so it is (a1 a2^T + 1) * (b1 b2^T).": (
                lambda a1, b1, a2, b2: (a1 @ a2.T) * (b1 @ b2.T + 1)
            ),
        },
    )


def form_the_gradient(answer: Callable) -> Outcome:
    """Check ``answer(t, p, q) -> bool``: is p q at most the T^2 (p + q + 1) operations that the factors need a pair?"""
    cases = [(1, 400, 120), (784, 25, 6), (100, 150, 16), (1, 2, 2), (4, 64, 64), (16, 4608, 512), (3, 20, 20), (4, 30, 20)]
    return compare(
        answer,
        cases,
        lambda t, p, q: explicit_is_cheaper(t, p, q, pairs=1e12),
        {
            "The factors meet at every pair of positions: T^2 of them, not T.": lambda t, p, q: p * q <= t * (p + q + 1),
            "The answer is turned round: return True when forming the gradient is cheaper.": (
                lambda t, p, q: p * q > t * t * (p + q + 1)
            ),
            "The positions are missing: with T > 1 the factored product has T^2 terms.": lambda t, p, q: p * q <= p + q + 1,
        },
    )
