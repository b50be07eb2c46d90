"""The built site in a real browser: whole without the internet, readable, and searchable."""

import contextlib
import functools
import http.server
import os
import re
import shutil
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import edition  # noqa: E402
import pdf  # noqa: E402

SITE = ROOT / "_build" / "html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [_TOC["root"], *(chapter["file"] for part in _TOC["parts"] for chapter in part["chapters"])]
WITHOUT_EQUATIONS = {
    "book/index",
    "book/bibliography",
    "book/literature",
    "book/exercises",
    "book/story",
    "book/rubrics",
    "book/editions",
    "book/where_to_run",
    "genindex",
}
WITH_EQUATIONS = set(PAGES) - WITHOUT_EQUATIONS
WITH_FIGURES = {p: (ROOT / f"{p}.md").read_text().count("\n    alt: ") for p in PAGES}

# Drawn figures that stick out of what holds them without a way to move them there, or whose letters are too small: they have
# 9.5 points and more in plots, at most 5.2 inches wide, and 12 in drawings of 7.2. On a phone a figure moves in its own frame.
SHRUNK = """[...document.querySelectorAll('article svg.ntk-plot')].filter(s => s.getClientRects().length).map(s => {
    const moves = innerWidth <= 600 && [...function* () { for (let it = s.parentElement; it; it = it.parentElement) yield it }()].some(
        it => it.tagName !== 'HTML' && it.tagName !== 'BODY' && getComputedStyle(it).overflowX === 'auto')
    const width = +s.getAttribute('width')
    return [s.getAttribute('aria-label'), s.clientWidth / width, moves ? 0 : s.clientWidth - s.parentElement.clientWidth, width]})
    .filter(([, scale, over, width]) => scale < (width > 560 ? 0.58 : width > 380 ? 0.74 : 0.7) || over > 1)"""
# Formulas in a line of text that carry a scrollbar although they fit, or that are cut without one.
BARS_IN_LINES = """[...document.querySelectorAll('mjx-container:not([display="true"])')].filter(it => {
    const line = it.closest('p, li, td, th, dd, dt, figcaption, h1, h2, h3, h4, summary, div')
    const wide = it.classList.contains('ntk-too-wide')
    if (!it.getClientRects().length || !line.clientWidth) return false
    if (wide) return innerWidth > 600 || it.scrollWidth <= it.clientWidth
    return getComputedStyle(it).overflowX !== 'visible' || it.getBoundingClientRect().width > line.clientWidth + 1
}).map(it => it.closest('p, li, td, th, h1, h2, h3, dd, div').textContent.slice(0, 80))"""
# Cells whose words are cut in two: where breaks anywhere are allowed, a column may be one letter wide.
CUT_WORDS = """[...document.querySelectorAll('article :is(th, td), article :is(th, td) :is(p, li)')].filter(
    it => getComputedStyle(it).overflowWrap === 'anywhere' || getComputedStyle(it).wordBreak === 'break-all'
).filter(it => !it.closest('table.indextable')).map(it => it.textContent.slice(0, 40))"""

EXERCISES = sum(p.read_text().count("```{exercise-start}") for p in (ROOT / "solutions").glob("[0-9]*.md"))

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
    pytest.mark.skipif(not SITE.exists(), reason="the site is not built: make book"),
]


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.ids = [], set()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.update(v for k, v in attrs.items() if k in ("id", "name") and v)
        self.links += [v for k, v in attrs.items() if k in ("href", "src") and v]


@functools.cache
def parse(path):
    found = Links()
    found.feed(path.read_text())
    return found


class Quiet(http.server.SimpleHTTPRequestHandler):
    def handle(self):
        with contextlib.suppress(ConnectionError):  # a browser that turns the page hangs up
            super().handle()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        # as readers on Windows and Linux see it: playwright hides scrollbars unless told not to
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet, ignore_default_args=["--hide-scrollbars"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, address):
    """Open a page and return it with lists, filled as it lives, of console errors and of requests to other hosts."""
    contexts = []

    def open_page(name, width=1280, scheme="light", query=""):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.errors, page.strangers = [], []
        page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("requestfailed", lambda request: page.errors.append(f"failed: {request.url}"))
        page.on("request", lambda request: note_stranger(page, request.url))
        page.goto(f"{address}/{name}.html{query}", wait_until="networkidle")
        page.wait_for_function("!window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)")
        return page

    def note_stranger(page, url):
        if not url.startswith((address, "data:", "blob:")):
            page.strangers.append(url)

    yield open_page
    for context in contexts:
        context.close()


