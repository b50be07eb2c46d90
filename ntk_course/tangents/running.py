"""Running a model without leaving a trace: its buffers and weights, the random state and the samples are as they were."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..basics import validate
from ..basics.samples import Batch
from .recurrent import unfused


class Traces(NamedTuple):
    """What a forward pass would leave behind.

    Attributes:
        tensors: names of the buffers, and of parameters, that it writes to or replaces.
        random: whether it draws random numbers.
        samples: whether it writes to its input.
        settings: names of the settings of modules that it changes, such as a counter or a cache; these stay changed.
    """

    tensors: frozenset[str] = frozenset()
    random: bool = False
    samples: bool = False
    settings: frozenset[str] = frozenset()


def everything(model: nn.Module) -> Traces:
    """Return all traces that a model could leave."""
    return Traces(frozenset(buffers(model)) | {name for name, _ in model.named_parameters()}, True, True)


def buffers(model: nn.Module) -> list[str]:
    """Name all buffers, also those that are None so far."""
    return [f"{name}.{own}".lstrip(".") for name, module in model.named_modules() for own in module._buffers]


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.layout != torch.strided:
        one, other = one.to_dense(), other.to_dense()
    return torch.equal(one, other)


@contextmanager
def untraced(model: nn.Module, traces: Traces) -> Iterator[set[str]]:
    """Undo what passes inside leave behind; what is yielded holds, in the end, the names of the tensors that changed."""
    before: dict[str, tuple] = {}
    for name in traces.tensors:
        where, _, attribute = name.rpartition(".")
        module = model.get_submodule(where)
        tensor = getattr(module, attribute)
        version, value = (None, None) if tensor is None else (tensor._version, tensor.detach().clone())
        before[name] = (module, attribute, tensor, version, value)
    changed: set[str] = set()
    with torch.random.fork_rng(_gpus(model), enabled=traces.random):
        try:
            yield changed
        finally:
            for name, (module, attribute, tensor, version, value) in before.items():
                now = getattr(module, attribute)
                if tensor is None and now is not None:
                    changed.add(name)
                    setattr(module, attribute, None)
                elif tensor is not None and (now is not tensor or tensor._version != version or not _equal(tensor, value)):
                    changed.add(name)
                    tensor.data.copy_(value)  # no write that the graph would take for one
                    setattr(module, attribute, tensor)


@contextmanager
def plainly(model: nn.Module) -> Iterator[None]:
    """Let attention and recurrent layers go their plain ways, for which forward mode and vmap have rules."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with unfused(model), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def random_state(device: torch.device) -> Tensor:
    """Return the state of the random numbers that a model on some device draws from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _gpus(model: nn.Module) -> list[int]:
    device = next(model.parameters()).device
    return [device.index or 0] if device.type == "cuda" else []


def run(model: nn.Module, x: Tensor | Batch, traces: Traces) -> Tensor:
    """Return the logits of samples x, with their graph, and undo what the pass leaves behind."""
    with untraced(model, traces), unfused(model):
        return validate.answer(model(x.clone() if traces.samples else x), len(x))


def in_rows(z: Tensor) -> Tensor:
    """Lay out the outputs of each sample in one axis, (n, K)."""
    return z if z.dim() == 2 else z.reshape(len(z), -1)
