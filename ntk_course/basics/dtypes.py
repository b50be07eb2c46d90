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
