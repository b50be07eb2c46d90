"""Write the exercises as a course directory of nbgrader: source notebooks whose cells have points, and its configuration.

    python tools/assignments.py dist/assignments
    cd dist/assignments && nbgrader generate_assignment 01_one_sgd_step

Each sheet is an assignment. An exercise is two cells: the answer, with its solution between nbgrader's markers, and its check, which
is locked and raises unless the answer is right. A laboratory's sentences are a task that is marked by hand, with the rubric beside
it. Verdicts come from the kernel that the student's code runs in; where that matters, grade with ``tools/grade.py``.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import nbformat
from edition import ROOT
from grade import points_of
from grading.submissions import Exercise, exercises

import ntk_course as ntk

SENTENCES = 4.0  # points for a laboratory's sentences, as the rubrics have them
_BADGE = re.compile(r"\n*\[!\[Open in Colab\].*\n?")
_CONFIG = '''"""The course for nbgrader, at its version 0.9 and later."""

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "ntk"
c.ExecutePreprocessor.timeout = 600  # seconds for a cell: a laboratory takes one or two minutes
c.ExecutePreprocessor.interrupt_on_timeout = True  # an endless loop costs its cell, and not the rest
c.ClearSolutions.code_stub = {"python": "raise NotImplementedError  # your code here"}
'''


def source(sheet: str, points: Mapping[str, float]) -> nbformat.NotebookNode:
    """Return a sheet as a source notebook of nbgrader.

    Args:
        sheet: a notebook's stem, such as "01_one_sgd_step".
        points: by number or name of an exercise; one point where it says nothing.

    Raises:
        ValueError: a solution without markers, which would be released.
    """
    released = nbformat.read(ROOT / f"exercises/{sheet}.ipynb", as_version=4)
    solved = nbformat.read(ROOT / f"solutions/{sheet}.ipynb", as_version=4)
    asked = {exercise.check: exercise for exercise in exercises(ROOT / f"exercises/{sheet}.ipynb")}
    cells: list[nbformat.NotebookNode] = []
    for cell in released.cells:
        call = re.search(r"^ntk\.checks\.(\w+)\(.*\)$", cell.source, re.MULTILINE)
        name = call[1] if call else ""
        if cell.cell_type == "code" and name in asked:
            assert call is not None
            code = next(c.source for c in solved.cells if c.cell_type == "code" and call[0] in c.source)
            if "### BEGIN SOLUTION" not in code:
                raise ValueError(
                    f"sheet: got {sheet}, whose solution of {name} has no markers; wanted one made by make notebooks"
                )
            cells += _exercise(asked[name], code.partition(call[0])[0].rstrip(), call[0], points)
        elif cell.cell_type == "code":
            cells.append(nbformat.v4.new_code_cell(cell.source))
        else:
            text = _BADGE.sub("\n", cell.source)  # it would open the course's own sheet
            cells.append(
                nbformat.v4.new_markdown_cell(text.replace("between the two markers", "in place of the line that raises"))
            )
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i:02d}"
    return nbformat.v4.new_notebook(cells=cells, metadata=released.metadata)


def _exercise(exercise: Exercise, answer: str, call: str, points: Mapping[str, float]) -> list[nbformat.NotebookNode]:
    """Return the cells of one exercise."""
    worth = points.get(exercise.number, points.get(exercise.check, 1.0))
    made = [
        nbformat.v4.new_code_cell(answer, metadata=_graded(f"answer-{exercise.check}", "code", solution=True)),
        nbformat.v4.new_code_cell(
            f"outcome = {call}\nprint(outcome)\noutcome.demand()",
            metadata=_graded(f"check-{exercise.check}", "code", grade=True, locked=True, points=worth),
        ),
    ]
    rubric = getattr(getattr(ntk.checks, exercise.check), "rubric", ())
    if rubric:
        scheme = "\n".join(f"- {line}" for line in rubric)
        text = (
            f"**Marked by hand, {SENTENCES:g} points**: the sentences in `conclusion`, and that a prediction was there before the run.\n\n"
            f"=== BEGIN MARK SCHEME ===\n{scheme}\n=== END MARK SCHEME ==="
        )
        about = _graded(f"sentences-{exercise.check}", "markdown", task=True, locked=True, points=SENTENCES)
        made.append(nbformat.v4.new_markdown_cell(text, metadata=about))
    return made


def _graded(name: str, kind: str, **what) -> dict:
    """Return what nbgrader wants to know of a cell."""
    about = {"grade": False, "solution": False, "locked": False, "task": False, "schema_version": 3, "cell_type": kind}
    return {"nbgrader": about | {"grade_id": name} | what}


def write(target: Path, points: Mapping[str, float]) -> list[Path]:
    """Write the course directory, and return its source notebooks; a configuration that is there is kept."""
    target.mkdir(parents=True, exist_ok=True)
    config = target / "nbgrader_config.py"
    if not config.exists():
        config.write_text(_CONFIG, encoding="utf-8")
    written = []
    for sheet in sorted(path.stem for path in (ROOT / "exercises").glob("[0-9]*.ipynb")):
        path = target / "source" / sheet / f"{sheet}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".part")
        nbformat.write(source(sheet, points), beside)
        beside.replace(path)
        written.append(path)
    return written


def main() -> int:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, help="the course directory")
    parser.add_argument("--points", type=Path, help="a file with lines exercise,points; one point each otherwise")
    args = parser.parse_args()
    try:
        written = write(args.target, points_of(args.points))
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(written)} assignments in {args.target}/source")
    return 0


if __name__ == "__main__":
    sys.exit(main())
