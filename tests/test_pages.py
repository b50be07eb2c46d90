"""The course's pages beside the chapters: self-checks, glossary, exercises, literature, grading, and what they promise."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import jupytext
import pytest
from pybtex.database import parse_file

import ntk_course as ntk

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
CHAPTERS = sorted(BOOK.glob("[0-9]*.md"))
BIB = parse_file(str(BOOK / "references.bib")).entries
sys.path.insert(0, str(ROOT / "tools"))


class Choices(HTMLParser):
    """Collects the words of every summary and of the paragraph that it opens."""

    def __init__(self):
        super().__init__()
        self.summaries, self.replies, self.names, self.inside = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        self.names += [value for key, value in attrs if tag == "details" and key == "name"]

    def handle_data(self, data):
        if self.inside == "summary":
            self.summaries.append(data)
        if self.inside == "p" and self.names and data[:1] in "✓✗":
            self.replies.append(data)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_self_checks(path, monkeypatch):
    number = int(path.name[:2])
    assert f"ntk.widgets.self_check({number})" in path.read_text()
    shown = []
    monkeypatch.setattr("ntk_course.course.widgets.display", shown.append)
    ntk.widgets.self_check(number)
    page = Choices()
    page.feed(re.sub("</?span[^>]*>", "", shown[0].data))
    asked = ntk.widgets.questions(number)
    assert len(asked) >= 3
    assert "<script" not in shown[0].data
    assert len(page.summaries) == len(page.replies) == len(page.names) == sum(1 + len(q["wrong"]) for q in asked)
    assert len(set(page.names)) == len(asked)
    for answer, reply in zip(page.summaries, page.replies, strict=True):
        assert reply.startswith("✓ Right.") == any(answer == re.sub(r"\$([^$]+)\$", r"\\(\1\\)", q["right"]) for q in asked)
    for question in asked:
        answers = [question["right"], *(answer for answer, _ in question["wrong"])]
        assert len(set(answers)) == len(answers) >= 3
        assert not any(words.count("$") % 2 for words in [question["question"], question["because"], *answers])


def test_the_right_answer_has_no_place_of_its_own(monkeypatch):
    places = []
    monkeypatch.setattr("ntk_course.course.widgets.display", lambda shown: places.extend(re.findall(r"<p>([✓✗])", shown.data)))
    for chapter in range(1, len(CHAPTERS) + 1):
        ntk.widgets.self_check(chapter)
    where = [i % 3 for i, mark in enumerate(places) if mark == "✓"]
    assert min(where.count(i) for i in range(3)) > len(where) / 4


def test_self_checks_of_no_chapter():
    with pytest.raises(ValueError, match="chapter: got 99; wanted one of 0, before the start, to 19"):
        ntk.widgets.self_check(99)


def test_every_term_is_explained_and_linked():
    explained = set(re.findall(r"^(\S.*)\n  \S", (BOOK / "glossary.md").read_text(), re.MULTILINE))
    used = set()
    for path in CHAPTERS:
        for words, term in re.findall(r"\{term\}`([^`<]+?)(?: <([^>]+)>)?`", path.read_text()):
            used.add(term or words)
    assert used <= explained
    assert len(explained) >= 40
    assert len(used) >= 0.85 * len(explained)


@pytest.mark.parametrize("path", sorted((ROOT / "solutions").glob("*.md")), ids=lambda p: p.stem)
def test_exercises_are_complete(path):
    text = path.read_text()
    listed = re.findall(r"^\| ([\d.]+) \| (.+?) \| (\d+) \| ([\w-]+) \| .+? \|$", text, re.MULTILINE)
    begun = re.findall(r"^```\{exercise-start\} (.+)$", text, re.MULTILINE)
    assert len(begun) >= 5, f"{len(begun)} exercises; wanted at least 5"
    assert [f"{number} {name}" for number, name, _, _ in listed] == begun
    stated = re.findall(r"^\*(\d+) minutes, ([\w-]+)\.\*", text, re.MULTILINE)
    assert stated == [(minutes, level) for _, _, minutes, level in listed]
    assert f"{sum(int(minutes) for minutes, _ in stated)} minutes" in text.partition("| number")[0]
    for part in re.split(r"^```\{exercise-start\} ", text, flags=re.MULTILINE)[1:]:
        exercise = part.partition("\n")[0]
        for wanted in ("### BEGIN SOLUTION", "### END SOLUTION", "```{solution-start}", "```{solution-end}", "```{exercise-end}"):
            assert part.count(wanted) == 1, f"{exercise}: {wanted} stands {part.count(wanted)} times; wanted once"
        assert part.count(":class: hint dropdown") == 3, f"{exercise}: wanted a nudge, the idea, the formula"
    assert "warm-up" in {level for *_, level in listed}
    total = 5 * round(sum(int(minutes) for minutes, _ in stated) / 5)
    assert f"take about {total} minutes, the laboratory included." in (BOOK / path.name).read_text()
    assert [level for *_, level in listed].index("laboratory") == len(listed) - 1


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_reader_is_asked_before_the_output_is_shown(path):
    """Twice or more in a chapter, with the answer folded away; and at every explorer."""
    cells = jupytext.reads(path.read_text(), fmt="md:myst").cells
    asked = [i for i, cell in enumerate(cells) if "{admonition} Before you run" in cell.source]
    assert len(asked) >= 3
    for i in asked:
        assert re.search(
            r"Before you run\n:class: predict\n.*?\{admonition\} What we saw\n:class: dropdown", cells[i].source, re.DOTALL
        )
    for i, cell in enumerate(cells):
        if "ntk.widgets.explore(" in cell.source:
            assert i - 1 in asked, cell.source[:80]


def test_every_listed_paper_is_in_the_map():
    """The public list had 112 lines; two papers stand in it twice."""
    themes = {entry.fields.get("theme") for entry in BIB.values()}
    assert None not in themes
    assert len(themes) <= 14
    from_the_list = [entry for entry in BIB.values() if 2018 <= int(entry.fields["year"]) <= 2021 and "url" in entry.fields]
    assert len(from_the_list) >= 110
    assert sum("annotation" in entry.fields for entry in BIB.values()) >= 40
    assert all(entry.persons.get("author") for entry in BIB.values())
    titles = [re.sub(r"\W", "", entry.fields["title"]).lower() for entry in BIB.values()]
    assert len(set(titles)) == len(titles)


def test_what_chapters_cite_is_annotated():
    for path in [*CHAPTERS, BOOK / "cost.md", BOOK / "disagreements.md"]:
        for keys in re.findall(r"\{cite:?\w*\}`([^`]+)`", path.read_text()):
            for key in keys.split(","):
                assert "annotation" in BIB[key.strip()].fields, (path.name, key)


def test_disagreements_name_cause_and_chapter():
    rows = [line for line in (BOOK / "disagreements.md").read_text().splitlines() if line.startswith("| ")]
    rows = [line for line in rows if not line.startswith(("| the source", "| ---"))]
    assert len(rows) > 20
    for line in rows:
        assert re.search(r"\*?[Cc]ause known\*|\*[Nn]ot known\*", line), line
        assert "{doc}" in line, line


def test_commands_of_the_pages_exist():
    """What instructors are told to type: make targets, tools, and options of them."""
    text = "".join((ROOT / name).read_text() for name in ("book/instructors.md", "README.md", "CONTRIBUTING.md"))
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make (\w+)", text)) - {"repo"} <= targets | {"a", "one"}
    for tool in re.findall(r"python ((?:tools|benchmarks)/\w+\.py)", text):
        assert (ROOT / tool).exists()
    done = subprocess.run([sys.executable, str(ROOT / "tools/grade.py"), "--help"], capture_output=True, text=True)
    assert "--csv" in done.stdout


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_chapter_ends_with_checks_and_exercises(path):
    cells = jupytext.reads(path.read_text(), fmt="md:myst").cells
    last = [cell.source for cell in cells[-3:]]
    assert "What to remember" in last[0] and "Check yourself" in last[0]
    assert "self_check" in last[1]
    assert "exercises of this chapter" in last[2]


def minutes_to_read(text):
    """Minutes for a first reading.

    110 words a minute, half of one for a displayed equation, 45 seconds for a figure, two for a line of code that is in view;
    and a quarter more, since readers who had written none of it took 1.1 to 1.7 times as long on seven chapters.
    """
    cells = jupytext.reads(text, fmt="md:myst").cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    shown = [
        cell
        for cell in cells
        if cell.cell_type == "code" and not {"hide-input", "remove-input"} & set(cell.metadata.get("tags", []))
    ]
    lines = sum(len(cell.source.splitlines()) for cell in shown)
    words = len(re.findall(r"[A-Za-z]{2,}", re.sub(r"\$\$.*?\$\$", "", prose, flags=re.DOTALL)))
    return 1.25 * (words / 110 + prose.count("$$") / 2 + 0.75 * text.count("\n    alt: ") + 2 / 60 * lines)


def test_no_label_is_given_twice():
    """Sphinx warns of a second one in a whole build alone, not in one from its cache."""
    texts = [path.read_text() for folder in ("book", "solutions") for path in sorted((ROOT / folder).glob("*.md"))]
    labels = [
        label
        for text in texts
        for label in re.findall(r"^\$\$ \(([\w-]+)\)$|^:label: ([\w-]+)$|^    name: ([\w-]+)$", text, re.M)
    ]
    found = ["".join(label) for label in labels]
    assert len(found) > 250 and len(found) == len(set(found))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_reading_time_is_stated(path):
    text = path.read_text()
    stated = int(re.search(r"Reading takes about (\d+) minutes", text)[1])
    assert stated == 5 * round(minutes_to_read(text) / 5)


def minutes_of_exercises():
    """Return minutes and level by an exercise's number, from the tables of the sheets."""
    rows = re.findall(
        r"^\| (\d+\.\d+) \| .+? \| (\d+) \| ([\w-]+) \|", "".join(p.read_text() for p in (ROOT / "solutions").glob("*.md")), re.M
    )
    return {number: (int(minutes), level) for number, minutes, level in rows}


