r"""A model as a program of kernels: rules in order, each of which takes pairs of samples on.

While a model is read, a :class:`Field` stands for each activation, and a :class:`Builder` writes the rules down. The same
program then runs on any pairs of samples.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .covariances import Pair, Sides, Weights


class Unknown(ValueError):
    """An operation whose kernel is not known; the message says which, and why."""


class NeedsPairs(Exception):
    """Covariances of unequal positions are needed."""


# A linear map over positions, the same for all channels: from (samples or 1, P, R) to (samples or 1, Q, R).
Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """Linear maps over positions, one after the other, of the field that a step made."""

    root: "Field"
    path: tuple[Map, ...] = ()

    def then(self, *maps: Map) -> "Part":
        """Return it behind further maps."""
        return Part(self.root, (*self.path, *maps))

    def of(self, value: Tensor) -> Tensor:
        """Apply the maps to (samples or 1, P, R)."""
        for one in self.path:
            value = one(value)
        return value

    def matrix(self, like: Tensor) -> Tensor:
        """Return them as a matrix (samples or 1, Q, P)."""
        return self.of(torch.eye(math.prod(self.root.positions)).to(like)[None])

    def mean(self) -> Tensor:
        """Return the mean of a channel, (samples or 1, Q, 1).

        Raises:
            Unknown: it is not known.
        """
        if self.root.mean is None:
            raise Unknown(
                "it adds, joins or multiplies several parts whose mean is not zero, one of which is not known, such as a recurrent one: "
                "products of their means stay; wanted a layer behind all but one"
            )
        return self.of(self.root.mean()[..., None])


@dataclass(frozen=True)
class Field:
    """What stands for an activation while the model is read.

    Attributes:
        step: of the program, which makes its pair.
        shape: of one sample in the finite network.
        channels: the axes of that shape that run over channels; the others run over positions, in order.
        gaussian: whether channels are Gaussian, and alike at every position.
        sources: the layers whose weights it depends on in a way that another use of them would notice, each with the numbers of
            those of its channels that are left, or None for all.
        parts: whose sum it is, linear maps of fields with no weights in common; none if it is no such sum.
        scale: the factor between this one and what a step made, if that is known.
        gain: how many trained factors its channels carry, each of which has the channel itself as its tangent feature; these
            features are not in the pair's tangent kernel yet, where they would pass for independent of the channel.
        blended: whether such features are in its tangent kernel, of a part of the channel.
        centred: whether a channel has mean zero over weights.
        mean: finds that of the samples that are read, (samples, P), where it is not zero but known.
        alike: whether all channels are alike, so that some of them are as good as all.
        batch: the axis of samples in the finite network's tensor, or None: a parameter has none.
        moved: where positions have become channels: the field before, and the rest of what :func:`places.found` took.
    """

    step: int
    shape: tuple[int, ...]
    channels: frozenset[int]
    gaussian: bool
    sources: frozenset[tuple[str, tuple[int, ...] | None]]
    parts: tuple[Part, ...] = ()
    scale: float = 1.0
    gain: float = 0.0
    blended: bool = False
    centred: bool = True
    mean: Callable[[], Tensor] | None = None
    alike: bool = True
    batch: int | None = 0
    moved: tuple | None = None

    @property
    def sum(self) -> tuple[Part, ...]:
        """The parts, or itself."""
        return self.parts or (Part(self),)

    @property
    def positions(self) -> tuple[int, ...]:
        """The sizes of the axes of positions."""
        return tuple(n for axis, n in enumerate(self.shape) if axis not in self.channels)

    @property
    def width(self) -> int:
        """The channels of the finite network."""
        return math.prod(self.shape[axis] for axis in self.channels)

    @property
    def channel(self) -> int:
        """The only axis of channels.

        Raises:
            Unknown: there are several, such as heads.
        """
        if len(self.channels) != 1:
            raise Unknown(f"its channels lie on {len(self.channels)} axes of {self.shape}; wanted one")
        return next(iter(self.channels))


@dataclass(frozen=True)
class Contraction:
    """A sum over n channels of products of two fields, times a factor: it settles where the factor goes as one over n.

    Attributes:
        mean: over channels, in the limit, (N, ...).
        count: n.
        factor: what the fields, and the sum, were multiplied by so far.
    """

    mean: Tensor
    count: int
    factor: float

    def settled(self) -> Tensor:
        """Return its value in the limit.

        Raises:
            Unknown: it has none.
        """
        if abs(self.factor) * self.count**0.5 > 1 - 1e-6:
            raise Unknown(
                f"it takes products summed over {self.count} channels times {self.factor:.4g}, which stay random, or grow, with the width "
                f"if that is one over its root or larger; wanted them divided by the width, {self.count}, where they settle"
            )
        return self.mean * (self.factor * self.count)


def settled(value):
    """Return a contraction's value in the limit, and anything else as it is."""
    return value.settled() if isinstance(value, Contraction) else value


