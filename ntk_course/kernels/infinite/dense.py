r"""The NNGP and NTK of fully connected networks of infinite width, and a finite network that tends to them."""

import math

from torch import Tensor, nn

from ...basics import validate
from ...models.networks import activation_module
from .activations import ACTIVATIONS
from .composed import PARAMETERIZATIONS, Kernels, limit


def mlp(
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    depth: int,
    activation: str = "relu",
    w_std: float = 1.0,
    b_std: float = 0.0,
    parameterization: str = "ntk",
    width: int | None = None,
) -> Kernels:
    r"""Compute the NNGP and NTK of a fully connected network of infinite width (Jacot et al., 2018; Lee et al., 2018).

    :math:`\Sigma_1 = \sigma_w^2\, x \cdot x'/d + \sigma_b^2`, and with :math:`\Theta_1 = \Sigma_1` for each hidden layer

    .. math:: \Sigma_{l+1} = \sigma_w^2\, \mathbb E\,\phi(u)\phi(v) + \sigma_b^2,\quad
              \Theta_{l+1} = \Sigma_{l+1} + \sigma_w^2\, \mathbb E\,\phi'(u)\phi'(v)\; \Theta_l .

    In the standard parameterization, whose weights have variance :math:`\sigma_w^2/n` themselves, the first term of
    :math:`\Theta_{l+1}` is :math:`n\,\mathbb E\,\phi(u)\phi(v)`, plus 1 for the bias: it grows with the width n
    (Sohl-Dickstein et al., 2020).

    Args:
        x1: (N1, ...), flattened; a tensor, or a NumPy array.
        x2: (N2, ...), or None for x1 again.
        depth: hidden layers.
        activation: one of :data:`ACTIVATIONS`.
        w_std: sigma_w, of every layer.
        b_std: sigma_b; 0 for no biases.
        parameterization: "ntk" or "standard".
        width: n, of the hidden layers, for "standard" only.

    Returns:
        :class:`Kernels` of one output unit, in x1's dtype, on its device; computed in float64, tile by tile.

    Raises:
        TypeError, ValueError: bad inputs, depth below 1, an unknown activation or parameterization, a width where none is
        needed or none where one is.

    Example:
        >>> nngp, ntk = mlp(x, depth=3, w_std=2**0.5)
        >>> ntk.shape
        torch.Size([32, 32])
    """
    validate.positive(depth, "depth")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: got {activation!r}; wanted one of {ACTIVATIONS}")
    if parameterization not in PARAMETERIZATIONS:
        raise ValueError(f"parameterization: got {parameterization!r}; wanted one of {PARAMETERIZATIONS}")
    if (width is None) != (parameterization == "ntk"):
        raise ValueError(f"width: got {width} with {parameterization!r}; wanted a width with 'standard' and none with 'ntk'")
    x1, x2 = validate.tensor(x1), validate.tensor(x2)
    a = validate.double(x1, "x1").flatten(1).to(x1.dtype)
    b = a if x2 is None else validate.double(x2, "x2").flatten(1)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"x2: got samples of {b.shape[1]} numbers; wanted {a.shape[1]}, as in x1")
    n = 2 if width is None else validate.positive(width, "width")
    layers: list[nn.Module] = []
    for fan_in in (a.shape[1], *[n] * (depth - 1)):
        layers += [nn.Linear(fan_in, n, bias=b_std > 0, device="meta"), activation_module(activation)]
    net = nn.Sequential(*layers, nn.Linear(n, 1, bias=b_std > 0, device="meta"))
    return limit(net, a, None if x2 is None else b, w_std=w_std, b_std=b_std, parameterization=parameterization)


class Constant(nn.Module):
    """Scale the inputs of a layer and append a constant one, so that the next layer's bias is one of its weights."""

    def __init__(self, scale: float, constant: float):
        super().__init__()
        self.scale, self.constant = scale, constant

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n) to (N, n), or (N, n + 1) with a constant."""
        return nn.functional.pad(self.scale * x, (0, 1), value=self.constant) if self.constant else self.scale * x


def network(sizes: tuple[int, ...], activation: str = "relu", w_std: float = 1.0, b_std: float = 0.0) -> nn.Sequential:
    r"""Build a finite network in the NTK parameterization, whose kernels :func:`mlp` gives at infinite width.

    Each layer is :math:`\frac{\sigma_w}{\sqrt n} W h + \sigma_b b` with standard normal W and b, which are kept as one
    weight matrix that acts on (h, 1).

    Args:
        sizes: input, hidden and output widths.
        activation: one of :data:`ACTIVATIONS`.
        w_std: sigma_w.
        b_std: sigma_b; 0 for no biases.

    Returns:
        A module from (N, ...) to (N, K), drawn from the global random state.

    Raises:
        ValueError: an unknown activation.

    Example:
        >>> entk(network((64, 512, 1)), x)[..., 0, 0].shape
        torch.Size([32, 32])
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: got {activation!r}; wanted one of {ACTIVATIONS}")
    layers: list[nn.Module] = [nn.Flatten()]
    for i, (n, m) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        layer = nn.Linear(n + (b_std > 0), m, bias=False)
        nn.init.normal_(layer.weight)
        layers += [*([activation_module(activation)] if i else []), Constant(w_std / math.sqrt(n), b_std), layer]
    return nn.Sequential(*layers)
