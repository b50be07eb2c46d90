"""What moves positions about, or sums them: told by trying the operation on the positions' numbers, and on unit vectors."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, fx

from . import covariances
from .program import Builder, Field, NeedsPairs, Part, Unknown


def swapped(arguments, field: Field, value: Tensor):
    """Put a tensor in a field's place."""
    return fx.node.map_aggregate(arguments, lambda a: value if a is field else a)


def numbered(build: Builder, field: Field) -> tuple[Tensor, Tensor, Tensor]:
    """Return the numbers of the position, of the channel and of the sample at every place of the finite network's tensor."""
    places = torch.arange(math.prod(field.positions)).view(field.positions)
    channel = torch.arange(field.width).view([field.shape[a] for a in sorted(field.channels)])
    for axis in range(len(field.shape)):
        if axis in field.channels:
            places = places.unsqueeze(axis)
        else:
            channel = channel.unsqueeze(axis)
    whole = [t.expand(field.shape) for t in (places, channel, torch.tensor(0))]
    if field.batch is None:
        return whole[0], whole[1], whole[2]
    size = [build.samples if axis == field.batch else -1 for axis in range(len(field.shape) + 1)]
    places, channel, sample = (t.unsqueeze(field.batch).expand(size) for t in whole)
    along = torch.arange(build.samples).view([-1 if axis == field.batch else 1 for axis in range(len(size))])
    return places, channel, sample + along


def first_axis(field: Field) -> None:
    """Refuse a field whose samples are not first."""
    if field.batch not in (0, None):
        raise Unknown(f"its samples are on axis {field.batch}; wanted them first")


def with_samples(build: Builder, field: Field) -> Field:
    """Return a field whose samples are first; of a parameter (1, ...) the first axis stands for samples."""
    first_axis(field)
    if field.batch == 0:
        return field
    if field.shape[0] != 1 or len(field.shape) < 2:
        raise Unknown(
            f"it takes a parameter of shape {field.shape} by itself, or one that was changed before; wanted it added to samples, of "
            "shape (1, ...), or as weights: x @ W, x @ W.T, or a number times them"
        )
    where, channel, _ = numbered(build, field)
    return found(build, field, where[0], channel[0], 0)


def moved(build: Builder, function: Callable, args: tuple, kwargs: dict, field: Field):
    """Find where an operation that only moves numbers about has put a field's positions and channels; of several parts, each."""
    results = [function(*swapped(args, field, t), **swapped(kwargs, field, t)) for t in numbered(build, field)]
    if isinstance(results[0], tuple | list):
        return tuple(_placed(build, field, *part) for part in zip(*results, strict=True))
    return _placed(build, field, *results)


def _placed(build: Builder, field: Field, places: Tensor, channel: Tensor, sample: Tensor) -> Field:
    batch = [axis for axis in range(sample.dim()) if _varies(sample, axis)]
    if field.batch is None:  # a parameter: it may have been expanded to one a sample, whose number no other axis has
        along = [axis for axis, size in enumerate(places.shape) if size == build.samples]
        if not along:
            return found(build, field, places, channel, None)
        return found(build, field, places.select(along[0], 0), channel.select(along[0], 0), along[0])
    if len(batch) != 1 or sample.shape[batch[0]] != build.samples:
        raise Unknown(
            f"it makes a tensor of {tuple(sample.shape)} with samples on axes {batch}; wanted every sample, on one axis"
        )
    return found(build, field, places.select(batch[0], 0), channel.select(batch[0], 0), batch[0])


