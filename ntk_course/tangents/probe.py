"""A probe: a few samples tell, once, which route to each parameter's gradient is right for a model, or why there is none."""

import math
from collections import Counter
from collections.abc import Set
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..basics.samples import Samples, Stored, form, leaves
from ..basics.settings import settings, where_it_lies, without
from ..models.adapted import origin
from . import trial
from .certified import state
from .certify import Verdict, adds_up, attempted, counted, log, near, rounding_of, sample_by_sample, wrong_rules
from .culprit import same, tolerance_of
from .graph import Key, Use, names_of, read
from .kinds import Kind, dropped, matched, pairs_of, turned
from .precision import multiplying
from .routes import by_rules, by_torch_func, reordered
from .rules import RULES, Seen, rule_of
from .running import Traces, in_rows, run, untraced
from .shares import OuterProducts, Share, Sizes, formed


class Probe(NamedTuple):
    """What a few samples tell of a model; parameters go by name.

    Attributes:
        z: the first one's logits, (1, K).
        numels: of the trainable parameters, in the model's order.
        kinds: of all uses of the parameters that rules serve.
        shared: keys of the nodes of the graph that compute from parameters alone.
        unreached: parameters that are left out, since the logits depend on none of them.
        understood: the parameters that rules serve.
        batched: those that torch.func serves; the others are served one sample at a time.
        untold: those of both kinds that had a gradient in fewer than two samples, so that little was tried: they are not kept in
            factors, and other samples are tried anew.
        sizes: of the weights that can stay in factors.
        bias_of: the weights among them that are used together with a bias, and that bias.
        called: modules that own an understood parameter, in the order of their uses.
        saved: bytes of graph for each further sample.
        traces: what a forward pass would leave behind.
        additive: whether a batch's gradient is the sum of its samples'.
        stacks: whether several cotangents can go back in one batched pass.
        nests: whether torch.func may take several at once as well.
        reorders: whether some samples were found to change places on their way through the model.
        among: the trainable parameters that were looked at.
    """

    z: Tensor
    numels: dict[str, int]
    kinds: tuple[Kind, ...]
    shared: frozenset[Key]
    unreached: frozenset[str]
    understood: frozenset[str]
    batched: frozenset[str]
    untold: frozenset[str]
    sizes: dict[str, Sizes]
    bias_of: dict[str, str]
    called: tuple[str, ...]
    saved: int
    traces: Traces
    additive: bool
    stacks: bool
    nests: bool
    reorders: bool
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
            untold=self.untold & names,
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
        self._refuse(graph.reached & self.unreached, n)
        return matched(z, graph, self.kinds, n, self.reorders)

    def refuse_late(self, z: Tensor, model: nn.Module, n: int) -> None:
        """Refuse the logits of n samples that depend on a parameter that was left out."""
        if self.unreached:
            self._refuse(read(z, names_of(model)).reached & self.unreached, n)

    def _refuse(self, late: Set[str], n: int) -> None:
        if late:
            raise ValueError(
                f"model: got a block of {n} sample(s) that reaches {', '.join(sorted(late))}, which no sample of the first side "
                "does; wanted such a sample there as well"
            )


# What was found, as long as the model lives: a second kernel of the same weights need not try again.
_FOUND: "WeakKeyDictionary[nn.Module, _Known]" = WeakKeyDictionary()


def probe(model: nn.Module, x: Samples, name: str = "x", among: frozenset[str] | None = None) -> Probe:
    """Return what a few samples tell of a model, see :func:`tried`; what is known of the same model as it is now, at once."""
    first = x[:1]
    key = (form(first), first.device, min(len(x), 3), getattr(model, "output", None), among, state(model))
    known, now, of = _FOUND.get(origin(model)), settings(model), _which(x)
    if (
        known is None
        or known.key != key
        or known.settings != without(now, known.found.traces.settings)
        or known.of != of
        and (known.found.untold or known.found.unreached)  # others may say more
    ):
        found = tried(model, x, name, among)
        known = _FOUND[origin(model)] = _Known(key, without(now, found.traces.settings), of, found)
    return known.found


