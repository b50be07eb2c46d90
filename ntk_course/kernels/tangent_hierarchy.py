r"""The neural tangent hierarchy: how training changes the tangent kernel itself (Huang & Yau, 2020), and LANTK-NTH.

:math:`K_2(x, x') = \langle\nabla f(x), \nabla f(x')\rangle,\quad K_3(x, x', a) = \langle\nabla K_2(x, x'), \nabla f(a)\rangle,
\quad K_4(x, x', a, b) = \langle\nabla K_3(x, x', a), \nabla f(b)\rangle`, for a, b among the training points. Under gradient
flow on the squared loss :math:`\dot K_2 = \sum_a K_3\,(y - f)_a` and :math:`\dot K_3 = \sum_b K_4\,(y - f)_b`.
"""

from itertools import combinations

import torch
from torch import Tensor, nn
from torch.func import jacrev, jvp, vmap

from ..basics import validate
from ..models.functional import call_with
from ..tangents.forward import forward_agrees
from .infinite import dense as infinite
from .infinite.orthants import positive_moments

# Evaluations of a Gram matrix above which the hierarchy asks before it starts, and numbers of a K4.
_MOST_PAIRS, _MOST_NUMBERS = 2500, 2**27
# Quadruples of points whose moments are computed at a time.
_TOGETHER = 2**15


def hierarchy(model: nn.Module, x: Tensor, num_training: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Compute the first kernels of the neural tangent hierarchy of one network, by nested forward mode (Huang & Yau, 2020).

    .. math:: K_2(x, x') &= \langle\nabla f(x), \nabla f(x')\rangle, \\
              K_3(x, x', a) &= \langle\nabla K_2(x, x'), \nabla f(a)\rangle, \\
              K_4(x, x', a, b) &= \langle\nabla K_3(x, x', a), \nabla f(b)\rangle

    for a, b among the training points.

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
        >>> k2, k3, k4 = hierarchy(infinite.network((64, 16, 1)), x[:6], 4)
        >>> k2.shape, k4.shape
        (torch.Size([6, 6]), torch.Size([6, 6, 4, 4]))
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
    if not forward_agrees(model, x):
        raise ValueError(
            "model: got a forward whose derivative is not its gradient (no_grad inside, a hook, a straight-through estimator), or "
            "has no rule for forward mode; wanted one that torch.func differentiates both ways"
        )

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
        >>> draws = [hierarchy(infinite.network((64, 16, 1)), x[:6], 4) for _ in range(3)]
        >>> lantk_nth(sum(d[0] for d in draws) / 3, sum(d[2] for d in draws) / 3, 2 * (y[:4] > 4) - 1).shape
        torch.Size([6, 6])
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


def two_layer_hierarchy(
    x: Tensor, num_training: int, width: int, *, w_std: float = 1.0, b_std: float = 0.0
) -> tuple[Tensor, Tensor]:
    r"""Compute the mean K2 and K4 over initialisations of a network with one hidden layer of ReLUs, in closed form.

    For :func:`ntk_course.kernels.infinite.network` of the sizes (d, m, 1), with
    :math:`\rho_{xy} = \sigma_w^2\,x \cdot y/d + \sigma_b^2` the covariance of a unit's inputs, and
    :math:`\mathbb 1` for "the unit is on at all four points",

    .. math:: \mathbb E K_4(x, y, z, v) = \frac{\sigma_w^4}m\Big\{& 2\rho_{xy}\mathbb E u_z u_v\mathbb 1
              + \rho_{xz}\mathbb E u_y u_v\mathbb 1 + \rho_{yz}\mathbb E u_x u_v\mathbb 1 \\
              &+ (2\rho_{xy}\rho_{zv} + \rho_{xz}\rho_{yv} + \rho_{yz}\rho_{xv})\,\mathbb E\mathbb 1\Big\} .

    The second derivative of the ReLU counts as 0, as in :func:`hierarchy`; K3 vanishes in the mean. The expectations are
    those of :func:`ntk_course.kernels.infinite.positive_moments`.

    Args:
        x: (M, ...), flattened, the training points first.
        num_training: N of them.
        width: m; K4 is proportional to 1/m.
        w_std: sigma_w.
        b_std: sigma_b.

    Returns:
        K2 (M, M) and K4 (M, M, N, N), for :func:`lantk_nth`, in x's dtype; computed in float64.

    Raises:
        TypeError, ValueError: bad inputs, or so many points that K4 would not fit, with its size.

    Example:
        >>> k2, k4 = two_layer_hierarchy(x[:6], 4, width=1000, w_std=2**0.5)
        >>> k2.shape
        torch.Size([6, 6])
    """
    validate.positive(width, "width")
    rows, n = validate.double(x, "x").flatten(1), num_training
    m = len(rows)
    if not 1 <= n <= m:
        raise ValueError(f"num_training: got {n}; wanted 1 to {m}")
    if m**2 * n**2 > _MOST_NUMBERS:
        raise ValueError(
            f"num_training: got {n} of {m} points, whose fourth-order kernel has {m**2 * n**2:,} numbers, "
            f"{m**2 * n**2 * 8 / 2**30:.1f} GiB; wanted at most {_MOST_NUMBERS:,}"
        )
    rho = w_std**2 * rows @ rows.T / rows.shape[1] + b_std**2
    k4 = rho.new_empty(m, m, n, n)
    (x_, y_), (z_, v_) = (torch.triu_indices(some, some, device=rho.device) for some in (m, n))
    pairs = torch.cartesian_prod(*(torch.arange(len(first), device=rho.device) for first in (x_, z_)))
    for a, b in (part.T for part in pairs.split(_TOGETHER)):
        x1, y1, z1, v1 = four = x_[a], y_[a], z_[b], v_[b]
        points = torch.stack(four, dim=1)
        probability, _, second = positive_moments(rho[points[:, :, None], points[:, None]])
        xy, xz, xv, yz, yv, zv = (rho[i, j] for i, j in combinations(four, 2))
        common = 2 * xy * second[:, 2, 3] + (2 * xy * zv + xz * yv + yz * xv) * probability
        for z2, v2, value in (
            (z1, v1, common + xz * second[:, 1, 3] + yz * second[:, 0, 3]),
            (v1, z1, common + xv * second[:, 1, 2] + yv * second[:, 0, 2]),
        ):
            k4[x1, y1, z2, v2] = k4[y1, x1, z2, v2] = value
    k2 = infinite.mlp(rows, depth=1, w_std=w_std, b_std=b_std).ntk
    return k2.to(x.dtype), (k4 * (w_std**4 / width)).to(x.dtype)
