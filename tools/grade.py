"""Grade submitted exercise notebooks: what is asked comes from the released ones, verdicts from a process that submissions cannot reach.

    python tools/grade.py submitted/                        a table
    python tools/grade.py submitted/ --csv grades.csv --pages feedback/ --jobs 4

A folder may be laid out by student, as nbgrader or Moodle does it, or hold files with names in them. Every exercise of the released
sheet counts, handed in or not. Checks in a submission are put back: what a student deleted, changed or printed there earns nothing.
A cell that fails, runs for ever or ends its process costs what it defined and nothing else. The CSV file grows student by student,
and a second call with the same file goes on where the first one stopped; a submission that has changed since is graded again. Of several
attempts at a sheet the last one counts, by the time of the file.
"""

import argparse
import csv
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from multiprocessing import get_context
from pathlib import Path

from grading.pages import MARKS, write
from grading.sandbox import walls
from grading.submissions import Exercise, digest, files, printable, released, sheet_of, students
from grading.verdicts import UNREADABLE, Row, verdicts

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = [field.name for field in fields(Row)]


def points_of(path: Path | None) -> dict[str, float]:
    """Read points by exercise, from lines "exercise,points" with its number or its function's name.

    Raises:
        ValueError: a line that is not of this form.
    """
    table: dict[str, float] = {}
    for number, row in enumerate(csv.reader(path.open(encoding="utf-8")) if path else (), start=1):
        if not row or (number == 1 and row[-1].strip() == "points"):
            continue
        try:
            name, value = row
            table[name.strip()] = float(value)
        except ValueError:
            raise ValueError(f"points: got {','.join(row)!r} in line {number} of {path}; wanted exercise,points") from None
    return table


def graded(
    path: Path, student: str, sheet: str, exercises: Sequence[Exercise], points: dict, timeout: float, memory: float
) -> list[Row]:
    """Grade one file: a row for each exercise of its sheet."""
    try:
        found = verdicts(path, exercises, timeout, memory)
    except Exception as error:  # one file must never cost the class its grades
        found = {
            e.check: ("wrong", f"grading failed here, have a look at the file ({type(error).__name__}: {error})")
            for e in exercises
        }
    rows = []
    for e in exercises:
        status, message = found[e.check]
        of = points.get(e.number, points.get(e.check, 1.0))
        earned = of if status == "right" else 0.0
        rows.append(Row(student, sheet, e.check, e.number, status, printable(message), earned, of, digest(path)))
    return rows


def _graded(task: tuple) -> list[Row]:
    return graded(*task)


