"""Generate the notebooks from their text sources.

    python tools/notebooks.py            write every notebook, running it to store the text that nbval compares
    python tools/notebooks.py --check    say which notebooks are out of step with their source, running nothing

book/NN.md -> book/NN.ipynb; solutions/NN.md -> solutions/NN.ipynb and, with the solutions cut out, exercises/NN.ipynb.
"""

import argparse
import copy
import os
import re
import sys
from pathlib import Path

import jupytext
import nbformat
from edition import archive, colab, pages, repository, tag
from myst_plain import Plain
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
CHECKED, FOLDED = "nbval-check-output", "hide-input"
SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION$", re.DOTALL | re.MULTILINE)


def sources() -> list[tuple[Path, Path, bool]]:
    """List (source, notebook, cleared) for every notebook there must be."""
    pairs = [(p, p.with_suffix(".ipynb"), False) for p in sorted((ROOT / "book").glob("[0-9][0-9]_*.md"))]
    for p in sorted((ROOT / "solutions").glob("[0-9][0-9]_*.md")):
        pairs += [(p, p.with_suffix(".ipynb"), False), (p, ROOT / "exercises" / f"{p.stem}.ipynb", True)]
    return pairs


def generate(source: Path, target: Path, cleared: bool) -> nbformat.NotebookNode:
    """Build a notebook, without outputs, from its source."""
    read = jupytext.reads(source.read_text(), fmt="md:myst")
    plain = Plain(
        chapter=int(source.name[:2]),
        bibliography=ROOT / "book" / "references.bib",
        keep_solutions=not cleared,
        folder=source.parent.name,
        site=pages(repository(ROOT)),
    )
    plain.number_figures(figure(cell).get("name") for cell in read.cells)
    cells = []
    for cell in read.cells:
        if cell.cell_type == "markdown":
            text = plain.render(cell.source)
            if text:
                cells.append(nbformat.v4.new_markdown_cell(text))
            continue
        tags = cell.metadata.get("tags", [])
        if cleared and "solution-only" in tags:
            continue
        text = clear(cell.source) if cleared else cell.source
        # what the site folds, JupyterLab and Colab fold too
        folded = (
            {"cellView": "form", "jupyter": {"source_hidden": True}} if FOLDED in tags and source.parent.name == "book" else {}
        )
        cells.append(nbformat.v4.new_code_cell(text, metadata={"tags": tags} | folded if tags else {}))
        if caption := figure(cell).get("caption"):
            cells.append(nbformat.v4.new_markdown_cell(plain.caption(figure(cell)["name"], caption)))
    if source.parent.name == "solutions":
        count = f"# how far you are, by the last run of each check\nntk.checks.summary({int(source.name[:2])})"
        cells.append(nbformat.v4.new_code_cell(count))
    url, at, where = repository(ROOT), tag(ROOT), target.relative_to(ROOT).as_posix()
    badge = f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab(url, where, at)})"
    title, _, rest = cells[0].source.partition("\n")
    cells[0].source = f"{title}\n\n{badge}\n{rest}".rstrip()
    cells.insert(1, nbformat.v4.new_code_cell(set_up(url, at)))
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i:02d}"
    spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    info = {"accelerator": "GPU", "kernelspec": spec, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=info)


def figure(cell: nbformat.NotebookNode) -> dict:
    """Return the name and the caption of the figure that a cell draws, where it draws one."""
    return cell.metadata.get("mystnb", {}).get("figure", {})


def set_up(url: str, at: str) -> str:
    """Return the first code cell: install the package where it is missing, and nowhere else; stop where that fails."""
    return (
        "# Colab has everything but the course's own package; anywhere it is installed this cell does nothing.\n"
        "import importlib.util\n"
        "import sys\n\n"
        'if importlib.util.find_spec("ntk_course") is None:\n'
        f'    %pip install -q "ntk_course @ {archive(url, at)}"\n'
        "    importlib.invalidate_caches()\n"
        '    if importlib.util.find_spec("ntk_course") is None:\n'
        "        sys.exit(\n"
        f'            "ntk_course could not be installed from {url}, "\n'
        '            "and nothing below runs without it: is there a network?"\n'
        "        )"
    )


def clear(code: str) -> str:
    """Cut the solution out between its markers, which nbgrader knows too; what stays in a function returns ``...``."""

    def stub(found: re.Match) -> str:
        indent = found[1]
        return f"{indent}### BEGIN SOLUTION\n{indent}{'return ' if indent else ''}...  # your code here\n{indent}### END SOLUTION"

    return SOLUTION.sub(stub, code)


def run(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Run a notebook and keep only the text that the checked cells print."""
    done = copy.deepcopy(notebook)
    os.environ["NTK_COURSE_STRICT"] = "1"  # a number outside its claim's bounds is an error
    os.environ["NTK_COURSE_STATIC"] = "1"  # live widgets talk back to the client, which can leave both waiting
    NotebookClient(done, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    done.metadata = copy.deepcopy(notebook.metadata)  # running adds the state of widgets, pictures and all
    for count, cell in enumerate(done.cells, start=1):
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        kept = cell.outputs if CHECKED in cell.metadata.get("tags", []) else []
        texts = [text_only(o, count) for o in kept if o.get("name") == "stdout" or "text/plain" in o.get("data", {})]
        cell.outputs, cell.execution_count = texts, count if texts else None  # nbval takes an uncounted cell for unrun
    return done


def text_only(output: nbformat.NotebookNode, count: int) -> nbformat.NotebookNode:
    """Drop everything but text from one output."""
    if output.output_type == "stream":
        return output
    text = {"text/plain": output.data["text/plain"]}
    return nbformat.v4.new_output("execute_result", data=text, execution_count=count)


def bare(notebook: nbformat.NotebookNode) -> list:
    """Return what must agree with the source: the cells without outputs, and the metadata."""
    return [(c.cell_type, c.source, dict(c.metadata)) for c in notebook.cells] + [dict(notebook.metadata)]


def out_of_step() -> list[str]:
    """Name the notebooks that differ from what their source gives, are missing, or have no source."""
    wanted = {target: generate(source, target, cleared) for source, target, cleared in sources()}
    wrong = [
        str(target.relative_to(ROOT))
        for target, notebook in wanted.items()
        if not target.exists() or bare(nbformat.read(target, as_version=4)) != bare(notebook)
    ]
    found = {p for folder in ("book", "exercises", "solutions") for p in (ROOT / folder).glob("*.ipynb")}
    return wrong + [str(p.relative_to(ROOT)) for p in sorted(found - set(wanted))]


def main() -> int:
    """Write or check the notebooks; return 1 when a check fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("only", nargs="*", help="words: generate the notebooks whose path holds one of them (default: all)")
    args = parser.parse_args()
    if args.check:
        wrong = out_of_step()
        print("\n".join(f"{name}: out of step; run make notebooks" for name in wrong) or "all notebooks are in step")
        return bool(wrong)
    everything = sources()
    where = [str(target.relative_to(ROOT)) for _, target, _ in everything]
    if odd := [word for word in args.only if not any(word in path for path in where)]:
        parser.error(f"only: got {', '.join(odd)}; wanted a part of a notebook's path, such as {where[0]}")
    for (source, target, cleared), path in zip(everything, where, strict=True):
        if args.only and not any(word in path for word in args.only):
            continue
        notebook = run(generate(source, target, cleared), target.parent)
        target.parent.mkdir(exist_ok=True)
        beside = target.with_suffix(".part")
        nbformat.write(notebook, beside)
        beside.replace(target)
        print(f"wrote {target.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
