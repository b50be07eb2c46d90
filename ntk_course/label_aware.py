r"""Label-aware kernels: a tangent kernel plus terms that know the labels of the training set (Chen, He & Su, 2020).

For two classes, labels -1 and 1. LANTK-HR adds an estimate of the label product :math:`y y'`, regressed on the kernel itself;
LANTK-NTH adds what training would do to the kernel, from the first orders of the neural tangent hierarchy.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import jacrev, jvp, vmap

from . import validate
from .functional import call_with

# Evaluations of a Gram matrix above which the hierarchy asks before it starts.
_MOST_PAIRS = 2500


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


def hierarchy(model: nn.Module, x: Tensor, num_training: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Compute the first kernels of the neural tangent hierarchy of one network, by nested forward mode (Huang & Yau, 2020).

    :math:`K_2(x, x') = \langle\nabla f(x), \nabla f(x')\rangle,\quad K_3(x, x', a) = \langle\nabla K_2(x, x'), \nabla f(a)\rangle,
    \quad K_4(x, x', a, b) = \langle\nabla K_3(x, x', a), \nabla f(b)\rangle`, for a, b among the training points.

    Args:
        model: one output; every trainable parameter counts.
        x: (M, ...), the training points first.
        num_training: N of them.

    Returns:
        K2 (M, M), K3 (M, M, N), K4 (M, M, N, N), in the model's dtype.

    Raises:
        TypeError, ValueError: bad inputs, more than one output, or so many points that it would take hours, with the number
        of Gram matrices to differentiate.

    Example:
        >>> k2, k3, k4 = hierarchy(model, torch.cat([x, x_test]), len(x))
    """
    params = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    x = validate.inputs(x, validate.parameters(model)[0])
    if not 1 <= num_training <= len(x):
        raise ValueError(f"num_training: got {num_training}; wanted 1 to {len(x)}")
    if num_training**2 > _MOST_PAIRS:
        raise ValueError(
            f"num_training: got {num_training}, whose fourth-order kernel takes {num_training**2:,} derivatives of a Gram "
            f"matrix of {len(x)} points, {num_training**2 * len(x) ** 2:,} numbers; wanted at most {int(_MOST_PAIRS**0.5)}"
        )
    with torch.no_grad():
        if call_with(model, params, x[:1]).shape != (1, 1):
            raise ValueError("model: got several outputs; wanted one")

    def f(p, some):
        return call_with(model, p, some)[:, 0]

    def gram(p):
        rows = torch.cat([j.flatten(1) for j in jacrev(f)(p, x).values()], dim=1)
        return rows @ rows.T

    def gradient(p, one):
        return jacrev(lambda q: f(q, one[None])[0])(p)

    def third(p, one):
        return jvp(gram, (p,), (gradient(p, one),))[1]

    def fourth(a, b):
        return jvp(lambda p: third(p, a), (params,), (gradient(params, b),))[1]

    training = x[:num_training]
    with torch.no_grad():
        k3 = torch.stack([third(params, a) for a in training], dim=-1)
        k4 = torch.stack([vmap(lambda b, a=a: fourth(a, b), out_dims=-1, chunk_size=8)(training) for a in training], dim=2)
        return gram(params), k3, k4


def lantk_nth(k2: Tensor, k4: Tensor, y: Tensor) -> Tensor:
    r"""Compute LANTK-NTH: the kernel at the end of training, to the fourth order of the hierarchy (Chen, He & Su, 2020).

    Gradient flow on the squared loss from f = 0, a K3 that vanishes in the mean, a K4 that stays: with :math:`H = P D P^\top`,

    .. math:: K(x, x') + y^\top H^{-1} K_4 H^{-1} y - y^\top P Q P^\top y,\qquad
              Q_{ij} = \frac{(P^\top K_4 P D^{-1})_{ij}}{d_i + d_j} .

    It integrates :math:`\dot K_2 = \sum_a K_3 (y - f)_a` and :math:`\dot K_3 = \sum_b K_4 (y - f)_b`.

    Args:
        k2: the mean tangent kernel of all points, the N training points first, (M, M).
        k4: the mean fourth-order kernel, (M, M, N, N), see :func:`hierarchy`.
        y: labels of the training points, (N,).

    Returns:
        (M, M).

    Raises:
        TypeError, ValueError: shapes that do not fit; torch.linalg.LinAlgError: a training block that is singular.

    Example:
        >>> draws = [hierarchy(build(), x, n) for _ in range(100)]
        >>> lantk_nth(sum(d[0] for d in draws) / 100, sum(d[2] for d in draws) / 100, y)
    """
    k2, n = validate.gram(k2, "k2"), len(y)
    if k4.shape != (*k2.shape, n, n):
        raise ValueError(f"k4: got shape {tuple(k4.shape)}; wanted ({len(k2)}, {len(k2)}, {n}, {n}) for {n} labels")
    y = torch.as_tensor(y, dtype=k2.dtype, device=k2.device)
    d, p = torch.linalg.eigh(k2[:n, :n])
    if d[0] <= n * torch.finfo(d.dtype).eps * d[-1]:
        raise torch.linalg.LinAlgError(f"k2: got a training block with the eigenvalue {d[0]:.1e}; wanted positive definite")
    rotated = torch.einsum("ai,xyab,bj->xyij", p, k4, p)
    along = p.T @ y
    settled = torch.einsum("i,xyij,j->xy", along / d, rotated, along / d)
    moving = torch.einsum("i,xyij,j->xy", along, rotated / d / (d[:, None] + d), along)
    return k2 + settled - moving


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
