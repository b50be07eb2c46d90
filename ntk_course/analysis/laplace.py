r"""Linearised Laplace: how far a trained network's logits could be off, by its own tangent kernel."""

import torch
from torch import Tensor, nn

from ..basics import validate
from ..basics.notes import note
from ..gram.operator import Gram, made_of
from ..kernels.bound import as_matrix
from ..models.choice import chosen_from
from ..tangents.cotangents import Cotangent, basis, fisher
from ..tangents.positions import stacked

# Share of a result that may be rounding before one is told.
_LOST = 1e-2


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
        **options: ``block_size``, ``memory``, ``output``, ``parameters`` of :class:`ntk_course.Gram`.

    A model that answers for positions, (N, T, K), has T K outputs; padding is left out by :func:`ntk_course.tangents.masked`, in the
    cotangent too. Where weights or samples change, what was worked out is worked out again.

    Raises:
        TypeError, ValueError: as :class:`ntk_course.Gram`; a cotangent with one row a sample.

    Example:
        >>> spread = Laplace(model, x)
        >>> covariance = spread.covariance(x_test, precision=1.0)
        >>> covariance.shape, bool((covariance.diagonal(dim1=1, dim2=2) >= 0).all())
        (torch.Size([8, 10, 10]), True)
    """

    def __init__(self, model: nn.Module, x: Tensor, cotangent: Cotangent = fisher, **options):
        """Check the arguments, and keep them."""
        self.model, self.x, self.cotangent, self.options = model, x, cotangent, options
        with validate.renamed(x1="x", c1="cotangent"):
            self._gram = Gram(model, x, cotangent, **options)
        if self._gram.ndim != 4:
            raise ValueError("cotangent: got one row a sample; wanted (N, R, K), whose products are the Hessian in the logits")
        self._found: tuple | None = None

    def _eigen(self) -> tuple[Tensor, Tensor]:
        """Work the eigenvalues out where that has not been done, or the weights, the samples or the cotangent have changed since."""
        now = made_of(self._gram)
        if self._found is None or self._found[0] != now:
            values, vectors = torch.linalg.eigh(as_matrix(self._gram.dense()).double())
            self._found = now, values.clamp(min=0), vectors
        return self._found[1], self._found[2]

    @property
    def values(self) -> Tensor:
        """Eigenvalues of the training points' kernel, (N R,), in float64."""
        return self._eigen()[0]

    def _resolved(self, delta: float, largest: float) -> None:
        """Warn where what is left of the prior is the difference of two numbers that are nearly the same."""
        lost = torch.finfo(self._gram.dtype).eps * largest / delta
        if lost > _LOST:
            note(
                f"precision: got {delta:.3g}, beside eigenvalues up to {largest:.3g}: in {self._gram.dtype} "
                f"about {min(lost, 1):.0%} of what is left may be rounding; a model in float64 has it better"
            )

    def covariance(self, asked: Tensor, precision: float) -> Tensor:
        r"""Return the covariance of the logits at points, (M, K, K), in the model's dtype.

        Args:
            asked: (M, ...).
            precision: delta, in units of one over the weights' square.

        Raises:
            ValueError: a precision that is not positive.
        """
        delta = validate.above_zero(precision, "precision")
        values, vectors = self._eigen()
        self._resolved(delta, float(values[-1]))
        with validate.renamed(x1="asked"):
            prior = Gram(self.model, asked, basis, **self.options).diagonal()
        cross = Gram(self.model, asked, basis, self.x, self.cotangent, **self.options).dense()  # (M, N, K, R)
        m, _, k, _ = cross.shape
        along = (as_matrix(cross).double() @ vectors).view(m, k, -1)
        known = (along / (delta + values)) @ along.transpose(1, 2)
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
        values, vectors = self._eigen()
        self._resolved(delta, float(values[-1]))
        measured, pushed = stacked(measured, "measured"), stacked(pushed, "pushed")
        with validate.renamed(x1="asked", c1="measured", c2="pushed"):
            own = Gram(self.model, asked, measured, self.x, pushed, **self.options).dense()[..., 0, 0]
        along = [
            Gram(self.model, of, c, self.x, self.cotangent, **self.options).dense().double().flatten(1) @ vectors
            for of, c in ((asked, measured), (self.x, pushed))  # against rows of the Hessian
        ]
        known = (along[0] / (delta + values)) @ along[1].T
        return ((own.double() - known) / delta).to(own.dtype)

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
        return float(log_likelihood) - delta * length / 2 - float((self.values / delta).log1p().sum()) / 2


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
