r"""Label-aware kernels: a tangent kernel plus terms that know the labels of the training set (Chen, He & Su, 2020).

Labels are -1 and 1, or the classes 0 to K - 1. LANTK-HR adds an estimate of the label product :math:`y y'`, regressed on the kernel itself;
LANTK-NTH adds what training would do to the kernel, from the first orders of the neural tangent hierarchy.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..basics import validate

# Pairs whose monomials are in memory at a time.
_TOGETHER = 2**17


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
    sums over the pairs remain, so all values together cost :math:`O(N^2)`. For K classes :math:`y_i y_j` is the inner
    product of the labels as corners of a regular simplex, 1 within a class and :math:`-1/(K-1)` between two.

    Args:
        gram: H, (N, N).
        y: labels, -1 and 1 or 0 to K - 1, (N,).
        values: h, of any shape; (N, N) with ``own``.
        version: 1 or 2.
        own: ``values`` is H itself: every pair leaves its own label product (and that of the pair turned round) out.

    Returns:
        Z, of the shape of values.

    Raises:
        TypeError, ValueError: a Gram matrix that is not square, symmetric and finite, labels of one kind or other than those
        above, another version; torch.linalg.LinAlgError: version 2 of a singular H.

    Example:
        >>> sides = 2 * (y > 4) - 1
        >>> label_products(gram, sides, gram[:3]).shape
        torch.Size([3, 32])
    """
    gram = validate.gram(gram)
    gram = (gram + gram.T) / 2  # to the last bit: the difference h - H magnifies rounding
    products, weights, width = agreement(y, gram), _weights(gram, version), gram.max() - gram.min()
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


