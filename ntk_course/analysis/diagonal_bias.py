r"""Where gradient flow takes a diagonal linear network: the convex problem whose solution it finds (Woodworth et al., 2020).

Flow multiplies :math:`u, v` by exponentials of the residuals it has seen, so that the coefficients are always
:math:`\beta = 2\alpha^2\sinh(X^\top\nu)` for some :math:`\nu`. Among all that fit the data these minimise

.. math:: Q_\alpha(\beta) = \sum_i \beta_i\,\mathrm{asinh}\frac{\beta_i}{2\alpha^2} - \sqrt{\beta_i^2 + 4\alpha^4} + 2\alpha^2 ,

a sum of squares for large alpha (kernel regression, the lazy end) and of absolute values for small alpha (the rich end).
"""

import math

import torch
from torch import Tensor

from ..basics import validate

# Newton's steps at one alpha; and by how much alpha falls at a time, from a large one, where the answer is least squares.
_STEPS, _FACTOR = 200, 4.0


def bias_penalty(beta: Tensor, alpha: float) -> Tensor:
    r"""Return :math:`Q_\alpha(\beta)`, what gradient flow of a diagonal network minimises (Woodworth et al., 2020, theorem 1).

    Args:
        beta: coefficients, (..., d).
        alpha: the weights at the start.

    Returns:
        (...,), at least 0. For small alpha about :math:`\|\beta\|_1 \ln(1/\alpha^2)`, for large alpha
        :math:`\|\beta\|_2^2/4\alpha^2`.

    Raises:
        ValueError: a start that is not positive.

    Example:
        >>> float(bias_penalty(torch.zeros(3), 0.5))
        0.0
    """
    q = 2 * validate.above_zero(alpha, "alpha") ** 2
    # The second and third term as one fraction: their difference is lost to rounding where beta is far below q.
    return (beta * (beta / q).asinh() - beta.square() / ((beta.square() + q * q).sqrt() + q)).sum(-1)


def implicit_bias(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    r"""Find the coefficients at which gradient flow on the squared loss ends, for a diagonal network that starts at alpha.

    .. math:: \min_\beta Q_\alpha(\beta)\ \text{ with }\ X\beta = y, \qquad
              \beta = 2\alpha^2 \sinh(X^\top\nu),\quad X\beta = y ,

    (Woodworth et al., 2020, theorem 1), by damped Newton steps on the dual :math:`\nu`.

    Args:
        x: (N, d), float64, of full row rank; wants N < d, or there is one solution whatever alpha.
        y: (N,).
        alpha: the weights at the start, u = v = alpha.

    Returns:
        beta, (d,).

    Raises:
        TypeError, ValueError: bad shapes, a start that is not positive, or so small that the answer is the one of least
        absolute sum to all digits; torch.linalg.LinAlgError: rows that depend on one another.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
        >>> y = torch.tensor([1.0], dtype=torch.float64)
        >>> implicit_bias(x, y, 10.0), implicit_bias(x, y, 1e-4)  # least squares, and the one large input alone
        (tensor([0.2000, 0.4000], dtype=torch.float64), tensor([7.0708e-05, 4.9996e-01], dtype=torch.float64))
    """
    x, y = validate.double(x), torch.as_tensor(y, dtype=torch.float64, device=x.device)
    if x.dim() != 2 or y.shape != (len(x),):
        raise ValueError(f"x, y: got shapes {tuple(x.shape)} and {tuple(y.shape)}; wanted (N, d) and (N,)")
    wanted = validate.above_zero(alpha, "alpha")
    least = torch.linalg.lstsq(x, y).solution
    if not torch.allclose(x @ least, y, rtol=0, atol=1e-9 * float(y.abs().max() + 1)):
        raise ValueError("y: got targets that no coefficients reach; wanted rows of x that do not depend on one another")
    if not float(least.abs().max()):
        return torch.zeros_like(least)
    now = max(wanted, 2 * float(least.abs().max()) ** 0.5)
    nu = torch.linalg.lstsq(x.T, least / (2 * now**2)).solution
    while True:
        nu = _dual(x, y, now, nu)
        if now == wanted:
            return 2 * now**2 * (nu @ x).sinh()
        below = max(wanted, now / _FACTOR)
        # beta changes little: keep the large coefficients, whose exponents grow by the logarithm of the ratio
        nu = nu * (1 + 2 * math.log(now / below) / max(1.0, float((nu @ x).abs().max())))
        now = below


def _dual(x: Tensor, y: Tensor, alpha: float, nu: Tensor) -> Tensor:
    """Minimise the convex :math:`2 alpha^2 sum cosh(X^T nu) - y^T nu`, from a nearby nu."""
    q = 2 * alpha**2

    def value(at: Tensor) -> Tensor:
        return q * (at @ x).cosh().sum() - y @ at

    for _ in range(_STEPS):
        exponents = nu @ x
        slope = x @ (q * exponents.sinh()) - y
        if float(slope.abs().max()) <= 1e-13 * float(y.abs().max()):
            return nu
        step = torch.linalg.solve((x * (q * exponents.cosh())) @ x.T, slope)
        before, size, gain = value(nu), 1.0, float(slope @ step)
        while not value(nu - size * step) <= before - 1e-4 * size * gain + 1e-14 * before.abs():
            size /= 2
            if size < 1e-12:
                return nu
        nu = nu - size * step
    raise ValueError(f"alpha: got {alpha:.3g}, at which Newton's method does not settle; wanted a larger one")
