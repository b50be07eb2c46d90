r"""Label-aware kernels: a tangent kernel plus terms that know the labels of the training set (Chen, He & Su, 2020).

For two classes, labels -1 and 1. LANTK-HR adds an estimate of the label product :math:`y y'`, regressed on the kernel itself;
LANTK-NTH adds what training would do to the kernel, from the first orders of the neural tangent hierarchy.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from . import validate


class LabelAware(NamedTuple):
    """A label-aware kernel.

    Attributes:
        train: among the training points, (N, N).
        cross: of other points with them, (M, N), or None.
        added_train: what was added to the tangent kernel, lambda Z, (N, N).
        added_cross: the same for the other points, (M, N), or None.
        weight: lambda.
    """

    train: Tensor
    cross: Tensor | None
    added_train: Tensor
    added_cross: Tensor | None
    weight: float


def label_products(gram: Tensor, y: Tensor, values: Tensor, *, version: int = 1, own: bool = False) -> Tensor:
    r"""Estimate :math:`y y'` of pairs from their kernel values h, by a weighted mean over the training pairs (LANTK-HR).

    .. math:: Z(h) = \frac{\sum_{ij} w_{ij}\, y_i y_j\,\big(\sigma^2 - (h - H_{ij})^2\big)}
                          {\sum_{ij} w_{ij}\,\big(\sigma^2 - (h - H_{ij})^2\big)},\qquad \sigma = \max H - \min H,

    with :math:`w = 1` (version 1) or :math:`(H^{-2})_{ij}` scaled to [0, 1] (version 2). Expanded in powers of h only six
    sums over the pairs remain, so all values together cost :math:`O(N^2)`.

    Args:
        gram: H, (N, N).
        y: labels -1 and 1, (N,).
        values: h, of any shape; (N, N) with ``own``.
        version: 1 or 2.
        own: ``values`` is H itself: every pair leaves its own label product (and that of the pair turned round) out.

    Returns:
        Z, of the shape of values.

    Raises:
        TypeError, ValueError: a Gram matrix that is not square, symmetric and finite, labels other than -1 and 1 or of one
        kind, another version; torch.linalg.LinAlgError: version 2 of a singular H.

    Example:
        >>> label_products(gram, y, cross)
    """
    gram = validate.gram(gram)
    y = _signs(y, gram)
    weights = _weights(gram, version)
    products, width = y[:, None] * y, gram.max() - gram.min()
    sums = [[(weights * p * gram**k).sum() for k in range(3)] for p in (products, torch.ones_like(products))]
    h = gram if own else values

    def weighed(s0, s1, s2):
        return (width**2 - h**2) * s0 + 2 * h * s1 - s2

    above, below = (weighed(*s) for s in sums)
    if own:  # at its own value h = H_ij a pair has the kernel sigma^2
        times = 2 - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        own_share = times * weights * width**2
        above, below = above - own_share * products, below - own_share
    return above / below


def lantk_hr(
    gram: Tensor, y: Tensor, cross: Tensor | None = None, *, version: int = 1, weight: float | None = None, leave_out: bool = True
) -> LabelAware:
    r"""Compute LANTK-HR, :math:`K + \lambda Z`, see :func:`label_products` (Chen, He & Su, 2020, sec. 3).

    Args:
        gram: the tangent kernel of the training points, best its mean over initialisations, (N, N).
        y: labels -1 and 1, (N,).
        cross: of other points with them, (M, N).
        version: 1 or 2.
        weight: lambda; by default :math:`0.1\,\overline{|H|}/\overline{|Z|}` over the training pairs.
        leave_out: a training pair does not see its own label product. Without it the training block is told its labels,
            which no other point is.

    Returns:
        A :class:`LabelAware`. A large weight can make ``train`` indefinite.

    Raises:
        As :func:`label_products`, and ValueError for a cross kernel of another width.

    Example:
        >>> kernel = lantk_hr(gram, y, cross)
        >>> kernel_ridge(kernel.train, y).predict(kernel.cross).sign()
    """
    gram = validate.gram(gram)
    if cross is not None and (cross.dim() != 2 or cross.shape[1] != len(gram)):
        raise ValueError(f"cross: got shape {tuple(cross.shape)}; wanted (M, {len(gram)})")
    z = label_products(gram, y, gram, version=version, own=leave_out)
    scale = float(0.1 * gram.abs().mean() / z.abs().mean()) if weight is None else float(weight)
    z_cross = None if cross is None else scale * label_products(gram, y, cross, version=version)
    return LabelAware(gram + scale * z, None if cross is None else cross + z_cross, scale * z, z_cross, scale)


def _signs(y: Tensor, gram: Tensor) -> Tensor:
    y = torch.as_tensor(y, device=gram.device)
    if y.shape != (len(gram),) or sorted(y.unique().tolist()) != [-1, 1]:
        raise ValueError(f"y: got {sorted(y.unique().tolist())[:5]} of shape {tuple(y.shape)}; wanted -1 and 1, ({len(gram)},)")
    return y.to(gram.dtype)


def _weights(gram: Tensor, version: int) -> Tensor:
    if version == 1:
        return torch.ones_like(gram)
    if version != 2:
        raise ValueError(f"version: got {version!r}; wanted 1 or 2")
    factor = torch.linalg.cholesky(gram)
    inverse = torch.cholesky_inverse(factor)
    square = inverse @ inverse
    return (square - square.min()) / (square.max() - square.min())
