"""A model's settings: whatever its modules hold besides parameters, buffers and submodules, which a forward may read."""

from collections.abc import Callable, Mapping, Set

import numpy as np
import torch
from torch import Tensor, nn

# What every module has, and is no setting; "training" is one.
_INTERNAL = frozenset(vars(nn.Module())) - {"training"}
# How deep objects and containers are looked into, and how long a list is.
_DEPTH, _LONG = 4, 256


def where_it_lies(t: Tensor) -> tuple:
    """Tell a tensor from any other, and from itself once it was written to, without reading it."""
    try:
        at = t.data_ptr()
    except RuntimeError:  # a sparse tensor has no place of its own
        at = id(t)
    return at, 0 if t.is_inference() else t._version, t.requires_grad, t.shape, t.dtype


def settings(model: nn.Module, of_tensor: Callable[[Tensor], object] = where_it_lies) -> dict[str, object]:
    """List all settings of a model by name, as values that compare equal while nothing has changed.

    Args:
        model: of whose modules.
        of_tensor: what stands for a tensor, or for numbers of NumPy.

    Example:
        >>> settings(torch.nn.Dropout(0.1))["p"]
        0.1
    """
    found: dict[str, object] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute not in _INTERNAL:
                found[f"{name}.{attribute}".lstrip(".")] = _told(value, of_tensor, seen, _DEPTH)
    return found


def _told(value, of_tensor: Callable[[Tensor], object], seen: set[int], depth: int):
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device | torch.Size):
        return value
    if isinstance(value, Tensor):
        return of_tensor(value)
    if isinstance(value, np.ndarray):
        return of_tensor(torch.from_numpy(value.copy())) if value.dtype.kind in "fiub" else repr(value)
    if depth == 0 or isinstance(value, nn.Module | type) or callable(value) or id(value) in seen:
        return getattr(value, "__qualname__", type(value).__qualname__)
    seen.add(id(value))
    if isinstance(value, list | tuple | set | frozenset):
        items = list(value) if isinstance(value, list | tuple) else sorted(value, key=repr)
        return type(value).__name__, len(items), tuple(_told(item, of_tensor, seen, depth - 1) for item in items[:_LONG])
    if isinstance(value, Mapping):
        return tuple((str(key), _told(item, of_tensor, seen, depth - 1)) for key, item in list(value.items())[:_LONG])
    if hasattr(value, "__dict__"):
        return type(value).__qualname__, tuple((k, _told(v, of_tensor, seen, depth - 1)) for k, v in vars(value).items())
    return type(value).__qualname__


def without(found: dict[str, object], names: Set[str]) -> dict[str, object]:
    """Leave out what a forward changes by itself."""
    return {name: value for name, value in found.items() if name not in names}
