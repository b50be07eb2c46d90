"""Reduce a Gram matrix that is never held: streamed, shared among processes, continued after a stop."""

import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..basics import fingerprints, processes
from .engine import Cotangents, Sides, all_tiles, check, plan, tile_blocks, with_mirror
from .plan import Plan, Tile, share
from .reducers import Reducer, State

# Seconds between two checkpoints.
_EVERY = 10.0


def reduce_gram(
    reducer: Reducer,
    model: nn.Module,
    x1: Tensor,
    c1: Cotangents,
    x2: Tensor | None = None,
    c2: Cotangents | None = None,
    *,
    block_size: int | None = None,
    memory: int | None = None,
    precision: str = "exact",
    checkpoint: str | Path | None = None,
    progress: bool = True,
):
    r"""Fold every block of a Gram matrix into a reducer, on all processes there are, and return its result in each.

    Under torchrun, inside :func:`ntk_course.basics.processes.joined`, the blocks are dealt out and the processes' states merged.
    With a checkpoint, what is done is kept every few seconds; the same call, by as many processes or another number,
    goes on from there after an interrupt, a kill or a failure, and clears the checkpoint away at its end.

    Args:
        reducer: such as :class:`TopPartners` or :class:`Histogram`, or your own, see :mod:`ntk_course.gram.reducers`.
        model: as in :func:`gram_blocks`.
        x1: (N, ...).
        c1: cotangents (N, K) or (N, R, K), or a function of K.
        x2: (M, ...), or None for x1 against itself.
        c2: given exactly when x2 is.
        block_size: as in :func:`gram_blocks`.
        memory: as in :func:`gram_blocks`, for each process.
        precision: as in :func:`gram_blocks`.
        checkpoint: folder to keep the state in, which all processes see.
        progress: show a bar.

    Returns:
        What the reducer makes of all blocks, on the CPU where there are several processes or a checkpoint, else where the
        model is.

    Raises:
        TypeError, ValueError: as :func:`gram_blocks`; processes that disagree on model, data or settings; a checkpoint of
            other ones.
        RuntimeError: another process failed.

    Example:
        >>> partners = reduce_gram(TopPartners(10), model, x, c, checkpoint="partners")
        >>> partners.index.shape
        torch.Size([60000, 10])
    """
    sides = check(model, x1, c1, x2, c2, precision=precision)
    if getattr(reducer, "symmetric_only", False) and not (sides.symmetric and sides.scalar):
        given = "x2" if not sides.symmetric else f"stacked cotangents {tuple(sides.c1.shape)}"
        raise ValueError(f"reducer: got {reducer!r} with {given}; wanted x1 against itself, one cotangent a sample")
    what, here = f"{type(reducer).__name__} of a Gram matrix", processes.world()
    # fingerprints of a large data set take a moment, and alone nobody asks
    made_from = describe(sides) | {"reducer": fingerprints.of_object(reducer)} if here.size > 1 or checkpoint is not None else {}
    processes.agreed(made_from | {"block_size": repr(block_size)}, what)
    kept = None if checkpoint is None else _Checkpoint(Path(checkpoint), made_from)

    def begin() -> tuple[Plan, State, set[Tile]]:
        cut, state, done = (None, {}, set()) if kept is None else kept.read(reducer)
        the_plan = plan(sides, block_size if cut is None else cut[0], memory)
        return the_plan if cut is None else the_plan._replace(pairs=cut[1]), state, done

    # one plan for all: blocks must be the same blocks in every process and after every stop
    the_plan, before, done = processes.from_first(begin, what)
    work = share([tile for tile in all_tiles(sides, the_plan) if tile not in done], here.rank, here.size)

    def mine() -> State:
        state: State = {}
        finished, last = [], time.monotonic()
        blocks = tile_blocks(sides, the_plan, work)
        for tile, *where in tqdm(blocks, what, total=len(work), unit="block", disable=not progress or here.rank > 0):
            for rows, cols, block in with_mirror(sides, *where):
                reducer.fold(state, rows, cols, block)
            finished.append(tile)
            if kept is not None and time.monotonic() - last > _EVERY:
                kept.write(state, finished, the_plan)
                last = time.monotonic()
        if kept is not None:
            kept.write(state, finished, the_plan)
        return state if here.size == 1 and kept is None else {name: t.cpu() for name, t in state.items()}

    state = before
    for part in processes.gathered(mine, what):
        state = reducer.merge(state, part)
    result = reducer.finish(state)
    if kept is not None:
        processes.from_first(kept.clear, what)
    return result


def describe(sides: Sides) -> dict[str, str]:
    """Fingerprint what a Gram matrix is made from."""
    samples = (sides.x1, sides.c1) if sides.symmetric else (sides.x1, sides.c1, sides.x2, sides.c2)
    return {
        "model": fingerprints.of_model(sides.model),
        "data": fingerprints.of_tensor(*samples),
        "dtype": str(sides.c1.dtype),
        "symmetric": str(sides.symmetric),
        "precision": sides.precision,
    }


class _Checkpoint:
    """A folder of parts: the state that one process reached in one run, and the tiles that are in it."""

    def __init__(self, folder: Path, made_from: dict[str, str]):
        self._folder, self._made_from = folder, made_from
        self._mine = f"{time.time_ns()}-{os.getpid()}-{processes.world().rank}.part"

    def read(self, reducer: Reducer) -> tuple[tuple[int, float] | None, State, set[Tile]]:
        """Merge all parts, and tell how their matrix was cut: block size and pairs; None where there is no part yet."""
        self._folder.mkdir(parents=True, exist_ok=True)
        cut, state, done = None, {}, set()
        for path in sorted(self._folder.glob("*.part")):
            part = torch.load(path, weights_only=True)
            fingerprints.same(part["made_from"], self._made_from, f"checkpoint: {self._folder}")
            cut = part["block_size"], part["pairs"]
            state = reducer.merge(state, part["state"])
            done |= {tuple(tile) for tile in part["tiles"].tolist()}
        return cut, state, done

    def write(self, state: State, tiles: list[Tile], plan: Plan) -> None:
        """Keep this process's part, whole or not at all."""
        part = {
            "made_from": self._made_from,
            "block_size": plan.block_size,
            "pairs": plan.pairs,
            "tiles": torch.tensor(tiles, dtype=torch.int32).view(-1, 2),
            "state": {name: t.cpu() for name, t in state.items()},
        }
        beside = self._folder / f"{self._mine}.beside"
        try:
            torch.save(part, beside)
            beside.replace(self._folder / self._mine)
        finally:
            beside.unlink(missing_ok=True)

    def clear(self) -> None:
        """Take the folder away."""
        for path in [*self._folder.glob("*.part"), *self._folder.glob("*.part.beside")]:
            path.unlink()
        self._folder.rmdir()
