"""Checks of chapters 1 and 2: one step of SGD, and computing the tangent kernel."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...analysis.one_step import softmax_jacobian
from ...kernels.named import entk
from ...models.networks import mlp
from .core import Check
from .draws import Draw

__all__ = [
    "jacobian_of_softmax",
    "change_of_prediction",
    "order_of_the_remainder",
    "slope_on_log_axes",
    "largest_change",
    "change_from_a_batch",
    "jacobian_memory",
    "entk_from_gradients",
    "pseudo_ntk",
    "nothing_in_common",
    "linear_layer_share",
    "positions_to_form",
]


# ----- chapter 1


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


# ----- chapter 2


def _memories(draw: Draw):
    yield 1024, 2, 1024, 4
    for _ in range(4):
        yield draw.integer(100, 70_000), draw.integer(2, 100), draw.integer(1_000, 10_000_000), draw.choice((2, 4, 8))


jacobian_memory = Check(
    number="2.1",
    wants="answer(n, k, d, bytes_each) -> float",
    reference=lambda n, k, d, b: n * k * d * b / 2**30,
    cases=_memories,
    mistakes={
        "One row for each sample is not enough: each of the K outputs has a gradient of its own.": lambda n, k, d, b: (
            n * d * b / 2**30
        ),
        "These are gigabytes (10^9); a GiB is 2^30 bytes.": lambda n, k, d, b: n * k * d * b / 1e9,
        "These are bytes; divide by 2^30.": lambda n, k, d, b: n * k * d * b,
        "These are MiB; a GiB is 2^30 bytes.": lambda n, k, d, b: n * k * d * b / 2**20,
        "The size of one number is missing: multiply by bytes_each.": lambda n, k, d, b: n * k * d / 2**30,
        "That is the kernel, N^2 K^2 numbers; wanted the Jacobian.": lambda n, k, d, b: n * n * k * k * b / 2**30,
        "Rounded: wanted the number itself.": lambda n, k, d, b: float(round(n * k * d * b / 2**30)),
    },
)


def _networks(draw: Draw):
    """Networks with two hidden layers: with one, every K x K block is symmetric."""
    for activation in ("tanh", "relu", "tanh"):
        n, m, k, d = draw.sizes(4, 2, 7)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw.integer(0, 2**31))
            model = mlp((d, 6, 5, k), activation).double()
        yield model, draw.normal(n, d), draw.normal(m, d)


def _some(keep):
    """Return the kernel of some parameters only."""

    def kernel(model, x1, x2):
        names = [name for name, _ in model.named_parameters() if keep(name)]
        params = [dict(model.named_parameters())[name] for name in names]

        def rows(x):
            out = []
            for x_n in x:
                z = model(x_n[None])[0]
                grads = [torch.autograd.grad(z_i, params, retain_graph=True) for z_i in z]
                out.append(torch.stack([torch.cat([g.flatten() for g in each]) for each in grads]))
            return torch.stack(out)

        return torch.einsum("nid,mjd->nmij", rows(x1), rows(x2))

    return kernel


entk_from_gradients = Check(
    number="2.2",
    wants="answer(model, x1, x2) -> (N, M, K, K)",
    reference=entk,
    cases=_networks,
    mistakes={
        "Each K x K block is transposed: entry [n, m, i, j] pairs output i of x1[n] with output j of x2[m].": (
            lambda *a: entk(*a).transpose(2, 3)
        ),
        "The axes are in another order: wanted (N, M, K, K), the two samples first, then their outputs.": (
            lambda *a: entk(*a).permute(0, 2, 1, 3)
        ),
        "There is a factor 1/K too many: that belongs to the pseudo-NTK.": lambda model, a, b: (
            entk(model, a, b) / entk(model, a, b).shape[-1]
        ),
        "This is a single number for each pair: the outputs must not be summed over.": lambda *a: entk(*a).sum((2, 3)),
        "These are the weights' gradients alone; biases are parameters too.": _some(lambda name: "bias" not in name),
        "This is the last layer alone; every parameter belongs to the Jacobian.": _some(lambda name: name.startswith("5.")),
        "This is the kernel of x1 with itself; the second argument is x2.": lambda model, a, b: entk(model, a),
        "These are gradients of the probabilities; wanted those of the logits.": lambda model, a, b: entk(
            torch.nn.Sequential(model, torch.nn.Softmax(1)), a, b
        ),
    },
)


def _kernels(draw: Draw):
    for case in _networks(draw):
        yield (entk(*case).detach(),)


pseudo_ntk = Check(
    number="2.3",
    wants="answer(kernel) -> (N, M)",
    reference=lambda kernel: kernel.sum((2, 3)) / kernel.shape[-1],
    cases=_kernels,
    mistakes={
        "The factor 1/K is missing: divide the sum of the K x K entries by K.": lambda kernel: kernel.sum((2, 3)),
        "This is the mean of the K x K entries, a factor 1/K^2; wanted 1/K.": lambda kernel: kernel.mean((2, 3)),
        "This is the trace divided by K: the off-diagonal entries belong to the sum as well.": (
            lambda kernel: kernel.diagonal(dim1=2, dim2=3).mean(-1)
        ),
        "This divides by the number of samples; K is the length of the last two axes.": lambda kernel: (
            kernel.sum((2, 3)) / kernel.shape[0]
        ),
        "The sums run over the samples; K is in the last two axes.": lambda kernel: kernel.sum((0, 1)) / kernel.shape[-1],
    },
)


def _blind(got, wanted) -> bool | str:
    if not (isinstance(got, Tensor) and got.dim() == 2 and got.shape[0] == got.shape[1] and len(got) >= 2):
        return "Return one square block K(x, x), at least 2 x 2."
    scale = float(got.abs().max())
    if not torch.allclose(got, got.T, atol=1e-6 * scale):
        return "K(x, x) = J J^T is symmetric; this is not."
    if float(torch.linalg.eigvalsh(got)[0]) < -1e-6 * scale:
        return "K(x, x) = J J^T has no negative eigenvalue; this has one."
    if abs(float(got.sum())) > 1e-6 * scale * len(got) or scale == 0:
        return f"Its pseudo-NTK, the sum of the entries over K, is {float(got.sum()) / len(got):.3g}; wanted 0."
    return True


nothing_in_common = Check(
    number="2.4",
    wants="answer() -> (K, K)",
    reference=lambda: torch.tensor([[1.0, -1.0], [-1.0, 1.0]]),
    cases=lambda draw: [()],
    judge=_blind,
)


def _layers(draw: Draw):
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    yield 2 * one, 3 * one, one, one
    for _ in range(3):
        n, m, t, p, q = draw.sizes(5, 2, 7)
        yield draw.normal(n, t, p), draw.normal(n, t, q), draw.normal(m, t, p), draw.normal(m, t, q)


def _share(a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, bias: float = 1.0) -> Tensor:
    inputs, sent = torch.einsum("ntp,mup->nmtu", a1, a2), torch.einsum("ntq,muq->nmtu", b1, b2)
    return ((inputs + bias) * sent).sum((2, 3))


linear_layer_share = Check(
    number="2.5",
    wants="answer(a1, b1, a2, b2) -> (N, M)",
    reference=_share,
    cases=_layers,
    mistakes={
        "The bias is missing: its gradient is the sum of b over positions, so the first factor is a a' + 1.": (
            lambda a1, b1, a2, b2: _share(a1, b1, a2, b2, bias=0.0)
        ),
        "Every position meets its own only; the gradient is a sum over positions, so every t meets every u.": (
            lambda a1, b1, a2, b2: ((torch.einsum("ntp,mtp->nmt", a1, a2) + 1) * torch.einsum("ntq,mtq->nmt", b1, b2)).sum(2)
        ),
        "Inputs and cotangents are summed over positions before they are multiplied; the outer products come first.": (
            lambda a1, b1, a2, b2: (a1.sum(1) @ a2.sum(1).T + 1) * (b1.sum(1) @ b2.sum(1).T)
        ),
        "The two products are added; the inner product of outer products is their product.": (
            lambda a1, b1, a2, b2: (torch.einsum("ntp,mup->nmtu", a1, a2) + torch.einsum("ntq,muq->nmtu", b1, b2)).sum((2, 3))
        ),
        "The 1 sits at the wrong factor: the bias pairs b with b, so it is (a a' + 1) (b b').": (
            lambda a1, b1, a2, b2: (torch.einsum("ntp,mup->nmtu", a1, a2) * (torch.einsum("ntq,muq->nmtu", b1, b2) + 1)).sum(
                (2, 3)
            )
        ),
        "This is the mean over positions; a gradient is the sum.": lambda a1, b1, a2, b2: (
            _share(a1, b1, a2, b2) / a1.shape[1] ** 2
        ),
    },
)


def _shapes(draw: Draw):
    yield 4, 4
    yield 1, 1
    yield 2, 2
    yield 25, 6
    yield 8, 3  # p q = 24 = 2 (p + q + 1): below 2^2, above 1
    yield 4, 8
    yield 14, 4  # 56, T = 2: 4 * 19 = 76
    yield 99, 100
    for _ in range(6):
        yield draw.integer(2, 600), draw.integer(2, 600)
    # exactly equal at T = 2: p q = 4 (p + q + 1), that is (p - 4)(q - 4) = 20
    yield from ((5, 24), (6, 14), (8, 9), (24, 5))
    yield 8, 10  # 80 lies between 4 (p + q + 1) and 4 (p + q + 2)
    yield 7, 10  # 70 lies between 4 (p + q) and 4 (p + q + 1)


positions_to_form = Check(
    number="2.6",
    wants="answer(p, q) -> int",
    reference=lambda p, q: math.isqrt(-(-p * q // (p + q + 1)) - 1) + 1 if p * q > p + q + 1 else 1,
    cases=_shapes,
    mistakes={
        "The factors meet at every pair of positions: T^2 of them, not T.": lambda p, q: max(1, -(-p * q // (p + q + 1))),
        "Rounded down: at that T the factors are still cheaper.": lambda p, q: max(1, math.isqrt(p * q // (p + q + 1))),
        "Where both cost the same, forming costs no more: T counts.": lambda p, q: math.isqrt(p * q // (p + q + 1)) + 1,
        "The +1 of the bias is missing: a pair of positions costs p + q + 1.": (
            lambda p, q: max(1, math.isqrt(-(-p * q // (p + q)) - 1) + 1)
        ),
        "Not rounded: a number of positions is whole.": lambda p, q: math.sqrt(p * q / (p + q + 1)),
    },
)
