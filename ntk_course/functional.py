"""A model as a function of its weights."""

from torch import Tensor, nn
from torch.func import functional_call


def call_with(model: nn.Module, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """Run a model with other parameters and buffers in place of its own, and leave it as it was.

    As :func:`torch.func.functional_call`, which swaps a tensor once for every name; where one submodule goes by two names,
    the second swap takes the first's replacement for the original, and the model is left with it (PyTorch issue 164759).
    Here every slot is swapped once, and tied weights in several slots all get the same value.

    Args:
        model: any module.
        weights: by name; a tied tensor by any one of its names, those not named keep their values.
        x: the model's input.

    Returns:
        The model's output.

    Example:
        >>> call_with(model, {"0.weight": w, "0.bias": b}, x)
    """
    own = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    names = dict(own)
    given = {id(names[name]): value for name, value in weights.items()}
    slots = {}
    for name, tensor in own:
        module, _, attribute = name.rpartition(".")
        if id(tensor) in given:
            slots.setdefault((id(model.get_submodule(module)), attribute), (name, given[id(tensor)]))
    return functional_call(model, dict(slots.values()), (x,), tie_weights=False)
