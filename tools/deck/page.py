"""A deck as one HTML file that needs nothing beside it: reveal.js, MathJax, figures and words."""

import base64
import json
import re
from collections.abc import Iterator
from html import escape
from importlib.util import find_spec
from pathlib import Path

from edition import ROOT, version
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from ntk_course.course.vector import inline
from ntk_course.replication.verdicts import boxes

from .chapter import Chapter
from .source import Slide, slides

WIDTH, HEIGHT = 1280, 720
_MARKDOWN = MarkdownIt("commonmark").use(dollarmath_plugin, renderer=lambda tex, options: escape(tex))
_MARKDOWN.add_render_rule("math_inline", lambda self, tokens, i, *rest: rf"\({escape(tokens[i].content)}\)")
_MARKDOWN.add_render_rule("math_block", lambda self, tokens, i, *rest: _equation(tokens[i].content, ""))
_ASK = "<p><strong>Ask, let everybody write an answer down, and only then go on.</strong></p>"
_ELSEWHERE = re.compile(r"\b(?:cell|table|slider|page)s?\b")  # what stands in the chapter and not on a slide
_SHAPE = re.compile(r'viewBox="[\d.e-]+ [\d.e-]+ ([\d.e]+) ([\d.e]+)"')


def _package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None and spec.submodule_search_locations, name
    return Path(spec.submodule_search_locations[0])


