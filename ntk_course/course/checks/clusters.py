"""Checks of chapter 7: clusters."""

import math

import torch
from torch import Tensor

from ...analysis.interactions import farthest_point_clustering
from .core import Check
from .draws import Draw

__all__ = [
    "head_share",
    "next_centroid",
    "who_moves",
    "farthest_points",
    "edge_of_the_head",
    "lengths_decide",
]


def _assignments(draw: Draw):
    yield (torch.tensor([1, 1, 2, 0, 1, 1, 2]),)
    yield (torch.tensor([0, 2, 2, 1, 2]),)
    for _ in range(3):
        m = draw.integer(2, 5)
        labels = draw.labels(draw.integer(m + 3, 14), m)
        labels[:2] = m - 1
        yield (labels,)


head_share = Check(
    number="7.1",
    wants="answer(assignment) -> float",
    reference=lambda a: float(torch.bincount(a).max() / len(a)),
    cases=_assignments,
    mistakes={
        "This is a count; divide by the number of samples.": lambda a: int(torch.bincount(a).max()),
        "The centroid was left out: it belongs to its cluster.": lambda a: float((torch.bincount(a).max() - 1) / len(a)),
        "This is the share of cluster 0, the first that was founded, not the largest.": lambda a: float((a == 0).double().mean()),
        "This is the number of the cluster, not its share.": lambda a: int(torch.bincount(a).argmax()),
        "This divides by the number of clusters; wanted the share of the samples.": lambda a: float(
            torch.bincount(a).max() / (a.max() + 1)
        ),
    },
)


def _rounds(draw: Draw):
    gram = torch.tensor([[4.0, 2.0, -1.0], [2.0, 3.0, 0.5], [-1.0, 0.5, 2.0]], dtype=torch.float64)
    yield gram, [0], [0, 0, 0]
    yield torch.tensor([[4.0, 2, -3, 0.5], [2, 3, 0, 0], [-3, 0, 3, 0], [0.5, 0, 0, 1]], dtype=torch.float64), [0], [0, 0, 0, 0]
    # vectors that have more in common with others than with themselves: a centroid has the smallest value of all
    yield torch.tensor([[5.0, 3, 4], [3, 1, 2], [4, 2, 6]], dtype=torch.float64), [2, 1], [0, 1, 0]
    for n in (4, 4, 5, 8, 9, 11, 13, 14):
        gram = draw.gram(n, rank=3)
        found = farthest_point_clustering(gram, draw.integer(2, min(5, n - 1)))
        yield gram, found.centroids.tolist(), found.assignment.tolist()


def _similarity(gram: Tensor, centroids: list, assignment: list) -> Tensor:
    return gram[torch.as_tensor(centroids)[torch.as_tensor(assignment)], torch.arange(len(gram))]


def _next(gram: Tensor, centroids: list, assignment: list) -> int:
    s = _similarity(gram, centroids, assignment).clone()
    s[centroids] = math.inf
    return int(s.argmin())


def _first_free(order: Tensor, centroids: list) -> int:
    return next(i for i in order.tolist() if i not in centroids)


next_centroid = Check(
    number="7.2",
    wants="answer(gram, centroids, assignment) -> int",
    reference=_next,
    cases=_rounds,
    mistakes={
        "A centroid was chosen again: leave the centroids out.": lambda *a: int(_similarity(*a).argmin()),
        "Each sample is compared with all centroids; it is its own centroid that counts.": (
            lambda g, c, a: _first_free(g[c].min(0).values.argsort(), c)
        ),
        "This is the sample most similar to its centroid; wanted the least.": (
            lambda g, c, a: _first_free(_similarity(g, c, a).argsort(descending=True), c)
        ),
        "Negative values are less similar than zero: do not take absolute values.": (
            lambda g, c, a: _first_free(_similarity(g, c, a).abs().argsort(), c)
        ),
        "This compares with the first centroid only.": lambda g, c, a: _first_free(g[c[0]].argsort(), c),
        "This is the value; wanted the sample.": lambda g, c, a: float(_similarity(g, c, a)[_next(g, c, a)]),
    },
)


def _moves(draw: Draw):
    yield torch.tensor([2.7, 0.9, 0.81]), torch.tensor([9.0, 3.0, 2.7]), torch.tensor([True, False, False]), 2
    yield torch.tensor([1.5, 1.45, 1.0]), torch.tensor([2.0, 1.4, 0.9]), torch.tensor([True, False, False]), 2
    yield (
        torch.tensor([3.0, 2, 1, 5, 9, 4]),
        torch.tensor([2.0, 2, 4, 1, 3, 4]),
        torch.tensor([True, False, False, False, True, False]),
        2,
    )
    for _ in range(4):
        n = draw.integer(6, 12)
        from_new, own = draw.integers(-3, 5, n).double(), draw.integers(-3, 5, n).double()
        centre = draw.bits(n, share=0.3)
        new = draw.integer(0, n - 1)
        centre[new] = False
        own[new] = from_new[new] + draw.integer(0, 1)  # its own centroid may be as similar, or more
        yield from_new, own, centre, new


