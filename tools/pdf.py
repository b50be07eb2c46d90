"""Print the whole book, or one page of it, as a PDF by a browser.

    python tools/pdf.py _build/singlehtml/whole.html _build/book.pdf

Links inside the book lead inside the PDF, headings make its outline. What is folded on a page opens, but for code.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

OPEN = """for (const it of document.querySelectorAll('details[name]')) it.removeAttribute('name');  // one shuts the others
for (const it of document.querySelectorAll('details:not(.hide)')) if (!it.closest('.cell_input')) it.open = true;
for (const it of document.querySelectorAll('.dropdown.toggle-hidden')) it.classList.remove('toggle-hidden');
for (const it of document.querySelectorAll('.ntk-explorer input, .ntk-opening button, script')) it.remove();
for (const it of document.querySelectorAll('section')) {  // what is made only for the site, as its index, has a heading alone here
  if (it.childElementCount > 1 || !it.firstElementChild?.matches('h1, h2, h3, h4')) continue;
  const names = [it.id, it.previousElementSibling?.id];
  for (const link of document.querySelectorAll('a')) if (names.includes(link.hash.slice(1)) && link.hash) (link.closest('li') ?? link).remove();
  it.remove();
}"""
FOOTER = '<div style="font-size:8px;width:100%;text-align:center"><span class="pageNumber"></span></div>'


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the Chromium of the path, and end it.

    Raises:
        FileNotFoundError: there is none.
    """
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise FileNotFoundError("chromium: found none on the path; wanted one to print with")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


def printed(page: Path, target: Path) -> None:
    """Write a page as a PDF, beside its place first.

    Raises:
        FileNotFoundError: no such page, or no Chromium on the path.
    """
    if not page.is_file():
        raise FileNotFoundError(f"page: got {page}; wanted a built page, see make pdf")
    with chromium() as browser:
        view = browser.new_page(color_scheme="light")
        view.set_default_timeout(600_000)
        view.goto(page.resolve().as_uri(), wait_until="load")
        view.wait_for_function("!window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)")
        view.evaluate(OPEN)
        view.emulate_media(media="print")
        beside = target.with_suffix(".part")
        margin = {"top": "16mm", "bottom": "16mm", "left": "15mm", "right": "15mm"}
        # the header is the browser's own date and title unless it is told otherwise
        furniture = {"display_header_footer": True, "header_template": "<span></span>", "footer_template": FOOTER}
        view.pdf(path=beside, format="A4", scale=0.75, margin=margin, outline=True, tagged=True, **furniture)
        beside.replace(target)


def main() -> int:
    """Print what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    printed(args.page, args.target)
    print(f"wrote {args.target}, {args.target.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
