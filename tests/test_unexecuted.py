"""Which notebooks run although the site's build has run their pages: those that changed since, and those with other outputs."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import notebooks  # noqa: E402
import unexecuted  # noqa: E402

PAGE, NOTEBOOK = ROOT / "book/02_computing_the_tangent_kernel.md", ROOT / "book/02_computing_the_tangent_kernel.ipynb"
ALL = [notebook for _, notebook, _ in notebooks.sources()]


def stored_as_run(folder, change=lambda cells: None):
    """Make a cache in which one page was run, with the outputs that its notebook has, but for a change."""
    store = get_cache(folder)
    store.add_nb_to_project(str(PAGE), read_data={"name": "myst_nb_md", "type": "plugin"})
    ran = store.get_project_notebook(str(PAGE)).nb
    wanted = [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if notebooks.CHECKED in c.metadata.get("tags", [])]
    mine = [c for c in ran.cells if notebooks.CHECKED in c.metadata.get("tags", [])]
    assert len(mine) == len(wanted) >= 3
    for cell, other in zip(mine, wanted, strict=True):
        cell.outputs = other.outputs
    change(mine)
    store.cache_notebook_bundle(CacheBundleIn(ran, str(PAGE)), check_validity=False)
    return folder


def test_without_a_cache_every_notebook_runs(tmp_path):
    assert unexecuted.unexecuted(tmp_path / "none") == ALL


def test_a_page_that_ran_with_the_promised_outputs_is_not_run_again(tmp_path):
    found = unexecuted.unexecuted(stored_as_run(tmp_path))
    assert found == [path for path in ALL if path != NOTEBOOK]
    assert any("exercises" in str(path) for path in found)


def test_an_output_that_is_not_the_promised_one_is_run(tmp_path):
    def other(cells):
        cells[1].outputs = [nbformat.v4.new_output("stream", text="something else\n")]

    assert unexecuted.unexecuted(stored_as_run(tmp_path, other)) == ALL


def test_a_cell_that_changed_is_run(tmp_path, monkeypatch):
    cache = stored_as_run(tmp_path)
    store = get_cache(cache)
    read = type(store).get_project_notebook

    def changed(self, uri):
        found = read(self, uri)
        cell = next(c for c in found.nb.cells if "import torch\n" in c.source)
        cell.source = cell.source.replace("import torch\n", "import torch  # changed\n", 1)
        return found

    monkeypatch.setattr(type(store), "get_project_notebook", changed)
    assert unexecuted.unexecuted(cache) == ALL


@pytest.mark.parametrize("name", ["ntk_course/gram/operator.py", "ntk_course/replication/claims.toml"])
def test_a_cache_older_than_the_package_counts_for_nothing(tmp_path, name):
    cache = stored_as_run(tmp_path)
    earlier = (ROOT / name).stat().st_mtime - 10
    os.utime(cache / "global.db", (earlier, earlier))
    assert unexecuted.unexecuted(cache) == ALL
