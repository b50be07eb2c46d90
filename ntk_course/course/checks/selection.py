"""Checks of chapters 7 and 8: clusters and pruning."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ...analysis.interactions import farthest_point_clustering, redundant
from .core import Outcome, collect, compare, random

__all__ = [
    "next_centroid",
    "who_moves",
    "farthest_points",
    "head_share",
    "edge_of_the_head",
    "is_redundant",
    "length_needed",
    "grand_from_kernel",
    "welch_t",
    "better_rule",
]


def _grams() -> list[Tensor]:
    grams = []
    for seed in range(4):
        phi = random(14, 3, seed=seed) * (1 + random(14, 1, seed=seed + 20).abs())
        grams.append(phi @ phi.T)
    return grams


def next_centroid(answer: Callable) -> Outcome:
    """Check ``answer(gram, centroids, assignment) -> int``: the sample least similar to its own centroid, no centroid."""
    cases = []
    for gram in _grams():
        found = farthest_point_clustering(gram, 4)
        cases.append((gram, found.centroids.tolist(), found.assignment.tolist()))
    # two vectors that dislike even themselves less than others: here a centroid has the smallest value of all
    cases.append((torch.tensor([[5.0, 3, 4], [3, 1, 2], [4, 2, 6]], dtype=torch.float64), [2, 1], [0, 1, 0]))

    def similarity(gram, centroids, assignment):
        return gram[torch.tensor(centroids)[torch.tensor(assignment)], torch.arange(len(gram))]

    def right(gram, centroids, assignment):
        s = similarity(gram, centroids, assignment).clone()
        s[centroids] = math.inf
        return int(s.argmin())

    return compare(
        answer,
        cases,
        right,
        {
            "A centroid was chosen again: leave the centroids out.": lambda *a: int(similarity(*a).argmin()),
            "Each sample is compared with all centroids; it is its own centroid that counts.": (
                lambda g, c, a: [i for i in g[c].min(0).values.argsort().tolist() if i not in c][0]
            ),
            "This is the sample most similar to its centroid; wanted the least.": (
                lambda g, c, a: [i for i in similarity(g, c, a).argsort(descending=True).tolist() if i not in c][0]
            ),
        },
    )


def who_moves(answer: Callable) -> Outcome:
    """Check ``answer(from_new, similarity, is_centroid) -> (N,) bool``: the samples that move to a new cluster."""
    is_centroid = torch.tensor([True, False, False, False, True, False])
    cases = [(torch.tensor([3.0, 2, 1, 5, 9, 4]), torch.tensor([2.0, 2, 4, 1, 3, 4]), is_centroid)]
    return compare(
        answer,
        cases,
        lambda new, own, c: (new > own) & ~c,
        {
            "Centroids move here, and leave clusters without their centre: that is the bug.": lambda new, own, c: new > own,
            "Equally similar is not more similar: with >= samples move on every tie.": lambda new, own, c: (new >= own) & ~c,
            "The comparison is turned round: similarities are large when samples are close.": lambda new, own, c: (
                (new < own) & ~c
            ),
        },
    )


def farthest_points(answer: Callable) -> Outcome:
    """Check ``answer(gram, m) -> (N,)``: the cluster of each sample, numbered in the order the clusters were founded."""
    cases = [(gram, m) for gram in _grams() for m in (1, 2, 6)]

    def variant(gram, m, first=None, stay=True):
        centroids = [int(gram.diagonal().argmax()) if first is None else first]
        assignment, own = torch.zeros(len(gram), dtype=torch.long), gram[centroids[0]].clone()
        while len(centroids) < m:
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

    return compare(
        answer,
        cases,
        lambda gram, m: farthest_point_clustering(gram, m).assignment,
        {
            "The first centroid is sample 0; wanted the one with the largest kernel value with itself.": (
                lambda gram, m: variant(gram, m, first=0)
            ),
            "One cluster too many: the first centroid counts among the m.": lambda gram, m: variant(gram, m + 1),
            "One cluster too few: the loop ends a centroid early.": lambda gram, m: variant(gram, max(1, m - 1)),
            "A centroid has left its own cluster: centroids stay.": lambda gram, m: variant(gram, m, stay=False),
            "These are the indices of the centroids; wanted the number of the cluster, 0 to m - 1.": (
                lambda gram, m: (c := farthest_point_clustering(gram, m)).centroids[c.assignment]
            ),
        },
    )


def head_share(answer: Callable) -> Outcome:
    """Check ``answer(assignment) -> float``: the share of the samples in the largest cluster."""
    cases = [(torch.tensor([1, 1, 2, 0, 1, 1, 2]),), (torch.tensor([0, 2, 2, 1, 2]),)]
    return compare(
        answer,
        cases,
        lambda a: float(torch.bincount(a).max() / len(a)),
        {
            "This is a count; divide by the number of samples.": lambda a: int(torch.bincount(a).max()),
            "The centroid was left out: it belongs to its cluster.": lambda a: float((torch.bincount(a).max() - 1) / len(a)),
            "This is the share of cluster 0, the first that was founded, not the largest.": lambda a: float(
                (a == 0).double().mean()
            ),
            "This is the number of the cluster, not its share.": lambda a: int(torch.bincount(a).argmax()),
        },
    )


def edge_of_the_head(answer: Callable) -> Outcome:
    """Check ``answer(row, assignment, head, centroid, count) -> (count,)``: medium interchangeable samples, the edge first."""
    cases = []
    for gram in _grams():
        found = farthest_point_clustering(gram, 3)
        centroid = int(found.centroids[found.head])
        cases.append((gram[centroid], found.assignment, found.head, centroid, 2))

    def pick(row, allowed, count, largest=False):
        found = allowed.nonzero()[:, 0]
        return found[row[found].argsort(descending=largest)[:count]]

    def inside(row, a, head, c):
        allowed = a == head
        allowed[c] = False
        return allowed

    return compare(
        answer,
        cases,
        lambda r, a, h, c, n: pick(r, inside(r, a, h, c), n),
        {
            "These are the most interchangeable; the edge has the smallest values inside the head.": (
                lambda r, a, h, c, n: pick(r, inside(r, a, h, c), n, largest=True)
            ),
            "These come from all clusters; the edge is inside the head cluster.": lambda r, a, h, c, n: r.argsort()[:n],
            "These come from the other clusters: they are the least interchangeable.": lambda r, a, h, c, n: pick(r, a != h, n),
        },
    )


def is_redundant(answer: Callable) -> Outcome:
    """Check ``answer(gram) -> (N,) bool``: is some other sample more similar to a sample than the sample itself?"""

    def off(gram):
        return gram.clone().fill_diagonal_(-math.inf)

    return compare(
        answer,
        [(gram,) for gram in _grams()],
        redundant,
        {
            "Every sample is called redundant: leave the sample itself out, and ask for more, not as much.": (
                lambda g: torch.ones(len(g), dtype=torch.bool)
            ),
            "Nothing is called redundant: the largest entry of the row should be compared with the diagonal.": (
                lambda g: torch.zeros(len(g), dtype=torch.bool)
            ),
            "This compares with the partner's own value. Sample i goes where kappa_ij exceeds kappa_ii, not kappa_jj.": (
                lambda g: (off(g) > g.diagonal()[None, :]).any(1)
            ),
            "Absolute values make opposite samples partners; take the values as they are.": (
                lambda g: off(g).masked_fill(torch.eye(len(g)).bool(), 0).abs().max(1).values > g.diagonal()
            ),
        },
    )


def length_needed(answer: Callable) -> Outcome:
    """Check ``answer(cosine, length) -> float``: the length a partner must exceed to make a vector redundant, inf if none can."""
    cases = [(0.9, 2.0), (0.5, 1.5), (1.0, 3.0), (0.0, 1.0), (-0.4, 2.0)]
    return compare(
        answer,
        cases,
        lambda c, ell: ell / c if c > 0 else math.inf,
        {
            "The cosine is at the wrong side: cos * |partner| > |own|, so divide by it.": lambda c, ell: (
                ell * c if c > 0 else math.inf
            ),
            "A negative cosine gives a negative length here; nothing can make the vector redundant, so return infinity.": (
                lambda c, ell: ell / c if c else math.inf
            ),
            "At a right angle or more no length will do: return infinity, not 0.": (lambda c, ell: ell / c if c > 0 else 0.0),
            "These are squared lengths; the diagonal of the kernel is the square of the length.": (
                lambda c, ell: (ell / c) ** 2 if c > 0 else math.inf
            ),
        },
    )


def grand_from_kernel(answer: Callable) -> Outcome:
    """Check ``answer(blocks, error) -> (N,)``: GraNd from each sample's own block K(x, x), (N, K, K), and p - q (N, K)."""
    j, e = random(5, 3, 8), random(5, 3, seed=1)
    blocks = j @ j.transpose(1, 2)

    def squared(k, e):
        return torch.einsum("ni,nij,nj->n", e, k, e)

    return compare(
        answer,
        [(blocks, e)],
        lambda k, e: squared(k, e).sqrt(),
        {
            "This is the square of the gradient's length; take the root.": squared,
            "This is EL2N, the length of the error; the gradient is J^T e, with squared length e^T K e.": lambda k, e: e.norm(
                dim=1
            ),
            "This adds up the diagonal of K; the error says how the outputs are combined: e^T K e.": (
                lambda k, e: torch.einsum("nii->n", k).sqrt()
            ),
        },
    )


