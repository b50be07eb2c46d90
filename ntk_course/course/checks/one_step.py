"""Checks of chapter 1: one step of SGD."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...analysis.one_step import softmax_jacobian
from .core import Check
from .draws import Draw

__all__ = [
    "jacobian_of_softmax",
    "change_of_prediction",
    "order_of_the_remainder",
    "slope_on_log_axes",
    "largest_change",
    "change_from_a_batch",
]


def _probabilities(draw: Draw):
    yield (torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),)
    for k in draw.sizes(3, 2, 6):
        yield (draw.softmax(k),)


jacobian_of_softmax = Check(
    number="1.1",
    wants="answer(q) -> (K, K)",
    reference=softmax_jacobian,
    cases=_probabilities,
    mistakes={
        "The sign is turned round: raising a logit raises its own probability, so the diagonal is positive.": (
            lambda q: -softmax_jacobian(q)
        ),
        "Only the diagonal is there. Raising one logit lowers the other probabilities: entry (i, j) is -q_i q_j.": (
            lambda q: torch.diag(q * (1 - q))
        ),
        "The diagonal lacks its -q_i^2: diag(q) - q q^T subtracts the outer product on the diagonal too.": (
            lambda q: torch.diag(q) - torch.outer(q, q) * (1 - torch.eye(len(q), dtype=q.dtype))
        ),
        "This is the derivative of log q: multiply row i by q_i.": lambda q: torch.eye(len(q), dtype=q.dtype) - q,
        "Here q * q multiplies entry by entry; entry (i, j) needs the product q_i q_j, an outer product.": (
            lambda q: torch.diag(q) - q * q
        ),
        "The outer product is added; it is subtracted.": lambda q: torch.diag(q) + torch.outer(q, q),
    },
)


def _steps(draw: Draw):
    yield (
        0.5,
        torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64),
        torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64),
        torch.tensor([0.5, -0.4, -0.1], dtype=torch.float64),
    )
    for k in draw.sizes(4, 2, 6):
        error = torch.eye(k, dtype=torch.float64)[draw.integer(0, k - 1)] - draw.softmax(k)
        yield draw.uniform(0.01, 0.9, 3), draw.softmax(k), draw.normal(k, k), error


def _change(eta: float, q: Tensor, k: Tensor, e: Tensor) -> Tensor:
    return eta * softmax_jacobian(q) @ k @ e


change_of_prediction = Check(
    number="1.2",
    wants="answer(eta, q_o, K_ou, error_u) -> (K,)",
    reference=_change,
    cases=_steps,
    mistakes={
        "One bug is left: the sign. SGD goes down the loss, so the last factor is p - q, which is what you were given.": (
            lambda *a: -_change(*a)
        ),
        "One bug is left: this is the change of the logits. The softmax is not differentiated: A(x_o) is missing.": (
            lambda eta, q, k, e: eta * k @ e
        ),
        "One bug is left: the block is transposed. Its rows belong to the outputs of x_o, its columns to those of x_u.": (
            lambda eta, q, k, e: eta * softmax_jacobian(q) @ k.T @ e
        ),
        "The learning rate is missing.": lambda eta, q, k, e: softmax_jacobian(q) @ k @ e,
        "The learning rate appears twice: the step is -eta times the gradient, once.": lambda eta, q, k, e: (
            eta * _change(eta, q, k, e)
        ),
        "A is in the wrong place: K acts on the error first, then A on what comes out.": (
            lambda eta, q, k, e: eta * k @ softmax_jacobian(q) @ e
        ),
        "Two bugs are left: the sign, and the transposed block.": lambda eta, q, k, e: -eta * softmax_jacobian(q) @ k.T @ e,
        "Two bugs are left: the sign, and A is missing.": lambda eta, q, k, e: -eta * k @ e,
        "Two bugs are left: A is missing, and the block is transposed.": lambda eta, q, k, e: eta * k.T @ e,
        "All three bugs are still there.": lambda eta, q, k, e: -eta * k.T @ e,
    },
)

# What is done to the formula, and the power of eta that its error then has.
VARIANTS = {
    "nothing": 2,
    "A is left out": 1,
    "A and K at the weights after the step": 2,
    "K(x_u, x_o) for K(x_o, x_u)": 1,
    "the error p - q of another sample": 1,
    "q of x_o rounded to three digits in A": 1,
    "weight decay in the step, not in the formula": 1,
    "A and the Jacobian of x_o: the mean of before and after the step": 3,
}
_WHY = {
    "nothing": "The theorem: the remainder is O(eta^2).",
    "A is left out": "Then the formula is wrong in its first order.",
    "A and K at the weights after the step": "They differ from those before by O(eta), which the factor eta makes O(eta^2): no order is lost.",
    "K(x_u, x_o) for K(x_o, x_u)": "With two hidden layers the block is not symmetric, so the first order is another.",
    "the error p - q of another sample": "Then it is the formula of another step.",
    "q of x_o rounded to three digits in A": "A is then wrong by a fixed thousandth, however small eta is.",
    "weight decay in the step, not in the formula": "The decay moves the weights by eta times a constant: first order, and not in the formula.",
    "A and the Jacobian of x_o: the mean of before and after the step": (
        "The step is what it was; what it does to x_o is integrated by the trapezoidal rule, whose error is one order higher."
    ),
}


def _by_name(answer) -> Any:
    """Return the powers in the order of the statement, or what is wrong with the names."""
    given = answer()
    if not isinstance(given, Mapping):
        return (
            given if given is ... or given is None else "Return the dictionary of the statement, with whole numbers for the dots."
        )
    lacking = [name for name in VARIANTS if name not in given]
    if lacking:
        return f"The variant {lacking[0]!r} is missing: copy the names as they stand in the statement."
    return [given[name] for name in VARIANTS]


def _orders(got, wanted) -> bool | str:
    names = list(VARIANTS)
    if isinstance(got, str):
        return got
    if not isinstance(got, Tensor) or got.shape != (len(names),):
        return f"Return a whole number for each of the {len(names)} variants."
    wrong = [name for name, g, w in zip(names, got.tolist(), wanted.tolist(), strict=True) if g != w]
    if not wrong:
        return True
    return f"{len(names) - len(wrong)} of {len(names)} are right. Think again of: {wrong[0]!r}. {_WHY[wrong[0]]}"


order_of_the_remainder = Check(
    number="1.3",
    wants="answer() -> dict",
    reference=lambda: VARIANTS,
    cases=lambda draw: [()],
    use=_by_name,
    judge=_orders,
)


def _remainders(draw: Draw):
    yield np.array([0.01, 0.1, 1.0]), np.array([0.0003, 0.03, 3.0])
    for _ in range(3):
        n, r = draw.integer(4, 9), draw.uniform(0.5, 3)
        etas = np.sort(10 ** np.array([draw.uniform(-4, 0) for _ in range(n)]))
        errors = draw.uniform(0.1, 5) * etas**r * np.exp(0.1 * draw.normal(n).numpy())
        order = draw.order(n).numpy()
        yield etas[order], errors[order]


def _fit(x, y, part: int = 0) -> float:
    return float(np.polyfit(x, y, 1)[part])


slope_on_log_axes = Check(
    number="1.4",
    wants="answer(etas, errors) -> float",
    reference=lambda e, r: _fit(np.log(e), np.log(r)),
    cases=_remainders,
    mistakes={
        "This is the slope on linear axes: take logarithms of both before you fit.": lambda e, r: _fit(e, r),
        "The axes are swapped: fit log(error) as a function of log(eta).": lambda e, r: _fit(np.log(r), np.log(e)),
        "This is the intercept; np.polyfit returns the slope first.": lambda e, r: _fit(np.log(e), np.log(r), 1),
        "Only the errors are in logarithms: take log(eta) too.": lambda e, r: _fit(e, np.log(r)),
        "Two points are no fit: use all of them.": lambda e, r: float(
            (np.log(r[-1]) - np.log(r[0])) / (np.log(e[-1]) - np.log(e[0]))
        ),
        "Both slope and intercept came back; wanted the slope alone.": lambda e, r: np.polyfit(np.log(e), np.log(r), 1),
    },
)


def _norms(draw: Draw):
    yield 0.1, 2.0
    for _ in range(4):
        yield draw.uniform(0.01, 1, 3), draw.uniform(0.1, 20, 2)


largest_change = Check(
    number="1.5",
    wants="answer(eta, norm_K) -> float",
    reference=lambda eta, norm_K: eta * norm_K * math.sqrt(0.5),
    cases=_norms,
    mistakes={
        "That is the constant c; wanted the bound itself, c times eta times the norm of K.": lambda eta, n: math.sqrt(0.5),
        "The learning rate is missing.": lambda eta, n: n * math.sqrt(0.5),
        "The norm of K is missing.": lambda eta, n: eta * math.sqrt(0.5),
        "This bound holds but is never reached: the largest eigenvalue of A is not 1. For K = 2 and q = (1/2, 1/2) what is it?": (
            lambda eta, n: eta * n * math.sqrt(2)
        ),
        "1/4 is the largest diagonal entry of A; its largest eigenvalue is larger, because of the entries off the diagonal.": (
            lambda eta, n: eta * n * math.sqrt(2) / 4
        ),
        "The error p - q can be longer than 1: think of a network that is sure of another class.": lambda eta, n: eta * n / 2,
        "Neither factor is at its largest: A can reach 1/2, and p - q the length sqrt 2.": lambda eta, n: eta * n / 4,
        "The error p - q is longest where the network is sure of another class, sqrt(1 + 1), not 2.": lambda eta, n: eta * n,
    },
)


def _batches(draw: Draw):
    yield (
        0.5,
        torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64),
        torch.tensor([[[2.0, 1, 0], [0, 3, 0], [0, 0, 1]], [[1.0, 0, 0], [2, 1, 0], [0, 1, 2]]], dtype=torch.float64),
        torch.tensor([[0.5, -0.4, -0.1], [-0.2, 0.5, -0.3]], dtype=torch.float64),
    )
    for _ in range(3):
        b, k = draw.sizes(2, 2, 7)
        errors = torch.eye(k, dtype=torch.float64)[draw.integers(0, k - 1, b)] - draw.softmax(b, k)
        yield draw.uniform(0.01, 0.9, 3), draw.softmax(k), draw.normal(b, k, k), errors


def _total(eta: float, q: Tensor, k: Tensor, e: Tensor) -> Tensor:
    return eta * softmax_jacobian(q) @ torch.einsum("bij,bj->i", k, e)


change_from_a_batch = Check(
    number="1.6",
    wants="answer(eta, q_o, K_o, errors) -> (K,)",
    reference=lambda eta, q, k, e: _total(eta, q, k, e) / len(e),
    cases=_batches,
    mistakes={
        "This is a step on the sum of the losses. The batch loss is a mean: divide by B.": _total,
        "Only the first sample of the batch is used: add up the influence of all of them.": (
            lambda eta, q, k, e: eta * softmax_jacobian(q) @ k[0] @ e[0]
        ),
        "The mean is taken of K and of the errors apart; the mean of a product is not the product of the means.": (
            lambda eta, q, k, e: eta * softmax_jacobian(q) @ k.mean(0) @ e.mean(0)
        ),
        "The softmax is not differentiated: multiply by A(x_o) from the left.": (
            lambda eta, q, k, e: eta * torch.einsum("bij,bj->i", k, e) / len(e)
        ),
        "The learning rate is missing.": lambda eta, q, k, e: _total(1.0, q, k, e) / len(e),
        "The sign is turned round: the errors are p - q already.": lambda eta, q, k, e: -_total(eta, q, k, e) / len(e),
        "The blocks are transposed: rows belong to the outputs of x_o.": lambda eta, q, k, e: _total(eta, q, k.mT, e) / len(e),
        "This divides by the number of classes; the mean is over the B samples.": lambda eta, q, k, e: (
            _total(eta, q, k, e) / len(q)
        ),
    },
)
