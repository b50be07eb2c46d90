"""Grading: what a submission did to itself costs what it did, no more and no less, and nothing that it wrote earns anything."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import grade  # noqa: E402
from grading import pages, wire  # noqa: E402
from grading.submissions import bound, exercises, files, sheet_of, students  # noqa: E402
from grading.verdicts import verdicts  # noqa: E402

SHEET = "01_one_sgd_step"
ASKED = exercises(ROOT / f"exercises/{SHEET}.ipynb")
EVERY = sorted(p.stem for p in (ROOT / "exercises").glob("*.ipynb"))
FIRST, SECOND, THIRD = (e.check for e in ASKED[:3])


def answered(kinds, sheet=SHEET):
    """Return the released notebook with some answers: the solution's cell, or what a function makes of it."""
    notebook = nbformat.read(ROOT / f"exercises/{sheet}.ipynb", as_version=4)
    solved = nbformat.read(ROOT / f"solutions/{sheet}.ipynb", as_version=4)
    for cell in notebook.cells:
        for check, made in kinds.items():
            if cell.cell_type == "code" and f"checks.{check}(" in cell.source:
                cell.source = made(next(c.source for c in solved.cells if f"checks.{check}(" in c.source))
    return notebook


def right(source):
    return source


def saved(notebook, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def graded(notebook, tmp_path, timeout=20.0):
    found = verdicts(saved(notebook, tmp_path / f"{SHEET}.ipynb"), ASKED, timeout, memory=8.0)
    assert list(found) and set(found) == {e.check for e in ASKED}  # whatever was handed in, every exercise counts
    return found


def without_checks(source):
    return source.partition("ntk.checks.")[0]


# a cell made of the solution's -> the status it has to get, and a word of its message
MADE = {
    "right": (right, "right", "Right"),
    "the check deleted": (without_checks, "right", "Right"),
    "its result kept": (lambda s: s.replace("ntk.checks.", "result = ntk.checks."), "right", "Right"),
    "statements after the check": (lambda s: s + "\nx = 1\nprint(x)", "right", "Right"),
    "a magic before it": (lambda s: "%config Completer.use_jedi = False\n" + s, "right", "Right"),
    "a mark printed": (
        lambda s: f"def {FIRST}(q):\n    return q\n\nntk.checks.{FIRST}({FIRST})\nprint('✓ 1.1 Right.')",
        "wrong",
        "",
    ),
    "the check patched": (
        lambda s: f"def {FIRST}(q):\n    return q\nntk.checks.{FIRST} = lambda answer: '✓ Right.'\nntk.checks.{FIRST}({FIRST})",
        "wrong",
        "",
    ),
    "asking for the reference": (
        lambda s: f"def {FIRST}(q):\n    return ntk.checks.{FIRST}.reference(q)",
        "wrong",
        "",
    ),
    "a syntax error": (lambda s: s.replace("def ", "deff "), "wrong", "SyntaxError"),
    "an error before it": (lambda s: "1 / 0\n" + s, "wrong", "ZeroDivisionError"),
    "an endless loop in the cell": (lambda s: "while True:\n    pass\n" + s, "wrong", "longer than"),
    "an endless loop in the answer": (lambda s: f"def {FIRST}(q):\n    while True:\n        pass", "wrong", "longer than"),
    "one that cannot be interrupted": (
        lambda s: "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n    pass\n" + s,
        "wrong",
        "was ended",
    ),
    "the process killed": (lambda s: "import os\nos._exit(1)\n" + s, "wrong", "process ended"),
    "an answer that kills it": (lambda s: f"def {FIRST}(q):\n    import os\n    os._exit(1)", "wrong", "process ended"),
    "sys.exit in the answer": (lambda s: f"def {FIRST}(q):\n    import sys\n    sys.exit()", "wrong", "SystemExit"),
    "an answer that raises": (
        lambda s: f"def {FIRST}(q):\n    return q.nothing",
        "wrong",
        "in line 2 of the cell: return q.nothing",
    ),
    "an odd value": (lambda s: f"def {FIRST}(q):\n    return open", "wrong", ""),
    "no answer": (lambda s: f"def {FIRST}(q):\n    return ...", "unanswered", "Not answered yet"),
    "the cell deleted": (lambda s: "", "unanswered", "Nothing in the notebook defines"),
    "memory without end": (lambda s: f"def {FIRST}(q):\n    return torch.zeros(10**12)", "wrong", ""),
    "garbage where answers go": (
        lambda s: (
            f"def {FIRST}(q):\n    import os\n    for fd in range(3, 20):\n        try:\n            os.write(fd, b'x' * 64)\n"
            "        except OSError:\n            pass\n    return q"
        ),
        "wrong",
        "",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MADE)
def test_a_submission_costs_its_student_what_it_should(kind, tmp_path):
    """One spoilt answer between right ones: the ones before and after it keep their points."""
    made, status, word = MADE[kind]
    found = graded(answered({FIRST: made, SECOND: right, THIRD: right}), tmp_path, timeout=8.0)
    assert found[FIRST][0] == status, found[FIRST]
    assert word in found[FIRST][1], found[FIRST]
    assert found[SECOND][0] == found[THIRD][0] == "right", found
    assert {found[e.check][0] for e in ASKED[3:]} == {"unanswered"}


@pytest.mark.slow
@pytest.mark.parametrize("sheet", EVERY if os.environ.get("NTK_COURSE_EVERY_NOTEBOOK") else EVERY[:1] + EVERY[9:10])
def test_solutions_earn_everything(sheet):
    asked = exercises(ROOT / f"exercises/{sheet}.ipynb")
    assert [e.number for e in asked] == [f"{int(sheet[:2])}.{i}" for i in range(1, len(asked) + 1)]
    found = verdicts(ROOT / f"solutions/{sheet}.ipynb", asked, timeout=120.0, memory=12.0)
    assert {check: status for check, (status, _) in found.items()} == {e.check: "right" for e in asked}, found


def test_a_file_that_is_no_notebook_costs_its_own_points_only(tmp_path):
    (tmp_path / f"{SHEET}.ipynb").write_bytes(b'{"cells": [')
    found = verdicts(tmp_path / f"{SHEET}.ipynb", ASKED, 5.0, 8.0)
    assert {status for status, _ in found.values()} == {"wrong"} and "could not be read" in found[FIRST][1]


def test_names_come_from_paths():
    for laid_out, names in (
        (["in/ann/01_a.ipynb", "in/bob/01_a.ipynb"], ["ann", "bob"]),
        (["submitted/ann/01_a/01_a.ipynb", "submitted/bob/01_a/01_a.ipynb"], ["ann", "bob"]),  # nbgrader
        (["d/Ann Lee_123_assignsubmission_file_/01_a.ipynb", "d/Bo_9_assignsubmission_file_/x-01_a.ipynb"], ["Ann Lee", "Bo/x"]),
        (["d/Ann Lee_12_assignsubmission_file_01_a.ipynb", "d/Bo_9_assignsubmission_file_01_a.ipynb"], ["Ann Lee", "Bo"]),
        (["in/ann_01_a.ipynb", "in/01_a-bob.ipynb"], ["ann", "bob"]),
        (["in/ann/01_a.ipynb"], ["ann"]),
        (["in/ann/01_a.ipynb", "in/ann/02_b.ipynb"], ["ann", "ann"]),
        (["in/ann/01_a.ipynb", "in/ann/02_b.ipynb", "in/bob/02_b.ipynb"], ["ann", "ann", "bob"]),
    ):
        assert students([Path(p) for p in laid_out], ["01_a", "02_b"]) == names, laid_out
    assert [sheet_of(Path(p), ["01_a", "02_b"]) for p in ("x/01_a.ipynb", "ann_02_b (1).ipynb", "other.ipynb")] == [
        "01_a",
        "02_b",
        "",
    ]


def test_files_are_found(tmp_path):
    for name in ("a/01_a.ipynb", "a/.ipynb_checkpoints/01_a-checkpoint.ipynb", "b/c/02_b.ipynb", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert [p.relative_to(tmp_path).as_posix() for p in files([tmp_path])] == ["a/01_a.ipynb", "b/c/02_b.ipynb"]
    with pytest.raises(FileNotFoundError, match="submissions: got .*nowhere, which is not there"):
        files([tmp_path / "nowhere"])


def test_what_a_cell_defines():
    assert bound("%matplotlib inline\ndef f(x):\n    y = 1\n    return y\n\nz, w = 1, 2") >= {"f", "z", "w"}
    assert bound("def f(x)\n    return 1\ng = 2") >= {"f", "g"}


def test_no_message_of_a_submission_runs_anything_here(tmp_path):
    import io
    import pickle

    import numpy as np
    import torch

    values = {"a": [1, 2.5, "x", None, True, ..., torch.arange(3), np.ones(2), (1, {2}), np.float64(0.5)], 3: 1 + 2j}
    back = wire.unpacked(wire.plain(values))
    assert back[3] == 1 + 2j and back["a"][:6] == [1, 2.5, "x", None, True, ...]
    assert torch.equal(back["a"][6], torch.arange(3)) and back["a"][7].tolist() == [1, 1] and back["a"][8] == (1, {2})
    assert back["a"][9] == 0.5
    assert callable(wire.unpacked(wire.plain(len))) and type(wire.unpacked(wire.plain(object()))).__name__ == "object"

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "it ran"),))

    file = io.BytesIO()
    torch.save([Evil()], file)
    for payload in (pickle.dumps(Evil()), file.getvalue(), b"", b"x" * 100):
        with pytest.raises(wire.Gone):
            wire.unpacked(payload)
        assert not (tmp_path / "it ran").exists()


