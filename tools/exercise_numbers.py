"""Sphinx extension: name an exercise and its discussion as the notebooks do, with the number that its check says."""

import re

TITLE = re.compile(r"Exercise \((\d+\.\d+) (.*?)\)(?=</p>)")
# the cell above it is the solution; what sphinx-exercise calls one says what it teaches
DISCUSSION = re.compile(r'(<div class="solution dropdown[^>]*>\s*<p class="admonition-title">).*?(?=</p>)', re.DOTALL)


def number(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Turn "Exercise (3.2 A title)" into "Exercise 3.2: A title", and "Solution to ..." into "Discussion"."""
    if "body" in context:
        context["body"] = DISCUSSION.sub(r"\1Discussion", TITLE.sub(r"Exercise \1: \2", context["body"]))


def setup(app) -> dict:
    """Register the extension."""
    app.connect("html-page-context", number)
    return {"version": "1", "parallel_read_safe": True}
