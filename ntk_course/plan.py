"""How a Gram matrix is cut into work: tiles, stripes of rows whose features are held, and what memory allows."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

Tile = tuple[int, int]


class Plan(NamedTuple):
    """How a Gram matrix is worked through.

    Attributes:
        block_size: samples a side of a block.
        stripe: blocks of rows whose features are held while the columns stream past.
        pairs: products that one formed gradient takes part in; it decides which gradients are formed, see
            :func:`ntk_course.explicit_is_cheaper`. With ``block_size`` it fixes every bit of the matrix.
    """

    block_size: int
    stripe: int
    pairs: float


def default_memory(where: torch.device) -> int:
    """Return the bytes a Gram matrix may use by default: half of a GPU's free memory, a quarter of what a CPU has free.

    Processes that torchrun starts on one machine share the latter.
    """
    if where.type == "cuda":
        return torch.cuda.mem_get_info(where)[0] // 2
    told = Path("/proc/meminfo")
    if not told.exists():
        return 2 * 2**30
    free = next(int(line.split()[1]) * 1024 for line in told.read_text().splitlines() if line.startswith("MemAvailable"))
    return max(1, free // 4 // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def slices(n: int, size: int) -> list[slice]:
    """Cut n samples into blocks."""
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def tiles(rows: int, cols: int, symmetric: bool) -> list[Tile]:
    """List the pairs of blocks to compute, row by row.

    Of a symmetric matrix row i takes the columns i, i + 1, ... that come next on a circle, half of them: every pair once,
    every row the same amount of work, so that stripes of rows, and processes that share them, are equally long.
    """
    if not symmetric:
        return [(i, j) for i in range(rows) for j in range(cols)]
    half = rows // 2
    return [(i, (i + step) % rows) for i in range(rows) for step in range(half + 1) if 2 * step < rows or i < half]


def share(work: Sequence, rank: int, size: int) -> Sequence:
    """Deal a list of work out in one piece for each of ``size`` processes, as equal as can be."""
    return work[rank * len(work) // size : (rank + 1) * len(work) // size]


def pairs_of(n: int, m: int, held: int, symmetric: bool) -> float:
    """Count the products a formed gradient takes part in, when ``held`` rows are held at a time."""
    if symmetric:
        return held * (n / 2) / (held + min(n - held, n / 2))
    return held * m / (held + m)
