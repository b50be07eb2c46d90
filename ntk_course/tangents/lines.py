"""A model along a line of weights: at many points of it in one batched pass."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..models.functional import assign
from .layers import RULES


@contextmanager
def shifted(model: nn.Module, change: dict[str, Tensor], t: Tensor) -> Iterator[None]:
    r"""Let a model answer as at its weights plus :math:`t_n` times a change, with another t for every sample of a batch.

    A layer of :data:`ntk_course.tangents.layers.RULES` is linear in its weights: at :math:`w + t v` it gives what it gives at w plus
    t times what it gives at v. Whatever lies between is left to the model, so all points of a line take one batched pass.
    Parameters outside such layers do not move; the caller asks :func:`ntk_course.tangents.probe.probe` whether there are any.

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
        if type(module) in RULES
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