@pytest.mark.slow
def test_the_command_grows_a_table_and_goes_on(tmp_path):
    for student, kinds in (("ann", {FIRST: right, SECOND: right}), ("bob", {FIRST: without_checks})):
        saved(answered(kinds), tmp_path / "in" / student / f"{SHEET}.ipynb")
    (tmp_path / "in/carl").mkdir()
    (tmp_path / f"in/carl/{SHEET}.ipynb").write_text("no notebook")
    (tmp_path / "points.csv").write_text("exercise,points\n1.1,3\n" + f"{SECOND},2\n")
    command = [sys.executable, str(ROOT / "tools/grade.py"), str(tmp_path / "in"), "--csv", str(tmp_path / "grades.csv"),
               "--pages", str(tmp_path / "pages"), "--points", str(tmp_path / "points.csv"), "--jobs", "2"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bwrap" in done.stderr  # what stands between them and the machine is said
    rows = list(csv.DictReader((tmp_path / "grades.csv").open()))
    assert len(rows) == 3 * len(ASKED)
    total = {name: sum(float(r["points"]) for r in rows if r["student"] == name) for name in ("ann", "bob", "carl")}
    assert total == {"ann": 5.0, "bob": 3.0, "carl": 0.0}
    assert {sum(float(r["of"]) for r in rows if r["student"] == name) for name in total} == {3 + 2 + len(ASKED) - 2}
    assert (
        "5 of" in (tmp_path / "pages/ann.html").read_text() and "could not be read" in (tmp_path / "pages/carl.html").read_text()
    )
    lines = (tmp_path / "grades.csv").read_text().splitlines()
    cut = [line for line in lines if not line.startswith("bob")]
    (tmp_path / "grades.csv").write_text("\n".join(cut) + "\n")
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0 and "ann: 5 of" in again.stdout
    after = list(csv.DictReader((tmp_path / "grades.csv").open()))
    assert [r["student"] for r in after[-len(ASKED) :]] == ["bob"] * len(ASKED) and len(after) == len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupt_ends_it_and_leaves_what_was_done(tmp_path, jobs):
    for student in ("ann", "bob", "carl"):
        made = right if student == "ann" else (lambda source: "import time\ntime.sleep(500)\n" + source)
        saved(answered({FIRST: made}), tmp_path / "in" / student / f"{SHEET}.ipynb")
    command = [sys.executable, str(ROOT / "tools/grade.py"), str(tmp_path / "in"), "--csv", str(tmp_path / "grades.csv"),
               "--pages", str(tmp_path / "pages"), "--jobs", jobs, "--timeout", "400"]  # fmt: skip
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + 200
    while not (tmp_path / "grades.csv").exists() and time.monotonic() < until:
        time.sleep(0.5)
    time.sleep(2)
    os.killpg(running.pid, signal.SIGINT)
    said = running.communicate(timeout=60)[1]
    assert running.returncode == 130 and "the same command goes on from here" in said and "Traceback" not in said
    assert {row["student"] for row in csv.DictReader((tmp_path / "grades.csv").open())} == {"ann"}
    assert (tmp_path / "pages/ann.html").is_file()


def test_mistakes_of_the_command_are_said(tmp_path):
    with pytest.raises(ValueError, match="points: got '1.1' in line 1 of .*; wanted exercise,points"):
        (tmp_path / "p.csv").write_text("1.1\n")
        grade.points_of(tmp_path / "p.csv")
    with pytest.raises(ValueError, match="points: got 1.99; wanted numbers or names of exercises in"):
        list(grade.grade([tmp_path], points={"1.99": 4.0, "1.1": 2.0}))
    with pytest.raises(FileNotFoundError, match="release: got"):
        list(grade.grade([tmp_path], release=tmp_path))


def test_a_page_escapes_what_a_student_wrote():
    row = grade.Row("<b>ann</b>", SHEET, FIRST, "1.1", "wrong", "<script>alert(1)</script>", 0.0, 1.0)
    text = pages.page(row.student, [row])
    assert "<script>" not in text and "&lt;b&gt;ann" in text
