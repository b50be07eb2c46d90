r"""What networks from many random starts answer, once trained: a Gaussian law, and which one depends on the start."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.special import log_ndtr

from ..basics import validate
from .regression import as_columns, gradient_flow, kernel_ridge


class Law(NamedTuple):
    """Gaussian answers at M points: means (M, K) or (M,), and the covariance (M, M) that each of K independent outputs has."""

    mean: Tensor
    covariance: Tensor

    @property
    def deviation(self) -> Tensor:
        """Standard deviations at the points, (M,)."""
        return self.covariance.diagonal().clamp(min=0).sqrt()

    def votes(self, nodes: int = 200) -> Tensor:
        r"""Return how often each output is the largest, (M, K): the shares of votes among infinitely many networks.

        :math:`P(k) = \int \varphi(t) \prod_{j \ne k} \Phi\big(t + (\mu_k - \mu_j)/\sigma\big)\, dt`, by the trapezoidal rule, whose error is
        that of rounding for 100 nodes and more; where the deviation is zero, the largest mean has all votes, or shares them with its equals.

        Raises:
            ValueError: a single output.

        Example:
            >>> Law(torch.tensor([[0.0, 0.0]]), torch.eye(1)).votes()
            tensor([[0.5000, 0.5000]])
        """
        if self.mean.dim() != 2 or self.mean.shape[1] < 2:
            raise ValueError(f"mean: got shape {tuple(self.mean.shape)}; wanted (M, K) with at least two outputs to choose from")
        mean, sigma = self.mean.double(), self.deviation.double()
        apart = (mean[:, :, None] - mean[:, None, :]) / torch.where(sigma > 0, sigma, 1.0)[:, None, None]  # of k, less that of j
        t = torch.linspace(-10, 10, nodes, dtype=torch.float64, device=mean.device)
        found = torch.zeros_like(mean)
        for node, weight in zip(t, (-t.square() / 2).exp(), strict=True):
            below = log_ndtr(node + apart)
            found += weight * (below.sum(2) - below.diagonal(dim1=1, dim2=2)).exp()
        found = found / found.sum(1, keepdim=True)
        best = (mean == mean.max(1, keepdim=True).values).double()
        return torch.where((sigma > 0)[:, None], found, best / best.sum(1, keepdim=True)).to(self.mean.dtype)


def trained_law(
    tangent: Tensor, start: Tensor, targets: Tensor, ridge: float = 0.0, noise: float = 0.0, time: float = math.inf
) -> Law:
    r"""Return the law of a linearised network's answers after training from a random start (Lee et al., 2019, cor. 1; He et al., 2020).

    With :math:`A = \Theta_{*X} (\Theta_{XX} + \rho I)^{-1}` a network that starts at :math:`f_0` ends at
    :math:`f_0(x_*) + A\,(Y + \epsilon - f_0(X))`; after a time t of gradient flow A has the factor
    :math:`I - e^{-(\Theta_{XX} + \rho I) t}` more, as in :func:`gradient_flow`. For a start with covariance K, and targets with noise of
    variance :math:`\sigma^2`, this has

    .. math:: \mu = A\, Y, \qquad
       S = K_{**} - A K_{X*} - K_{*X} A^\top + A\,(K_{XX} + \sigma^2 I)\, A^\top .

    The start chooses the law:

    ======================  =====================  ==================================================================
    tangent                 start                  law
    ======================  =====================  ==================================================================
    NTK                     NNGP                   an ensemble of wide networks, which is no posterior of any kernel
    NTK                     NTK                    with ridge = noise: the posterior of the NTK; :func:`ntk_course.models.restarted`
    NNGP                    NNGP                   with ridge = noise: the posterior of the NNGP; only the last layer is trained
    NTK                     0                      one function: networks that start at zero (:func:`ntk_course.models.scaled`)
    ======================  =====================  ==================================================================

    Args:
        tangent: Theta of the N training points, then of the M points asked about, (N + M, N + M); of the columns the first N are used.
        start: K of the same points, (N + M, N + M).
        targets: (N, K) or (N,).
        ridge: rho, in the tangent kernel's units.
        noise: variance of the noise that each network's targets have.
        time: t, at least 0; gradient descent with a small rate is the flow with t the rate times the number of steps.

    Returns:
        A :class:`Law` at the M points, in the tangent kernel's dtype, on its device.

    Raises:
        TypeError, ValueError: matrices that are not square, symmetric and finite or differ in size, no point asked about, targets longer
        than the matrix, a negative ridge, noise or time; torch.linalg.LinAlgError: as :func:`kernel_ridge`.

    Example:
        >>> kernels = infinite.mlp(torch.cat([x, x_test]).double(), depth=2)
        >>> law = trained_law(kernels.ntk, kernels.nngp, logit(y)(torch.zeros(32, 10)).double(), ridge=1e-3)
        >>> law.mean.shape, law.covariance.shape, law.votes().shape
        (torch.Size([8, 10]), torch.Size([8, 8]), torch.Size([8, 10]))
    """
    tangent, start = validate.gram(tangent, "tangent"), validate.gram(start, "start")
    if start.shape != tangent.shape:
        raise ValueError(f"start: got shape {tuple(start.shape)}; wanted {tuple(tangent.shape)}, as the tangent kernel's")
    n = len(targets) if isinstance(targets, Tensor) and targets.dim() else 0
    if not 0 < n < len(tangent):
        raise ValueError(f"targets: got {n}; wanted at least 1 and fewer than the {len(tangent)} points of the kernels")
    noise, ridge = validate.number(noise, "noise"), validate.number(ridge, "ridge")
    start = start.to(tangent)
    y = as_columns(targets, tangent[:n, :n])
    if time == math.inf:
        weights = kernel_ridge(tangent[:n, :n], tangent[:n, n:], ridge).coefficients.T  # A, (M, N)
    else:
        unit = torch.eye(n, dtype=tangent.dtype, device=tangent.device)
        weights = gradient_flow(tangent[:n, :n] + ridge * unit, tangent[n:, :n], unit, time)
    own, cross, learnt = start[n:, n:], weights @ start[:n, n:], start[:n, :n].clone()
    learnt.diagonal().add_(noise)
    covariance = own - cross - cross.T + weights @ learnt @ weights.T
    return Law((weights @ y).view(-1, *targets.shape[1:]), (covariance + covariance.T) / 2)
