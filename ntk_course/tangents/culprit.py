"""Which module makes a model's answers random, or one sample's depend on others: the first whose own answers differ."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..basics.samples import Batch


class Answer(NamedTuple):
    """What one call of a module took and gave."""

    name: str
    module: nn.Module
    took: Tensor | None
    gave: Tensor


def answers(model: nn.Module, x: Tensor | Batch) -> list[Answer]:
    """Run a model and list what each of its modules took and gave, in the order in which they finish: inner before outer."""
    found: list[Answer] = []

    def note(name: str):
        def hook(module, args, out):
            out = out[0] if isinstance(out, tuple) else out
            took = args[0].detach().clone() if args and isinstance(args[0], Tensor) else None
            if isinstance(out, Tensor):
                found.append(Answer(name, module, took, out.detach().clone()))

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
    try:
        model(x.clone())
        return found
    finally:
        for handle in handles:
            handle.remove()


def first_difference(model: nn.Module, x: Tensor | Batch, other: Tensor | Batch, tolerance: float) -> str:
    """Say where the answer for the first sample of one batch first becomes another than for the first of another batch.

    Where both are the same batch, all of its samples are looked at.
    """
    seen = slice(None) if x is other else slice(1)

    def differ(one: Tensor | None, two: Tensor | None) -> bool:
        if one is None or two is None or one.dim() == 0 or two.dim() == 0:
            return False
        return one[seen].shape == two[seen].shape and not same(one[seen], two[seen], tolerance)

    with torch.no_grad():
        for one, two in zip(answers(model, x), answers(model, other), strict=False):
            if differ(one.took, two.took):
                return f" (first in what module '{one.name}' is given)" if one.name else ""
            if differ(one.gave, two.gave):
                return f" (first in module '{one.name}', {type(one.module).__name__})" if one.name else ""
    return ""


def tolerance_of(dtype: torch.dtype) -> float:
    """Return the relative error that rounding may leave."""
    return min(1e3 * torch.finfo(dtype).eps, 0.05)


def same(one: Tensor, other: Tensor, tolerance: float, rounding: float = 0.0) -> bool:
    """Say whether two tensors agree up to a part of their largest entry, or up to rounding."""
    one, other = one.detach(), other.detach()
    if not one.is_floating_point() and not one.is_complex():
        return bool((one == other).all())
    scale = max(float(one.abs().max()), float(other.abs().max()), torch.finfo(one.dtype).tiny) if one.numel() else 1.0
    return bool(((one - other).abs() <= tolerance * scale + rounding).all())
