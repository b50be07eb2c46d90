"""A trial: a few samples through a model, alone and together, before anything is differentiated; or why they cannot be used."""

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ..basics import validate
from ..basics.samples import Batch, Samples, Stored, described, joined, leaves
from ..basics.settings import settings
from .culprit import first_difference, same, tolerance_of
from .running import Traces, buffers, everything, in_rows, random_state, unfused, untraced


class Runs(NamedTuple):
    """The logits (n, K) of three samples a, b, m, those of the batches b, a and a, b, m, and of one of many.

    Attributes:
        alone: of each of the three.
        pair: of b, a.
        together: of a, b, m.
        many: of samples from all over x, in their order: a first, b last, m in the middle.
        few: the three samples.
        saved: bytes of graph for each further sample.
        traces: what a forward pass would leave behind.
        outputs: the axes of an answer.
    """

    alone: tuple[Tensor, Tensor, Tensor]
    pair: Tensor
    together: Tensor
    many: Tensor
    few: Tensor | Batch
    saved: int
    traces: Traces
    outputs: tuple[int, ...]


# Samples from all over x that are looked at together, and bytes of graph that they may take.
_MANY = 16
_GRAPH = 2**27
# Copies of a sample that a model which draws random numbers is to treat alike.
_COPIES = 64


def runs(model: nn.Module, x: Samples, name: str) -> Runs:
    """Run samples of x (N, ...) through a model, alone and in batches, and see that each gets the same answer in all of them.

    Raises:
        TypeError, ValueError: the model refuses the samples, its answer for one depends on others or on chance, is no tensor of
            real numbers, or its forward writes to a parameter.
    """
    n, held = len(x), settings(model)
    a, b, m = (x[i : i + 1] for i in (0, n - 1, n // 2))
    three = joined([a, b, m])
    changed: set[str] = set()
    drew, wrote, traces = False, False, everything(model)
    outputs: tuple[int, ...] = ()

    def once(batch: Tensor | Batch, hooks: Callable = nullcontext) -> Tensor:
        nonlocal drew, wrote, outputs
        batch = batch.clone()
        version = [t._version for t in leaves(batch)]
        with untraced(model, traces) as found:
            torch.manual_seed(next(seeds))  # what is random is not to be the same twice
            before = random_state(x.device)
            with hooks(), unfused(model):
                z = model(batch)
            drew |= not torch.equal(before, random_state(x.device))
            wrote |= version != [t._version for t in leaves(batch)]
        changed.update(found)
        z = validate.answer(z, len(batch))
        validate.finite(z, "model's answer")
        outputs = tuple(z.shape[1:])
        return in_rows(z)

    seeds = itertools.count()
    try:
        first, saved = _counted(once, a)
        traces = Traces(frozenset(changed) | set(buffers(model)), True, True)
        last, middle, pair = once(b), once(m), once(joined([b, a]))
        together, all_saved = _counted(once, three)
        kept = max(0, (all_saved - saved) // 2)
        chosen = _spread(n, max(3, min(_MANY, _GRAPH // (kept + 1))))
        wide = x[chosen] if len(chosen) > 3 else three
        if isinstance(x, Stored) and not all(torch.equal(*two) for two in zip(leaves(x[chosen]), leaves(x[chosen]), strict=True)):
            raise ValueError(f"{name}: got other samples from a second reading of the data set; wanted one without chance in it")
        many = once(wide) if len(chosen) > 3 else together
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if str(error).startswith(("model", "output", name)):
            raise
        dtypes = ", ".join(str(t.dtype) for t in leaves(a))
        raise ValueError(
            f"{name}: got samples of shape {described(a)} in {dtypes}; wanted what the model takes ({type(error).__name__}: {error})"
        ) from error
    renormed = {f"{name}.weight".lstrip(".") for name, m in model.named_modules() if getattr(m, "max_norm", None) is not None}
    if written := changed & {name for name, _ in model.named_parameters()} - renormed:
        raise ValueError(
            f"model: got a forward that writes to its parameter {min(written)}; wanted one that leaves them alone, as a "
            "parametrization of torch.nn.utils does"
        )
    tolerance = tolerance_of(together.dtype)
    answers = torch.cat([first, last, middle])
    # of the largest answer of all that were looked at: those of three samples may be small by cancelling
    rounding = tolerance * float(many.detach().abs().max()) if many.is_floating_point() else 0.0
    alike = same(together, answers, tolerance, rounding) and same(pair, answers[[1, 0]], tolerance, rounding)
    if alike and len(chosen) > 3:
        three = wide
        alike = same(many[[0, -1, chosen.index(n // 2)]], answers, tolerance, rounding)
    if drew or not alike:
        with torch.no_grad():
            for batch in [a[[0] * _COPIES], wide] if drew else [three]:  # a rare chance shows among many
                chance = any(not same(once(batch), once(batch), tolerance) for _ in range(4))
                if chance or not alike:
                    with untraced(model, everything(model)):
                        _refuse(model, a, batch if chance else three, chance, tolerance)
    now = settings(model)
    moved = frozenset(name for name in now.keys() | held.keys() if now.get(name) != held.get(name))
    traces = Traces(frozenset(changed), drew, wrote, moved)
    return Runs((first, last, middle), pair, together, many, joined([a, b, m]), kept, traces, outputs)


def _spread(n: int, most: int) -> list[int]:
    """Choose the first of n, the last, the one in the middle, and others evenly between, in order."""
    if n <= most:
        return list(range(n))
    between = torch.linspace(0, n - 1, most - 1).round().long().tolist()
    return sorted({*between, n // 2})


def _refuse(model: nn.Module, a: Tensor | Batch, many: Tensor | Batch, chance: bool, tolerance: float) -> None:
    where = next(filter(None, (first_difference(model, many if chance else a, many, tolerance) for _ in range(4))), "")
    if chance:
        raise ValueError(
            f"model: got other logits from a second call with the same samples{where}; wanted the same: model.eval(), and no "
            "chance in forward"
        )
    raise ValueError(
        f"model: got logits of a sample that depend on the others in its batch{where}: per-sample tangents are undefined; "
        "wanted model.eval(), and no statistics, sorting or attention over the batch"
    )


def _counted(once: Callable, batch: Tensor | Batch) -> tuple[Tensor, int]:
    """Run the model and count the bytes that its graph keeps; 0 where the model cannot be watched."""
    kept: dict[int, int] = {}
    try:
        z = once(batch, lambda: saved_tensors_hooks(partial(_note_storage, kept), lambda t: t))
    except RuntimeError as error:
        if "saved tensor hooks" not in str(error):
            raise
        return once(batch), 0  # torch.func inside forward
    return z, sum(kept.values())


def _note_storage(kept: dict[int, int], t: Tensor) -> Tensor:
    if t.layout != torch.strided:
        return t
    storage = t.untyped_storage()
    kept[storage._cdata] = storage.nbytes()  # not its address, which a tensor subclass may not have
    return t
