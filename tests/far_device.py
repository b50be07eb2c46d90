"""A device that is not the CPU, made of the CPU: it holds tensors of its own, refuses to mix them with others, and computes.

``far`` is to tests what "cuda" is to a GPU. A tensor there wraps one of the CPU (`near`) that nothing but this file can reach:
whatever would fail on a GPU since two tensors lie on two devices, since a factory forgot ``device=`` or since NumPy cannot read
a GPU's memory, fails here as well, in torch's own words. What a GPU does otherwise (its kernels, its memory, its rounding, its
random numbers) is not here.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_iter, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

DispatchKey, _ALL = torch._C.DispatchKey, torch._C._SetExcludeDispatchKeyGuard
aten = torch.ops.aten


class _Module(_DummyBackendModule):
    """What torch asks of a device of its own: torch.far, as torch.cuda."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


_setup_privateuseone_for_python_backend("far", backend_module=_Module())
FAR = torch.device("far:0")
# Operations that take a number of the CPU, or indices from there, beside tensors of a GPU; those tagged pointwise do as well.
WITH_NUMBERS = {"where", "masked_fill", "masked_fill_", "fill", "fill_", "index_fill", "index_fill_", "lerp", "clamp"}
WITH_INDICES = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
WITH_LENGTHS = {"_pack_padded_sequence", "_pack_padded_sequence_backward", "_pad_packed_sequence"}


class Far(torch.Tensor):
    """A tensor that lies on the device ``far``."""

    near: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> "Far":
        where = {} if near.layout != torch.strided else {"strides": near.stride(), "storage_offset": near.storage_offset()}
        out = torch.Tensor._make_wrapper_subclass(cls, near.size(), dtype=near.dtype, layout=near.layout, device=FAR, **where)
        out.near = near
        return out

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        _refuse_mixtures(operation, args, kwargs)
        to = kwargs.get("device")
        home = to is None or torch.device(to).type == "far"
        if to is not None:
            kwargs["device"] = torch.device("cpu")
        with _ALL(DispatchKey.Conjugate, False), _ALL(DispatchKey.Negative, False), _ALL(DispatchKey.ZeroTensor, False):
            out = FUSED.get(operation._schema.name, operation)(*tree_map(_near, args), **tree_map(_near, kwargs))
            out = tree_map(_plain, out)
        if operation._schema.name == "aten::copy_" and not isinstance(args[0], Far):
            return args[0]
        if not home:
            return out
        if operation._schema.name == "aten::_pack_padded_sequence":  # of which the lengths stay on the CPU
            return Far(out[0]), out[1]
        return return_and_correct_aliasing(operation, args, kwargs, tree_map(_far, out))

    @property
    def data(self) -> torch.Tensor:
        return torch._C.TensorBase.data.__get__(self)

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        torch._C.TensorBase.data.__set__(self, value)
        self.near = value.near

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __format__(self, how: str) -> str:
        return format(self.detach().cpu(), how)

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "can't convert far:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
        )

    def __array__(self, *args: Any) -> Any:
        return self.numpy()

    def __repr__(self, *args: Any, **kwargs: Any) -> str:
        return repr(self.detach().cpu())[:-1] + ", device='far:0')"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _moved, (self.detach().cpu(), self.requires_grad)


def _moved(t: torch.Tensor, wanted: bool) -> torch.Tensor:
    return t.to(FAR).requires_grad_(wanted)


def _near(value: Any) -> Any:
    return value.near if isinstance(value, Far) else value


def _plain(value: Any) -> Any:
    """Write out what torch keeps as a mark on the tensor: conjugated, negated. The wrapper does not carry it."""
    return value.resolve_conj().resolve_neg() if isinstance(value, torch.Tensor) and value.layout == torch.strided else value


def _far(value: Any) -> Any:
    return Far(value) if isinstance(value, torch.Tensor) and not isinstance(value, Far) else value


def _refuse_mixtures(operation: Any, args: tuple, kwargs: dict) -> None:
    name = operation._schema.name.removeprefix("aten::")
    if kwargs.get("generator") is not None:
        raise RuntimeError("Expected a 'far' device type for generator but found 'cpu'")
    if name in ("copy_", "_copy_from", "_to_copy") or name in WITH_LENGTHS:
        return
    tensors = [t for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)]
    near = [t for t in tensors if not isinstance(t, Far)]
    numbers = torch.Tag.pointwise in operation.tags or name in WITH_NUMBERS | WITH_INDICES
    if numbers:
        near = [t for t in near if t.dim()]
    if name in WITH_INDICES and isinstance(args[0], Far):
        near = [t for t in near if all(t is not index for index in args[1])]
    if near:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, far:0 and cpu! ({operation})"
        )


