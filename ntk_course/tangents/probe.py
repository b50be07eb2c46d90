"""What a model's own graph tells: how often each parameter is used, which layer rules hold, and what a sample costs."""

from collections import Counter
from collections.abc import Set
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge, saved_tensors_hooks

from ..basics import validate
from .layers import RULES, OuterProducts, join
from .precision import multiplying


class Call(NamedTuple):
    """One call of a layer whose rule we know: its input, that input's version then, its output's shape and edge."""

    module: nn.Module
    x: Tensor
    version: int
    shape: torch.Size
    edge: GradientEdge


class Probe(NamedTuple):
    """What one sample tells of a model; parameters go by name.

    Attributes:
        z: its logits, (1, K).
        numels: of the trainable parameters, in the model's order.
        understood: those whose layer rules can be trusted.
        sizes: of the weights among them that can stay in factors: T, p and q, and the groups G.
        bias_of: the weights that are used together with a bias, and that bias.
        called: modules with a rule that own an understood parameter, in the order of their calls.
        saved: bytes of graph.
    """

    z: Tensor
    numels: dict[str, int]
    understood: frozenset[str]
    sizes: dict[str, tuple[int, int, int, int]]
    bias_of: dict[str, str]
    called: tuple[str, ...]
    saved: int

    @property
    def num_outputs(self) -> int:
        """K."""
        return self.z.shape[1]

    @property
    def covers(self) -> bool:
        """Whether every trainable parameter belongs to a layer whose rule can be trusted."""
        return self.understood.issuperset(self.numels)

    def only(self, names: Set[str]) -> "Probe":
        """Return it with some parameters alone."""
        return self._replace(
            numels={name: numel for name, numel in self.numels.items() if name in names},
            understood=self.understood & names,
            sizes={name: sizes for name, sizes in self.sizes.items() if name in names},
            bias_of={weight: bias for weight, bias in self.bias_of.items() if {weight, bias} <= names},
        )


def probe(model: nn.Module, x: Tensor, name: str = "x") -> Probe:
    """Run one sample of x (N, ...), alone and twice over, through the model, or say why the model refuses it.

    Two batch sizes tell the axis of the samples from any other: a sequence-first layer can look batch-first when there
    are as many samples as positions, and a layer that sees one row for the whole batch when there is one sample. The
    answer holds for every block of a Gram matrix, so that their features have one layout. What the graph of two keeps
    beyond the graph of one is what each further sample costs.
    """
    with torch.inference_mode(False), torch.enable_grad(), multiplying("exact"):
        trusted, saved = [], []
        for n in (1, 2):
            kept: dict[int, int] = {}
            try:
                with saved_tensors_hooks(partial(_note_storage, kept), lambda t: t):
                    calls, z = record(model, x[:1].expand(n, *x.shape[1:]).clone())
            except (RuntimeError, ValueError, IndexError) as error:
                shape = tuple(x.shape[1:])
                raise ValueError(
                    f"{name}: got samples of shape {shape} in {x.dtype}; wanted what the model takes ({error})"
                ) from error
            validate.logits(z, n)
            trusted.append(understood(model, calls, z, n))
            saved.append(sum(kept.values()))
        both = frozenset(set.intersection(*trusted))
        calls = of_parameters(model, calls, both)
        nothing = [call.x.new_zeros(()).expand(n, 1, *call.shape[1:]) for call in calls]
        found = {key: p for key, p in shares_of(model, calls, nothing, both).items() if isinstance(p, OuterProducts)}
    modules = {module: name for name, module in model.named_modules()}
    return Probe(
        z.detach()[:1],
        {name: p.numel() for name, p in model.named_parameters() if p.requires_grad},
        both,
        {key: (*p.sizes, p.b.shape[2]) for key, p in found.items()},
        biases_of(model, calls, both),
        tuple(dict.fromkeys(modules[call.module] for call in calls)),
        max(0, saved[1] - saved[0]),
    )


def names_of(model: nn.Module) -> dict[int, str]:
    """Name the trainable parameters by their ids, as the autograd graph knows them; a tied one by its first name."""
    return {id(p): name for name, p in model.named_parameters() if p.requires_grad}


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
    known = [m for m in model.modules() if type(m) in RULES and "forward" not in vars(m)]  # one's own forward is no such layer
    handles = [m.register_forward_hook(note, prepend=True) for m in known]
    try:
        return calls, model(x)
    finally:
        for handle in handles:
            handle.remove()


def understood(model: nn.Module, calls: list[Call], z: Tensor, n: int) -> set[str]:
    """Find the trainable parameters all of whose uses are calls we noted and understand.

    The autograd graph knows how often each parameter is used; where that differs from the calls noted (a parameter
    read outside its module, a weight tied to another kind of layer, a checkpointed block) torch.func takes over. So it
    does where the first axis of a layer's input is not the samples, or where that input was changed in place later.
    """
    noted: Counter[int] = Counter()
    opaque: set[int] = set()
    for call in calls:
        mine = [id(p) for p in call.module.parameters(recurse=False)]
        noted.update(mine)
        if call.x.shape[0] != n or call.x._version != call.version:
            opaque.update(mine)
    uses = uses_of(z)  # a frozen parameter has none
    return {name for p, name in names_of(model).items() if noted[p] and noted[p] == uses[p] and p not in opaque}


def of_parameters(model: nn.Module, calls: list[Call], trusted: Set[str]) -> list[Call]:
    """Select the calls of layers that own one of some parameters."""
    names = names_of(model)
    return [call for call in calls if any(names.get(id(p)) in trusted for p in call.module.parameters(recurse=False))]


def shares_of(
    model: nn.Module, calls: list[Call], arriving: list[Tensor], trusted: Set[str]
) -> dict[str, Tensor | OuterProducts]:
    """Collect each trusted parameter's share of the features from all its uses, given what arrived at every call."""
    names: dict[int, str] = names_of(model)
    shares: dict[str, Tensor | OuterProducts] = {}
    for call, b in zip(calls, arriving, strict=True):
        for p, share in RULES[type(call.module)](call.module, call.x.detach(), b):
            name = names.get(id(p), "")
            if name in trusted:
                shares[name] = join(shares[name], share) if name in shares else share
    return shares


def biases_of(model: nn.Module, calls: list[Call], trusted: Set[str]) -> dict[str, str]:
    """Pair up trusted weights and biases that are used together in one call each, and nowhere else."""
    names = names_of(model)
    uses = Counter(id(p) for call in calls for p in call.module.parameters(recurse=False))
    pairs = ((id(getattr(call.module, "weight", None)), id(getattr(call.module, "bias", None))) for call in calls)
    return {
        names[w]: names[b] for w, b in pairs if names.get(w) in trusted and names.get(b) in trusted and uses[w] == uses[b] == 1
    }


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
                uses[id(getattr(after, "variable"))] += 1  # noqa: B009
            else:
                stack.append(after)
    return uses
