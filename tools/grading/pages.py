"""One page for each student: every exercise, what became of it, and the case that failed."""

import hashlib
import html
import re
from collections.abc import Iterable
from pathlib import Path

from .verdicts import Row

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1f2430;background:#fff}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.4rem .6rem;border-bottom:1px solid #c9ced8}
pre{margin:0;white-space:pre-wrap;font:0.85em/1.45 ui-monospace,monospace}
@media(prefers-color-scheme:dark){body{color:#e8eaf0;background:#121212}td,th{border-color:#4a5163}}"""
MARKS = {"right": "✓ right", "wrong": "✗ wrong", "unanswered": "… unanswered"}


def page(student: str, rows: Iterable[Row]) -> str:
    """Lay out what one student is told."""
    rows = list(rows)
    earned, of = sum(row.points for row in rows), sum(row.of for row in rows)
    lines = "".join(
        f"<tr><th scope='row'>{html.escape(row.number or row.exercise)}</th><td>{html.escape(row.exercise)}</td>"
        f"<td>{MARKS[row.status]}</td><td>{row.points:g} of {row.of:g}</td><td><pre>{html.escape(row.message)}</pre></td></tr>"
        for row in rows
    )
    head = "".join(f"<th scope='col'>{name}</th>" for name in ("exercise", "function", "", "points", "what the check says"))
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(student)}</title><style>{_STYLE}</style><h1>{html.escape(student)}</h1>"
        f"<p>{earned:g} of {of:g} points.</p><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></html>"
    )


def write(folder: Path, student: str, rows: Iterable[Row]) -> Path:
    """Write a student's page, beside its place first, under a name that any file system takes."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = re.sub(r"[^\w.-]+", "_", student)[:100]
    if plain != student:  # another student's name may come out the same
        plain += f"-{hashlib.sha256(student.encode()).hexdigest()[:8]}"
    target = folder / f"{plain}.html"
    beside = target.with_name(f"{target.name}.part")
    beside.write_text(page(student, rows), encoding="utf-8")
    beside.replace(target)
    return target
