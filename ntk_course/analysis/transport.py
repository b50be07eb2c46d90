r"""Functions as microscopic moves of random weights, for shallow ReLU networks (Ji, Telgarsky & Xian, 2020).

A network :math:`f(x; W) = \frac{\epsilon}{\sqrt m}\sum_j s_j\,\sigma(\langle w_j, \tilde x\rangle)` with :math:`\tilde x = (x, 1)`,
signs :math:`s_j = \pm 1` and :math:`w_j \sim \mathcal N(0, I)`. Move every :math:`w_j` by
:math:`\tau_j = \frac{s_j}{\epsilon\sqrt m} T(w_j)`: to first order f changes by a Monte Carlo sum of
:math:`\mathbb E\,\langle T(w), \tilde x\rangle\,\sigma'(\langle w, \tilde x\rangle)`. The moves vanish with m, the function stays.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..basics import validate

Transport = Callable[[Tensor], Tensor]


class Shallow(NamedTuple):
    """A sampled network: weights (m, d + 1) with the bias last, signs (m,), and the factor epsilon."""

    weights: Tensor
    signs: Tensor
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs (N,) at points (N, d)."""
        return self.epsilon / math.sqrt(len(self.signs)) * (_with_one(x) @ self.weights.T).relu() @ self.signs

    def moved(self, moves: Tensor) -> "Shallow":
        """Return the network with other weights, w + tau."""
        return self._replace(weights=self.weights + moves)

    def moves(self, transport: Transport) -> Tensor:
        r"""Return :math:`\tau_j = \frac{s_j}{\epsilon\sqrt m} T(w_j)`, (m, d + 1)."""
        return self.signs[:, None] * transport(self.weights) / (self.epsilon * math.sqrt(len(self.signs)))

    def linearised(self, x: Tensor, moves: Tensor) -> Tensor:
        r"""Return the first-order change :math:`\frac{\epsilon}{\sqrt m}\sum_j s_j\langle\tau_j, \tilde x\rangle\sigma'`, (N,)."""
        active = (_with_one(x) @ self.weights.T > 0).to(x.dtype)
        return self.epsilon / math.sqrt(len(self.signs)) * (active * (_with_one(x) @ moves.T)) @ self.signs

    def flips(self, x: Tensor, moves: Tensor) -> float:
        """Return the share of pairs (point, unit) whose unit turns on or off when the weights move."""
        before, after = (_with_one(x) @ w.T > 0 for w in (self.weights, self.weights + moves))
        return (before != after).double().mean().item()


