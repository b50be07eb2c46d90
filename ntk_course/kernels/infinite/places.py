"""What moves positions about, or sums them: told by trying the operation on the positions' numbers, and on unit vectors."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, fx

from . import covariances
from .program import Builder, Field, NeedsPairs, Unknown


def swapped(arguments, field: Field, value: Tensor):
    """Put a tensor in a field's place."""
    return fx.node.map_aggregate(arguments, lambda a: value if a is field else a)


def numbered(build: Builder, field: Field) -> tuple[Tensor, Tensor]:
    """Return the number of the position and that of the channel at every place of the finite network's tensor."""
    places = torch.arange(math.prod(field.positions)).view(field.positions)
    channel = torch.arange(field.width).view([field.shape[a] for a in sorted(field.channels)])
    for axis in range(len(field.shape)):
        if axis in field.channels:
            places = places.unsqueeze(axis)
        else:
            channel = channel.unsqueeze(axis)
    shape = (build.samples, *field.shape) if field.batched else field.shape
    return places.expand(shape), channel.expand(shape)


def moved(build: Builder, function: Callable, args: tuple, kwargs: dict, field: Field) -> Field:
    """Find where an operation that only moves numbers about has put a field's positions and channels."""
    places, channel = (function(*swapped(args, field, t), **swapped(kwargs, field, t)) for t in numbered(build, field))
    batched = field.batched
    if not batched and places.dim() > len(field.shape) and places.shape[0] == build.samples:
        batched = True  # a parameter, expanded to one a sample
    if batched:
        if places.shape[0] != build.samples:
            raise Unknown(f"it makes {places.shape[0]} samples of {build.samples}; wanted one of each")
        places, channel = places[0], channel[0]
    return found(build, field, places, channel, batched)


def found(build: Builder, field: Field, places: Tensor, channel: Tensor, batched: bool = True) -> Field:
    """Make the field whose positions and channels are numbered so."""
    shape = tuple(places.shape)
    if field.width > 1:
        channels = {axis for axis in range(channel.dim()) if _varies(channel, axis)}
    else:  # a single channel is not told from positions by its number: it stays where it was, or goes with positions
        channels = {axis for axis in field.channels if shape == field.shape} or _with_places(places)
    if len(channel.unique()) != field.width:
        raise Unknown("it takes some of infinitely many channels; wanted all of them, or a layer for each part")
    alone = [axis for axis in range(places.dim()) if axis not in channels]
    if any(_varies(channel, axis) for axis in alone):
        raise Unknown("it mixes channels and positions in a way that is not followed")
    # a row for each position: the numbers of all that became its channels
    table = places.permute(*alone, *sorted(channels)).reshape(math.prod(shape[a] for a in alone), -1)
    rows = [row.unique() for row in table]
    if len({len(row) for row in rows}) > 1:
        raise Unknown("it gathers different numbers of positions; wanted as many for each")
    chosen = torch.stack(rows)
    if chosen.shape[1] > 1:  # positions became channels: they are averaged, and no longer alike
        rule = lambda sides, pair: covariances.chosen(chosen, sides, pair)
        made = build.add(rule, [field], shape, channels, gaussian=False, sources=field.sources)
        return replace(made, batched=batched)
    order = chosen[:, 0].tolist()
    if order == list(range(math.prod(field.positions))):
        return replace(field, shape=shape, channels=frozenset(channels), batched=batched)
    rule = lambda sides, pair: covariances.chosen(chosen, sides, pair)
    made = build.add(rule, [field], shape, channels, gaussian=field.gaussian, sources=field.sources, gain=field.gain)
    whence = tuple(field.order[i] for i in order)
    made = replace(made, origin=field.origin, order=whence, scale=field.scale)
    return replace(made, blended=field.blended, batched=batched)


def _varies(t: Tensor, axis: int) -> bool:
    return bool((t != t.narrow(axis, 0, 1)).any())


def _with_places(places: Tensor) -> set[int]:
    """Choose the axis of a single channel: none, so that all axes are positions, unless only one axis is left."""
    return {0} if places.dim() == 1 else set()


def summed(build: Builder, function: Callable, args: tuple, kwargs: dict, field: Field) -> Field:
    """Find the sums over positions that an operation takes, (Q, P): what it makes of unit vectors."""
    axis, count = field.channel, math.prod(field.positions)
    # two channels stand for all; the second is zero, and must stay so
    unit = torch.eye(count, dtype=torch.float64).view(count, *field.positions).unsqueeze(axis + 1)
    unit = torch.cat([unit, torch.zeros_like(unit)], axis + 1)
    done = function(*swapped(args, field, unit), **swapped(kwargs, field, unit))
    if not isinstance(done, Tensor) or done.dim() == 0 or done.shape[0] != count:
        raise Unknown("it takes samples together; wanted each by itself")
    alive = [a for a in range(1, done.dim()) if done.shape[a] == 2 and not done.select(a, 1).any()]
    if len(alive) != 1:
        raise Unknown("it takes channels together, of which there are infinitely many; wanted positions only")
    shape = list(done.shape[1:])
    shape[alive[0] - 1] = field.shape[axis]
    matrix = done.select(alive[0], 0).reshape(count, -1).T
    if not build.own.every:
        if not torch.equal(matrix, torch.eye(count, dtype=matrix.dtype)):
            raise NeedsPairs
        return replace(field, shape=tuple(shape), channels=frozenset({alive[0] - 1}))
    rule = lambda sides, pair: covariances.mixed(matrix, matrix, pair)
    channels = {alive[0] - 1}
    made = build.add(rule, [field], shape, channels, gaussian=field.gaussian, sources=field.sources, gain=field.gain)
    return replace(made, blended=field.blended)
