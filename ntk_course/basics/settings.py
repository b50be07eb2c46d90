"""A model's settings: whatever its modules hold besides parameters, buffers and submodules, which a forward may read."""

from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from types import CellType, FunctionType

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


def settings(
    model: nn.Module, of_tensor: Callable[[Tensor], object] = where_it_lies, of_function: Callable = id
) -> dict[str, object]:
    """List all settings of a model by name, as values that compare equal while nothing has changed.

    Args:
        model: of whose modules.
        of_tensor: what stands for a tensor, or for numbers of NumPy.
        of_function: what stands for the code of a function; its defaults and what it closes over are told as other values are.

    Example:
        >>> settings(torch.nn.Dropout(0.1))["p"]
        0.1
    """
    found: dict[str, object] = {}
    told = _Teller(of_tensor, of_function)
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute not in _INTERNAL:
                found[f"{name}.{attribute}".lstrip(".")] = told(value)
    return found


class _Teller:
    """Tells values from others; an object that it has met is not looked into again."""

    def __init__(self, of_tensor: Callable[[Tensor], object], of_function: Callable):
        self.of_tensor, self.of_function = of_tensor, of_function
        self.seen: set[int] = set()

    def __call__(self, value, depth: int = _DEPTH):
        if value is None or isinstance(
            value, bool | int | float | complex | str | bytes | torch.dtype | torch.device | torch.Size
        ):
            return value
        if isinstance(value, Tensor):
            return self.of_tensor(value)
        if isinstance(value, np.ndarray):
            return self.of_tensor(torch.from_numpy(value.copy())) if value.dtype.kind in "fiub" else repr(value)
        name = getattr(value, "__qualname__", type(value).__qualname__)
        if depth == 0 or isinstance(value, nn.Module | type) or id(value) in self.seen:
            return name
        self.seen.add(id(value))
        return name, self._inside(value, depth - 1)

    def _inside(self, value, depth: int):
        if isinstance(value, FunctionType):
            cells = [_within(cell) for cell in value.__closure__ or ()]
            return self.of_function(value), self._all([*(value.__defaults__ or ()), *cells], depth)
        if isinstance(value, partial):
            return self(value.func, depth), self._all(value.args, depth), self(value.keywords, depth)
        if isinstance(value, list | tuple):
            return len(value), self._all(value, depth)
        if isinstance(value, set | frozenset):
            return len(value), self._all(sorted(value, key=repr), depth)
        if isinstance(value, Mapping):
            return tuple((str(key), self(item, depth)) for key, item in list(value.items())[:_LONG])
        return tuple((key, self(item, depth)) for key, item in getattr(value, "__dict__", {}).items())

    def _all(self, values: Sequence, depth: int) -> tuple:
        return tuple(self(value, depth) for value in values[:_LONG])


def _within(cell: CellType):
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def without(found: dict[str, object], names: Set[str]) -> dict[str, object]:
    """Leave out what a forward changes by itself."""
    return {name: value for name, value in found.items() if name not in names}
