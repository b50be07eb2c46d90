"""Grading: what a submission did to itself costs what it did, no more and no less, and nothing that it wrote earns anything."""

import csv
import os
import shutil
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
from grading.submissions import bound, exercises, files, printable, sheet_of, students  # noqa: E402
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
        lambda s: (
            "import signal\nfor it in (signal.SIGINT, signal.SIGALRM):\n    signal.signal(it, signal.SIG_IGN)\nwhile True:\n    pass\n"
            + s
        ),
        "wrong",
        "could not be interrupted",
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
    "a magic that wants a window": (lambda s: "%matplotlib inline\n" + s, "right", "Right"),
    "half a character": (lambda s: f"def {FIRST}(q):\n    raise ValueError('\\ud83d')", "wrong", "ValueError"),
    "an answer by exec": (lambda s: f"exec({without_checks(s)!r})", "right", "Right"),
    "an answer by import": (
        lambda s: (
            f"from pathlib import Path\nPath('mine.py').write_text({'import torch' + chr(10) + without_checks(s)!r})\nfrom mine import *"
        ),
        "right",
        "Right",
    ),
    "an answer of pandas": (
        lambda s: f"import pandas\n\ndef {FIRST}(q):\n    return pandas.DataFrame((torch.diag(q) - torch.outer(q, q)).numpy())",
        "right",
        "Right",
    ),
    "children out of reach": (
        lambda s: (
            "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import os, time; os.setsid(); time.sleep(321)'])\n"
            + s
        ),
        "right",
        "Right",
    ),
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
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if b"time.sleep(321)" in _bytes(p)]


def _bytes(path):
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


FORGED = """import os, signal, time
from grading import wire
for fd in range(3, 30):
    try:
        wire.write(fd, wire.plain({}))
    except Exception:
        pass
for it in (signal.SIGINT, signal.SIGALRM):
    signal.signal(it, signal.SIG_IGN)
time.sleep(600)
"""


@pytest.mark.slow
def test_who_writes_answers_into_the_pipe_loses_them_and_holds_up_nobody(tmp_path):
    begun = time.monotonic()
    found = graded(
        answered({FIRST: lambda s: FORGED + s, SECOND: lambda s: right(s) + "\n#" + "x" * 200_000}), tmp_path, timeout=3.0
    )
    assert found[FIRST][0] == "wrong" and time.monotonic() - begun < 240


