"""A probe: two samples tell, once, which route to each parameter's gradient is right for a model, or why there is none."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Set
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ..basics import validate
from ..basics.samples import Batch, Samples, described, form, joined, leaves
from ..models.adapted import origin
from .culprit import first_difference, same
from .graph import Key, Use, names_of, read
from .precision import multiplying
from .routes import by_rules, by_torch_func, gradients, reordered
from .rules import Seen, rule_of
from .running import Traces, everything, in_rows, unfused, untraced
from .shares import OuterProducts, Share, Sizes, formed


class Kind(NamedTuple):
    """What a use of parameters looks like in every block.

    Attributes:
        operation: its name, such as AddmmBackward0.
        slot: which of its inputs they are.
        names: of the parameters.
        shape: of its output for one sample.
        axis: of the output that grows with the samples.
        inner: whether one sample's entries lie side by side on it.
    """

    operation: str
    slot: int
    names: frozenset[str]
    shape: torch.Size
    axis: int
    inner: bool = True

    def fits(self, use: Use, n: int) -> bool:
        """Say whether a use in a block of n samples is of this kind."""
        if (self.operation, self.slot, self.names) != (use.kind, use.slot, use.names):
            return False
        return use.shape == self.shape[: self.axis] + (n * self.shape[self.axis],) + self.shape[self.axis + 1 :]

    def seen(self, n: int) -> Seen:
        """Return how it sees n samples."""
        return Seen(n, self.axis, self.shape[self.axis], self.inner)


class Probe(NamedTuple):
    """What two samples tell of a model; parameters go by name.

    Attributes:
        z: the first one's logits, (1, K).
        numels: of the trainable parameters, in the model's order.
        kinds: of all uses of the parameters that rules serve.
        shared: keys of the nodes of the graph that compute from parameters alone.
        unreached: parameters that are left out, since the logits depend on none of them.
        understood: the parameters that rules serve.
        batched: those that torch.func serves; the others are served one sample at a time.
        sizes: of the weights that can stay in factors.
        bias_of: the weights among them that are used together with a bias, and that bias.
        called: modules that own an understood parameter, in the order of their uses.
        saved: bytes of graph for each further sample.
        traces: what a forward pass would leave behind.
        additive: whether a batch's gradient is the sum of its samples'.
        stacks: whether several cotangents can go back in one batched pass.
        among: the trainable parameters that were looked at.
    """

    z: Tensor
    numels: dict[str, int]
    kinds: tuple[Kind, ...]
    shared: frozenset[Key]
    unreached: frozenset[str]
    understood: frozenset[str]
    batched: frozenset[str]
    sizes: dict[str, Sizes]
    bias_of: dict[str, str]
    called: tuple[str, ...]
    saved: int
    traces: Traces
    additive: bool
    stacks: bool
    among: frozenset[str]

    @property
    def num_outputs(self) -> int:
        """K, of all axes."""
        return self.z[0].numel()

    def only(self, names: Set[str]) -> "Probe":
        """Return it with some parameters alone."""
        return self._replace(
            numels={name: numel for name, numel in self.numels.items() if name in names},
            understood=self.understood & names,
            unreached=self.unreached & names,
            batched=self.batched & names,
            sizes={name: sizes for name, sizes in self.sizes.items() if name in names},
            kinds=tuple(kind for kind in self.kinds if kind.names & names & self.understood),
            bias_of={weight: bias for weight, bias in self.bias_of.items() if {weight, bias} <= names},
        )

    def uses(self, z: Tensor, names: dict[int, str], n: int) -> list[tuple[Use, Seen]] | None:
        """Find the uses in a block of n samples; None where they are not those of the probe.

        Raises:
            ValueError: a parameter that was left out counts here.
        """
        graph = read(z, names, self.shared)
        if late := graph.reached & self.unreached:
            raise ValueError(
                f"model: got a block of {n} sample(s) that reaches {', '.join(sorted(late))}, which the first sample and the last "
                "do not; wanted such a sample first"
            )
        found = [use for use in graph.uses if use.names & self.understood]
        if len(found) != len(self.kinds) or not all(kind.fits(use, n) for kind, use in zip(self.kinds, found, strict=True)):
            return None
        uses = [(use, kind.seen(n)) for kind, use in zip(self.kinds, found, strict=True)]
        return None if graph.may_reorder(n) and reordered(z, uses, n) else uses


class _Runs(NamedTuple):
    """The logits (n, K) of two samples a and b: of each alone, of the batch b, a, and of the batch a, b, a; their own axes."""

    first: Tensor
    last: Tensor
    pair: Tensor
    together: Tensor
    saved: int
    traces: Traces
    outputs: tuple[int, ...]


# What was found, as long as the model lives: a second kernel of the same weights need not try again.
_FOUND: WeakKeyDictionary[nn.Module, tuple[tuple, Probe]] = WeakKeyDictionary()


def probe(model: nn.Module, x: Samples, name: str = "x", among: frozenset[str] | None = None) -> Probe:
    """Return what two samples tell of a model, see :func:`tried`; what is known of the same model as it is now, at once."""
    first = x[:1]
    key = (form(first), first.device, getattr(model, "output", None), among, _state(model))
    known = _FOUND.get(origin(model))
    if known is None or known[0] != key:
        known = _FOUND[origin(model)] = (key, tried(model, x, name, among))
    return known[1]


def _state(model: nn.Module) -> tuple:
    """Tell a model from itself after any change: of its modules, their settings and modes, its weights and buffers."""
    settings = tuple(
        (id(module), *((name, value) for name, value in vars(module).items() if isinstance(value, _SIMPLE) or name == "forward"))
        for module in model.modules()
    )
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return settings, tuple((name, t.data_ptr(), t._version, t.requires_grad, t.shape, t.dtype) for name, t in tensors)


_SIMPLE = (bool, int, float, str, type(None))


def tried(model: nn.Module, x: Samples, name: str = "x", among: frozenset[str] | None = None) -> Probe:
    """Run the first and the last sample of x (N, ...) through the model, alone and together, and find the routes that are right.

    A route is right where the gradients of a batch of both agree, parameter by parameter and sample by sample, with those of
    plain autograd. Different samples in a batch tell the axis of the samples from any other, and a model that sorts its batch
    from one that does not. What the answer holds, it holds for every block of a Gram matrix, so that their features have one
    layout. Only parameters ``among`` some are looked at, by default all that train.

    Raises:
        TypeError, ValueError: a model that refuses the samples, whose output of one sample depends on others, on chance or on
            no trainable parameter, or that is not real.
    """
    with torch.inference_mode(False), torch.enable_grad(), multiplying("exact"):
        runs = _run(model, x, name)
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        among = frozenset(trainable) if among is None else among
        weights = {name: p for name, p in trainable.items() if name in among}
        v = torch.randn(3, runs.together.shape[1], generator=torch.Generator().manual_seed(0)).to(runs.together)
        plain = _plain(model, runs, weights, v)
        reached = frozenset(name for name, g in plain.items() if g is not None)
        if not reached:
            raise ValueError(
                f"model: got logits that depend on none of its {len(weights)} trainable parameters; wanted some that do, "
                "without no_grad or detach on the way"
            )
        shared, pairs = _pairs(runs, {i: name for i, name in names_of(model).items() if name in among})
        additive = _adds_up(model, runs.together, weights, v, plain)
        pairs, shares = _checked(runs.together, pairs, {id(weights[name]): name for name in reached}, v, plain)
        stacks = _stacks(runs.together, pairs, {id(weights[name]): name for name in reached}, v, shares)
        rest = {name: w for name, w in weights.items() if name in reached - shares.keys()}
        few = joined([x[:1], x[-1:], x[:1]])
        batched = _batched(model, few, v, rest, plain, runs.traces) if rest else frozenset()
        # what no sample reaches has no gradient; in a model that sends samples different ways, others may reach it
        unreached = frozenset() if rest else weights.keys() - reached
        weights = {name: w for name, w in weights.items() if name not in unreached}
        kinds = [kind for _, kind in pairs]
        return Probe(
            runs.first.detach().view(1, *runs.outputs),
            {name: w.numel() for name, w in weights.items()},
            tuple(kinds),
            shared,
            frozenset(unreached),
            frozenset(shares),
            batched,
            {name: share.sizes for name, share in shares.items() if not isinstance(share, Tensor)},
            _biases(pairs, shares),
            tuple(dict.fromkeys(name.rpartition(".")[0] for kind in kinds for name in sorted(kind.names))),
            runs.saved,
            runs.traces,
            additive,
            stacks,
            among,
        )


def tolerance_of(dtype: torch.dtype) -> float:
    """Return the relative error that rounding may leave."""
    return min(1e3 * torch.finfo(dtype).eps, 0.05)


def _run(model: nn.Module, x: Samples, name: str) -> _Runs:
    a, b = x[:1], x[-1:]
    three = joined([a, b, a])
    changed: set[str] = set()
    drew, wrote, traces = False, False, everything(model)
    outputs: tuple[int, ...] = ()

    def once(batch: Tensor | Batch, hooks: Callable = nullcontext) -> Tensor:
        nonlocal drew, wrote, outputs
        batch = batch.clone()
        version = [t._version for t in leaves(batch)]
        with untraced(model, traces) as found:
            torch.manual_seed(next(seeds))  # what is random is not to be the same twice
            before = _random_state(x.device)
            with hooks(), unfused(model):
                z = model(batch)
            drew |= not torch.equal(before, _random_state(x.device))
            wrote |= version != [t._version for t in leaves(batch)]
        changed.update(found)
        z = validate.answer(z, len(batch))
        validate.finite(z, "model's answer")
        outputs = tuple(z.shape[1:])
        return in_rows(z)

    seeds = itertools.count()
    try:
        first, saved = _counted(once, a)
        traces = Traces(frozenset(changed) | {name for name, _ in model.named_buffers()}, True, True)
        last, pair = once(b), once(joined([b, a]))
        together, all_saved = _counted(once, three)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if str(error).startswith(("model", "output")):
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
    alike = same(together, torch.cat([first, last, first]), tolerance) and same(pair, torch.cat([last, first]), tolerance)
    if drew or not alike:
        with torch.no_grad():
            many = a[[0] * _COPIES] if drew else three  # a rare chance shows among many
            chance = any(not same(once(many), once(many), tolerance) for _ in range(4))
            if chance or not alike:
                with untraced(model, everything(model)):
                    _refuse(model, a, many if chance else three, chance, tolerance)
    kept = max(0, (all_saved - saved) // 2)
    return _Runs(first, last, pair, together, kept, Traces(frozenset(changed), drew, wrote), outputs)


# Copies of a sample that a model which draws random numbers is to treat alike.
_COPIES = 64


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


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


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
    storage = t.untyped_storage()
    kept[storage._cdata] = storage.nbytes()  # not its address, which a tensor subclass may not have
    return t


def _plain(model: nn.Module, runs: _Runs, weights: dict[str, nn.Parameter], v: Tensor) -> dict[str, Tensor | None]:
    """Differentiate each sample by itself, by plain autograd: gradients (3, D) by name, None for what none depends on.

    A rule is held against the graph it reads: that of the batch, with the other samples' cotangents at 0. Alone a sample may
    go through other kernels, whose rounding turns a rectifier on or off. Only where alone it has quite another gradient, as
    with an embedding that scales it by counts over the batch, does that one count.
    """
    apart = _differentiated(model, zip([runs.together] * 3, torch.diag_embed(v.T).permute(1, 2, 0), strict=True), weights)
    alone = _differentiated(model, zip((runs.first, runs.last, runs.first), v.split(1), strict=True), weights)
    rounding = _rounding(alone) if any(g is not None for g in alone.values()) else 0.0
    return {
        name: of_batch if of_batch is not None and g is not None and near(of_batch, g, rounding) else g
        for (name, g), of_batch in zip(alone.items(), apart.values(), strict=True)
    }


def _differentiated(
    model: nn.Module, passes: Iterable[tuple[Tensor, Tensor]], weights: dict[str, nn.Parameter]
) -> dict[str, Tensor | None]:
    rows = [gradients(model, z, some, list(weights.values())) if z.requires_grad else [None] * len(weights) for z, some in passes]
    found: dict[str, Tensor | None] = {}
    for (name, w), of_samples in zip(weights.items(), zip(*rows, strict=True), strict=True):
        some = [torch.zeros_like(w) if g is None else g for g in of_samples]
        found[name] = None if all(g is None for g in of_samples) else torch.stack(some).view(len(some), -1)
    return found


def near(one: Tensor, other: Tensor, rounding: float) -> bool:
    """Say whether two ways to one gradient agree but for roundings, each of which may turn a rectifier on or off."""
    tolerance = min(30 * torch.finfo(one.dtype).eps ** 0.5, 0.5)
    scale = max(float(one.norm()), float(other.norm()))
    return float((one - other).norm()) <= tolerance * scale + rounding * one.numel() ** 0.5


def _rounding(plain: dict[str, Tensor | None]) -> float:
    """Return what rounding may leave of a gradient that cancels: relative to the largest of them."""
    found = [g for g in plain.values() if g is not None]
    return max(float(g.abs().max()) * 10 * torch.finfo(g.dtype).eps for g in found)


def _adds_up(model: nn.Module, z: Tensor, weights: dict[str, nn.Parameter], v: Tensor, plain: dict[str, Tensor | None]) -> bool:
    """Say whether the gradient of a batch is the sum of its samples': an embedding may scale it by counts over the batch."""
    whole = gradients(model, z, v, list(weights.values()))
    tolerance, rounding = tolerance_of(z.dtype), _rounding(plain)
    return all(
        wanted is None or g is None or same(g.flatten(), wanted.sum(0), tolerance, rounding)
        for g, wanted in zip(whole, plain.values(), strict=True)
    )


