"""A Gram matrix on disk, larger than memory: a Zarr array written block by block, by one process or many, and resumed."""

import shutil
from pathlib import Path

from torch import Tensor, nn
from tqdm.auto import tqdm

from ..basics import fingerprints, processes
from .engine import Cotangents, Sides, all_tiles, check, plan, tile_blocks, with_mirror
from .plan import Plan, Tile, share
from .reduce import describe

# Of the layout; a store of another one is refused.
_VERSION = 1


def write_gram(
    path: str | Path,
    model: nn.Module,
    x1: Tensor,
    c1: Cotangents,
    x2: Tensor | None = None,
    c2: Cotangents | None = None,
    *,
    block_size: int | None = None,
    memory: int | None = None,
    precision: str = "exact",
    progress: bool = True,
):
    r"""Write a Gram matrix to a Zarr array, one chunk for each block, or finish one that was begun.

    A chunk is written beside its place and renamed, so that a chunk that is there is whole: which chunks are there is all
    that a continued run needs to know. The array's attributes say what it was made from (fingerprints of model and data,
    dtype, precision) and how it was cut, so that a continued run computes the same bits; a call with another model, other
    data or settings is refused. Under torchrun, inside :func:`ntk_course.basics.processes.joined`, the processes share the
    blocks and write to one folder that all of them see. Needs ``pip install "ntk_course[store]"``.

    Args:
        path: folder of the array, made where it is missing.
        model: as in :func:`gram_blocks`.
        x1: (N, ...).
        c1: cotangents (N, K), or a function of K; one a sample.
        x2: (M, ...), or None for x1 against itself.
        c2: given exactly when x2 is.
        block_size: samples a side of a chunk, as in :func:`gram_blocks`; an array that was begun keeps its own.
        memory: as in :func:`gram_blocks`, for each process.
        precision: as in :func:`gram_blocks`.
        progress: show a bar.

    Returns:
        The whole array (N, M), open for reading: ``array[i]`` is row i as NumPy.

    Raises:
        TypeError, ValueError: as :func:`gram_blocks`; a store of another model, data set, setting or version.
        OSError: the disk is full. What was written stays good: free space and call again.
        ImportError: zarr is not installed.
        RuntimeError: another process failed.

    Example:
        >>> matrix = write_gram("mnist.zarr", model, x, c)
        >>> matrix[7, :100]
    """
    zarr = _zarr()
    sides = check(model, x1, c1, x2, c2, precision=precision, scalar_only=True)
    path, what, here = Path(path), f"writing {path}", processes.world()
    made_from = describe(sides)
    processes.agreed(made_from | {"path": str(path.resolve())}, what)

    def begin() -> tuple[Plan, list[Tile]]:
        if not (path / "zarr.json").exists():
            the_plan = plan(sides, block_size, memory)
            _create(zarr, path, sides, the_plan, made_from)
        attributes = _attributes(zarr, path)
        fingerprints.same(attributes["made_from"], made_from, f"path: {path}")
        the_plan = plan(sides, attributes["block_size"], memory)._replace(pairs=attributes["pairs"])
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
                    array[rows, cols] = block.cpu().numpy()
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
    """Open a Gram matrix that :func:`write_gram` wrote.

    Args:
        path: folder of the array.
        partial: allow one that is not finished; blocks that are missing read as NaN.

    Returns:
        A Zarr array (N, M), read-only; its ``attrs`` say what it was made from.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not finished, or not ours, or of another version.

    Example:
        >>> open_gram("mnist.zarr").attrs["made_from"]["model"]
    """
    zarr, path = _zarr(), Path(path)
    if not (path / "zarr.json").exists():
        raise FileNotFoundError(f"path: no Gram matrix at {path}; wanted a folder that write_gram made")
    _attributes(zarr, path)
    array = zarr.open_array(path, mode="r")
    there, wanted = sum(1 for chunk in path.glob("c/*/*") if chunk.suffix != ".partial"), array.nchunks
    if there < wanted and not partial:
        raise ValueError(
            f"path: {path} holds {there} of {wanted} blocks; finish it with write_gram, or open it with partial=True"
        )
    return array


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
        dtype=str(sides.c1.dtype).removeprefix("torch."),
        compressors=None,
        fill_value=float("nan"),
        config={"write_empty_chunks": True},
        attributes={
            "ntk_course_gram": _VERSION,
            "block_size": the_plan.block_size,
            "pairs": the_plan.pairs,
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
    needed, free = int(cells * sides.c1.element_size()), shutil.disk_usage(path).free
    if needed > free:
        raise OSError(f"path: {path} needs {needed / 2**30:.2f} GiB more and its disk has {free / 2**30:.2f} GiB free")
