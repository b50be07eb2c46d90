"""Gram matrices of tangent features, block by block: the one engine under every empirical kernel of the course."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..basics import validate
from ..tangents import precision as precisions
from ..tangents.features import Tangents, numbers_of, tangent_features, tangent_product
from ..tangents.probe import Survey, survey
from .plan import Plan, Tile, choose_block, default_memory, halves, pairs_of, slices, tiles

# Samples a side of a block: enough to keep the cores busy, few enough for their caches.
_BLOCK = {"cpu": 512}
_BLOCK_ELSEWHERE = 2048
# A block of the diagonal is computed in so many strips, of at least so many rows: 5/8 of the work, in products still large.
_STRIPS, _SMALLEST = 4, 128

# A cotangent for each sample, (N, K) or (N, R, K); or a function of K that makes them once K is known.
Cotangents = Tensor | Callable[[int], Tensor]


class Sides(NamedTuple):
    """What a Gram matrix is made of, checked: a model, its survey, samples and cotangents (N, R, K) of both sides."""

    model: nn.Module
    known: Survey
    x1: Tensor
    c1: Tensor
    x2: Tensor
    c2: Tensor
    symmetric: bool
    scalar: bool
    precision: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, M), or (N, M, R, S) for stacked cotangents."""
        stacked = () if self.scalar else (self.c1.shape[1], self.c2.shape[1])
        return (len(self.x1), len(self.x2), *stacked)


def check(
    model: nn.Module,
    x1: Tensor,
    c1: Cotangents,
    x2: Tensor | None = None,
    c2: Cotangents | None = None,
    *,
    precision: str = "exact",
    scalar_only: bool = False,
) -> Sides:
    """Check the arguments of a Gram matrix, as :func:`gram_blocks` promises; ``scalar_only`` refuses stacked cotangents."""
    if (x2 is None) != (c2 is None):
        raise ValueError(f"{'c2' if c2 is None else 'x2'}: got None; wanted x2 and c2 together, or neither")
    validate.per_sample(model)
    like = validate.parameters(model)[0]
    x1 = validate.inputs(x1, like, "x1")
    known = survey(model, x1, "x1")
    k, symmetric = known.num_outputs, x2 is None
    c1 = validate.cotangents(c1(k) if callable(c1) else c1, len(x1), k, like, "c1")
    if symmetric:
        x2, c2 = x1, c1
    else:
        x2 = validate.inputs(x2, like, "x2")
        c2 = validate.cotangents(c2(k) if callable(c2) else c2, len(x2), k, like, "c2")
    if x1.shape[1:] != x2.shape[1:]:
        raise ValueError(f"x2: got samples of shape {tuple(x2.shape[1:])}; wanted {tuple(x1.shape[1:])}, as in x1")
    if c1.dim() != c2.dim():
        raise ValueError(f"c2: got shape {tuple(c2.shape)}; wanted as many axes as c1 {tuple(c1.shape)}")
    scalar = c1.dim() == 2
    if scalar:
        c1, c2 = c1.unsqueeze(1), c2.unsqueeze(1)
    elif scalar_only:
        raise ValueError(f"c1: got shape {tuple(c1.shape)}; wanted ({len(x1)}, {k}), one cotangent a sample")
    return Sides(model, known, x1, c1, x2, c2, symmetric, scalar, precisions.check(precision, like.dtype))


