"""How a Gram matrix is cut into work: tiles, stripes of rows whose features are held, and what memory allows."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import torch

from ..basics import validate
from ..tangents.layout import Layout
from .sides import Sides

# Samples a side of a block: enough to keep the cores busy, few enough for their caches.
_BLOCK = {"cpu": 512}
_BLOCK_ELSEWHERE = 2048

Tile = tuple[int, int]


class Plan(NamedTuple):
    """How a Gram matrix is worked through. Block size and layout fix every bit of it.

    Attributes:
        block_size: samples a side of a block.
        stripe: blocks of rows whose features are held while the columns stream past.
        layout: which gradients are formed.
        memory: bytes that all of it may take at a time.
        asked: the block size that was asked for, which processes agree on; memory may differ from one to another.
    """

    block_size: int
    stripe: int
    layout: Layout
    memory: int
    asked: int | None


def plan(sides: Sides, block_size: int | None = None, memory: int | None = None, factored: Iterable[str] | None = None) -> Plan:
    """Choose block size, stripe and layout, so that all that is held at a time fits in ``memory`` bytes.

    A block's cost is its graph and what arrives in it, its features twice (they are formed, then joined) and the product;
    what is left is for the features of a stripe of rows. One sample a side is the least there is. Where a matrix was begun,
    its block size and its ``factored`` weights are kept.
    """
    if block_size is not None:
        block_size = validate.positive(block_size, "block_size")
    memory = default_memory(sides.device) if memory is None else _bytes(memory)
    usable = int(0.85 * memory)  # the rest is for what the libraries' own routines take
    n, m, byte = len(sides.x1), len(sides.x2), sides.known.z.element_size()
    r, wide = max(sides.rows), max(sides.cotangents)
    # a CPU takes so long to hand out more fresh memory than this that a smaller block is faster
    most = 2**31 if sides.device.type == "cpu" else usable
    usual = block_size or _BLOCK.get(sides.device.type, _BLOCK_ELSEWHERE)
    held = n
    for _ in range(2):  # which gradients are formed depends on how often each is used, and the other way
        layout = Layout.choose(sides.known, pairs_of(n, m, held, sides.symmetric), *sides.products)
        layout = layout if factored is None else layout.forming(factored)
        each = byte * layout.numbers(r)

        def working(b: int, each=each) -> int:
            return b * (sides.known.saved * (1 + r) + 2 * each) + 3 * (b * wide) ** 2 * byte

        sizes = [usual] if block_size else [b for b in halves(usual) if working(b) <= most or b == 1]
        room = {b: min(n, (usable - working(b)) // (each * b) * b) for b in sizes}
        size, held = choose_block(n, room)
    layout = Layout.choose(sides.known, pairs_of(n, m, held, sides.symmetric), *sides.products)
    return Plan(size, -(-held // size), layout if factored is None else layout.forming(factored), memory, block_size)


def _bytes(memory: float) -> int:
    """Check a number of bytes; 1e9 is one."""
    return validate.positive(int(memory) if isinstance(memory, float) and memory == int(memory) else memory, "memory")


def default_memory(where: torch.device) -> int:
    """Return the bytes a Gram matrix may use by default: half of what is free, on a GPU or on a CPU.

    Processes that torchrun starts on one machine share a CPU's. A container's own limit counts where it is lower.
    """
    if where.type == "cuda":
        return torch.cuda.mem_get_info(where)[0] // 2
    return max(1, _free_lately() // 2 // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def free_on(where: torch.device) -> int:
    """Return the bytes that are free where a matrix is to lie."""
    return torch.cuda.mem_get_info(where)[0] if where.type == "cuda" else _free_lately()


# When it was read last, and how much there was: reading takes as long as a small kernel.
_READ: list[tuple[float, int]] = []
_SECONDS = 0.5


def _free_lately() -> int:
    now = monotonic()
    if not _READ or now - _READ[0][0] > _SECONDS:
        _READ[:] = [(now, free_memory())]
    return _READ[0][1]


def free_memory(meminfo: Path = Path("/proc/meminfo"), container: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that are free on this machine, or 8 GiB where it does not tell."""
    found = re.search(r"^MemAvailable: *(\d+)", _told(meminfo), re.MULTILINE)
    free = int(found[1]) * 1024 if found else 8 * 2**30
    limit = _told(container / "memory.max").strip()
    if limit.isdigit() and (used := _told(container / "memory.current").strip()):
        free = min(free, max(0, int(limit) - int(used)))
    return free


def _told(file: Path) -> str:
    """Read what a system's file tells; nothing where there is none."""
    try:
        return file.read_text()
    except OSError:
        return ""


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
