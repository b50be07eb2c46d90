r"""Whom a prediction thanks: what leaving a training sample out changes, by the kernel, and how well such scores foresee retraining."""

from collections.abc import Sequence

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from ..basics import validate
from ..gram.operator import Gram
from ..tangents.cotangents import log_odds
from .regression import as_columns


def leave_one_out_effects(gram: Tensor, cross: Tensor, targets: Tensor, ridge: float = 0.0) -> Tensor:
    r"""Return what each training point adds to each prediction of a kernel regression: with it, less without it.

    .. math:: f(x) - f_{-i}(x) = \big[k(x)^\top (K + \rho I)^{-1}\big]_i\; \frac{\alpha_i}{[(K + \rho I)^{-1}]_{ii}}

    for the coefficients :math:`\alpha = (K + \rho I)^{-1} Y`: one factorisation in place of N regressions, and exact. For a
    linearised network trained to the end from :math:`f_0`, with :math:`Y - f_0(X)` for targets, this is leave-one-out retraining. The
    last factor is :math:`y_i - f_{-i}(x_i)`, so a point adds in proportion to how wrong the others are about it
    (:func:`ntk_course.analysis.leave_one_out`). Without a ridge these are the limits for one that vanishes, singular matrices included.

    Args:
        gram: of the training points, (N, N).
        cross: of the points asked about with them, (M, N).
        targets: (N, K) or (N,).
        ridge: rho, in the kernel's units, at least 0.

    Returns:
        (M, N, K), or (M, N), in the kernel's dtype, on its device; computed in float64.

    Raises:
        TypeError, ValueError: a Gram matrix that is not square, symmetric and finite, or with the ridge on its diagonal has a negative
        eigenvalue that is no rounding of its dtype; other shapes; values that are not finite; a negative ridge.

    Example:
        >>> kernel, cross = torch.eye(2), torch.tensor([[1.0, 0.5]])
        >>> leave_one_out_effects(kernel, cross, torch.tensor([2.0, 4.0]))
        tensor([[2., 2.]])
    """
    given, ridge = validate.gram(gram).detach(), validate.number(ridge, "ridge")
    cross, y = validate.cross(cross, given).detach().double(), as_columns(targets, given.double())
    values, vectors, unknown = _eigen(given, ridge)
    inverse = (vectors / values) @ vectors.T
    left = unknown.square().sum(1)  # what no other point knows of one; with it the ridge that vanishes cancels
    alone = left > _ALONE
    wrong = torch.where(
        alone[:, None],
        unknown @ (unknown.T @ y) / torch.where(alone, left, 1.0)[:, None],
        inverse @ y / torch.where(alone, 1.0, inverse.diagonal())[:, None],
    )  # y_i - f_{-i}(x_i)
    return ((cross @ inverse)[:, :, None] * wrong).view(len(cross), len(given), *targets.shape[1:]).to(given.dtype)


# Of a point's unit vector, the part that the kernel's null space holds: more than this is no rounding.
_ALONE = 1e-6