def plan(sides: Sides, block_size: int | None = None, memory: int | None = None) -> Plan:
    """Choose block size, stripe and which gradients to form, so that all that is held at a time fits in ``memory`` bytes.

    A block's cost is its graph and what arrives in it, its features twice (they are formed, then joined) and the product;
    what is left is for the features of a stripe of rows. One sample a side is the least there is.
    """
    if block_size is not None:
        validate.positive(block_size, "block_size")
    memory = default_memory(sides.x1.device) if memory is None else validate.positive(memory, "memory")
    memory = int(0.85 * memory)  # the rest is for what the libraries' own routines take
    n, m, r, byte = len(sides.x1), len(sides.x2), sides.c1.shape[1], sides.c1.element_size()
    # a CPU takes so long to hand out more fresh memory than this that a smaller block is faster
    most = 2**31 if sides.x1.device.type == "cpu" else memory
    usual = block_size or _BLOCK.get(sides.x1.device.type, _BLOCK_ELSEWHERE)
    held = n
    for _ in range(2):  # which gradients are formed depends on how often each is used, and the other way
        each = byte * numbers_of(sides.known, sides.model, pairs_of(n, m, held, sides.symmetric), r)

        def working(b: int, each=each) -> int:
            return b * (sides.known.saved * (1 + r) + 2 * each) + 3 * (b * r) ** 2 * byte

        sizes = [usual] if block_size else [b for b in halves(usual) if working(b) <= most or b == 1]
        room = {b: min(n, (memory - working(b)) // (each * b) * b) for b in sizes}
        size, held = choose_block(n, room)
    return Plan(size, -(-held // size), pairs_of(n, m, held, sides.symmetric))


class _Worker:
    """Computes the features of blocks and their products; where a GPU has no room for one, it goes on in halves."""

    def __init__(self, sides: Sides, pairs: float):
        self._sides, self._pairs = sides, pairs
        self._most = max(len(sides.x1), len(sides.x2))  # samples that went through at once

    def features(self, x: Tensor, c: Tensor) -> Tangents:
        if len(x) > self._most:
            return Tangents.join([self.features(*part) for part in zip(x.split(self._most), c.split(self._most), strict=True)])
        try:
            found = tangent_features(self._sides.model, x, c, self._pairs, self._sides.known, self._sides.precision)
            return found.rounded() if self._sides.precision == "bf16" else found
        except torch.cuda.OutOfMemoryError:
            if len(x) == 1:
                raise
        # outside the handler, whose traceback holds what was allocated
        torch.cuda.empty_cache()
        self._most = (len(x) + 1) // 2
        return self.features(x, c)

    def own_product(self, f: Tangents) -> Tensor:
        """Multiply a block with itself: rows with the columns from there on, a strip at a time; the rest is mirrored."""
        n = len(f.dense)
        step, out = max(_SMALLEST, -(-n // _STRIPS)), None
        for i in range(0, n, step):
            strip = self.product(f.samples(slice(i, i + step)), f.samples(slice(i, n)))
            if out is None:
                out = strip.new_empty(n, n, *strip.shape[2:])
            out[i : i + step, i:] = strip
            out[i + step :, i : i + step] = strip[:, step:].transpose(0, 1).transpose(2, 3)
        return out

    def product(self, f: Tangents, g: Tangents) -> Tensor:
        try:
            return tangent_product(f, g, self._sides.precision).transpose(1, 2)
        except torch.cuda.OutOfMemoryError:
            if len(f.dense) == 1:
                raise
        torch.cuda.empty_cache()
        return torch.cat([self.product(part, g) for part in f.split((len(f.dense) + 1) // 2)])

    def features_beside(self, held: dict[int, Tangents], x: Tensor, c: Tensor) -> Tangents:
        """Compute features while others are held; where there is no room, give back the later half of those, and again."""
        while True:
            try:
                return self.features(x, c)
            except torch.cuda.OutOfMemoryError:
                if len(held) < 2:
                    raise
            for i in list(held)[(len(held) + 1) // 2 :]:
                del held[i]
            torch.cuda.empty_cache()
            self._most = max(len(self._sides.x1), len(self._sides.x2))


def tile_blocks(sides: Sides, plan: Plan, work: Sequence[Tile]) -> Iterator[tuple[Tile, slice, slice, Tensor]]:
    """Compute the blocks of some tiles, listed row by row, each once: of a symmetric matrix half of them are enough."""
    worker = _Worker(sides, plan.pairs)
    rows, cols = slices(len(sides.x1), plan.block_size), slices(len(sides.x2), plan.block_size)
    missing = {i: {j for _, j in tiles_of_row} for i, tiles_of_row in groupby(work, key=lambda tile: tile[0])}
    while missing:
        held: dict[int, Tangents] = {}
        for i in list(missing)[: plan.stripe]:
            before = len(held)
            held[i] = worker.features_beside(held, sides.x1[rows[i]], sides.c1[rows[i]])
            if len(held) <= before:  # as many as there is room for
                break
        first = next(iter(held))
        for j in sorted(set().union(*(missing[i] for i in held)), key=lambda j: (j - first) % len(cols)):
            if not any(j in missing[i] for i in held):
                continue  # of rows that were given back
            inside = sides.symmetric and j in held
            column = held[j] if inside else worker.features_beside(held, sides.x2[cols[j]], sides.c2[cols[j]])
            for i, row in held.items():
                if j in missing[i]:
                    block = worker.own_product(row) if inside and i == j else worker.product(row, column)
                    yield (i, j), rows[i], cols[j], block[..., 0, 0] if sides.scalar else block
                    missing[i].remove(j)
            column = row = block = None  # room for the next
        missing = {i: left for i, left in missing.items() if left}


def gram_blocks(
    model: nn.Module,
    x1: Tensor,
    c1: Cotangents,
    x2: Tensor | None = None,
    c2: Cotangents | None = None,
    *,
    block_size: int | None = None,
    memory: int | None = None,
    precision: str = "exact",
) -> Iterator[tuple[slice, slice, Tensor]]:
    r"""Stream the Gram matrix :math:`\langle\phi_{c_n}(x_n), \phi_{c_m}(x_m)\rangle` in blocks, never holding all of it.

    Blocks cover every pair exactly once, in no promised order. Without x2 and c2 the matrix is symmetric: only half of
    it is computed, and each off-diagonal block is handed out a second time, transposed. Rows are worked through in
    stripes whose tangent features fit in ``memory``; columns stream past them. Where a GPU runs out of memory all the
    same, the work goes on in halves of a block.

    Args:
        model: gives logits (N, K); its trainable parameters are the ones differentiated.
        x1: (N, ...).
        c1: cotangents (N, K), or (N, R, K) for R rows of the matrix a sample; or a function from K to such a tensor.
        x2: (M, ...), or None for x1 against itself.
        c2: (M, K) or (M, S, K); given exactly when x2 is.
        block_size: samples a side of a block; by default 512 (2048 on a GPU), or fewer where ``memory`` asks for it.
        memory: bytes for all that is held at a time; by default half of what is free. The
            model's own work space for one sample is the least there is.
        precision: "exact" in the model's dtype; "tf32" or "bf16" for a float32 model on a GPU: products of numbers
            rounded to 10 or 7 binary digits, added up in float32. The features come from TF32 then. On a CPU "tf32" is
            exact and "bf16" rounds the same way without being faster.

    Yields:
        ``(rows, cols, block)``: two slices and a tensor (n, m), or (n, m, R, S) for stacked cotangents, in the model's
        dtype and on its device.

    Raises:
        TypeError, ValueError: bad shapes, dtypes, devices or values, a model in train mode with BatchNorm or Dropout.

    Example:
        >>> for rows, cols, block in gram_blocks(model, x, c):
        ...     largest[rows] = torch.maximum(largest[rows], block.amax(1))
    """
    sides = check(model, x1, c1, x2, c2, precision=precision)
    return _all_blocks(sides, plan(sides, block_size, memory))


def _all_blocks(sides: Sides, plan: Plan) -> Iterator[tuple[slice, slice, Tensor]]:
    for _, rows, cols, block in tile_blocks(sides, plan, all_tiles(sides, plan)):
        yield from with_mirror(sides, rows, cols, block)


def all_tiles(sides: Sides, plan: Plan) -> list[Tile]:
    """List the tiles of a Gram matrix."""
    size = plan.block_size
    return tiles(-(-len(sides.x1) // size), -(-len(sides.x2) // size), sides.symmetric)


def with_mirror(sides: Sides, rows: slice, cols: slice, block: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Hand out a block, and its transpose where it stands for that too."""
    yield rows, cols, block
    if sides.symmetric and rows != cols:
        yield cols, rows, block.transpose(0, 1) if sides.scalar else block.transpose(0, 1).transpose(2, 3)


def gram(
    model: nn.Module, x1: Tensor, c1: Cotangents, x2: Tensor | None = None, c2: Cotangents | None = None, **blocks
) -> Tensor:
    """Assemble the whole Gram matrix from its blocks; arguments as in :func:`gram_blocks`.

    Returns:
        (N, M), or (N, M, R, S) for stacked cotangents, in the model's dtype and on its device.

    Example:
        >>> gram(model, x, c).shape
        torch.Size([64, 64])
    """
    size = (len(x1), len(x1 if x2 is None else x2))
    out = None
    for rows, cols, block in gram_blocks(model, x1, c1, x2, c2, **blocks):
        if out is None:
            out = block.new_empty(*size, *block.shape[2:])
        out[rows, cols] = block
    return out