def found(build: Builder, field: Field, places: Tensor, channel: Tensor, batch: int | None) -> Field:
    """Make the field whose positions and channels are numbered so."""
    shape = tuple(places.shape)
    if field.width > 1:
        channels = {axis for axis in range(channel.dim()) if _varies(channel, axis)}
    else:  # a single channel is not told from positions by its number: it stays where it was, or goes with positions
        channels = {axis for axis in field.channels if shape == field.shape} or _with_places(places)
    # the old numbers of the channels that are left, in their new order
    first = channel[tuple(slice(None) if axis in channels else 0 for axis in range(channel.dim()))].flatten().tolist()
    if len(set(first)) < len(channel.unique()) or (len(first) > len(set(first)) and not _varies_with(places, channels)):
        raise Unknown("it repeats channels, or takes others of them at other positions; wanted each once")
    kept = list(dict.fromkeys(first))
    if len(kept) < field.width and not field.alike:
        raise Unknown("it takes some of channels that are not alike, as of two parts put side by side; wanted them before that")
    if kept != list(range(field.width)):
        left = lambda f: replace(f, sources=frozenset((name, _some(part, kept)) for name, part in f.sources))
        field = replace(left(field), parts=tuple(Part(left(part.root), part.path) for part in field.sum))
    alone = [axis for axis in range(places.dim()) if axis not in channels]
    if any(_varies(channel, axis) for axis in alone):
        raise Unknown("it mixes channels and positions in a way that is not followed")
    # a row for each position: the numbers of all that became its channels
    table = places.permute([*alone, *sorted(channels)]).reshape(math.prod(shape[a] for a in alone), -1)
    rows = [row.unique() for row in table]
    if len({len(row) for row in rows}) > 1:
        raise Unknown("it gathers different numbers of positions; wanted as many for each")
    chosen = torch.stack(rows).to(build.device)
    if chosen.shape[1] > 1:  # positions became channels: they are averaged, and no longer alike
        rule = lambda sides, pair: covariances.chosen(chosen, sides, pair)
        made = build.add(rule, [field], shape, channels, gaussian=False, sources=field.sources)
        return replace(made, batch=batch, centred=field.centred, alike=False, moved=(field, places, channel, batch))
    order = chosen[:, 0].tolist()
    if order == list(range(math.prod(field.positions))):
        return replace(field, shape=shape, channels=frozenset(channels), batch=batch)
    rule = lambda sides, pair: covariances.chosen(chosen, sides, pair)
    made = build.like(field, rule, shape, channels, by=lambda t: t[:, order])
    return replace(made, scale=field.scale, batch=batch)


def _some(part: tuple[int, ...] | None, kept: list[int]) -> tuple[int, ...]:
    return tuple(kept) if part is None else tuple(part[c] for c in kept)


def _varies_with(t: Tensor, axes: set[int]) -> bool:
    return any(_varies(t, axis) for axis in axes)


def _varies(t: Tensor, axis: int) -> bool:
    return bool((t != t.narrow(axis, 0, 1)).any())


def _with_places(places: Tensor) -> set[int]:
    """Choose the axis of a single channel: none, so that all axes are positions, unless only one axis is left."""
    return {0} if places.dim() == 1 else set()


def summed(build: Builder, function: Callable, args: tuple, kwargs: dict, field: Field) -> Field:
    """Find the sums over positions that an operation takes, (Q, P): what it makes of unit vectors."""
    field, given = with_samples(build, field), field
    axis, count = field.channel, math.prod(field.positions)
    # two channels stand for all; the second is zero, and must stay so, as must a row more that tells rows from positions
    unit = torch.eye(count + 1, count, dtype=torch.float64, device=build.device).view(-1, *field.positions).unsqueeze(axis + 1)
    unit = torch.cat([unit, torch.zeros_like(unit)], axis + 1)
    done = function(*swapped(args, given, unit), **swapped(kwargs, given, unit))
    if not isinstance(done, Tensor) or done.dim() == 0 or done.shape[0] != count + 1 or done[count].any():
        raise Unknown(
            "it takes samples together, or is no sum, such as padding by other numbers than zero; wanted sums over positions"
        )
    done = done[:count]
    alive = [a for a in range(1, done.dim()) if done.shape[a] == 2 and not done.select(a, 1).any()]
    if len(alive) != 1:
        raise Unknown("it takes channels together, of which there are infinitely many; wanted positions only")
    shape = list(done.shape[1:])
    shape[alive[0] - 1] = field.shape[axis]
    matrix = done.select(alive[0], 0).reshape(count, -1).T
    if not build.own.every:
        if not torch.equal(matrix, torch.eye(count).to(matrix)):
            raise NeedsPairs
        return replace(field, shape=tuple(shape), channels=frozenset({alive[0] - 1}))
    rule = lambda sides, pair: covariances.mixed(matrix, matrix, pair)
    return build.like(field, rule, shape, {alive[0] - 1}, by=lambda t: matrix @ t)