def welch_t(answer: Callable) -> Outcome:
    """Check ``answer(a, b) -> float``: Welch's t of two samples, the difference of means over its standard error."""
    cases = [(random(5, seed=1) + 1, random(8, seed=2)), (2 * random(6, seed=3), random(4, seed=4))]

    def t(a, b, ddof=1, root=True):
        a, b = np.asarray(a), np.asarray(b)
        square = a.var(ddof=ddof) / len(a) + b.var(ddof=ddof) / len(b)
        return (a.mean() - b.mean()) / (np.sqrt(square) if root else square)

    def pooled(a, b):
        a, b = np.asarray(a), np.asarray(b)
        both = ((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / (len(a) + len(b) - 2)
        return (a.mean() - b.mean()) / np.sqrt(both * (1 / len(a) + 1 / len(b)))

    return compare(
        answer,
        cases,
        t,
        {
            "The sign is turned round: mean of a minus mean of b.": lambda a, b: -t(a, b),
            "The variances are divided by n; an estimate from a sample divides by n - 1.": lambda a, b: t(a, b, ddof=0),
            "The root is missing: divide by the standard error, not by its square.": lambda a, b: t(a, b, root=False),
            "This is Student's t with one pooled variance; Welch keeps the two apart.": pooled,
        },
    )


def better_rule(answer: Callable) -> Outcome:
    """Check ``answer(gram, count) -> (N,) bool``: keep ``count`` samples, no copy before every direction has one, lengths aside."""
    directions = torch.linalg.qr(random(7, 7))[0]
    directions = 0.8 * directions[:6] + 0.6 * directions[6]  # unit vectors with cosine 0.36
    groups = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 5])
    lengths = 0.5 + random(12, 1, seed=5).abs()
    phi = directions[groups]
    cases = [(g @ g.T, count) for g in (phi, phi * lengths, phi * lengths.flip(0)) for count in (3, 6, 8)]
    got = collect(answer, cases)
    if isinstance(got, Outcome):
        return got
    for keep, (gram, count) in zip(got, cases, strict=True):
        if keep.shape != (len(gram),):
            return Outcome("wrong", f"Your answer has shape {tuple(keep.shape)}; wanted ({len(gram)},), True where kept.")
        if int((keep != 0).sum()) != count:
            return Outcome("wrong", f"Your rule keeps {int((keep != 0).sum())} samples; wanted {count}.")
        directions_kept = len(groups[keep != 0].unique())
        if directions_kept < min(count, 6):
            if lengths_matter := bool((gram.diagonal() - 1).abs().max() > 1e-6):
                hint = "Does your rule look at lengths? Compare cosines, kappa_ij / sqrt(kappa_ii kappa_jj)."
            else:
                hint = "It keeps a copy while a direction is still without a sample."
            which = "vectors of different lengths" if lengths_matter else "unit vectors"
            return Outcome("wrong", f"With {which}, {count} kept samples cover {directions_kept} of 6 directions. {hint}")
    return Outcome("right", f"Right, on {len(cases)} test cases: every direction is covered before any copy is kept.")
