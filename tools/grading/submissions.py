"""Which exercises there are, by the released notebooks, and whose a submitted file is, by its path."""

import ast
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

_CHECK = re.compile(r"^(?:ntk\.)?checks\.(\w+)\(([^\W\d].*)\)\s*$", re.MULTILINE)  # of names: a count of a chapter has a number
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_COPIES = re.compile(
    r"\b(?:copy|kopie|copie|copia)\b(?: (?:of|von|de|di)\b)?|\(\d+\)", re.IGNORECASE
)  # what systems add to a name
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
        found += [p for p in inside if ".ipynb_checkpoints" not in p.parts and (p.is_file() or p.is_symlink())]
    return list(dict.fromkeys(found))


def sheet_of(path: Path, stems: Sequence[str]) -> str:
    """Return which released notebook a file is an answer to, or "" if its name says of none; capitals decide nothing."""
    inside = [stem for stem in stems if stem.lower() in path.stem.lower()]
    return max(inside, key=len, default="")


def students(paths: Sequence[Path], stems: Sequence[str]) -> list[str]:
    """Say whose each file is, by what differs between the paths: the folders where there are some, or else the files' own names.

    Folders by student (nbgrader, Moodle, one's own) and names in file names are both understood. A link is where it stands, and
    not where it leads.

    Example:
        >>> students([Path("in/ann/01_a.ipynb"), Path("in/bob/Copy of 01_a (2).ipynb")], ["01_a"])
        ['ann', 'bob']
        >>> students([Path("in/ann_01_a.ipynb")], ["01_a"])
        ['ann']
    """
    folders = [Path(os.path.abspath(path)).parent for path in paths]
    common = Path(os.path.commonpath(folders)) if folders else Path()
    known = [stem.lower() for stem in stems]
    found = []
    for path, folder in zip(paths, folders, strict=True):
        parts = tuple(part for part in folder.relative_to(common).parts if part.lower() not in known)
        rest = re.sub(re.escape(sheet_of(path, stems)), "", path.stem, flags=re.IGNORECASE)
        rest = _COPIES.sub("", rest).strip("_- .")
        if not parts and not rest:  # neither tells one from another: one student's folder
            parts = next(((each.name,) for each in (folder, *folder.parents) if each.name.lower() not in known), ())
        found.append((parts, rest))
    short = {parts: "/".join(_MOODLE.sub("", part) for part in parts) for parts, _ in found}
    twice = {name for name in short.values() if list(short.values()).count(name) > 1}  # two people of one name keep their numbers
    names = [
        ("/".join(parts) if short[parts] in twice else short[parts]) if parts else _MOODLE.sub("", rest) for parts, rest in found
    ]
    return [printable(name) for name in names]


def printable(text: str, most: int = 20_000) -> str:
    """Return a text that any file and terminal takes: without control characters and halves of others, and cut where nobody reads on."""
    clean = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.encode("utf-8", "backslashreplace").decode())
    return clean if len(clean) <= most else f"{clean[:most]} ..."


def digest(path: Path) -> str:
    """Return a short fingerprint of a file's content, by which a changed submission is known."""
    try:
        return "link" if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return "unreadable"


def bound(source: str) -> set[str]:
    """Return the names that a cell defines; of one that is no Python, every word."""
    try:
        tree = ast.parse(re.sub(r"^([ \t]*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))
        nodes = list(ast.walk(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(re.findall(r"\w+", source))  # what it was meant to define is among the words that it has
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return names
