r"""Cotangents: what chooses a kernel. A cotangent is a function of the logits, and every named kernel picks one.

With :math:`\phi_c(x) = c^\top \partial z(x; w)/\partial w`, a kernel is :math:`\langle\phi_c(x), \phi_{c'}(x')\rangle`, and c is

    basis           the K unit vectors       eNTK, matrix valued
    ones            (1, .., 1) / sqrt(K)     pNTK
    labelled(y)     s(y) / sqrt(K)           lpNTK
    centred(y)      one_hot(y) - 1 / K       the forgetting variant, kappa tilde
    logit(y)        one_hot(y)               relations of single logits
    log_odds(y)     one_hot(y) - softmax of the others
                                             log p_y / (1 - p_y): attribution by TRAK
    loss_gradient   -dL/dz                   per-sample gradients of any loss: GraNd, TracIn
    fisher          sqrt(p_k) (e_k - p)      K rows a sample, whose outer products add up to the Fisher information

A function ``c(z) -> (n, K)``, or (n, R, K) for R rows of the matrix a sample, is one too: it sees the logits z (n, K) of a
block of samples, in whatever blocks they come, so each of its rows may depend on that row of z alone. One that needs more
than z of a sample, such as its label, is :class:`PerSample`. A tensor (N, K) or (N, R, K) stands for its rows.

A model may answer with more axes, such as logits (N, T, K) for T tokens. Then a cotangent has them too, (N, T, K) or
(N, R, T, K); labels are (N, T), with -100 where a token does not count. A sample's tokens are added up, unless

    per_token(c)        each token is a row of its own: R = T
    masked(c, mask)     tokens where the mask (N, T) is false do not count
    summed(c)           the R kernels of R rows are added: of basis, the trace of the eNTK
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..basics import validate
from ..training import losses

# Of the first sample's logits: stand-ins for those of other samples, of the same signs.
_SCALES = (1.0, 0.5, 0.75)
# Samples, spread over all, whose cotangents tell one function from another.
_LOOKED_AT = 64


class PerSample:
    """A cotangent that needs a value of each sample beside its logits: ``rule(z, values)``, of any block of the samples.

    Args:
        rule: from logits (n, K) and values (n, ...) to cotangents (n, K) or (n, R, K).
        values: (N, ...), one for each sample.
        name: of the values, for messages.
        labels: whether they are integer labels in [0, K), and are checked to be.

    Raises:
        TypeError, ValueError: when the logits are there: values of another length, or labels out of range.

    Example:
        >>> def rival(z, y):
        ...     return (torch.eye(3)[y] - torch.eye(3)[z.argmax(1)])
        >>> PerSample(rival, torch.tensor([1]))(torch.tensor([[0.0, 1.0, 2.0]]))
        tensor([[ 0.,  1., -1.]])
    """

    def __init__(self, rule: Callable[..., Tensor], values, name: str = "y", labels: bool = False):
        """Keep the rule and the values."""
        self.rule, self.values, self.name, self.labels = (
            rule,
            validate.array(values, name, "a value for each sample", rows=True),
            name,
            labels,
        )

    def __call__(self, z: Tensor) -> Tensor:
        """Return the cotangents of a block, given its logits (n, K) and its own values."""
        values = self.checked(len(z), z).values
        if not self.labels or z.dim() == 2:
            return self.rule(z, values)
        counted = values != validate.IGNORED  # each position is a sample of its own to the rule
        c = self.rule(z.flatten(0, -2), torch.where(counted, values, 0).flatten())
        c = c.masked_fill(~counted.view(-1, *[1] * (c.dim() - 1)), 0).unflatten(0, z.shape[:-1])
        return c if c.dim() == z.dim() else c.movedim(-2, 1)

    def __getitem__(self, rows) -> "PerSample":
        """Return the cotangent of some of the samples."""
        return PerSample(self.rule, self.values[rows], self.name, self.labels)

    @property
    def all_values(self) -> tuple[Tensor, ...]:
        """Everything that it knows of the samples."""
        return (self.values,)

    def __len__(self) -> int:
        """Return N."""
        return len(self.values)

    def __repr__(self) -> str:
        """Name the rule."""
        return f"{getattr(self.rule, '__name__', 'rule').strip('_')}({self.name})"

    def checked(self, num_samples: int, z: Tensor) -> "PerSample":
        """Return it with its values checked against N and logits z (n, ..., K)."""
        values, like = self.values, z
        if self.rule is _squared and z.shape[1:] == (1,):  # one output has no classes: these are targets
            return PerSample(_squared_of_targets, values.to(z.dtype), self.name).checked(num_samples, z)
        if self.labels:
            values = validate.labels(values, num_samples, z.shape[-1], z, self.name, tuple(z.shape[1:-1]))
        elif values.dim() == 0 or len(values) != num_samples:
            raise ValueError(f"{self.name}: got shape {tuple(values.shape)}; wanted a value for each of {num_samples} samples")
        else:
            validate.same_device(values, like, self.name)
        return PerSample(self.rule, values, self.name, self.labels)


class Summed:
    """R cotangents a sample whose kernels are added, see :func:`ntk_course.tangents.summed`."""

    def __init__(self, of: "Cotangent"):
        """Keep them."""
        self.of = of

    def __repr__(self) -> str:
        """Name them."""
        return f"summed({getattr(self.of, '__name__', self.of)})"


Cotangent = Tensor | Callable[[Tensor], Tensor] | PerSample | Summed


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
    y, num_classes = validate.array(y, "y", "integer class labels", rows=True), validate.positive(num_classes, "num_classes")
    return _signs(validate.labels(y, len(y), num_classes, y), num_classes, torch.float32)


def _signs(y: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    return torch.full((len(y), num_classes), -1.0, dtype=dtype, device=y.device).scatter_(1, y[:, None], 1.0)


def basis(z: Tensor) -> Tensor:
    r"""Return the K unit vectors for every sample, the cotangents of the matrix-valued empirical NTK (Guo et al., 2024, eq. 1).

    Args:
        z: logits (N, K).

    Returns:
        (N, K, K), in the dtype and on the device of z.

    Example:
        >>> basis(torch.zeros(1, 2))
        tensor([[[1., 0.],
                 [0., 1.]]])
    """
    k = z[0].numel()
    return torch.eye(k, dtype=z.dtype, device=z.device).view(k, *z.shape[1:]).expand(len(z), k, *z.shape[1:])


def ones(z: Tensor) -> Tensor:
    r"""Return :math:`(1, \dots, 1)/\sqrt K` for every sample, the cotangent of the pseudo-NTK (Mohamadi & Sutherland, 2022).

    Args:
        z: logits (N, K).

    Returns:
        (N, K), in the dtype and on the device of z.

    Example:
        >>> ones(torch.zeros(1, 4))
        tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
    """
    return torch.full_like(z, z.shape[-1] ** -0.5)


def fisher(z: Tensor) -> Tensor:
    r"""Return the K cotangents :math:`\sqrt{p_k}\,(e_k - p)`, a root of the Fisher information of a softmax output.

    Row k is the loss gradient for the label k, weighed by the root of its probability, so that over rows
    :math:`C^\top C = \mathrm{diag}(p) - p p^\top`, the Hessian of the cross entropy in the logits. The outer products of
    the features add up to the generalised Gauss-Newton matrix, which linearised Laplace inverts (Immer, Korzepa & Bauer, 2021).

    Args:
        z: logits (N, K), or (N, T, K) for T positions, each with K rows of its own.

    Returns:
        (N, K, K), or (N, T K, T, K), in the dtype and on the device of z.

    Raises:
        ValueError: a single logit.

    Example:
        >>> c = fisher(torch.zeros(1, 2))[0]
        >>> c.T @ c
        tensor([[ 0.2500, -0.2500],
                [-0.2500,  0.2500]])
    """
    if z.shape[-1] < 2:
        raise ValueError(f"fisher: got logits {tuple(z.shape)}; wanted at least two, of which a softmax makes probabilities")
    p = z.softmax(-1)
    c = torch.diag_embed(p.sqrt()) - p.sqrt()[..., None] * p[..., None, :]  # (N, ..., K, K): a position's labels, its logits
    if z.dim() == 2:
        return c
    k, positions = z.shape[-1], c.flatten(1, -3)
    apart = torch.diag_embed(positions.movedim(1, -1)).permute(0, 3, 1, 4, 2)  # rows of one position know no other
    return apart.reshape(len(z), -1, *z.shape[1:-1], k)


def labelled(y: Tensor, name: str = "y") -> PerSample:
    r"""Return the cotangent of the labelled pseudo-NTK, :math:`s(y)/\sqrt K` (Guo et al., 2024, eq. 3); see :func:`signs`.

    Args:
        y: integer labels (N,) in [0, K).
        name: of the labels, for messages.

    Returns:
        A function from logits (N, K) to (N, K), in their dtype and on their device.

    Raises:
        TypeError, ValueError: when the logits are there: labels that do not fit.

    Example:
        >>> labelled(torch.tensor([1]))(torch.zeros(1, 4))
        tensor([[-0.5000,  0.5000, -0.5000, -0.5000]])
    """
    return PerSample(_labelled, y, name, labels=True)


def _labelled(z: Tensor, y: Tensor) -> Tensor:
    return (_signs(y, z.shape[1], torch.float64) / z.shape[1] ** 0.5).to(z.dtype)


def centred(y: Tensor, name: str = "y") -> PerSample:
    r"""Return the cotangent :math:`\mathrm{onehot}(y) - 1/K`, the prediction error of a network that knows nothing yet.

    Its kernel predicts forgetting (Guo et al., 2024, App. B, kappa tilde).

    Args:
        y: integer labels (N,) in [0, K).
        name: of the labels, for messages.

    Returns:
        A function from logits (N, K) to (N, K), in their dtype and on their device.

    Raises:
        TypeError, ValueError: when the logits are there: labels that do not fit.

    Example:
        >>> centred(torch.tensor([1]))(torch.zeros(1, 4))
        tensor([[-0.2500,  0.7500, -0.2500, -0.2500]])
    """
    return PerSample(_centred, y, name, labels=True)


def _centred(z: Tensor, y: Tensor) -> Tensor:
    return one_hot(y, z.shape[1]).to(z.dtype) - 1 / z.shape[1]


def logit(y: Tensor, name: str = "y") -> PerSample:
    r"""Return the cotangent :math:`e_y` that picks the logit of each sample's own label (Guo et al., 2024, App. C).

    Args:
        y: integer labels (N,) in [0, K).
        name: of the labels, for messages.

    Returns:
        A function from logits (N, K) to (N, K), in their dtype and on their device.

    Raises:
        TypeError, ValueError: when the logits are there: labels that do not fit.

    Example:
        >>> logit(torch.tensor([1]))(torch.zeros(1, 4))
        tensor([[0., 1., 0., 0.]])
    """
    return PerSample(_logit, y, name, labels=True)


def _logit(z: Tensor, y: Tensor) -> Tensor:
    return one_hot(y, z.shape[1]).to(z.dtype)


def log_odds(y: Tensor, name: str = "y") -> PerSample:
    r"""Return the cotangent of the log odds of each sample's own label, :math:`\log p_y/(1 - p_y)` (Park et al., 2023, sec. 3.3).

    The odds are :math:`z_y - \log\sum_{k \ne y} e^{z_k}`, so it is :math:`e_y` less the softmax of the other logits: the loss gradient
    over :math:`1 - p_y`, which does not vanish where a sample is learnt.

    Args:
        y: integer labels (N,) in [0, K).
        name: of the labels, for messages.

    Returns:
        A function from logits (N, K) to (N, K), in their dtype and on their device.

    Raises:
        TypeError, ValueError: when the logits are there: labels that do not fit, a single logit.

    Example:
        >>> log_odds(torch.tensor([1]))(torch.zeros(1, 3))
        tensor([[-0.5000,  1.0000, -0.5000]])
    """
    return PerSample(_log_odds, y, name, labels=True)


def _log_odds(z: Tensor, y: Tensor) -> Tensor:
    if not z.is_floating_point():
        raise TypeError(f"log_odds: got logits of {z.dtype}; wanted floating-point numbers")
    if z.shape[1] < 2:
        raise ValueError(
            f"log_odds: got logits {tuple(z.shape)}; wanted at least two; a single logit is its own log odds, use ones"
        )
    own = one_hot(y, z.shape[1]).bool()
    return own.to(z.dtype) - z.masked_fill(own, -torch.inf).softmax(1)


def loss_gradient(y: Tensor, loss: str | Callable[[Tensor, Tensor], Tensor] = "cross_entropy", name: str = "y") -> PerSample:
    r"""Return the cotangent :math:`-\partial L(z, y)/\partial z`, so that the features are minus the per-sample loss gradients.

    The kernel's diagonal is the squared norm of GraNd (Paul et al., 2021), its entries are TracIn's (Pruthi et al., 2020).

    Args:
        y: integer labels (N,), for "squared" also real targets (N, K); for a function, targets (N, ...) of any kind that it takes.
        loss: "cross_entropy", whose cotangent is onehot(y) - softmax(z); "squared", half of the squared distance of z from
            the targets or from onehot(y); or a function of (z, y) that returns one loss for each sample, (n,).
        name: of the targets, for messages.

    Returns:
        A function from logits (N, K) to (N, K), in their dtype and on their device.

    Raises:
        TypeError, ValueError: an unknown loss; when the logits are there: labels that do not fit, a loss that is not (n,).

    Example:
        >>> loss_gradient(torch.tensor([1]))(torch.zeros(1, 4))
        tensor([[-0.2500,  0.7500, -0.2500, -0.2500]])
    """
    losses.known(loss)
    if callable(loss):
        return PerSample(_Slope(loss), y, name)
    real = loss == "squared" and validate.array(y, name, "targets", rows=True).is_floating_point()
    return PerSample(_squared_of_targets if real else _NAMED[loss], y, name, labels=not real)


def _cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    return losses.slopes("cross_entropy", z, y)


def _squared(z: Tensor, y: Tensor) -> Tensor:
    return losses.slopes("squared", z, y)


def _squared_of_targets(z: Tensor, y: Tensor) -> Tensor:
    return losses.slopes("squared", z, losses.targets(y, z, len(z), "squared"))


_NAMED = {"cross_entropy": _cross_entropy, "squared": _squared}


class _Slope:
    """Minus the gradient of a loss by its own derivative."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]):
        self.loss = loss
        self.__name__ = f"gradient of {getattr(loss, '__name__', 'a loss')}"

    def __call__(self, z: Tensor, y: Tensor) -> Tensor:
        return losses.slopes(losses.settled(self.loss, z[:1], y), z, y)