def _moved(from_new: Tensor, similarity: Tensor, is_centroid: Tensor, new: int, stay: bool = True, found: bool = True) -> Tensor:
    moves = from_new > similarity
    if stay:
        moves = moves & ~is_centroid
    if found:
        moves[new] = True
    return moves


who_moves = Check(
    number="7.3",
    wants="answer(from_new, similarity, is_centroid, new) -> (N,) bool",
    reference=_moved,
    cases=_moves,
    mistakes={
        "All three bugs are still there.": lambda f, s, c, n: f >= s,
        "Two bugs are left: centroids move, and the founder may stay away from the cluster that it founds.": lambda f, s, c, n: (
            f > s
        ),
        "One bug is left: the founder of the new cluster has to move into it, whatever the values.": (
            lambda f, s, c, n: _moved(f, s, c, n, found=False)
        ),
        "One bug is left: centroids move, and leave clusters without their centre.": lambda f, s, c, n: _moved(
            f, s, c, n, stay=False
        ),
        "One bug is left: equally similar is not more similar; with >= samples move on every tie.": (
            lambda f, s, c, n: torch.where(torch.arange(len(f)) == n, True, (f >= s) & ~c)
        ),
        "Two bugs are left: samples move on ties, and centroids move.": lambda f, s, c, n: torch.where(
            torch.arange(len(f)) == n, True, f >= s
        ),
        "Two bugs are left: samples move on ties, and the founder may stay away.": lambda f, s, c, n: (f >= s) & ~c,
        "The comparison is turned round: similarities are large when samples are close.": (
            lambda f, s, c, n: torch.where(torch.arange(len(f)) == n, True, (f < s) & ~c)
        ),
    },
)


def _clusterings(draw: Draw):
    yield torch.tensor([[9.0, 3.0, 2.7], [3.0, 1.0, 0.9], [2.7, 0.9, 0.81]], dtype=torch.float64), 2
    # the last sample is as similar to the new centroid as to its own: it stays
    yield torch.tensor([[5.0, 1.0, 2.0], [1.0, 4.0, 2.0], [2.0, 2.0, 3.0]], dtype=torch.float64), 2
    short = torch.tensor([[10.0, 0.0], [-0.1, 0.1], [-0.05, 8.0]], dtype=torch.float64)
    yield short @ short.T, 3  # the last centroid has more in common with the second one than that with itself
    for m in (2, 3):
        yield draw.gram(5, rank=3), m
    for m in (1, 2, 3, 6):
        for _ in range(2):
            yield draw.gram(draw.integer(8, 14), rank=3), m
    gram = draw.gram(7, rank=3)
    yield gram, 7


def _variant(gram: Tensor, m: int, first: int | None = None, stay: bool = True) -> Tensor:
    centroids = [int(gram.diagonal().argmax()) if first is None else first]
    assignment, own = torch.zeros(len(gram), dtype=torch.long), gram[centroids[0]].clone()
    while len(centroids) < min(m, len(gram)):
        own_free = own.clone()
        own_free[centroids] = math.inf
        new = int(own_free.argmin())
        moves = gram[new] > own
        if stay:
            moves[centroids] = False
        moves[new] = True
        assignment[moves], own = len(centroids), torch.where(moves, gram[new], own)
        centroids.append(new)
    return assignment


farthest_points = Check(
    number="7.4",
    wants="answer(gram, m) -> (N,)",
    reference=lambda gram, m: farthest_point_clustering(gram, m).assignment,
    cases=_clusterings,
    mistakes={
        "The first centroid is sample 0; wanted the one with the largest kernel value with itself.": lambda gram, m: _variant(
            gram, m, first=0
        ),
        "One cluster too many: the first centroid counts among the m.": lambda gram, m: _variant(gram, m + 1),
        "One cluster too few: the loop ends a centroid early.": lambda gram, m: _variant(gram, max(1, m - 1)),
        "A centroid has left its own cluster: centroids stay.": lambda gram, m: _variant(gram, m, stay=False),
        "These are the indices of the centroids; wanted the number of the cluster, 0 to m - 1.": (
            lambda gram, m: (c := farthest_point_clustering(gram, m)).centroids[c.assignment]
        ),
        "The founder of a cluster has to move into it, even where its own centroid is as similar.": (
            lambda gram, m: _without_founders(gram, m)
        ),
    },
)


