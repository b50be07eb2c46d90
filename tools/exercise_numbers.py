"""Sphinx extension: write an exercise's number, which stands in its title, as in the notebooks and in what its check says."""

import re

TITLE = re.compile(r"Exercise \((\d+\.\d+) (.*?)\)(?=</p>)")


def number(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Turn sphinx-exercise's "Exercise (3.2 A title)" into "Exercise 3.2: A title"."""
    if "body" in context:
        context["body"] = TITLE.sub(r"Exercise \1: \2", context["body"])


def setup(app) -> dict:
    """Register the extension."""
    app.connect("html-page-context", number)
    return {"version": "1", "parallel_read_safe": True}
