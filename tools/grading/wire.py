"""Messages between the grader and the process that runs a student's code, over two pipes.

To the student's process goes a pickle, since the grader made it. Back comes what ``torch.load(weights_only=True)`` reads: numbers,
text, tensors, and lists and dicts of them, and nothing that could run code in the grader.
"""

import io
import os
import select
import struct
import time
from collections.abc import Mapping

import cloudpickle
import numpy as np
import torch

_HEAD = struct.Struct(">Q")
MOST = 1 << 30  # bytes of a message


class Gone(Exception):
    """The other side has closed its end."""


class Late(Exception):
    """No message within the time."""


def write(fd: int, payload: bytes, timeout: float | None = None) -> None:
    """Send one message.

    Raises:
        Gone: the other end is closed.
        Late: the other side did not take it within ``timeout`` seconds.
    """
    until = None if timeout is None else time.monotonic() + timeout
    os.set_blocking(fd, until is None)
    view = memoryview(_HEAD.pack(len(payload)) + payload)
    while view:
        if until is not None and not select.select([], [fd], [], max(0.0, until - time.monotonic()))[1]:
            raise Late
        try:
            view = view[os.write(fd, view) :]
        except BrokenPipeError as error:
            raise Gone from error


def read(fd: int, timeout: float | None = None) -> bytes:
    """Receive one message.

    Raises:
        Gone: the pipe is closed, or the message is larger than anybody needs.
        Late: it took longer than ``timeout`` seconds.
    """
    until = None if timeout is None else time.monotonic() + timeout
    size = _HEAD.unpack(_exactly(fd, _HEAD.size, until))[0]
    if size > MOST:
        raise Gone
    return _exactly(fd, size, until)


def _exactly(fd: int, size: int, until: float | None) -> bytes:
    parts = []
    while size:
        left = None if until is None else until - time.monotonic()
        if left is not None and (left <= 0 or not select.select([fd], [], [], left)[0]):
            raise Late
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            raise Gone
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def trusted(message) -> bytes:
    """Pack what the grader says: anything, arguments of answers among it.

    What the checks define goes along itself and not as a name, since the other side has none of them.
    """
    from ntk_course.course import checks

    cloudpickle.register_pickle_by_value(checks)
    try:
        return cloudpickle.dumps(message)
    finally:
        cloudpickle.unregister_pickle_by_value(checks)


def plain(value) -> bytes:
    """Pack what a student's process says."""
    file = io.BytesIO()
    torch.save(_plain(value), file)
    return file.getvalue()


def unpacked(payload: bytes):
    """Unpack what a student's process said, without running anything of it.

    Raises:
        Gone: it is no such message.
    """
    try:
        return _rich(torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu"))
    except Exception as error:  # whatever was written there instead of a message
        raise Gone from error


def _plain(value):
    """Turn a value into numbers, text, tensors and lists of pairs (kind, content)."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if value is ...:
        return ["...", None]
    if isinstance(value, torch.Tensor):
        whole = value if value.layout == torch.strided else value.to_dense()
        return ["tensor", whole.detach().cpu().contiguous().as_subclass(torch.Tensor)]
    if hasattr(type(value), "to_numpy"):  # a table or a column of pandas
        value = value.to_numpy()
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biuf":
        return ["array", torch.from_numpy(np.array(value))]
    for kind in (int, float, str):
        if isinstance(value, kind):  # of a class of somebody's own
            return kind(value)
    if isinstance(value, Mapping):
        return ["dict", [[_plain(k), _plain(v)] for k, v in value.items()]]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [type(value).__name__ if type(value) in (list, tuple, set, frozenset) else "tuple", [_plain(v) for v in value]]
    if isinstance(value, complex):
        return ["complex", [value.real, value.imag]]
    if callable(value):
        return ["callable", getattr(value, "__name__", type(value).__name__)]
    return ["odd", type(value).__name__]


class Odd:
    """Stands for a value of a type that no answer has; a check says so by its name."""


def _rich(value):
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind == "...":
        return ...
    if kind == "tensor":
        return content
    if kind == "array":
        return content.numpy() if content.dim() else content.numpy()[()]
    if kind == "dict":
        return {_rich(k): _rich(v) for k, v in content}
    if kind == "complex":
        return complex(*content)
    if kind in ("callable", "odd"):
        return type(str(content), (Odd,), {"__call__": lambda self, *args: ...} if kind == "callable" else {})()
    return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind](map(_rich, content))
