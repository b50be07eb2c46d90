"""How exactly matrix products are made: exact in the model's dtype, or in a GPU's faster formats when asked for by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..basics.dtypes import own_dtype

PRECISIONS = ("exact", "tf32", "bf16")


def check(precision: str, dtype: torch.dtype) -> str:
    """Return a precision's name, or say which there are and what they need."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision: got {precision!r}; wanted one of {PRECISIONS}")
    if precision != "exact" and dtype != torch.float32:
        raise ValueError(f"precision: got {precision!r} for a model in {dtype}; wanted a float32 model, or 'exact'")
    return precision


@contextmanager
def multiplying(precision: str) -> Iterator[None]:
    """Let a GPU's products and convolutions of float32 use TF32, or forbid it, whatever the process has set; then undo it.

    PyTorch lets cuDNN's convolutions use TF32 unless told otherwise, so "exact" needs telling. A CPU is always exact. An
    ``autocast`` around the call is off inside.
    """
    tf32 = precision != "exact"
    products: Any = torch.backends.cuda.matmul
    convolutions: Any = torch.backends.cudnn
    if hasattr(products, "fp32_precision"):  # since torch 2.9; the two interfaces must not be mixed
        switches = [(products, "fp32_precision"), (convolutions.conv, "fp32_precision")]
        value: str | bool = "tf32" if tf32 else "ieee"
    else:
        switches, value = [(products, "allow_tf32"), (convolutions, "allow_tf32")], tf32
    before = [getattr(where, name) for where, name in switches]
    try:
        for where, name in switches:
            setattr(where, name, value)
        with own_dtype():
            yield
    finally:
        for (where, name), was in zip(switches, before, strict=True):
            setattr(where, name, was)


def times(a: Tensor, b: Tensor) -> Tensor:
    """Multiply two matrices; those in bfloat16 are multiplied exactly and added up in float32, which is the result's dtype."""
    if a.dtype != torch.bfloat16:
        return a @ b
    if a.device.type == "cuda" and hasattr(torch.ops.aten.mm, "dtype"):  # since torch 2.8
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()