def test_the_half_day_adds_up():
    stated, at = minutes_of_exercises(), 0
    plan = (BOOK / "instructors.md").read_text().partition("## Half a day")[2].partition("\n## ")[0]
    for hour, minute, lasts, what in re.findall(r"^\| (\d+):(\d\d) \| (\d+) \| (.+?) \|", plan, re.M):
        assert int(hour) * 60 + int(minute) == at, what
        at += int(lasts)
        if named := re.findall(r"\b(\d+\.\d+) \*", what):
            assert int(lasts) == sum(stated[number][0] for number in named), what
    assert at == 210  # three and a half hours, as the text says


def test_plans_of_days_and_weeks_add_up():
    stated = minutes_of_exercises()
    plans = (BOOK / "instructors.md").read_text().partition("## Two days")[2].partition("**The project.**")[0]
    rows = re.findall(r"^\|[^\n]*\((\d+) min\)[^\n]*", plans, re.M)
    cells = [next(cell for cell in line.split("|") if " min)" in cell) for line in plans.splitlines() if " min)" in line]
    assert len(rows) == len(cells) == 10
    for said, cell in zip(rows, cells, strict=True):
        named = re.findall(r"\b\d+\.\d+\b", cell)
        whole = re.search(r"all of ([\d, and]+?)(?: \(|, and \d+\.|$)", cell)
        chapters = re.findall(r"\b\d+\b", whole[1]) if whole else []
        named += [n for n, (_, level) in stated.items() if n.partition(".")[0] in chapters and level != "laboratory"]
        assert int(said) == sum(stated[number][0] for number in named), cell
