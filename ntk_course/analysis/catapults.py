r"""One sample, two linear layers and a large rate: the smallest model in which first order is wrong (Lewkowycz et al., 2020)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..basics import validate


class Catapult(NamedTuple):
    """Outputs and kernel values before every step and after the last one, both (S + 1,), float64."""

    outputs: Tensor
    kernels: Tensor


def catapult(output: float, kernel: float, rate: float, *, width: int, steps: int) -> Catapult:
    r"""Follow gradient descent on :math:`\frac12 f^2` with :math:`f = \frac{1}{\sqrt n}\langle u, v\rangle`, in closed form.

    The whole of the 2n weights acts through two numbers, f itself and its tangent kernel
    :math:`\lambda = (\|u\|^2 + \|v\|^2)/n` (Lewkowycz et al., 2020, eq. 5-6):

    .. math:: f \leftarrow \Big(1 - \eta\lambda + \frac{\eta^2 f^2}{n}\Big) f, \qquad
              \lambda \leftarrow \lambda + \frac{\eta f^2}{n}\,(\eta\lambda - 4) .

    In the limit of infinite width f is multiplied by :math:`1 - \eta\lambda` at every step, and diverges for
    :math:`\eta\lambda > 2`. At finite width it grows until :math:`f^2 \sim n`, the kernel falls below :math:`2/\eta`, and f
    converges, for :math:`\eta\lambda` up to about 4.

    Args:
        output: f at the start, other than 0.
        kernel: lambda at the start.
        rate: eta.
        width: n.
        steps: S.

    Returns:
        A :class:`Catapult`. Where the weights diverge, the rest is infinite.

    Raises:
        TypeError, ValueError: an output of 0 or not finite, a kernel that no weights have (:math:`|f| \le \sqrt n\lambda/2`), a
        rate that is not positive.

    Example:
        >>> run = catapult(0.5, 1.0, 3.0, width=100, steps=50)  # rate times kernel is 3
        >>> bool(run.outputs.abs().max() > 1), bool(run.kernels[-1] < 2 / 3.0)
        (True, True)
    """
    validate.positive(width, "width")
    validate.whole(steps, "steps")
    kernel, rate = validate.number(kernel, "kernel"), validate.above_zero(rate, "rate")
    if not 0 < abs(output) < math.inf:
        raise ValueError(f"output: got {output}; wanted a number other than 0")
    if abs(output) > width**0.5 * kernel / 2 * (1 + 1e-12):
        raise ValueError(
            f"kernel: got {kernel:g} for an output of {output:g} at width {width}; wanted at least {2 * abs(output) / width**0.5:g}"
        )
    f, k = float(output), kernel
    found = [(f, k)]
    for _ in range(steps):
        if math.isfinite(f):
            share = rate * f * f / width if abs(f) < 1e150 else math.inf
            f, k = (1 - rate * k + rate * share) * f, k + share * (rate * k - 4)
            if not (math.isfinite(f) and math.isfinite(k)):
                f = k = math.inf
        found.append((f, k))
    outputs, kernels = torch.tensor(found, dtype=torch.float64).T
    return Catapult(outputs, kernels)
