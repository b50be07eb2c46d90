"""Rows of a Gram matrix on demand, for algorithms that look at few of them, chosen as they go."""

import torch
from torch import Tensor, nn

from ..basics import validate
from ..tangents.features import Tangents, tangent_features, tangent_product
from ..tangents.probe import survey
from .engine import Cotangents
from .plan import default_memory, slices


class GramRows:
    r"""Rows of a symmetric Gram matrix, one at a time: ``rows(i)`` is its i-th row, (N,), and ``rows.diagonal`` its diagonal.

    For algorithms that look at few rows, chosen as they go. The tangent features of all samples are kept where they fit
    in ``memory``, and made again for each row where they do not.

    Args:
        model: as in :func:`gram_blocks`.
        x: (N, ...).
        c: cotangents (N, K), or a function from K to them.
        memory: bytes for the features; by default as in :func:`gram_blocks`.

    Raises:
        TypeError, ValueError: as :func:`gram_blocks`.

    Example:
        >>> rows = GramRows(model, x, c)
        >>> rows(3)[5] == rows(5)[3]
    """

    def __init__(self, model: nn.Module, x: Tensor, c: Cotangents, *, memory: int | None = None):
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
        memory = default_memory(c.device) if memory is None else validate.positive(memory, "memory")
        fits = size * len(x) <= memory
        self._slices = slices(len(x), max(1, min(256, memory // size)))
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
