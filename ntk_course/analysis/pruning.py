"""Which samples can go: scores of importance, redundancy, head-cluster pruning, and flipped labels found back."""

from collections.abc import Sequence

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from ..basics import validate
from ..gram.operator import Gram
from ..tangents.cotangents import loss_gradient
from .interactions import Clusters, cosines
from .one_step import prediction_error


def _models(model: nn.Module | Sequence[nn.Module]) -> list[nn.Module]:
    models = [model] if isinstance(model, nn.Module) else list(model)
    if not models:
        raise ValueError("model: got an empty sequence; wanted at least one model")
    return models


def el2n(model: nn.Module | Sequence[nn.Module], x: Tensor, y: Tensor, batch_size: int = 1024) -> Tensor:
    r"""Score each sample by the length of its prediction error, :math:`\|p - q\|_2` (Paul et al., 2021).

    Args:
        model: a model, or several of which the scores are averaged (the paper: ten, early in training).
        x: (N, ...).
        y: integer labels (N,).
        batch_size: samples a forward pass.

    Returns:
        (N,), in [0, sqrt 2], larger is more important; the model's dtype and device.

    Raises:
        TypeError, ValueError: bad inputs or labels.

    Example:
        >>> keep = el2n(models, x, y).argsort(descending=True)[:10]
        >>> keep.shape
        torch.Size([10])
    """
    scores = [
        torch.cat([prediction_error(m, *part).norm(dim=1) for part in zip(x.split(batch_size), y.split(batch_size), strict=True)])
        for m in _models(model)
    ]
    return torch.stack(scores).mean(0)


def grand(model: nn.Module | Sequence[nn.Module], x: Tensor, y: Tensor) -> Tensor:
    r"""Score each sample by the length of its loss gradient, :math:`\|\nabla_w L(x, y)\|_2` (GraNd; Paul et al., 2021).

    The square is the diagonal of the kernel whose cotangent is p - q, so no gradient is formed where factors are cheaper.

    Args:
        model: a model, or several of which the scores are averaged (the paper: ten, at initialisation or early).
        x: (N, ...).
        y: integer labels (N,).

    Returns:
        (N,), larger is more important; the model's dtype and device.

    Raises:
        TypeError, ValueError: bad inputs or labels.

    Example:
        >>> keep = grand(models, x, y).argsort(descending=True)[:10]
        >>> keep.shape
        torch.Size([10])
    """
    scores = []
    for m in _models(model):
        scores.append(Gram(m, x, loss_gradient(y)).diagonal().clamp(min=0).sqrt())
    return torch.stack(scores).mean(0)


def forgetting_score(predictions: Tensor, y: Tensor) -> Tensor:
    """Count how often each sample went from right to wrong between epochs (Toneva et al., 2018).

    Args:
        predictions: predicted classes after each epoch, (E, N), as :attr:`ntk_course.training.History.predictions`.
        y: integer labels (N,).

    Returns:
        (N,) float32; infinite for samples never right, which that paper sorts as the most forgotten.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> forgetting_score(torch.tensor([[1, 0], [0, 0], [1, 0]]), torch.tensor([1, 1]))
        tensor([1., inf])
    """
    if predictions.dim() != 2 or predictions.shape[1:] != y.shape:
        raise ValueError(f"predictions: got shape {tuple(predictions.shape)}; wanted (E, {len(y)})")
    right = predictions == y
    events = (right[:-1] & ~right[1:]).sum(0).float()
    return events.masked_fill(~right.any(0), torch.inf)


def influence_score(right: Tensor, included: Tensor) -> Tensor:
    r"""Estimate how much a sample's being trained on helps its own prediction (memorisation; Feldman & Zhang, 2020).

    :math:`\hat P(\text{right on } i \mid i \in S) - \hat P(\text{right on } i \mid i \notin S)` over models trained on
    random subsets S. We take this estimator, not influence functions (Koh & Liang, 2017): it is defined by retraining, so
    it needs neither a Hessian nor a minimum, and its error is that of two proportions.

    Args:
        right: was model t right on sample i, (T, N) bool.
        included: was sample i in the training set of model t, (T, N) bool.

    Returns:
        (N,) float32 in [-1, 1], larger is more important; NaN for a sample that no model had, or all had.

    Raises:
        TypeError, ValueError: not bool, or shapes that differ.

    Example:
        >>> right = included = torch.tensor([[True, False], [False, True]])
        >>> influence_score(right, included)
        tensor([1., 1.])
    """
    for name, t in (("right", right), ("included", included)):
        if t.dtype != torch.bool:
            raise TypeError(f"{name}: got dtype {t.dtype}; wanted bool")
    if right.dim() != 2 or right.shape != included.shape:
        raise ValueError(f"included: got shape {tuple(included.shape)} with right {tuple(right.shape)}; wanted both (T, N)")
    inside, outside = included.sum(0), (~included).sum(0)
    return (right & included).sum(0) / inside - (right & ~included).sum(0) / outside


