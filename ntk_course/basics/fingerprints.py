"""Fingerprints of models and tensors, so that what was kept on disk is only ever continued with what it was made from."""

import hashlib
from collections.abc import Set
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .settings import settings, without


def of_tensor(*tensors: Tensor) -> str:
    """Return a digest of tensors' dtypes, shapes and bits.

    Example:
        >>> of_tensor(x) == of_tensor(x.clone())
        True
    """
    digest = hashlib.sha256()
    for t in (part for whole in tensors for part in strided(whole)):
        digest.update(f"{t.dtype}{tuple(t.shape)}".encode())
        if t.numel():
            digest.update(t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def strided(t: Tensor) -> list[Tensor]:
    """Return a tensor, of a sparse one its indices and values."""
    if t.layout == torch.strided:
        return [t]
    t = t.detach().to_sparse_coo().coalesce()
    return [t.indices(), t.values()]


def checksum(t: Tensor) -> tuple:
    """Tell the values of a tensor from any others, much faster than a digest: by a sum over its bits with odd weights.

    Modulo 2^64, so that no change of a single word can go unseen, and others only by an accident of 64 bits.

    Example:
        >>> checksum(x) == checksum(x.clone()), checksum(x) == checksum(x.flip(0))
        (True, False)
    """
    found: list[int] = []
    for part in strided(t):
        bits = part.detach().resolve_conj().resolve_neg().reshape(-1).contiguous().view(torch.uint8)
        whole = len(bits) // 8 * 8
        found += bits[whole:].tolist()
        if whole and bits.device.type == "cpu":
            found.append(_weighed(bits[:whole].numpy().view(np.int64)))
        elif whole:  # of a device a whole copy: a view of eight bytes must begin at a multiple of eight
            found.append(_weighed(bits[:whole].clone().view(torch.int64)))
    return tuple(t.shape), t.dtype, *found


def _weighed(words: Any) -> int:
    """Add up words of eight bytes, an array or a tensor, each times an odd number of its place; overflow is meant."""
    rows = len(words) // _ROW
    head, tail = words[: rows * _ROW].reshape(rows, _ROW), words[rows * _ROW :]
    if isinstance(words, Tensor):
        across, along = (torch.from_numpy(_odd(n, k)).to(words.device) for n, k in ((_ROW, 0), (rows, 1)))
        return int(((head * across).sum(1) * along).sum()) + int((tail * across[: len(tail)]).sum())
    across, along = _odd(_ROW, 0), _odd(rows, 1)
    return int(along @ (head @ across)) + int(tail @ across[: len(tail)])


@lru_cache(maxsize=64)
def _odd(count: int, which: int) -> np.ndarray:
    return np.random.default_rng(which).integers(-(2**63), 2**63, count, dtype=np.int64) | 1


# Words that are weighed by their place in a row, and the row by its place.
_ROW = 1024


def same(found: dict[str, str], wanted: dict[str, str], where: str) -> None:
    """Check that what lies somewhere was made from the same, by name, or say from what else.

    Raises:
        ValueError: it was not.
    """
    for name, value in wanted.items():
        if found.get(name) != value:
            raise ValueError(f"{where} holds a Gram matrix of another {name}; wanted its own, or a new folder")


def of_model(model: nn.Module, moving: Set[str] = frozenset(), weights: bool = True) -> str:
    """Return a digest of a model's modules and their settings, of all parameters and buffers and which train, and of the code.

    The code is that of each module's ``forward`` outside PyTorch; what it calls elsewhere is not part of it.

    Args:
        model: of which.
        moving: settings that a forward changes by itself, such as a counter, and that are no part of it.
        weights: whether trainable parameters are looked at, or their shapes alone.
    """
    digest = hashlib.sha256(repr(model).encode())
    held = without(settings(model, of_tensor, of_function), moving | _idle_modes(model))
    digest.update(repr(sorted(held.items())).encode())
    for module in model.modules():
        if not type(module).__module__.startswith("torch.") or "forward" in vars(module):
            digest.update(of_code(getattr(module.forward, "__code__", None)).encode())
    for name, t in [*model.named_parameters(), *model.named_buffers()]:
        told = of_tensor(t) if weights or not t.requires_grad else tuple(t.shape)
        digest.update(f"{name}{t.requires_grad}{told}".encode())
    return digest.hexdigest()[:16]


def _idle_modes(model: nn.Module) -> set[str]:
    """Name the modes, train or eval, that change nothing: of PyTorch's modules, which are refused where they do, and of those that
    never ask.
    """
    return {
        f"{name}.training".lstrip(".")
        for name, module in model.named_modules()
        if type(module).__module__.startswith("torch.")
        or not any("training" in f.__code__.co_names for f in vars(type(module)).values() if hasattr(f, "__code__"))
    }


def of_function(function) -> str:
    """Return the name of a function and a digest of what it does.

    Example:
        >>> of_function(lambda z: z[0]) == of_function(lambda z: z[1])
        False
    """
    code = of_code(getattr(function, "__code__", None))
    return f"{getattr(function, '__qualname__', type(function).__qualname__)} {hashlib.sha256(code.encode()).hexdigest()[:16]}"


def of_code(code) -> str:
    """Say what a function does: its instructions, names and constants, those of functions inside it too."""
    if code is None:
        return ""
    constants = [of_code(c) if hasattr(c, "co_code") else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()}{code.co_names}{constants}"


def of_object(thing) -> str:
    """Return a digest of an object's class and of the values it holds, such as a reducer's settings.

    An object whose values are not plain (numbers, text, tensors, arrays, functions with a name, and containers of these) has a
    method ``key()`` that returns a text of its own.

    Raises:
        TypeError: it has neither.

    Example:
        >>> of_object(Histogram((0.0, 1.0))) == of_object(Histogram([0.0, 1.0]))
        True
    """
    digest = hashlib.sha256()
    _feed(digest, thing, type(thing).__qualname__)
    return digest.hexdigest()[:16]


def _feed(digest, thing, where: str) -> None:
    name = f"{type(thing).__module__}.{type(thing).__qualname__}"
    if callable(getattr(thing, "key", None)):
        digest.update(f"{name}:{thing.key()};".encode())
    elif thing is None or isinstance(thing, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
        digest.update(f"{thing!r};".encode())
    elif isinstance(thing, Tensor):
        digest.update(of_tensor(thing).encode())
    elif isinstance(thing, np.ndarray | np.generic):
        digest.update(f"{thing.dtype}{thing.shape}".encode() + np.ascontiguousarray(thing).tobytes())
    elif isinstance(thing, list | tuple | range):
        digest.update(b"(")
        for item in thing:
            _feed(digest, item, where)
        digest.update(b")")
    elif isinstance(thing, dict):
        _feed(digest, [[key, thing[key]] for key in sorted(thing, key=repr)], where)
    elif callable(thing) and hasattr(thing, "__qualname__") and "<" not in thing.__qualname__:
        digest.update(f"{thing.__module__}.{thing.__qualname__};".encode())
    elif hasattr(thing, "__dict__") and not callable(thing):
        digest.update(f"{name}{{".encode())
        for attribute, value in sorted(vars(thing).items()):
            digest.update(f"{attribute}=".encode())
            _feed(digest, value, f"{where}.{attribute}")
        digest.update(b"}")
    else:
        raise TypeError(
            f"{where}: got {thing!r}, whose values cannot be told from others; wanted plain values, or a key() method"
        )