# One element with words of its own for each pair of colours that there is: axe-core takes a second for forty elements, and of
# contrast it only asks for letters, what is behind them and what lets it through.
ONE_OF_EACH_COLOUR = """() => {
    const seen = new Set()
    document.querySelectorAll('[data-its-colours]').forEach(it => it.removeAttribute('data-its-colours'))
    for (const it of document.querySelectorAll('body *')) {
        if (![...it.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !it.getClientRects().length) continue
        const own = getComputedStyle(it), key = [own.color, own.fontSize, own.fontWeight, own.textShadow]
        for (let e = it; e; e = e.parentElement) {
            const s = getComputedStyle(e)
            if (s.opacity !== '1' || s.filter !== 'none') key.push(s.opacity, s.filter)
            if (s.backgroundImage !== 'none' || s.backgroundColor !== 'rgba(0, 0, 0, 0)') key.push(s.backgroundColor, s.backgroundImage)
            if (s.position !== 'static') key.push(e.id || e.getAttribute('class'))
        }
        if (seen.size < seen.add(key.join('|')).size) it.setAttribute('data-its-colours', '')
    }
}"""


def serious_faults(page, *, of_colours):
    """List what axe-core calls a serious or critical fault of accessibility, with the first places: of contrast, or all others."""
    from axe_playwright_python.sync_playwright import Axe

    # what passes is not asked for: to describe it takes half of the time
    options, context = {"resultTypes": ["violations"], "rules": {"color-contrast": {"enabled": False}}}, None
    if of_colours:
        page.evaluate(ONE_OF_EACH_COLOUR)
        options, context = {"resultTypes": ["violations"], "runOnly": ["color-contrast"]}, {"include": [["[data-its-colours]"]]}
    found = Axe().run(page, context=context, options=options).response["violations"]
    return {v["id"]: [n["html"][:150] for n in v["nodes"][:3]] for v in found if v["impact"] in ("serious", "critical")}


