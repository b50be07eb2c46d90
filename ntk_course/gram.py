"""Gram matrices of tangent features, block by block: the one engine under every empirical kernel of the course."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from . import validate
from .tangents import Survey, Tangents, survey, tangent_features, tangent_product

# A cotangent for each sample, (N, K) or (N, R, K); or a function of K that makes them once K is known.
Cotangents = Tensor | Callable[[int], Tensor]


def gram_blocks(
    model: nn.Module,
    x1: Tensor,
    c1: Cotangents,
    x2: Tensor | None = None,
    c2: Cotangents | None = None,
    *,
    block_size: int | None = None,
    memory: int = 2 * 2**30,
) -> Iterator[tuple[slice, slice, Tensor]]:
    r"""Stream the Gram matrix :math:`\langle\phi_{c_n}(x_n), \phi_{c_m}(x_m)\rangle` in blocks, never holding all of it.

    Blocks cover every pair exactly once, in no promised order. Without x2 and c2 the matrix is symmetric: only half of
    it is computed, and each off-diagonal block is handed out a second time, transposed. Rows are worked through in
    stripes whose tangent features fit in ``memory``; columns stream past them.

    Args:
        model: gives logits (N, K); its trainable parameters are the ones differentiated.
        x1: (N, ...).
        c1: cotangents (N, K), or (N, R, K) for R rows of the matrix a sample; or a function from K to such a tensor.
        x2: (M, ...), or None for x1 against itself.
        c2: (M, K) or (M, S, K); given exactly when x2 is.
        block_size: samples a side of a block; by default up to 256 (1024 on a GPU), as ``memory`` allows.
        memory: bytes for the features of one stripe of rows (default 2 GiB).

    Yields:
        ``(rows, cols, block)``: two slices and a tensor (n, m), or (n, m, R, S) for stacked cotangents, in the model's
        dtype and on its device.

    Raises:
        TypeError, ValueError: bad shapes, dtypes, devices or values, a model in train mode with BatchNorm or Dropout.

    Example:
        >>> for rows, cols, block in gram_blocks(model, x, c):
        ...     largest[rows] = torch.maximum(largest[rows], block.amax(1))
    """
    if (x2 is None) != (c2 is None):
        raise ValueError(f"{'c2' if c2 is None else 'x2'}: got None; wanted x2 and c2 together, or neither")
    validate.per_sample(model)
    like = validate.parameters(model)[0]
    x1 = validate.inputs(x1, like, "x1")
    known = survey(model, x1, "x1")
    k, symmetric = known.num_outputs, x2 is None
    c1 = validate.cotangents(c1(k) if callable(c1) else c1, len(x1), k, like, "c1")
    if symmetric:
        x2, c2 = x1, c1
    else:
        x2 = validate.inputs(x2, like, "x2")
        c2 = validate.cotangents(c2(k) if callable(c2) else c2, len(x2), k, like, "c2")
    if x1.shape[1:] != x2.shape[1:]:
        raise ValueError(f"x2: got samples of shape {tuple(x2.shape[1:])}; wanted {tuple(x1.shape[1:])}, as in x1")
    if c1.dim() != c2.dim():
        raise ValueError(f"c2: got shape {tuple(c2.shape)}; wanted as many axes as c1 {tuple(c1.shape)}")
    if block_size is not None:
        validate.positive(block_size, "block_size")
    return _blocks(model, known, x1, c1, x2, c2, symmetric, block_size, validate.positive(memory, "memory"))


def _blocks(model, known: Survey, x1, c1, x2, c2, symmetric, block_size, memory) -> Iterator[tuple[slice, slice, Tensor]]:
    scalar = c1.dim() == 2
    if scalar:
        c1, c2 = c1.unsqueeze(1), c2.unsqueeze(1)
    pairs = len(x1) * len(x2) / (len(x1) + len(x2))

    def features(x: Tensor, c: Tensor, where: slice) -> Tangents:
        return tangent_features(model, x[where], c[where], pairs, known)

    # A sample's features are at most its gradients; only where these would not all fit is it worth a look at one sample.
    most = c1.shape[1] * sum(p.numel() for p in model.parameters() if p.requires_grad)
    if most * c1.element_size() * len(x1) > memory:
        most = features(x1, c1, slice(0, 1)).numel()
    fit = max(1, memory // (most * c1.element_size()))
    block_size = block_size or min(fit, 256 if x1.device.type == "cpu" else 1024)
    stripe = max(1, fit // block_size) * block_size
    columns = _slices(0, len(x2), block_size)
    for start in range(0, len(x1), stripe):
        rows = _slices(start, min(start + stripe, len(x1)), block_size)
        held = [features(x1, c1, r) for r in rows]
        for col in columns:
            if symmetric and col.start < start:
                continue
            inside = symmetric and col.start < rows[-1].stop
            column = held[rows.index(col)] if inside else features(x2, c2, col)
            for row, row_features in zip(rows, held, strict=True):
                if symmetric and row.start > col.start:
                    continue
                block = tangent_product(row_features, column).transpose(1, 2)
                if scalar:
                    block = block[..., 0, 0]
                yield row, col, block
                if symmetric and row != col:
                    yield col, row, block.transpose(0, 1) if scalar else block.transpose(0, 1).transpose(2, 3)


def _slices(start: int, stop: int, size: int) -> list[slice]:
    return [slice(i, min(i + size, stop)) for i in range(start, stop, size)]


class GramRows:
    r"""Rows of a symmetric Gram matrix, one at a time: ``rows(i)`` is its i-th row, (N,), and ``rows.diagonal`` its diagonal.

    For algorithms that look at few rows, chosen as they go. The tangent features of all samples are kept where they fit
    in ``memory``, and made again for each row where they do not.

    Args:
        model: as in :func:`gram_blocks`.
        x: (N, ...).
        c: cotangents (N, K), or a function from K to them.
        memory: bytes for the features (default 2 GiB).

    Raises:
        TypeError, ValueError: as :func:`gram_blocks`.

    Example:
        >>> rows = GramRows(model, x, c)
        >>> rows(3)[5] == rows(5)[3]
    """

    def __init__(self, model: nn.Module, x: Tensor, c: Cotangents, *, memory: int = 2 * 2**30):
        """Check the input, find the diagonal, and keep the features if they fit."""
        validate.per_sample(model)
        like = validate.parameters(model)[0]
        self._x, self._model = validate.inputs(x, like), model
        self._known = survey(model, self._x)
        k = self._known.num_outputs
        c = validate.cotangents(c(k) if callable(c) else c, len(x), k, like)
        if c.dim() != 2:
            raise ValueError(f"c: got shape {tuple(c.shape)}; wanted ({len(x)}, {k}), one cotangent a sample")
        self._c = c[:, None]
        size = self._features(slice(0, 1)).numel() * c.element_size()
        fits = size * len(x) <= validate.positive(memory, "memory")
        self._slices = _slices(0, len(x), max(1, min(256, memory // size)))
        parts, diagonal = [], []
        for where in self._slices:
            part = self._features(where)
            diagonal += [tangent_product(s, s)[:, 0, :, 0].diagonal() for s in part.split(16)]
            parts += [part] if fits else []
        self.diagonal = torch.cat(diagonal)
        self._held = Tangents.join(parts) if fits else None

    def __len__(self) -> int:
        return len(self._x)

    def __call__(self, i: int) -> Tensor:
        """Return row i, (N,), in the model's dtype and on its device."""
        if not 0 <= i < len(self):
            raise ValueError(f"i: got {i}; wanted a row from 0 to {len(self) - 1}")
        if self._held is not None:
            return tangent_product(self._held.samples(slice(i, i + 1)), self._held)[0, 0, :, 0]
        one = self._features(slice(i, i + 1))
        return torch.cat([tangent_product(one, self._features(where))[0, 0, :, 0] for where in self._slices])

    def _features(self, where: slice) -> Tangents:
        return tangent_features(self._model, self._x[where], self._c[where], len(self) / 2, self._known)


def gram(
    model: nn.Module, x1: Tensor, c1: Cotangents, x2: Tensor | None = None, c2: Cotangents | None = None, **blocks
) -> Tensor:
    """Assemble the whole Gram matrix from its blocks; arguments as in :func:`gram_blocks`.

    Returns:
        (N, M), or (N, M, R, S) for stacked cotangents, in the model's dtype and on its device.

    Example:
        >>> gram(model, x, c).shape
        torch.Size([64, 64])
    """
    size = (len(x1), len(x1 if x2 is None else x2))
    out = None
    for rows, cols, block in gram_blocks(model, x1, c1, x2, c2, **blocks):
        if out is None:
            out = block.new_empty(*size, *block.shape[2:])
        out[rows, cols] = block
    return out
