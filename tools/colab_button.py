"""Sphinx extension: an "Open in Colab" button under the title of every page that has a notebook."""

import re
from pathlib import Path

from notebooks import ROOT, colab, repository

_TITLE = re.compile(r"^# .+$", re.MULTILINE)


def add_button(app, docname: str, content: list[str]) -> None:
    """Insert the button after the title; a page of solutions links to the cleared notebook as well."""
    folder, _, stem = docname.rpartition("/")
    notebooks = {
        "book": [("Open in Colab", "book")],
        "solutions": [("Work on these in Colab", "exercises"), ("Solved", "solutions")],
    }
    for text, place in reversed(notebooks.get(folder, [])):
        where = Path(place) / f"{stem}.ipynb"
        if not (ROOT / where).exists():
            continue
        link = colab(repository(), where.as_posix())
        button = f"\n\n```{{button-link}} {link}\n:color: primary\n:outline:\n{text}\n```\n"
        content[0] = _TITLE.sub(lambda title, button=button: title[0] + button, content[0], count=1)


def setup(app) -> dict:
    """Register the extension."""
    app.connect("source-read", add_button)
    return {"version": "1", "parallel_read_safe": True}