@pytest.mark.parametrize("name", PAGES)
def test_page(visit, name):
    """Two visits, in light at a desk and in dark on a phone; the first then turns to every theme and width.

    To load it anew for each of them takes longer than to look.
    """
    page = visit(name)
    assert page.evaluate("document.querySelectorAll('mjx-merror').length") == 0
    equations, rendered = (page.evaluate(f"document.querySelectorAll('{s}').length") for s in (".math", ".math mjx-container"))
    assert equations == rendered
    assert (equations > 0) == (name in WITH_EQUATIONS)
    pictures = page.evaluate(
        """[...document.querySelectorAll('article img, article svg.ntk-plot')]
            .filter(i => !i.closest('[hidden]') && !i.parentElement.closest('[role=img]'))
            .map(i => [i.naturalWidth ?? i.clientWidth, (i.alt ?? i.getAttribute('aria-label')).length])"""
    )
    assert len(pictures) >= WITH_FIGURES[name]
    assert all(width > 0 and alt > 20 for width, alt in pictures)
    assert "{" not in page.evaluate("document.querySelector('article h1').textContent")
    for scheme in ("light", "dark"):
        wear(page, scheme)
        for width in (1600, 768, 360, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (scheme, width)
            page.wait_for_timeout(50)  # what is too wide is looked for anew
            for faults in (BARS_IN_LINES, CUT_WORDS, SHRUNK):
                assert settled(page, faults) == [], (scheme, width)
    assert page.errors == []  # before axe-core, which asks for files of its own
    assert page.strangers == []
    assert serious_faults(page, of_colours=False) == {}
    for scheme in ("light", "dark"):
        wear(page, scheme)
        assert serious_faults(page, of_colours=True) == {}, scheme
    on_a_phone(visit(name, width=360, scheme="dark"), name)


def wear(page, scheme):
    """Turn to the light or the dark theme, as the reader's system may at any time."""
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
    page.wait_for_function("document.getAnimations().every(it => it.playState !== 'running')")  # colours fade over


def settled(page, faults):
    """Look for faults until there are none, or for five seconds: a machine at work moves wide formulas late."""
    found = page.evaluate(faults)
    for _ in range(50):
        if found == []:
            break
        page.wait_for_timeout(100)
        found = page.evaluate(faults)
    return found


def on_a_phone(page, name):
    """See that a page loaded on a narrow screen is whole, read its text's size, walk on by the folded sidebar."""
    assert page.evaluate("document.querySelectorAll('mjx-merror').length") == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert settled(page, BARS_IN_LINES) == []
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.errors == [] and page.strangers == []
    size = page.evaluate("parseFloat(getComputedStyle(document.querySelector('article p, article td')).fontSize)")
    assert size >= 14
    page.locator("label.sidebar-toggle.primary-toggle, button.primary-toggle").first.click()
    other = "Notation" if name != "book/notation" else "Bibliography"
    link = page.locator(".bd-sidebar-primary a", has_text=other).first
    link.wait_for(state="visible", timeout=5000)
    link.click()
    page.wait_for_url(f"**/{other.lower()}.html")


@pytest.mark.parametrize("style", ["color: #aaa", "opacity: 0.4", "background: #666"])
def test_pale_words_are_found_among_many(visit, style):
    page = visit("book/notation")
    assert serious_faults(page, of_colours=True) == {}
    page.evaluate(f"""() => {{
        const some = [...document.querySelectorAll('article td')].filter(it => it.textContent.trim()).slice(5, 8)
        some.forEach(it => it.innerHTML = '<span style="{style}">pale words</span>')
    }}""")
    (places,) = serious_faults(page, of_colours=True).values()
    assert all(style in place for place in places)


def test_slider_of_the_static_page(visit):
    page = visit("book/01_one_sgd_step")
    explorer = page.locator(".ntk-explorer")
    shown = "[...document.querySelectorAll('.ntk-explorer .ntk-frame')].findIndex(i => !i.hidden)"
    assert page.evaluate(shown) == 3
    explorer.locator("input").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(shown) == 4
    assert explorer.locator("output").inner_text() == "0.3"
    assert explorer.locator("svg.ntk-plot").nth(4).is_visible()


def test_a_long_table_is_sorted_by_a_click_on_a_column(visit):
    page = visit("book/14_one_table")
    table = page.locator(".ntk-long table").first
    column = lambda i: [cell.strip() for cell in table.locator(f"tbody tr > :nth-child({i})").all_inner_texts()]
    before, head = column(1), table.locator("thead th").nth(3)
    assert len(before) >= 12
    for turn in ("descending", "ascending"):
        head.locator("button").click()
        means = [float(cell.split(" ±")[0]) for cell in column(4)]
        assert means == sorted(means, reverse=turn == "descending") != []
        assert head.get_attribute("aria-sort") == turn
        assert sorted(column(1)) == sorted(before) != column(1)
    head.locator("button").click()
    assert column(1) == before


def test_every_page_says_what_a_link_to_it_shows(visit):
    page = visit("book/09_from_flow_to_steps")
    said = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('meta[property^=og]')].map(m => [m.getAttribute('property'), m.content]))"
    )
    assert "From gradient flow" in said["og:title"]
    assert len(said["og:description"]) > 60 and said["og:image"].endswith("_static/site_light.png")


def test_search_finds_tangent(visit):
    page = visit("search", query="?q=tangent")
    page.wait_for_selector("#search-results li a", timeout=10_000)
    found = page.locator("#search-results li a").all_inner_texts()
    assert any("Computing the tangent kernel" in text for text in found)
    assert page.errors == []
    assert page.strangers == []


def test_one_search_field(visit):
    page = visit("book/index")
    page.keyboard.press("Control+k")
    assert page.evaluate("[...document.querySelectorAll('input[type=search]')].filter(i => i.checkVisibility()).length") == 1


def test_hints_and_solutions_are_folded(visit):
    page = visit("solutions/01_one_sgd_step")
    assert not page.get_by_text("Start from", exact=False).first.is_visible()
    assert not page.get_by_text("pay for it", exact=False).first.is_visible()
    assert not page.get_by_text("torch.outer(q, q)", exact=False).first.is_visible()
    assert (
        page.evaluate(
            "[...document.querySelectorAll('article pre')].filter(i => i.checkVisibility() && /[✓✗…]/.test(i.textContent)).length"
        )
        == 0
    )
    titles = page.evaluate(
        "[...document.querySelectorAll('article summary, article .solution .admonition-title')].map(i => i.textContent.trim().split('\\n')[0])"
    )
    assert (
        titles.count("Solution")
        == titles.count("Discussion")
        == len(re.findall("exercise-start", (ROOT / "solutions/01_one_sgd_step.md").read_text()))
    )