@dataclass(frozen=True)
class Step:
    """One rule of the program, the steps whose pairs it takes, and the gains that join their tangent kernels there."""

    rule: Callable[..., Pair]
    takes: tuple[int, ...]
    gains: tuple[float, ...]

    def __call__(self, sides: Sides, pairs: Sequence[Pair]) -> Pair:
        """Apply the rule."""
        joined = (p if g == 0 else Pair(p.nngp, p.ntk + g * p.nngp) for p, g in zip(pairs, self.gains, strict=True))
        return self.rule(sides, *joined)


@dataclass
class Program:
    """The rules of a model, in order.

    Attributes:
        steps: the rules.
        result: the step whose pair is the answer.
        numbers: the most numbers that a pair of samples has at a step.
    """

    steps: list[Step]
    result: int
    numbers: int

    def run(self, sides: Sides) -> Pair:
        """Carry pairs through all rules; what no later rule takes is let go."""
        last = {taken: i for i, step in enumerate(self.steps) for taken in step.takes} | {self.result: len(self.steps)}
        found: dict[int, Pair] = {}
        for i, step in enumerate(self.steps[: self.result + 1]):
            found[i] = step(sides, [found[t] for t in step.takes])
            for t in {*step.takes, i}:
                if last.get(t, i) <= i:
                    found.pop(t, None)
        return found[self.result]


class Own(Sides):
    """Samples with themselves, pairs (N,): what each side of any pair will need is found and kept here."""

    def __init__(self, samples: int, every: bool):
        self.lead, self.every, self.same = (samples,), every, False
        self.kept: dict[str, Tensor] = {}

    def variances(self, key, own):
        """Find and keep them."""
        self.kept[key] = own()
        return self.plain(key)

    def plain(self, key):
        """Return what was kept."""
        return self.kept[key], self.kept[key]


class Builder:
    """Writes a program down while a model is read on samples with themselves.

    Args:
        own: keeps what sides need.
        scales: of the parameters.
        device: of the samples, where what the rules need is made.

    Attributes:
        key: the name of the operation that is read now.
    """

    def __init__(self, own: Own, scales: "Scales", device: torch.device):
        self.own, self.scales, self.device, self.samples = own, scales, device, own.lead[0]
        self.steps: list[Step] = []
        self.pairs: list[Pair] = []
        self.numbers, self.key = 1, ""

    def add(
        self,
        rule: Callable,
        takes: Sequence[Field],
        shape: Sequence[int],
        channels,
        *,
        gaussian: bool,
        sources,
        gain: float | None = None,
    ) -> Field:
        """Write a step down, and run it on samples with themselves; what has a gain keeps its fields' own apart."""
        gains = tuple(f.gain if gain is None else 0.0 for f in takes)
        step = Step(rule, tuple(f.step for f in takes), gains)
        self.steps.append(step)
        pair = step(self.own, [self.pairs[t] for t in step.takes])
        self.pairs.append(pair)
        self.numbers = max(self.numbers, pair.nngp[0].numel())
        here = len(self.steps) - 1
        return Field(here, tuple(shape), frozenset(channels), gaussian, _sources(sources), gain=gain or 0.0)

    def like(
        self, field: Field, rule: Callable, shape=None, channels=None, more: float = 0.0, sources=None, by: Map | None = None
    ) -> Field:
        """Write a step down that is linear in every channel: all is kept of the field but what is given; factors of its own are `more`.

        A map over positions, `by`, makes it a map of the same parts.
        """
        shape, channels = (field.shape, field.channels) if shape is None else (shape, channels)
        sources = field.sources if sources is None else sources
        made = self.add(rule, [field], shape, channels, gaussian=field.gaussian, sources=sources, gain=field.gain + more)
        made = replace(made, blended=field.blended, centred=field.centred, alike=field.alike, batch=field.batch)
        return made if by is None else replace(made, parts=tuple(part.then(by) for part in field.sum))

    def together(self, rule: Callable, parts: Sequence[Field], shape, channels, **known) -> Field:
        """Write a step down that takes several fields with no weights in common."""
        sources = frozenset().union(*(f.sources for f in parts))
        made = self.add(rule, parts, shape, channels, sources=sources, **known)
        apart = "gain" in known  # what has a gain of its own has not blended those of its parts
        return replace(
            made,
            blended=any(f.blended or (f.gain and not apart) for f in parts),
            centred=all(f.centred for f in parts),
            alike=all(f.alike for f in parts),
            batch=0 if any(f.batch == 0 for f in parts) else None,
        )

    def keep(self, key: str, value: Tensor) -> None:
        """Keep a plain tensor with samples first for the two sides of any pair."""
        self.own.kept[key] = value

    def inner(self, value: Tensor) -> Callable[..., Pair]:
        """Return the rule that makes covariances of plain tensors (N, positions..., channels): means of their products."""
        key, every = f"{self.key} inner", self.own.every
        self.keep(key, value.reshape(len(value), -1, value.shape[-1]))

        def rule(sides: Sides) -> Pair:
            left, right = sides.plain(key)
            if every:
                k = left @ right.mT / left.shape[-1]
            elif left.dim() == 4 and left.shape[2] == 1:  # one position each: a matrix product
                k = (left[:, 0, 0] @ right[0, :, 0].T / left.shape[-1])[..., None]
            else:
                k = (left * right).sum(-1) / left.shape[-1]
            return Pair(k, torch.zeros_like(k))

        return rule


