r"""Few points out of many: those whose kernel regression alone answers as one on all, chosen one after another."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..basics import validate
from .regression import as_columns


class Selected(NamedTuple):
    """Indices (count,) in the order of choice, and the loss on all points with none of them, the first, the first two, ..., (count + 1,)."""

    indices: Tensor
    losses: Tensor


def forward_selection(gram: Tensor, targets: Tensor, count: int, ridge: float = 1e-3) -> Selected:
    r"""Choose training points one after another, each the one with which the kernel regression on them has the least loss.

    The loss is the mean over all N points and outputs of the squared error of the regression that sees S only, as in :func:`distil`,
    whose ridge goes by the mean diagonal on S.
    With its errors :math:`E = Y - f_S(X)` and the covariance :math:`R = K - K_{XS}(K_{SS} + \rho I)^{-1}K_{SX}` that S leaves, one more
    point j makes the errors

    .. math:: E - \frac{R_{:j}\, E_j^\top}{R_{jj} + \rho},

    so that all candidates are tried at once by one product, :math:`N^2 K` a choice, and none is fitted. It is greedy: it need not find
    the best S, and since the regression sees the targets of S only, one point more may make it worse.

    Args:
        gram: of all points, (N, N).
        targets: (N, K) or (N,).
        count: points to choose, 1 to N.
        ridge: a share of the kernel's mean diagonal over all points, at least 0.

    Returns:
        A :class:`Selected`, on the kernel's device; losses in its dtype, computed in float64.

    Raises:
        TypeError, ValueError: a Gram matrix that is not square, symmetric and finite, is zero, or has a number below 0 on its diagonal;
        targets of another length, a count out of range, a negative ridge.
        ArithmeticError: no point is left that the kernel tells from the chosen ones, without a ridge; or an indefinite one's is negative.

    Example:
        >>> forward_selection(torch.eye(3), torch.tensor([1.0, 3.0, 2.0]), count=2, ridge=0.0).indices
        tensor([1, 2])
    """
    given, ridge = validate.gram(gram).detach(), validate.number(ridge, "ridge")
    n, count = len(given), validate.positive(count, "count")
    if count > n:
        raise ValueError(f"count: got {count}; wanted at most {n}, the points that there are")
    left = given.double().clone()
    errors = as_columns(targets, left).clone()
    scale, least = float(left.diagonal().mean()), float(left.diagonal().min())
    if least < 0 or scale == 0:
        raise ValueError(f"gram: got {'zeros' if least == 0 else f'{least:.3g}'} on the diagonal; wanted squared lengths")
    rho, losses = ridge * scale, [float(errors.square().mean())]
    chosen: list[int] = []
    for _ in range(count):
        own = left.diagonal() + rho
        known = own <= n * torch.finfo(given.dtype).eps * scale  # only what rounding left of it
        known[chosen] = True
        if known.all():
            more = "a larger ridge" if ridge else "a ridge"
            raise ArithmeticError(
                f"count: got {count}; wanted at most {len(chosen)}, or {more}: of the other points nothing is left"
            )
        size = errors.square().sum(1)
        after = -2 * (left @ errors * errors).sum(1) / own + left.square().sum(0) * size / own.square()
        best = int(after.masked_fill(known, torch.inf).argmin())
        column = left[:, best] / own[best]
        errors -= column[:, None] * errors[best].clone()
        left -= column[:, None] * left[best].clone()
        chosen.append(best)
        losses.append(float(errors.square().mean()))
    return Selected(torch.tensor(chosen, device=given.device), torch.tensor(losses, dtype=given.dtype, device=given.device))
