"""Run a submission's cells in the student's process, and check every answer in this one."""

import builtins
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

from . import wire
from .sandbox import Died, Overran, Student
from .submissions import Exercise, bound

UNREADABLE = "the file could not be read"


@dataclass(frozen=True)
class Row:
    """What became of one exercise of one submission.

    Attributes:
        student: whose it is.
        sheet: the released notebook's stem.
        exercise: name of the check.
        number: of the exercise.
        status: "right", "wrong" or "unanswered".
        message: for the student, the failing case with it.
        points: earned.
        of: that could be earned.
        digest: of the file that was graded.
    """

    student: str
    sheet: str
    exercise: str
    number: str
    status: str
    message: str
    points: float
    of: float
    digest: str = ""


class _Answer:
    """What a student's name stands for, called from here and run there."""

    def __init__(self, student: Student, name: str):
        self._student, self.__name__ = student, name

    def __call__(self, *args, **kwargs):
        try:
            said = self._student.ask("call", self.__name__, wire.trusted((args, kwargs)))
        except Died as error:
            raise (TimeoutError if isinstance(error, Overran) else ChildProcessError)(str(error)) from None
        if "error" in said:
            raise _raised(said["error"])
        return said["value"]


def _raised(error: dict) -> Exception:
    """Make an exception of the student's here, of the type it had there, with the line it came from."""
    known = getattr(builtins, str(error.get("type")), None)
    kind = known if isinstance(known, type) and issubclass(known, Exception) else type(str(error.get("type")), (Exception,), {})
    made = kind.__new__(kind, str(error.get("words", "")))
    made.args = (str(error.get("words", "")),)
    made.answer_line = str(error.get("line", ""))  # type: ignore[attr-defined]
    return made


def verdicts(path: Path, exercises: Sequence[Exercise], timeout: float, memory: float) -> dict[str, tuple[str, str]]:
    """Return status and message of each exercise of a sheet, whatever was handed in.

    A cell that fails, runs for ever or ends the process costs what it defined, and nothing else: where the process ended, a new
    one runs the cells before again, and leaves out the one that ended it.
    """
    if path.is_symlink():
        return {exercise.check: ("wrong", f"{UNREADABLE} (it is a link)") for exercise in exercises}
    try:
        cells = [
            cell.source for cell in nbformat.reads(path.read_text("utf-8-sig"), as_version=4).cells if cell.cell_type == "code"
        ]
    except Exception as error:  # any bytes may be in a file that somebody handed in
        words = f"{UNREADABLE} ({type(error).__name__})"
        return {exercise.check: ("wrong", words) for exercise in exercises}
    defines = [bound(source) for source in cells]
    # an exercise is checked when the last cell that defines one of its answers has run
    last = {e.check: max((i for i, names in enumerate(defines) if names & set(e.answers)), default=None) for e in exercises}
    run = _Run(path.stem, cells, timeout, memory)
    found: dict[str, tuple[str, str]] = {}
    try:
        for i in range(len(cells)):
            run.cell(i)
            for exercise in exercises:
                if last[exercise.check] == i:
                    found[exercise.check] = run.check(exercise, i)
        for exercise in exercises:
            if last[exercise.check] is None:  # no cell says so, and a name may still have come by exec, import * or %run
                found[exercise.check] = run.check(exercise, len(cells) - 1)
    finally:
        run.close()
    return found


WHOLE = 15  # times the seconds of a cell are what a whole submission may take


class _Run:
    """A submission's cells in the student's process, one after another, whatever they do to it."""

    def __init__(self, name: str, cells: Sequence[str], timeout: float, memory: float):
        self.cells, self.failed, self.ended = cells, dict[int, str](), set[int]()
        self.folder = tempfile.TemporaryDirectory(prefix=f"{name}-", ignore_cleanup_errors=True)
        self.student = Student(Path(self.folder.name), timeout, memory, WHOLE * timeout)

    def close(self) -> None:
        self.student.close()
        self.folder.cleanup()

    def cell(self, i: int) -> None:
        """Run a cell; where it ends the process, a new one runs those before it again."""
        try:
            said = self.student.ask("cell", self.cells[i])
        except Died as error:
            self.failed[i] = str(error)
            self.ended.add(i)
            self.again(i)
            return
        if "error" in said:
            error = said["error"]
            self.failed[i] = f"{error['type']}: {error['words']}" + f" ({error['line']})" * bool(error["line"])
            if said.get("late"):
                self.ended.add(i)

    def again(self, count: int) -> None:
        """Start the process anew, and run the first ``count`` cells but those that were ended."""
        self.student.start()
        for k in (k for k in range(count) if k not in self.ended):
            try:
                self.student.ask("cell", self.cells[k])
            except Died as error:  # it did not before
                self.failed[k] = str(error)
                self.ended.add(k)
                self.student.start()

    def check(self, exercise: Exercise, i: int) -> tuple[str, str]:
        """Check one exercise by the answers as they are after cell ``i``: its status and a message."""
        import ntk_course as ntk

        answers = []
        for name in exercise.answers:
            try:
                said = self.student.ask("value", name)
            except Died as error:
                self.again(i + 1)
                return "wrong", f"Your answer: {error}."
            if said.get("missing"):
                why = self.failed.get(i)
                return (
                    ("wrong", f"The cell that should define `{name}` failed: {why}.")
                    if why
                    else ("unanswered", f"Nothing in the notebook defines `{name}`.")
                )
            value = said.get("value")
            answers.append(_Answer(self.student, name) if isinstance(value, wire.Odd) and callable(value) else value)
        outcome = getattr(ntk.checks, exercise.check)(*answers)
        if self.student.process is None:  # an answer ended it
            self.again(i + 1)
        return outcome.status, repr(outcome).partition(" ")[2].removeprefix(outcome.number).strip()
