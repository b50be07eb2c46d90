"""Approximations of a Gram matrix, each named as one: random projections, landmarks, the last layer alone."""

import torch
from torch import Tensor, nn

from ..basics import validate
from ..models.functional import only
from ..tangents.features import tangent_features
from ..tangents.probe import record
from .engine import Cotangents, Sides, check, gram, plan
from .plan import default_memory, slices

# Columns of the random matrix that are drawn from one seed, so that memory does not decide what they are.
_DRAWN = 64


def projected_features(
    model: nn.Module, x: Tensor, c: Cotangents, dim: int, *, seed: int = 0, memory: int | None = None
) -> Tensor:
    r"""Project every sample's tangent features on random directions, :math:`F = \Phi P/\sqrt k`, so that :math:`FF^\top \approx \kappa`.

    P is (d, k) with entries 1 and -1 at random. By Johnson and Lindenstrauss an entry's error has mean zero and standard
    deviation at most :math:`\sqrt{(\kappa_{ii}\kappa_{jj} + \kappa_{ij}^2)/k}`, whatever d is. TRAK (Park et al., 2023)
    keeps such features of the gradients of a margin.

    Args:
        model: as in :func:`gram_blocks`.
        x: (N, ...).
        c: cotangents (N, K), or a function of K.
        dim: k.
        seed: of P; features of two data sets belong together only where the seed is the same.
        memory: bytes, as in :func:`gram_blocks`. Where P does not fit in half of it, the features are computed again for
            each part of its columns.

    Returns:
        (N, k), in the model's dtype and on its device.

    Raises:
        TypeError, ValueError: as :func:`gram_blocks`.

    Example:
        >>> f = projected_features(model, x, c, dim=2048)
        >>> approximate = f @ f.T
    """
    sides = check(model, x, c, scalar_only=True)
    parameters, byte = sum(p.numel() for p in model.parameters() if p.requires_grad), sides.c1.element_size()
    memory = default_memory(sides.x1.device) if memory is None else validate.positive(memory, "memory")
    # whole gradients are formed here, and then joined
    size = min(plan(sides, memory=memory).block_size, max(1, memory // (8 * parameters * byte)))
    drawn = slices(validate.positive(dim, "dim"), _DRAWN)
    at_once = max(1, memory // (2 * parameters * byte * _DRAWN))
    parts = []
    for some in (drawn[i : i + at_once] for i in range(0, len(drawn), at_once)):
        signs = torch.cat([_signs(parameters, where, seed, sides.c1) for where in some], 1)
        parts.append(torch.cat([_formed(sides, rows) @ signs for rows in slices(len(sides.x1), size)]))
    return torch.cat(parts, 1) / dim**0.5


def _signs(parameters: int, where: slice, seed: int, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + where.start)
    signs = torch.randint(0, 2, (parameters, where.stop - where.start), generator=generator, dtype=torch.int8)
    return signs.to(like.device, like.dtype).mul_(2).sub_(1)


def _formed(sides: Sides, rows: slice) -> Tensor:
    """Compute whole gradients, (n, d)."""
    features = tangent_features(sides.model, sides.x1[rows], sides.c1[rows], float("inf"), sides.known)
    factors = [torch.einsum("ntp,ntq->npq", a, b[:, 0]).flatten(1) for a, b in features.factors]
    return torch.cat([features.dense[:, 0], *factors], 1)


def nystrom_features(model: nn.Module, x: Tensor, c: Cotangents, landmarks: int | Tensor, *, seed: int = 0, **blocks) -> Tensor:
    r"""Write every sample in terms of m landmarks, :math:`F = \kappa_{Nm}\, (\kappa_{mm})^{-1/2}`, so that :math:`FF^\top \approx \kappa`.

    The Nystrom approximation (Williams and Seeger, 2001): exact for the landmarks, and nowhere too large on the diagonal,
    since :math:`\kappa - FF^\top` is positive semi-definite. Directions whose eigenvalue is rounding are left out.

    Args:
        model: as in :func:`gram_blocks`.
        x: (N, ...).
        c: cotangents (N, K), or a function of K.
        landmarks: m, drawn at random without replacement, or their indices (m,).
        seed: of the draw.
        **blocks: as in :func:`tangent_kernel`.

    Returns:
        (N, r), r at most m, in the model's dtype and on its device.

    Raises:
        TypeError, ValueError: as :func:`gram_blocks`; more landmarks than samples, indices out of range or twice.

    Example:
        >>> f = nystrom_features(model, x, c, landmarks=1000)
        >>> approximate = f @ f.T
    """
    sides = check(model, x, c, scalar_only=True)
    n = len(sides.x1)
    if isinstance(landmarks, Tensor):
        chosen = landmarks.to(sides.x1.device)
        if chosen.dim() != 1 or chosen.is_floating_point() or len(chosen.unique()) < len(chosen) or len(chosen) == 0:
            raise ValueError(f"landmarks: got {tuple(chosen.shape)} of {chosen.dtype}; wanted different indices (m,)")
        if chosen.min() < 0 or chosen.max() >= n:
            raise ValueError(f"landmarks: got indices {int(chosen.min())} to {int(chosen.max())}; wanted 0 to {n - 1}")
    elif validate.positive(landmarks, "landmarks") > n:
        raise ValueError(f"landmarks: got {landmarks} for {n} samples; wanted at most {n}")
    else:
        chosen = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:landmarks].to(sides.x1.device)
    c = sides.c1[:, 0]
    columns = gram(model, sides.x1, c, sides.x1[chosen], c[chosen], **blocks)
    values, vectors = torch.linalg.eigh(columns[chosen].double())
    kept = values > values[-1] * len(chosen) * torch.finfo(columns.dtype).eps
    if not kept.any():
        raise ValueError("landmarks: got none whose tangent features differ from zero; wanted others")
    return columns @ (vectors[:, kept] / values[kept].sqrt()).to(columns.dtype)


def last_layer_kernel(
    model: nn.Module, x1: Tensor, c1: Cotangents, x2: Tensor | None = None, c2: Cotangents | None = None, **blocks
) -> Tensor:
    r"""Compute the share of a Gram matrix that comes from the last layer's weights, :math:`(c \cdot c')(h \cdot h' + 1)`.

    h is that layer's input; the 1 is its bias, if it has one. It is the first term in the proof of Theorem 1 of Guo et
    al. (2024), App. B, the one that grows with the width; all others are left out.

    Args:
        model: ends in a layer that the course has a rule for, such as nn.Linear, whose weights train.
        x1: (N, ...).
        c1: as in :func:`tangent_kernel`.
        x2: (M, ...), or None for x1 against itself.
        c2: given exactly when x2 is.
        **blocks: as in :func:`tangent_kernel`.

    Returns:
        (N, M), in the model's dtype and on its device.

    Raises:
        TypeError, ValueError: as :func:`gram_blocks`; no such layer.

    Example:
        >>> (last_layer_kernel(model, x, c).diagonal() <= tangent_kernel(model, x, c).diagonal()).all()
        tensor(True)
    """
    check(model, x1, c1, x2, c2)
    with torch.enable_grad():
        calls, _ = record(model, validate.inputs(x1, validate.parameters(model)[0], "x1")[:1])
    last = [] if not calls else [p for p in calls[-1].module.parameters(recurse=False) if p.requires_grad]
    if not last:
        raise ValueError("model: got no layer with a rule, such as nn.Linear, whose weights train; wanted one at its end")
    with only(model, last):
        return gram(model, x1, c1, x2, c2, **blocks)
