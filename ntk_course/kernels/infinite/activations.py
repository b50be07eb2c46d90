r"""What an activation does to Gaussian inputs: all that an infinitely wide network needs to know of it.

With the covariances :math:`k_{11}, k_{12}, k_{22}` of a unit at two inputs these are two expectations,
:math:`\mathbb E\,\phi(u)\phi(v)` for the NNGP and :math:`\mathbb E\,\phi'(u)\phi'(v)` for the NTK (Jacot et al., 2018).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

# Activations without a closed form here: their expectations are sums over Hermite polynomials.
SMOOTH: dict[str, Callable] = {
    "tanh": torch.tanh,
    "softplus": nn.functional.softplus,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
    "silu": nn.functional.silu,
}
SLOPES = {"relu": 0.0, "leaky_relu": 0.01, "abs": -1.0}
ACTIVATIONS = (*SLOPES, "erf", "gelu", *SMOOTH)
_NODES, _TERMS = 1601, 256


def expectations(activation: str | float, k12: Tensor, k11: Tensor, k22: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :math:`\mathbb E\,\phi(u)\phi(v)` and :math:`\mathbb E\,\phi'(u)\phi'(v)` for a centred Gaussian pair.

    ReLU and its like are :math:`\frac{1+a}2 u + \frac{1-a}2 |u|`, of which the two halves do not mix, so Cho and Saul's
    (2009) arc-cosine formula serves every slope a. erf: Williams (1996). GELU: Tsuchida et al. (2021). The others by
    Mehler's formula, :math:`\sum_n c^n\,\alpha_n(k_{11})\,\alpha_n(k_{22})`, with the Hermite coefficients
    :math:`\alpha_n(k) = \mathbb E\,\phi(\sqrt k z)\,h_n(z)` and the correlation c.

    Args:
        activation: one of :data:`ACTIVATIONS`, or the slope a of a leaky ReLU.
        k12: covariance.
        k11: variance of u, of a shape that broadcasts with k12.
        k22: variance of v, of a shape that broadcasts with k12.

    Returns:
        Two tensors of the shape of k12.

    Raises:
        ValueError: an unknown activation; ArithmeticError: variances too large for the sum over Hermite polynomials.

    Example:
        >>> expectations("relu", torch.tensor(1.0), torch.tensor(1.0), torch.tensor(1.0))
        (tensor(0.5000), tensor(0.5000))
    """
    if isinstance(activation, float) or activation in SLOPES:
        a = activation if isinstance(activation, float) else SLOPES[activation]
        scale = (k11 * k22).sqrt()
        sine = ((scale - k12).clamp(min=0) * (scale + k12).clamp(min=0)).sqrt()
        angle = torch.atan2(k12, sine)  # asin of the correlation, and 0 for an input of norm 0
        even, odd = ((1 - a) / 2) ** 2 * 2 / math.pi, ((1 + a) / 2) ** 2
        return odd * k12 + even * (sine + k12 * angle), odd + even * angle
    if activation == "erf":
        product = (1 + 2 * k11) * (1 + 2 * k22)
        return 2 / math.pi * torch.asin(2 * k12 / product.sqrt()), 4 / math.pi / (product - 4 * k12**2).sqrt()
    if activation == "gelu":
        product, ones = k11 * k22, (1 + k11) * (1 + k22)
        square = ones - k12**2
        angle = torch.atan2(k12, square.sqrt()) / (2 * math.pi)
        first = (k12**2 + product * square) / (2 * math.pi * ones * square.sqrt()) + k12 * angle + k12 / 4
        second = k12 / (2 * math.pi * square.sqrt()) * (1 / square + (1 - product) / ones + 1)
        return first, second + angle + 0.25
    if activation not in SMOOTH:
        raise ValueError(f"activation: got {activation!r}; wanted one of {ACTIVATIONS}")
    scale = (k11 * k22).sqrt()
    c = torch.where(scale > 0, k12 / scale.clamp(min=torch.finfo(scale.dtype).tiny), 0.0).clamp(-1, 1)
    function = SMOOTH[activation]
    found = []
    for f in (function, lambda t: vmap(grad(function))(t.flatten()).view(t.shape)):
        left, right, total = _hermite(f, k11), _hermite(f, k22), torch.zeros_like(c)
        for n in reversed(range(_TERMS)):  # Horner's rule
            total = total * c + left[n] * right[n]
        found.append(total)
    return found[0], found[1]


def _hermite(f: Callable, k: Tensor) -> Tensor:
    """Compute the coefficients of f(sqrt(k) z) in normalised Hermite polynomials, (terms, *k.shape)."""
    z = torch.linspace(-12, 12, _NODES, dtype=k.dtype, device=k.device)  # the trapezoidal rule is the best one for a Gaussian
    w = (-z.square() / 2).exp()
    w = w / w.sum()
    values = f(k.clamp(min=0).sqrt()[..., None] * z) * w
    h, before, out = torch.ones_like(z), torch.zeros_like(z), []
    for n in range(_TERMS):
        out.append(values @ h)
        h, before = (z * h - math.sqrt(n) * before) / math.sqrt(n + 1), h
    coefficients = torch.stack(out)
    norm = (values**2 / w.clamp(min=torch.finfo(w.dtype).tiny)).sum(-1)
    rest = (1 - (coefficients**2).sum(0) / norm.clamp(min=torch.finfo(w.dtype).tiny)).abs()
    if norm.max() > 0 and rest[norm > 0].max() > 1e-6:
        raise ArithmeticError(
            f"activation: its variance of up to {float(k.max()):.3g} leaves {float(rest[norm > 0].max()):.1e} of the function "
            f"beyond {_TERMS} Hermite polynomials; wanted a smaller w_std, or smaller inputs"
        )
    return coefficients
