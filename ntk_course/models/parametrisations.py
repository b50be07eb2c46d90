r"""Wide networks under the parametrisations whose limits differ: how multipliers, weights and rates go with the width.

Yang & Hu (2021) write a layer as :math:`W_l = r^{-a_l}\,w_l` with :math:`w_l \sim \mathcal N(0, r^{-2 b_l})` and the rate
:math:`\eta\,r^{-c}`. Here r is the width over a base width, so that all parametrisations are the same network at the base.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..basics import validate
from .networks import activation_module

# The names, as they are written.
NAMES = {"ntk": "NTK", "standard": "standard", "mup": "muP", "mean_field": "mean field"}


class Exponents(NamedTuple):
    """Powers of one over the width: of the multipliers (a) and the deviations (b) by layer, and of the rate (c)."""

    a: tuple[float, ...]
    b: tuple[float, ...]
    c: float


def exponents(how: str, layers: int) -> Exponents:
    r"""Return the exponents of a parametrisation for a network of some layers of weights (Yang & Hu, 2021, table 1).

    ========== ======================= ======================= =====
    name       a: first, middle, last  b: first, middle, last  c
    ========== ======================= ======================= =====
    ntk        0, 1/2, 1/2             0, 0, 0                 0
    standard   0, 0, 0                 0, 1/2, 1/2             0
    mup        -1/2, 0, 1/2            1/2, 1/2, 1/2           0
    mean_field 0, -, 1                 0, -, 0                 -1
    ========== ======================= ======================= =====

    Args:
        how: "ntk" (Jacot et al., 2018), "standard" (what ``nn.Linear`` does, with one rate for every width), "mup" (maximal
            update, for SGD) or "mean_field" (of two layers).
        layers: L, at least 2.

    Returns:
        :class:`Exponents` with L numbers in a and b.

    Raises:
        ValueError: an unknown name, too few layers, a mean field of more than two.

    Example:
        >>> exponents("mup", 3)
        Exponents(a=(-0.5, 0.0, 0.5), b=(0.5, 0.5, 0.5), c=0.0)
    """
    if validate.positive(layers, "layers") < 2:
        raise ValueError(f"layers: got {layers}; wanted at least 2")
    middle = layers - 2
    if how == "ntk":
        return Exponents((0.0, *(0.5,) * middle, 0.5), (0.0,) * layers, 0.0)
    if how == "standard":
        return Exponents((0.0,) * layers, (0.0, *(0.5,) * middle, 0.5), 0.0)
    if how == "mup":
        return Exponents((-0.5, *(0.0,) * middle, 0.5), (0.5,) * layers, 0.0)
    if how != "mean_field":
        raise ValueError(f"how: got {how!r}; wanted 'ntk', 'standard', 'mup' or 'mean_field'")
    if middle:
        raise ValueError(f"layers: got {layers} for 'mean_field'; wanted 2, or 'mup', which is the same there and goes on")
    return Exponents((0.0, 1.0), (0.0, 0.0), -1.0)


class Multiplied(nn.Module):
    """A linear layer without bias whose weights count ``multiplier`` times."""

    def __init__(self, fan_in: int, fan_out: int, deviation: float, multiplier: float):
        super().__init__()
        self.weight, self.multiplier = nn.Parameter(torch.randn(fan_out, fan_in) * deviation), multiplier

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch (N, in) to (N, out)."""
        return self.multiplier * F.linear(x, self.weight)

    def extra_repr(self) -> str:
        """Name the sizes and the multiplier."""
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, multiplier={self.multiplier:g}"


class Parametrised(nn.Sequential):
    """A fully connected network under a parametrisation; made by :func:`parametrised`.

    Attributes:
        rate_factor: what the learning rate of the base width is to be multiplied by.
    """

    rate_factor: float


def parametrised(
    sizes: Sequence[int], how: str | Exponents = "ntk", *, base: int = 64, activation: str = "relu", w_std: float = 2**0.5
) -> Parametrised:
    r"""Build a fully connected network without biases whose width may go to infinity in one of several ways.

    With :math:`r = n/n_0`, the width over the base width, layer l computes :math:`r^{-a_l}\,w_l\,x` with weights
    :math:`w_l \sim \mathcal N(0,\, r^{-2b_l}\,\sigma_w^2/m_l)`, where :math:`m_l` is the layer's fan-in *at the base*; the
    rate to train with is :math:`\eta\,r^{-c}` (Yang & Hu, 2021). At :math:`r = 1` every parametrisation is the same network.
    Shifting :math:`a_l + \theta`, :math:`b_l - \theta` in all layers and :math:`c - 2\theta` changes nothing that SGD computes.

    Args:
        sizes: layer widths, e.g. ``(64, n, n, 10)``; the hidden ones equal.
        how: a name that :func:`exponents` knows, or :class:`Exponents` of one's own.
        base: n_0.
        activation: as in :func:`ntk_course.mlp`.
        w_std: sigma_w, of the base network.

    Returns:
        A module from (N, ...) to outputs (N, sizes[-1]), float32, on the CPU, drawn from torch's global generator, with the
        attribute ``rate_factor``: train with ``lr=rate * net.rate_factor``.

    Raises:
        ValueError: sizes without a hidden layer or with unequal ones, an unknown name, exponents of another length.

    Example:
        >>> net = parametrised((64, 256, 10), "mean_field", base=64)
        >>> net(x).shape, net.rate_factor
        (torch.Size([32, 10]), 4.0)
    """
    if len(sizes) < 3 or len(set(sizes[1:-1])) != 1:
        raise ValueError(f"sizes: got {tuple(sizes)}; wanted an input, hidden layers of one width, and an output")
    for size in sizes:
        validate.positive(size, "sizes")
    validate.positive(base, "base")
    layers = len(sizes) - 1
    a, b, c = how if isinstance(how, Exponents) else exponents(how, layers)
    if len(a) != layers or len(b) != layers:
        raise ValueError(f"how: got exponents of {len(a)} and {len(b)} layers; wanted {layers}")
    r = sizes[1] / base
    net = Parametrised(nn.Flatten())
    for l, (fan_in, fan_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):  # noqa: E741
        at_base = fan_in if l == 0 else base
        net.append(Multiplied(fan_in, fan_out, r ** -b[l] * w_std / at_base**0.5, r ** -a[l]))
        if l < layers - 1:
            net.append(activation_module(activation))
    net.rate_factor = r**-c
    return net
