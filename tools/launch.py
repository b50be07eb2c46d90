"""Sphinx extension: under the title of every page that has a notebook, buttons that open it in Colab and download it."""

import re
import shutil
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from edition import ROOT, colab, repository, tag

_TITLE = re.compile(r"^# .+$", re.MULTILINE)
FOLDERS = ("book", "exercises", "solutions")
# by the folder of a page, which notebooks belong to it, and in which words
NOTEBOOKS = {
    "book": [("Open in Colab", "Notebook", "book")],
    "solutions": [("Work on these in Colab", "Notebook", "exercises"), ("Solved", "Solved notebook", "solutions")],
}


def add_buttons(app, docname: str, content: list[str]) -> None:
    """Insert the buttons after the title; a page of solutions has those of the cleared notebook as well."""
    folder, _, stem = docname.rpartition("/")
    buttons = []
    for open_it, load_it, place in NOTEBOOKS.get(folder, []):
        where = Path(place) / f"{stem}.ipynb"
        if not (ROOT / where).exists():
            continue
        link = colab(repository(), where.as_posix(), tag())
        buttons.append(f"```{{button-link}} {link}\n:color: primary\n:outline:\n{open_it}\n```")
        # a file beside the pages: no document, so that Sphinx takes the link as it is
        buttons.append(f'<a class="ntk-load" href="../notebooks/{where.as_posix()}" download>{load_it} (.ipynb)</a>')
    if buttons:
        row = "\n\n" + "\n\n".join(buttons) + "\n"
        content[0] = _TITLE.sub(lambda title: title[0] + row, content[0], count=1)


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
    app.connect("build-finished", copy_notebooks)
    return {"version": "1", "parallel_read_safe": True}
