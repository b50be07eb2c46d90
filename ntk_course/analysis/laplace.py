r"""Linearised Laplace: how far a trained network's logits could be off, by its own tangent kernel."""

import torch
from torch import Tensor, nn

from ..basics import validate
from ..gram.operator import Gram
from ..kernels.bound import as_matrix
from ..models.choice import chosen_from
from ..tangents.cotangents import Cotangent, basis, fisher
from ..tangents.positions import stacked


class Laplace:
    r"""The posterior of a trained network's linearisation, in function space (Immer, Korzepa & Bauer, 2021).

    With weights of prior :math:`\mathcal N(0, I/\delta)` and C the rows of the cotangent, :math:`C^\top C` the loss's Hessian in the logits,

    .. math:: \Sigma(x) = \tfrac1\delta \Big( K(x, x) - K(x, X)\, C^\top \big(\delta I + C K(X, X)\, C^\top\big)^{-1} C\, K(X, x) \Big)

    is the covariance of the logits, by the kernel alone: the matrix inverted has N R rows, where the one over weights has as many as weights.

    Args:
        model: trained, in eval mode where it has BatchNorm or Dropout; its trainable parameters count.
        x: training points (N, ...).
        cotangent: rows (N, R, K) whose products are the Hessian: :func:`ntk_course.tangents.fisher` for cross entropy;
            ``lambda z: basis(z) / sigma`` for the squared loss with noise of deviation sigma.
        **options: ``block_size``, ``memory``, ``parameters`` of :class:`ntk_course.Gram`.

    Raises:
        TypeError, ValueError: as :class:`ntk_course.Gram`; a cotangent with one row a sample.

    Example:
        >>> spread = Laplace(model, x)
        >>> covariance = spread.covariance(x_test, precision=1.0)
        >>> covariance.shape, bool((covariance.diagonal(dim1=1, dim2=2) >= 0).all())
        (torch.Size([8, 10, 10]), True)
    """

    def __init__(self, model: nn.Module, x: Tensor, cotangent: Cotangent = fisher, **options):
        """Compute the kernel of the training points, and its eigenvalues."""
        gram = Gram(model, x, cotangent, **options)
        if gram.ndim != 4:
            raise ValueError("cotangent: got one row a sample; wanted (N, R, K), whose products are the Hessian in the logits")
        self.model, self.x, self.cotangent, self.options = model, x, cotangent, options
        self.values, self.vectors = torch.linalg.eigh(as_matrix(gram.dense()).double())
        self.values = self.values.clamp(min=0)

    def covariance(self, asked: Tensor, precision: float) -> Tensor:
        r"""Return the covariance of the logits at points, (M, K, K), in the model's dtype.

        Args:
            asked: (M, ...).
            precision: delta, in units of one over the weights' square.

        Raises:
            ValueError: a precision that is not positive.
        """
        delta = validate.above_zero(precision, "precision")
        prior = Gram(self.model, asked, basis, **self.options).diagonal()
        cross = Gram(self.model, asked, basis, self.x, self.cotangent, **self.options).dense()  # (M, N, K, R)
        m, _, k, _ = cross.shape
        along = (as_matrix(cross).double() @ self.vectors).view(m, k, -1)
        known = (along / (delta + self.values)) @ along.transpose(1, 2)
        return ((prior.double() - known) / delta).to(prior.dtype)

    def influence(self, asked: Tensor, measured: Cotangent, pushed: Cotangent, precision: float) -> Tensor:
        r"""Return how an output at each point answers to more weight on each training sample, (M, N), in the model's dtype.

        An influence function (Koh & Liang, 2017) with the Gauss-Newton Hessian: at a minimum w of
        :math:`\sum_i L_i + \frac\delta2 \|w\|^2` a weight :math:`1 + \epsilon` of sample i moves w by
        :math:`-\epsilon H^{-1} \nabla L_i`, so that an output :math:`c^\top z(x)` has the slope

        .. math:: -\phi_c(x)^\top H^{-1} \nabla L_i = c^\top\, \Sigma(x, x_i)\, (-\partial L_i/\partial z):

        a covariance of this posterior, times the push of the sample. To first order, it is what the sample adds: the output less that of
        a network trained without it.

        Args:
            asked: (M, ...).
            measured: one cotangent for each of them, such as ``log_odds(labels)``, that says which output.
            pushed: one for each training sample, its push: ``loss_gradient(y)``.
            precision: delta, of the sum of losses; with the mean loss and a weight decay, N times the decay.

        Raises:
            ValueError: a precision that is not positive, several cotangents a sample.

        Example:
            >>> spread = Laplace(model, x)
            >>> spread.influence(x_test, ntk.logit(y_test), ntk.loss_gradient(y), precision=1.0).shape
            torch.Size([8, 32])
        """
        delta = validate.above_zero(precision, "precision")
        own = Gram(self.model, asked, measured, self.x, pushed, **self.options)
        if own.ndim != 2:
            raise ValueError("measured, pushed: got several cotangents a sample; wanted one for each")
        sides = ((asked, measured), (self.x, pushed))  # against rows of the Hessian
        along = [
            Gram(self.model, of, stacked(c), self.x, self.cotangent, **self.options).dense().double().flatten(1) @ self.vectors
            for of, c in sides
        ]
        known = (along[0] / (delta + self.values)) @ along[1].T
        return ((own.dense().double() - known) / delta).to(own.dtype)

    def log_evidence(self, log_likelihood: float, precision: float) -> float:
        r"""Return the Laplace approximation of the log probability of the labels, with which to choose the precision.

        :math:`\log p(Y \mid \hat w) - \frac\delta2 \|\hat w\|^2 - \frac12 \log\det(I + C K C^\top/\delta)`.

        Args:
            log_likelihood: of the training labels under the trained network, summed over samples.
            precision: delta.

        Raises:
            ValueError: a precision that is not positive.
        """
        delta = validate.above_zero(precision, "precision")
        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        names = chosen_from(self.model, self.options.get("parameters") or list(trained))
        length = sum(float(trained[name].detach().double().square().sum()) for name in names)
        return float(log_likelihood - delta * length / 2 - (self.values / delta).log1p().sum() / 2)


def averaged(z: Tensor, covariance: Tensor, draws: int = 1000, seed: int = 0) -> Tensor:
    r"""Average the softmax over Gaussian logits, :math:`\mathbb E\, \mathrm{softmax}(z + \epsilon)`, by drawing.

    Args:
        z: means (M, K).
        covariance: (M, K, K), positive semi-definite to rounding.
        draws: how many.
        seed: of the draws.

    Returns:
        Probabilities (M, K), in the dtype of z, on its device.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> averaged(torch.tensor([[4.0, 0.0]]), 100 * torch.eye(2)[None], draws=20_000).round(decimals=1)
        tensor([[0.6000, 0.4000]])
    """
    if covariance.shape != (*z.shape, z.shape[-1]):
        raise ValueError(f"covariance: got shape {tuple(covariance.shape)}; wanted {(*z.shape, z.shape[-1])}")
    values, vectors = torch.linalg.eigh(covariance.double())
    root = vectors * values.clamp(min=0).sqrt()[:, None, :]
    generator, total = torch.Generator().manual_seed(validate.seed(seed)), torch.zeros_like(z, dtype=torch.float64)
    for _ in range(validate.positive(draws, "draws")):
        noise = torch.randn(z.shape, generator=generator, dtype=torch.float64).to(z.device)
        total += (z + torch.einsum("mkr,mr->mk", root, noise)).softmax(1)
    return (total / draws).to(z.dtype)
