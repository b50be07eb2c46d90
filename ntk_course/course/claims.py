"""A sentence of the book beside its number: what was measured, and the bounds within which the sentence holds."""

import math
import os

from torch import Tensor

from .tables import number


def claim(words: str, value: float | Tensor, at_least: float | None = None, at_most: float | None = None) -> None:
    """Print a number with the bounds that the text relies on.

    Where the book is built and its notebooks are tested (NTK_COURSE_STRICT is set) a number out of its bounds is an error; in
    a reader's hands, on other data or with another seed, it is said and nothing stops.

    Args:
        words: what the number is.
        value: the number, on any device.
        at_least: below it the text is wrong.
        at_most: above it the text is wrong.

    Raises:
        ValueError: neither bound is given.
        AssertionError: out of bounds, under NTK_COURSE_STRICT.

    Example:
        >>> claim("slope of the remainder", 1.993, 1.9, 2.1)
        slope of the remainder: 1.993 (1.9 to 2.1)
        >>> claim("largest error", 3e-16, at_most=1e-12)
        largest error: 3·10⁻¹⁶ (at most 1·10⁻¹²)
    """
    if at_least is None and at_most is None:
        raise ValueError("at_least, at_most: got neither; wanted a bound")
    value = float(value.detach() if isinstance(value, Tensor) else value)
    low, high = (-math.inf if at_least is None else at_least), (math.inf if at_most is None else at_most)
    bounds = f"at least {_short(low)}" if at_most is None else f"at most {_short(high)}"
    if at_least is not None and at_most is not None:
        bounds = f"{_short(low)} to {_short(high)}"
    holds = low <= value <= high
    said = f"{words}: {number(value)} ({bounds}{'' if holds else '; NOT SO HERE'})"
    if not holds and os.environ.get("NTK_COURSE_STRICT"):
        raise AssertionError(said)
    print(said)


def _short(value: float) -> str:
    return f"{value:g}".replace("-", "−") if value == 0 or 1e-4 <= abs(value) < 1e6 else number(value)
