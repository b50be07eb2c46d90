"""What slides take from their chapter: numbered equations, figures, questions with answers, what to remember, exercises."""

import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import jupytext
from docutils import nodes
from edition import ROOT, pages, repository
from myst_plain import Plain
from notebooks import figure

_DISPLAY = re.compile(r"^(?:> )*\$\$[ \t]*(?:\((eq-[\w-]+)\))?[ \t]*$", re.MULTILINE)
_ASK = re.compile(
    r"^```\{admonition\} Before you run\n:class: predict\n(.*?)^```\n+```\{admonition\} What we saw\n:class: dropdown\n(.*?)^```",
    re.MULTILINE | re.DOTALL,
)
_REMEMBER = re.compile(r"^```\{admonition\} What to remember\n:class: \w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
_EXERCISE = re.compile(r"^\| (\d+\.\d+) \| (.+?) \| (\d+) \| ([\w-]+) \| .+? \|$", re.MULTILINE)


@dataclass(frozen=True)
class Equation:
    """A numbered equation: its TeX, and its number as in "1.7"."""

    tex: str
    number: str


@dataclass(frozen=True)
class Drawn:
    """A figure of a chapter: its file, its number and caption, and what it shows for those who do not see it."""

    file: Path
    number: str
    caption: str
    alt: str


class Chapter:
    """A chapter's source and, with the doctree of a built book, its figures.

    Args:
        stem: such as "01_one_sgd_step".
        built: the folder ``_build``.
    """

    def __init__(self, stem: str, built: Path):
        self.stem, self.number = stem, int(stem[:2])
        self.text = (ROOT / f"book/{stem}.md").read_text(encoding="utf-8")
        cells = jupytext.reads(self.text, fmt="md:myst").cells
        self.plain = Plain(self.number, ROOT / "book/references.bib", True, "book", pages(repository()))
        names = [figure(cell).get("name") for cell in cells]
        self.plain.number_figures(names)
        prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        self.plain.render(prose)  # numbers what it meets: theorems and equations
        self.equations = {label: Equation(tex, self.plain.equations[label]) for label, tex in _equations(prose)}
        self.asked = [(question.strip(), answer.strip()) for question, answer in _ASK.findall(prose)]
        self.remember = _REMEMBER.findall(prose)[0]
        self.title = re.search(r"^# (.+)$", prose, re.MULTILINE)[1]  # type: ignore[index]
        self.exercises = _EXERCISE.findall((ROOT / f"solutions/{stem}.md").read_text(encoding="utf-8"))
        self.figures = dict(self._figures(cells, built))

    def _figures(self, cells, built: Path):
        tree = pickle.loads((built / f".doctrees/book/{self.stem}.doctree").read_bytes())
        files = {name: node for node in tree.findall(nodes.figure) for name in node["names"]}
        for cell in cells:
            if name := figure(cell).get("name"):
                image = next(iter(files[name].findall(nodes.image)))
                about = cell.metadata["mystnb"].get("image", {})
                yield (
                    name,
                    Drawn(
                        (ROOT / image["uri"]).resolve(), self.plain.figures[name], figure(cell)["caption"], about.get("alt", "")
                    ),
                )


def _equations(prose: str):
    """Yield label and TeX of every display that has a label; others only part the text."""
    marks = list(_DISPLAY.finditer(prose))
    for opened, closed in zip(marks[::2], marks[1::2], strict=True):
        if closed[1]:
            yield closed[1], re.sub(r"^(?:> )+", "", prose[opened.end() : closed.start()], flags=re.MULTILINE).strip()
