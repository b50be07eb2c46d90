"""How labelled samples interact under a kernel: relations, farthest point clusters, redundancy, partners."""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from ..basics import validate
from ..gram.operator import Gram
from ..gram.reducers import Partners, TopPartners


class Relation(IntEnum):
    """The three relations of a pair (Guo et al., 2024, App. C), and what is left over between them."""

    CONTRADICTORY = -1
    UNRELATED = 0
    INTERCHANGEABLE = 1
    NEITHER = 2


def cosines(gram: Tensor) -> Tensor:
    r"""Normalise a Gram matrix to the cosines :math:`\kappa_{ij}/\sqrt{\kappa_{ii}\kappa_{jj}}` of its feature vectors.

    Args:
        gram: (N, N).

    Returns:
        (N, N); a zero vector has cosine 0 with every other.

    Raises:
        TypeError, ValueError: gram not square, not symmetric or not finite.

    Example:
        >>> cosines(torch.tensor([[4.0, 1.0], [1.0, 1.0]]))
        tensor([[1.0000, 0.5000],
                [0.5000, 1.0000]])
    """
    gram = validate.gram(gram)
    length = gram.diagonal().clamp(min=torch.finfo(gram.dtype).tiny).sqrt()
    return gram / length[:, None] / length[None, :]


def relations(gram: Tensor, threshold: float = 0.55, tolerance: float = 0.1, by: str = "projections") -> Tensor:
    r"""Sort every pair of samples into the three relations of Guo et al. (2024), App. C.

    With the two normalised projections :math:`a = \kappa_{uo}/\kappa_{uu},\ b = \kappa_{uo}/\kappa_{oo}`: interchangeable
    where both are at least t, contradictory where both are at most -t, unrelated where both are within ``tolerance`` of
    zero. By the angle (sec. 3) the same three tests are made on the cosine :math:`\kappa_{uo}/\sqrt{\kappa_{uu}\kappa_{oo}}`,
    the geometric mean of the two projections.

    Args:
        gram: a Gram matrix (N, N).
        threshold: t, in (1/2, 1] for projections as in the paper, in (0, 1] for the angle.
        tolerance: how far from zero counts as unrelated, in [0, threshold).
        by: "projections" or "angle".

    Returns:
        (N, N) int8, values of :class:`Relation`, on the device of gram. A sample with a zero diagonal is unrelated to all.

    Raises:
        TypeError, ValueError: gram not square, not symmetric or not finite, a threshold out of range.

    Example:
        >>> kinds = relations(lpntk(model, x, y))
        >>> bool((kinds.diagonal() == Relation.INTERCHANGEABLE).all())
        True
    """
    gram = validate.gram(gram)
    if by not in ("projections", "angle"):
        raise ValueError(f"by: got {by!r}; wanted 'projections' or 'angle'")
    lowest = 0.5 if by == "projections" else 0.0
    if not lowest < threshold <= 1:
        raise ValueError(f"threshold: got {threshold}; wanted a number in ({lowest}, 1]")
    if not 0 <= tolerance < threshold:
        raise ValueError(f"tolerance: got {tolerance}; wanted a number in [0, {threshold})")
    if by == "angle":
        low = high = cosines(gram)
    else:
        own = gram.diagonal().clamp(min=torch.finfo(gram.dtype).tiny)
        one, other = gram / own[:, None], gram / own[None, :]
        low, high = torch.minimum(one, other), torch.maximum(one, other)
    kinds = torch.full(gram.shape, Relation.NEITHER, dtype=torch.int8, device=gram.device)
    kinds[(low >= -tolerance) & (high <= tolerance)] = Relation.UNRELATED
    # rounding puts a sample's projection on itself a hair below 1
    slack = 4 * torch.finfo(gram.dtype).eps
    kinds[low >= threshold - slack] = Relation.INTERCHANGEABLE
    kinds[high <= slack - threshold] = Relation.CONTRADICTORY
    return kinds


