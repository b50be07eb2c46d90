"""Print constraints for pip: with the word oldest, the oldest versions that pyproject.toml allows (torch==2.4 for torch>=2.4)."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def oldest() -> list[str]:
    """Return a line for each dependency of the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [name.replace(">=", "==") for name in project["dependencies"]]


if __name__ == "__main__":
    print("\n".join(oldest() if sys.argv[1:] == ["oldest"] else []))