def _without_founders(gram: Tensor, m: int) -> Tensor:
    centroids = [int(gram.diagonal().argmax())]
    assignment, own = torch.zeros(len(gram), dtype=torch.long), gram[centroids[0]].clone()
    while len(centroids) < m:
        own_free = own.clone()
        own_free[centroids] = math.inf
        new = int(own_free.argmin())
        moves = gram[new] > own
        moves[centroids] = False
        assignment[moves], own = len(centroids), torch.where(moves, gram[new], own)
        centroids.append(new)
    return assignment


def _heads(draw: Draw):
    yield torch.tensor([5.0, 3.0, -1.0, 2.0, 4.0]), torch.tensor([0, 0, 1, 0, 0]), 0, 0, 2
    yield torch.tensor([-4.0, 3.0, 6.0, -2.0, 1.0]), torch.tensor([1, 1, 1, 1, 0]), 1, 2, 2
    yield torch.tensor([0.5, 3.0, 2.0, 1.0]), torch.tensor([0, 0, 0, 0]), 0, 0, 3  # a short centroid has the smallest value
    yield torch.tensor([0.5, 3.0, 2.0, 1.0]), torch.tensor([0, 0, 0, 0]), 0, 0, 1
    for _ in range(4):
        gram = draw.gram(draw.integer(9, 14), rank=3)
        found = farthest_point_clustering(gram, 3)
        centroid = int(found.centroids[found.head])
        size = int((found.assignment == found.head).sum())
        yield gram[centroid], found.assignment, int(found.head), centroid, min(2, size - 1) or 1


def _inside(row: Tensor, a: Tensor, head: int, c: int | None) -> Tensor:
    allowed = a == head
    if c is not None:
        allowed[c] = False
    return allowed


def _pick(row: Tensor, allowed: Tensor, count: int, largest: bool = False) -> Tensor:
    found = allowed.nonzero()[:, 0]
    return found[row[found].argsort(descending=largest)[:count]]


edge_of_the_head = Check(
    number="7.5",
    wants="answer(row, assignment, head, centroid, count) -> (count,)",
    reference=lambda r, a, h, c, n: _pick(r, _inside(r, a, h, c), n),
    cases=_heads,
    mistakes={
        "These are the most interchangeable; the edge has the smallest values inside the head.": (
            lambda r, a, h, c, n: _pick(r, _inside(r, a, h, c), n, largest=True)
        ),
        "These come from all clusters; the edge is inside the head cluster.": lambda r, a, h, c, n: r.argsort()[:n],
        "These come from the other clusters: they are the least interchangeable.": lambda r, a, h, c, n: _pick(r, a != h, n),
        "A negative value is smaller than zero: do not take absolute values.": lambda r, a, h, c, n: _pick(
            r.abs(), _inside(r, a, h, c), n
        ),
        "These are places among the head's members; wanted the samples' own indices.": (
            lambda r, a, h, c, n: r[_inside(r, a, h, c)].argsort()[:n]
        ),
        "These are the values; wanted the samples' indices.": lambda r, a, h, c, n: r[_pick(r, _inside(r, a, h, c), n)],
        "The largest first; wanted the smallest first.": lambda r, a, h, c, n: _pick(r, _inside(r, a, h, c), n).flip(0),
    },
)


def _lengths_matter(got, wanted) -> bool | str:
    if not (isinstance(got, Tensor) and got.dim() == 2 and got.shape[1] == 2 and 4 <= len(got) <= 12):
        return "Return four to twelve vectors in the plane, shape (N, 2)."
    lengths = got.norm(dim=1)
    if (lengths == 0).any():
        return "A vector of length 0 has no direction."
    phi = got.double()
    unit = phi / phi.norm(dim=1, keepdim=True)
    by_product, by_cosine = (farthest_point_clustering(v @ v.T, 2).sizes.max().item() for v in (phi, unit))
    if by_product == len(phi) - 1 and by_cosine <= len(phi) / 2:
        return True
    return (
        f"By inner products the head has {by_product} of your {len(phi)} vectors, wanted all but one; "
        f"by cosines {by_cosine}, wanted at most half."
    )


_ANGLES = torch.tensor([0.0, 0.1, 0.2, 1.3, 1.4, 1.5])
_FAN = torch.stack([_ANGLES.cos(), _ANGLES.sin()], 1)

lengths_decide = Check(
    number="7.6",
    wants="answer() -> (N, 2)",
    reference=lambda: _FAN * torch.tensor([100.0, 10.0, 10.0, 1.0, 1.0, 0.01])[:, None],
    cases=lambda draw: [()],
    judge=_lengths_matter,
)
