"""Give the course another version: in the package, citation and footer, in badges, set-up cells and commands, without running a notebook.

python tools/new_edition.py 0.2.0           an edition, to be published under the tag v0.2.0
python tools/new_edition.py 0.3.0.dev0      what is worked on after it: notebooks follow the branch
"""

import re
import sys
from pathlib import Path

from edition import ROOT, tag, version
from repository import files, rewritten

_NUMBER = re.compile(r"\d+\.\d+\.\d+(?:\.dev0)?")


def rename(number: str, root: Path = ROOT) -> list[Path]:
    """Write a version everywhere, and return the files that changed.

    Args:
        number: such as "0.2.0" or "0.3.0.dev0".
        root: of the repository.

    Raises:
        ValueError: not a version of this form.
    """
    if not _NUMBER.fullmatch(number):
        raise ValueError(f"version: got {number!r}; wanted one like 0.2.0, or 0.3.0.dev0 for one that is worked on")
    old, at = version(root), tag(root)
    new = "main" if "dev" in number else f"v{number}"
    changes = [
        (rf'^(version(?: =|:) "?){re.escape(old)}\b', rf"\g<1>{number}"),
        (rf"(Edition ){re.escape(old)}\b", rf"\g<1>{number}"),
        (rf"(/blob/){re.escape(at)}(?=/)", rf"\g<1>{new}"),
        (rf"(/archive/){re.escape(at)}(?=\.zip)", rf"\g<1>{new}"),
        (rf"^(## ){re.escape(old)}(?= \(not released yet\))", rf"\g<1>{number}"),
    ]
    return rewritten([root / "pyproject.toml", *files(root)], changes)


def main() -> int:
    """Rename, or say what is wrong with the version."""
    try:
        changed = rename(sys.argv[1] if len(sys.argv) > 1 else "")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(changed)} files now say {version()}; its changes go under its heading in CHANGELOG.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