def _sources(some) -> frozenset[tuple[str, tuple[int, ...] | None]]:
    return frozenset((one, None) if isinstance(one, str) else one for one in some)


class Scales:
    """What each parameter's scale is: given, or measured.

    Args:
        model: whose parameters they are.
        w_std: sigma_w of all weights, or None for the root of the fan-in times the mean square of a layer's weights.
        b_std: sigma_b of all biases, or None for a bias's root mean square.
        deviations: by parameter's name, before the two.
        standard: whether the parameterization is the standard one.
    """

    def __init__(
        self, model: nn.Module, w_std: float | None, b_std: float | None, deviations: Mapping[str, float], standard: bool
    ):
        self.parameters = dict(model.named_parameters(remove_duplicate=False))
        self.w_std, self.b_std, self.standard = w_std, b_std, standard
        # by what a parameter is, which may have several names; what was given and never asked for is of no effect
        self.deviations = {id(self.parameters[name]): float(std) for name, std in deviations.items()}
        self.unused = {id(self.parameters[name]): name for name in deviations}
        tables = ((n, m) for n, m in model.named_modules() if isinstance(m, nn.Embedding) and m.padding_idx is not None)
        empty = lambda m: m.weight.is_meta or bool(m.weight[m.padding_idx].eq(0).all())  # others were drawn over it
        self.empty = {f"{n}.weight".lstrip("."): m.padding_idx for n, m in tables if empty(m)}

    def weights(self, weight: str, bias: str | None = None, *, first: bool = False) -> Weights:
        """Return the scales of a layer's weights and bias, by their names; outputs are the weights' first axis, or their last."""
        w, b = self.parameters[weight], None if bias is None else self.parameters.get(bias)
        fan_in = w.numel() // w.shape[-1 if first else 0]
        variance = self._variance(weight, w, self.w_std, fan_in)
        own = (float(fan_in) if self.standard else variance) * w.requires_grad
        if b is None or bias is None:
            return Weights(variance, 0.0, own, 0.0)
        of_bias = self._variance(bias, b, self.b_std, 1)
        return Weights(variance, of_bias, own, (1.0 if self.standard else of_bias) * b.requires_grad)

    def table(self, name: str) -> tuple[float, float]:
        """Return the variance and the own gradients of a parameter that is itself a field: an embedding, positions, a bias."""
        p = self.parameters[name]
        variance = self._variance(name, p, None, 1)
        return variance, (1.0 if self.standard else variance) * p.requires_grad

    def _variance(self, name: str, p: Tensor, given: float | None, fan_in: int) -> float:
        std = self.deviations.get(id(p), given)
        self.unused.pop(id(p), None)
        if std is not None:
            return float(std) ** 2
        numbers = p.detach().double()
        if name in self.empty:  # a row of zeros, which is not trained
            numbers = numbers[torch.arange(len(p), device=p.device) != self.empty[name]]
        square = float(numbers.square().mean())
        count, mean = numbers.numel(), float(numbers.mean().abs())
        if count > 1 and (mean > 6 * (square / count) ** 0.5 or (mean > 0 and bool((numbers == numbers.flatten()[0]).all()))):
            raise Unknown(
                f"model: got parameter '{name}' with the mean {float(numbers.mean()):.3g} and the root mean square {square**0.5:.3g}: no "
                "draw of mean zero; wanted weights as they were drawn, or w_std, b_std or deviations"
            )
        return fan_in * square
