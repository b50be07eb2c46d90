"""Training paths in folders: their weights in a file from the first step on, and all of it written whole or not at all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.lib.format import open_memmap, read_array_header_1_0, read_magic
from torch import Tensor, nn

from ..basics import fingerprints, folders, validate
from ..basics.samples import Batch
from ..models.adapted import Output, adapted, origin
from . import losses
from .losses import Loss
from .path import LOSSES, TrainingPath

_FILES = ("weights.npy", "path.json", "data.npz")
# NumPy has no such numbers; what lies in a file are their bits.
_BITS = {torch.bfloat16: torch.int16}
# Samples whose losses tell one function from another.
_LOOKED_AT = 8


def room(rows: int, size: int, like: Tensor, folder: str | Path | None) -> Tensor:
    """Make room for the weights, in memory or in a file that is not yet under its own name."""
    if folder is None:
        try:
            return torch.empty(rows, size, dtype=like.dtype, device=like.device)
        except RuntimeError as error:
            raise MemoryError(
                f"steps: got {rows} states of {size} weights, {rows * size * like.element_size() / 2**30:.1f} GiB; wanted fewer, or "
                "folder=, where they lie in a file"
            ) from error
    folders.own(folder, "folder", lambda inside: inside.name.removesuffix(".part") in _FILES)
    dtype = torch.empty(0, dtype=_BITS.get(like.dtype, like.dtype)).numpy().dtype
    return torch.from_numpy(open_memmap(Path(folder) / "weights.npy.part", "w+", dtype, (rows, size))).view(like.dtype)


def finish(path: TrainingPath, folder: Path) -> TrainingPath:
    """Write what else belongs to a path, then give the weights their name: the last thing that happens.

    An older path in the folder stays whole until then.
    """
    x = path.x if isinstance(path.x, Batch) else Batch([path.x])
    loss = losses.written(path.loss)
    about: dict[str, Any] = {"lrs": path.lrs, "momentum": path.momentum, "loss": _name(loss), "states": len(path)}
    about["dtype"] = str(path.weights.dtype).removeprefix("torch.")
    about["model"], about["values"] = _of_model(path.model), _values(path)
    about["args"] = [None if isinstance(v, Tensor) else v for v in x.args] if x is path.x else None
    about["kwargs"] = {k: None if isinstance(v, Tensor) else v for k, v in x.kwargs.items()}
    arrays = {f"batch_{s}": batch for s, batch in enumerate(path.batches)} | {f"x_{k}": t for k, t in x.named.items()}
    kept = {name: _in_numpy(t) for name, t in (arrays | {"y": path.y}).items()}
    with open(folder / "data.npz.part", "wb") as file:
        np.savez(file, allow_pickle=False, **kept)
    (folder / "path.json.part").write_text(json.dumps(about))
    (folder / "weights.npy").unlink(missing_ok=True)  # or an older path would look whole beside this one's data
    for name in ("data.npz", "path.json", "weights.npy"):
        (folder / f"{name}.part").replace(folder / name)
    return load_path(folder, path.model, loss if callable(loss) else None)


def _of_model(model: nn.Module) -> str:
    """Fingerprint what a path does not keep of a model: its modules, settings, buffers and frozen weights."""
    return fingerprints.of_model(origin(model), weights=False)


def _values(path: TrainingPath) -> list[float]:
    """Return losses of a few samples at random outputs, which tell one loss from another that has the same code."""
    some = path.y[:_LOOKED_AT]
    draw = torch.randn(len(some), *path._first_answer().shape[1:], generator=torch.Generator().manual_seed(0)).to(
        path.weights.dtype
    )
    return losses.of_samples(path.loss, draw.to(some.device), some).double().tolist()


def _name(loss: Loss) -> str:
    return loss if isinstance(loss, str) else f"function {fingerprints.of_function(loss)}"


def _in_numpy(t: Tensor) -> np.ndarray:
    """Return a tensor in NumPy; numbers it does not know in those that hold them."""
    return (t.float() if t.dtype in _BITS else t).cpu().numpy()


def load_path(
    folder: str | Path, model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor] | None = None, *, output: Output | None = None
) -> TrainingPath:
    """Read a path that :func:`train_path` wrote to a folder; its weights stay in the file, memory-mapped.

    Args:
        folder: as given to :func:`train_path`.
        model: of the same architecture, with the same buffers and frozen weights, on the device to work on.
        loss: the function that was given, where it was one.
        output: as given to :func:`train_path`.

    Returns:
        A :class:`TrainingPath`.

    Raises:
        FileNotFoundError: no finished path there; ValueError: a file was cut short, with how many states are whole, or
        the model has another number of parameters, another dtype, other buffers or frozen weights, or the loss is another function.

    Example:
        >>> kept = train_path(mlp((64, 8, 10)).double(), x, y, steps=5, lr=0.1, folder=folder / "run", progress=False)
        >>> len(load_path(folder / "run", mlp((64, 8, 10)).double()))
        6
    """
    folder = folders.named(folder, "folder")
    for name in _FILES:
        if not (folder / name).is_file():
            hint = ", only an unfinished run" if (folder / "weights.npy.part").exists() else ""
            raise FileNotFoundError(f"folder: got {folder} without {name}{hint}; wanted one written by train_path")
    try:
        about = json.loads((folder / "path.json").read_text())
        with open(folder / "weights.npy", "rb") as file:
            read_magic(file)
            (rows, size), _, dtype = read_array_header_1_0(file)
            whole = ((folder / "weights.npy").stat().st_size - file.tell()) // (size * dtype.itemsize)
        data = np.load(folder / "data.npz")
    except (ValueError, OSError, BadZipFile) as error:
        raise ValueError(f"folder: got {folder} with a damaged file ({error}); wanted one as train_path wrote it") from error
    if whole < rows or rows != about["states"]:
        raise ValueError(
            f"folder: got a weights.npy cut short, {whole} of {about['states']} states are whole; wanted all of them"
        )
    wanted = about["loss"] if loss is None else _name(loss)
    if wanted != about["loss"] or (loss is None and wanted not in LOSSES):
        raise ValueError(f"loss: got {loss!r}; wanted that of the path, {about['loss']}")
    validate.per_sample(model)
    like = validate.parameters(model)[0]
    if str(like.dtype) != f"torch.{about['dtype']}":
        raise ValueError(f"model: got {like.dtype}; wanted torch.{about['dtype']}, as on the path")

    def tensor(name: str) -> Tensor:
        t = torch.from_numpy(data[name]).to(like.device)
        return t.to(like.dtype) if t.is_floating_point() else t

    args = [tensor(f"x_{i}") if v is None else v for i, v in enumerate([None] if about["args"] is None else about["args"])]
    x = Batch(args, {k: tensor(f"x_{k}") if v is None else v for k, v in about["kwargs"].items()})
    x = args[0] if about["args"] is None else x
    batches = tuple(tensor(f"batch_{s}") for s in range(rows - 1))
    weights = torch.from_numpy(np.load(folder / "weights.npy", mmap_mode="c")).view(like.dtype)
    if about["model"] != _of_model(model):
        raise ValueError(
            "model: got another one than the path's: other modules, settings, buffers or frozen weights; wanted the same but for its "
            "trained weights"
        )
    model = adapted(model, x, output)
    path = TrainingPath(model, x, tensor("y"), weights, batches, tuple(about["lrs"]), about["momentum"], loss or about["loss"])
    if not np.allclose(_values(path), about["values"], rtol=1e-3, equal_nan=True):
        raise ValueError(f"loss: got {loss!r}, of the same code but with other values; wanted that of the path, {about['loss']}")
    return path