def _made(name: str) -> None:
    operation = getattr(aten, name.split(".")[0])
    operation = getattr(operation, name.split(".")[1] if "." in name else "default")

    def make(*args: Any, **kwargs: Any) -> Far:
        if kwargs.get("generator") is not None:
            raise RuntimeError("Expected a 'far' device type for generator but found 'cpu'")
        return Far(operation(*args, **kwargs | {"device": torch.device("cpu")}))

    torch.library.impl(f"aten::{name}", "PrivateUse1")(make)


for each in ("empty.memory_format", "empty_strided", "arange", "arange.start", "arange.start_step", "eye", "eye.m",
             "tril_indices", "triu_indices"):  # fmt: skip
    _made(each)


@torch.library.impl("aten::_copy_from", "PrivateUse1")
def _(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """Fill a tensor that torch.tensor(..., device="far") makes: it does so below Python's dispatch."""
    _near(target).copy_(_near(source))
    return target


@torch.library.impl("aten::_efficientzerotensor", "PrivateUse1")
def _(size: Any, **kwargs: Any) -> Far:
    """Fill the zeros of forward-mode differentiation: torch's own, without memory, have kernels above this device only."""
    return Far(torch.zeros(size, **kwargs | {"device": torch.device("cpu")}))


def _lstm(x, h, c, b_x=None, b_h=None):
    i, f, g, o = (x + h + (0 if b_x is None else b_x + b_h)).chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    c = f * c + i * g
    return o * c.tanh(), c, torch.cat([i, f, g, o], 1)


def _lstm_backward(to_h, to_c, c, new_c, workspace, biases):
    i, f, g, o = workspace.chunk(4, 1)
    to_h, to_c = (torch.zeros_like(c) if t is None else t for t in (to_h, to_c))
    to_c = to_c + to_h * o * (1 - new_c.tanh() ** 2)
    to_o = to_h * new_c.tanh() * o * (1 - o)
    gates = torch.cat([to_c * g * i * (1 - i), to_c * c * f * (1 - f), to_c * i * (1 - g**2), to_o], 1)
    return gates, to_c * f, gates.sum(0)


def _gru(x, h, state, b_x=None, b_h=None):
    (r, z, n), (r_h, z_h, n_h) = (x if b_x is None else x + b_x).chunk(3, 1), (h if b_h is None else h + b_h).chunk(3, 1)
    r, z = (r + r_h).sigmoid(), (z + z_h).sigmoid()
    n = (n + r * n_h).tanh()
    return (state - n) * z + n, torch.cat([r, z, n, state, n_h], 1)


def _gru_backward(to_h, workspace, biases):
    r, z, n, state, n_h = workspace.chunk(5, 1)
    to_n = to_h * (1 - z) * (1 - n**2)
    to_r, to_z = to_n * n_h * r * (1 - r), to_h * (state - n) * z * (1 - z)
    x, h = torch.cat([to_r, to_z, to_n], 1), torch.cat([to_r, to_z, to_n * r], 1)
    return x, h, to_h * z, x.sum(0), h.sum(0)


# Recurrent cells are one operation each on a GPU; the CPU has them in steps only.
FUSED = {
    "aten::_thnn_fused_lstm_cell": _lstm,
    "aten::_thnn_fused_lstm_cell_backward_impl": _lstm_backward,
    "aten::_thnn_fused_gru_cell": _gru,
    "aten::_thnn_fused_gru_cell_backward": _gru_backward,
}


def _tied(module: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
    """Move a module, and tie again what was tied: torch replaces parameters whose Python type changes."""
    before = [(part, name, p) for part in module.modules() for name, p in part._parameters.items()]
    out = _apply(module, *args, **kwargs)
    first: dict[int, torch.Tensor] = {}
    for part, name, p in before:
        part._parameters[name] = first.setdefault(id(p), part._parameters[name])
    return out


_apply = torch.nn.Module._apply
torch.nn.Module._apply = _tied
