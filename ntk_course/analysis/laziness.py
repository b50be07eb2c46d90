r"""How far training leaves the tangent kernel: the change that was made, and the change that first order predicts.

Trained lazily, a network at scale alpha moves its weights by :math:`\delta/\alpha + O(1/\alpha^2)`, with the move of the
linearised network :math:`\delta = J^\top K^{-1} y`. So its tangent kernel changes by :math:`DK[\delta]/\alpha`: the slope
-1 of the change over alpha, and its factor too, are known before anything is trained.
"""

import torch
from torch import Tensor, nn
from torch.func import jacrev, jvp

from ..basics import validate
from ..models.functional import call_with
from ..tangents.forward import forward_agrees
from .regression import kernel_ridge


def relative_change(before: Tensor, after: Tensor) -> Tensor:
    r"""Measure how far something moved, :math:`\|A' - A\|_F/\|A\|_F`.

    Args:
        before: A, a kernel, features or weights of any shape.
        after: A', the same later.

    Returns:
        A number, 0 for no change.

    Raises:
        ValueError: shapes that differ, a norm of 0 before.

    Example:
        >>> relative_change(torch.eye(2), 3 * torch.eye(2))
        tensor(2.)
    """
    _alike(before, after)
    if not float(before.norm()):
        raise ValueError("before: got a norm of 0; wanted something to compare with")
    return (after - before).norm() / before.norm()


def kernel_distance(before: Tensor, after: Tensor) -> Tensor:
    r"""Measure how far a kernel turned, whatever its scale: :math:`1 - \langle K, K'\rangle_F/\|K\|\|K'\|` (Fort et al., 2020).

    Args:
        before: K, (N, M).
        after: K', (N, M).

    Returns:
        A number in [0, 2]; 0 for multiples of one another.

    Raises:
        ValueError: shapes that differ, a norm of 0.

    Example:
        >>> kernel_distance(torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))  # 1 - 1/sqrt(2)
        tensor(0.2929)
    """
    _alike(before, after)
    if not float(before.norm()) or not float(after.norm()):
        raise ValueError("before, after: got a norm of 0; wanted two kernels")
    a, b = before / before.norm(), after / after.norm()
    return (a - b).square().sum() / 2  # the same, without cancellation


def lazy_move(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    r"""Compute where the linearised network's weights go, trained to the end on the squared loss from f = 0.

    .. math:: \delta = J^\top K^{-1} y, \qquad K = J J^\top ,

    the shortest move that fits the targets to first order. A network at scale alpha (:func:`ntk_course.models.scaled`) moves
    by this over alpha, up to :math:`O(1/\alpha^2)` (Chizat, Oyallon & Bach, 2019, theorem 2.2).

    Args:
        model: one output; holds its Jacobian of N rows in memory.
        x: (N, ...).
        y: targets, (N,).

    Returns:
        The move of every trainable parameter by its name, in the model's dtype.

    Raises:
        TypeError, ValueError: several outputs, targets of another length, parameters of several dtypes;
        torch.linalg.LinAlgError: a kernel that no small ridge makes definite.

    Example:
        >>> move = lazy_move(mlp((64, 32, 1)), x[:8], 2.0 * (y[:8] > 4) - 1)
        >>> sorted(move)
        ['1.bias', '1.weight', '3.bias', '3.weight']
    """
    weights, x = _one_output(model, x)
    y = torch.as_tensor(y, dtype=x.dtype, device=x.device)
    if y.shape != (len(x),):
        raise ValueError(f"y: got shape {tuple(y.shape)}; wanted ({len(x)},)")
    with torch.no_grad():
        jacobian = _jacobian(model, x, weights)
        coefficients = kernel_ridge(_gram(jacobian), y).coefficients
        return {name: torch.tensordot(coefficients, j, 1) for name, j in jacobian.items()}


def kernel_derivative(model: nn.Module, x: Tensor, move: dict[str, Tensor]) -> Tensor:
    r"""Compute how the tangent kernel changes along a move of the weights, to first order, by forward mode over reverse mode.

    .. math:: DK[\delta] = \tfrac{d}{dt}\, J(w + t\,\delta)\, J(w + t\,\delta)^\top \big|_{t=0}

    With :func:`lazy_move` for the move this is the limit of alpha times the change that training at scale alpha makes.

    Args:
        model: one output; holds two Jacobians of N rows in memory.
        x: (N, ...).
        move: by the names of parameters; those not named stay.

    Returns:
        (N, N), in the model's dtype.

    Raises:
        TypeError, ValueError: several outputs, unknown names or other shapes, a model that forward mode cannot differentiate.

    Example:
        >>> model, sides = mlp((64, 32, 1), "tanh"), 2.0 * (y[:8] > 4) - 1
        >>> kernel_derivative(model, x[:8], lazy_move(model, x[:8], sides)).shape
        torch.Size([8, 8])
    """
    weights, x = _one_output(model, x)
    for name, step in move.items():
        if name not in weights or step.shape != weights[name].shape:
            wanted = f"shape {tuple(weights[name].shape)}" if name in weights else f"one of {sorted(weights)}"
            raise ValueError(f"move: got {name!r} of shape {tuple(step.shape)}; wanted {wanted}")
    if not forward_agrees(model, x):
        raise ValueError("model: got a forward that forward mode does not differentiate as reverse mode does; wanted a plain one")

    along = {name: move.get(name, torch.zeros_like(p)) for name, p in weights.items()}
    with torch.no_grad():
        return jvp(lambda w: _gram(_jacobian(model, x, w)), (weights,), (along,))[1]


def _jacobian(model: nn.Module, x: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return jacrev(lambda w: call_with(model, w, x)[:, 0])(weights)


def _gram(jacobian: dict[str, Tensor]) -> Tensor:
    rows = torch.cat([j.flatten(1) for j in jacobian.values()], dim=1)
    return rows @ rows.T


def _one_output(model: nn.Module, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    x = validate.inputs(x, validate.parameters(model)[0], least=1)
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        answer = model(x[:1])
    if answer.shape != (1, 1):
        raise ValueError(f"model: got outputs of shape {tuple(answer.shape)} for one sample; wanted (1, 1), one output")
    return weights, x


def _alike(before: Tensor, after: Tensor) -> None:
    if before.shape != after.shape:
        raise ValueError(f"after: got shape {tuple(after.shape)}; wanted {tuple(before.shape)}, as before")
