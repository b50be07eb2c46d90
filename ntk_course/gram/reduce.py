"""Reduce a Gram matrix that is never held: streamed, shared among processes, continued after a stop."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import reduce as fold
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from tqdm.auto import tqdm

from ..basics import fingerprints, folders, processes
from .blocks import all_tiles, tile_blocks, with_mirror
from .plan import Plan, Tile, plan, share
from .reducers import Reducer, State
from .sides import one_a_sample

if TYPE_CHECKING:
    from .operator import Gram

# Seconds between two checkpoints.
_EVERY = 10.0


def reduce(gram: "Gram", reducer: Reducer, checkpoint: str | Path | None, progress: bool):
    """Fold every block into a reducer, see :meth:`ntk_course.Gram.reduce`."""
    sides, chosen = gram._sides, gram._plan
    if isinstance(reducer, type) or not all(hasattr(reducer, step) for step in ("begin", "fold", "merge", "finish")):
        raise TypeError(f"reducer: got {reducer!r}; wanted an object with begin, fold, merge and finish, such as TopPartners(1)")
    if not getattr(reducer, "stacked", False):
        one_a_sample(sides, f"reducer {type(reducer).__name__}")
    what, here = f"{type(reducer).__name__} of a Gram matrix", processes.world()
    # fingerprints of a large data set take a moment, and alone nobody asks
    made_from = sides.describe() | {"reducer": fingerprints.of_object(reducer)} if here.size > 1 or checkpoint is not None else {}
    processes.agreed(made_from | {"block_size": repr(chosen.asked)}, what)
    kept = None if checkpoint is None else _Checkpoint(Path(checkpoint), made_from)

    def begin() -> tuple[Plan, State | None, set[Tile]]:
        cut, state, done = (None, None, set()) if kept is None else kept.read(reducer)
        return chosen if cut is None else plan(sides, cut[0], chosen.memory, cut[1]), state, done

    # one plan for all: blocks must be the same blocks in every process and after every stop
    the_plan, before, done = processes.from_first(begin, what)
    work = share([tile for tile in all_tiles(sides, the_plan) if tile not in done], here.rank, here.size)

    def mine() -> State:
        state, take = reducer.begin(gram), cast(Callable[..., object], reducer.fold)
        finished, last = [], time.monotonic()
        blocks = tile_blocks(sides, the_plan, work, gram._kept if the_plan is chosen else None)
        for tile, *where in tqdm(blocks, what, total=len(work), unit="block", disable=not progress or here.rank > 0):
            for rows, cols, block in with_mirror(sides, *where):
                if take(state, rows, cols, block) is not None:
                    raise TypeError(
                        f"reducer: got a result from {type(reducer).__name__}.fold; wanted the state changed in place"
                    )
            finished.append(tile)
            if kept is not None and time.monotonic() - last > _EVERY:
                kept.write(state, finished, the_plan)
                last = time.monotonic()
        if kept is not None:
            kept.write(state, finished, the_plan)
        return state if here.size == 1 and kept is None else {name: t.cpu() for name, t in state.items()}

    states = [*([] if before is None else [before]), *processes.gathered(mine, what)]
    result = reducer.finish(fold(reducer.merge, states))
    if kept is not None:
        processes.from_first(kept.clear, what)
    return result


class _Checkpoint:
    """A folder of parts: the state that one process reached in one run, and the tiles that are in it."""

    def __init__(self, folder: Path, made_from: dict[str, str]):
        self._folder, self._made_from = folder, made_from
        self._mine = f"{time.time_ns()}-{os.getpid()}-{processes.world().rank}.part"

    def read(self, reducer: Reducer) -> tuple[tuple[int, list[str]] | None, State | None, set[Tile]]:
        """Merge all parts, and tell how their matrix was cut: block size and weights in factors; None where there is no part yet."""
        folders.own(self._folder, "checkpoint", lambda path: ".part" in path.suffixes)
        cut, state, done = None, None, set()
        for path in sorted(self._folder.glob("*.part")):
            part = torch.load(path, weights_only=True)
            fingerprints.same(part["made_from"], self._made_from, f"checkpoint: {self._folder}")
            cut = part["block_size"], part["factored"]
            state = part["state"] if state is None else reducer.merge(state, part["state"])
            done |= {tuple(tile) for tile in part["tiles"].tolist()}
        return cut, state, done

    def write(self, state: State, tiles: list[Tile], plan: Plan) -> None:
        """Keep this process's part, whole or not at all."""
        part = {
            "made_from": self._made_from,
            "block_size": plan.block_size,
            "factored": sorted(plan.layout.factored),
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
        with suppress(OSError):  # somebody else's file by now: the result matters more
            self._folder.rmdir()
