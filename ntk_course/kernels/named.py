r"""Named empirical kernels: each one picks a cotangent and hands it to the Gram engine.

With :math:`\phi_c(x) = c^\top \partial z(x; w)/\partial w`, every kernel here is :math:`\langle\phi_c(x), \phi_{c'}(x')\rangle`.
"""

from typing import Any

from torch import Tensor, nn

from ..gram.operator import Gram
from ..tangents.cotangents import Cotangent, basis, labelled, ones


def tangent_kernel(
    model: nn.Module, x1: Any, c1: Cotangent, x2: Any = None, c2: Cotangent | None = None, *, progress: bool = True, **options
) -> Tensor:
    r"""Compute the kernel of any cotangents, :math:`c_n^\top K(x_n, x_m)\, c_m` with K the empirical NTK.

    Args:
        model: gives logits (N, K), in eval mode where it has BatchNorm or Dropout.
        x1: (N, ...).
        c1: the cotangent, a function of the logits or a tensor (N, K), see :mod:`ntk_course.tangents.cotangents`.
        x2: (M, ...), or None for x1 against itself.
        c2: of x2; by default c1, where that is a function of the logits alone.
        progress: show a bar, where it takes longer than a moment.
        **options: ``output``, ``parameters``, ``block_size``, ``memory`` and ``precision`` of :class:`ntk_course.Gram`.

    Returns:
        (N, M), not normalised by the number of parameters, in the model's dtype and on its device.

    Raises:
        TypeError, ValueError: as :class:`ntk_course.Gram`.

    Example:
        >>> tangent_kernel(model, x, loss_gradient(y)).shape  # inner products of the per-sample loss gradients
        torch.Size([32, 32])
        >>> tangent_kernel(model, x, lambda z: z.softmax(1)).shape  # a cotangent of one's own
        torch.Size([32, 32])
    """
    return Gram(model, x1, c1, x2, c2, **options).dense(progress)


def entk(model: nn.Module, x1: Any, x2: Any = None, *, progress: bool = True, **options) -> Tensor:
    r"""Compute the matrix-valued empirical NTK, :math:`K_{ij}(x, x') = \langle\partial z_i(x)/\partial w, \partial z_j(x')/\partial w\rangle`.

    The K x K matrix in eq. (1) of Guo et al. (2024); cotangents are the K basis vectors.

    Args:
        model: as in :func:`tangent_kernel`.
        x1: (N, ...).
        x2: (M, ...), or None for x1 against itself.
        progress: show a bar, where it takes longer than a moment.
        **options: as in :func:`tangent_kernel`.

    Returns:
        (N, M, K, K); entry [n, m, i, j] belongs to output i of x1[n] and output j of x2[m]. Model's dtype and device.

    Raises:
        TypeError, ValueError: as :class:`ntk_course.Gram`.

    Example:
        >>> entk(model, x[:8], x[8:12]).shape
        torch.Size([8, 4, 10, 10])
    """
    return Gram(model, x1, basis, x2, **options).dense(progress)


def pntk(model: nn.Module, x1: Any, x2: Any = None, *, progress: bool = True, **options) -> Tensor:
    r"""Compute the pseudo-NTK, :math:`\frac1K \sum_{ij} K_{ij}(x, x')` (Mohamadi & Sutherland, 2022).

    The cotangent is :math:`(1, \dots, 1)/\sqrt K` for every sample.

    Args:
        model: as in :func:`tangent_kernel`.
        x1: (N, ...).
        x2: (M, ...), or None for x1 against itself.
        progress: show a bar, where it takes longer than a moment.
        **options: as in :func:`tangent_kernel`.

    Returns:
        (N, M), in the model's dtype and on its device.

    Raises:
        TypeError, ValueError: as :class:`ntk_course.Gram`.

    Example:
        >>> torch.allclose(pntk(model, x), entk(model, x).sum((2, 3)) / 10)
        True
    """
    return Gram(model, x1, ones, x2, **options).dense(progress)


def lpntk(
    model: nn.Module, x1: Any, y1: Tensor, x2: Any = None, y2: Tensor | None = None, *, progress: bool = True, **options
) -> Tensor:
    r"""Compute the labelled pseudo-NTK, :math:`\frac1K \sum_{ij} [s(y)\,s(y')^\top \odot K(x, x')]_{ij}` (Guo et al., 2024, eq. 3).

    The cotangent of a sample is :math:`s(y)/\sqrt K`, see :func:`ntk_course.labelled`.

    Args:
        model: as in :func:`tangent_kernel`.
        x1: (N, ...).
        y1: integer labels (N,) in [0, K).
        x2: (M, ...), or None for x1 against itself.
        y2: (M,), given exactly when x2 is.
        progress: show a bar, where it takes longer than a moment.
        **options: as in :func:`tangent_kernel`.

    Returns:
        (N, M), in the model's dtype and on its device.

    Raises:
        TypeError, ValueError: bad labels, or as :class:`ntk_course.Gram`.

    Example:
        >>> lpntk(model, x, y, x_test, y_test).shape
        torch.Size([32, 8])
    """
    if (x2 is None) != (y2 is None):
        raise ValueError(f"{'y2' if y2 is None else 'x2'}: got None; wanted x2 and y2 together, or neither")

    one, other = labelled(y1, "y1"), None if y2 is None else labelled(y2, "y2")
    return Gram(model, x1, one, x2, other, **options).dense(progress)
