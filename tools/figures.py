"""Sphinx extension: put drawn figures into the page itself, where they take its colours, light or dark."""

import re
from html import unescape
from pathlib import Path

from ntk_course.course.vector import inline

_IMAGE = re.compile(r"<img\b[^>]*?src=\"[^\"]*?_images/([^\"/]+\.svg)\"[^>]*?/?>")
_ALT = re.compile(r"\balt=\"([^\"]*)\"")


def insert(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Replace the image element of every SVG file that the page's cells drew by its content."""
    if "body" not in context or not hasattr(app.builder, "images"):
        return
    files = {name: path for path, name in app.builder.images.items()}
    count = 0

    def drawn(found: re.Match) -> str:
        nonlocal count
        svg = (Path(app.srcdir) / files[found[1]]).read_text(encoding="utf-8")
        if "Matplotlib" not in svg:
            return found[0]
        count += 1
        alt = _ALT.search(found[0])
        return inline(svg, f"plot-{count}", unescape(alt[1]) if alt else "")

    context["body"] = _IMAGE.sub(drawn, context["body"])


def setup(app) -> dict:
    """Register the extension."""
    app.connect("html-page-context", insert)
    return {"version": "1", "parallel_read_safe": True}
