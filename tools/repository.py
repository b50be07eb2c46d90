"""Move the course to another repository address.

    python tools/repository.py https://github.com/OWNER/NAME

The address stands in _config.yml; badges and set-up cells of the notebooks, and a few pages, are made from it. This
rewrites all of them, without running a notebook.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from edition import COLAB, GITHUB, ROOT, pages, repository

FILES = ["_config.yml", "CITATION.cff", "*.md", "book/*.md", "book/*.ipynb", "exercises/*.ipynb", "solutions/*.ipynb"]
ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+")


def files(root: Path = ROOT) -> list[Path]:
    """List the files that may hold the address."""
    return [path for pattern in FILES for path in sorted(root.glob(pattern))]


def move(url: str, root: Path = ROOT) -> list[Path]:
    """Replace the address everywhere, and return the files that changed.

    Raises:
        ValueError: not an address of the form https://github.com/OWNER/NAME.
    """
    url = url.rstrip("/").removesuffix(".git")
    if not ADDRESS.fullmatch(url):
        raise ValueError(f"URL: got {url!r}; wanted https://github.com/OWNER/NAME")
    old = repository(root)
    changes = [
        (re.escape(old) + r"(?![\w-])", url),
        (re.escape(old.replace(GITHUB, COLAB)) + r"(?![\w-])", url.replace(GITHUB, COLAB)),
        (re.escape(pages(old)), pages(url)),
    ]
    return rewritten(files(root), changes)


def rewritten(paths: Iterable[Path], changes: Sequence[tuple[str, str]]) -> list[Path]:
    """Replace patterns in files, line by line of each, and return the files that changed."""
    changed = []
    for path in paths:
        before = after = path.read_text(encoding="utf-8")
        for pattern, becomes in changes:
            after = re.sub(pattern, becomes, after, flags=re.MULTILINE)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed.append(path)
    return changed


def main() -> int:
    """Move, or say what is wrong with the address."""
    try:
        changed = move(sys.argv[1] if len(sys.argv) > 1 else "")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(changed)} files now say {repository()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