def _pairs(runs: _Runs, names: dict[int, str]) -> tuple[frozenset[Key], list[tuple[Use, Kind]]]:
    """List the uses in the batch of three with their kinds, as far as they are the same for two samples and for three."""
    shared = frozenset.intersection(*(read(z, names).shared for z in (runs.pair, runs.together)))
    uses = [read(z, names, shared).uses for z in (runs.pair, runs.together)]
    patterns = []
    for some in uses:
        of_name: dict[str, list] = {}
        for use in some:
            for name in use.names:
                of_name.setdefault(name, []).append((use.kind, use.slot))
        patterns.append(of_name)
    known = {name for name, pattern in patterns[1].items() if patterns[0].get(name) == pattern}
    uses = [[use for use in some if use.names <= known] for some in uses]
    if len({len(some) for some in uses}) > 1:
        return shared, []
    pairs, odd = [], set()
    for two, three in zip(*uses, strict=True):
        kind = _kind(two, three)
        if kind is None:
            odd |= two.names | three.names
        else:
            pairs.append((three, kind))
    return shared, [(use, kind) for use, kind in pairs if not use.names & odd]


def _kind(two: Use, three: Use) -> Kind | None:
    """Compare a use in a batch of two with the same in a batch of three: one axis grows with the samples."""
    small, large = two.shape, three.shape
    if (two.kind, two.slot, two.names) != (three.kind, three.slot, three.names) or len(small) != len(large):
        return None
    grown = [axis for axis, (n, m) in enumerate(zip(small, large, strict=True)) if n != m]
    if len(grown) != 1 or large[(axis := grown[0])] * 2 != 3 * small[axis] or small[axis] % 2:
        return None
    return Kind(two.kind, two.slot, two.names, small[:axis] + (small[axis] // 2,) + small[axis + 1 :], axis)


def _checked(
    z: Tensor, pairs: list[tuple[Use, Kind]], names: dict[int, str], v: Tensor, plain: dict[str, Tensor | None]
) -> tuple[list[tuple[Use, Kind]], dict[str, Share]]:
    """Keep the parameters whose rules give what plain autograd gives, sample by sample, and their shares."""
    pairs = _without(pairs, {name for use, kind in pairs if not _has_rule(use, kind) for name in use.names})
    tolerance, rounding, turned = tolerance_of(z.dtype), _rounding(plain), False
    while True:
        shares = _tried(z, pairs, names, v)
        wrong = {use_name for use, _ in pairs for use_name in use.names if use_name in plain} - shares.keys()
        for name, share in shares.items():
            wanted = plain[name]
            if wanted is None or not same(formed(share)[:, 0], wanted, tolerance, rounding):
                wrong.add(name)
        if not wrong:
            return pairs, shares
        if turned:
            pairs, turned = _without(pairs, wrong), False
        else:  # positions before samples, perhaps
            pairs, turned = [(use, kind._replace(inner=not kind.names & wrong)) for use, kind in pairs], True


def _without(pairs: list[tuple[Use, Kind]], names: Set[str]) -> list[tuple[Use, Kind]]:
    """Drop parameters, and all that meet the samples together with them, until none is left of them."""
    while together := {name for use, _ in pairs if use.names & names for name in use.names}:
        pairs, names = [(use, kind) for use, kind in pairs if not use.names & together], names | together
    return pairs


def _has_rule(use: Use, kind: Kind) -> bool:
    try:
        return rule_of(use, kind.seen(3)) is not None
    except (RuntimeError, AttributeError):  # written to since, or not saved
        return False


def _tried(z: Tensor, pairs: list[tuple[Use, Kind]], names: dict[int, str], v: Tensor) -> dict[str, Share]:
    """Compute the shares by rules; where that fails, of those parameters alone for which it does not."""
    uses = [(use, kind.seen(3)) for use, kind in pairs]
    try:
        return by_rules(z, uses, v.unsqueeze(1), names, retain=True)
    except RuntimeError:
        if len({use.names for use, _ in uses}) <= 1:
            return {}
    found: dict[str, Share] = {}
    for group in {use.names for use, _ in uses}:
        some = [(use, kind) for use, kind in pairs if use.names & group]
        found |= {name: share for name, share in _tried(z, some, names, v).items() if name in group}
    return found


def _stacks(z: Tensor, pairs: list[tuple[Use, Kind]], names: dict[int, str], v: Tensor, shares: dict[str, Share]) -> bool:
    """Say whether two cotangents in one batched pass give what they give one after the other."""
    uses = [(use, kind.seen(3)) for use, kind in pairs]
    try:
        both = by_rules(z, uses, torch.stack([v, -2 * v], 1), names, retain=True, batched=True)
    except RuntimeError:
        return False
    tolerance = tolerance_of(z.dtype)
    return all(
        same(formed(both[name]), torch.cat([one := formed(share), -2 * one], 1), tolerance, 10 * torch.finfo(z.dtype).eps)
        for name, share in shares.items()
    )


def _batched(
    model: nn.Module, x: Tensor | Batch, v: Tensor, rest: dict[str, nn.Parameter], plain: dict[str, Tensor | None], traces: Traces
) -> frozenset[str]:
    """Find the parameters for which torch.func gives what plain autograd gives."""
    weights = {name: w.detach() for name, w in rest.items()}
    try:
        with untraced(model, traces):
            found = by_torch_func(model, x, v.unsqueeze(1), weights)[:, 0]
    except Exception:  # whatever vmap does not go through
        return frozenset()
    rounding, parts = _rounding(plain), found.split([w.numel() for w in weights.values()], 1)
    return frozenset(
        name for name, g in zip(weights, parts, strict=True) if (wanted := plain[name]) is not None and near(g, wanted, rounding)
    )


def _biases(pairs: list[tuple[Use, Kind]], shares: dict[str, Share]) -> dict[str, str]:
    """Pair up weights in factors and biases that one operation uses together, and no other."""
    count = Counter(name for use, _ in pairs for name in use.names)
    by_node: dict = {}
    for use, _ in pairs:
        if len(use.names) == 1 and count[next(iter(use.names))] == 1:
            by_node.setdefault(use.node, {})[use.slot] = next(iter(use.names))
    found = {}
    for node, slots in by_node.items():
        weight, bias = slots.get(_WEIGHT.get(node.name(), (None, None))[0]), slots.get(_WEIGHT.get(node.name(), (None, None))[1])
        if weight is None or bias is None or not isinstance(share := shares[weight], OuterProducts):
            continue
        if not share.turned and share.sizes.groups * share.sizes.fan_out == formed(shares[bias]).shape[2]:
            found[weight] = bias
    return found


# The slots of weight and bias.
_WEIGHT = {"AddmmBackward0": (2, 0), "ConvolutionBackward0": (1, 2)}
