"""What a model's own graph tells: how often each parameter is used, which layer rules hold, and what a sample costs."""

from collections import Counter
from collections.abc import Set
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge, saved_tensors_hooks

from ..basics import validate
from .layers import RULES, Positions, join


class Call(NamedTuple):
    """One call of a layer whose rule we know: its input, that input's version then, its output's shape and edge."""

    module: nn.Module
    x: Tensor
    version: int
    shape: torch.Size
    edge: GradientEdge


class Survey(NamedTuple):
    """What one sample tells of a model.

    Attributes:
        num_outputs: K.
        structured: ids of the parameters whose layer rules can be trusted.
        sizes: of the weights among them that can stay in factors, by id: T, p and q, and the groups G.
        bias_of: ids of the weights that are used together with a bias, and of that bias.
        saved: bytes of graph.
    """

    num_outputs: int
    structured: frozenset[int]
    sizes: dict[int, tuple[int, int, int, int]]
    bias_of: dict[int, int]
    saved: int

    def covers(self, model: nn.Module) -> bool:
        """Tell whether every trainable parameter of a model belongs to a layer whose rule can be trusted."""
        return self.structured.issuperset(id(p) for p in model.parameters() if p.requires_grad)


def survey(model: nn.Module, x: Tensor, name: str = "x") -> Survey:
    """Run one sample of x (N, ...), alone and twice over, through the model, or say why the model refuses it.

    Two batch sizes tell the axis of the samples from any other: a sequence-first layer can look batch-first when there
    are as many samples as positions, and a layer that sees one row for the whole batch when there is one sample. The
    answer holds for every block of a Gram matrix, so that their features have one layout. What the graph of two keeps
    beyond the graph of one is what each further sample costs.
    """
    with torch.inference_mode(False), torch.enable_grad():
        trusted, saved = [], []
        for n in (1, 2):
            kept: dict[int, int] = {}
            try:
                with saved_tensors_hooks(partial(_note_storage, kept), lambda t: t):
                    calls, z = record(model, x[:1].expand(n, *x.shape[1:]).clone())
            except (RuntimeError, ValueError, IndexError) as error:
                shape = tuple(x.shape[1:])
                raise ValueError(
                    f"{name}: got samples of shape {shape}; wanted a shape that the model takes ({error})"
                ) from error
            num_outputs = validate.logits(z, n).shape[1]
            trusted.append(structured(calls, z, n))
            saved.append(sum(kept.values()))
        both = frozenset(set.intersection(*trusted))
        calls = of_parameters(calls, both)
        nothing = [call.x.new_zeros(()).expand(n, 1, *call.shape[1:]) for call in calls]
        pieces = {key: p for key, p in pieces_of(calls, nothing, both).items() if isinstance(p, Positions)}
    sizes = {key: (*p.sizes, p.b.shape[2]) for key, p in pieces.items()}
    return Survey(num_outputs, both, sizes, biases_of(calls, both), max(0, saved[1] - saved[0]))


def _note_storage(kept: dict[int, int], t: Tensor) -> Tensor:
    storage = t.untyped_storage()
    kept[storage.data_ptr()] = storage.nbytes()
    return t


def record(model: nn.Module, x: Tensor) -> tuple[list[Call], Tensor]:
    """Run the model once and note every call of a layer whose gradient we know in factors."""
    calls: list[Call] = []

    def note(module: nn.Module, args: tuple, out: Tensor) -> None:
        # The edge is taken now: an in-place activation may overwrite `out` a moment later.
        if len(args) == 1 and out.requires_grad:
            calls.append(Call(module, args[0], args[0]._version, out.shape, get_gradient_edge(out)))

    # First among the hooks, so that a hook of the user's cannot replace `out` before we see it.
    handles = [m.register_forward_hook(note, prepend=True) for m in model.modules() if type(m) in RULES]
    try:
        return calls, model(x)
    finally:
        for handle in handles:
            handle.remove()


def structured(calls: list[Call], z: Tensor, n: int) -> set[int]:
    """Find the trainable parameters (by id) all of whose uses are calls we noted and understand.

    The autograd graph knows how often each parameter is used; where that differs from the calls noted (a parameter
    read outside its module, a weight tied to another kind of layer, a checkpointed block) torch.func takes over. So it
    does where the first axis of a layer's input is not the samples, or where that input was changed in place later.
    """
    noted, opaque = Counter(), set()
    for call in calls:
        mine = [id(p) for p in call.module.parameters(recurse=False)]
        noted.update(mine)
        if call.x.shape[0] != n or call.x._version != call.version:
            opaque.update(mine)
    uses = uses_of(z)  # a frozen parameter has none
    return {p for p, count in noted.items() if count == uses[p]} - opaque


def of_parameters(calls: list[Call], trusted: Set[int]) -> list[Call]:
    """Select the calls of layers that own one of some parameters."""
    return [call for call in calls if any(id(p) in trusted for p in call.module.parameters(recurse=False))]


def pieces_of(calls: list[Call], arriving: list[Tensor], trusted: Set[int]) -> dict[int, Tensor | Positions]:
    """Collect each trusted parameter's share of the features from all its uses, given what arrived at every call."""
    pieces: dict[int, Tensor | Positions] = {}
    for call, b in zip(calls, arriving, strict=True):
        for p, piece in RULES[type(call.module)](call.module, call.x.detach(), b):
            if id(p) in trusted:
                pieces[id(p)] = join(pieces[id(p)], piece) if id(p) in pieces else piece
    return pieces


def biases_of(calls: list[Call], trusted: Set[int]) -> dict[int, int]:
    """Pair up trusted weights and biases (ids) that are used together in one call each, and nowhere else."""
    uses = Counter(id(p) for call in calls for p in call.module.parameters(recurse=False))
    pairs = ((id(getattr(call.module, "weight", None)), id(getattr(call.module, "bias", None))) for call in calls)
    return {w: b for w, b in pairs if {w, b} <= trusted and uses[w] == uses[b] == 1}


def uses_of(z: Tensor) -> Counter:
    """Count the edges of the autograd graph that end in each leaf."""
    uses: Counter = Counter()
    seen, stack = set(), [z.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for after, _ in node.next_functions:
            if hasattr(after, "variable"):
                uses[id(after.variable)] += 1
            else:
                stack.append(after)
    return uses