def checked(c: Cotangent, n: int, z: Tensor, name: str) -> tuple[Cotangent, int | None]:
    """Check a cotangent of n samples against the logits z (1, K) of the first, and return it with R, None for one a sample."""
    if isinstance(c, Summed):
        of, r = checked(c.of, n, z, name)
        if r is None:
            raise ValueError(f"{name}: got one cotangent a sample in summed(); wanted several, (N, R, K)")
        return Summed(of), r
    if isinstance(c, Tensor):
        c = validate.cotangents(c, n, tuple(z.shape[1:]), z, name)
        return c, c.shape[1] if c.dim() == 3 else None
    if isinstance(c, PerSample):
        c = c.checked(n, z)
    elif not callable(c):
        raise TypeError(f"{name}: got {type(c).__name__}; wanted a torch.Tensor (N, K), or a function of the logits")
    first = of_block(part(c, slice(0, 1)), z, name)
    if not _ours(c):
        scales = torch.tensor(_SCALES[:n], dtype=z.dtype, device=z.device)
        scaled = z * scales.view(-1, *[1] * (z.dim() - 1))
        rolled = torch.stack([row.roll(i, -1) for i, row in enumerate(scaled)])
        for some in (rolled, rolled.flip(0)):  # one of the two is out of any order
            _one_by_one(c, some, name)
    return c, first.shape[1] if first.dim() == 3 else None


