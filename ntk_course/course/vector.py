"""A figure as SVG inside a page: no background of its own, and the page's colours, so that it is read in light and in dark."""

import html
import io
import re

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

# matplotlib's colours in our figures -> the page's, each with the colour itself where no page says otherwise (a file, a notebook)
SERIES = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9")
NAMES = {"#ffffff": "paper"} | {colour: f"series-{i}" for i, colour in enumerate(SERIES)}

_COLOUR = re.compile(r"(?<=[ :\"])(" + "|".join(NAMES) + r"|#([0-9a-f]{2})\2\2)(?=[;\"])")


def _grey(level: str) -> str:
    """Name the page's colour for a grey, by its level: what is written, what guides the eye, what only parts things."""
    return "ink" if int(level, 16) < 0x38 else "ink-2" if int(level, 16) < 0xB0 else "line"


def svg_of(figure: Figure) -> str:
    """Draw a figure and close it; the text of an SVG file."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", bbox_inches="tight")
    plt.close(figure)
    return drawn.getvalue()


def inline(svg: str, name: str, alt: str) -> str:
    """Turn an SVG file by matplotlib into markup for the middle of a page.

    Args:
        svg: the file's text.
        name: that no other figure of the page has; ids get it in front.
        alt: what the figure shows, for readers who do not see it.

    Raises:
        ValueError: no SVG element in the text.

    Example:
        >>> inline('<svg width="96pt" height="48pt" viewBox="0 0 96 48"><g id="unused"/></svg>', "a", "nothing")[:53]
        '<svg role="img" aria-label="nothing" class="ntk-plot"'
    """
    found = re.search(r"<svg\b([^>]*)>(.*)</svg>", svg, re.DOTALL)
    if found is None:
        raise ValueError(f"svg: got {svg[:40]!r}; wanted an SVG file")
    head, body = found.groups()
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
    used = set(re.findall(r"(?:href=\"|url\()#([^\")]+)", body))
    body = re.sub(r" id=\"([^\"]+)\"", lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r"(href=\"|url\()#", rf"\g<1>#{name}-", body)
    body = re.sub(r"\n\s*", " ", _COLOUR.sub(lambda m: f"var(--ntk-{NAMES.get(m[1]) or _grey(m[2])}, {m[1]})", body))
    size = {key: float(re.search(rf'\b{key}="([\d.]+)pt"', head)[1]) * 4 / 3 for key in ("width", "height")}  # type: ignore[index]
    box = re.search(r'viewBox="[^"]*"', head)
    about = f'role="img" aria-label="{html.escape(alt)}" class="ntk-plot" fill="var(--ntk-ink, #000)"'  # black is what matplotlib does not write
    shape = f'width="{size["width"]:.0f}" height="{size["height"]:.0f}" {box[0] if box else ""}'
    return f'<svg {about} {shape} xmlns:xlink="http://www.w3.org/1999/xlink">{body}</svg>'
