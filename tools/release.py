"""Publish the edition of this commit: its tag, and a release with the pack; nothing where the version is one that is worked on.

    python tools/release.py

An edition is published once. Where its tag stands at another commit the tree needs another version, since its notebooks install
and open what has the tag: that is an error, so that it does not pass unseen.
"""

import subprocess
import sys

from edition import ROOT, tag


def published(name: str) -> str:
    """Return the commit that a tag of the repository's origin stands at, or nothing."""
    return _said("git", "ls-remote", "--tags", "origin", f"refs/tags/{name}").partition("\t")[0]


def _said(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    """Publish, or say why not; 1 if what is published under this version is something else."""
    name, here = tag(), _said("git", "rev-parse", "HEAD")
    if name == "main":
        print("a version that is worked on: nothing to publish")
        return 0
    at = published(name)
    if at == here:
        print(f"{name} is published")
        return 0
    if at:
        print(
            f"version: got {name}, which is published at {at[:10]}; wanted another one for {here[:10]}: see An edition in CONTRIBUTING.md",
            file=sys.stderr,
        )
        return 1
    subprocess.run(["make", "pack"], cwd=ROOT, check=True)
    packs = sorted(map(str, (ROOT / "dist/pack").glob("*.zip")))
    about = ["--title", f"Edition {name}", "--notes-file", "CHANGELOG.md", "--target", here]
    subprocess.run(["gh", "release", "create", name, *packs, *about], cwd=ROOT, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
