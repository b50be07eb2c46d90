"""Modules with weights: what each does to covariances."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from . import covariances
from .covariances import Pair, Sides, Weights, Window
from .places import with_samples
from .program import Builder, Field, NeedsPairs, Unknown

Value = Tensor | Field
# Channels of a group that are taken for infinitely many.
_MANY = 8


def _pairs(build: Builder, name: str, x: Value, last: bool = True) -> tuple[Callable[..., Pair], list[Field], tuple[int, ...]]:
    """Return the rule that brings an input's covariances, the fields it takes, and the sizes of its positions."""
    axis = -1 if last else 1
    if isinstance(x, Tensor):
        if not x.is_floating_point():
            raise Unknown(f"got {x.dtype}; wanted real numbers")
        _samples_first(build, x)
        moved = x.movedim(axis, -1)
        return build.inner(moved), [], tuple(moved.shape[1:-1])
    x = with_samples(build, x)
    _many(x)
    if x.channel != axis % (len(x.shape) + 1) - 1:
        raise Unknown(f"it acts on axis {axis} of {('N', *x.shape)}, where positions are; wanted channels there")
    return lambda sides, pair: pair, [x], x.positions


def _many(x: Field) -> None:
    if x.width == 1:
        raise Unknown("it takes one channel, which stays random however wide the others are; wanted a hidden layer of several")


def _samples_first(build: Builder, x: Tensor) -> None:
    if x.dim() == 0 or len(x) != build.samples:
        raise Unknown(
            f"it takes a tensor whose first axis is not that of samples, {tuple(x.shape)} for {build.samples}; wanted samples first"
        )


def linear(build: Builder, name: str, module: nn.Linear, x: Value) -> Field:
    """Pass a linear layer, which acts on the last axis."""
    return dense(build, name, build.scales.weights(f"{name}.weight", f"{name}.bias"), module.out_features, x)


def dense(build: Builder, name: str, weights: Weights, width: int, x: Value) -> Field:
    """Pass sums over the last axis, of given scales, to so many channels."""
    before, takes, positions = _pairs(build, name, x)
    rule = lambda sides, *pairs: weights.layer(before(sides, *pairs))
    return build.add(rule, takes, (*positions, width), {len(positions)}, gaussian=True, sources={name})


def convolution(build: Builder, name: str, module: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Value) -> Field:
    """Pass a convolution, which acts on axis 1 and on all positions."""
    weights = build.scales.weights(f"{name}.weight", f"{name}.bias")
    return filtered(build, name, weights, module, x)