def prune_head(clusters: Clusters, fraction: float, seed: int = 0) -> Tensor:
    """Drop a random fraction of the head cluster and keep everything else (Guo et al., 2024, sec. 4.2).

    Args:
        clusters: of N samples.
        fraction: of the head cluster's samples to drop, in [0, 1]; the count is rounded down. The centroid stays.
        seed: of the choice.

    Returns:
        (N,) bool on the device of the clusters, True for the samples to keep.

    Raises:
        ValueError: fraction out of range.

    Example:
        >>> keep = prune_head(farthest_point_clustering(gram, 3), 0.1)
        >>> x[keep].shape
        torch.Size([30, 1, 8, 8])
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: got {fraction}; wanted a number in [0, 1]")
    members = clusters.members(clusters.head)
    others = members[members != clusters.centroids[clusters.head]]
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed)).to(others.device)
    keep = torch.ones_like(clusters.assignment, dtype=torch.bool)
    keep[others[order[: int(fraction * len(members))]]] = False
    return keep


def flip_labels(y: Tensor, fraction: float, num_classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Give a random fraction of the samples a wrong label, each of the others equally likely.

    Args:
        y: integer labels (N,).
        fraction: of the samples, in [0, 1]; the count is rounded to the nearest.
        num_classes: K, at least 2.
        seed: of the choice.

    Returns:
        The new labels (N,) and a mask (N,) of those that were changed, on the device of y.

    Raises:
        TypeError, ValueError: bad labels, or a fraction out of range.

    Example:
        >>> y_noisy, flipped = flip_labels(y, 0.25, 10)
        >>> int(flipped.sum()), bool((y_noisy[flipped] != y[flipped]).all())
        (8, True)
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: got {fraction}; wanted a number in [0, 1]")
    if validate.positive(num_classes, "num_classes") < 2:
        raise ValueError(f"num_classes: got {num_classes}; wanted at least 2, or there is no wrong label")
    y = validate.labels(y, len(y), num_classes, y)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(y), generator=generator)[: round(fraction * len(y))]
    shift = torch.randint(1, num_classes, (len(chosen),), generator=generator).to(y.device)
    flipped = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    flipped[chosen.to(y.device)] = True
    noisy = y.clone()
    noisy[chosen.to(y.device)] = (y[chosen.to(y.device)] + shift) % num_classes
    return noisy, flipped


def flip_auc(score: Tensor, flipped: Tensor) -> float:
    """Return the area under the ROC curve of a score that should be large where a label was flipped.

    It is the chance that a flipped sample scores higher than an untouched one; 0.5 is a coin, 1 is perfect.

    Args:
        score: (N,), larger is more suspicious; infinity is allowed and sorts last.
        flipped: (N,) bool, with both kinds present.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: NaN scores, shapes that differ, or only one kind of sample.

    Example:
        >>> flip_auc(torch.tensor([0.9, 0.1, 0.8]), torch.tensor([True, False, True]))
        1.0
    """
    if score.shape != flipped.shape or score.dim() != 1:
        raise ValueError(f"flipped: got shape {tuple(flipped.shape)} with scores {tuple(score.shape)}; wanted both (N,)")
    if score.isnan().any():
        raise ValueError(f"score: got {int(score.isnan().sum())} NaN value(s); wanted numbers")
    if flipped.all() or not flipped.any():
        raise ValueError("flipped: got only one kind of sample; wanted flipped and untouched ones")
    return float(roc_auc_score(flipped.cpu().numpy(), torch.nan_to_num(score).cpu().numpy()))


def class_support(gram: Tensor, y: Tensor) -> Tensor:
    r"""Average each sample's normalised kernel with the others of its label: :math:`\kappa_{ij}/\sqrt{\kappa_{ii}\kappa_{jj}}`.

    A flipped sample sits among strangers, so minus this score is a detector of flips (Guo et al., 2024, App. C.4 and E.2,
    say that flipping labels makes contradictory samples).

    Args:
        gram: a Gram matrix (N, N).
        y: integer labels (N,).

    Returns:
        (N,), in [-1, 1].

    Raises:
        TypeError, ValueError: as :func:`ntk_course.analysis.relations`; a class with one sample.

    Example:
        >>> class_support(gram, y % 2).shape
        torch.Size([32])
    """
    cosine = cosines(gram)
    y = validate.labels(y, len(gram), int(y.max()) + 1, gram)
    same = (y[:, None] == y[None, :]).fill_diagonal_(False)
    if (same.sum(1) == 0).any():
        alone = int((same.sum(1) == 0).nonzero()[0, 0])
        raise ValueError(f"y: class {int(y[alone])} has one sample (index {alone}); wanted at least two of each")
    return (cosine * same).sum(1) / same.sum(1)
