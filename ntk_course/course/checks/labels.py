"""Checks of chapter 4: pseudo kernels and labels."""

from collections.abc import Callable

import torch

from ...kernels.named import entk
from ...models.networks import mlp
from ...tangents.cotangents import signs
from .core import Outcome, compare, random

__all__ = [
    "signs_of_the_error",
    "labelled_pseudo_ntk",
    "labelled_features",
    "contradictory_label",
    "relation_of_a_pair",
    "cotangents_that_oppose",
]


def signs_of_the_error(answer: Callable) -> Outcome:
    """Check ``answer(q, y) -> (K,)``: the signs of p - q for a softmax output q (K,) and a label y."""
    cases = [(random(k, seed=k).softmax(0), k // 2) for k in (2, 3, 5)]

    def right(q, y):
        return signs(torch.tensor([y]), len(q))[0]

    return compare(
        answer,
        cases,
        right,
        {
            "The signs are turned round: the label's entry is 1 - q_y > 0.": lambda q, y: -right(q, y),
            "This is the one-hot target p. Subtract q and take signs: the other entries are 0 - q_k < 0, so -1.": (
                lambda q, y: (right(q, y) + 1) / 2
            ),
            "This is the error p - q itself. Only its signs are wanted, +1 or -1.": lambda q, y: (right(q, y) + 1) / 2 - q,
        },
    )


def _kernel_cases() -> list[tuple]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = mlp((5, 7, 6, 3), "tanh").double()
    kernel = entk(model, random(4, 5), random(3, 5, seed=1))
    return [(kernel, torch.tensor([0, 1, 2, 1]), torch.tensor([2, 2, 0]))]


def labelled_pseudo_ntk(answer: Callable) -> Outcome:
    """Check ``answer(kernel, y1, y2) -> (N, M)``: lpNTK from the empirical NTK (N, M, K, K) and labels (N,), (M,)."""

    def summed(kernel, left, right):
        return torch.einsum("nmij,nmi,nmj->nm", kernel, left, right) / kernel.shape[-1]

    def sides(kernel, y1, y2):
        k, shape = kernel.shape[-1], kernel.shape[:3]
        return signs(y1, k).double()[:, None].expand(shape), signs(y2, k).double()[None, :].expand(shape)

    def right(kernel, y1, y2):
        return summed(kernel, *sides(kernel, y1, y2))

    return compare(
        answer,
        _kernel_cases(),
        right,
        {
            "The factor 1/K is missing.": lambda k, a, b: right(k, a, b) * k.shape[-1],
            "The factor is 1/K^2; each side has 1/sqrt(K), so wanted 1/K.": lambda k, a, b: right(k, a, b) / k.shape[-1],
            "This is the pseudo-NTK: the signs of the labels are missing.": lambda k, a, b: k.sum((2, 3)) / k.shape[-1],
            "Only one side has its signs. Rows belong to y1 and columns to y2; both need them.": (
                lambda k, a, b: summed(k, sides(k, a, b)[0], torch.ones(k.shape[:3], dtype=k.dtype))
            ),
            "The signs are at the wrong sides: axis i of the block belongs to y1, axis j to y2.": (
                lambda k, a, b: summed(k, *sides(k, a, b)[::-1])
            ),
        },
    )


def labelled_features(answer: Callable) -> Outcome:
    """Check ``answer(jacobian, y) -> (N, d)``: the features whose inner products are the lpNTK; jacobian (N, K, d)."""

    def right(jacobian, y):
        k = jacobian.shape[1]
        return torch.einsum("nk,nkd->nd", signs(y, k).double(), jacobian) / k**0.5

    return compare(
        answer,
        [(random(4, 3, 6), torch.tensor([0, 2, 1, 2]))],
        right,
        {
            "The factor is 1/K; the kernel has 1/K, so each of its two sides has 1/sqrt(K).": (
                lambda j, y: right(j, y) / j.shape[1] ** 0.5
            ),
            "The factor 1/sqrt(K) is missing.": lambda j, y: right(j, y) * j.shape[1] ** 0.5,
            "This takes the gradient of the label's logit alone (the vector of App. C). Add all rows, with their signs.": (
                lambda j, y: j[torch.arange(len(y)), y]
            ),
            "The signs are missing: these are the features of the pseudo-NTK.": lambda j, y: j.sum(1) / j.shape[1] ** 0.5,
        },
    )


def contradictory_label(answer: Callable) -> Outcome:
    """Check ``answer(block, y) -> int``: the label y' that makes s(y)^T block s(y') smallest; block (K, K)."""
    blocks = [random(5, 5, seed=s) for s in range(6)]

    def against(block, y):
        return signs(torch.tensor([y]), len(block))[0].double() @ block

    return compare(
        answer,
        [(block, i % 5) for i, block in enumerate(blocks)],
        lambda block, y: int(against(block, y).argmin()),
        {
            "This is the most interchangeable label: take the smallest value, not the largest.": (
                lambda block, y: int(against(block, y).argmax())
            ),
            "This looks at row y of the block only. The signs of y mix all rows: use s(y)^T block.": (
                lambda block, y: int(block[y].argmin())
            ),
            "The block is used transposed: its rows belong to y, its columns to y'.": (
                lambda block, y: int(against(block.T, y).argmin())
            ),
        },
    )


def relation_of_a_pair(answer: Callable) -> Outcome:
    """Check ``answer(uo, uu, oo, t) -> int``: 1 interchangeable, -1 contradictory, 0 otherwise, by both projections."""
    cases = [(uo, uu, oo, 0.6) for uo in (-3.0, -1.0, 0.0, 1.0, 1.9, 3.0) for uu in (1.5, 4.0) for oo in (1.5, 4.0)]

    def by(low, high, t):
        return 1 if low >= t else -1 if high <= -t else 0

    def projections(uo, uu, oo):
        return sorted((uo / uu, uo / oo))

    return compare(
        answer,
        cases,
        lambda uo, uu, oo, t: by(projections(uo, uu, oo)[0], projections(uo, uu, oo)[1], t),
        {
            "This looks at the projection on u only; the one on o must reach the threshold too.": lambda uo, uu, oo, t: by(
                uo / uu, uo / uu, t
            ),
            "This looks at the projection on o only; the one on u must reach the threshold too.": lambda uo, uu, oo, t: by(
                uo / oo, uo / oo, t
            ),
            "This is the cosine. The paper asks for both projections, which also compares the lengths.": (
                lambda uo, uu, oo, t: by(uo / (uu * oo) ** 0.5, uo / (uu * oo) ** 0.5, t)
            ),
            "Either projection is taken for enough; both must reach the threshold.": (
                lambda uo, uu, oo, t: by(projections(uo, uu, oo)[1], projections(uo, uu, oo)[0], t)
            ),
        },
    )


def cotangents_that_oppose(answer: Callable) -> Outcome:
    """Check ``answer(y, classes) -> (N, K)``: unit cotangents whose products are -1/(K - 1) for any two labels."""

    def centred(y, k, scale=True, share=True):
        e = torch.eye(k, dtype=torch.float64)[y] - (1 / k if share else 0.0)
        return e / e.norm(dim=1, keepdim=True) if scale else e

    return compare(
        answer,
        [(torch.tensor([0, 2, 1, 2]), 3), (torch.tensor([4, 0, 9]), 10)],
        centred,
        {
            "The direction is right; wanted vectors of length one.": lambda y, k: centred(y, k, scale=False),
            "One-hot vectors of two labels are at right angles: their product is 0.": lambda y, k: centred(y, k, share=False),
            "These are lpNTK's signs: two labels share K - 2 of them, and the product is (K - 4)/K.": (
                lambda y, k: signs(y, k) / k**0.5
            ),
            "The sign is turned: a sample wants its own output to rise.": lambda y, k: -centred(y, k),
        },
    )
