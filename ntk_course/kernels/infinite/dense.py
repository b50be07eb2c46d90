r"""Kernels of infinitely wide networks: the NNGP and the NTK of fully connected networks, in closed form.

In a wide network a layer's inputs are Gaussian. With the covariances :math:`k_{11}, k_{12}, k_{22}` of a unit at two inputs,
a layer needs two expectations, :math:`\mathbb E\,\phi(u)\phi(v)` for the NNGP and :math:`\mathbb E\,\phi'(u)\phi'(v)` for
the NTK (Jacot et al., 2018). Everything else is the recursion over layers.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from ...basics import validate
from ...models.networks import activation_module

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
PARAMETERIZATIONS = ("ntk", "standard")
_NODES, _TERMS = 1601, 256
# Samples a side of a tile: what the recursion holds at a time does not grow with the matrix.
_TILE = 2048


class Kernels(NamedTuple):
    """The kernel of the outputs at initialisation and the tangent kernel, both (N1, N2)."""

    nngp: Tensor
    ntk: Tensor


def expectations(activation: str, k12: Tensor, k11: Tensor, k22: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :math:`\mathbb E\,\phi(u)\phi(v)` and :math:`\mathbb E\,\phi'(u)\phi'(v)` for a centred Gaussian pair.

    ReLU and its like are :math:`\frac{1+a}2 u + \frac{1-a}2 |u|`, of which the two halves do not mix, so Cho and Saul's
    (2009) arc-cosine formula serves every slope a. erf: Williams (1996). GELU: Tsuchida et al. (2021). The others by
    Mehler's formula, :math:`\sum_n c^n\,\alpha_n(k_{11})\,\alpha_n(k_{22})`, with the Hermite coefficients
    :math:`\alpha_n(k) = \mathbb E\,\phi(\sqrt k z)\,h_n(z)` and the correlation c.

    Args:
        activation: one of :data:`ACTIVATIONS`.
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
    if activation in SLOPES:
        a = SLOPES[activation]
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
    if parameterization not in PARAMETERIZATIONS:
        raise ValueError(f"parameterization: got {parameterization!r}; wanted one of {PARAMETERIZATIONS}")
    if (width is None) != (parameterization == "ntk"):
        raise ValueError(f"width: got {width} with {parameterization!r}; wanted a width with 'standard' and none with 'ntk'")
    x1, x2 = validate.tensor(x1), validate.tensor(x2)
    a = validate.double(x1, "x1").flatten(1)
    b = a if x2 is None else validate.double(x2, "x2").flatten(1)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"x2: got samples of {b.shape[1]} numbers; wanted {a.shape[1]}, as in x1")
    layers = _Layers(depth, activation, w_std, b_std, parameterization == "ntk", width)
    nngp = x1.new_empty(len(a), len(b))
    ntk = torch.empty_like(nngp)
    for i in range(0, len(a), _TILE):
        rows = slice(i, i + _TILE)
        for j in range(i if x2 is None else 0, len(b), _TILE):
            cols = slice(j, j + _TILE)
            nngp[rows, cols], ntk[rows, cols] = layers(a[rows], b[cols], x2 is None and i == j)
            if x2 is None:  # symmetric to the last bit
                nngp[cols, rows], ntk[cols, rows] = nngp[rows, cols].T.clone(), ntk[rows, cols].T.clone()
    return Kernels(nngp, ntk)


class _Layers(NamedTuple):
    """The recursion over layers, for a tile of the matrix."""

    depth: int
    activation: str
    w_std: float
    b_std: float
    scaled: bool
    width: int | None

    def __call__(self, a: Tensor, b: Tensor, same: bool) -> tuple[Tensor, Tensor]:
        """Return the two kernels of samples a (n, d) and b (m, d), in float64."""
        inputs, k11, k22 = a @ b.T / a.shape[1], a.square().mean(1), b.square().mean(1)
        if same:
            inputs = (inputs + inputs.T) / 2
        sigma, k11, k22 = map(self._affine, (inputs, k11, k22))
        theta = self._gradients(inputs, sigma, a.shape[1])
        for _ in range(self.depth):
            if same:
                sigma.diagonal().copy_(k11)  # a sample's correlation with itself is 1 without rounding
            value, slope = expectations(self.activation, sigma, k11[:, None], k22[None])
            sigma = self._affine(value)
            theta = self._gradients(value, sigma, self.width) + self.w_std**2 * slope * theta
            k11, k22 = (self._affine(expectations(self.activation, k, k, k)[0]) for k in (k11, k22))
        # vector and scalar code may round an entry and its mirror image apart
        return (_mirrored(sigma), _mirrored(theta)) if same else (sigma, theta)

    def _affine(self, k: Tensor) -> Tensor:
        return self.w_std**2 * k + self.b_std**2

    def _gradients(self, inputs: Tensor, sigma: Tensor, fan_in: int | None) -> Tensor:
        """Return the share of a layer's own weights and bias."""
        return sigma if self.scaled or fan_in is None else fan_in * inputs + (self.b_std > 0)


def _mirrored(k: Tensor) -> Tensor:
    return k.triu() + k.triu(1).T


class _Constant(nn.Module):
    """Scale the inputs of a layer and append a constant one, so that the next layer's bias is one of its weights."""

    def __init__(self, scale: float, constant: float):
        super().__init__()
        self.scale, self.constant = scale, constant

    def forward(self, x: Tensor) -> Tensor:
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
        layers += [*([activation_module(activation)] if i else []), _Constant(w_std / math.sqrt(n), b_std), layer]
    return nn.Sequential(*layers)
