"""Checks of chapter 4: pseudo kernels and labels."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...tangents.cotangents import signs
from .core import Check, judged_by_products
from .draws import Draw, telling_apart

__all__ = [
    "signs_of_the_error",
    "labelled_pseudo_ntk",
    "labelled_features",
    "contradictory_label",
    "relation_of_a_pair",
    "cotangents_that_oppose",
]


def _predictions(draw: Draw):
    yield torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64), 0  # wrong, so the label is not the largest
    for k in draw.sizes(4, 2, 7):
        yield draw.softmax(k), draw.integer(0, k - 1)
    yield torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64), 2
    yield torch.tensor([0.4, 0.5, 0.1], dtype=torch.float64), 0


def _signs(q: Tensor, y: int) -> Tensor:
    return signs(torch.tensor([int(y)]), len(q))[0].double()


signs_of_the_error = Check(
    number="4.1",
    wants="answer(q, y) -> (K,)",
    reference=_signs,
    cases=_predictions,
    mistakes={
        "The signs are turned round: the label's entry is 1 - q_y > 0.": lambda q, y: -_signs(q, y),
        "This is the one-hot target p. Subtract q and take signs: the other entries are 0 - q_k < 0, so -1.": lambda q, y: (
            (_signs(q, y) + 1) / 2
        ),
        "This is the error p - q itself. Only its signs are wanted, +1 or -1.": lambda q, y: (_signs(q, y) + 1) / 2 - q,
        "The plus stands at the largest probability; it belongs to the label, right or wrong.": lambda q, y: _signs(
            q, int(q.argmax())
        ),
        "These compare q with 1/K; the error is one-hot minus q.": lambda q, y: (q - 1 / len(q)).sign(),
    },
)


def _blocks(n: int, m: int, k: int, draw: Draw) -> Tensor:
    """Return an eNTK (n, m, k, k) that can exist: inner products of Jacobians."""
    d = k + 5
    return torch.einsum("nid,mjd->nmij", draw.jacobians(n, k, d), draw.jacobians(m, k, d))


def _labelled_kernels(draw: Draw):
    yield (
        torch.tensor([[[[2.0, 1.0, 0.0], [0.0, 4.0, 1.0], [3.0, 0.0, 9.0]]]], dtype=torch.float64),
        torch.tensor([0]),
        torch.tensor([1]),
    )
    for _ in range(3):
        n, m, k = draw.sizes(3, 2, 7)
        yield _blocks(n, m, k, draw), draw.labels(n, k), draw.labels(m, k)


def _summed(kernel: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return torch.einsum("nmij,nmi,nmj->nm", kernel, left, right) / kernel.shape[-1]


def _sides(kernel: Tensor, y1: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
    k, shape = kernel.shape[-1], kernel.shape[:3]
    return signs(y1, k).double()[:, None].expand(shape), signs(y2, k).double()[None, :].expand(shape)


def _lpntk(kernel: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
    return _summed(kernel, *_sides(kernel, y1, y2))


labelled_pseudo_ntk = Check(
    number="4.2",
    wants="answer(kernel, y1, y2) -> (N, M)",
    reference=_lpntk,
    cases=_labelled_kernels,
    mistakes={
        "The factor 1/K is missing.": lambda k, a, b: _lpntk(k, a, b) * k.shape[-1],
        "The factor is 1/K^2; each side has 1/sqrt(K), so wanted 1/K.": lambda k, a, b: _lpntk(k, a, b) / k.shape[-1],
        "The factor is 1/sqrt(K); each side has one, so wanted 1/K.": lambda k, a, b: _lpntk(k, a, b) * k.shape[-1] ** 0.5,
        "This divides by the number of samples; K is the number of outputs.": lambda k, a, b: (
            _lpntk(k, a, b) * k.shape[-1] / k.shape[1]
        ),
        "This is the pseudo-NTK: the signs of the labels are missing.": lambda k, a, b: k.sum((2, 3)) / k.shape[-1],
        "Only one side has its signs. Rows belong to y1 and columns to y2; both need them.": (
            lambda k, a, b: _summed(k, _sides(k, a, b)[0], torch.ones(k.shape[:3], dtype=k.dtype))
        ),
        "Only one side has its signs: those of y1 are missing.": lambda k, a, b: _summed(
            k, torch.ones(k.shape[:3], dtype=k.dtype), _sides(k, a, b)[1]
        ),
        "The signs are at the wrong sides: axis i of the block belongs to y1, axis j to y2.": lambda k, a, b: _summed(
            k, *_sides(k, a, b)[::-1]
        ),
        "These are one-hot vectors in the place of signs: the other outputs count -1, not 0.": (
            lambda k, a, b: _summed(k, *((s + 1) / 2 for s in _sides(k, a, b)))
        ),
        "This is one entry of the block, that of the two labels; the signs add up all of them.": (
            lambda k, a, b: torch.stack([torch.stack([k[n, m, a[n], b[m]] for m in range(len(b))]) for n in range(len(a))])
        ),
    },
)


def _jacobians(draw: Draw):
    yield torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 1.0], [1.0, 4.0]]], dtype=torch.float64), torch.tensor([0, 1])
    for _ in range(3):
        n, k = draw.sizes(2, 2, 7)
        yield draw.jacobians(n, k, k + 4), draw.labels(n, k)


def _features(jacobian: Tensor, y: Tensor) -> Tensor:
    return torch.einsum("nk,nkd->nd", signs(y, jacobian.shape[1]).double(), jacobian) / jacobian.shape[1] ** 0.5


labelled_features = Check(
    number="4.3",
    wants="answer(jacobian, y) -> (N, any)",
    reference=_features,
    cases=_jacobians,
    judge=judged_by_products,
    mistakes={
        "The factor is 1/K; the kernel has 1/K, so each of its two sides has 1/sqrt(K).": lambda j, y: (
            _features(j, y) / j.shape[1] ** 0.5
        ),
        "The factor 1/sqrt(K) is missing.": lambda j, y: _features(j, y) * j.shape[1] ** 0.5,
        "This divides by sqrt(N); the factor is 1/sqrt(K).": lambda j, y: _features(j, y) * (j.shape[1] / len(j)) ** 0.5,
        "This takes the gradient of the label's logit alone (the vector of App. C). Add all rows, with their signs.": (
            lambda j, y: j[torch.arange(len(y)), y]
        ),
        "The signs are missing: these are the features of the pseudo-NTK.": lambda j, y: j.sum(1) / j.shape[1] ** 0.5,
    },
)


def _pairs(draw: Draw):
    yield torch.tensor([[2.0, 1.0], [0.0, 3.0]], dtype=torch.float64), 0

    def make() -> tuple:
        k = draw.integer(3, 7)
        return draw.normal(k, k), draw.integer(0, k - 1)

    yield from telling_apart(make, [contradictory_label.reference, *contradictory_label.mistakes.values(), *_OTHER_LABELS])
    # the label itself can be the most contradictory
    k = draw.integer(3, 5)
    y = draw.integer(0, k - 1)
    block = 0.1 * draw.normal(k, k)
    block[y, y] = -5.0
    yield block, y


def _against(block: Tensor, y: int) -> Tensor:
    return _signs(block[0], y) @ block


# rules that are wrong, often give the same label as the right one, and have no sentence of their own
_OTHER_LABELS: list[Callable[[Tensor, int], int]] = [
    lambda b, y: 1 + int(_against(b, y)[1:].argmin()),
    lambda b, y: int(_against(b, y)[:-1].argmin()),
    lambda b, y: int((_against(b, y) / b.norm(dim=0)).argmin()),
    lambda b, y: int((b[y] - (b.sum(0) - b[y]) / (len(b) - 1)).argmin()),
    lambda b, y: int((b[y] - b.sum(0)).argmin()),
    lambda b, y: int(_against(b, y).abs().argmin()),
    lambda b, y: y,
]


contradictory_label = Check(
    number="4.4",
    wants="answer(block, y) -> int",
    reference=lambda block, y: int(_against(block, y).argmin()),
    cases=_pairs,
    mistakes={
        "This is the most interchangeable label: take the smallest value, not the largest.": lambda b, y: int(
            _against(b, y).argmax()
        ),
        "This looks at row y of the block only. The signs of y mix all rows: use s(y)^T block.": lambda b, y: int(b[y].argmin()),
        "The block is used transposed: its rows belong to y, its columns to y'.": lambda b, y: int(_against(b.T, y).argmin()),
        "This is the value of the sum; wanted the label.": lambda b, y: float((2 * _against(b, y) - _against(b, y).sum()).min()),
        "This is the smallest entry of s(y) K; wanted its place, the label.": lambda b, y: float(_against(b, y).min()),
        "The signs of y are missing: rows of the block that do not belong to y count with a minus.": (
            lambda b, y: int(b.sum(0).argmin())
        ),
        "y itself is left out; the statement lets y' be any label, and it can be that one.": (
            lambda b, y: int(torch.where(torch.arange(len(b)) == y, torch.inf, _against(b, y)).argmin())
        ),
        "This looks at column y of the block; rows belong to y.": lambda b, y: int(b[:, y].argmin()),
    },
)


def _triples(draw: Draw):
    yield 3.0, 4.0, 3.0, 0.6
    yield 2.0, 4.0, 2.0, 0.6
    yield 3.0, 4.0, 4.0, 0.75  # exactly at the threshold
    yield -3.0, 4.0, 4.0, 0.75
    yield 3.0, 3.5, 16.0, 0.51  # near for one of them only, and in the mean
    yield 3.0, 16.0, 3.5, 0.51
    yield 3.0, 3.5, 16.0, 0.6  # near for one of them only, not in the mean
    yield -3.5, 4.0, 4.0, 0.6  # contradictory
    yield -2.0, 4.0, 2.0, 0.6
    yield -2.0, 2.0, 4.0, 0.6
    yield -0.56 * 3.0, 3.0, 3.0, 0.6
    yield 2.0, 2.0, 4.0, 0.6
    yield 3.5, 4.0, 4.0, 0.6
    yield -3.0, 3.5, 16.0, 0.6  # the same on the other side
    yield -3.0, 16.0, 3.5, 0.6
    yield 0.0, 1.0, 2.0, 0.6
    for _ in range(12):
        uu, oo = draw.uniform(0.5, 4, 1), draw.uniform(0.5, 4, 1)
        yield draw.uniform(-1, 1, 2) * (uu * oo) ** 0.5, uu, oo, draw.choice((0.55, 0.6, 0.7, 0.8, 0.9))
    for t in (0.55, 0.65, 0.75, 0.85):  # a pair between this threshold and the next
        sign = draw.choice((-1, 1))
        yield sign * (t + 0.04) * 2.0, 2.0, 2.0, t
        yield sign * (t - 0.04) * 2.0, 2.0, 2.0, t


def _by(low: float, high: float, t: float) -> int:
    return 1 if low >= t else -1 if high <= -t else 0


def _projections(uo, uu, oo) -> tuple[float, float]:
    return min(uo / uu, uo / oo), max(uo / uu, uo / oo)


relation_of_a_pair = Check(
    number="4.5",
    wants="answer(uo, uu, oo, t) -> int",
    reference=lambda uo, uu, oo, t: _by(*_projections(uo, uu, oo), t),
    cases=_triples,
    mistakes={
        "This looks at the projection on u only; the one on o must reach the threshold too.": lambda uo, uu, oo, t: _by(
            uo / uu, uo / uu, t
        ),
        "This looks at the projection on o only; the one on u must reach the threshold too.": lambda uo, uu, oo, t: _by(
            uo / oo, uo / oo, t
        ),
        "This is the cosine. The paper asks for both projections, which also compares the lengths.": (
            lambda uo, uu, oo, t: _by(uo / (uu * oo) ** 0.5, uo / (uu * oo) ** 0.5, t)
        ),
        "This is the mean of the two projections; each of them must reach the threshold.": (
            lambda uo, uu, oo, t: _by(sum(_projections(uo, uu, oo)) / 2, sum(_projections(uo, uu, oo)) / 2, t)
        ),
        "Either projection is taken for enough; both must reach the threshold.": (
            lambda uo, uu, oo, t: _by(_projections(uo, uu, oo)[1], _projections(uo, uu, oo)[0], t)
        ),
        "At -t a pair is contradictory: at most -t, not below it.": lambda uo, uu, oo, t: (
            1 if min(uo / uu, uo / oo) >= t else -1 if max(uo / uu, uo / oo) < -t else 0
        ),
        "At t a pair is interchangeable: at least t, not above it.": lambda uo, uu, oo, t: (
            1 if min(uo / uu, uo / oo) > t else -1 if max(uo / uu, uo / oo) <= -t else 0
        ),
        "Contradictory asks both projections to be at most -t, so the larger of them; this looks at the smaller.": (
            lambda uo, uu, oo, t: 1 if min(uo / uu, uo / oo) >= t else -1 if min(uo / uu, uo / oo) <= -t else 0
        ),
        "At the threshold counts: at least t, at most -t.": (
            lambda uo, uu, oo, t: 1 if min(uo / uu, uo / oo) > t else -1 if max(uo / uu, uo / oo) < -t else 0
        ),
        "A pair can be contradictory too: both projections at most -t.": lambda uo, uu, oo, t: int(
            _projections(uo, uu, oo)[0] >= t
        ),
    },
)


def _sets_of_labels(draw: Draw):
    yield torch.tensor([0, 1]), 2
    yield torch.tensor([0, 1, 2, 1]), 3
    for k in draw.sizes(3, 4, 9):
        yield draw.labels(k + draw.integer(0, 3), k - 1), k  # one label does not occur


def _opposed(got, wanted, y: Tensor, classes: int) -> bool | str:
    if not isinstance(got, Tensor) or got.shape != (len(y), classes):
        return f"Return one vector of {classes} numbers for each of the {len(y)} labels."
    norms = got.norm(dim=1)
    if not torch.allclose(norms, torch.ones_like(norms), atol=1e-4):
        return f"The vectors have the lengths {norms.min():.3g} to {norms.max():.3g}; wanted 1."
    gram, same_label = got @ got.T, y[:, None] == y
    if not torch.allclose(gram[same_label], torch.ones(int(same_label.sum()), dtype=gram.dtype), atol=1e-4):
        return "Two samples of one label have different vectors."
    off = gram[~same_label]
    if len(off) and not torch.allclose(off, torch.full_like(off, -1 / (classes - 1)), atol=1e-4):
        return f"Two labels have the product {off.max():.3g}; wanted -1/(K - 1) = {-1 / (classes - 1):.3g}."
    own = got[torch.arange(len(y)), y]
    if (own <= 0).any():
        return "A sample wants its own output to rise: its vector has to be positive at its label."
    return bool((own >= got.max(1).values - 1e-9).all()) or "A sample wants its own output to rise most."


def _centred(y: Tensor, k: int, scale: bool = True, share: bool = True) -> Tensor:
    e = torch.eye(k, dtype=torch.float64)[y] - (1 / k if share else 0.0)
    return e / e.norm(dim=1, keepdim=True) if scale else e


cotangents_that_oppose = Check(
    number="4.6",
    wants="answer(y, classes) -> (N, K)",
    reference=_centred,
    cases=_sets_of_labels,
    judge=_opposed,
    mistakes={
        "The direction is right; wanted vectors of length one.": lambda y, k: _centred(y, k, scale=False),
        "One-hot vectors of two labels are at right angles: their product is 0.": lambda y, k: _centred(y, k, share=False),
        "These are lpNTK's signs: two labels share K - 2 of them, and the product is (K - 4)/K.": lambda y, k: (
            signs(y, k) / k**0.5
        ),
        "The sign is turned: a sample wants its own output to rise.": lambda y, k: -_centred(y, k),
    },
)