def _eigen(gram: Tensor, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return, in float64, eigenvalues of K + rho I that are no rounding, their eigenvectors, and an orthonormal basis of the rest.

    What is rounding the dtype tells that the matrix came in; with a ridge above it there is no rest.
    """
    values, vectors = torch.linalg.eigh(gram.double())
    largest, share = float(values.abs().max()), len(gram) * torch.finfo(gram.dtype).eps
    values = values + ridge
    if values[0] < -min(1e3 * share, _BELOW) * largest:
        raise ValueError(
            f"gram: got an eigenvalue of {float(values[0]) - ridge:.3g}, the largest being {largest:.3g}; wanted none below 0, or a larger "
            "ridge (a matrix of float32 should come in float32)"
        )
    alive = values > share * largest
    return values[alive], vectors[:, alive], vectors[:, ~alive]


# An eigenvalue further below 0 than this share of the largest is no rounding, in whatever dtype.
_BELOW = 1e-3


def trak(
    models: nn.Module | Sequence[nn.Module], x: Tensor, y: Tensor, asked: Tensor, labels: Tensor, ridge: float = 0.0, **options
) -> Tensor:
    r"""Return what each training sample adds to each prediction's log odds, by TRAK without its projection (Park et al., 2023, eq. 17).

    With :math:`\Phi` the features of the log odds and Q the diagonal of :math:`1 - p_i`, the probability that a sample's label lacks,
    TRAK's score is :math:`\phi(x)^\top (\Phi^\top \Phi)^{-1} \Phi^\top Q`; the small ones of it that the source then sets to zero are
    kept here. By
    :math:`(\Phi^\top\Phi + \rho I)^{-1} \Phi^\top = \Phi^\top (\Phi\Phi^\top + \rho I)^{-1}` it needs the kernel only,

    .. math:: \tau(x) = k(x)^\top (K + \rho I)^{-1} Q,

    the weights of a kernel regression, and no random projection of features. Of several models, trained from other seeds or on
    other halves, the first factor and Q are averaged each by itself.

    Args:
        models: one or several, trained, in eval mode where they have BatchNorm or Dropout.
        x: training points (N, ...), all of them, whichever a model has seen.
        y: their labels (N,).
        asked: (M, ...).
        labels: of the points asked about (M,), whose log odds count.
        ridge: rho, in units of the kernel's mean diagonal, so that it means the same for each model; 0 for the pseudo-inverse.
        **options: ``block_size``, ``memory``, ``output``, ``parameters`` of :class:`ntk_course.Gram`.

    Returns:
        (M, N), in the dtype of the first model, on its device.

    Raises:
        TypeError, ValueError: as :class:`ntk_course.Gram`; no model, models whose answers differ in shape or have positions, a negative ridge.

    Example:
        >>> trak(model, x, y, x_test, y_test, ridge=1e-3).shape
        torch.Size([8, 32])
    """
    ridge = validate.number(ridge, "ridge")
    models = [models] if isinstance(models, nn.Module) and not isinstance(models, nn.ModuleList) else list(models)
    if not models:
        raise ValueError("models: got none; wanted at least one")
    weights, lacks, outputs = [], [], set()
    for model in models:
        with validate.renamed(x1="x"):
            gram = Gram(model, x, log_odds(y), **options)
        with validate.renamed(x="asked"):
            cross = gram.against(asked, log_odds(labels, "labels")).dense().double()  # (M, N)
        z = gram.outputs().double()
        outputs.add(z.shape[1:])
        if z.dim() != 2 or len(outputs) > 1:
            raise ValueError(f"models: got answers of shapes {sorted(map(tuple, outputs))} a sample; wanted one (K,) for all")
        kernel = gram.dense()
        values, vectors, _ = _eigen(kernel, ridge * float(kernel.diagonal().mean()))
        weights.append(cross @ (vectors / values) @ vectors.T)
        lacks.append(1 - z.softmax(1).gather(1, validate.labels(y, len(z), z.shape[1], z)[:, None])[:, 0])
    return (torch.stack(weights).mean(0) * torch.stack(lacks).mean(0)).to(gram.dtype)


# Sums of scores that differ by less than their largest over this are ties.
_SAME = 1e12


def datamodelling_score(scores: Tensor, subsets: Tensor, outputs: Tensor) -> Tensor:
    r"""Return how well scores foresee networks trained on subsets: the linear datamodelling score (Park et al., 2023, def. 2.3).

    For each point asked about, Spearman's rank correlation over subsets between :math:`\sum_{i \in S} \tau_i(x)` and what networks
    trained on S answer there. 1 orders the subsets rightly, 0 not at all. A constant factor on the scores does not matter.

    Args:
        scores: tau, (M, N).
        subsets: which training points each has, (S, N), bool.
        outputs: what the networks answer, averaged over seeds where there are several, (S, M).

    Returns:
        (M,), float64, on the CPU; not a number where sums or outputs are the same for all subsets.

    Raises:
        TypeError, ValueError: shapes that do not fit, subsets that are not bool, fewer than three of them.

    Example:
        >>> subsets = torch.tensor([[True, False, False], [True, True, False], [True, True, True]])
        >>> datamodelling_score(torch.tensor([[1.0, 2.0, 3.0]]), subsets, torch.tensor([[0.1], [0.5], [0.7]]))
        tensor([1.], dtype=torch.float64)
    """
    if not isinstance(subsets, Tensor) or subsets.dtype != torch.bool:
        got = subsets.dtype if isinstance(subsets, Tensor) else type(subsets).__name__
        raise TypeError(f"subsets: got {got}; wanted a bool tensor (S, N)")
    if subsets.dim() != 2 or len(subsets) < 3:
        raise ValueError(f"subsets: got shape {tuple(subsets.shape)}; wanted (S, N) with at least three, whose order can be told")
    s, n = subsets.shape
    scores, outputs = validate.array(scores, "scores", "(M, N)"), validate.array(outputs, "outputs", "(S, M)")
    if scores.dim() != 2 or scores.shape[1] != n:
        raise ValueError(f"scores: got shape {tuple(scores.shape)}; wanted (M, {n}), one for each point of the subsets")
    if outputs.shape != (s, len(scores)):
        raise ValueError(f"outputs: got shape {tuple(outputs.shape)}; wanted ({s}, {len(scores)}), of each subset at each point")
    validate.finite(scores, "scores")
    validate.finite(outputs, "outputs")
    foreseen = (subsets.double() @ scores.detach().double().to(subsets.device).T).cpu()
    scale = foreseen.abs().max(0).values.clamp(min=torch.finfo(torch.float64).tiny)
    foreseen = (foreseen / scale * _SAME).round()  # sums that differ by rounding are equal
    seen = outputs.detach().double().cpu()
    found = torch.full((len(scores),), torch.nan, dtype=torch.float64)
    for m in range(len(scores)):
        if foreseen[:, m].unique().numel() > 1 and seen[:, m].unique().numel() > 1:
            found[m] = float(spearmanr(foreseen[:, m], seen[:, m]).statistic)
    return found
