r"""Few points in place of many: training points made, not chosen, so that a kernel regression on them answers as one on all."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..basics import validate
from ..basics.progress import after_a_moment
from .regression import Fit, as_columns


class Distilled(NamedTuple):
    """Points (S, ...) with targets (S, K), and the loss on the training points before each step and after the last, (steps + 1,)."""

    x: Tensor
    targets: Tensor
    losses: Tensor


def distil(
    kernel: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    targets: Tensor,
    start: Tensor,
    start_targets: Tensor,
    *,
    ridge: float = 1e-3,
    steps: int = 100,
    lr: float = 0.01,
    learn_targets: bool = False,
    progress: bool = True,
) -> Distilled:
    r"""Move a few points so that the kernel regression on them fits all training points: kernel inducing points (Nguyen, Chen & Lee, 2021).

    Adam descends the mean over training points and outputs of

    .. math:: \big(Y - K_{XS}\,(K_{SS} + \rho\, \bar k I)^{-1}\, Y_S\big)^2, \qquad \bar k = \mathrm{tr}(K_{SS})/S,

    in the points S, through the kernel's own derivative in its inputs, and in their targets where asked.

    Args:
        kernel: of two sets of points, (A, ...) and (B, ...) to (A, B), made by operations of torch that have a derivative in both;
            neither :func:`ntk_course.infinite.mlp` nor :class:`ntk_course.Gram` keeps one. Of smooth activations
            :func:`ntk_course.infinite.expectations` has one; of ReLUs it has none where two points are the same.
        x: training points (N, ...).
        targets: Y, (N, K) or (N,).
        start: first points (S, ...), such as some of x.
        start_targets: their targets, (S, K) or (S,).
        ridge: rho, at least 0, a share of the kernel's mean diagonal on the points.
        steps: of Adam.
        lr: its rate, in units of the inputs.
        learn_targets: move the targets too.
        progress: show a bar, where it takes longer than a moment.

    Returns:
        A :class:`Distilled`, in the dtype of start, on its device.

    Raises:
        TypeError, ValueError: shapes, dtypes or devices that do not fit, values that are not finite, a negative ridge, a kernel of another
        shape or without a derivative.
        ArithmeticError: a loss, values of the kernel or a derivative that are not finite, or a matrix that is not positive definite, with
        the step.

    Example:
        >>> few = distil(lambda a, b: a.flatten(1) @ b.flatten(1).T, x, 1.0 * (y > 4), x[:4], 1.0 * (y[:4] > 4), steps=20, progress=False)
        >>> few.x.shape, bool(few.losses[-1] < few.losses[0])
        (torch.Size([4, 1, 8, 8]), True)
    """
    ridge, steps, lr = validate.number(ridge, "ridge"), validate.positive(steps, "steps"), validate.above_zero(lr, "lr")
    x, start = validate.tensor(x), validate.tensor(start, "start")
    if not callable(kernel):
        raise TypeError(f"kernel: got {type(kernel).__name__}; wanted a function of two sets of points")
    if not isinstance(learn_targets, bool):
        raise TypeError(f"learn_targets: got {learn_targets!r}; wanted True or False")
    if not len(x):
        raise ValueError("x: got no points; wanted at least one")
    if start.shape[1:] != x.shape[1:] or not len(start):
        raise ValueError(
            f"start: got shape {tuple(start.shape)}; wanted (S, {', '.join(map(str, x.shape[1:]))}) with S at least 1"
        )
    if start.dtype not in (torch.float32, torch.float64) or start.dtype != x.dtype or start.device != x.device:
        got, wanted = (f"{t.dtype} on {t.device}" for t in (start, x))
        raise ValueError(f"start: got {got} for x in {wanted}; wanted both in float32, or in float64, on one device")
    for values, name in ((x, "x"), (start, "start")):
        validate.finite(values, name)
    wanted, given = as_columns(targets, start.new_empty(len(x), 0)), as_columns(start_targets, start, "start_targets")
    if wanted.shape[1] != given.shape[1]:
        raise ValueError(f"start_targets: got {given.shape[1]} outputs; wanted {wanted.shape[1]}, as the targets have")
    with torch.inference_mode(False):  # tensors made in it have no derivatives
        x, wanted, points, values = (t.detach().clone() for t in (x, wanted, start, given))
        points.requires_grad_()
        values.requires_grad_(learn_targets)
    moved = [points, values] if learn_targets else [points]
    adam, losses = torch.optim.Adam(moved, lr=lr), []

    def loss_at(step: int) -> Tensor:
        gram, cross = _made(kernel, points, points), _made(kernel, x, points)
        if not (gram.requires_grad and cross.requires_grad):
            raise ValueError("kernel: got values without a derivative in the points; wanted operations of torch that keep it")
        where = f"at step {step} of {steps}"
        if not gram.isfinite().all() or not cross.isfinite().all():
            raise ArithmeticError(
                f"kernel: got values that are not finite {where}; wanted finite ones, by a smaller lr or another kernel"
            )
        loss = (wanted - _fit(gram, values, ridge, where).predict(cross)).square().mean()
        if not torch.isfinite(loss):
            name, than = ("lr", f" with lr={lr:g}; wanted a smaller one") if step else ("targets", "; wanted smaller ones")
            raise ArithmeticError(f"{name}: got a loss of {float(loss.detach())} {where}{than}")
        return loss

    with torch.inference_mode(False), torch.enable_grad():
        for step in after_a_moment(range(steps + 1), "distilling", unit="step", shown=progress):
            loss = loss_at(step)
            losses.append(float(loss.detach()))
            if step < steps:
                for p, g in zip(moved, torch.autograd.grad(loss, moved), strict=True):
                    if not g.isfinite().all():
                        raise ArithmeticError(
                            f"kernel: got a derivative that is not finite at step {step} of {steps}, where the loss is {losses[-1]:.3g}; "
                            "wanted a finite one: kinks, as of ReLUs or of distances at 0, have none at a point with itself"
                        )
                    p.grad = g
                adam.step()
    losses = torch.tensor(losses, dtype=start.dtype, device=start.device)
    return Distilled(points.detach(), values.detach().view(len(start), *start_targets.shape[1:]), losses)


def _made(kernel: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """Return a kernel's values, of the shape that they should have."""
    found = kernel(a, b)
    if not isinstance(found, Tensor) or found.shape != (len(a), len(b)) or found.dtype != a.dtype:
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        made = f" in {found.dtype}" if isinstance(found, Tensor) else ""
        wanted = f"torch.Tensor ({len(a)}, {len(b)}) in {a.dtype}"
        raise ValueError(f"kernel: got {got} for {len(a)} and {len(b)} points{made}; wanted a {wanted}")
    return found


def _fit(gram: Tensor, targets: Tensor, ridge: float, where: str) -> Fit:
    """Fit the regression of a few points, with a derivative in their kernel."""
    rho = ridge * gram.diagonal().mean()
    shifted = (gram + gram.T) / 2 + rho * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    if failed:
        raise ArithmeticError(
            f"ridge: got {ridge:g}, with which the points' kernel is not positive definite {where}; wanted a larger one, or points that "
            "the kernel tells apart"
        )
    return Fit(torch.cholesky_solve(targets, factor), float(rho.detach()))
