"""Slides: every deck takes what its chapter has, says no number that it has not, needs nothing beside it, and fits its slides."""

import re
import shutil
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "_build"
sys.path.insert(0, str(ROOT / "tools"))
from deck.chapter import Chapter  # noqa: E402
from deck.page import deck, taken  # noqa: E402
from deck.source import slides  # noqa: E402

STEMS = sorted(path.stem for path in (ROOT / "book").glob("[0-9]*.md"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
built = pytest.mark.skipif(not (BUILT / "html/slides").is_dir(), reason="the site is not built: make book")


def source(stem):
    return (ROOT / f"slides/{stem}.md").read_text()


@pytest.mark.parametrize("stem", STEMS)
def test_a_deck_is_a_title_and_one_idea_a_slide_with_notes(stem):
    made = slides(source(stem))
    assert f"# {made[0].heading}\n" in (ROOT / f"book/{stem}.md").read_text()
    assert len(made) >= 9
    for slide in made:
        assert slide.notes or any(kind in ("ask", "question", "verdict") for kind, _ in slide.parts), f"{slide.heading}: no notes"
        words = " ".join(re.sub(r"\$\$.*?\$\$", "", what, flags=re.DOTALL) for kind, what in slide.parts if kind == "text")
        assert len(words.split()) <= 75, f"{slide.heading}: too much to read"
        assert len(slide.parts) <= 4, f"{slide.heading}: too many things"
    kinds = [kind for slide in made for kind, _ in slide.parts]
    assert kinds.count("figure") >= 4 and kinds.count("ask") + kinds.count("question") + kinds.count("verdict") >= 2


@pytest.mark.parametrize("stem", STEMS)
def test_a_deck_has_no_number_that_its_chapter_has_not(stem):
    """Decimals and large numbers are measured ones; those of chapters are held against stored rows and outputs by other tests."""
    pages = (ROOT / f"book/{stem}.md").read_text() + "\n".join(
        cell.source + "".join(str(o.get("text", "")) for o in cell.get("outputs", []))
        for cell in nbformat.read(ROOT / f"book/{stem}.ipynb", as_version=4).cells
    )
    have = set(re.findall(r"\d+(?:[.,]\d+)*", pages))
    said = set(re.findall(r"\d+(?:[.,]\d+)*", re.sub(r"^\{(?!question).*\}.*$", "", source(stem), flags=re.MULTILINE)))
    plain = {number for number in said if re.fullmatch(r"\d{1,2}", number)}  # counts of things that one sees
    assert said - have - plain == set()


def test_a_deck_that_asks_for_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"got 'stray' before the first heading"):
        slides("stray\n# Title\n")
    with pytest.raises(ValueError, match=r"got '\{nonsense\} x'"):
        slides("# Title\n{nonsense} x\n")


@built
@pytest.mark.parametrize("stem", STEMS)
def test_a_deck_takes_what_its_chapter_has(stem, monkeypatch):
    chapter = Chapter(stem, BUILT)
    assert {what for kind, what in taken(chapter) if kind == "figure"} <= set(chapter.figures)
    assert {what for kind, what in taken(chapter) if kind == "equation"} <= set(chapter.equations)
    text = (ROOT / f"book/{stem}.md").read_text()
    assert list(chapter.equations) == re.findall(r"\$\$ \((eq-[\w-]+)\)", text)
    for label, equation in chapter.equations.items():  # each is what stands directly before its label
        assert f"{equation.tex}\n$$ ({label})" in re.sub(r"^(?:> )+", "", text, flags=re.MULTILINE)
    asked = [chapter.asked[int(what) - 1][0] for kind, what in taken(chapter) if kind == "ask"]
    assert not [question for question in asked if re.search(r"\b(cell|table|slider|page)s?\b|You have the", question)], (
        "not in the deck"
    )
    chapter.figures.clear()
    with pytest.raises(ValueError, match="figure: got fig-"):
        deck(chapter)


@built
@pytest.mark.parametrize("stem", STEMS)
def test_a_deck_needs_nothing_beside_it(stem):
    page = (BUILT / f"html/slides/{stem}.html").read_text()
    frame = re.sub(r"<script>.*?</script>|<style>.*?</style>", "", page, flags=re.DOTALL)
    assert re.findall(r"(?:src|srcset)=\"(?!data:)[^\"]*\"|<link\b[^>]*>|url\((?!#|\"?data:)[^)]*\)", frame) == []
    assert not re.search(r"@import|url\((?!\"?data:)", "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL)))


@built
def test_every_figure_is_in_the_archive():
    with zipfile.ZipFile(BUILT / "html/figures.zip") as archive:
        names = archive.namelist()
    wanted = sum((ROOT / f"book/{stem}.md").read_text().count("\n    name: fig-") for stem in STEMS)
    assert len(names) == len(set(names)) == wanted


LOOK = """() => { const s = Reveal.getCurrentSlide(), b = s.querySelector('.body'), size = (e) => parseFloat(getComputedStyle(e).fontSize);
    return { over: [s.scrollHeight - s.clientHeight, b.scrollHeight - b.clientHeight, b.scrollWidth - b.clientWidth,
                    ...[...s.querySelectorAll('.formula')].map(f => f.scrollWidth - f.clientWidth)],
             sizes: [size(b), ...[...s.querySelectorAll('.formula, .verdict, li')].map(size)],
             wrong: s.querySelectorAll('[data-mjx-error], mjx-merror').length,
             figures: [...s.querySelectorAll('figure > svg, figure > img')].map(f => f.getBoundingClientRect())
                 .map(r => Math.min(r.width, r.height)) } }"""


@built
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_every_slide_can_be_read_from_the_last_row():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for stem in STEMS:
            page, errors = browser.new_page(viewport={"width": 1280, "height": 720}), []
            page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            page.on(
                "request",
                lambda request, errors=errors: request.url.startswith(("file:", "data:", "blob:")) or errors.append(request.url),
            )
            page.goto((BUILT / f"html/slides/{stem}.html").as_uri())
            page.wait_for_selector("body[data-ready]", timeout=60_000)
            for i in range(page.evaluate("Reveal.getTotalSlides()")):
                page.evaluate(f"Reveal.slide({i})")
                seen, where = page.evaluate(LOOK), f"{stem}, slide {i + 1}"
                assert max(seen["over"]) <= 1, f"{where}: cut"
                assert min(seen["sizes"]) >= 16, f"{where}: letters too small, {min(seen['sizes']):.0f} of 720 lines"
                assert seen["wrong"] == 0, f"{where}: a formula that MathJax does not know"
                assert min(seen["figures"], default=720) >= 170, f"{where}: a figure too small to see"
            assert errors == []
            page.close()
        browser.close()
