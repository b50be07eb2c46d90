"""Approximations of a Gram matrix, each named as one: random projections, and landmarks."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..basics import validate
from ..tangents.cotangents import part
from ..tangents.features import tangent_features
from .blocks import all_tiles, tile_blocks
from .plan import plan, slices
from .sides import against, one_a_sample, one_side, unsummed

if TYPE_CHECKING:
    from .operator import Gram

# Columns of the random matrix that are drawn from one seed, so that memory does not decide what they are.
_DRAWN = 64


def projected(gram: "Gram", dim: int, seed: int) -> Tensor:
    """Project the first side's features; where P does not fit in half of the memory, they are made again for each part of it."""
    sides, chosen = gram._sides, gram._plan
    one_a_sample(sides, "projected")
    unsummed(sides, "projected")
    parameters, byte, memory = sum(sides.known.numels.values()), sides.known.z.element_size(), chosen.memory
    # whole gradients are formed here, and then joined
    size = min(chosen.block_size, max(1, memory // (8 * parameters * byte)))
    formed_layout = chosen.layout.forming()

    def formed(rows: slice) -> Tensor:
        return tangent_features(sides.model, sides.x1[rows], part(sides.c1, rows), formed_layout).dense_whole()[:, 0]

    drawn, seed = slices(validate.positive(dim, "dim"), _DRAWN), validate.seed(seed)
    at_once = max(1, memory // (2 * parameters * byte * _DRAWN))
    parts = []
    for some in (drawn[i : i + at_once] for i in range(0, len(drawn), at_once)):
        signs = torch.cat([_signs(parameters, where, seed, sides.known.z) for where in some], 1)
        parts.append(torch.cat([formed(rows) @ signs for rows in slices(len(sides.x1), size)]))
    return torch.cat(parts, 1) / dim**0.5


def _signs(parameters: int, where: slice, seed: int, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + where.start)
    signs = torch.randint(0, 2, (parameters, where.stop - where.start), generator=generator, dtype=torch.int8)
    return signs.to(like.device, like.dtype).mul_(2).sub_(1)


def nystrom(gram: "Gram", landmarks: int | Tensor, seed: int) -> Tensor:
    """Multiply the columns of the landmarks by the inverse root of their own block."""
    sides = gram._sides
    one_side(sides, "nystrom")
    one_a_sample(sides, "nystrom")
    n = len(sides.x1)
    if hasattr(landmarks, "__len__"):
        chosen = validate.array(landmarks, "landmarks", "how many, or different indices (m,)").to(sides.device)
        if chosen.dim() != 1 or chosen.is_floating_point() or len(chosen.unique()) < len(chosen) or len(chosen) == 0:
            raise ValueError(f"landmarks: got {tuple(chosen.shape)} of {chosen.dtype}; wanted different indices (m,)")
        if chosen.min() < 0 or chosen.max() >= n:
            raise ValueError(f"landmarks: got indices {int(chosen.min())} to {int(chosen.max())}; wanted 0 to {n - 1}")
    elif validate.positive(landmarks, "landmarks") > n:
        raise ValueError(f"landmarks: got {landmarks} for {n} samples; wanted at most {n}")
    else:
        chosen = torch.randperm(n, generator=torch.Generator().manual_seed(validate.seed(seed)))[:landmarks].to(sides.device)
    columns = gram[chosen].T if gram._kept is not None else _columns(gram, chosen)
    values, vectors = torch.linalg.eigh(columns[chosen].double())
    kept = values > values[-1] * len(chosen) * torch.finfo(columns.dtype).eps
    if not kept.any():
        raise ValueError("landmarks: got none whose tangent features differ from zero; wanted others")
    return columns @ (vectors[:, kept] / values[kept].sqrt()).to(columns.dtype)


def _columns(gram: "Gram", chosen: Tensor) -> Tensor:
    """Compute the columns of some samples, with a layout of their own."""
    sides = gram._sides
    few = against(sides, sides.x1[chosen], part(sides.c1, chosen))
    cut = plan(few, gram._plan.asked, gram._plan.memory)
    out = sides.known.z.new_empty(len(sides.x1), len(chosen))
    for _, rows, cols, block in tile_blocks(few, cut, all_tiles(few, cut)):
        out[cols, rows] = block.T
    return out
