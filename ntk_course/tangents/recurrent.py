"""Recurrent layers step by step: rules see their weights in the steps, which a GPU hides in one operation for a cell or for all."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode


@contextmanager
def unfused(model: nn.Module) -> Iterator[None]:
    """Let the recurrent layers of a model run step by step."""
    if not any(isinstance(module, nn.RNNBase | nn.RNNCellBase) for module in model.modules()):
        yield
        return
    libraries: list[Any] = [torch.backends.mkldnn, torch.backends.cudnn]
    before = [library.enabled for library in libraries]
    try:
        for library in libraries:
            library.enabled = False
        if next(model.parameters()).is_cpu:
            yield  # in steps without these libraries
        else:
            with _Steps():
                yield
    finally:
        for library, was in zip(libraries, before, strict=True):
            library.enabled = was


class _Steps(TorchFunctionMode):
    """Write out cells that torch fuses on a GPU, with or without its libraries."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return WRITTEN_OUT.get(function, function)(*args, **kwargs or {})


def _lstm(*args: Any) -> tuple[Tensor, ...]:
    from torch._decomp.decompositions import lstm_data_impl, lstm_impl

    return (lstm_data_impl if isinstance(args[1], Tensor) else lstm_impl)(*args)


def _gru(*args: Any) -> tuple[Tensor, ...]:
    from torch._decomp.decompositions import gru_impl, gru_impl_data

    packed = isinstance(args[3], list | tuple)  # data, batch_sizes, hx, params, ...; else input, hx, params, ...
    return (gru_impl_data if packed else gru_impl)(*args)


def _lstm_cell(x: Tensor, hx: Any, w_x: Tensor, w_h: Tensor, b_x: Tensor | None = None, b_h: Tensor | None = None) -> tuple:
    h, c = hx
    i, f, g, o = (linear(x, w_x, b_x) + linear(h, w_h, b_h)).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru_cell(x: Tensor, h: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor | None = None, b_h: Tensor | None = None) -> Tensor:
    (r, z, n), (r_h, z_h, n_h) = linear(x, w_x, b_x).chunk(3, -1), linear(h, w_h, b_h).chunk(3, -1)
    n = (n + (r + r_h).sigmoid() * n_h).tanh()
    return (h - n) * (z + z_h).sigmoid() + n


WRITTEN_OUT = {torch.lstm: _lstm, torch.gru: _gru, torch.lstm_cell: _lstm_cell, torch.gru_cell: _gru_cell}
