r"""Learning with a given kernel: ridge regression, the dynamics of the linearised network, and how a kernel fits its labels."""

from typing import NamedTuple

import torch
from sklearn.preprocessing import KernelCenterer
from torch import Tensor
from torch.nn.functional import one_hot

from ..basics import validate
from .interactions import cosines


class Fit(NamedTuple):
    """Coefficients (N, K) of a kernel regression, and the ridge that was added to the diagonal."""

    coefficients: Tensor
    ridge: float

    def predict(self, cross: Tensor) -> Tensor:
        """Return predictions (M, K) from kernel values (M, N) with the training points."""
        return cross @ self.coefficients


def kernel_ridge(gram: Tensor, targets: Tensor, ridge: float = 0.0, attempts: int = 12) -> Fit:
    r"""Fit :math:`(K + \rho I)\,\alpha = Y` by Cholesky factorisation.

    The ridge is the one asked for where the factorisation succeeds. Otherwise it is the first of
    :math:`\epsilon, 10\epsilon, 100\epsilon, \dots` times the mean size of the diagonal with which it does, with the machine's
    :math:`\epsilon`: the least that makes the matrix numerically definite, within a factor of ten.

    Args:
        gram: (N, N).
        targets: (N, K) or (N,).
        ridge: rho, in the kernel's units.
        attempts: powers of ten to try before giving up.

    Returns:
        A :class:`Fit`, in the kernel's dtype, on its device.

    Raises:
        TypeError, ValueError: a Gram matrix that is not square, symmetric and finite, targets of another length, a negative
        ridge; torch.linalg.LinAlgError: no ridge tried made the matrix definite.

    Example:
        >>> kernel = Gram(model, x, ones)
        >>> fit = kernel_ridge(kernel.dense().double(), logit(y)(torch.zeros(32, 10)).double(), ridge=1e-3)
        >>> fit.predict(kernel.against(x_test, ones).dense().double()).argmax(1).shape
        torch.Size([8])
    """
    gram = validate.gram(gram)
    y = as_columns(targets, gram)
    ridge = validate.number(ridge, "ridge")
    unit = torch.finfo(gram.dtype).eps * gram.diagonal().abs().mean().item()
    for rho in [ridge, *(max(ridge, unit * 10**power) for power in range(attempts))]:
        shifted = gram.clone()
        shifted.diagonal().add_(rho)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        if not failed:
            return Fit(torch.cholesky_solve(y, factor).view(len(y), *targets.shape[1:]), float(rho))
    raise torch.linalg.LinAlgError(f"gram: got a matrix that is not positive definite, even with a ridge of {rho:.1e}")


def leave_one_out(gram: Tensor, targets: Tensor, ridge: float = 0.0) -> Tensor:
    r"""Predict every training point by the regression on all the others, :math:`y_i - \alpha_i / [(K + \rho I)^{-1}]_{ii}`.

    Args:
        gram: (N, N).
        targets: (N, K) or (N,).
        ridge: as in :func:`kernel_ridge`.

    Returns:
        Predictions, as targets, in the kernel's dtype.

    Raises:
        As :func:`kernel_ridge`.

    Example:
        >>> sides = 2.0 * (y > 4) - 1
        >>> leave_one_out(gram.double(), sides.double(), ridge=1e-3).shape
        torch.Size([32])
    """
    gram = validate.gram(gram)
    fit = kernel_ridge(gram, targets, ridge)
    inverse = inverse_diagonal(gram, fit.ridge)
    return targets.to(gram) - fit.coefficients / inverse.view(-1, *[1] * (targets.dim() - 1))


def inverse_diagonal(gram: Tensor, ridge: float) -> Tensor:
    r"""Return the diagonal of :math:`(K + \rho I)^{-1}`, (N,), of a matrix that is definite."""
    shifted = gram.clone()
    shifted.diagonal().add_(ridge)
    return torch.cholesky_inverse(torch.linalg.cholesky(shifted)).diagonal()


def gradient_flow(
    gram: Tensor, cross: Tensor, targets: Tensor, time: float, start: Tensor | None = None, start_cross: Tensor | None = None
) -> Tensor:
    r"""Return what a linearised network answers after training on the squared loss for a time (Lee et al., 2019, eq. 10-11).

    Gradient flow on :math:`\frac1{2}\|f - Y\|^2` moves the outputs at the training points by :math:`\dot f = -K(f - Y)`,
    so that :math:`f_t(x) = f_0(x) + k(x)^\top K^{-1}(I - e^{-Kt})(Y - f_0)`. For the mean loss put t/N; gradient descent
    with a small rate is the flow with t the rate times the number of steps.

    Args:
        gram: the tangent kernel of the training points, (N, N).
        cross: of the points asked about with the training points, (M, N).
        targets: Y, (N, K) or (N,).
        time: t, at least 0, or infinity.
        start: :math:`f_0` at the training points, as targets; 0 by default.
        start_cross: :math:`f_0` at the points asked about, (M, K) or (M,); 0 by default.

    Returns:
        (M, K) or (M,). Directions with eigenvalues below rounding do not move.

    Raises:
        TypeError, ValueError: shapes that do not fit, a negative time.

    Example:
        >>> kernel, targets = torch.tensor([[2.0, 1.0], [1.0, 2.0]]), torch.tensor([1.0, -1.0])
        >>> gradient_flow(kernel, kernel, targets, time=float("inf"))  # interpolates
        tensor([ 1.0000, -1.0000])
    """
    gram = validate.gram(gram)
    y = as_columns(targets, gram)
    if not time >= 0:
        raise ValueError(f"time: got {time}; wanted a number of at least 0")
    cross = validate.cross(cross, gram)
    if start is not None:
        y = y - as_columns(start, gram, "start")
    values, vectors = torch.linalg.eigh(gram)
    alive = values > len(gram) * torch.finfo(gram.dtype).eps * values[-1]
    safe = torch.where(alive, values, 1.0)
    # (1 - exp(-lambda t)) / lambda, without cancellation for small lambda t
    filtered = torch.where(alive, -torch.expm1(-safe * time) / safe, 0.0)
    change = (cross @ (vectors * filtered) @ (vectors.T @ y)).view(len(cross), *targets.shape[1:])
    return change if start_cross is None else start_cross + change