def test_internal_links_and_anchors():
    """Every relative link of every page leads to a file, and every fragment to an element."""
    broken = []
    for name in PAGES:
        path = SITE / f"{name}.html"
        for link in parse(path).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("data:"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            missing = not target.exists() or (anchor and target.suffix == ".html" and anchor not in parse(target).ids)
            if missing and link != "#":
                broken.append((name, link))
    assert broken == []


def test_colab_buttons_lead_to_notebooks_of_the_repository():
    import re

    targets = set()
    for name in PAGES:
        page = (SITE / f"{name}.html").read_text()
        targets |= set(
            re.findall(rf'href="https://colab\.research\.google\.com/github/[^/"]+/[^/"]+/blob/{edition.tag()}/([^"]+)"', page)
        )
    assert len(targets) == 3 * len(list((ROOT / "book").glob("[0-9]*.md")))
    assert all((ROOT / target).exists() for target in targets)


def test_ticks_are_kept_in_the_readers_browser(visit):
    page = visit("book/06_forgetting")
    page.get_by_label("I have read this chapter").check()
    page.goto(page.url.replace("book/06_forgetting", "solutions/03_infinitely_wide"))
    boxes = page.locator(".exercise .ntk-tick input")
    assert boxes.count() == 7
    boxes.nth(1).check()
    boxes.nth(4).check()
    marks = page.locator(".bd-sidebar-primary .ntk-done")
    assert sorted(marks.all_inner_texts()) == [" ✓", " ✓ 2"]
    page.goto(page.url.replace("solutions/03_infinitely_wide", "book/exercises"))
    ticked = page.locator("article td a", has=page.locator(".ntk-done"))
    assert [text.split()[0] for text in ticked.all_inner_texts()] == ["3.2", "3.5"]
    assert f"ticked 2 of {EXERCISES} exercises" in page.locator(".ntk-progress").inner_text()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Forget all ticks").click()
    assert page.locator(".ntk-done").count() == 0
    assert page.evaluate("localStorage.getItem('ntk-course-progress')") is None
    assert page.errors == [] and page.strangers == []


def test_ticks_work_where_the_browser_keeps_nothing(visit):
    page = visit("book/01_one_sgd_step")
    page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('none') } })")
    page.reload()
    page.get_by_label("I have read this chapter").check()
    assert page.locator(".bd-sidebar-primary .ntk-done").count() == 1


def test_every_page_knows_where_to_ask_about_it():
    for name in PAGES:
        links = [link for link in parse(SITE / f"{name}.html").links if "/issues/new?" in link]
        if name == "genindex":
            continue
        (form,) = map(urlsplit, links)
        about = parse_qs(form.query)
        assert about["page"] == [name] and about["edition"] == [edition.version()]
        fields = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{about['template'][0]}").read_text())["body"]
        assert {"page", "edition"} <= {field["id"] for field in fields}


def test_slides_and_launch_links_stand_under_a_title():
    for name in PAGES:
        links = parse(SITE / f"{name}.html").links
        if re.match(r"book/\d", name):
            assert [link for link in links if "/slides/" in link] == [f"../slides/{name.removeprefix('book/')}.html"]
        if re.match(r"(book|solutions)/\d", name):
            where = f"{name.replace('solutions', 'exercises')}.ipynb"
            assert any(link.startswith("https://kaggle.com/") and link.endswith(where) for link in links)
            assert any(link.startswith("https://mybinder.org/") and link.endswith(where) for link in links)


def test_keyboard_reaches_the_navigation(visit):
    page = visit("book/01_one_sgd_step")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        where = "document.activeElement.closest('.bd-sidebar-primary, .bd-header, .bd-article, .skip-link, #pst-skip-link')"
        reached.add(page.evaluate(f"{where}?.className || ''"))
        if any("bd-sidebar-primary" in name for name in reached):
            break
    assert any("bd-sidebar-primary" in name for name in reached)
    page.locator(".bd-sidebar-primary a", has_text="Pruning").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/08_pruning.html")