def shallow(width: int, dimension: int, epsilon: float = 1.0, seed: int = 0, dtype: torch.dtype = torch.float64) -> Shallow:
    """Sample a network of ``width`` units on ``dimension`` inputs, in pairs of equal weights and opposite signs, so that it is 0.

    Raises:
        ValueError: an odd width, or a dimension below one.

    Example:
        >>> bool(shallow(1024, 2)(torch.zeros(3, 2, dtype=torch.float64)).abs().max() < 1e-12)  # the two halves cancel
        True
    """
    validate.positive(dimension, "dimension")
    if validate.positive(width, "width") % 2:
        raise ValueError(f"width: got {width}; wanted an even number, for pairs of units that cancel")
    g = torch.Generator().manual_seed(seed)
    half = torch.randn(width // 2, dimension + 1, generator=g, dtype=dtype)
    signs = torch.ones(width, dtype=dtype)
    signs[width // 2 :] = -1
    return Shallow(torch.cat([half, half]), signs, epsilon)


def rkhs_transport(points: Tensor, alpha: Tensor) -> Transport:
    r"""Make the transport map of a function in the kernel's own space.

    .. math:: T(w) = \frac1n\sum_i \alpha_i\,\tilde x_i\,\sigma'(\langle w, \tilde x_i\rangle) .

    Its function is :math:`\frac1n\sum_i \alpha_i\,k(x_i, x)`, with the tangent kernel of the hidden weights k, see
    :func:`hidden_kernel`.

    Args:
        points: (n, d).
        alpha: (n,).

    Returns:
        The map from weights (m, d + 1) to moves (m, d + 1).

    Raises:
        ValueError: another number of coefficients than points.

    Example:
        >>> net, points, alpha = shallow(64, 2), torch.randn(5, 2).double(), torch.randn(5).double()
        >>> net.linearised(torch.randn(3, 2).double(), net.moves(rkhs_transport(points, alpha))).shape
        torch.Size([3])
    """
    if alpha.shape != (len(points),):
        raise ValueError(f"alpha: got shape {tuple(alpha.shape)}; wanted ({len(points)},)")
    lifted = _with_one(points)
    return lambda w: ((w @ lifted.T > 0).to(lifted.dtype) * alpha) @ lifted / len(lifted)


def hidden_kernel(x1: Tensor, x2: Tensor) -> Tensor:
    r"""Return :math:`\langle\tilde x, \tilde x'\rangle\,(\pi - \theta)/2\pi`, the tangent kernel of infinitely many hidden units.

    Example:
        >>> hidden_kernel(torch.zeros(1, 2), torch.zeros(1, 2))  # half of the bias alone
        tensor([[0.5000]])
    """
    a, b = _with_one(x1), _with_one(x2)
    cosine = (a @ b.T / a.norm(dim=1)[:, None] / b.norm(dim=1)).clamp(-1, 1)
    return a @ b.T * (math.pi - torch.arccos(cosine)) / (2 * math.pi)


def gaussian_bump_transport(scale: float, dimension: int) -> Transport:
    r"""Make the map of :math:`f(x) = e^{-\|x\|^2/2s^2}` on the unit ball from its Fourier transform.

    A wave is a sum of steps: on the unit ball :math:`\cos\langle v, x\rangle = \cos\|v\| + \int_{-\|v\|}^{\|v\|}
    \sin(b)\,\mathbb 1[\langle v, x\rangle + b \ge 0]\,db`. With :math:`f = \int \hat f(v)\cos\langle v, x\rangle\,dv` and the
    density :math:`\varphi` of a weight (v, b), f is the mean over random steps of

    .. math:: T(v, b) = \Big(0,\; 2 c + \frac{\hat f(v)}{\varphi(v, b)}\,\sin(b)\,\mathbb 1[|b| \le \|v\|]\Big),\qquad
              c = \int \hat f(v)\cos\|v\|\,dv ,

    a map that moves the bias only. (The factor 2 for c: half of the steps are on at any point.)

    Args:
        scale: s.
        dimension: d.

    Returns:
        The map from weights (m, d + 1) to moves (m, d + 1). Its variance is finite for s > 1 only, and grows with d.

    Raises:
        ValueError: a scale of at most 1.

    Example:
        >>> net = shallow(64, 2)
        >>> net.linearised(torch.randn(3, 2).double(), net.moves(gaussian_bump_transport(1.5, dimension=2))).shape
        torch.Size([3])
    """
    if not scale > 1:
        raise ValueError(f"scale: got {scale}; wanted more than 1, or the sum over weights has no finite variance")
    # f-hat is the density of v ~ N(0, 1/s^2): c is the mean cosine of its norm
    radii = torch.linspace(0, 20, 20001, dtype=torch.float64) / scale
    density = radii ** (dimension - 1) * (-(radii * scale).square() / 2).exp()
    constant = float((density * radii.cos()).sum() / density.sum())

    def transport(w: Tensor) -> Tensor:
        v, b = w[:, :-1].norm(dim=1), w[:, -1]
        # log of f-hat(v) over the standard normal density of (v, b)
        ratio = dimension * math.log(scale) + (1 - scale**2) * v.square() / 2 + math.log(2 * math.pi) / 2 + b.square() / 2
        last = 2 * constant + torch.where(b.abs() <= v, ratio.exp() * b.sin(), 0.0)
        return torch.cat([torch.zeros_like(w[:, :-1]), last[:, None]], dim=1)

    return transport


def _with_one(x: Tensor) -> Tensor:
    return torch.nn.functional.pad(x, (0, 1), value=1.0)