def filtered(build: Builder, name: str, weights: Weights, module: Any, x: Value) -> Field:
    """Pass a filter, of given scales and a convolution's settings."""
    if module.groups > 1 and (isinstance(x, Tensor) or module.in_channels < _MANY * module.groups):
        raise Unknown(
            f"it has {module.groups} groups, of {module.in_channels // module.groups} channels each; wanted at least {_MANY}, which stand "
            "for many, and of random channels"
        )
    if module.groups > 1 and isinstance(x, Field) and not x.alike:
        raise Unknown(
            f"it has {module.groups} groups of channels that are not alike, as of parts put side by side; wanted groups=1"
        )
    if module.padding_mode not in ("zeros", "circular"):
        raise Unknown(f"got padding_mode={module.padding_mode!r}; wanted 'zeros' or 'circular'")
    before, takes, positions = _pairs(build, name, x, last=False)
    kernel, dilation = module.kernel_size, module.dilation
    if isinstance(module.padding, str):
        total = [d * (k - 1) * (module.padding == "same") for d, k in zip(dilation, kernel, strict=True)]
        padding = tuple((n // 2, n - n // 2) for n in total)
    else:
        padding = tuple((n, n) for n in module.padding)
    window = Window(positions, kernel, module.stride, padding, dilation, module.padding_mode == "circular")

    def rule(sides: Sides, *pairs: Pair) -> Pair:
        return covariances.convolved(window, weights, sides, before(sides, *pairs))

    shape = (module.out_channels, *window.after())
    return build.add(rule, takes, shape, {0}, gaussian=True, sources={name})


def embedding(build: Builder, name: str, module: nn.Embedding, x: Value) -> Field:
    """Look words up: rows of independent numbers, which two places share where they have the same word."""
    if not isinstance(x, Tensor):
        raise Unknown("it looks up numbers that depend on weights; wanted the words themselves")
    if module.max_norm is not None or module.scale_grad_by_freq:
        raise Unknown("got max_norm or scale_grad_by_freq, which change words by their neighbours; wanted neither")
    return looked_up(build, f"{name}.weight", module.embedding_dim, x, module.padding_idx)


def looked_up(build: Builder, name: str, width: int, words: Tensor, untrained: int | None = None) -> Field:
    """Take rows of a table of so many channels by words of samples; one word's row may be zero, or at least not trained."""
    _samples_first(build, words)
    variance, own = build.scales.table(name)
    key, zero = f"{build.key} words", build.scales.empty.get(name)
    build.keep(key, words.reshape(len(words), -1))

    def rule(sides: Sides) -> Pair:
        left, right = sides.outer(*sides.plain(key))
        same = left == right
        there = same if zero is None else same & (left != zero)
        trained = same if untrained is None else same & (left != untrained)
        return Pair(variance * there.double(), own * trained.double())

    shape = (*words.shape[1:], width)
    return build.add(rule, [], shape, {len(shape) - 1}, gaussian=True, sources={name.removesuffix(".weight")})


def norm(build: Builder, name: str, module: Any, x: Value) -> Field:
    """Pass a layer, group or root-mean-square normalisation."""
    if isinstance(x, Tensor):
        raise Unknown(
            "it normalises the samples themselves with weights to train; wanted it after a layer, or elementwise_affine=False"
        )
    x, over = with_samples(build, x), isinstance(module, nn.GroupNorm)
    _many(x)
    if over:
        _channels_second(x)
    if over and module.num_channels < _MANY * module.num_groups:
        raise Unknown(
            f"it has groups of {module.num_channels // module.num_groups} channels; wanted at least {_MANY}, which stand for many"
        )
    centred = not isinstance(module, nn.RMSNorm)
    if centred and not x.alike:
        raise Unknown(
            "it subtracts a mean over channels that are not alike, as of parts put side by side, or positions; wanted it before that"
        )
    if not over:
        sizes = tuple(module.normalized_shape)
        if sizes != x.shape[len(x.shape) - len(sizes) :] or x.channel < len(x.shape) - len(sizes):
            raise Unknown(f"it normalises the last {len(sizes)} of the axes {x.shape}; wanted the channels among them")
        if len(sizes) not in (1, len(x.shape)):
            raise Unknown(f"it normalises over some of the positions of {x.shape}; wanted channels only, or all")
        over = len(sizes) > 1
        if over and module.weight is not None:
            raise Unknown(
                "it has a trained factor for every position; wanted elementwise_affine=False, or GroupNorm(1, channels)"
            )
    scale, shift = _affine(build, name, module)
    eps = module.eps if module.eps is not None else torch.finfo(torch.float32).eps
    key, sources = build.key, x.sources | ({(name, None)} if scale or shift else set())
    means = [part.mean()[..., 0] for part in x.sum if not part.root.centred] if centred else []
    if not means:
        rule = lambda sides, pair: covariances.normalised(shift, eps, over, key, sides, pair)
        return build.like(x, rule, more=scale, sources=sources)
    mean = sum(means[1:], means[0]).expand(build.samples, -1)
    build.keep(f"{key} mean", mean)
    build.keep(f"{key} subtracted", mean.mean(1, keepdim=True).expand_as(mean) if over else mean)

    def centring(sides: Sides, pair: Pair) -> Pair:
        (m, n), (a, b) = (sides.outer(*sides.plain(f"{key} {which}")) for which in ("mean", "subtracted"))
        return covariances.normalised(shift, eps, over, key, sides, Pair(pair.nngp - m * b - a * n + a * b, pair.ntk))

    return replace(build.like(x, centring, more=scale, sources=sources), centred=not over)


def _channels_second(x: Field) -> None:
    if x.channel != 0:
        raise Unknown(f"it acts on axis 1 of {('N', *x.shape)}, where positions are; wanted channels there")


def batch_norm(build: Builder, name: str, module: Any, x: Value) -> Field:
    """Pass a batch normalisation in eval mode whose statistics are those it starts with."""
    if isinstance(x, Tensor):
        raise Unknown("it comes before the first layer of weights; wanted it after one")
    x = with_samples(build, x)
    _channels_second(x)
    if module.running_mean is None or not (module.running_mean.eq(0).all() and module.running_var.eq(1).all()):
        raise Unknown(
            "its running statistics are those of a trained network, or there are none; wanted it as it starts, with means 0 and variances 1"
        )
    scale, shift = _affine(build, name, module)
    factor = 1 / (1 + module.eps)

    def rule(sides: Sides, pair: Pair) -> Pair:
        return Pair(factor * pair.nngp, factor * pair.ntk + shift)

    return build.like(x, rule, more=scale, sources=x.sources | ({(name, None)} if scale or shift else set()))


def _affine(build: Builder, name: str, module: nn.Module) -> tuple[float, float]:
    """Return what the gradients of a norm's factors and shifts count."""
    w, b = getattr(module, "weight", None), getattr(module, "bias", None)
    if not (w is None or w.eq(1).all()) or not (b is None or b.eq(0).all()):
        raise Unknown("its factors and shifts were trained; wanted them as they start, 1 and 0")
    return float(w is not None and w.requires_grad), float(b is not None and b.requires_grad)


def recurrent(build: Builder, name: str, module: Any, x: Value, start: Value | None = None) -> tuple[Field, tuple[Field, ...]]:
    """Run a recurrent network along the only axis of positions: the last layer's states, and every layer's last one."""
    if module.bidirectional or not module.batch_first or start is not None or module.proj_size:
        raise Unknown("wanted nn.RNN with batch_first=True, in one direction, from a state of zeros")
    if not build.own.every:
        raise NeedsPairs
    before, takes, positions = _pairs(build, name, x)
    if len(positions) != 1:
        raise Unknown(f"its input has positions {positions}; wanted one axis, of time")
    fields: list[Field] = []
    for layer in range(module.num_layers):
        inputs, hidden = (
            build.scales.weights(f"{name}.weight_{kind}_l{layer}", f"{name}.bias_{kind}_l{layer}") for kind in ("ih", "hh")
        )
        rule = _recurrence(module.nonlinearity, inputs, hidden, f"{build.key} {layer}", before)
        shape = (positions[0], module.hidden_size)
        made = build.add(rule, takes, shape, {1}, gaussian=False, sources={name})
        fields.append(replace(made, centred=module.nonlinearity == "tanh"))  # odd in its weights, of either sign
        before, takes = (lambda sides, pair: pair), [fields[-1]]
    end = lambda sides, pair: pair.map(lambda k: k[..., -1:, -1:])
    last = (
        replace(build.add(end, [f], (module.hidden_size,), {0}, gaussian=False, sources={name}), centred=f.centred)
        for f in fields
    )
    return fields[-1], tuple(last)


def _recurrence(activation: str, inputs: Weights, hidden: Weights, key: str, before: Callable[..., Pair]) -> Callable[..., Pair]:
    def rule(sides: Sides, *pairs: Pair) -> Pair:
        return covariances.recurrent(activation, inputs, hidden, key, sides, before(sides, *pairs))

    return rule


LAYERS: dict[type, Callable] = {
    nn.Linear: linear,
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.Conv3d: convolution,
    nn.Embedding: embedding,
    nn.LayerNorm: norm,
    nn.GroupNorm: norm,
    nn.RMSNorm: norm,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    nn.BatchNorm3d: batch_norm,
    nn.RNN: recurrent,
}
