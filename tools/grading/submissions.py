"""Which exercises there are, by the released notebooks, and whose a submitted file is, by its path."""

import ast
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

_CHECK = re.compile(r"^(?:ntk\.)?checks\.(\w+)\(([^\W\d].*)\)\s*$", re.MULTILINE)  # of names: a count of a chapter has a number
_MOODLE = re.compile(r"_\d+_assignsubmission_(?:file|onlinetext)_?$")


@dataclass(frozen=True)
class Exercise:
    """An exercise of a released notebook.

    Attributes:
        check: the name of its check.
        answers: names that the check is called with.
        number: as in "3.2".
        title: in words.
    """

    check: str
    answers: tuple[str, ...]
    number: str = ""
    title: str = ""


def released(folder: Path) -> dict[str, list[Exercise]]:
    """List the exercises of every released notebook, by the notebook's stem.

    Raises:
        FileNotFoundError: no notebook in the folder.
    """
    found = {path.stem: exercises(path) for path in sorted(folder.glob("*.ipynb"))}
    if not found:
        raise FileNotFoundError(f"release: got {folder}; wanted a folder with the released notebooks")
    return found


def exercises(path: Path) -> list[Exercise]:
    """List the exercises of a released notebook, in order."""
    found, number, title = [], "", ""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown" and (head := re.search(r"^## Exercise (\d+\.\d+): (.+)$", cell.source, re.MULTILINE)):
            number, title = head.groups()
        if cell.cell_type == "code":
            for check, answers in _CHECK.findall(cell.source):
                found.append(Exercise(check, tuple(name.strip() for name in answers.split(",") if name.strip()), number, title))
    return found


def files(given: Sequence[Path]) -> list[Path]:
    """List the notebooks among files and, at any depth, in folders; none of those that Jupyter keeps for itself.

    Raises:
        FileNotFoundError: a path that is not there.
    """
    found: list[Path] = []
    for path in given:
        if not path.exists():
            raise FileNotFoundError(f"submissions: got {path}, which is not there")
        inside = sorted(path.rglob("*.ipynb")) if path.is_dir() else [path]
        found += [p for p in inside if ".ipynb_checkpoints" not in p.parts]
    return list(dict.fromkeys(found))


def sheet_of(path: Path, stems: Sequence[str]) -> str:
    """Return which released notebook a file is an answer to, or "" if its name says of none."""
    inside = [stem for stem in stems if stem in path.stem]
    return max(inside, key=len, default="")


def students(paths: Sequence[Path], stems: Sequence[str]) -> list[str]:
    """Say whose each file is, by what differs between the paths.

    Folders by student (nbgrader, Moodle, one's own) and names in file names are both understood.

    Example:
        >>> students([Path("in/ann/01_a.ipynb"), Path("in/bob/01_a.ipynb")], ["01_a"])
        ['ann', 'bob']
        >>> students([Path("in/ann_01_a.ipynb")], ["01_a"])
        ['ann']
    """
    folders = [path.resolve().parent for path in paths]
    common = Path(os.path.commonpath(folders)) if folders else Path()
    if len(paths) > 1 and all(folder == common for folder in folders):
        common = common.parent if all(path.stem in stems for path in paths) else common
    elif len(set(folders)) == 1 and paths and paths[0].stem in stems:
        common = common.parent
    names = []
    for path, folder in zip(paths, folders, strict=True):
        sheet = sheet_of(path, stems)
        parts = [_MOODLE.sub("", part) for part in folder.relative_to(common).parts if part not in stems]
        rest = _MOODLE.sub("", path.stem.replace(sheet, "").strip("_- .") if sheet else path.stem)
        names.append("/".join([*parts, *filter(None, [rest])]) or path.stem)
    return names


def bound(source: str) -> set[str]:
    """Return the names that a cell defines; of one that is no Python, every word."""
    try:
        tree = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))
    except SyntaxError:
        return set(re.findall(r"\w+", source))  # what it was meant to define is among the words that it has
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names
