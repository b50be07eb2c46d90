"""A Gram matrix as an operator: its product with a vector, by one backward and one forward-mode pass, no entry of it made."""

import torch
from torch import Tensor, nn
from torch.func import jvp, vjp

from ..models.functional import call_with
from ..tangents.precision import multiplying
from .engine import Cotangents, check

# Samples that go through the network at once.
_BATCH = {"cpu": 256}
_BATCH_ELSEWHERE = 2048


def gram_times(
    model: nn.Module,
    x1: Tensor,
    c1: Cotangents,
    v: Tensor,
    x2: Tensor | None = None,
    c2: Cotangents | None = None,
    *,
    batch_size: int | None = None,
) -> Tensor:
    r"""Multiply a Gram matrix by a vector, :math:`\kappa v = \Phi_1 (\Phi_2^\top v)`, in time linear in N + M.

    :math:`u = \Phi_2^\top v = \sum_m v_m \, (\partial z(x_m)/\partial w)^\top c_m` is one gradient of a weighted sum of
    outputs; :math:`(\Phi_1 u)_n = c_n^\top (\partial z(x_n)/\partial w)\, u` is how the outputs move along u. Made for
    iterative solvers: conjugate gradients on :math:`\kappa + \lambda I` need nothing else.

    Args:
        model: as in :func:`gram_blocks`; its operations need forward-mode rules, which PyTorch's layers have.
        x1: (N, ...).
        c1: cotangents (N, K), or a function of K.
        v: (M,), or (M, r) for r vectors; in the model's dtype, on its device.
        x2: (M, ...), or None for x1 against itself, and then M = N.
        c2: (M, K), given exactly when x2 is.
        batch_size: samples that go through the network at once (default 256, on a GPU 2048).

    Returns:
        (N,) or (N, r), in the model's dtype and on its device.

    Raises:
        TypeError, ValueError: as :func:`gram_blocks`, or v of another shape.

    Example:
        >>> torch.allclose(gram_times(model, x, c, v), tangent_kernel(model, x, c) @ v)
        True
    """
    sides = check(model, x1, c1, x2, c2, scalar_only=True)
    directions = _directions(sides, sides.x2, sides.c2, v, batch_size)
    weights = _weights(model)
    parts = []
    for x, c in _batches(sides.x1, sides.c1, batch_size):
        columns = []
        for u in directions:
            with multiplying("exact"):
                moved = jvp(lambda free, x=x: call_with(model, free, x), (weights,), (u,))[1]
            columns.append((moved * c).sum(1))
        parts.append(torch.stack(columns, 1))
    out = torch.cat(parts)
    return out if v.dim() == 2 else out[:, 0]


def gram_quadratic(model: nn.Module, x: Tensor, c: Cotangents, v: Tensor, *, batch_size: int | None = None) -> Tensor:
    r"""Compute the quadratic form :math:`v^\top \kappa\, v = \|\Phi^\top v\|^2` by one backward pass.

    Args:
        model: as in :func:`gram_times`.
        x: (N, ...).
        c: cotangents (N, K), or a function of K.
        v: (N,), or (N, r).
        batch_size: as in :func:`gram_times`.

    Returns:
        A number, or (r,), in the model's dtype and on its device.

    Raises:
        TypeError, ValueError: as :func:`gram_times`.

    Example:
        >>> gram_quadratic(model, x, c, v) >= 0
        tensor(True)
    """
    sides = check(model, x, c, scalar_only=True)
    directions = _directions(sides, sides.x1, sides.c1, v, batch_size)
    out = torch.stack([sum((g**2).sum() for g in u.values()) for u in directions])
    return out if v.dim() == 2 else out[0]


def _directions(sides, x: Tensor, c: Tensor, v: Tensor, batch_size: int | None) -> list[dict[str, Tensor]]:
    """Sum up the gradients, weighted by each column of v, of samples x with cotangents (M, 1, K)."""
    if v.dim() not in (1, 2) or len(v) != len(x):
        raise ValueError(f"v: got shape {tuple(v.shape)}; wanted ({len(x)},) or ({len(x)}, r), a number for each sample")
    if v.dtype != c.dtype or v.device != c.device:
        raise ValueError(f"v: got {v.dtype} on {v.device}; wanted {c.dtype} on {c.device}, as the model")
    weights, model = _weights(sides.model), sides.model
    columns = v.view(len(x), -1)
    sums = [{name: torch.zeros_like(p) for name, p in weights.items()} for _ in range(columns.shape[1])]
    start = 0
    for x_b, c_b in _batches(x, c, batch_size):
        with multiplying("exact"):
            _, pull = vjp(lambda free, x_b=x_b: call_with(model, free, x_b), weights)
            for total, column in zip(sums, columns[start : start + len(x_b)].unbind(1), strict=True):
                for name, g in pull(c_b * column[:, None])[0].items():
                    total[name] += g
        start += len(x_b)
    return sums


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def _batches(x: Tensor, c: Tensor, batch_size: int | None):
    size = batch_size or _BATCH.get(x.device.type, _BATCH_ELSEWHERE)
    return zip(x.split(size), c[:, 0].split(size), strict=True)
