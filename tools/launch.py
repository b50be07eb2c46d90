"""Sphinx extension: what each page offers beside its text: where to run and load its notebook, its slides, and whom to ask."""

import re
import shutil
from html import escape
from pathlib import Path
from urllib.parse import urlencode
from zipfile import ZIP_DEFLATED, ZipFile

from edition import ROOT, binder, colab, kaggle, repository, tag, version

_TITLE = re.compile(r"^# .+$", re.MULTILINE)
FOLDERS = ("book", "exercises", "solutions")
# by the folder of a page, which notebooks belong to it, and in which words
NOTEBOOKS = {
    "book": [("Open in Colab", "Notebook", "book")],
    "solutions": [("Work on these in Colab", "Notebook", "exercises"), ("Solved", "Solved notebook", "solutions")],
}
ELSEWHERE = {"Kaggle": kaggle, "Binder": binder}


def add_buttons(app, docname: str, content: list[str]) -> None:
    """Insert the buttons after the title; a page of solutions has those of the cleared notebook as well."""
    folder, _, stem = docname.rpartition("/")
    buttons, links = [], []
    for open_it, load_it, place in NOTEBOOKS.get(folder, []):
        where = (Path(place) / f"{stem}.ipynb").as_posix()
        if not (ROOT / where).exists():
            continue
        buttons.append(f"```{{button-link}} {colab(repository(), where, tag())}\n:color: primary\n:outline:\n{open_it}\n```")
        if not links:
            links += [(name, address(repository(), where, tag()), "") for name, address in ELSEWHERE.items()]
        # a file beside the pages: no document, so that Sphinx takes the link as it is
        links.append((f"{load_it} (.ipynb)", f"../notebooks/{where}", " download"))
    if (ROOT / f"slides/{stem}.md").exists() and folder == "book":
        links.append(("Slides", f"../slides/{stem}.html", ""))
    if buttons:
        links.append(("Which for whom?", "../book/where_to_run.html", ""))
        row = "".join(f'<a class="ntk-load" href="{escape(to)}"{how}>{name}</a>' for name, to, how in links)
        text = "\n\n" + "\n\n".join([*buttons, f'<p class="ntk-loads">{row}</p>']) + "\n"
        content[0] = _TITLE.sub(lambda title: title[0] + text, content[0], count=1)


def add_questions(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Put under every page where to ask about it: a form that knows the page and the edition, and the discussions."""
    if "body" not in context or doctree is None:
        return
    form = urlencode({"template": "page.yml", "title": f"{pagename}: ", "page": pagename, "edition": version()})
    context["body"] += (
        f'<p class="ntk-questions">Edition {version()}. Something wrong or unclear on this page? '
        f'<a href="{repository()}/issues/new?{escape(form)}">Tell us</a>, '
        f'or <a href="{repository()}/discussions">ask</a>.</p>'
    )


def copy_notebooks(app, failed) -> None:
    """Put every notebook beside the pages, and all of them into one archive."""
    if failed or app.builder.format != "html":
        return
    target = Path(app.outdir) / "notebooks"
    shutil.rmtree(target, ignore_errors=True)
    with_all = Path(app.outdir) / "notebooks.zip"
    with ZipFile(with_all, "w", ZIP_DEFLATED) as archive:
        for folder in FOLDERS:
            (target / folder).mkdir(parents=True)
            for path in sorted((ROOT / folder).glob("[0-9]*.ipynb")):
                shutil.copy(path, target / folder)
                archive.write(path, f"ntk-course/{folder}/{path.name}")


def setup(app) -> dict:
    """Register the extension."""
    app.connect("source-read", add_buttons)
    app.connect("html-page-context", add_questions)
    app.connect("build-finished", copy_notebooks)
    return {"version": "1", "parallel_read_safe": True}