def grade(
    given: Sequence[Path],
    release: Path = ROOT / "exercises",
    points: dict[str, float] | None = None,
    timeout: float = 60.0,
    memory: float = 8.0,
    jobs: int = 1,
    done: Iterable[tuple[str, str, str]] = (),
) -> Iterable[list[Row]]:
    """Yield the rows of each submission as it is finished; of a student's attempts at a sheet the last one counts.

    Args:
        given: files, and folders of files.
        release: folder of the released notebooks.
        points: by number or name of an exercise; one point where it says nothing.
        timeout: seconds for a cell, and for a call of an answer.
        memory: GiB for a submission.
        jobs: submissions at a time.
        done: (student, sheet, digest) that are not to be graded again.
    """
    sheets, skip = released(release), set(done)
    known = {name for asked in sheets.values() for e in asked for name in (e.number, e.check)}
    if odd := [name for name in points or {} if name not in known]:
        raise ValueError(f"points: got {', '.join(odd)}; wanted numbers or names of exercises in {release}")
    paths = files(given)
    attempts: dict[tuple[str, str], list[Path]] = {}
    for path, student in zip(paths, students(paths, list(sheets)), strict=True):
        sheet = sheet_of(path, list(sheets))
        if sheet:
            attempts.setdefault((student, sheet), []).append(path)
        else:
            print(f"{path}: no released notebook has this name; wanted one of {', '.join(sheets)} in it", file=sys.stderr)
    tasks = []
    for (student, sheet), tried in attempts.items():
        *earlier, path = sorted(tried, key=lambda path: (path.lstat().st_mtime, path.name))
        for other in earlier:
            print(f"{other}: not graded; {student} has a later attempt, {path.name}", file=sys.stderr)
        if (student, sheet, digest(path)) not in skip:
            tasks.append((path, student, sheet, sheets[sheet], points or {}, timeout, memory))
    print(f"{len(tasks)} submissions to grade, {len(attempts) - len(tasks)} graded before", file=sys.stderr)
    if jobs == 1:
        yield from (graded(*task) for task in tasks)
        return
    with get_context("spawn").Pool(jobs, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.imap_unordered(_graded, tasks)  # left early, by Ctrl-C, the pool ends its processes


def main() -> int:
    """Grade what the command line names; 0 if every file could be matched to a sheet and graded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("submissions", nargs="+", type=Path, help="notebooks, and folders of them")
    parser.add_argument("--release", type=Path, default=ROOT / "exercises", help="folder of the released notebooks")
    parser.add_argument("--csv", type=Path, help="grows by one submission at a time; those in it are not graded again")
    parser.add_argument("--totals", type=Path, help="a CSV file with a line for each student: points, and of how many")
    parser.add_argument("--pages", type=Path, help="folder for a page of feedback for each student")
    parser.add_argument("--points", type=Path, help="a file with lines exercise,points; one point each otherwise")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for a cell, and for a call of an answer")
    parser.add_argument("--memory", type=float, default=8.0, help="GiB for a submission")
    parser.add_argument("--jobs", type=int, default=1, help="submissions at a time")
    args = parser.parse_args()
    print(walls(), file=sys.stderr)
    stopped = False
    try:
        rows = _whole(_read(args.csv), released(args.release)) if args.csv and args.csv.exists() else []
        found = grade(args.submissions, args.release, points_of(args.points), args.timeout, args.memory, args.jobs,
                      [(row.student, row.sheet, row.digest) for row in rows])  # fmt: skip
        for count, some in enumerate(found, start=1):
            again = {(row.student, row.sheet) for row in some}
            changed = [row for row in rows if (row.student, row.sheet) in again]
            rows = [row for row in rows if row not in changed] + some
            for row in some:
                first = row.message.partition("\n")[0]
                print(f"{row.student:<24} {row.number:<5} {row.exercise:<28} {MARKS[row.status]:<13} {first}", flush=True)
            print(f"{count} done", file=sys.stderr)
            if args.csv and (changed or (count == 1 and args.csv.exists())):
                _write(args.csv, rows)
            elif args.csv:
                _append(args.csv, some)
    except KeyboardInterrupt:
        print(
            "\nstopped; " + ("the same command goes on from here" if args.csv else "with --csv it could go on"), file=sys.stderr
        )
        stopped = True
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if args.csv and args.csv.exists() and _read(args.csv) != rows:
        print(f"{args.csv}: changed while this ran, by something else; written anew with what was graded", file=sys.stderr)
        _write(args.csv, rows)
    totals = []
    for student in sorted(dict.fromkeys(row.student for row in rows)):
        mine = [row for row in rows if row.student == student]
        totals.append((student, sum(row.points for row in mine), sum(row.of for row in mine)))
        print(f"{student}: {totals[-1][1]:g} of {totals[-1][2]:g} points")
        if args.pages:
            write(args.pages, student, mine)
    for row in {(row.student, row.sheet): row for row in rows if row.message.startswith(UNREADABLE)}.values():
        print(f"{row.student}, {row.sheet}: {row.message}", file=sys.stderr)
    if args.totals:
        _table(args.totals, ("student", "points", "of"), [(_safe(name), f"{got:g}", f"{of:g}") for name, got, of in totals])
    stems = list(released(args.release))
    return 130 if stopped else 1 if any(not sheet_of(path, stems) for path in files(args.submissions)) else 0


def _safe(text: str) -> str:
    """Keep a spreadsheet from taking a name or a message for a formula."""
    return f"'{text}" if text[:1] in tuple("=+-@\t\r'") else text


def _told(row: Row) -> list:
    return [_safe(value) if isinstance(value, str) else value for value in asdict(row).values()]


def _read(path: Path) -> list[Row]:
    """Read the rows of an earlier call.

    Raises:
        ValueError: the file is none of ours, or has an exercise of a submission twice.
    """
    csv.field_size_limit(2**31 - 1)
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != COLUMNS:
            raise ValueError(
                f"csv: got {path} with the columns {reader.fieldnames}; wanted {COLUMNS}, or a name that is not taken"
            )
        # the last row may be half of one, where a run was killed while it wrote
        plain = [
            {k: v.removeprefix("'") for k, v in row.items()} for row in reader if all(isinstance(v, str) for v in row.values())
        ]
    rows = [Row(**{**row, "points": float(row["points"]), "of": float(row["of"])}) for row in plain]  # type: ignore[arg-type]
    seen = [(row.student, row.sheet, row.exercise) for row in rows]
    if len(set(seen)) < len(seen):
        twice = next(key for key in seen if seen.count(key) > 1)
        raise ValueError(f"csv: got {path} with two rows for {', '.join(twice)}; wanted one: something else has written to it")
    return rows


def _whole(rows: Sequence[Row], sheets: dict[str, list[Exercise]]) -> list[Row]:
    """Keep the submissions that have a row for each exercise; a run that was killed may have left less of the last one."""
    count = Counter((row.student, row.sheet) for row in rows)
    return [row for row in rows if count[row.student, row.sheet] == len(sheets.get(row.sheet, ()))]


def _write(path: Path, rows: Sequence[Row]) -> None:
    """Write a CSV file anew, beside its place first."""
    _table(path, COLUMNS, map(_told, rows))


def _table(path: Path, head: Sequence[str], lines: Iterable[Sequence]) -> None:
    beside = path.with_name(f"{path.name}.part")
    with beside.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *lines])
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _append(path: Path, rows: Sequence[Row]) -> None:
    """Add rows to a CSV file, with a head if it is new, and leave them on the disk."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(([COLUMNS] if new else []) + [_told(row) for row in rows])
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    sys.exit(main())
