"""Sphinx extension: mend markup of docutils that screen readers cannot use."""


def mend(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Take the role of a list from bibliographies: their entries are no list items, and say by themselves what they are."""
    if "body" in context:
        context["body"] = context["body"].replace('<div role="list" class="citation-list">', '<div class="citation-list">')


def setup(app) -> dict:
    """Register the extension."""
    app.connect("html-page-context", mend)
    return {"version": "1", "parallel_read_safe": True}
