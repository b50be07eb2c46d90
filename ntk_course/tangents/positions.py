"""Cotangents made of others: each position of an answer a row of its own, positions left out, rows added up."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..basics import validate
from .cotangents import Cotangent, PerSample, Summed, part


class _Made(PerSample):
    """A cotangent made of another one's rows and, where it is told apart by sample, a value of each sample."""

    def __init__(self, of: Cotangent, rule: Callable[[Tensor, Tensor, Tensor], Tensor], values, name: str):
        """Keep what it is made of; the rule takes logits, cotangents and values."""
        super().__init__(rule, values, name)
        self.of = _apart_already(of)

    def __call__(self, z: Tensor) -> Tensor:
        """Return the cotangents of a block."""
        return self.rule(z, self.of if isinstance(self.of, Tensor) else self.of(z), self.values)

    def __getitem__(self, rows) -> "_Made":
        """Return the cotangent of some of the samples."""
        return _Made(part(self.of, rows), self.rule, self.values[rows], self.name)

    @property
    def all_values(self) -> tuple[Tensor, ...]:
        """Everything that it knows of the samples."""
        of = self.of.all_values if isinstance(self.of, PerSample) else [self.of] if isinstance(self.of, Tensor) else []
        return (self.values, *of)

    def __repr__(self) -> str:
        """Name both."""
        return f"{self.rule.__name__.strip('_')}({self.of!r})"

    def checked(self, num_samples: int, z: Tensor) -> "_Made":
        """Return it with all values checked."""
        of = self.of.checked(num_samples, z) if isinstance(self.of, PerSample) else self.of
        values = super().checked(num_samples, z).values
        if self.rule is _masked and (values.dtype != torch.bool or values.shape[1:] != z.shape[1:-1]):
            wanted = (num_samples, *z.shape[1:-1])
            raise ValueError(
                f"{self.name}: got {values.dtype} of shape {tuple(values.shape)}; wanted bool {wanted}, positions that count"
            )
        return _Made(of, self.rule, values, self.name)


def _apart_already(c: Cotangent) -> Tensor | Callable[[Tensor], Tensor] | PerSample:
    if isinstance(c, Summed):
        raise TypeError(f"c: got {c!r}; wanted the rows as they are: sum them last")
    return c


def per_token(c: Cotangent) -> Cotangent:
    r"""Make each position of an answer (N, T, K), such as each token, a row of its own: R = T.

    The kernel of c adds up the positions of a sample, :math:`\sum_{tu} c_t^\top K_{tu}\, c_u`; this one keeps its terms apart,
    (N, M, T, T).

    Args:
        c: one cotangent a sample, (N, T, K): a function of the logits, :class:`PerSample` or a tensor.

    Returns:
        A cotangent (N, T, T, K).

    Raises:
        ValueError: when the logits are there: an answer without positions, or several cotangents a sample.

    Example:
        >>> per_token(ones)(torch.zeros(1, 3, 4)).shape
        torch.Size([1, 3, 3, 4])
    """
    if isinstance(c, PerSample):
        return _Made(c, _apart, c.values, c.name)
    c = _apart_already(c)
    return _each(c) if isinstance(c, Tensor) else _PerToken(c)


class _PerToken:
    """Those of a function of the logits alone."""

    def __init__(self, of: Callable[[Tensor], Tensor]):
        self.of = of

    def __call__(self, z: Tensor) -> Tensor:
        return _apart(z, self.of(z))


def _apart(z: Tensor, c: Tensor, values: Tensor | None = None) -> Tensor:
    if c.shape != z.shape:
        raise ValueError(f"c: got cotangents {tuple(c.shape)} for logits {tuple(z.shape)}; wanted one a sample to take apart")
    return _each(c)


def _each(c: Tensor) -> Tensor:
    if c.dim() < 3:
        raise ValueError(f"c: got shape {tuple(c.shape)}; wanted positions in it, (N, T, K), as in the logits")
    n, *positions, k = c.shape
    t = c[0, ..., 0].numel()
    each = torch.eye(t, dtype=c.dtype, device=c.device)[None, :, :, None] * c.reshape(n, 1, t, k)
    return each.view(n, t, *positions, k)