def _ours(c: Cotangent) -> bool:
    """Say whether a cotangent is one of this file, each row of which is known to depend on its own row of the logits alone."""
    rule = c.rule if isinstance(c, PerSample) else c
    return rule in (ones, basis, fisher, _labelled, _centred, _logit, _log_odds, _squared_of_targets, *_NAMED.values())


def _one_by_one(c: Cotangent, z: Tensor, name: str) -> None:
    """Refuse a function whose cotangent of one sample depends on the others, or on chance: blocks would give other numbers."""
    together = of_block(part(c, slice(0, len(z))), z, name)
    alone = torch.cat([of_block(part(c, slice(i, i + 1)), z[i : i + 1], name) for i in range(len(z))])
    tolerance = 1e3 * torch.finfo(z.dtype).eps
    if together.shape != alone.shape or not torch.allclose(together, alone, rtol=tolerance, atol=tolerance):
        raise ValueError(
            f"{name}: got a function whose cotangent of one sample depends on the samples beside it, or on chance; "
            "wanted each row from that row of the logits alone"
        )


def part(c: Cotangent, rows) -> Cotangent:
    """Return the cotangent of some of the samples."""
    if isinstance(c, Summed):
        return Summed(part(c.of, rows))
    return c[rows] if isinstance(c, Tensor | PerSample) else c


def fits_any(c: Cotangent) -> bool:
    """Say whether it needs the logits alone, and so fits any samples."""
    return fits_any(c.of) if isinstance(c, Summed) else not isinstance(c, Tensor | PerSample)


def of_block(c: Cotangent, z: Tensor, name: str = "c") -> Tensor:
    """Return a block's cotangents, (n, K) or (n, R, K), given its logits; K counts the outputs of all axes."""
    if isinstance(c, Tensor):
        k = z[0].numel()
        return c.reshape(len(c), k) if c[0].numel() == k else c.reshape(len(c), -1, k)
    if isinstance(c, Summed):
        return of_block(c.of, z, name)
    with torch.no_grad():
        try:
            found = c(z.detach())
        except (RuntimeError, TypeError, IndexError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{name}: got {type(error).__name__} ({error}) from it for logits {tuple(z.shape)}; wanted a function of these that "
                "returns their cotangents"
            ) from error
        return validate.cotangents(found, len(z), tuple(z.shape[1:]), z, name)


def looked_at(n: int) -> Tensor:
    """Return the indices of some samples, spread over all, whose cotangents tell one function from another."""
    return torch.linspace(0, n - 1, min(n, _LOOKED_AT)).round().long()
