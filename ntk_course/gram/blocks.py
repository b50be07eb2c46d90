"""The blocks of a Gram matrix: features of stripes of rows are held while columns stream past; half of a symmetric one."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from ..basics.samples import Batch
from ..tangents.cotangents import Cotangent, part
from ..tangents.features import Tangents, tangent_features, tangent_pieces, tangent_product
from ..tangents.layout import Layout
from .plan import Plan, Tile, slices, tiles
from .sides import Sides

# A block of the diagonal is computed in so many strips, of at least so many rows of features: 5/8 of the work, in products still large.
_STRIPS, _SMALLEST = 4, 64
# Multiply-adds of one product from which that is less work than the strips' own.
_WORTH = 2**10


class Worker:
    """Computes the features of blocks and their products; where a GPU has no room for one, it goes on in halves."""

    def __init__(self, sides: Sides, layout: Layout):
        self._sides, self._layout = sides, layout
        self._most = max(len(sides.x1), len(sides.x2))  # samples that went through at once

    def features(self, x: Tensor | Batch, c: Cotangent) -> Tangents:
        """Return the features of a block."""
        if len(x) > self._most:
            parts = [slice(i, i + self._most) for i in range(0, len(x), self._most)]
            return Tangents.join([self.features(x[some], part(c, some)) for some in parts])
        try:
            found = tangent_features(self._sides.model, x, c, self._layout, self._sides.precision)
            return found.rounded() if self._sides.precision == "bf16" else found
        except torch.cuda.OutOfMemoryError:
            if len(x) == 1:
                raise
        # outside the handler, whose traceback holds what was allocated
        torch.cuda.empty_cache()
        self._most = (len(x) + 1) // 2
        return self.features(x, c)

    def own_block(self, x: Tensor | Batch, c: Cotangent) -> Tensor:
        """Multiply the features of a block with themselves, a piece at a time, none of which is kept."""
        total: Tensor | None = None
        try:
            for piece in tangent_pieces(self._sides.model, x, c, self._layout, self._sides.precision):
                found = self.own_product(piece.rounded() if self._sides.precision == "bf16" else piece)
                total = found if total is None else total.add_(found)
        except torch.cuda.OutOfMemoryError:
            total = None
        # outside the handler, whose traceback holds what was allocated
        return self.own_product(self.features(x, c)) if total is None else total

    def own_product(self, f: Tangents) -> Tensor:
        """Multiply a block with itself: rows with the columns from there on, a strip at a time; the rest is mirrored."""
        n, r = f.dense[0].shape[:2]
        step = max(-(-_SMALLEST // r), -(-n // _STRIPS)) if f.multiply_adds > _WORTH else n
        out = f.dense[0].new_empty(n, n, r, r, dtype=self._sides.dtype)
        for i in range(0, n, step):
            strip = self.product(f.of(slice(i, i + step)), f.of(slice(i, n)))
            out[i : i + step, i:] = strip
            out[i + step :, i : i + step] = strip[:, step:].transpose(0, 1).transpose(2, 3)
        return out

    def product(self, f: Tangents, g: Tangents) -> Tensor:
        """Return the products of two blocks' samples, (n, m, R, S)."""
        try:
            return tangent_product(f, g, self._sides.precision).transpose(1, 2)
        except torch.cuda.OutOfMemoryError:
            if f.samples == 1:
                raise
        torch.cuda.empty_cache()
        return torch.cat([self.product(part, g) for part in f.split((f.samples + 1) // 2)])

    def features_beside(self, held: dict[int, Tangents], x: Tensor | Batch, c: Cotangent) -> Tangents:
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


def tile_blocks(
    sides: Sides, plan: Plan, work: Sequence[Tile], kept: Tangents | None = None
) -> Iterator[tuple[Tile, slice, slice, Tensor]]:
    """Compute the blocks of some tiles, listed row by row, each once: of a symmetric matrix half of them are enough.

    ``kept`` are the features of the second side, where they are at hand already.
    """
    worker = Worker(sides, plan.layout)
    if kept is None and sides.symmetric and len(sides.x1) <= plan.block_size and work:
        block = worker.own_block(sides.x1[:], sides.c1)
        every = slice(0, len(sides.x1))
        yield work[0], every, every, block if sides.stacked else block[..., 0, 0]
        return

    def of_rows(held: dict[int, Tangents], where: slice) -> Tangents:
        if kept is not None and sides.symmetric:
            return kept.of(where)
        return worker.features_beside(held, sides.x1[where], part(sides.c1, where))

    def of_columns(held: dict[int, Tangents], where: slice) -> Tangents:
        if kept is not None:
            return kept.of(where)
        return worker.features_beside(held, sides.x2[where], part(sides.c2, where))

    rows, cols = slices(len(sides.x1), plan.block_size), slices(len(sides.x2), plan.block_size)
    missing = {i: {j for _, j in tiles_of_row} for i, tiles_of_row in groupby(work, key=lambda tile: tile[0])}
    while missing:
        held: dict[int, Tangents] = {}
        for i in list(missing)[: plan.stripe]:
            before = len(held)
            held[i] = of_rows(held, rows[i])
            if len(held) <= before:  # as many as there is room for
                break
        first = next(iter(held))
        for j in sorted(set().union(*(missing[i] for i in held)), key=lambda j: (j - first) % len(cols)):
            if not any(j in missing[i] for i in held):
                continue  # of rows that were given back
            inside = sides.symmetric and j in held
            column = held[j] if inside else of_columns(held, cols[j])
            for i, row in held.items():
                if j in missing[i]:
                    block = worker.own_product(row) if inside and i == j else worker.product(row, column)
                    yield (i, j), rows[i], cols[j], block if sides.stacked else block[..., 0, 0]
                    missing[i].remove(j)
            column = row = block = None  # room for the next
        missing = {i: left for i, left in missing.items() if left}


def all_tiles(sides: Sides, plan: Plan) -> list[Tile]:
    """List the tiles of a Gram matrix."""
    size = plan.block_size
    return tiles(-(-len(sides.x1) // size), -(-len(sides.x2) // size), sides.symmetric)


def with_mirror(sides: Sides, rows: slice, cols: slice, block: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Hand out a block, and its transpose where it stands for that too."""
    yield rows, cols, block
    if sides.symmetric and rows != cols:
        yield cols, rows, block.transpose(0, 1).transpose(2, 3) if sides.stacked else block.transpose(0, 1)