def regressed_products(
    kernels: Tensor, y: Tensor, values: Tensor | None = None, *, degree: int = 2, ridge: float = 1e-6, leave_out: bool = True
) -> tuple[Tensor, Tensor | None]:
    r"""Estimate :math:`y y'` of pairs by ridge regression on several kernel values of the pair: a better Z for LANTK-HR.

    The features of a pair are the monomials up to ``degree`` of its L kernel values, standardised; the pairs are all
    :math:`i < j` of the training points. The normal equations are gathered a stripe of rows at a time:
    :math:`O(N^2 F^2)` operations for F monomials, :math:`O(N F)` memory beyond the result.

    Args:
        kernels: among the training points, (L, N, N).
        y: labels, as in :func:`label_products`, (N,).
        values: the same kernels of other points with them, (L, M, N).
        degree: of the polynomial, 1 or 2.
        ridge: on the coefficients, times the number of pairs.
        leave_out: a training pair's estimate is that of a regression without it, by its leverage h,
            :math:`(\hat z - h\,y_i y_j)/(1 - h)`.

    Returns:
        Z among the training points (N, N), 1 on its diagonal (a label times itself, which tells nothing), and Z of the
        others (M, N) or None.

    Raises:
        TypeError, ValueError: kernels that are not square, symmetric and finite, other labels, another degree.

    Example:
        >>> sides, (nngp, ntk) = 2 * (y > 4) - 1, infinite.mlp(x, depth=1)
        >>> z, z_cross = regressed_products(torch.stack([nngp, ntk]), sides, torch.stack([nngp[:3], ntk[:3]]))
        >>> z.shape, z_cross.shape
        (torch.Size([32, 32]), torch.Size([3, 32]))
    """
    if not isinstance(kernels, Tensor) or kernels.dim() != 3:
        raise ValueError(f"kernels: got {getattr(kernels, 'shape', type(kernels).__name__)}; wanted (L, N, N)")
    for one in kernels:
        validate.gram(one, "kernels")
    if degree not in (1, 2):
        raise ValueError(f"degree: got {degree!r}; wanted 1 or 2")
    if values is not None and (values.dim() != 3 or values.shape[::2] != kernels.shape[::2]):
        raise ValueError(f"values: got shape {tuple(values.shape)}; wanted ({len(kernels)}, M, {kernels.shape[1]})")
    products = agreement(y, kernels[0])
    n = len(products)
    off = ~torch.eye(n, dtype=torch.bool, device=products.device)
    mean, deviation = (torch.stack([getattr(k[off], how)() for k in kernels]) for how in ("mean", "std"))

    def monomials(some: Tensor) -> Tensor:
        """Return the features (rows, N, F) of a stripe of pairs."""
        first = ((some - mean[:, None, None]) / deviation[:, None, None]).permute(1, 2, 0)
        parts = [torch.ones_like(first[..., :1]), first]
        if degree == 2:
            a, b = torch.triu_indices(len(kernels), len(kernels), device=products.device)
            parts.append(first[..., a] * first[..., b])
        return torch.cat(parts, dim=-1)

    stripes = torch.arange(n, device=products.device).split(max(1, _TOGETHER // n))
    gathered, right, pairs = None, None, n * (n - 1)
    for rows in stripes:  # every pair twice, which changes no mean
        f = monomials(kernels[:, rows]) * off[rows][..., None]
        flat = f.flatten(0, 1)
        square, along = flat.T @ flat, flat.T @ products[rows].flatten()
        gathered, right = (square, along) if gathered is None or right is None else (gathered + square, right + along)
    assert gathered is not None and right is not None  # there is a stripe
    penalty = torch.full_like(right, ridge * pairs)
    penalty[0] = 0.0  # the constant is free
    inverse = torch.linalg.inv(gathered + penalty.diag())
    coefficients = inverse @ right
    z = torch.empty_like(products)
    for rows in stripes:
        f = monomials(kernels[:, rows])
        z[rows] = f @ coefficients
        if leave_out:
            leverage = 2 * (f @ inverse * f).sum(-1) * off[rows]  # of the pair and the pair turned round
            z[rows] = (z[rows] - leverage * products[rows]) / (1 - leverage)
    z = (z + z.T) / 2  # kernels that resemble one another leave rounding
    z.fill_diagonal_(1.0)
    if values is None:
        return z, None
    return z, torch.cat([monomials(part) @ coefficients for part in values.split(max(1, _TOGETHER // n), dim=1)])


def with_label_part(
    gram: Tensor, z: Tensor, cross: Tensor | None = None, z_cross: Tensor | None = None, weight: float | None = None
) -> LabelAware:
    r"""Add an estimate Z of the label products to a kernel, :math:`K + \lambda Z` (Chen, He & Su, 2020, eq. 5).

    Args:
        gram: the tangent kernel of the training points, (N, N).
        z: Z among them, (N, N).
        cross: the kernel of other points with them, (M, N).
        z_cross: Z of the others, (M, N).
        weight: lambda; by default :math:`0.1\,\overline{|K|}/\overline{|Z|}` over the training pairs.

    Returns:
        A :class:`LabelAware`. A large weight can make ``train`` indefinite.

    Raises:
        TypeError, ValueError: matrices that are not square, symmetric and finite, or of shapes that do not fit.

    Example:
        >>> sides = 2 * (y > 4) - 1
        >>> with_label_part(gram, label_products(gram, sides, gram, own=True)).train.shape
        torch.Size([32, 32])
    """
    gram, z = validate.gram(gram), validate.gram(z, "z")
    for name, given, shape in (
        ("z", z, gram.shape),
        ("cross", cross, (len(cross) if cross is not None else 0, len(gram))),
        ("z_cross", z_cross, cross.shape if cross is not None else None),
    ):
        if given is not None and given.shape != shape:
            raise ValueError(f"{name}: got shape {tuple(given.shape)}; wanted {shape and tuple(shape)}")
    if (cross is None) != (z_cross is None):
        raise ValueError("z_cross: got one of cross and z_cross; wanted both or neither")
    scale = float(0.1 * gram.abs().mean() / z.abs().mean()) if weight is None else float(weight)
    if cross is None or z_cross is None:
        return LabelAware(gram + scale * z, None, scale * z, None, scale)
    return LabelAware(gram + scale * z, cross + scale * z_cross, scale * z, scale * z_cross, scale)


def lantk_hr(
    gram: Tensor, y: Tensor, cross: Tensor | None = None, *, version: int = 1, weight: float | None = None, leave_out: bool = True
) -> LabelAware:
    r"""Compute LANTK-HR, :math:`K + \lambda Z`, see :func:`label_products` (Chen, He & Su, 2020, sec. 3).

    Args:
        gram: the tangent kernel of the training points, best its mean over initialisations, (N, N).
        y: labels, as in :func:`label_products`, (N,).
        cross: of other points with them, (M, N).
        version: 1 or 2.
        weight: lambda, as in :func:`with_label_part`.
        leave_out: a training pair does not see its own label product. Without it the training block is told its labels,
            which no other point is.

    Returns:
        A :class:`LabelAware`. A large weight can make ``train`` indefinite.

    Raises:
        As :func:`label_products`, and ValueError for a cross kernel of another width.

    Example:
        >>> sides, ntk = 2 * (y > 4) - 1, infinite.mlp(x, depth=1).ntk
        >>> kernel = lantk_hr(ntk, sides, infinite.mlp(x_test, x, depth=1).ntk)
        >>> kernel.train.shape, kernel.cross.shape
        (torch.Size([32, 32]), torch.Size([8, 32]))
    """
    gram = validate.gram(gram)
    cross = None if cross is None else validate.cross(cross, gram)
    z = label_products(gram, y, gram, version=version, own=leave_out)
    z_cross = None if cross is None else label_products(gram, y, cross, version=version)
    return with_label_part(gram, z, cross, z_cross, weight)


def agreement(y: Tensor, gram: Tensor) -> Tensor:
    """Return the products of all pairs of labels, see :func:`label_products`, (N, N), in the dtype and on the device of gram.

    Example:
        >>> agreement(torch.tensor([1, -1]), torch.eye(2))
        tensor([[ 1., -1.],
                [-1.,  1.]])
    """
    y = torch.as_tensor(y, device=gram.device)
    kinds = y.unique().tolist()
    if y.shape != (len(gram),) or len(kinds) < 2 or kinds not in ([-1, 1], list(range(len(kinds)))):
        found = f"{kinds[:5]} of shape {tuple(y.shape)}"
        raise ValueError(f"y: got {found}; wanted -1 and 1, or all of 0 to K - 1 with K > 1, ({len(gram)},)")
    return torch.where(y[:, None] == y, 1.0, -1 / (len(kinds) - 1)).to(gram.dtype)


def _weights(gram: Tensor, version: int) -> Tensor:
    if version == 1:
        return torch.ones_like(gram)
    if version != 2:
        raise ValueError(f"version: got {version!r}; wanted 1 or 2")
    factor = torch.linalg.cholesky(gram)
    inverse = torch.cholesky_inverse(factor)
    square = inverse @ inverse
    return (square - square.min()) / (square.max() - square.min())
