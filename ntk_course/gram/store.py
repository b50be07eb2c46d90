"""A Gram matrix on disk, larger than memory: a Zarr array written block by block, by one process or many, and resumed."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

from ..basics import fingerprints, folders, processes
from .blocks import all_tiles, tile_blocks, with_mirror
from .plan import Plan, Tile, plan, share
from .sides import Sides, one_a_sample

if TYPE_CHECKING:
    from .operator import Gram

# Of the layout; a store of another one is refused.
_VERSION = 2


def write(gram: "Gram", path: str | Path, progress: bool):
    """Write a matrix to a Zarr array, or finish one, see :meth:`ntk_course.Gram.save`."""
    zarr = _zarr()
    sides, chosen = gram._sides, gram._plan
    one_a_sample(sides, "save")
    path, what, here = folders.named(path, "path"), f"writing {path}", processes.world()
    made_from = sides.describe()
    processes.agreed(made_from | {"path": str(path.resolve())}, what)

    def begin() -> tuple[Plan, list[Tile]]:
        folders.own(path, "path", lambda inside: inside.name == "c" or inside.name.startswith("zarr.json"))
        if not (path / "zarr.json").exists():
            _create(zarr, path, sides, chosen, made_from)
        attributes = _attributes(zarr, path)
        fingerprints.same(attributes["made_from"], made_from, f"path: {path}")
        the_plan = plan(sides, attributes["block_size"], chosen.memory, attributes["factored"])
        for partial in path.glob("c/**/*.partial"):  # of a killed process
            partial.unlink(missing_ok=True)
        wanted = all_tiles(sides, the_plan)
        missing = [tile for tile in wanted if not all(_chunk(path, t).exists() for t in _mirrored(sides, tile))]
        _check_room(path, sides, the_plan, len(missing), len(wanted))
        return the_plan, missing

    the_plan, missing = processes.from_first(begin, what)
    work = share(missing, here.rank, here.size)

    def mine() -> None:
        array, done = zarr.open_array(path, mode="r+"), 0
        blocks = tile_blocks(sides, the_plan, work)
        try:
            for _, *where in tqdm(blocks, what, total=len(work), unit="block", disable=not progress or here.rank > 0):
                for rows, cols, block in with_mirror(sides, *where):
                    array[rows, cols] = block.to("cpu", kept_as(sides.dtype)).numpy()
                done += 1
        except OSError as error:
            raise OSError(
                error.errno,
                f"path: could not write block {done + 1} of {len(work)} to {path} ({error.strerror or error}); what was "
                "written is whole and stays: make room and call again",
            ) from error

    processes.gathered(mine, what)
    return open_gram(path)


def open_gram(path: str | Path, partial: bool = False):
    """Open a Gram matrix that :meth:`ntk_course.Gram.save` wrote.

    Args:
        path: folder of the array.
        partial: allow one that is not finished; blocks that are missing read as NaN.

    Returns:
        A Zarr array (N, M), read-only; its ``attrs`` say what it was made from.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not finished, or not ours, or of another version.

    Example:
        >>> matrix = Gram(model, x, ones).save(folder / "gram.zarr", progress=False)
        >>> sorted(open_gram(folder / "gram.zarr").attrs["made_from"])
        ['cotangent', 'data', 'dtype', 'model', 'parameters', 'precision', 'symmetric']
    """
    zarr, path = _zarr(), folders.named(path, "path")
    if not (path / "zarr.json").exists():
        raise FileNotFoundError(f"path: no Gram matrix at {path}; wanted a folder that Gram.save made")
    _attributes(zarr, path)
    array = zarr.open_array(path, mode="r")
    there, wanted = sum(1 for chunk in path.glob("c/*/*") if chunk.suffix != ".partial"), array.nchunks
    if there < wanted and not partial:
        raise ValueError(f"path: {path} holds {there} of {wanted} blocks; finish it with Gram.save, or open it with partial=True")
    return array


def kept_as(dtype: torch.dtype) -> torch.dtype:
    """Return a dtype that NumPy knows and that holds all numbers of another: float32 for bfloat16."""
    return torch.float32 if dtype == torch.bfloat16 else dtype


def _zarr():
    try:
        import zarr
    except ImportError as error:
        raise ImportError('a Gram matrix on disk needs zarr: pip install "ntk_course[store]"') from error
    return zarr


def _create(zarr, path: Path, sides: Sides, the_plan: Plan, made_from: dict[str, str]) -> None:
    # Kernel values are noise to a compressor, and an empty chunk that is not written would look like a missing one.
    zarr.create_array(
        path,
        shape=sides.shape,
        chunks=tuple(min(the_plan.block_size, n) for n in sides.shape),
        dtype=str(kept_as(sides.dtype)).removeprefix("torch."),
        compressors=None,
        fill_value=float("nan"),
        config={"write_empty_chunks": True},
        attributes={
            "ntk_course_gram": _VERSION,
            "block_size": the_plan.block_size,
            "factored": sorted(the_plan.layout.factored),
            "made_from": made_from,
        },
    )


def _attributes(zarr, path: Path) -> dict:
    attributes = dict(zarr.open_array(path, mode="r").attrs)
    version = attributes.get("ntk_course_gram")
    if version != _VERSION:
        raise ValueError(f"path: got a store of version {version} at {path}; wanted version {_VERSION}, or a new folder")
    return attributes


def _mirrored(sides: Sides, tile: Tile) -> set[Tile]:
    return {tile, tile[::-1]} if sides.symmetric else {tile}


def _chunk(path: Path, tile: Tile) -> Path:
    return path / "c" / str(tile[0]) / str(tile[1])


def _check_room(path: Path, sides: Sides, the_plan: Plan, missing: int, wanted: int) -> None:
    """Say that the matrix will not fit before hours are spent on it."""
    cells = len(sides.x1) * len(sides.x2) * missing / max(1, wanted)
    needed, free = int(cells * kept_as(sides.dtype).itemsize), shutil.disk_usage(path).free
    if needed > free:
        raise OSError(f"path: {path} needs {needed / 2**30:.2f} GiB more and its disk has {free / 2**30:.2f} GiB free")
