"""Folders to write to: made where they are missing, and never somebody else's."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path


def named(path: str | Path, name: str) -> Path:
    """Return a path, after checking that it is one.

    Example:
        >>> named("gram", "path").name
        'gram'
    """
    if not isinstance(path, str | PathLike):
        raise TypeError(f"{name}: got {path!r}; wanted a path, as text or pathlib.Path")
    return Path(path)


def own(path: str | Path, name: str, ours: Callable[[Path], bool]) -> Path:
    """Return a folder that is there and holds nothing of others'.

    Args:
        path: of the folder.
        name: of the argument, for messages.
        ours: says of a path in it whether we would have written it.

    Raises:
        ValueError: a folder that holds something else; OSError: one that cannot be made or looked into.

    Example:
        >>> own(folder / "new", "path", lambda path: path.suffix == ".part").is_dir()
        True
    """
    path = named(path, name)
    try:
        path.mkdir(parents=True, exist_ok=True)
        odd = sorted(inside.name for inside in path.iterdir() if not ours(inside))
    except FileExistsError as error:
        raise FileExistsError(error.errno, f"{name}: got {path}, which is a file; wanted a folder") from None
    except OSError as error:
        raise type(error)(
            error.errno, f"{name}: could not write to {path} ({error.strerror}); wanted a folder that can be"
        ) from None
    if odd:
        raise ValueError(f"{name}: got {path}, which holds {odd[0]!r}; wanted a folder of its own")
    return path
