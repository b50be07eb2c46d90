"""Turn the MyST Markdown of the chapters into the plain Markdown that Jupyter and Colab show.

Every directive and role used in the book is named here; an unknown one is an error, so that no raw ``{directive}``
reaches a reader.
"""

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

from pybtex.database import parse_file

from ntk_course.replication.verdicts import boxes, heading

_OPEN = re.compile(r"^(`{3,}|:{3,})\{([\w:-]+)\}[ \t]*(.*)$")
_ROLE = re.compile(r"\{([\w:]+)\}`([^`]+)`")
_EQUATION = re.compile(r"^((?:> )*)\$\$[ \t]*\((eq-[\w-]+)\)[ \t]*$", re.MULTILINE)  # also inside a quoted theorem
_TARGET = re.compile(r"^\([\w-]+\)=[ \t]*\n?", re.MULTILINE)
_LABEL = re.compile(r"^(.*)<([^>]+)>$")
_BOXES = {"note", "tip", "warning", "important", "admonition", "seealso", "hint", "dropdown"}
_PROOFS = {"theorem", "proposition", "lemma", "corollary", "definition", "remark", "algorithm", "proof"}


class Plain:
    """Renders the cells of one chapter in order, numbering its equations and theorems as the site does."""

    def __init__(self, chapter: int, bibliography: Path, keep_solutions: bool, folder: str, site: str):
        self.chapter = chapter
        self.folder, self.site = folder, site  # of the source, and where the pages stand
        self.entries = parse_file(str(bibliography)).entries
        self.keep_solutions = keep_solutions
        self.equations: dict[str, str] = {}
        self.theorems: dict[str, str] = {}
        self.in_solution = False
        self.figures: dict[str, str] = {}

    def number_figures(self, names: Iterable[str | None]) -> None:
        """Give the chapter's figures their numbers, in order; text before a figure may name it."""
        for name in filter(None, names):
            self.figures[name] = f"Figure {self.chapter}.{len(self.figures) + 1}"

    def caption(self, name: str, text: str) -> str:
        """Return what stands under a figure in a notebook."""
        return f"*{self.figures[name]}.* {self.render(text)}"

    def render(self, text: str) -> str:
        """Return one Markdown cell in plain Markdown."""
        for _, label in _EQUATION.findall(text):
            self.equations[label] = f"{self.chapter}.{len(self.equations) + 1}"
        lines = self._blocks(_TARGET.sub("", text).splitlines())
        text = _EQUATION.sub(lambda m: f"{m[1]}\\tag{{{self.equations[m[2]]}}}\n{m[1]}$$", "\n".join(lines))
        return re.sub(r"\n{3,}", "\n\n", _ROLE.sub(self._role, text)).strip()

    def _blocks(self, lines: list[str]) -> list[str]:
        out, i = [], 0
        while i < len(lines):
            opened = _OPEN.match(lines[i])
            if not opened:
                if not self.in_solution or self.keep_solutions:
                    out.append(lines[i])
                i += 1
                continue
            fence, name, argument = opened.groups()
            end = next((j for j in range(i + 1, len(lines)) if lines[j].strip() == fence), None)
            if end is None:
                raise ValueError(f"directive {name!r} is never closed: {lines[i]}")
            body = lines[i + 1 : end]
            options = {}
            while body and (option := re.match(r"^:([\w-]+):[ \t]*(.*)$", body[0])):
                options[option[1]] = option[2]
                body = body[1:]
            out += self._directive(name, argument, options, body)
            i = end + 1
        return out

    def _directive(self, name: str, argument: str, options: dict, body: list[str]) -> list[str]:
        if name == "exercise-start":
            number, _, title = argument.partition(" ")
            return [f"## Exercise {number}: {title}", ""]
        if name == "solution-start":
            self.in_solution = True
            return ["**Discussion**", ""] if self.keep_solutions else []
        if name == "solution-end":
            self.in_solution = False
            return []
        if name == "exercise-end":
            return []
        if name == "verdict":
            found, lines = boxes(argument), []
            for each in found:
                lines += [f"**{each.title}**", ""] * (len(found) > 1)
                lines += [line for lead, words in each.lines for line in (f"*{lead}* {words}", "")]
                lines += [f"[All its numbers]({self.site}book/replication.html#{each.anchor})", ""]
            return self._quote(f"**{heading(found)}**", lines[:-1])
        if name == "math":
            label = options["label"]
            self.equations[label] = f"{self.chapter}.{len(self.equations) + 1}"
            return ["$$", *body, f"\\tag{{{self.equations[label]}}}", "$$"]
        inner = self._blocks(body)
        if name.startswith("prf:") and name[4:] in _PROOFS:
            word = name[4:].capitalize()
            if word != "Proof":
                number = str(len(self.theorems) + 1)
                self.theorems[options["label"]] = f"{word} {number}"
                word = f"{word} {number}" + (f" ({argument})" if argument else "")
            return self._quote(f"**{word}.**", inner)
        if name in _BOXES:
            title = argument or name.capitalize()
            if name == "dropdown" or "dropdown" in options.get("class", ""):
                return [f"<details><summary>{title}</summary>", "", *inner, "", "</details>"]
            return self._quote(f"**{title}**", inner)
        raise ValueError(f"directive {name!r}: not known to tools/myst_plain.py; add its plain form there")

    @staticmethod
    def _quote(head: str, inner: list[str]) -> list[str]:
        return [f"> {line}".rstrip() for line in [head, "", *inner]]

    def _role(self, match: re.Match) -> str:
        name, content = match.groups()
        labelled = _LABEL.match(content)
        if name == "eq":
            return f"({self.equations[content]})"
        if name == "prf:ref":
            return self.theorems[content]
        if name == "numref":
            return self.figures[content]
        if name in ("cite", "cite:p", "cite:t"):
            cited = "; ".join(self._citation(key.strip(), name == "cite:t") for key in content.split(","))
            return cited if name == "cite:t" else f"({cited})"
        if name == "doc" and labelled:
            page = posixpath.normpath(f"{self.folder}/{labelled[2]}")
            return f"[{labelled[1].strip()}]({self.site}{page}.html)"
        if name in ("ref", "term") and labelled:
            return labelled[1].strip()
        if name == "term":
            return content
        if name in ("func", "class", "mod"):
            return f"`{content.lstrip('~').replace('ntk_course.', 'ntk.')}`"
        raise ValueError(f"role {name!r}: not known to tools/myst_plain.py (or lacks its text); add its plain form there")

    def _citation(self, key: str, textual: bool) -> str:
        entry = self.entries[key]
        people = [" ".join(p.last_names) for p in entry.persons["author"]]
        who = people[0] if len(people) == 1 else f"{people[0]} & {people[1]}" if len(people) == 2 else f"{people[0]} et al."
        return f"{who} ({entry.fields['year']})" if textual else f"{who}, {entry.fields['year']}"
