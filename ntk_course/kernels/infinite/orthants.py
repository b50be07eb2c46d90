r"""Moments of a centred Gaussian vector where all of its entries are positive, for up to four entries.

They are what products of ReLUs and their slopes average to: :math:`\mathbb E\prod_i \sigma'(u_i)` and
:math:`\mathbb E\,u_j u_k \prod_i \sigma'(u_i)`.
"""

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# Nodes of the one integral that has no closed form, and the share of a variance below which rounding is all there is.
_NODES, _NOTHING = 48, 1e-12


class _Covariance(NamedTuple):
    """A covariance C + e N with an infinitely small e, (..., k, k) each: what is singular in C is decided by N.

    Equal inputs, or more inputs than dimensions, make C singular; the moments are continuous there, their formulas are not.
    """

    main: Tensor
    small: Tensor

    def given_zero(self, m: int) -> tuple["_Covariance", Tensor]:
        """Return the covariance of the other entries given u_m = 0, and all covariances with u_m times its density at 0."""
        others = [n for n in range(self.main.shape[-1]) if n != m]
        v0, v1 = self.main[..., m, m, None, None], self.small[..., m, m, None, None]
        c0, c1 = self.main[..., others, m, None], self.small[..., others, m, None]
        some = v0 > _NOTHING
        v0 = torch.where(some, v0, 1.0)  # elsewhere the weight is 0, whatever is given
        main, small = (part[..., others, :][..., others] for part in self)
        first = (c0 * c1.mT + c1 * c0.mT) / v0 - c0 * c0.mT * v1 / v0**2
        weight = self.main[..., m] * torch.where(some, (2 * math.pi * v0) ** -0.5, 0.0)[..., 0]
        return _Covariance(main - c0 * c0.mT / v0, small - first), weight

    def correlations(self) -> Tensor:
        v0, v1 = (part.diagonal(dim1=-2, dim2=-1) for part in self)
        some = v0 > _NOTHING
        d = torch.where(some, v0, v1).clamp(min=_NOTHING**2).sqrt()
        both, neither = some[..., :, None] & some[..., None, :], ~(some[..., :, None] | some[..., None, :])
        cov = torch.where(both, self.main, torch.where(neither, self.small, 0.0))
        return (cov / (d[..., :, None] * d[..., None, :])).clamp(-1, 1)

    def probability(self) -> Tensor:
        """Return the probability of the positive orthant; see :func:`positive_moments`."""
        k = self.main.shape[-1]
        if k < 2:
            return self.main.new_full(self.main.shape[:-2], 0.5**k)
        r = self.correlations()
        if k == 4:
            return _plackett(r)
        return 0.5**k + sum(torch.asin(r[..., i, j]) for i, j in combinations(range(k), 2)) / (2 ** (k - 1) * math.pi)

    def first_moments(self) -> Tensor:
        total = torch.zeros_like(self.main.diagonal(dim1=-2, dim2=-1))
        for m in range(self.main.shape[-1]):
            given, weight = self.given_zero(m)
            total = total + weight * given.probability()[..., None]
        return total


def _plackett(r: Tensor) -> Tensor:
    """Integrate the probability from independence to the correlations r (..., 4, 4)."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    total = torch.full_like(r[..., 0, 0], 1 / 16)
    for theta, w in zip((nodes + 1) * math.pi / 4, weights * math.pi / 4, strict=True):
        t = math.sin(theta)
        q = 2 * math.sin((math.pi / 2 - theta) / 2) ** 2 + t * (1 - r)  # 1 - t r, without cancellation where r is 1
        for i, j in combinations(range(4), 2):
            k, m = (n for n in range(4) if n not in (i, j))

            def given_first(a: int, b: int, q=q, i=i) -> Tensor:
                """Return the covariance s_ab - s_ia s_ib with s = 1 - q."""
                own = 0.0 if a == b else q[..., a, b]
                return q[..., i, a] + q[..., i, b] - own - q[..., i, a] * q[..., i, b]

            left, to_k, to_m = given_first(j, j), given_first(j, k), given_first(j, m)
            cov = given_first(k, m) - to_k * to_m / left
            v, v2 = given_first(k, k) - to_k.square() / left, given_first(m, m) - to_m.square() / left
            partial = cov / (v.clamp(min=0) * v2.clamp(min=0)).sqrt().clamp(min=_NOTHING**2)
            share = 0.25 + torch.asin(partial.clamp(-1, 1)) / (2 * math.pi)
            total = total + w * math.cos(theta) * r[..., i, j] / (2 * math.pi * left.sqrt()) * share
    return total


def positive_moments(cov: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return :math:`\mathbb E\,\mathbb 1`, :math:`\mathbb E\,u\,\mathbb 1` and :math:`\mathbb E\,uu^\top\mathbb 1`, with 1 where all u > 0.

    The probability is, with correlations r, 1/2; :math:`\frac14 + \frac1{2\pi}\arcsin r`;
    :math:`\frac18 + \frac1{4\pi}\sum\arcsin r`; and for four Plackett's (1954) integral along :math:`t\,r`, with
    :math:`t = \sin\theta`,

    .. math:: P = \frac1{16} + \int_0^1 \sum_{i<j} \frac{r_{ij}}{2\pi\sqrt{1 - t^2 r_{ij}^2}}
              \Big(\frac14 + \frac1{2\pi}\arcsin r_{kl|ij}(t)\Big)\,dt ,

    where k, l are the other two and :math:`r_{kl|ij}` is their correlation given that the first two are 0. The moments
    follow from Stein's lemma, :math:`\mathbb E\,u_i\,g(u) = \sum_l C_{il}\,\mathbb E\,\partial_l g`: the derivative of a
    step at :math:`u_l = 0` leaves the other entries given :math:`u_l = 0`, one dimension lower.

    Args:
        cov: C, (..., k, k), k at most 4; it may be singular. float64 is advised.

    Returns:
        (...), (..., k) and (..., k, k), in the dtype of cov. An entry of variance 0 counts as positive half of the time.

    Raises:
        ValueError: another shape, or more than four entries.

    Example:
        >>> positive_moments(torch.eye(4) / 2 + 0.5)[0]
        tensor(0.2000)
    """
    k = cov.shape[-1]
    if cov.dim() < 2 or cov.shape[-2] != k or not 1 <= k <= 4:
        raise ValueError(f"cov: got shape {tuple(cov.shape)}; wanted (..., k, k) with k from 1 to 4")
    deviation = cov.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    scale = torch.where(deviation > 0, deviation, 1.0)
    c = _Covariance(cov / (scale[..., :, None] * scale[..., None, :]), torch.eye(k).to(cov).expand_as(cov))
    probability = c.probability()
    second = c.main * probability[..., None, None]
    for m in range(k):
        given, weight = c.given_zero(m)
        mean = torch.zeros_like(weight)
        mean[..., [n for n in range(k) if n != m]] = given.first_moments()
        second = second + weight[..., :, None] * mean[..., None, :]
    return probability, deviation * c.first_moments(), deviation[..., :, None] * second * deviation[..., None, :]
