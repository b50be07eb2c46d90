"""Progress bars: shown for what takes longer than a moment, and only then."""

import os
from collections.abc import Iterable
from typing import TypeVar

from tqdm.auto import tqdm

Item = TypeVar("Item")
# Seconds of work after which a bar appears that nobody asked for.
_MOMENT = 3.0


def after_a_moment(
    work: Iterable[Item], what: str, total: int | None = None, unit: str = "block", shown: bool = True
) -> Iterable[Item]:
    """Go through work, with a bar once it has taken a few seconds; on pages that are built to be read (NTK_COURSE_STATIC) without.

    Example:
        >>> sum(after_a_moment([1, 2], "adding"))
        3
    """
    if total == 1:  # nothing is left to wait for once the first is done
        return work
    return tqdm(work, what, total=total, unit=unit, delay=_MOMENT, disable=not shown or bool(os.environ.get("NTK_COURSE_STATIC")))
