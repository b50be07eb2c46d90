"""Computing in a model's own dtype, whatever surrounds the call."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def own_dtype() -> Iterator[None]:
    """Switch an ``autocast`` around the call off inside.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16), own_dtype():
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.float32
    """
    with ExitStack() as off:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                off.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Let tensors that are made without a dtype have this one inside.

    Example:
        >>> with default_dtype(torch.float64):
        ...     torch.ones(2).dtype
        torch.float64
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
