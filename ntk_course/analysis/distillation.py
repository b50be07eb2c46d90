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
            :func:`ntk_course.infinite.expectations` is, :func:`ntk_course.infinite.mlp` keeps none.
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
        ValueError: shapes that do not fit, a negative ridge, a kernel without a derivative; ArithmeticError: a loss that is not
            finite, with the step.

    Example:
        >>> few = distil(lambda a, b: a.flatten(1) @ b.flatten(1).T, x, 1.0 * (y > 4), x[:4], 1.0 * (y[:4] > 4), steps=20, progress=False)
        >>> few.x.shape, bool(few.losses[-1] < few.losses[0])
        (torch.Size([4, 1, 8, 8]), True)
    """
    ridge, steps = validate.number(ridge, "ridge"), validate.positive(steps, "steps")
    if start.shape[1:] != x.shape[1:] or not len(start):
        raise ValueError(
            f"start: got shape {tuple(start.shape)}; wanted (S, {', '.join(map(str, x.shape[1:]))}), as the points of x"
        )
    wanted, given = as_columns(targets, start.new_empty(len(x), 0)), as_columns(start_targets, start, "start_targets")
    if wanted.shape[1] != given.shape[1]:
        raise ValueError(f"start_targets: got {given.shape[1]} outputs; wanted {wanted.shape[1]}, as the targets have")
    points, values = start.detach().clone().requires_grad_(), given.detach().clone().requires_grad_(learn_targets)
    adam = torch.optim.Adam([points, values] if learn_targets else [points], lr=validate.above_zero(lr, "lr"))
    if not kernel(points, points).requires_grad:
        raise ValueError("kernel: got values without a derivative in the points; wanted operations of torch that keep it")
    losses = []
    for step in after_a_moment(range(steps + 1), "distilling", unit="step", shown=progress):
        loss = (wanted - regression_on(kernel, points, values, ridge).predict(kernel(x, points))).square().mean()
        if not torch.isfinite(loss):
            raise ArithmeticError(
                f"distil: got a loss of {float(loss)} at step {step} of {steps}; wanted a finite one, by a smaller lr"
            )
        losses.append(float(loss.detach()))
        if step < steps:
            adam.zero_grad()
            loss.backward()
            adam.step()
    return Distilled(
        points.detach(), values.detach().view(len(start), *start_targets.shape[1:]), torch.tensor(losses, dtype=start.dtype)
    )


def regression_on(kernel: Callable[[Tensor, Tensor], Tensor], x: Tensor, targets: Tensor, ridge: float) -> Fit:
    """Fit the regression of a few points, with a derivative in them; the ridge is a share of the kernel's mean diagonal."""
    gram = kernel(x, x)
    rho = ridge * gram.diagonal().mean()
    factor = torch.linalg.cholesky((gram + gram.T) / 2 + rho * torch.eye(len(x), dtype=gram.dtype, device=gram.device))
    return Fit(torch.cholesky_solve(targets, factor), float(rho.detach()))
