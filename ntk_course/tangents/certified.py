"""What has been held against plain autograd once: blocks of samples, under a model as it was."""

from weakref import WeakKeyDictionary

from torch import Tensor, nn

from ..basics.fingerprints import checksum
from ..basics.samples import Batch, leaves
from ..basics.settings import settings, where_it_lies, without
from ..models.adapted import origin
from .running import Traces

# Keys of what was found right, for each model; forgotten when there are many.
_RIGHT: WeakKeyDictionary[nn.Module, set[tuple]] = WeakKeyDictionary()
_MOST = 2**14


def state(model: nn.Module) -> tuple:
    """Tell a model from itself after any change of its modules, weights, buffers or hooks."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = tuple(
        (id(module), vars(module).get("forward"), *(tuple(vars(module).get(kind) or ()) for kind in hooks))
        for module in model.modules()
    )
    return modules, tuple((name, where_it_lies(t), tuple(t._backward_hooks or ())) for name, t in tensors)


def key_of(model: nn.Module, x: Tensor | Batch, traces: Traces, *more) -> tuple:
    """Return what is remembered of a block of samples under a model as it is."""
    held = tuple(without(settings(model), traces.settings).items())
    return state(model), getattr(model, "output", None), held, tuple(checksum(t) for t in leaves(x)), *more


def known_right(model: nn.Module, key: tuple) -> bool:
    """Say whether this was found right before."""
    return key in _RIGHT.get(origin(model), ())


def found_right(model: nn.Module, key: tuple) -> None:
    """Remember that it is."""
    keys = _RIGHT.setdefault(origin(model), set())
    if len(keys) >= _MOST:
        keys.clear()
    keys.add(key)
