"""Run submitted exercise notebooks and list what their checks say.

    python tools/grade.py submitted/*.ipynb [--csv grades.csv]

Each notebook runs in a kernel of its own, in an empty folder. This runs what students wrote: use a machine where that is
acceptable.
"""

import argparse
import csv
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

CHECK = re.compile(r"^(?:ntk\.)?checks\.(\w+)\(", re.MULTILINE)
STATUS = {"✓": "right", "✗": "wrong", "…": "unanswered"}


def verdicts(notebook: nbformat.NotebookNode) -> list[dict]:
    """Read from a notebook that has run what each check said: exercise, status, message."""
    rows = []
    for cell in notebook.cells:
        for name in CHECK.findall(cell.source) if cell.cell_type == "code" else ():
            said = [text for text in map(_text, cell.outputs) if text[:1] in STATUS]
            failed = next((f"{o.ename}: {o.evalue}" for o in cell.outputs if o.output_type == "error"), "the check did not run")
            status, message = (STATUS[said[-1][0]], said[-1][2:]) if said else ("wrong", failed)
            rows.append({"exercise": name, "status": status, "message": message})
    return rows


def _text(output: nbformat.NotebookNode) -> str:
    return (output.get("text") or output.get("data", {}).get("text/plain") or "").strip()


def grade(path: Path, timeout: int = 300) -> list[dict]:
    """Run one notebook, going on after errors, and return its verdicts; what did not run counts as wrong."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.update({"outputs": [], "execution_count": None} if cell.cell_type == "code" else {})
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=timeout, allow_errors=True, resources={"metadata": {"path": folder}})
        try:
            client.execute()
        except (CellTimeoutError, DeadKernelError) as error:
            print(f"{path.name}: stopped ({type(error).__name__})", file=sys.stderr)
    return [{"notebook": path.stem} | row for row in verdicts(notebook)]


def main() -> int:
    """Print a table, write a CSV file where asked, and return 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    rows = [row for path in args.notebooks for row in grade(path)]
    for row in rows:
        print(f"{row['notebook']:<32} {row['exercise']:<28} {row['status']:<10} {row['message'].splitlines()[0]}")
    right = sum(row["status"] == "right" for row in rows)
    print(f"{right} of {len(rows)} right")
    if args.csv:
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["notebook", "exercise", "status", "message"])
            writer.writeheader()
            writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