def deck(chapter: Chapter) -> str:
    """Return the HTML of a chapter's slides."""
    source = (ROOT / f"slides/{chapter.stem}.md").read_text(encoding="utf-8")
    sections = [_section(chapter, slide, i) for i, slide in enumerate(slides(source))]
    sections += [_remember(chapter), _exercises(chapter)]
    reveal = _package("sphinx_revealjs") / "_static/revealjs"
    here = Path(__file__).parent
    styles = [*(reveal / f"dist/{name}.css" for name in ("reset", "reveal")), here / "deck.css"]
    scripts = [reveal / "dist/reveal.js", reveal / "plugin/notes/notes.js", here / "deck.js",
               _package("sphinx-mathjax-offline") / "static/mathjax/tex-svg.js"]  # fmt: skip
    parts = {
        "title": escape(f"Slides: {chapter.title}"),
        "styles": "\n".join(f"<style>{path.read_text(encoding='utf-8')}</style>" for path in styles),
        "scripts": "\n".join(f"<script>{_script(path)}</script>" for path in scripts),
        "slides": "\n".join(sections),
        "foot": escape(f"Neural tangent kernels, {chapter.number}: {chapter.title}. Edition {version()}, CC BY 4.0"),
        "size": json.dumps({"width": WIDTH, "height": HEIGHT}),
    }
    page = (here / "deck.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], page)


def _script(path: Path) -> str:
    text = re.sub(r"^//# sourceMappingURL=.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return text.replace("</script", r"<\/script")


def _section(chapter: Chapter, slide: Slide, place: int) -> str:
    notes = [_words(chapter, slide.notes)] if slide.notes else []
    blocks = []
    for kind, what in slide.parts:
        made, more = _BLOCKS[kind](chapter, what)
        blocks.append(made)
        notes += more
    level = "h1" if place == 0 else "h2"
    head = f"<{level}>{_inline(chapter, slide.heading)}</{level}>"
    kinds = [kind for kind, _ in slide.parts]
    if kinds.count("figure") == 1 and "text" in kinds and any(block.startswith('<figure class="tall"') for block in blocks):
        # a high figure has its words beside it; what is as wide as the slide stays above or below
        words = [block for kind, block in zip(kinds, blocks, strict=True) if kind == "text"]
        at = kinds.index("figure")
        row = f'<div class="row"><div class="words">{"".join(words)}</div>{blocks[at]}</div>'
        shown = [row if i == at else block for i, block in enumerate(blocks) if kinds[i] != "text"]
    elif kinds.count("figure") > 1:
        row = f'<div class="row">{"".join(block for k, block in zip(kinds, blocks, strict=True) if k == "figure")}</div>'
        shown = [row, *(block for k, block in zip(kinds, blocks, strict=True) if k != "figure")]
    else:
        shown = blocks
    hint = '<p class="hint">Arrow keys turn the slides, S opens the notes, ? tells the rest.</p>' if place == 0 else ""
    body = f'<div class="body">{"".join(shown)}{hint}</div>'
    about = (
        ' class="title-slide"'
        if place == 0
        else ' class="ask-slide"'
        if any(k in ("ask", "question") for k, _ in slide.parts)
        else ""
    )
    return f'<section{about}>{head}{body}<aside class="notes">{"".join(notes)}</aside></section>'


def _text(chapter: Chapter, what: str) -> tuple[str, list[str]]:
    return f'<div class="text">{_words(chapter, what)}</div>', []


def _figure(chapter: Chapter, name: str) -> tuple[str, list[str]]:
    drawn = _named(chapter.figures, name, "figure", chapter)
    if drawn.file.suffix == ".svg":
        svg = drawn.file.read_text(encoding="utf-8")
        picture = inline(svg, name, drawn.alt)
        width, height = map(float, _SHAPE.search(picture).groups())  # type: ignore[union-attr]
    else:
        import matplotlib.image

        height, width = matplotlib.image.imread(drawn.file).shape[:2]
        data = base64.b64encode(drawn.file.read_bytes()).decode()
        picture = f'<img alt="{escape(drawn.alt)}" src="data:image/png;base64,{data}">'
    shape = "wide" if width > 1.75 * height else "tall"
    caption = f"<em>{drawn.number}.</em> {_inline(chapter, drawn.caption)}"
    return f'<figure class="{shape}">{picture}<figcaption>{caption}</figcaption></figure>', []


def _equation(tex: str, number: str) -> str:
    mark = f'<span class="number">({number})</span>' if number else ""
    whole = tex.strip().rstrip(",. ")  # the sentence that it ended goes on in the chapter
    return f'<div class="equation"><div class="formula">\\[{escape(whole)}\\]</div>{mark}</div>'


def _numbered(chapter: Chapter, label: str) -> tuple[str, list[str]]:
    equation = _named(chapter.equations, label, "equation", chapter)
    return _equation(equation.tex, equation.number), []


def _ask(chapter: Chapter, which: str) -> tuple[str, list[str]]:
    if not (which.isdigit() and 1 <= int(which) <= len(chapter.asked)):
        raise ValueError(f"ask: got {which}; wanted 1 to {len(chapter.asked)}, the questions of {chapter.stem}")
    question, answer = chapter.asked[int(which) - 1]
    shown = " ".join(part for part in re.split(r"(?<=[.!?])\s+", answer) if not _ELSEWHERE.search(part))
    return f'<div class="ask">{_words(chapter, question)}</div>', [
        _ASK,
        f"<p><strong>What we saw.</strong></p>{_words(chapter, shown)}",
    ]


def _question(chapter: Chapter, what: str) -> tuple[str, list[str]]:
    return f'<div class="ask">{_words(chapter, what)}</div>', [_ASK]


def _verdict(chapter: Chapter, items: str) -> tuple[str, list[str]]:
    made, notes = [], []
    for box in boxes(items):
        lines = {lead: f"<p><em>{escape(lead)}</em> {_inline(chapter, words)}</p>" for lead, words in box.lines}
        notes += [lines.pop("Here.", "")]  # numbers are to be looked up, not to be read from the last row
        made.append(f'<div class="verdict"><p><strong>{escape(box.title)}</strong></p>{"".join(lines.values())}</div>')
    return "".join(made), notes


_BLOCKS = {"text": _text, "figure": _figure, "equation": _numbered, "ask": _ask, "question": _question, "verdict": _verdict}


def _remember(chapter: Chapter) -> str:
    words = _words(chapter, chapter.remember)
    return f'<section class="remember"><h2>What to remember</h2><div class="body"><div class="text">{words}</div></div></section>'


def _exercises(chapter: Chapter) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in ("number", "exercise", "minutes", "level"))
    rows = "".join("<tr>" + "".join(f"<td>{_inline(chapter, cell)}</td>" for cell in row) + "</tr>" for row in chapter.exercises)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<section><h2>Exercises</h2><div class="body"><div class="text">{table}</div></div></section>'


def _words(chapter: Chapter, text: str) -> str:
    return _MARKDOWN.render(chapter.plain.render(text))


def _inline(chapter: Chapter, text: str) -> str:
    return _MARKDOWN.renderInline(chapter.plain.render(text))


def _named(table: dict, name: str, kind: str, chapter: Chapter):
    if name not in table:
        raise ValueError(f"{kind}: got {name}; wanted one of {chapter.stem}: {', '.join(table)}")
    return table[name]


def taken(chapter: Chapter) -> Iterator[tuple[str, str]]:
    """Yield what a chapter's slides take from it, as pairs of a kind and a name."""
    for slide in slides((ROOT / f"slides/{chapter.stem}.md").read_text(encoding="utf-8")):
        yield from ((kind, what) for kind, what in slide.parts if kind != "text")
