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
            :func:`ntk_course.tangents.explicit_is_cheaper`. With ``block_size`` it fixes every bit of the matrix.
    """

    block_size: int
    stripe: int
    pairs: float


def default_memory(where: torch.device) -> int:
    """Return the bytes a Gram matrix may use by default: half of what is free, on a GPU or on a CPU.

    Processes that torchrun starts on one machine share a CPU's. A container's own limit counts where it is lower.
    """
    if where.type == "cuda":
        return torch.cuda.mem_get_info(where)[0] // 2
    return max(1, free_memory() // 2 // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def free_memory(meminfo: Path = Path("/proc/meminfo"), container: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that are free on this machine, or 8 GiB where it does not tell."""
    free = 8 * 2**30
    if meminfo.exists():
        lines = (line.split() for line in meminfo.read_text().splitlines())
        free = next((int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"), free)
    limit, used = container / "memory.max", container / "memory.current"
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        free = min(free, max(0, int(limit.read_text()) - int(used.read_text())))
    return free


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


def halves(size: int) -> list[int]:
    """List a block size, its half, and so on down to 1."""
    return [size >> i for i in range(size.bit_length())]


def choose_block(n: int, room: dict[int, int]) -> tuple[int, int]:
    """Choose from block sizes, the largest first, with the rows that each leaves room for: (size, rows).

    A stripe of few rows means that all columns are computed for few rows, so a smaller block may pay; down to a sixteenth,
    below which a block is too small to be multiplied fast, unless nothing else fits. The least is one block of the smallest.
    """
    sizes = list(room)
    fits = [size for size in sizes if room[size] >= 1]
    if not fits:
        return sizes[-1], sizes[-1]
    worth = [size for size in fits if 16 * size >= sizes[0]] or fits[:1]
    stripes = {size: -(-n // room[size]) for size in worth}
    size = next(size for size in worth if stripes[size] <= 1.25 * min(stripes.values()))
    return size, room[size]


def share(work: Sequence, rank: int, size: int) -> Sequence:
    """Deal a list of work out in one piece for each of ``size`` processes, as equal as can be."""
    return work[rank * len(work) // size : (rank + 1) * len(work) // size]


def pairs_of(n: int, m: int, held: int, symmetric: bool) -> float:
    """Count the products a formed gradient takes part in, when ``held`` rows are held at a time."""
    if symmetric:
        return held * (n / 2) / (held + min(n - held, n / 2))
    return held * m / (held + m)
