r"""The diagonal linear network: linear in its input, quadratic in its weights (Woodworth et al., 2020)."""

import torch
from torch import Tensor, nn

from ..basics import validate


class DiagonalNetwork(nn.Module):
    r"""A linear function whose coefficients are differences of squares, :math:`f(x) = \langle u\circ u - v\circ v,\; x\rangle`.

    The smallest network that has a lazy and a rich regime (Woodworth et al., 2020, sec. 4): its weights start at
    :math:`u = v = \alpha`, so that f = 0, and its tangent kernel :math:`4\,x^\top\mathrm{diag}(u^2 + v^2)\,x'` begins as
    :math:`8\alpha^2\,x^\top x'`.

    Args:
        dimension: d, numbers of an input.
        alpha: the weights at the start, positive.
        dtype: of the weights.

    Raises:
        TypeError, ValueError: a dimension below 1, a start that is not positive and finite.

    Example:
        >>> DiagonalNetwork(5, 0.1)(torch.ones(3, 5, dtype=torch.float64)).shape
        torch.Size([3, 1])
    """

    def __init__(self, dimension: int, alpha: float, dtype: torch.dtype = torch.float64):
        super().__init__()
        validate.positive(dimension, "dimension")
        self.u = nn.Parameter(torch.full((dimension,), validate.above_zero(alpha, "alpha"), dtype=dtype))
        self.v = nn.Parameter(self.u.detach().clone())

    def coefficients(self) -> Tensor:
        r"""Return :math:`\beta = u\circ u - v\circ v`, (d,)."""
        return self.u.square() - self.v.square()

    def forward(self, x: Tensor) -> Tensor:
        """Answer for a batch (N, d) with outputs (N, 1)."""
        return (x @ self.coefficients())[:, None]
