"""A model along a line of weights: at many points of it in one batched pass."""

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..basics.samples import Batch, joined
from ..models.functional import assign
from .graph import names_of, read

# Layers that are linear in their weights.
LINEAR = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.Embedding,
)


def _is_linear(module: nn.Module) -> bool:
    return type(module) in LINEAR and "forward" not in vars(module)  # one's own forward is no such layer


def movable(model: nn.Module, x: Tensor | Batch) -> bool:
    """Say whether every trainable parameter is used by calls of linear layers alone, on samples first.

    The graph knows how often a parameter is used; where that differs from the calls of its layer, it is read elsewhere.

    Example:
        >>> movable(model, x)
        True
    """
    return all(_led_by_samples(model, joined([x[:1], x[-1:]] + [x[:1]] * more)) for more in (1, 3))


def _led_by_samples(model: nn.Module, few: Tensor | Batch) -> bool:
    calls: Counter[int] = Counter()
    sizes: set[int] = set()

    def note(module: nn.Module, args: tuple, out: Tensor) -> None:
        if len(args) == 1:
            calls.update(id(p) for p in module.parameters(recurse=False))
            sizes.add(len(args[0]))

    handles = [m.register_forward_hook(note, prepend=True) for m in model.modules() if _is_linear(m)]
    try:
        with torch.enable_grad():
            graph = read(model(few.clone()), names_of(model))
    finally:
        for handle in handles:
            handle.remove()
    return sizes <= {len(few)} and graph.counts == {i: calls[i] for i in graph.counts}


@contextmanager
def shifted(model: nn.Module, change: dict[str, Tensor], t: Tensor) -> Iterator[None]:
    r"""Let a model answer as at its weights plus :math:`t_n` times a change, with another t for every sample of a batch.

    A layer of :data:`LINEAR` is linear in its weights: at :math:`w + t v` it gives what it gives at w plus t times what it gives
    at v. Whatever lies between is left to the model, so all points of a line take one batched pass. Parameters that are used
    outside such layers do not move; the caller asks :func:`movable` whether there are any.

    Args:
        model: at the start of the line.
        change: v, by name; the parameters not named do not move.
        t: (N,), one for each sample of every call inside the context.

    Example:
        >>> change = {name: torch.ones_like(p) for name, p in model.named_parameters()}
        >>> with shifted(model, change, torch.tensor([0.0, 0.5, 1.0])):
        ...     model(x[:1].expand(3, -1, -1, -1)).shape
        torch.Size([3, 10])
    """
    still = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    other = assign(copy.deepcopy(model).requires_grad_(False), still | change)

    def hook_of(layer: nn.Module):
        # forward, so that no hook of the copy runs
        return lambda module, args, out: out + t.view(-1, *[1] * (out.dim() - 1)) * layer.forward(*args)

    # First among the hooks: the user's come after the layer as a whole.
    handles = [
        module.register_forward_hook(hook_of(other.get_submodule(name)), prepend=True)
        for name, module in model.named_modules()
        if _is_linear(module)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
