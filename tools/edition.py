"""The edition of the course: one version, in pyproject.toml, from which tags, badges, set-up cells and the site's pages take it.

A version that ends with ``.dev0`` is one that is being worked on: its notebooks follow the branch. Any other is published under
the tag ``v`` and its number, and its notebooks install and open what has that tag, whatever happens to the branch later.
"""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
COLAB, GITHUB = "https://colab.research.google.com/github", "https://github.com"


def version(root: Path = ROOT) -> str:
    """Return the version, as in "0.1.0"."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def tag(root: Path = ROOT) -> str:
    """Return what the edition is known by in the repository: its tag, or the branch while it is worked on."""
    number = version(root)
    return "main" if "dev" in number else f"v{number}"


def repository(root: Path = ROOT) -> str:
    """Return the one repository address, from _config.yml."""
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]


def colab(url: str, where: str, at: str) -> str:
    """Return the address that opens a notebook of the repository in Colab, as it is at a tag or branch."""
    return f"{url.replace(GITHUB, COLAB)}/blob/{at}/{where}"


def archive(url: str, at: str) -> str:
    """Return the address that pip installs the package from, without git: an archive of the repository at a tag or branch."""
    return f"{url}/archive/{at}.zip"


def kaggle(url: str, where: str, at: str) -> str:
    """Return the address that opens a notebook in Kaggle."""
    return f"https://kaggle.com/kernels/welcome?src={url}/blob/{at}/{where}"


def binder(url: str, where: str, at: str) -> str:
    """Return the address that opens a notebook in a container that mybinder.org builds from the folder ``binder``."""
    return f"https://mybinder.org/v2/gh/{url.removeprefix(GITHUB + '/')}/{at}?urlpath=lab/tree/{where}"


def pages(url: str) -> str:
    """Return the address of the repository's pages, where links of a notebook lead."""
    owner, name = url.removeprefix(GITHUB + "/").split("/")
    return f"https://{owner}.github.io/{name}/"


if __name__ == "__main__":
    print(tag())