class Clusters(NamedTuple):
    """Clusters of N samples round M centroids.

    Attributes:
        centroids: index of each cluster's centroid, (M,), in the order found.
        assignment: the cluster of each sample, (N,), values in [0, M).
        similarity: kernel value of each sample with its centroid, (N,).
    """

    centroids: Tensor
    assignment: Tensor
    similarity: Tensor

    @property
    def sizes(self) -> Tensor:
        """Samples in each cluster, its centroid included, (M,)."""
        return torch.bincount(self.assignment, minlength=len(self.centroids))

    @property
    def head(self) -> int:
        """The largest cluster (the earliest found among equals)."""
        return int(self.sizes.argmax())

    def members(self, cluster: int) -> Tensor:
        """Return the indices of a cluster's samples, in order."""
        return (self.assignment == cluster).nonzero()[:, 0]


def farthest_point_clustering(
    gram: Tensor | Gram | Callable[[int], Tensor], num_clusters: int, *, diagonal: Tensor | None = None
) -> Clusters:
    r"""Cluster samples round far-apart centroids (Gonzalez, 1985; Guo et al., 2024, Algorithm 3).

    The first centroid has the largest :math:`\kappa_{ii}`. Each further one is the sample least similar to its own
    centroid; samples strictly more similar to it than to their centroid move over. A centroid stays in its cluster. Only
    the M rows of the centroids are ever looked at. Ties go to the lowest index, and to the older cluster.

    Args:
        gram: a Gram matrix (N, N), whole or as :class:`ntk_course.Gram`, or any function from i to row i (N,).
        num_clusters: M, from 1 to N.
        diagonal: (N,), needed for a plain function only.

    Returns:
        :class:`Clusters`, on the device of the kernel.

    Raises:
        TypeError, ValueError: gram not square, not symmetric or not finite, more clusters than samples, a missing diagonal.

    Example:
        >>> clusters = farthest_point_clustering(Gram(model, x, labelled(y)), len(x) // 10)
        >>> clusters.centroids.shape, int(clusters.sizes.sum())
        (torch.Size([3]), 32)
    """
    if isinstance(gram, Tensor):
        row, diagonal = validate.gram(gram).__getitem__, gram.diagonal()
    else:
        row, diagonal = (gram.__getitem__, gram.diagonal()) if isinstance(gram, Gram) else (gram, diagonal)
        if diagonal is None:
            raise ValueError("diagonal: got None with a function for the rows; wanted the diagonal of the kernel, (N,)")
    n = len(diagonal)
    if validate.positive(num_clusters, "num_clusters") > n:
        raise ValueError(f"num_clusters: got {num_clusters} for {n} sample(s); wanted at most {n}")
    centroids = [int(diagonal.argmax())]
    assignment = torch.zeros(n, dtype=torch.long, device=diagonal.device)
    similarity = _row(row, centroids[0], n)
    candidates = similarity.clone()  # a centroid cannot be chosen again, nor leave its cluster
    candidates[centroids[0]] = torch.inf
    while len(centroids) < num_clusters:
        new = int(candidates.argmin())
        from_new = _row(row, new, n)
        closer = (from_new > similarity) & (candidates < torch.inf)
        closer[new] = True
        assignment[closer] = len(centroids)
        similarity = torch.where(closer, from_new, similarity)
        candidates = torch.where(closer, from_new, candidates)
        candidates[new] = torch.inf
        centroids.append(new)
    return Clusters(torch.tensor(centroids, device=diagonal.device), assignment, similarity)


def _row(row: Callable[[int], Tensor], i: int, n: int) -> Tensor:
    values = row(i)
    if values.shape != (n,):
        raise ValueError(f"gram: row {i} has shape {tuple(values.shape)}; wanted ({n},)")
    validate.finite(values, f"gram row {i}")
    return values.clone()