def alignment(gram: Tensor, y: Tensor, centred: bool = True) -> Tensor:
    r"""Measure how well a kernel agrees with labels, :math:`\langle K, YY^\top\rangle / (\|K\| \|YY^\top\|)`, in [-1, 1].

    Y are one-hot labels; with ``centred`` both matrices lose their row and column means first (Cortes et al., 2012),
    without it this is Cristianini et al. (2002).

    Args:
        gram: (N, N).
        y: labels (N,), at least two classes.
        centred: as above.

    Returns:
        A scalar tensor.

    Raises:
        TypeError, ValueError: a Gram matrix that is not square, symmetric and finite, labels that do not fit.

    Example:
        >>> bool(0 <= alignment(lpntk(model, x, y), y) <= 1)
        True
    """
    gram = validate.gram(gram)
    target = _one_hot(y, gram)
    wanted = target @ target.T
    if centred:
        gram, wanted = (torch.from_numpy(KernelCenterer().fit_transform(m.numpy(force=True))).to(m) for m in (gram, wanted))
    return (gram * wanted).sum() / (gram.norm() * wanted.norm())


def spectrum(gram: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return eigenvalues, the largest first, and which share of the targets lies along each eigenvector.

    The share :math:`\|v_i^\top Y\|^2 / \|Y\|^2` of a direction is learnt at the rate of its eigenvalue, so that targets along
    the first eigenvectors are learnt soon ("task overlap").

    Args:
        gram: (N, N).
        targets: (N, K) or (N,).

    Returns:
        Eigenvalues (N,) and shares (N,), which add up to one.

    Raises:
        TypeError, ValueError: a Gram matrix that is not square, symmetric and finite, targets of another length or all zero.

    Example:
        >>> values, shares = spectrum(gram.double(), logit(y)(torch.zeros(32, 10)).double())
        >>> bool(shares[:10].sum() <= shares.sum())
        True
    """
    gram = validate.gram(gram)
    y = as_columns(targets, gram)
    if not y.any():
        raise ValueError("targets: got zeros only; wanted some that are not")
    values, vectors = torch.linalg.eigh(gram)
    shares = (vectors.T @ y).square().sum(1) / y.square().sum()
    return values.flip(0), shares.flip(0)


def local_elasticity(gram: Tensor, y1: Tensor, y2: Tensor | None = None) -> Tensor:
    r"""Measure how much more a kernel relates samples of one class than of two, as a share (Chen, He & Su, 2020).

    :math:`\bar\kappa_= / (\bar\kappa_= + \bar\kappa_{\ne})`, the mean over pairs with one label against that over pairs with
    two: 1/2 for a kernel that does not tell classes apart. A square matrix (no ``y2``) is first scaled to a unit diagonal,
    and its diagonal left out; values between two sets are taken as they are.

    Args:
        gram: (N, N), or (N1, N2) with ``y2``.
        y1: labels of the rows.
        y2: labels of the columns.

    Returns:
        A scalar tensor; outside [0, 1] only where one of the means is negative.

    Raises:
        TypeError, ValueError: labels that do not fit, no pair of one kind.

    Example:
        >>> local_elasticity(entk(model, x).diagonal(dim1=2, dim2=3).sum(2), y).shape
        torch.Size([])
    """
    if y2 is None:
        values, columns = cosines(gram), y1
    else:
        validate.finite(gram, "gram")
        values, columns = gram, y2
    if values.shape != (len(y1), len(columns)):
        raise ValueError(f"gram: got shape {tuple(values.shape)}; wanted ({len(y1)}, {len(columns)}), as the labels")
    same = torch.as_tensor(y1)[:, None] == torch.as_tensor(columns)[None]
    other = ~same
    if y2 is None:
        same = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    for kind, mask in (("one label", same), ("two labels", other)):
        if not mask.any():
            raise ValueError(f"y1: got no pair with {kind}; wanted some of both kinds")
    within, between = values[same].mean(), values[other].mean()
    return within / (within + between)


def as_columns(targets: Tensor, gram: Tensor, name: str = "targets") -> Tensor:
    """Return targets (N, K) or (N,) as columns (N, K) like a kernel's numbers, after checking that there are as many as it has rows."""
    if not isinstance(targets, Tensor) or targets.dim() not in (1, 2) or len(targets) != len(gram):
        got = f"shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
        raise ValueError(f"{name}: got {got}; wanted ({len(gram)}, K) or ({len(gram)},)")
    validate.finite(targets, name)
    return targets.to(gram).reshape(len(gram), -1)


def _one_hot(y: Tensor, gram: Tensor) -> Tensor:
    classes = int(torch.as_tensor(y).max()) + 1
    y = validate.labels(y, len(gram), classes, gram)
    if len(y.unique()) < 2:
        raise ValueError(f"y: got {len(y.unique())} class; wanted at least two")
    return one_hot(y, classes).to(gram.dtype)