class _Known(NamedTuple):
    """What was found, of which model in which state, and of which samples."""

    key: tuple
    settings: dict[str, object]
    of: tuple
    found: Probe


def _which(x: Samples) -> tuple:
    return (id(x.dataset),) if isinstance(x, Stored) else tuple(where_it_lies(t) for t in leaves(x))


def tried(model: nn.Module, x: Samples, name: str = "x", among: frozenset[str] | None = None) -> Probe:
    """Run samples of x (N, ...) through the model, alone and together, and find the routes to their gradients that are right.

    A route is right where the gradients of a batch of three, the first, the last and the one in the middle, agree, parameter by
    parameter and sample by sample, with those of plain autograd; and those of one sample alone, and of many together, with two
    cotangents each, in their sum. Different samples in a batch tell the axis of the samples from any other, and a model that
    sorts its batch from one that does not. What the answer holds, it holds for every block of a Gram matrix, so that their
    features have one layout. Only parameters ``among`` some are looked at, by default all that train.

    Raises:
        TypeError, ValueError: a model that refuses the samples, whose output of one sample depends on others, on chance or on
            no trainable parameter, or that is not real.
    """
    with torch.inference_mode(False), torch.enable_grad(), multiplying("exact"):
        runs = trial.runs(model, x, name)
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        among = frozenset(trainable) if among is None else among
        weights = {name: p for name, p in trainable.items() if name in among}
        v = torch.randn(3, runs.together.shape[1], generator=torch.Generator().manual_seed(0)).to(runs.together)
        plain = sample_by_sample(model, runs, weights, v)
        reached = frozenset(name for name, g in plain.items() if g is not None)
        if not reached:
            raise ValueError(
                f"model: got logits that depend on none of its {len(weights)} trainable parameters; wanted some that do, "
                "without no_grad or detach on the way"
            )
        names = {i: name for i, name in names_of(model).items() if name in among}
        shared, pairs = pairs_of(runs, names)
        graph = read(runs.many, names, shared)
        additive = adds_up(model, runs.together, weights, v, plain) and not graph.counting
        pairs, shares, told = _checked(runs.together, pairs, {id(weights[name]): name for name in reached}, v, plain)
        kinds = [kind for _, kind in pairs]
        every = matched(runs.many, graph, kinds, len(runs.many))
        reorders = every is not None and len(runs.many) > 1 and reordered(runs.many, every, len(runs.many))
        for z in (runs.many, runs.together, runs.alone[0]):
            for last in (False, True):
                uses = matched(z, read(z, names, shared), [kind for _, kind in pairs], len(z), reorders)
                if uses is None or not shares:
                    break  # these samples go another way, and so will blocks with them
                wrong, seen = wrong_rules(model, z, uses, weights, shares)
                told = {name: max(told[name], seen.get(name, 0)) for name in shares}
                if not wrong:
                    break
                pairs = dropped(pairs, wrong) if last else turned(pairs, wrong)
                shares = {name: share for name, share in shares.items() if not last or any(name in k.names for _, k in pairs)}
        stacks = _stacks(runs.together, pairs, {id(weights[name]): name for name in reached}, v, shares)
        rest = {name: w for name, w in weights.items() if name in reached - shares.keys()}
        batched, nests = _batched(model, runs, v, rest, plain) if rest else (frozenset(), True)
        # what no sample reaches has no gradient; in a model that sends samples different ways, others may reach it
        unreached = frozenset() if rest else _unreached(model, x, names, weights.keys() - reached - graph.reached, runs.traces)
        told |= {name: int(g.any(1).sum()) for name, g in plain.items() if name in batched and g is not None}
        untold = frozenset(name for name, count in told.items() if count < min(2, len(x)))
        known = {name: share for name, share in shares.items() if name not in untold}
        sizes, bias_of = _factors(model, runs.together, pairs, v, known, weights)
        weights = {name: w for name, w in weights.items() if name not in unreached}
        kinds = [kind for _, kind in pairs]
        return Probe(
            runs.alone[0].detach().view(1, *runs.outputs),
            {name: w.numel() for name, w in weights.items()},
            tuple(kinds),
            shared,
            frozenset(unreached),
            frozenset(shares),
            batched,
            untold,
            sizes,
            bias_of,
            tuple(dict.fromkeys(name.rpartition(".")[0] for kind in kinds for name in sorted(kind.names))),
            runs.saved,
            runs.traces,
            additive,
            stacks,
            nests,
            reorders,
            among,
        )