def closest_partners(gram: Tensor | Gram, among: str = "all") -> Partners:
    r"""Find each sample's partner :math:`\arg\max_{j \ne i} \kappa_{ij}` in one pass over the blocks of a Gram matrix.

    For more partners than one, test samples, or several processes: :class:`ntk_course.TopPartners`.

    Args:
        gram: a Gram matrix (N, N), N at least 2, whole or as :class:`ntk_course.Gram`.
        among: "all" other samples, or the "later" ones, j > i, as the public code of Guo et al. (2024) has it; the last sample
            then has the value -inf and itself as partner.

    Returns:
        :class:`Partners`, each (N,), on the device of the kernel; ties go to the lowest index.

    Raises:
        TypeError, ValueError: gram not square, not symmetric or not finite, fewer than two samples.

    Example:
        >>> closest_partners(Gram(model, x, labelled(y))).index.shape
        torch.Size([32])
    """
    if among not in ("all", "later"):
        raise ValueError(f"among: got {among!r}; wanted 'all' or 'later'")
    later = among == "later"
    if isinstance(gram, Gram):
        if not gram.symmetric:
            raise ValueError(f"gram: got two sides, {gram.shape}; wanted samples against themselves, (N, N)")
        value, index, own = gram.reduce(TopPartners(1, later), progress=False)
    else:
        own = validate.gram(gram).diagonal()
        seen = torch.ones_like(gram, dtype=torch.bool)
        others = gram.masked_fill(
            ~seen.triu(1) if later else torch.eye(len(gram), dtype=torch.bool, device=gram.device), -torch.inf
        )
        value = others.amax(1, keepdim=True)
        # argmax promises no order among equals
        index = (others == value).to(torch.uint8).argmax(1, keepdim=True)
        if later:
            index[-1] = len(gram) - 1
    if len(own) < 2:
        raise ValueError("gram: got 1 sample; wanted at least two, a sample has no partner on its own")
    validate.finite(value[: len(value) - later], "gram")
    return Partners(value[:, 0], index[:, 0], own)


def redundant(gram: Tensor | Gram, among: str = "all") -> Tensor:
    r"""Mark the samples whose most similar sample is not themselves (Guo et al., 2024, sec. 4.1).

    Sample i is redundant where :math:`\max_{j \ne i} \kappa_{ij} > \kappa_{ii}`, or where :math:`\max_{j > i}` is. Since :math:`\kappa_{ij} \le
    \sqrt{\kappa_{ii}\kappa_{jj}}`, only a partner with a longer feature vector can make a sample redundant.

    Args:
        gram: as in :func:`closest_partners`.
        among: as in :func:`closest_partners`: "all" as the paper's text says, "later" as its public code does.

    Returns:
        (N,) bool, on the device of the kernel.

    Raises:
        TypeError, ValueError: as :func:`closest_partners`.

    Example:
        >>> keep = ~redundant(Gram(model, x, labelled(y)))
        >>> keep.shape
        torch.Size([32])
    """
    value, _, own = closest_partners(gram, among)
    return value > own


def interchangeable(row: Tensor, clusters: Clusters, count: int, which: str = "most") -> Tensor:
    r"""Pick samples by how interchangeable they are with the centroid c of the head cluster (Guo et al., 2024, sec. 3.2).

    "most": the members of the head cluster with the largest :math:`\kappa_{ci}`; "medium": its members with the smallest
    (the cluster's edge); "least": the samples of all other clusters with the smallest. The centroid itself is left out.

    Args:
        row: kernel values of every sample with the head cluster's centroid, (N,).
        clusters: of the same N samples.
        count: how many to pick.
        which: "most", "medium" or "least".

    Returns:
        Indices (count,), the most extreme first.

    Raises:
        ValueError: an unknown kind, or fewer samples of that kind than asked for.

    Example:
        >>> clusters = farthest_point_clustering(gram, 3)
        >>> centroid = int(clusters.centroids[clusters.head])
        >>> interchangeable(gram[centroid], clusters, 2, "medium").shape
        torch.Size([2])
    """
    if which not in ("most", "medium", "least"):
        raise ValueError(f"which: got {which!r}; wanted 'most', 'medium' or 'least'")
    if row.shape != clusters.assignment.shape:
        raise ValueError(f"row: got shape {tuple(row.shape)}; wanted {tuple(clusters.assignment.shape)}, as in clusters")
    allowed = (clusters.assignment == clusters.head) == (which != "least")
    allowed[clusters.centroids[clusters.head]] = False
    found = allowed.nonzero()[:, 0]
    if validate.positive(count, "count") > len(found):
        raise ValueError(f"count: got {count}; wanted at most {len(found)}, the samples that are {which} interchangeable")
    return found[torch.argsort(row[found], descending=which == "most", stable=True)[:count]]
