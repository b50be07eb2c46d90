r"""One SGD step, predicted and made: eq. (1) of Guo et al. (2024) and the remainder it leaves.

A step of size eta on the loss of one sample u changes the prediction on another sample o by
:math:`\Delta q(x_o) = \eta\, A(x_o)\, K(x_o, x_u)\, (p(x_u) - q(x_u)) + O(\eta^2)`.
"""

import torch
from torch import Tensor, nn
from torch.func import jvp
from torch.nn.functional import cross_entropy, one_hot

from ..basics import validate
from ..kernels.named import entk
from ..models.functional import call_with
from ..tangents.forward import agrees, few
from ..tangents.running import everything

Step = dict[str, Tensor]
ERRORS = ("true", "kappa_tilde")


def softmax_jacobian(q: Tensor) -> Tensor:
    r"""Return :math:`A = \partial q/\partial z = \mathrm{diag}(q) - q q^\top`, the Jacobian of the softmax (eq. 5).

    Args:
        q: probabilities (..., K).

    Returns:
        (..., K, K), symmetric and positive semi-definite, rows summing to 0; dtype and device of q.

    Example:
        >>> softmax_jacobian(torch.tensor([0.5, 0.5]))
        tensor([[ 0.2500, -0.2500],
                [-0.2500,  0.2500]])
    """
    return torch.diag_embed(q) - q.unsqueeze(-1) * q.unsqueeze(-2)


