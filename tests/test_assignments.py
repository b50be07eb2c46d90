"""nbgrader: the whole cycle by its own commands, and what a half-right submission gets."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import assignments  # noqa: E402
from grading.submissions import exercises  # noqa: E402

SHEETS = sorted(path.stem for path in (ROOT / "exercises").glob("[0-9]*.ipynb"))
SHEET = "01_one_sgd_step"


@pytest.mark.parametrize("sheet", SHEETS)
def test_every_exercise_has_an_answer_a_check_and_points(sheet):
    made = assignments.source(sheet, {exercises(ROOT / f"exercises/{sheet}.ipynb")[0].check: 3.0})
    about = [(cell.metadata["nbgrader"], cell) for cell in made.cells if "nbgrader" in cell.metadata]
    names = [exercise.check for exercise in exercises(ROOT / f"exercises/{sheet}.ipynb")]
    assert [a["grade_id"] for a, _ in about if a["solution"]] == [f"answer-{name}" for name in names]
    checks = [(a, cell) for a, cell in about if a["grade"]]
    assert [a["grade_id"] for a, _ in checks] == [f"check-{name}" for name in names]
    assert [a["points"] for a, _ in checks] == [3.0] + [1.0] * (len(names) - 1)
    assert all(a["locked"] and cell.source.endswith("outcome.demand()") and cell.source.count("\n") == 2 for a, cell in checks)
    assert all(cell.source.count("### BEGIN SOLUTION") == 1 and "checks" not in cell.source for a, cell in about if a["solution"])
    assert [a["points"] for a, _ in about if a["task"]] == [assignments.SENTENCES]
    text = "\n".join(cell.source for cell in made.cells)
    assert "**Discussion**" not in text
    assert "colab-badge" not in text  # it would open the course's sheet, and not this one
    assert "markers" not in text  # nbgrader takes them out


def nbgrader(folder, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments], cwd=folder, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_whole_cycle(tmp_path):
    course, student, exchange = (tmp_path / name for name in ("course", "student", "exchange"))
    assignments.write(course, {"1.1": 2.0})
    for folder in (student, exchange):
        folder.mkdir()
    exchange.chmod(0o777)
    config = (course / "nbgrader_config.py").read_text() + f'c.Exchange.root = "{exchange}"\n'
    for folder in (course, student):
        (folder / "nbgrader_config.py").write_text(config)
    nbgrader(course, "generate_assignment", SHEET)
    nbgrader(course, "release_assignment", SHEET)
    nbgrader(student, "fetch_assignment", SHEET)
    path = student / SHEET / f"{SHEET}.ipynb"
    released = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in released.cells)
    assert "BEGIN SOLUTION" not in text and "MARK SCHEME" not in text and "torch.outer(q" not in text

    # the first is right, the second wrong, the third never ends, the fourth's check is taken away, the rest is left as it is
    solved = {
        c.metadata["nbgrader"]["grade_id"]: c.source for c in assignments.source(SHEET, {}).cells if "nbgrader" in c.metadata
    }
    first, second, third, fourth = (exercise.check for exercise in exercises(ROOT / f"exercises/{SHEET}.ipynb")[:4])
    for cell in released.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        if name in (f"answer-{first}", f"answer-{fourth}"):
            cell.source = solved[name]
        elif name == f"answer-{second}":
            cell.source = f"def {second}(eta, q_o, K_ou, error_u):\n    return K_ou @ error_u"
        elif name == f"answer-{third}":
            cell.source = "while True:\n    pass"
        elif name == f"check-{fourth}":
            cell.source = "print('✓ 1.4 Right.')"
    nbformat.write(released, path)

    nbgrader(student, "submit", SHEET)
    nbgrader(course, "collect", SHEET)
    (who,) = (path.name for path in (course / "submitted").iterdir())
    said = nbgrader(course, "autograde", SHEET, "--ExecutePreprocessor.timeout=20")
    assert "not recognized" not in said and "cannot be converted" not in said
    nbgrader(course, "generate_feedback", SHEET)
    nbgrader(course, "export")
    (row,) = csv.DictReader((course / "grades.csv").open())
    assert (row["student_id"], float(row["max_score"])) == (who, 2 + 6 + assignments.SENTENCES)
    assert float(row["score"]) == 2 + 1  # the first, worth two, and the fourth, whose check is put back
    page = (course / "feedback" / who / SHEET / f"{SHEET}.html").read_text()
    assert "1.2" in page and "AssertionError" in page
    assert page.count("Not answered yet") >= 3  # a stub that raises is no wrong answer