def _checked(
    z: Tensor, pairs: list[tuple[Use, Kind]], names: dict[int, str], v: Tensor, plain: dict[str, Tensor | None]
) -> tuple[list[tuple[Use, Kind]], dict[str, Share], dict[str, int]]:
    """Keep the parameters whose rules give what plain autograd gives, sample by sample; their shares, and samples with a gradient.

    Of a gradient that is small beside others, rounding may leave nothing right. Such a one is taken to be laid out, samples
    before positions or after them, as brings it nearer to plain autograd.
    """
    pairs = dropped(pairs, {name for use, kind in pairs if not _has_rule(use, kind) for name in use.names})
    tolerance, rounding = tolerance_of(z.dtype), rounding_of(plain)

    def apart(pairs: list[tuple[Use, Kind]]) -> tuple[dict[str, Share], dict[str, float]]:
        shares = attempted(z, [(use, kind.seen(3)) for use, kind in pairs], v.unsqueeze(1), names)
        wanted = {name for use, _ in pairs for name in use.names if name in plain}
        return shares, {name: _distance(name, shares.get(name), plain[name]) for name in wanted}

    shares, far = apart(pairs)
    if doubtful := {name for name, d in far.items() if d > tolerance * _largest(plain[name])}:
        otherwise = apart(turned(pairs, doubtful))[1]
        pairs = turned(pairs, {name for name in doubtful if otherwise[name] < far[name]})
        shares, far = apart(pairs)
    while wrong := {name for name, d in far.items() if d > tolerance * _largest(plain[name]) + rounding}:
        log.debug("%s: no rule, or another gradient than plain autograd's", ", ".join(sorted(wrong)))
        pairs = dropped(pairs, wrong)
        shares, far = apart(pairs)
    return pairs, shares, {name: counted(share) for name, share in shares.items()}


def _largest(wanted: Tensor | None) -> float:
    return float(wanted.detach().abs().max()) if wanted is not None and wanted.numel() else 0.0


def _distance(name: str, share: Share | None, wanted: Tensor | None) -> float:
    """Return the largest difference of what a rule gave for three samples from what is wanted, infinite where it is unusable."""
    try:
        found = None if share is None else formed(share)
        if found is None or wanted is None or found.shape != (3, 1, wanted.shape[1]):
            return math.inf
        far = float((found[:, 0] - wanted).detach().abs().max()) if wanted.numel() else 0.0
        return math.inf if math.isnan(far) else far
    except Exception as error:  # what a rule gave is no share
        log.debug("%s: its rule gave %s, which cannot be used (%s)", name, type(share).__name__, error)
        return math.inf


def _has_rule(use: Use, kind: Kind) -> bool:
    try:
        found = rule_of(use, kind.seen(3)) is not None
        why = "does not apply" if use.kind in RULES else "is missing"
    except Exception as error:  # written to since, or not saved, or a mistake in the rule
        found, why = False, f"fails ({type(error).__name__}: {error})"
    if not found:
        log.debug("%s: the rule of %s, slot %d, %s", ", ".join(sorted(use.names)), use.kind, use.slot, why)
    return found


def _stacks(z: Tensor, pairs: list[tuple[Use, Kind]], names: dict[int, str], v: Tensor, shares: dict[str, Share]) -> bool:
    """Say whether two cotangents in one batched pass give what they give one after the other."""
    uses, both = [(use, kind.seen(3)) for use, kind in pairs], torch.stack([v, v.flip(0)], 1)
    try:
        apart, found = by_rules(z, uses, both, names, retain=True), by_rules(z, uses, both, names, retain=True, batched=True)
    except RuntimeError:
        return False
    tolerance, rounding = tolerance_of(z.dtype), 10 * torch.finfo(z.dtype).eps
    return all(same(formed(found[name]), formed(apart[name]), tolerance, rounding) for name in shares)


