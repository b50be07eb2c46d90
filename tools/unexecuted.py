"""Name the notebooks that the site's build has not run as they stand, which `make nbval` therefore has to run.

    python tools/unexecuted.py _build/.jupyter_cache

The build runs every page of the book and of the solutions, with warnings as errors, and keeps what it ran in the cache. A notebook has
its page's cells (`tools/notebooks.py --check`), so it need not run again, if its page is in the cache with the same cells, if the
package and the stored results are older than that, and if the outputs that a notebook promises are those that the page has. Exercises
have no page: theirs always run.
"""

import sys
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from notebooks import CHECKED, ROOT, sources


def promised(cells: list[nbformat.NotebookNode]) -> list[str]:
    """Return the text of each cell's outputs that nbval compares."""
    chosen = [cell for cell in cells if cell.cell_type == "code" and CHECKED in cell.metadata.get("tags", [])]
    return ["".join(out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell.outputs) for cell in chosen]


def stale(database: Path) -> bool:
    """Return whether the package or a stored result has changed since the cache was written."""
    files = [
        *(ROOT / "ntk_course").rglob("*.py"),
        *(ROOT / "ntk_course").rglob("*.toml"),
        *(ROOT / "book/results").rglob("*.json"),
    ]
    return not database.exists() or any(file.stat().st_mtime > database.stat().st_mtime for file in files)


def unexecuted(cache: Path) -> list[Path]:
    """Return the notebooks to run: all of them where there is no cache or it is stale."""
    everything = sources()
    if stale(cache / "global.db"):
        return [notebook for _, notebook, _ in everything]
    store, missing = get_cache(cache), []
    known = {record.uri for record in store.list_project_records()}
    for source, notebook, cleared in everything:
        record = store.get_cached_project_nb(str(source)) if not cleared and str(source) in known else None
        ran = record is not None and promised(store.get_cache_bundle(record.pk).nb.cells) == promised(
            nbformat.read(notebook, as_version=4).cells
        )
        if not ran:
            missing.append(notebook)
    return missing


if __name__ == "__main__":
    print(*(path.relative_to(ROOT) for path in unexecuted(Path(sys.argv[1]).resolve())))
