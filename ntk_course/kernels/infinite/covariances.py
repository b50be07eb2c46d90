r"""What a wide network's values are at a set of places: a Gaussian field, of which only covariances matter.

A value of one sample has channels, of which there are infinitely many alike, and *positions*: pixels, tokens, moments,
nodes. :class:`Pair` holds, for pairs of samples and pairs of their positions, the covariance of a channel (the NNGP) and the
tangent kernel of a channel. Each rule here takes pairs to pairs; what the network is made of is read elsewhere.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .activations import SLOPES, expectations


class Pair(NamedTuple):
    """Covariance and tangent kernel of one channel, (pairs..., P) at equal positions or (pairs..., P, P') at all of them."""

    nngp: Tensor
    ntk: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "Pair":
        """Apply one linear change to both."""
        return Pair(change(self.nngp), change(self.ntk))


class Weights(NamedTuple):
    """The scale of a layer's weights, and which of them are trained.

    Attributes:
        variance: of a unit for inputs of mean square 1: sigma_w squared.
        bias: sigma_b squared.
        own: what the weights' gradients count: the variance in the NTK parameterization, the fan-in in the standard one; 0 if
            they are frozen.
        own_bias: what the bias's gradient counts: sigma_b squared, or 1; 0 if there is none, or if it is frozen.
    """

    variance: float
    bias: float
    own: float
    own_bias: float

    def layer(self, pair: Pair) -> Pair:
        r"""Pass sums over channels: :math:`\Sigma' = \sigma_w^2 \Sigma + \sigma_b^2`, and the layer's own gradients beside it."""
        nngp, ntk = pair.nngp * self.variance, (pair.ntk * self.variance).add_(pair.nngp, alpha=self.own)
        return Pair(nngp.add_(self.bias) if self.bias else nngp, ntk.add_(self.own_bias) if self.own_bias else ntk)


class Sides(ABC):
    """What a rule may know of the two samples of a pair by themselves: each side's variances and plain tensors, by name.

    Attributes:
        lead: the shape of the pairs: (N,) of samples with themselves, else (N1, N2).
        every: whether pairs of unequal positions are kept.
        same: whether the pairs at hand are all pairs of one set of samples, in order, so that the diagonal is a sample with
            itself.
    """

    lead: tuple[int, ...]
    every: bool
    same: bool

    @abstractmethod
    def variances(self, key: str, own: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """Return each side's variances (pairs..., P), to broadcast; `own` finds them where the pairs are samples with themselves."""

    @abstractmethod
    def plain(self, key: str) -> tuple[Tensor, Tensor]:
        """Return each side's plain tensor (pairs..., ...), to broadcast."""

    def diagonal(self, k: Tensor) -> Tensor:
        """Return what positions have with themselves."""
        return k.diagonal(dim1=-2, dim2=-1) if self.every else k

    def outer(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Let what each side has at its positions broadcast with a pair's tensors."""
        return (left[..., :, None], right[..., None, :]) if self.every else (left, right)


def activation(name: str | float, gain: float, key: str, sides: Sides, pair: Pair) -> Pair:
    r"""Apply an activation: :math:`\Sigma' = \mathbb E\,\phi(u)\phi(v)` and :math:`\Theta' = \mathbb E\,\phi'(u)\phi'(v)\,\Theta`.

    The tangent features of a trained factor on u are u itself (`gain` times), which the activation's slope knows:
    :math:`\mathbb E\,\phi'(u)\phi'(v)\,uv` is added for it.
    """
    left, right = sides.variances(key, lambda: sides.diagonal(pair.nngp))
    k = _with_itself(pair.nngp, left, sides)
    left, right = sides.outer(left, right)
    try:
        value, slope = expectations(name, k, left, right)
    except ArithmeticError as error:
        raise ArithmeticError(f"model: at '{key}', {error}") from None
    ntk = slope.mul_(pair.ntk)
    return Pair(value, ntk + gain * _by_scales(name, value, k, left, right) if gain else ntk)


def _by_scales(name: str | float, value: Tensor, k12: Tensor, k11: Tensor, k22: Tensor) -> Tensor:
    r"""Return :math:`\mathbb E\,u\phi'(u)\,v\phi'(v)`, the derivative of :math:`\mathbb E\,\phi(su)\phi(tv)` in s and t at 1."""
    if isinstance(name, float) or name in SLOPES:
        return value  # u phi'(u) is phi(u)
    with torch.enable_grad():  # every entry by itself, so that the gradient of the sum has all of them
        s, t = (torch.ones_like(k12).requires_grad_() for _ in range(2))
        both = expectations(name, s * t * k12, s**2 * k11, t**2 * k22)[0]
        (by_s,) = torch.autograd.grad(both.sum(), s, create_graph=True)
        return torch.autograd.grad(by_s.sum(), t)[0].detach()


def _with_itself(k: Tensor, variance: Tensor, sides: Sides) -> Tensor:
    """Set a sample's covariance with itself to its variance, so that its correlation is 1 without rounding."""
    if sides.same:
        k = k.clone()
        places = k.diagonal(dim1=0, dim2=1)  # ([P, P'], n) or (P, n)
        if sides.every:
            places = places.diagonal(dim1=0, dim2=1)  # (n, P)
            places.copy_(variance[:, 0])
        else:
            places.copy_(variance[:, 0].T)
    return k


def normalised(shift: float, eps: float, mean: bool, key: str, sides: Sides, pair: Pair) -> Pair:
    r"""Divide by the root mean square over channels (and over positions, if `mean`); trained shifts add their gradients.

    The divisor is the same for all channels, so that its own derivative is lost among infinitely many of them.
    """
    left, right = sides.variances(key, lambda: sides.diagonal(pair.nngp))
    if mean:
        left, right = (v.mean(-1, keepdim=True).expand_as(v) for v in (left, right))
    left, right = sides.outer(left + eps, right + eps)
    both = pair.map(lambda k: k / (left * right).sqrt())
    return Pair(both.nngp, both.ntk + shift)


def mixed(left: Tensor, right: Tensor, pair: Pair) -> Pair:
    """Let positions be sums of positions, by (Q, P) for each side: A k B^T."""
    return pair.map(lambda k: left @ k @ right.mT)


def chosen(places: Tensor, sides: Sides, pair: Pair) -> Pair:
    """Take positions (Q, m) in another order, or the mean over m of them that belong to one another."""

    def take(k: Tensor) -> Tensor:
        if not sides.every:
            return k[..., places].mean(-1)
        total = k.new_zeros(*k.shape[:-2], len(places), len(places))
        for column in places.T:
            total += k[..., column[:, None], column]
        return total / places.shape[1]

    return pair.map(take)


class Window(NamedTuple):
    """A filter over positions that lie on a grid."""

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    circular: bool

    def after(self) -> tuple[int, ...]:
        """Return the sizes of the grid that it makes."""
        return tuple(
            (n + sum(p) - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(self.sizes, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        )

    def mean(self, k: Tensor, sides: Sides) -> Tensor:
        """Average over the filter's offsets, the same at both positions, zero outside of the grid; axis by axis, since it is a box."""
        copies = 2 if sides.every else 1
        lead, out = k.shape[: k.dim() - copies], self.after()
        k = self._padded(k.reshape(-1, *self.sizes * copies))
        for axis, (n, d, s, count) in enumerate(zip(out, self.dilation, self.stride, self.kernel, strict=True), 1):
            parts = [self._cut(k, axis, copies, slice(o * d, o * d + s * (n - 1) + 1, s)) for o in range(count)]
            k = parts[0].clone() if count == 1 else parts[0] + parts[1]
            for part in parts[2:]:
                k += part
        k /= math.prod(self.kernel)
        return k.reshape(*lead, *(math.prod(out),) * copies)

    def _cut(self, k: Tensor, axis: int, copies: int, where: slice) -> Tensor:
        """Cut an axis of the grid at all of its copies."""
        cut = [where if (a - axis) % len(self.sizes) == 0 and a else slice(None) for a in range(1 + len(self.sizes) * copies)]
        return k[tuple(cut)]

    def _padded(self, k: Tensor) -> Tensor:
        copies = (k.dim() - 1) // len(self.sizes)
        if self.circular:
            for axis, (n, (before, behind)) in enumerate(zip(self.sizes * copies, self.padding * copies, strict=True), 1):
                k = k.index_select(axis, torch.arange(-before, n + behind, device=k.device) % n)
            return k
        return F.pad(k, [end for ends in reversed(self.padding * copies) for end in ends])


def convolved(window: Window, weights: Weights, sides: Sides, pair: Pair) -> Pair:
    """Pass a convolution: the mean over a filter, then what any layer does."""
    return weights.layer(pair.map(lambda k: window.mean(k, sides)))


def recurrent(name: str | float, inputs: Weights, hidden: Weights, key: str, sides: Sides, pair: Pair) -> Pair:
    r"""Run :math:`h_t = \phi(W h_{t-1} + b + U x_t + c)` from zeros along the positions; the weights are the same at every step.

    At moments t and s the pre-activations have :math:`\Sigma(t, s) = \sigma_u^2 k(t, s) + \sigma_w^2\,\mathbb E\,\phi\phi\,(t-1, s-1)`
    plus biases, and so on for the tangent kernel (Alemohammad et al., 2021).
    """
    fed = inputs.layer(pair)
    fed = Pair(fed.nngp + hidden.bias, fed.ntk + hidden.own_bias)
    steps = pair.nngp.shape[-1]
    left, right = sides.variances(key, lambda: _in_time(name, hidden, sides.diagonal(fed.nngp)))
    before: Pair | None = None
    values, tangents = [], []
    for t in range(steps):
        k, theta = fed.nngp[..., t, :].clone(), fed.ntk[..., t, :].clone()
        if before is not None:
            k[..., 1:] += hidden.variance * before.nngp[..., :-1]
            theta[..., 1:] += hidden.variance * before.ntk[..., :-1] + hidden.own * before.nngp[..., :-1]
        if sides.same:
            k[..., t].diagonal(dim1=0, dim2=1).copy_(left[:, 0, t])
        value, slope = expectations(name, k, left[..., t, None], right)
        before = Pair(value, slope * theta)
        values.append(before.nngp)
        tangents.append(before.ntk)
    return Pair(torch.stack(values, -2), torch.stack(tangents, -2))


def _in_time(name: str | float, hidden: Weights, fed: Tensor) -> Tensor:
    """Return the pre-activations' variance at every moment, from what the inputs bring (..., T)."""
    found = [fed[..., 0]]
    for t in range(1, fed.shape[-1]):
        found.append(fed[..., t] + hidden.variance * expectations(name, found[-1], found[-1], found[-1])[0])
    return torch.stack(found, -1)
