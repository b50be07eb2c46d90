"""Where a network is not smooth: which side of its kinks every unit of a sample is on, whatever operation has them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ...basics.samples import Batch
from ...models.functional import call_with

# Roundings by which equal numbers differ; and those that came from different places of an image.
_SLACK, _SLACK_OF_PLACES = 8, 1024


class Met(NamedTuple):
    """What one call of an operation with kinks met.

    Attributes:
        codes: (N, units), which smooth piece each unit is on.
        input: (N, units), what is compared with 0, where the operation has one kink, at 0; else None.
    """

    codes: Tensor
    input: Tensor | None = None


def _sides(h: Tensor, *kinks: float) -> Met:
    codes = torch.stack([h > k for k in kinks]).sum(0)
    return Met(codes, h if kinks == (0.0,) else None)


def _at(*kinks: float) -> Callable[..., Met]:
    return lambda h, *args, **kwargs: _sides(h, *kinks)


def _hardtanh(h: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Met:
    return _sides(h, min_val, max_val)


def _threshold(h: Tensor, threshold: float, value: float, inplace: bool = False) -> Met:
    return _sides(h, threshold)


def _shrink(h: Tensor, lambd: float = 0.5) -> Met:
    return _sides(h, -lambd, lambd)


def _clamp(h: Tensor, min: Any = None, max: Any = None) -> Met:
    codes = torch.zeros_like(h, dtype=torch.long)
    for bound in (min, max):
        codes = codes if bound is None else codes + (h > bound)
    return Met(codes)


def _bound(h: Tensor, bound: Any = None, *, other: Any = None, min: Any = None, max: Any = None) -> Met:
    return _clamp(h, next(b for b in (bound, other, min, max) if b is not None))


def _compared(h: Any, other: Any) -> Met | None:
    tensors = [t for t in (h, other) if isinstance(t, Tensor)]
    return Met(torch.as_tensor(h > other)) if any(t.is_floating_point() for t in tensors) else None


def _extreme(h: Tensor, dim: Any = None, keepdim: bool = False, *, least: bool = False, other: Any = None) -> Met:
    if isinstance(dim, Tensor) or other is not None:
        return Met(h > (other if other is not None else dim))
    h = -h if least else h
    dims = range(1, h.dim()) if dim is None else [dim] if isinstance(dim, int) else dim
    return Met(_first_largest(h, tuple(d % h.dim() for d in dims)))


def _least(*args: Any, **kwargs: Any) -> Met:
    return _extreme(*args, least=True, **kwargs)


def _first_largest(h: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Find which entry along some axes is the largest, the first where several are equal up to rounding."""
    slack = _SLACK * torch.finfo(h.dtype).eps * h.detach().abs().flatten(1).amax(1) if h.dim() > 1 else h.new_zeros(len(h))
    near = h >= h.amax(dims, keepdim=True) - slack.view(-1, *[1] * (h.dim() - 1))
    kept = [d for d in range(h.dim()) if d not in dims]
    return near.permute(*kept, *dims).flatten(len(kept)).to(torch.uint8).argmax(-1)


def _order(h: Tensor, *args: Any, **kwargs: Any) -> Met:
    return Met(h.argsort(-1))


def _pooled(dims: int) -> Callable[..., Met]:
    pool = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}[dims]

    def winners(h, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False) -> Met:
        if dims == 2 and not ceil_mode:
            return Met(_winners(h, kernel_size, stride or kernel_size, padding, dilation))
        return Met(pool(h, kernel_size, stride, padding, dilation, ceil_mode, return_indices=True)[1])

    return winners


def _winners(h: Tensor, kernel_size, stride, padding, dilation) -> Tensor:
    """Find which input each window picks, the first where several are equal up to the rounding of different places.

    On a uniform background all inputs of a window are equal, and rounding would choose another one at every t.
    """
    up, left = (padding,) * 2 if isinstance(padding, int) else (*padding, *padding)[:2]
    padded = nn.functional.pad(h, (left, left, up, up), value=torch.finfo(h.dtype).min)
    windows = nn.functional.unfold(padded, kernel_size, dilation, 0, stride)
    windows = windows.unflatten(1, (h.shape[1], -1))  # (N, channels, inputs, windows)
    slack = _SLACK_OF_PLACES * torch.finfo(h.dtype).eps * h.abs().amax((1, 2, 3))
    near = windows >= windows.amax(2, keepdim=True) - slack.view(-1, 1, 1, 1)
    return near.to(torch.uint8).argmax(2)


