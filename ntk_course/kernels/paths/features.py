"""Tangent features along a training path: at any of its weights, or averaged over a step, each sample at nodes of its own."""

import copy
from functools import cached_property

import torch
from torch import Tensor, nn

from ...models.functional import assign
from ...tangents.features import Tangents, numbers_of, tangent_features
from ...tangents.lines import shifted
from ...tangents.probe import Survey, survey
from ...training.path import TrainingPath
from .rules import Quadrature

# Bytes of the features at the nodes that are averaged in one pass.
_NODES = 2**28


class Features:
    """Tangent features of the path's output f at any weights, K rows a sample."""

    def __init__(self, path: TrainingPath, x: Tensor, pairs: float | None = None):
        """Survey the model once; both sides of a product need the same ``pairs``, see :func:`explicit_is_cheaper`."""
        last = [nn.LogSoftmax(1)] if path.loss == "log_softmax" else []
        self._inner, self._unflatten = copy.deepcopy(path.model), path.unflatten
        self._model, self._pairs = nn.Sequential(self._inner, *last), pairs or len(x) / 2
        self._known: Survey = survey(self._model, x, "x")
        self._x = x

    @cached_property
    def room(self) -> int:
        """Count the nodes of samples that one pass may have, so that their features fit in memory and in few passes."""
        one = numbers_of(self._known, self._model, self._pairs, self._known.num_outputs)
        return max(1, _NODES // ((one + self._x[0].numel()) * self._x.element_size()))

    @property
    def structured(self) -> bool:
        """Whether every trainable parameter belongs to a layer whose rule applies."""
        return self._known.covers(self._inner)

    def of(self, x: Tensor) -> "Features":
        """Return the features of other samples, of the same plan."""
        other = copy.copy(self)
        other._x = x
        return other

    def __call__(self, flat: Tensor) -> Tangents:
        """Return the features at flattened weights (d,)."""
        assign(self._inner, self._unflatten(flat.to(self._x.device)))
        k = self._known.num_outputs
        c = torch.eye(k, dtype=self._x.dtype, device=self._x.device).expand(len(self._x), k, k)
        return tangent_features(self._model, self._x, c, self._pairs, self._known)

    def averaged(self, start: Tensor, change: Tensor, rule: Quadrature) -> Tangents:
        r"""Average over nodes and weights (N, Q) on the line start + t change, each sample at its own weights.

        One batched pass serves many samples and nodes, see :func:`ntk_course.models.functional.shifted`.
        """
        together = max(1, self.room // len(self._x))
        parts = []
        for t, w in zip(rule.nodes.split(together, 1), rule.weights.split(together, 1), strict=True):
            with shifted(self._inner, self._unflatten(change), t.flatten()):
                parts.append(self.of(self._x.repeat_interleave(t.shape[1], 0))(start).averaged(w))
        return Tangents.added(parts)