def stacked(c: Cotangent, name: str = "c") -> Cotangent:
    """Make the one cotangent of a sample a stack of one, R = 1, so that it can meet several on the other side of a matrix.

    Args:
        c: one cotangent a sample, (N, K): a function of the logits, :class:`PerSample` or a tensor.
        name: of the cotangent, for messages.

    Returns:
        A cotangent (N, 1, K).

    Raises:
        TypeError: no cotangent; ValueError, when the logits are there: several cotangents a sample.

    Example:
        >>> gram = Gram(model, x_test, stacked(logit(y_test)), x, basis)
        >>> gram.shape
        (8, 32, 1, 10)
    """
    if isinstance(c, Tensor):
        return c[:, None]
    if isinstance(c, Summed):
        raise TypeError(f"{name}: got {c!r}; wanted the rows as they are: sum them last")
    if not callable(c):
        raise TypeError(f"{name}: got {type(c).__name__}; wanted a torch.Tensor (N, K), or a function of the logits")
    alone = _Alone(name)
    if isinstance(c, PerSample):
        return _Made(c, alone, c.values, c.name)
    return _Stacked(c, alone)


class _Stacked:
    """That of a function of the logits alone."""

    def __init__(self, of: Callable[[Tensor], Tensor], alone: "_Alone"):
        self.of, self.alone = of, alone

    def __call__(self, z: Tensor) -> Tensor:
        return self.alone(z, self.of(z))


class _Alone:
    """The rule that makes one row of a sample's cotangent."""

    def __init__(self, name: str):
        self.__name__, self.name = "stacked", name

    def __call__(self, z: Tensor, c: Tensor, values: Tensor | None = None) -> Tensor:
        if c.shape != z.shape:
            raise ValueError(
                f"{self.name}: got cotangents {tuple(c.shape)} for logits {tuple(z.shape)}; wanted one for each sample"
            )
        return c[:, None]


def masked(c: Cotangent, mask: Tensor, name: str = "mask") -> Cotangent:
    """Leave out positions of an answer (N, T, K), such as padding: there the cotangent is 0, and labels may be anything.

    Args:
        c: any cotangent.
        mask: (N, T) bool, true where a position counts; numbers count where they are not 0, as in an attention mask.
        name: of the mask, for messages.

    Returns:
        A cotangent of the shape of c.

    Raises:
        ValueError: a mask of another shape, when the logits are there.

    Example:
        >>> masked(ones, torch.tensor([[True, False]]))(torch.zeros(1, 2, 4))
        tensor([[[0.5000, 0.5000, 0.5000, 0.5000],
                 [0.0000, 0.0000, 0.0000, 0.0000]]])
    """
    mask = validate.array(mask, name, "a mask (N, T)") != 0
    if isinstance(c, PerSample) and c.labels and c.values.shape == mask.shape:
        return PerSample(c.rule, torch.where(mask, c.values, validate.IGNORED), c.name, labels=True)
    return _Made(c, _masked, mask, name)


def _masked(z: Tensor, c: Tensor, mask: Tensor) -> Tensor:
    mask = mask[..., None]
    return c.masked_fill(~(mask if c.dim() == z.dim() else mask[:, None]), 0)


def summed(c: Cotangent) -> Summed:
    r"""Add the kernels of R cotangents a sample, :math:`\sum_r \langle\phi_{c_r}(x), \phi_{c'_r}(x')\rangle`, in one (N, M).

    Of :func:`ntk_course.basis` it is the trace of the matrix-valued eNTK, at no more than the price of its diagonal. R cotangents
    act as one whose features are R times as long.

    Args:
        c: R cotangents a sample.

    Example:
        >>> trace = Gram(model, x, summed(basis)).dense()
        >>> torch.allclose(trace, entk(model, x).diagonal(dim1=2, dim2=3).sum(2), rtol=1e-4)
        True
    """
    return Summed(c)
