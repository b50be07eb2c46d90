"""Sums of fields that may have parts in common: each field is a sum of linear maps of what single steps made."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from . import covariances
from .covariances import Pair
from .program import Builder, Field, Map, NeedsPairs, Part, Unknown


def apart(a: Field, b: Field) -> None:
    """Refuse fields that depend on the same weights."""
    for name, some in a.sources:
        for other, others in b.sources:
            if name == other and (some is None or others is None or set(some) & set(others)):
                raise Unknown(
                    f"its two parts both depend on the weights of '{name}', so that they are correlated; wanted a layer between"
                )


def same(a: Field, b: Field) -> bool:
    """Say whether two roots are the same channels of the same step."""
    return (a.step, a.sources) == (b.step, b.sources)


def combined(
    build: Builder, fields: Sequence[Field], maps: Sequence[tuple[Map, ...]], shape, channels, rule: Callable[..., Pair]
) -> Field:
    r"""Add maps of fields: what fields have in common is mapped by the sum of its maps, :math:`(A + B) K (A + B)^\top`.

    Parts with no weights in common add their covariances; of two whose means are not zero the products of these come to that.
    `rule` does it for fields that have nothing in common.
    """
    groups: list[list[Part]] = []
    for field, put in zip(fields, maps, strict=True):
        for part in field.sum:
            mine = next((group for group in groups if same(group[0].root, part.root)), None)
            if mine is None:
                groups.append(mine := [])
            mine.append(part.then(*put))
    for one, other in itertools.combinations(groups, 2):
        apart(one[0].root, other[0].root)
    gaussian, shared = all(f.gaussian for f in fields), any(len(group) > 1 for group in groups)
    batch = 0 if any(f.batch == 0 for f in fields) else None
    if not shared:
        parts, takes = tuple(part for (part,) in groups), list(fields)
    else:
        if not build.own.every:
            raise NeedsPairs
        takes = [group[0].root for group in groups]
        matrices = [
            torch.stack(torch.broadcast_tensors(*(part.matrix(build.pairs[0].nngp) for part in g))).sum(0) for g in groups
        ]
        parts = tuple(Part(root, (_by(matrix),)) for root, matrix in zip(takes, matrices, strict=True))
        rule = _by_matrices(build, matrices)
    known = {"gain": takes[0].gain} if len(takes) == 1 else {}
    rule = _with_means(build, [part for part in parts if not part.root.centred], rule)
    made = build.together(rule, takes, shape, channels, gaussian=gaussian, **known)
    return replace(made, parts=parts, batch=batch)


def _by(matrix: Tensor) -> Map:
    return lambda t: matrix @ t


def _by_matrices(build: Builder, matrices: Sequence[Tensor]) -> Callable[..., Pair]:
    """Return the rule that adds covariances of several fields, each mapped by a matrix of every sample, or one for all."""
    keys = [f"{build.key} map {i}" for i in range(len(matrices))]
    for key, matrix in zip(keys, matrices, strict=True):
        if len(matrix) > 1:
            build.keep(key, matrix)

    def rule(sides, *pairs: Pair) -> Pair:
        found = []
        for key, matrix, pair in zip(keys, matrices, pairs, strict=True):
            left, right = sides.plain(key) if len(matrix) > 1 else (matrix[0], matrix[0])
            found.append(covariances.mixed(left, right, pair))
        return Pair(*(sum(some[1:], some[0]) for some in zip(*found, strict=True)))

    return rule


def _with_means(build: Builder, parts: Sequence[Part], rule: Callable[..., Pair]) -> Callable[..., Pair]:
    """Add to a rule what the means of parts with no weights in common come to."""
    if len(parts) < 2:
        return rule
    keys = [f"{build.key} mean {i}" for i in range(len(parts))]
    for key, part in zip(keys, parts, strict=True):
        build.keep(key, part.mean()[..., 0].expand(build.samples, -1))

    def with_means(sides, *pairs: Pair) -> Pair:
        nngp, ntk = rule(sides, *pairs)
        for one, other in itertools.permutations(keys, 2):
            left, right = sides.outer(sides.plain(one)[0], sides.plain(other)[1])
            nngp = nngp + left * right
        return Pair(nngp, ntk)

    return with_means
