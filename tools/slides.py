"""Slides for every chapter. Sphinx extension: a deck beside the pages of the site, and all figures as vectors in one archive.

    python tools/slides.py _build              PDFs of the decks of a built site, for handing out, and with the speaker's notes

A deck is one HTML file that needs no network: arrows turn the pages, S opens the speaker's window, ? tells the rest.
"""

import argparse
import re
import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from deck.chapter import Chapter
from deck.page import HEIGHT, WIDTH, deck
from edition import ROOT
from pdf import chromium

STEMS = sorted(path.stem for path in (ROOT / "slides").glob("[0-9]*.md"))


def build(app, failed) -> None:
    """Write the decks and the figures of a finished site."""
    if failed or app.builder.name != "html":
        return
    target, built = Path(app.outdir) / "slides", Path(app.doctreedir).parent
    target.mkdir(exist_ok=True)
    with ZipFile(Path(app.outdir) / "figures.zip", "w", ZIP_DEFLATED) as archive:
        for stem in STEMS:
            chapter = Chapter(stem, built)
            (target / f"{stem}.html").write_text(deck(chapter), encoding="utf-8")
            for name, drawn in chapter.figures.items():
                number = re.sub(r"\D+", "-", drawn.number).strip("-")
                archive.write(drawn.file, f"figures/{number}-{name.removeprefix('fig-')}{drawn.file.suffix}")


def printed(folder: Path) -> list[Path]:
    """Print every deck of a folder twice, without and with the speaker's notes.

    Raises:
        FileNotFoundError: no deck in the folder, or no Chromium on the path.
    """
    decks = sorted(folder.glob("[0-9]*.html"))
    if not decks:
        raise FileNotFoundError(f"built: got {folder}, which has no slides; wanted the folder of make book")
    made = []
    with chromium() as browser:
        for path in decks:
            for query, target in (("print-pdf", path.with_suffix(".pdf")),
                                  ("print-pdf&showNotes=separate-page", path.with_name(f"{path.stem}_notes.pdf"))):  # fmt: skip
                view = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
                view.goto(f"{path.resolve().as_uri()}?{query}")
                view.wait_for_selector("body[data-ready]", timeout=120_000)
                view.wait_for_selector(".pdf-page", state="attached", timeout=120_000)
                beside = target.with_suffix(".part")
                view.pdf(path=beside, prefer_css_page_size=True, print_background=True)
                beside.replace(target)
                view.close()
                made.append(target)
    return made


def main() -> int:
    """Print the decks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("built", type=Path, help="the folder _build")
    args = parser.parse_args()
    try:
        made = printed(args.built / "html/slides")
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(made)} PDFs in {args.built / 'html/slides'}")
    return 0


def setup(app) -> dict:
    """Register the extension."""
    app.connect("build-finished", build)
    return {"version": "1", "parallel_read_safe": True}


if __name__ == "__main__":
    sys.exit(main())
