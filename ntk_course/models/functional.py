"""A model as a function of its weights."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from ..basics.samples import Batch

Result = TypeVar("Result")


class _Decomposed(TorchFunctionMode):
    """Write out operations whose derivative vmap gets wrong, or forward mode lacks, in terms of others.

    ``prelu``: batched over samples, its backward pass returns the weight's gradient in another batch's layout (torch 2.13),
    a wrong number where there are as many samples as outputs and an error elsewhere. ``_weight_norm``: it has a rule for
    neither vmap nor forward mode. ``embedding``: sparse gradients have none at all.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        written = _WRITTEN_OUT.get(function, function)
        return written(*args, **(kwargs or {}))


def _prelu(input: Tensor, weight: Tensor) -> Tensor:
    along_channels = (-1,) + (1,) * (input.dim() - 2) if input.dim() > 1 else (-1,)
    return torch.where(input > 0, input, weight.view(along_channels) * input)


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    others = [d for d in range(v.dim()) if dim == -1 or d != dim % v.dim()]
    return v * (g / v.square().sum(others, keepdim=True).sqrt())


def _embedding(weight: Tensor, indices: Tensor, padding_idx: int = -1, scale: bool = False, sparse: bool = False) -> Tensor:
    return torch.embedding(weight, indices, padding_idx, scale, False)


def _looked_up(*args, sparse: bool = False, **kwargs) -> Tensor:
    return nn.functional.embedding(*args[:6], **kwargs)


def _bagged(*args, sparse: bool = False, **kwargs) -> Tensor:
    return nn.functional.embedding_bag(*args[:7], *((False, *args[8:]) if len(args) > 7 else ()), **kwargs)


_WRITTEN_OUT = {
    torch.embedding: _embedding,
    nn.functional.embedding: _looked_up,
    nn.functional.embedding_bag: _bagged,
    torch.prelu: _prelu,
    nn.functional.prelu: _prelu,
    Tensor.prelu: _prelu,
    torch._weight_norm: _weight_norm,
}


def call_with(model: nn.Module, weights: dict[str, Tensor], *x: Tensor | Batch) -> Tensor:
    """Run a model with other parameters and buffers in place of its own, and leave it as it was.

    As :func:`torch.func.functional_call`, which swaps a tensor once for every name; where one submodule goes by two names,
    the second swap takes the first's replacement for the original, and the model is left with it (PyTorch issue 164759).
    Here every slot is swapped once, and tied weights in several slots all get the same value. Operations whose derivative
    vmap gets wrong are written out in others.

    Args:
        model: any module.
        weights: by name; a tied tensor by any one of its names, those not named keep their values.
        *x: the model's arguments.

    Returns:
        The model's output.

    Example:
        >>> weights = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        >>> call_with(model, weights, x).abs().max().item()
        0.0
    """
    own = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    names = dict(own)
    given = {id(names[name]): value for name, value in weights.items()}
    slots: dict[tuple[int, str], tuple[str, Tensor]] = {}
    for name, tensor in own:
        module, _, attribute = name.rpartition(".")
        if id(tensor) in given:
            slots.setdefault((id(model.get_submodule(module)), attribute), (name, given[id(tensor)]))
    with _Decomposed():
        return functional_call(model, dict(slots.values()), x, tie_weights=False)


def ungraphed(call: Callable[[], Result]) -> Result:
    """Call what runs a model, without a graph; where its forward differentiates, and so needs one, with a graph.

    Example:
        >>> ungraphed(lambda: model(x)).requires_grad
        False
    """
    try:
        with torch.no_grad():
            return call()
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise
    with torch.inference_mode(False), torch.enable_grad():
        return call()


@torch.no_grad()
def assign(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """Copy values into a model's parameters, those not named keep theirs, and return the model.

    Example:
        >>> assign(mlp((64, 32, 10)), dict(model.named_parameters()))(x).equal(model(x))
        True
    """
    for name, value in weights.items():
        model.get_parameter(name).copy_(value)
    return model


@contextmanager
def only(model: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let only some of a model's trainable parameters count as trainable.

    Example:
        >>> with only(model, model[-1].parameters()):
        ...     [name for name, p in model.named_parameters() if p.requires_grad]
        ['3.weight', '3.bias']
    """
    kept = {id(p) for p in parameters}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in kept]
    for p in others:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in others:
            p.requires_grad_(True)
