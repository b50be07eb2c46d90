r"""Named empirical kernels: each one picks a cotangent and hands it to the Gram engine.

With :math:`\phi_c(x) = c^\top \partial z(x; w)/\partial w`, every kernel here is :math:`\langle\phi_c(x), \phi_{c'}(x')\rangle`.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ..basics import validate
from ..gram.engine import gram


def signs(y: Tensor, num_classes: int) -> Tensor:
    r"""Return the label signs s(y): +1 at the label, -1 elsewhere (Guo et al., 2024, eq. 2).

    They are the signs of the prediction error :math:`p - q`, which no softmax output can change.

    Args:
        y: integer labels (N,).
        num_classes: K.

    Returns:
        (N, K), float32, on the device of y.

    Raises:
        TypeError, ValueError: labels that are not integers in [0, K).

    Example:
        >>> signs(torch.tensor([1]), 3)
        tensor([[-1.,  1., -1.]])
    """
    y = torch.as_tensor(y)
    return 2.0 * one_hot(validate.labels(y, len(y), num_classes, y), num_classes) - 1.0


def tangent_kernel(
    model: nn.Module, x1: Tensor, c1: Tensor, x2: Tensor | None = None, c2: Tensor | None = None, **blocks
) -> Tensor:
    r"""Compute the kernel of any cotangents, :math:`c_n^\top K(x_n, x_m)\, c_m` with K the empirical NTK.

    Args:
        model: gives logits (N, K), in eval mode where it has BatchNorm or Dropout.
        x1: (N, ...).
        c1: (N, K).
        x2: (M, ...), or None for x1 against itself.
        c2: (M, K), given exactly when x2 is.
        **blocks: ``block_size`` and ``memory`` of :func:`ntk_course.gram_blocks`.

    Returns:
        (N, M), not normalised by the number of parameters, in the model's dtype and on its device.

    Raises:
        TypeError, ValueError: as :func:`ntk_course.gram_blocks`.

    Example:
        >>> error = one_hot(y, 10) - model(x).softmax(1)
        >>> tangent_kernel(model, x, error)  # inner products of the per-sample loss gradients
    """
    return gram(model, x1, c1, x2, c2, **blocks)


def entk(model: nn.Module, x1: Tensor, x2: Tensor | None = None, **blocks) -> Tensor:
    r"""Compute the matrix-valued empirical NTK, :math:`K_{ij}(x, x') = \langle\partial z_i(x)/\partial w, \partial z_j(x')/\partial w\rangle`.

    The K x K matrix in eq. (1) of Guo et al. (2024); cotangents are the K basis vectors.

    Args:
        model: as in :func:`tangent_kernel`.
        x1: (N, ...).
        x2: (M, ...), or None for x1 against itself.
        **blocks: as in :func:`tangent_kernel`.

    Returns:
        (N, M, K, K); entry [n, m, i, j] belongs to output i of x1[n] and output j of x2[m]. Model's dtype and device.

    Raises:
        TypeError, ValueError: as :func:`ntk_course.gram_blocks`.

    Example:
        >>> entk(model, x[:8], x[8:12]).shape
        torch.Size([8, 4, 10, 10])
    """

    def basis(x: Tensor):
        return lambda k: torch.eye(k, device=x.device).expand(len(x), k, k)

    return gram(model, x1, basis(x1), x2, None if x2 is None else basis(x2), **blocks)


def pntk(model: nn.Module, x1: Tensor, x2: Tensor | None = None, **blocks) -> Tensor:
    r"""Compute the pseudo-NTK, :math:`\frac1K \sum_{ij} K_{ij}(x, x')` (Mohamadi & Sutherland, 2022).

    The cotangent is :math:`(1, \dots, 1)/\sqrt K` for every sample.

    Args:
        model: as in :func:`tangent_kernel`.
        x1: (N, ...).
        x2: (M, ...), or None for x1 against itself.
        **blocks: as in :func:`tangent_kernel`.

    Returns:
        (N, M), in the model's dtype and on its device.

    Raises:
        TypeError, ValueError: as :func:`ntk_course.gram_blocks`.

    Example:
        >>> torch.allclose(pntk(model, x), entk(model, x).sum((2, 3)) / 10)
        True
    """

    def uniform(x: Tensor):
        return lambda k: torch.full((len(x), k), k**-0.5, dtype=torch.float64, device=x.device)

    return gram(model, x1, uniform(x1), x2, None if x2 is None else uniform(x2), **blocks)


def lpntk(model: nn.Module, x1: Tensor, y1: Tensor, x2: Tensor | None = None, y2: Tensor | None = None, **blocks) -> Tensor:
    r"""Compute the labelled pseudo-NTK, :math:`\frac1K \sum_{ij} [s(y)\,s(y')^\top \odot K(x, x')]_{ij}` (Guo et al., 2024, eq. 3).

    The cotangent of a sample is :math:`s(y)/\sqrt K`, see :func:`signs`.

    Args:
        model: as in :func:`tangent_kernel`.
        x1: (N, ...).
        y1: integer labels (N,) in [0, K).
        x2: (M, ...), or None for x1 against itself.
        y2: (M,), given exactly when x2 is.
        **blocks: as in :func:`tangent_kernel`.

    Returns:
        (N, M), in the model's dtype and on its device.

    Raises:
        TypeError, ValueError: bad labels, or as :func:`ntk_course.gram_blocks`.

    Example:
        >>> lpntk(model, x, y, x_test, y_test).shape
        torch.Size([1000, 100])
    """
    if (x2 is None) != (y2 is None):
        raise ValueError(f"{'y2' if y2 is None else 'x2'}: got None; wanted x2 and y2 together, or neither")

    def labelled(x: Tensor, y: Tensor, name: str):
        return lambda k: signs(validate.labels(y, len(x), k, x, name), k).double() / k**0.5

    return gram(model, x1, labelled(x1, y1, "y1"), x2, None if x2 is None else labelled(x2, y2, "y2"), **blocks)
