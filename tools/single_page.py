"""Sphinx extension: let the builder of the whole book as one page know every node that the builder of pages knows.

Sphinx takes a builder's own handlers alone where an extension has registered some for it, and not those of its format too.
"""


def complete(app) -> None:
    """Give the builder of one page the handlers for HTML that it lacks."""
    handlers = app.registry.translation_handlers
    handlers["singlehtml"] = handlers.get("html", {}) | handlers.get("singlehtml", {})


def setup(app) -> dict:
    """Register the extension."""
    app.connect("builder-inited", complete)
    return {"version": "1", "parallel_read_safe": True}
