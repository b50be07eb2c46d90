"""How far a reader is: the last outcome of every exercise that was checked since the kernel was started."""

from dataclasses import dataclass

_NUMBERS: set[str] = set()
_LAST: dict[str, str] = {}  # number -> status


def register(number: str) -> None:
    """Count an exercise among those of its chapter."""
    _NUMBERS.add(number)


def remember(number: str, status: str) -> None:
    """Keep what the last check of an exercise found."""
    _LAST[number] = status


@dataclass(frozen=True)
class Summary:
    """Where a reader stands in a chapter's exercises, shown by its repr.

    Attributes:
        chapter: its number.
        right: numbers of the exercises whose last check was right.
        wrong: of those whose last check was wrong.
        open: of those not answered, or not checked yet.
    """

    chapter: int
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    open: tuple[str, ...]

    def __repr__(self) -> str:
        count = len(self.right) + len(self.wrong) + len(self.open)
        rest = [f"{len(some)} {word} ({', '.join(some)})" for word, some in (("wrong", self.wrong), ("open", self.open)) if some]
        return f"Chapter {self.chapter}: " + ", ".join([f"{len(self.right)} of {count} right", *rest])


def summary(chapter: int) -> Summary:
    """Sum up a chapter's exercises, by the last check of each since the kernel was started.

    Args:
        chapter: its number.

    Raises:
        ValueError: no exercise of that chapter.

    Example:
        >>> summary(3).chapter
        3
    """
    numbers = sorted((n for n in _NUMBERS if n.partition(".")[0] == str(chapter)), key=lambda n: int(n.partition(".")[2]))
    if not numbers:
        chapters = sorted({int(n.partition(".")[0]) for n in _NUMBERS})
        raise ValueError(f"chapter: got {chapter!r}; wanted one of {', '.join(map(str, chapters))}")
    said = {n: _LAST.get(n, "unanswered") for n in numbers}
    return Summary(chapter, *(tuple(n for n in numbers if said[n] == status) for status in ("right", "wrong", "unanswered")))
