r"""What kernel regression will generalise, from the kernel's spectrum: learnabilities, and the error they predict.

Bordelon, Canatar & Pehlevan (2020) and Canatar et al. (2021) derive the mean error over random training sets from the
eigenvalues of the kernel and the target's coefficients; Simon et al. (2023) rewrite it by *learnabilities*, a budget of n
that the eigenfunctions share. Jacot et al. (2020) estimate the same error from the training set alone.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..basics import validate
from .regression import inverse_diagonal, kernel_ridge


class LearningCurve(NamedTuple):
    """Predictions for one number of samples, averaged over the draws of the samples.

    Attributes:
        learnabilities: of the eigenfunctions (or groups), in [0, 1], (R,): the share of a coefficient that is learnt.
        constant: kappa, the eigenvalue that is learnt by half, in the kernel's units.
        overfitting: what the test error is multiplied by because the fit follows its sample, at least 1.
        test_error: mean squared error on new points, the noise of their targets included.
        training_error: mean squared error on the samples.
    """

    learnabilities: Tensor
    constant: float
    overfitting: float
    test_error: float
    training_error: float


def learning_curve(
    eigenvalues: Tensor,
    coefficients: Tensor,
    samples: int,
    *,
    ridge: float = 0.0,
    noise: float = 0.0,
    multiplicities: Tensor | None = None,
) -> LearningCurve:
    r"""Predict the error of kernel regression on random samples from the spectrum (Simon et al., 2023, sec. 4).

    With eigenvalues :math:`\lambda_i`, a target :math:`\sum_i v_i\,\phi_i` in eigenfunctions of unit mean square, n samples, the
    ridge :math:`\delta` and noise of variance :math:`\sigma^2`, let :math:`\kappa` solve

    .. math:: n = \sum_i \frac{\lambda_i}{\lambda_i + \kappa} + \frac\delta\kappa, \qquad
              \mathcal L_i = \frac{\lambda_i}{\lambda_i + \kappa} .

    Then the test error is :math:`\mathcal E = \frac{n}{n - \sum_i \mathcal L_i^2}\,\big(\sum_i (1 - \mathcal L_i)^2 v_i^2 + \sigma^2\big)`
    and the training error :math:`\big(\frac{\delta}{n\kappa}\big)^2\,\mathcal E`. Without a ridge learnabilities add up to n,
    whatever the kernel is: what one function gains another loses.

    Args:
        eigenvalues: of the kernel's operator under the distribution of inputs, (R,), not negative.
        coefficients: v, of the target, (R,). What lies outside these functions counts as noise.
        samples: n.
        ridge: delta, what is added to the diagonal of the Gram matrix.
        noise: sigma^2, variance of the noise on a target.
        multiplicities: (R,), how many eigenfunctions share each eigenvalue, as on a sphere; then v is the norm of each group's
            coefficients. One by default.

    Returns:
        A :class:`LearningCurve`, in the eigenvalues' dtype.

    Raises:
        TypeError, ValueError: shapes that differ, a negative eigenvalue, all of them 0, a multiplicity below 0, a negative ridge or
        noise, or, without a ridge, no fewer samples than eigenfunctions with positive eigenvalues.

    Example:
        >>> spectrum = 1.0 / torch.arange(1, 101, dtype=torch.float64) ** 2
        >>> curve = learning_curve(spectrum, torch.ones(100, dtype=torch.float64), 20)
        >>> round(float(curve.learnabilities.sum()), 6)
        20.0
    """
    lam = torch.as_tensor(eigenvalues)
    v = torch.as_tensor(coefficients).to(lam)
    if lam.dim() != 1 or lam.shape != v.shape or not lam.is_floating_point():
        raise ValueError(f"eigenvalues, coefficients: got {tuple(lam.shape)} and {tuple(v.shape)}; wanted the same (R,)")
    validate.finite(lam, "eigenvalues")
    if not len(lam) or float(lam.min()) < 0 or not float(lam.max()):
        raise ValueError("eigenvalues: got none above 0, or one below it; wanted numbers of at least 0")
    n = validate.positive(samples, "samples")
    ridge, noise = validate.number(ridge, "ridge"), validate.number(noise, "noise")
    many = torch.ones_like(lam) if multiplicities is None else torch.as_tensor(multiplicities).to(lam)
    if many.shape != lam.shape or not bool((many >= 0).all()):
        raise ValueError(f"multiplicities: got {tuple(many.shape)}, or one below 0; wanted ({len(lam)},) of at least 0")
    above = float(many[lam > 0].sum())
    if not ridge and n >= above:
        raise ValueError(f"samples: got {n} without a ridge for {above:g} eigenvalues above 0; wanted fewer, or a ridge")
    kappa = _constant(lam, many, n, ridge)
    learnt = lam / (lam + kappa)
    overfitting = n / (n - float(many @ learnt.square()))
    test = overfitting * (float(((1 - learnt) * v).square().sum()) + noise)
    return LearningCurve(learnt, kappa, overfitting, test, (ridge / (n * kappa)) ** 2 * test)


def risk_estimate(gram: Tensor, targets: Tensor, ridge: float) -> Tensor:
    r"""Estimate the test error of kernel ridge regression from its training set alone (Jacot et al., 2020, KARE).

    .. math:: \hat{\mathcal E} = \frac{\frac1n\, y^\top (K + \delta I)^{-2} y}{\big(\frac1n \mathrm{tr}\,(K + \delta I)^{-1}\big)^2} ,

    which is generalised cross-validation (Golub, Heath & Wahba, 1979): the training error, corrected by how much of it the fit
    could have followed.

    Args:
        gram: (N, N).
        targets: (N,) or (N, K).
        ridge: delta.

    Returns:
        The mean squared error expected on new points, () or (K,), in the kernel's dtype.

    Raises:
        As :func:`kernel_ridge`.

    Example:
        >>> risk_estimate(torch.eye(4), torch.tensor([1.0, -1.0, 1.0, -1.0]), 0.1)  # nothing is learnt of other points
        tensor(1.)
    """
    gram = validate.gram(gram)
    fit = kernel_ridge(gram, targets, ridge)
    return fit.coefficients.square().mean(0) / inverse_diagonal(gram, fit.ridge).mean() ** 2


def _constant(lam: Tensor, many: Tensor, n: int, ridge: float) -> float:
    """Find kappa: the sum over eigenvalues falls from their number to 0 as it grows, so bisection on its logarithm finds it."""
    low, high = math.log(float(lam[lam > 0].min())) - 60, math.log(float(many @ lam) + ridge) + 1
    for _ in range(200):
        middle = (low + high) / 2
        kappa = math.exp(middle)
        more = float(many @ (lam / (lam + kappa))) + ridge / kappa > n
        low, high = (middle, high) if more else (low, middle)
    return math.exp(high)
