"""Explorers (a slider over figures) and self-checks: alive in Jupyter and Colab, and still alive on the static site."""

import html
import os
import re
import tomllib
import uuid
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources

import ipywidgets
from IPython.display import HTML, display
from matplotlib.figure import Figure

from .vector import inline, svg_of

_PAGE = """<figure class="ntk-explorer" id="{id}" style="margin:0">
<label style="display:block;margin-bottom:.5em">{label}
<input type="range" min="0" max="{last}" value="{start}" style="width:min(22em,60%);vertical-align:middle"
 aria-valuetext="{current}" data-values="{values}"> <output>{current}</output></label>
{frames}
<figcaption>{caption}.</figcaption>
<script>(function(){{
const box=document.getElementById("{id}"),range=box.querySelector("input"),names=range.dataset.values.split("|");
range.addEventListener("input",function(){{
box.querySelectorAll(".ntk-frame").forEach(function(frame,i){{frame.hidden=i!=range.value;}});
box.querySelector("output").textContent=names[range.value];
range.setAttribute("aria-valuetext",names[range.value]);}});
}})();</script></figure>"""


def explore(draw: Callable[..., Figure], values: Sequence, label: str, alt: str, start: int = 0) -> None:
    """Show ``draw(value)`` under a slider over ``values``.

    With a running kernel the control is an ipywidgets slider. Where NTK_COURSE_STATIC is set (the book's build) every
    frame is drawn beforehand and a plain HTML slider pages through them; without scripts the first frame still shows.

    Args:
        draw: from one value to a matplotlib figure.
        values: the positions of the slider.
        label: words beside the slider.
        alt: what the figure shows, for readers who do not see it.
        start: index of the first value shown.

    Raises:
        ValueError: no values, or start outside them.

    Example:
        >>> explore(lambda rate: plt.figure(), [1e-3, 1e-2], "learning rate", "an empty figure")  # doctest: +SKIP
    """
    if not 0 <= start < len(values):
        raise ValueError(f"start: got {start} with {len(values)} values; wanted an index into values")
    if os.environ.get("NTK_COURSE_STATIC"):
        display(HTML(_static(draw, values, label, alt, start)))
        return
    slider = ipywidgets.SelectionSlider(
        options=[(_text(v), v) for v in values],
        value=values[start],
        description=label,
        style={"description_width": "initial"},
        continuous_update=False,
    )

    name = f"explorer-{uuid.uuid4().hex[:8]}"

    def show(value) -> None:
        # as markup and not as a picture, which could not say what it shows; on white, whatever the notebook's theme
        drawn = inline(svg_of(draw(value)), name, f"{alt} ({label} {_text(value)})")
        display(HTML(f'<div style="background:#fff">{drawn}</div>'))

    display(ipywidgets.VBox([slider, ipywidgets.interactive_output(show, {"value": slider})]))


def _static(draw: Callable[..., Figure], values: Sequence, label: str, alt: str, start: int) -> str:
    frames, name = [], f"explorer-{uuid.uuid4().hex[:8]}"
    for i, value in enumerate(values):
        drawn = inline(svg_of(draw(value)), f"{name}-{i}", f"{alt} ({label} {_text(value)})")
        frames.append(f'<div class="ntk-frame"{"" if i == start else " hidden"}>{drawn}</div>')
    names = [_text(v) for v in values]
    return _PAGE.format(
        id=name,
        label=html.escape(label),
        last=len(values) - 1,
        start=start,
        caption=html.escape(alt.rstrip(".")),
        current=html.escape(names[start]),
        values=html.escape("|".join(names)),
        frames="\n".join(frames),
    )


def self_check(chapter: int) -> None:
    """Show a chapter's questions: a choice opens and says what is right or wrong about it.

    Plain HTML without scripts, so that the page works anywhere a notebook or the site is read, by keyboard too.

    Raises:
        ValueError: there is no such chapter.

    Example:
        >>> self_check(1)  # doctest: +SKIP
    """
    display(HTML("\n".join(_question(chapter, i, **asked) for i, asked in enumerate(questions(chapter), start=1))))


def right_answers(chapter: int) -> str:
    """Return the right answers to a chapter's questions as an ordered list of markup, with the reason beside each.

    Raises:
        ValueError: there is no such chapter.

    Example:
        >>> right_answers(1).count("<li>") == len(questions(1))
        True
    """
    said = (f"<li>{_set(asked['right'])}: <em>{_set(asked['because'])}</em></li>" for asked in questions(chapter))
    return f"<ol>{''.join(said)}</ol>"


@cache
def questions(chapter: int) -> list[dict]:
    """Return a chapter's questions: dicts of question, right (the answer), because, and wrong, pairs (answer, reply)."""
    asked = tomllib.loads(resources.files(__package__).joinpath("self_checks.toml").read_text(encoding="utf-8"))
    if f"chapter{chapter:02d}" not in asked:
        raise ValueError(f"chapter: got {chapter!r}; wanted one of 0, before the start, to {len(asked) - 1}")
    return asked[f"chapter{chapter:02d}"]


def _question(chapter: int, number: int, question: str, right: str, because: str, wrong: list[list[str]]) -> str:
    choices = [(answer, f"✗ {reply}") for answer, reply in wrong]
    choices.insert((chapter + 2 * number) % (len(wrong) + 1), (right, f"✓ Right. {because}"))  # no pattern to guess by
    name = f"self-check-{chapter}-{number}"
    lines = [f'<div class="ntk-self-check"><p><b>{number}.</b> {_set(question)}</p>']
    for answer, reply in choices:
        words = f"<summary>{_set(answer)}</summary><p>{_set(reply)}</p>"
        lines.append(f'<details name="{name}" style="margin:0 0 .3em 1.5em">{words}</details>')
    return "\n".join([*lines, "</div>"])


def _set(text: str) -> str:
    """Escape words for a page, and mark what stands between dollars as a formula."""
    formula = r'<span class="math notranslate nohighlight">\\(\1\\)</span>'
    return re.sub(r"\$([^$]+)\$", formula, html.escape(text))


def _text(value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
