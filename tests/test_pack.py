"""The pack without a network: nothing in the students' part gives a solution away, and those who teach can grade with theirs."""

import html
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build/html"
sys.path.insert(0, str(ROOT / "tools"))
import bounds  # noqa: E402
import pack  # noqa: E402

pytestmark = pytest.mark.skipif(not (SITE / "slides").is_dir(), reason="the site is not built: make book")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    target = tmp_path_factory.mktemp("pack")
    data = target / "given"
    (data / "mnist").mkdir(parents=True)
    (data / "mnist/labels").write_text("x")
    pack.students(SITE, target / "students", data)
    pack.teachers(SITE, target / "teachers")
    return target


def discussions():
    """Yield the first words of every discussion, and the last line of every solution that is long enough to be nobody else's."""
    for source in sorted((ROOT / "solutions").glob("*.md")):
        text = source.read_text()
        for found in re.findall(r"```\{solution-start\}.*?\n```\n\n(.+?)[.$`*:]", text, re.DOTALL):
            if len(found) > 25:
                yield found
        for body in re.findall(r"### BEGIN SOLUTION\n(.*?)\n *### END SOLUTION", text, re.DOTALL):
            last = body.splitlines()[-1].strip()
            if len(last) > 45:
                yield last


def test_no_solution_is_among_what_students_get(packed):
    secrets = list(discussions())
    assert len(secrets) > 80
    files = [p for p in (packed / "students").rglob("*") if p.suffix in (".html", ".md", ".ipynb", ".js", ".txt", ".py")]
    chapters = "".join(
        p.read_text() for folder in ("book", "exercises") for p in (ROOT / folder).glob("*.[mi][dp]*")
    )  # and hints
    for path in files:
        text = (
            html.unescape(re.sub(r"<[^>]+>", "", path.read_text(errors="ignore"))) if path.suffix == ".html" else path.read_text()
        )
        told = [secret for secret in secrets if secret in text and secret not in chapters]
        assert told == [], path
    assert not list((packed / "students").rglob("solutions/*.ipynb")) and not (packed / "students/site/notebooks.zip").exists()


def test_links_of_the_students_site_lead_to_files_that_there_are(packed):
    for path in (packed / "students/site").rglob("*.html"):
        if "_static" in path.parts or path.parent.name == "slides":
            continue
        for link in re.findall(r'<(?:a|img|link|script)\b[^>]*?(?:href|src)="([^"#]+)', path.read_text()):
            parts = urlsplit(html.unescape(link))
            if not parts.scheme and not parts.netloc:
                assert (path.parent / unquote(parts.path)).exists(), f"{path.name}: {link}"


def test_each_part_has_what_its_readme_names(packed):
    for part in ("students", "teachers"):
        text = (packed / part / "README.md").read_text()
        for name in re.findall(r"`([\w./-]+)`", text):
            if name not in ("wheels", "submitted/", "site") and not name.startswith("site/book"):
                assert (packed / part / name).exists(), name
    assert (packed / "students/data/mnist/labels").exists()
    assert len(list((packed / "teachers/solutions").glob("*.ipynb"))) == len(list((ROOT / "solutions").glob("[0-9]*.md")))


def test_grading_runs_from_the_folder_of_those_who_teach(packed):
    tool, sheet = packed / "teachers/tools/grade.py", packed / "teachers/exercises/14_one_table.ipynb"
    done = subprocess.run([sys.executable, str(tool), str(sheet)], cwd=packed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"0 of \d points", done.stdout)


def test_without_a_folder_of_data_there_is_none(tmp_path, monkeypatch):
    """A variable that is set to nothing, as make sets it, is no folder: it would be the one that we are in."""
    taken = []
    monkeypatch.setenv("NTK_COURSE_DATA", "")
    monkeypatch.setattr(sys, "argv", ["pack.py", str(tmp_path / "p")])
    monkeypatch.setattr(pack, "students", lambda site, target, data: taken.append(data))
    monkeypatch.setattr(pack, "teachers", lambda site, target: None)
    monkeypatch.setattr(pack, "wheels", lambda target, pythons, systems: (tmp_path / "p").mkdir())
    monkeypatch.setattr(pack, "tried", lambda folder: "")
    assert pack.main() == 0
    assert taken == [None]


def test_bounds_are_those_of_the_package():
    assert "torch==2.4" in bounds.oldest() and len(bounds.oldest()) == 10