REACHED = """import glob, importlib.util, os, subprocess, sys
found = [p for p in glob.glob({solutions!r}) if os.path.exists(p)]
spec = importlib.util.find_spec("ntk_course")
places = [os.path.join(p, "course/checks/one_step.py") for p in spec.submodule_search_locations]
found += [p for p in places if os.path.exists(p)]
found += [p for p in ({home!r}, {other!r}) if os.path.exists(p)]
try:
    found += ["the network"] * bool(__import__("socket").create_connection(("127.0.0.1", {port}), 2))
except OSError:
    pass
def {first}(q):
    raise ValueError(str(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("bwrap"), reason="no bubblewrap on this machine")
def test_behind_the_wall_there_are_no_answers(tmp_path):
    import socket

    other = saved(answered({}), tmp_path / "another_student.ipynb")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = REACHED.format(
            solutions=str(ROOT / "solutions/*.ipynb"), home=str(Path.home() / ".bashrc"), other=str(other),
            port=server.getsockname()[1], first=FIRST,
        )  # fmt: skip
        found = graded(answered({FIRST: lambda s: code, SECOND: right}), tmp_path)
    assert found[FIRST][1].startswith("Your function raised ValueError: []"), found[FIRST]
    assert found[SECOND][0] == "right"


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
        (["d/Ann Lee_123_assignsubmission_file_/01_a.ipynb", "d/Bo_9_assignsubmission_file_/x-01_a.ipynb"], ["Ann Lee", "Bo"]),
        (["d/Ann Lee_12_assignsubmission_file_01_a.ipynb", "d/Bo_9_assignsubmission_file_01_a.ipynb"], ["Ann Lee", "Bo"]),
        (["in/ann_01_a.ipynb", "in/01_a-bob.ipynb"], ["ann", "bob"]),
        (["in/ann/01_a.ipynb"], ["ann"]),
        (["s/ann/01_a/01_a.ipynb"], ["ann"]),
        (["s/ann/01_a/01_a.ipynb", "s/ann/02_b/02_b.ipynb"], ["ann", "ann"]),
        (["in/ann/Copy of 01_A (2).ipynb", "in/bob/01_a.ipynb"], ["ann", "bob"]),
        (["in/ann/01_a.ipynb", "in/ann/01_a (1).ipynb"], ["ann", "ann"]),
        (
            ["d/Eve_1_assignsubmission_file_/01_a.ipynb", "d/Eve_2_assignsubmission_file_/01_a.ipynb"],
            ["Eve_1_assignsubmission_file_", "Eve_2_assignsubmission_file_"],
        ),
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


def table(tmp_path, *more):
    command = [sys.executable, str(ROOT / "tools/grade.py"), str(tmp_path / "in"), "--csv", str(tmp_path / "grades.csv"), *more]
    done = subprocess.run(command, capture_output=True, text=True)
    rows = list(csv.DictReader((tmp_path / "grades.csv").open())) if (tmp_path / "grades.csv").exists() else []
    return done, rows


@pytest.mark.slow
def test_a_changed_submission_is_graded_again_and_the_last_attempt_counts(tmp_path):
    first = saved(answered({}, EVERY[-1]), tmp_path / f"in/=ann/{EVERY[-1]}.ipynb")
    second = saved(answered({}, EVERY[-1]), tmp_path / f"in/=ann/{EVERY[-1]} (1).ipynb")
    os.utime(first, (1, 1))
    done, rows = table(tmp_path, "--totals", str(tmp_path / "totals.csv"))
    assert done.returncode == 0 and f"{first}: not graded; =ann has a later attempt, {second.name}" in done.stderr
    assert {row["student"] for row in rows} == {"'=ann"} and {row["status"] for row in rows} == {"unanswered"}
    assert (tmp_path / "totals.csv").read_text().split() == ["student,points,of", f"'=ann,0,{len(rows)}"]
    assert "0 submissions to grade, 1 graded before" in table(tmp_path)[0].stderr
    check = exercises(ROOT / f"exercises/{EVERY[-1]}.ipynb")[0].check
    saved(answered({check: right}, EVERY[-1]), second)
    (tmp_path / "grades.csv").write_text((tmp_path / "grades.csv").read_text() + "'=ann,14_o")  # killed while it wrote
    done, rows = table(tmp_path)
    assert [row["status"] for row in rows].count("right") == 1 and len(rows) == len(
        exercises(ROOT / f"exercises/{EVERY[-1]}.ipynb")
    )
    text = (tmp_path / "grades.csv").read_text()
    (tmp_path / "grades.csv").write_text(text + "".join(text.splitlines(keepends=True)[1:]))
    done, _ = table(tmp_path)
    assert done.returncode == 2 and "with two rows for =ann" in done.stderr


def test_accidents_of_files_cost_nobody_else_anything(tmp_path):
    good = saved(answered({}), tmp_path / f"in/ann/{SHEET}.ipynb")
    (tmp_path / "in/bob").mkdir()
    (tmp_path / f"in/bob/{SHEET}.ipynb").symlink_to("/etc/hostname")
    (tmp_path / f"in/carl/{SHEET}.ipynb").mkdir(parents=True)
    os.mkfifo(tmp_path / f"in/{SHEET}.ipynb")
    (tmp_path / f"in/dora/{SHEET.upper()}.ipynb").parent.mkdir()
    (tmp_path / f"in/dora/{SHEET.upper()}.ipynb").write_bytes(b"\xef\xbb\xbf" + good.read_bytes())
    (tmp_path / "in/m\udcfcller").mkdir()
    shutil.copy(good, tmp_path / f"in/m\udcfcller/{SHEET}.ipynb")
    found = files([tmp_path / "in"])
    names = students(found, [SHEET])
    assert sorted(names) == ["ann", "bob", "dora", "m\\udcfcller"]
    for path in found:
        got = verdicts(path, ASKED, 20.0, 8.0) if path.is_symlink() or path.read_bytes()[:1] == b"\xef" else {}
        assert {status for status, _ in got.values()} <= ({"wrong"} if path.is_symlink() else {"unanswered"})


def test_hostile_text_takes_no_time_and_breaks_nothing():
    begun = time.monotonic()
    assert bound("\n" * 200_000 + "f = 1") == {"f"}
    assert "f" in bound("f = " + "-" * 100_000 + "1") and "f" in bound("f = '\ud83d'")
    assert bound("from a import b, c as d\nimport e.g") == {"b", "d", "e"}
    assert time.monotonic() - begun < 20
    assert printable("a\x1b[31m\u202eb\ud83d" + "x" * 30_000).startswith(
        "a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}b\\ud83dx"
    )
    one, two = (pages.write(Path(__import__("tempfile").mkdtemp()), name, []) for name in ("a b", "a_b"))
    assert one.name != two.name


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