def test_self_check_opens_by_keyboard(visit):
    page = visit("book/01_one_sgd_step")
    first, second = (page.locator(".ntk-self-check").first.locator("details").nth(i) for i in (0, 1))
    first.locator("summary").focus()
    page.keyboard.press("Enter")
    assert first.locator("p").is_visible()
    second.locator("summary").click()
    assert second.locator("p").is_visible() and not first.locator("p").is_visible()


def test_literature_can_be_searched_sorted_and_filtered(visit):
    page = visit("book/literature")
    rows = page.locator("table.dataTable tbody tr")
    rows.first.wait_for()
    page.locator(".dt-search input").first.fill("label-aware")
    assert page.wait_for_function("document.querySelectorAll('table.dataTable tbody tr').length === 1")
    assert "Label-Aware Neural Tangent Kernel" in rows.first.inner_text()
    page.locator(".dt-search input").first.fill("")
    page.locator("table.dataTable thead input").nth(1).press_sequentially("2018")
    page.wait_for_function("document.querySelectorAll('table.dataTable tbody tr').length === 2")
    page.locator("table.dataTable thead input").nth(2).press_sequentially("infinite")
    page.wait_for_function("document.querySelectorAll('table.dataTable tbody tr').length < 3")
    assert rows.count() == 2 and all("infinite width" in row for row in rows.all_inner_texts())
    page.locator("table.dataTable thead input").nth(1).fill("")
    page.locator("table.dataTable thead input").nth(1).press("Backspace")
    page.wait_for_function("document.querySelectorAll('table.dataTable tbody tr').length > 2")
    years = "[...document.querySelectorAll('table.dataTable tbody td:nth-child(2)')].map(cell => +cell.textContent)"
    for order in ("year >= all[i - 1]", "year <= all[i - 1]"):
        page.locator(".dt-column-order").nth(1).click()
        page.wait_for_function(f"(years => years[0] != years.at(-1) && years.every((year, i, all) => !i || {order}))({years})")
    page.locator("table.dataTable thead input").nth(4).press_sequentially("code")
    page.wait_for_function("[...document.querySelectorAll('table.dataTable tbody td:nth-child(5)')].every(c => c.textContent)")
    page.locator("table.dataTable thead input").nth(3).press_sequentially("cost")
    page.wait_for_function("document.querySelectorAll('table.dataTable tbody tr').length === 1")
    assert "No matching" in rows.first.inner_text() or "cost" in rows.first.inner_text()
    assert page.errors == []


@pytest.mark.parametrize(("name", "scheme"), [("book/index", "light"), ("book/04_pseudo_kernels_and_labels", "dark")])
def test_screenshots_of_the_readme(visit, tmp_path, name, scheme):
    """NTK_COURSE_SCREENSHOTS=1 writes them anew, in few colours, so that they stay small."""
    from PIL import Image

    page, stored = visit(name, scheme=scheme), ROOT / f"book/static/site_{scheme}.png"
    page.screenshot(path=tmp_path / "now.png")
    now = Image.open(tmp_path / "now.png")
    if os.environ.get("NTK_COURSE_SCREENSHOTS"):
        now.convert("RGB").quantize(128).save(stored, optimize=True)
    assert f"(book/static/{stored.name})" in (ROOT / "README.md").read_text()
    assert Image.open(stored).size == now.size
    assert stored.stat().st_size < 250_000


@pytest.mark.parametrize("page", PAGES)
def test_no_progress_bar_was_left_on_a_page(page):
    """Neither its text, nor the state of a widget that nobody can see."""
    assert not re.search(r"\d(step|block|epoch|it)/s\]", (SITE / f"{page}.html").read_text())


def test_print_keeps_what_has_words(browser):
    """Of a page made only for the site a heading is left in the whole book: it goes, with its link; a short section stays."""
    page = browser.new_page()
    page.set_content(
        """<ul><li><a href="#document-genindex">Index</a></li><li><a href="#one">One</a></li></ul>
        <span id="document-genindex"></span><section id="index"><h2>Index</h2></section>
        <section id="one"><h2>One</h2><p>A word.</p></section>
        <div><p>Theorem</p><section id="proof-content"><p>All is well.</p></section></div>"""
    )
    page.evaluate(pdf.OPEN)
    assert page.inner_text("body").split() == ["One", "One", "A", "word.", "Theorem", "All", "is", "well."]
    page.close()