def prediction_error(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`p - q`, the one-hot target less the predicted probabilities: minus the loss gradient in the logits.

    Args:
        model: gives logits (N, K).
        x: (N, ...).
        y: integer labels (N,).

    Returns:
        (N, K), in the model's dtype and on its device.

    Raises:
        TypeError, ValueError: bad inputs or labels.

    Example:
        >>> torch.allclose(prediction_error(model, x, y).sum(1), torch.zeros(32), atol=1e-6)  # a target and a softmax both sum to 1
        True
    """
    like = validate.parameters(model)[0]
    with torch.no_grad():
        q = validate.logits(model(validate.inputs(x, like)), len(x)).softmax(1)
    y = validate.labels(y, len(x), q.shape[1], q)
    return one_hot(y, q.shape[1]) - q


def predicted_change(model: nn.Module, x_o: Tensor, x_u: Tensor, y_u: Tensor) -> Tensor:
    r"""Return the first-order change of every prediction per unit of learning rate, :math:`A(x_o) K(x_o, x_u) (p - q)(x_u)`.

    Eq. (1) of Guo et al. (2024) divided by eta, for each observed sample o and each step on one sample u.

    Args:
        model: gives logits, in eval mode where it has BatchNorm or Dropout.
        x_o: observed samples (N, ...).
        x_u: samples to step on, one at a time, (M, ...).
        y_u: their labels (M,).

    Returns:
        (N, M, K), in the model's dtype and on its device; multiply by eta.

    Raises:
        TypeError, ValueError: bad inputs or labels.

    Example:
        >>> (eta * predicted_change(model, x_o, x_u, y_u)[0, 0]).shape  # change of softmax at x_o[0] from a step on x_u[0]
        torch.Size([10])
    """
    kernel = entk(model, x_o, x_u)
    with torch.no_grad():
        a = softmax_jacobian(model(x_o.to(kernel.dtype)).softmax(1))
    return torch.einsum("nij,nmjk,mk->nmi", a, kernel, prediction_error(model, x_u, y_u))


def true_change(model: nn.Module, x_o: Tensor, x_u: Tensor, y_u: Tensor, lr: float) -> Tensor:
    r"""Make the step on each sample u in turn and return how the softmax really moved, :math:`q^{t+1}(x_o) - q^t(x_o)`.

    Args:
        model: as in :func:`predicted_change`; its weights are not changed.
        x_o: (N, ...).
        x_u: (M, ...).
        y_u: (M,).
        lr: learning rate eta.

    Returns:
        (N, M, K), in the model's dtype and on its device.

    Raises:
        TypeError, ValueError: bad inputs or labels.

    Example:
        >>> remainder = true_change(model, x_o, x_u, y_u, eta) - eta * predicted_change(model, x_o, x_u, y_u)
        >>> remainder.shape
        torch.Size([4, 2, 10])
    """
    validate.per_sample(model)
    like = validate.parameters(model)[0]
    x_o, x_u = validate.inputs(x_o, like, "x_o"), validate.inputs(x_u, like, "x_u")
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        before = validate.logits(model(x_o), len(x_o)).softmax(1)
    y_u = validate.labels(y_u, len(x_u), before.shape[1], before, "y_u")
    changes = []
    for x, y in zip(x_u, y_u, strict=True):
        with torch.enable_grad():
            loss = cross_entropy(model(x[None]), y[None])
            gradient = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            stepped = {name: p - lr * g for (name, p), g in zip(weights.items(), gradient, strict=True)}
            changes.append(call_with(model, stepped, x_o).softmax(1) - before)
    return torch.stack(changes, dim=1)


def sgd_step(model: nn.Module, x: Tensor, y: Tensor, lr: float, error: str = "true") -> Step:
    r"""Return the SGD step of one batch, :math:`\Delta w = \frac{\eta}{B}\sum_j J(x_j)^\top e_j`, without making it.

    Args:
        model: gives logits, in eval mode where it has BatchNorm or Dropout.
        x: the batch (B, ...).
        y: its labels (B,).
        lr: eta.
        error: "true" for :math:`e = p - q`, the gradient of the mean cross entropy; "kappa_tilde" for
            :math:`e = e_y - 1/K`, the error of a network that knows nothing (Guo et al., 2024, sec. 3.3).

    Returns:
        Parameter name to change, in the model's dtype and on its device.

    Raises:
        TypeError, ValueError: bad inputs, labels, or an unknown error.

    Example:
        >>> step = sgd_step(model, x[:16], y[:16], lr=0.1)
        >>> step["1.weight"].shape
        torch.Size([32, 64])
    """
    if error not in ERRORS:
        raise ValueError(f"error: got {error!r}; wanted one of {ERRORS}")
    validate.per_sample(model)
    x = validate.inputs(x, validate.parameters(model)[0])
    names, params = zip(*[(n, p) for n, p in model.named_parameters() if p.requires_grad], strict=True)
    with torch.enable_grad():
        z = validate.logits(model(x), len(x))
        y = validate.labels(y, len(x), z.shape[1], z)
        e = one_hot(y, z.shape[1]).to(z.dtype) - (z.detach().softmax(1) if error == "true" else 1 / z.shape[1])
        steps = torch.autograd.grad(z, params, lr / len(x) * e, allow_unused=True, materialize_grads=True)
    return dict(zip(names, steps, strict=True))


def first_order_change(model: nn.Module, x: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    r"""Return the logits z(x; w) and their first-order change :math:`J(x)\,\Delta w` under a step of the weights.

    One forward-mode pass; with the step of :func:`sgd_step` it is :math:`\frac{\eta}{B}\sum_j K(x, x_j)\,e_j` without any
    kernel being formed.

    Args:
        model: as in :func:`sgd_step`.
        x: (N, ...).
        step: parameter name to change; parameters left out do not move.

    Returns:
        (N, K) and (N, K), in the model's dtype and on its device.

    Raises:
        ValueError: a name the model does not have, or a change of another shape; a model whose gradient is not the derivative of
            what it computes.

    Example:
        >>> z, dz = first_order_change(model, x[16:], sgd_step(model, x[:16], y[:16], lr=0.1))
        >>> z.shape == dz.shape
        True
    """
    x = validate.inputs(x, validate.parameters(model)[0])
    weights = {name: p.detach() for name, p in model.named_parameters() if name in step}
    for name, change in step.items():
        if name not in weights or weights[name].shape != change.shape:
            raise ValueError(f"step: got {name!r} of shape {tuple(change.shape)}; wanted a parameter of the model, in its shape")
    with torch.no_grad():
        z, moved = jvp(lambda w: call_with(model, w, x), (weights,), ({n: step[n] for n in weights},))[:2]
    trainable = {name: p for name, p in model.named_parameters() if name in step and p.requires_grad}
    if len(trainable) == len(weights) and not agrees(
        model, x[(some := few(len(x)))], trainable, step, moved[some], everything(model)
    ):
        raise ValueError(
            "model: got a forward whose derivative is not its gradient (no_grad inside, a hook, a straight-through estimator); "
            "wanted one that plain autograd differentiates"
        )
    return z, moved
