"""The source of a deck: one slide under each heading, with lines that name what the chapter gives, and notes for the speaker.

    ## Slope two tests every factor
    {figure} fig-slope-two
    - Halve a small rate: the error falls to a quarter.
    Note: The laboratory breaks a factor on purpose.

``{figure} name``, ``{equation} label``, ``{ask} n`` (the n-th question of the chapter) and ``{verdict} item; item`` stand on a line. So does
``{question} words``, a question of the deck's own, where the chapter's speaks of what a deck does not show.
"""

import re
from dataclasses import dataclass

_TAKEN = re.compile(r"^\{(figure|equation|ask|question|verdict)\} (.+)$")


@dataclass(frozen=True)
class Slide:
    """One slide: its heading, its parts ("text" or what is taken, and of what), and the speaker's notes in Markdown."""

    heading: str
    parts: tuple[tuple[str, str], ...]
    notes: str


def slides(text: str) -> list[Slide]:
    """Read a deck; the first slide is the title.

    Raises:
        ValueError: text before the first heading, or a line in braces that is none of those known.
    """
    found = re.split(r"^#{1,2} (.+)\n", text, flags=re.MULTILINE)
    if found[0].strip():
        raise ValueError(f"deck: got {found[0].strip()[:40]!r} before the first heading; wanted # and the chapter's title")
    made = []
    for heading, body in zip(found[1::2], found[2::2], strict=True):
        shown, _, notes = body.partition("\nNote: ")
        made.append(Slide(heading.strip(), tuple(_parts(shown)), notes.strip()))
    return made


def _parts(shown: str):
    lines: list[str] = []
    for line in [*shown.splitlines(), "{}"]:
        if not line.startswith("{"):
            lines.append(line)
            continue
        if text := "\n".join(lines).strip():
            yield "text", text
        lines = []
        taken = _TAKEN.match(line)
        if taken:
            yield taken[1], taken[2].strip()
        elif line != "{}":
            raise ValueError(
                f"deck: got {line!r}; wanted {{figure}}, {{equation}}, {{ask}}, {{question}} or {{verdict}} and what"
            )