def _unreached(model: nn.Module, x: Samples, names: dict[int, str], left: Set[str], traces: Traces) -> frozenset[str]:
    """Find those of some parameters that no sample of x reaches: an expert may be asked by few."""
    for i in range(0, len(x) if left else 0, _LOOKED_AT):
        left = left - read(in_rows(run(model, x[i : i + _LOOKED_AT], traces)), names).reached
        if not left:
            break
    return frozenset(left)


# Samples that are looked at together for what they reach.
_LOOKED_AT = 64


def _batched(
    model: nn.Module, runs: trial.Runs, v: Tensor, rest: dict[str, nn.Parameter], plain: dict[str, Tensor | None]
) -> tuple[frozenset[str], bool]:
    """Find the parameters for which torch.func gives what plain autograd gives, and whether two cotangents may go at once."""
    weights, both = {name: w.detach() for name, w in rest.items()}, torch.stack([v, v.flip(0)], 1)
    try:
        with untraced(model, runs.traces):
            one, other = (by_torch_func(model, runs.few, c, weights, True)[:, 0] for c in both.split(1, 1))
    except Exception as error:  # whatever vmap does not go through
        log.debug("%s: torch.func fails (%s: %s)", ", ".join(rest), type(error).__name__, error)
        return frozenset(), True
    rounding, sizes = rounding_of(plain), [w.numel() for w in weights.values()]
    found = set()
    for name, g in zip(weights, one.split(sizes, 1), strict=True):
        if (wanted := plain[name]) is not None and near(g, wanted, rounding):
            found.add(name)
        else:
            log.debug("%s: torch.func gives another gradient than plain autograd", name)
    try:
        with untraced(model, runs.traces):
            nests = near(by_torch_func(model, runs.few, both, weights, True), torch.stack([one, other], 1), rounding)
    except Exception:  # two vmaps may be more than an operation has rules for
        nests = False
    return frozenset(found), nests


def _factors(
    model: nn.Module,
    z: Tensor,
    pairs: list[tuple[Use, Kind]],
    v: Tensor,
    shares: dict[str, Share],
    weights: dict[str, nn.Parameter],
) -> tuple[dict[str, Sizes], dict[str, str]]:
    """Find the weights whose factors, laid out for products, say the same as their gradients; and biases that may join them."""
    factored = {name: share for name, share in shares.items() if not isinstance(share, Tensor)}
    if not factored:
        return {}, {}
    verdict = Verdict(model, z, v.unsqueeze(1), shares, weights)
    sizes = {name: share.sizes for name, share in factored.items() if verdict.of_factors(name)}
    biases = _biases(pairs, shares).items()
    return sizes, {weight: bias for weight, bias in biases if weight in sizes and verdict.of_pair(weight, bias)}


def _biases(pairs: list[tuple[Use, Kind]], shares: dict[str, Share]) -> dict[str, str]:
    """Pair up weights in factors and biases that one operation uses together, and no other."""
    count = Counter(name for use, _ in pairs for name in use.names)
    by_node: dict = {}
    for use, _ in pairs:
        if len(use.names) == 1 and count[next(iter(use.names))] == 1:
            by_node.setdefault(use.node, {})[use.slot] = next(iter(use.names))
    found: dict[str, str] = {}
    for node, slots in by_node.items():
        weight, bias = slots.get(_WEIGHT.get(node.name(), (None, None))[0]), slots.get(_WEIGHT.get(node.name(), (None, None))[1])
        if weight is None or bias not in shares or not isinstance(share := shares.get(weight), OuterProducts):
            continue
        if not share.turned and share.sizes.groups * share.sizes.fan_out == formed(shares[bias]).shape[2]:
            found[weight] = bias
    return found


# The slots of weight and bias.
_WEIGHT = {"AddmmBackward0": (2, 0), "ConvolutionBackward0": (1, 2)}
