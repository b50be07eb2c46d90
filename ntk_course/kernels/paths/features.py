"""Tangent features along a training path: at any of its weights, or averaged over a step, each sample at nodes of its own."""

import copy
from functools import cached_property

import torch
from torch import Tensor, nn

from ...basics.samples import Batch, leaves
from ...models.functional import assign
from ...tangents.cotangents import basis
from ...tangents.features import Tangents, tangent_features
from ...tangents.layout import Layout
from ...tangents.lines import movable, shifted
from ...tangents.probe import probe
from ...training.path import TrainingPath
from .rules import Quadrature

# Bytes of the features at the nodes that are averaged in one pass.
_NODES = 2**28


class Features:
    """Tangent features of the path's output f at any weights, K rows a sample."""

    def __init__(self, path: TrainingPath, x: Tensor | Batch, pairs: float | None = None):
        """Probe the model and choose the layout once; other samples share it through :meth:`of`."""
        last = [nn.LogSoftmax(1)] if path.loss == "log_softmax" else []
        self._inner, self._unflatten = copy.deepcopy(path.model), path.unflatten
        self._model, self._x = nn.Sequential(self._inner, *last), x
        assign(self._inner, path.unflatten(path.weights[-1].to(x.device)))  # at the first, zeros hide what lies below them
        known = probe(self._model, x, "x")
        self._outputs, self.covered = known.num_outputs, movable(self._model, x)
        self._layout = Layout.choose(known, pairs or len(x) / 2, self._outputs)

    @cached_property
    def room(self) -> int:
        """Count the nodes of samples that one pass may have, so that their features fit in memory and in few passes."""
        one = self._layout.numbers(self._outputs)
        byte = self._layout.known.z.element_size()
        return max(1, _NODES // (one * byte + sum(t[0].numel() * t.element_size() for t in leaves(self._x))))

    def of(self, x: Tensor | Batch) -> "Features":
        """Return the features of other samples, of the same layout."""
        other = copy.copy(self)
        other._x = x
        return other

    def formed(self) -> "Features":
        """Return the features in which every gradient is formed."""
        other = copy.copy(self)
        other._layout = self._layout.forming()
        return other

    def __call__(self, flat: Tensor) -> Tangents:
        """Return the features at flattened weights (d,)."""
        assign(self._inner, self._unflatten(flat.to(self._x.device)))
        return tangent_features(self._model, self._x, basis, self._layout)

    def jacobian(self, flat: Tensor) -> Tensor:
        """Return the gradients at flattened weights in the order of these, (N, K, d); of what no sample reaches they are 0."""
        other = self.formed()
        found, layout = other(flat).dense_whole(), other._layout
        out = found.new_zeros(*found.shape[:2], len(flat))
        places = self._unflatten(torch.arange(len(flat), device=found.device))
        names = (*layout.small, *layout.large)
        where = torch.cat([places[name.removeprefix("0.")].flatten() for name in names])
        return out.index_copy_(2, where, found)

    def averaged(self, start: Tensor, change: Tensor, rule: Quadrature) -> Tangents:
        r"""Average over nodes and weights (N, Q) on the line start + t change, each sample at its own weights.

        One batched pass serves many samples and nodes, see :func:`ntk_course.models.functional.shifted`.
        """
        together = max(1, self.room // len(self._x))
        parts, rule = [], Quadrature(*(of.to(start.device) for of in rule))
        for t, w in zip(rule.nodes.split(together, 1), rule.weights.split(together, 1), strict=True):
            with shifted(self._inner, self._unflatten(change), t.flatten()):
                each = torch.arange(len(self._x), device=t.device).repeat_interleave(t.shape[1])
                parts.append(self.of(self._x[each])(start).averaged(w))
        return Tangents.added(parts)
