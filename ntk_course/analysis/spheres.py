r"""The spectrum of a kernel on the sphere, where rotations decide the eigenfunctions and one integral each eigenvalue.

A kernel of the angle alone has the spherical harmonics as eigenfunctions. All of one degree share an eigenvalue, which the
formula of Funk and Hecke gives as an integral over the angle.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..basics import validate

_NODES, _PIECES = 48, 40  # of the rule, in each piece


class SphereSpectrum(NamedTuple):
    """Eigenvalues by the degree 0, 1, 2, ... of the harmonics, both (L + 1,), float64.

    Attributes:
        eigenvalues: of the kernel's operator under the uniform distribution.
        multiplicities: how many harmonics have that degree, and so that eigenvalue.
    """

    eigenvalues: Tensor
    multiplicities: Tensor


def sphere_spectrum(
    kernel: Callable[[Tensor, Tensor], Tensor], dimension: int, degree: int, *, radius: float = 1.0
) -> SphereSpectrum:
    r"""Return the eigenvalues of a kernel of the angle under the uniform distribution on a sphere (Funk and Hecke).

    For points of :math:`\mathbb R^d` of one length and :math:`K(x, x') = k(\theta)`, with the Legendre polynomials
    :math:`P_\ell` of d dimensions, which are 1 at 1,

    .. math:: \lambda_\ell = \frac{\int_0^\pi k(\theta)\, P_\ell(\cos\theta)\, \sin^{d-2}\theta\, d\theta}
              {\int_0^\pi \sin^{d-2}\theta\, d\theta} .

    The integral is over the angle, in which kernels of ReLU networks are smooth; Gauss's rule on short pieces is exact there to
    rounding, while in the cosine it would converge slowly.

    Args:
        kernel: from x (N, d) and x' (M, d) to (N, M), float64; of the angle between them alone.
        dimension: d, at least 2: the circle.
        degree: L, the largest one.
        radius: length of the points.

    Returns:
        A :class:`SphereSpectrum`. Its eigenvalues are right to about 1e-15 of the kernel's diagonal; smaller ones are rounding.

    Raises:
        TypeError, ValueError: a dimension below 2, a negative degree, a radius that is not above 0, a kernel of
        another shape, or one that changes when both points are turned.

    Example:
        >>> spectrum = sphere_spectrum(lambda a, b: (a @ b.T) ** 2, 3, 3)  # 1/3 + 2/3 P_2
        >>> (spectrum.multiplicities * spectrum.eigenvalues).round(decimals=4).abs()
        tensor([0.3333, 0.0000, 0.6667, 0.0000], dtype=torch.float64)
    """
    d, top = validate.whole(dimension, "dimension", least=2), validate.whole(degree, "degree")
    radius = validate.above_zero(radius, "radius")
    pieces = _PIECES + top // 16  # a piece holds few waves of the highest harmonic, and of the weight in a high dimension
    places, weights = np.polynomial.legendre.leggauss(_NODES)
    angle = torch.from_numpy(((places + 1) / 2 + np.arange(pieces)[:, None]).ravel() * math.pi / pieces)
    weight = torch.from_numpy(weights).repeat(pieces) * angle.sin() ** (d - 2)
    profile = _profile(kernel, angle, d, radius)
    t, before, now = angle.cos(), torch.zeros_like(angle), torch.ones_like(angle)
    values = []
    for ell in range(top + 1):
        values.append((weight * profile * now).sum() / weight.sum())
        # (l + d - 2) P_{l+1} = (2 l + d - 2) t P_l - l P_{l-1}; on the circle P_1 = t is not of this form
        following = t * now if ell == 0 else ((2 * ell + d - 2) * t * now - ell * before) / (ell + d - 2)
        before, now = now, following
    counts = [float(math.comb(ell + d - 1, d - 1) - (math.comb(ell + d - 3, d - 1) if ell > 1 else 0)) for ell in range(top + 1)]
    return SphereSpectrum(torch.stack(values), torch.tensor(counts, dtype=torch.float64))


def _profile(kernel: Callable, angle: Tensor, d: int, radius: float) -> Tensor:
    """Evaluate the kernel at angles, along one great circle, and see on another that nothing but the angle counts."""
    pole = torch.zeros(1, d, dtype=torch.float64)
    pole[0, 0] = radius
    round_it = torch.zeros(len(angle), d, dtype=torch.float64)
    round_it[:, 0], round_it[:, 1] = radius * angle.cos(), radius * angle.sin()
    found = kernel(pole, round_it)
    if tuple(found.shape) != (1, len(angle)):
        raise ValueError(
            f"kernel: got {tuple(found.shape)} for points (1, {d}) and ({len(angle)}, {d}); wanted (1, {len(angle)})"
        )
    validate.finite(found, "kernel")
    turn = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    some = slice(None, None, max(1, len(angle) // 20))
    again = kernel(pole @ turn, round_it[some] @ turn)
    if not torch.allclose(again, found[:, some], rtol=1e-8, atol=1e-10 * float(found.abs().max())):
        raise ValueError("kernel: got other values when both points are turned; wanted a kernel of the angle between them")
    return found[0].double()