def _adaptive(dims: int) -> Callable[..., Met]:
    pool = {1: functional.adaptive_max_pool1d, 2: functional.adaptive_max_pool2d, 3: functional.adaptive_max_pool3d}[dims]
    return lambda h, output_size, return_indices=False: Met(pool(h, output_size, return_indices=True)[1])


# By the name of the operation, as a function, a method or in place.
_KINKED: dict[str, Callable[..., Met | None]] = {
    **dict.fromkeys(
        ("relu", "leaky_relu", "prelu", "rrelu", "abs", "absolute", "__abs__", "elu", "selu", "celu", "sign"), _at(0.0)
    ),
    "relu6": _at(0.0, 6.0),
    "hardswish": _at(-3.0, 3.0),
    "hardsigmoid": _at(-3.0, 3.0),
    "hardtanh": _hardtanh,
    "threshold": _threshold,
    **dict.fromkeys(("softshrink", "hardshrink"), _shrink),
    **dict.fromkeys(("clamp", "clip"), _clamp),
    **dict.fromkeys(("clamp_min", "clamp_max", "maximum", "minimum", "fmax", "fmin"), _bound),
    **dict.fromkeys(("gt", "lt", "ge", "le", "__gt__", "__lt__", "__ge__", "__le__", "greater", "less"), _compared),
    **dict.fromkeys(("max", "amax", "argmax"), _extreme),
    **dict.fromkeys(("min", "amin", "argmin"), _least),
    **dict.fromkeys(("sort", "argsort", "topk", "median"), _order),
    **{f"max_pool{d}d{s}": _pooled(d) for d in (1, 2, 3) for s in ("", "_with_indices")},
    **{f"adaptive_max_pool{d}d{s}": _adaptive(d) for d in (1, 2, 3) for s in ("", "_with_indices")},
}


class _Watch(TorchFunctionMode):
    def __init__(self, seen: list[Met]):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        kinks = _KINKED.get(name) or _KINKED.get(name.rstrip("_"))
        if kinks is not None:
            found = kinks(*_in_place(args, kwargs or {}), **_named(kwargs or {}))
            if found is not None and found.codes.dim():
                self.seen.append(found)
        return function(*args, **(kwargs or {}))


def _in_place(args: tuple, kwargs: dict[str, Any]) -> tuple:
    """Put what an operation works on first, where it was given by name."""
    return (kwargs["input"], *args) if "input" in kwargs else args


def _named(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Give the other arguments the names of torch, where NumPy's were used."""
    return {_OTHER_NAMES.get(name, name): value for name, value in kwargs.items() if name not in ("input", "out")}


_OTHER_NAMES = {"axis": "dim", "keepdims": "keepdim", "a_min": "min", "a_max": "max"}


@contextmanager
def watched() -> Iterator[list[Met]]:
    """Collect what the operations with kinks meet, in the order of their calls: by module, function or method.

    Comparisons of real numbers are among them, so that ``torch.where(x > 0, ...)`` is.

    Example:
        >>> with watched() as seen:
        ...     torch.tensor([[-1.0, 2.0]]).clamp(min=0).sum()
        tensor(2.)
        >>> seen[0].codes
        tensor([[0, 1]])
    """
    seen: list[Met] = []
    with _Watch(seen):
        yield seen


def activation_pattern(model: nn.Module, params: dict[str, Tensor], x: Tensor | Batch) -> tuple[Tensor, ...]:
    """Record which side of its kink every unit of one sample is on, and which input each max pooling picks.

    Args:
        model: with kinks in any operation: ReLU and its like, absolute values, clamps, comparisons, maxima, max poolings.
        params: by name, of one weight state.
        x: one sample (...).

    Returns:
        A tuple of integer tensors, one for each call of such an operation.

    Example:
        >>> activation_pattern(torch.nn.ReLU(), {}, torch.tensor([-1.0, 2.0]))
        (tensor([0, 1]),)
    """
    with watched() as seen:
        call_with(model, params, x.map(lambda t: t[None]) if isinstance(x, Batch) else x[None])
    return tuple(met.codes.flatten().long() for met in seen)
