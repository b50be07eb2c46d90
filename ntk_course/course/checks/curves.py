"""What a laboratory's curve holds: numbers that must be the one that was measured, or one of ours."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Held:
    """A number that a curve holds, and that must be the one that was measured, or one of ours.

    Attributes:
        words: what it is, of the curve.
        of: from the curve (x, y) to the number.
        within: how far the two may be apart.
        wanted: our number; None for the reader's own `measured`.
    """

    words: str
    of: Callable[[np.ndarray, np.ndarray], float]
    within: float
    wanted: float | None = None

    def fault(self, x: np.ndarray, y: np.ndarray, measured: float) -> str:
        """Say that the curve holds another number, or nothing."""
        found, wanted = self.of(x, y), measured if self.wanted is None else self.wanted
        if math.isnan(found):
            return f"Of your curve {self.words} is missing: x and y in this order?"
        if abs(found - wanted) <= self.within:
            return ""
        beside = f"`measured` is {wanted:.3g}" if self.wanted is None else f"ours is {wanted:.3g}"
        return (
            f"Of your curve {self.words} is {found:.3g}, and {beside}: do both come from one experiment, x and y in this order?"
        )


def mean_of(words: str, within: float) -> Held:
    """Hold the mean of the ordinates to the number, where the curve has the repetitions."""
    return Held(f"the mean of the ordinates ({words})", lambda x, y: float(y.mean()), within)


def power_of(within: float, times: float = 1.0, less: float = 0.0) -> Held:
    """Hold the slope on logarithmic axes (or ``less + times`` it) to the number."""
    words = "the slope on logarithmic axes" if times == 1 and not less else f"{less:g} less the slope on logarithmic axes"

    def power(x: np.ndarray, y: np.ndarray) -> float:
        return less + times * float(np.polyfit(np.log(x), np.log(y), 1)[0]) if len(set(x)) > 1 else math.nan

    return Held(words, power, within)


def value_at(place: float, within: float) -> Held:
    """Hold the ordinate at one abscissa to the number."""

    def value(x: np.ndarray, y: np.ndarray) -> float:
        near = np.abs(x - place).argmin()
        return float(y[near]) if abs(x[near] - place) <= 0.1 * abs(place) else math.nan

    return Held(f"the value at {place:g}", value, within)


def crossing_of(level: float, within: float) -> Held:
    """Hold the abscissa at which a falling curve crosses a level, on logarithmic axes, to the number."""

    def crossing(x: np.ndarray, y: np.ndarray) -> float:
        order = np.argsort(y)
        return float(np.exp(np.interp(np.log(level), np.log(y)[order], np.log(x)[order])))

    return Held(f"the abscissa at which it crosses {level:g}", crossing, within)


def first_value(within: float, wanted: float) -> Held:
    """Hold the ordinate at the smallest abscissa to ours."""
    return Held("the first ordinate", lambda x, y: float(y[x.argmin()]), within, wanted)


def last_value(within: float, wanted: float) -> Held:
    """Hold the ordinate at the largest abscissa to ours."""
    return Held("the last ordinate", lambda x, y: float(y[x.argmax()]), within, wanted)


def rise_of(within: float) -> Held:
    """Hold the last ordinate less the first to the number."""
    return Held("the last ordinate less the first", lambda x, y: float(y[x.argmax()] - y[x.argmin()]), within)


def fall_of(within: float, wanted: float) -> Held:
    """Hold the first ordinate less the last to ours, so that a curve which is flat or rises is seen."""
    words = "what it falls by, from the smallest abscissa to the largest,"
    return Held(words, lambda x, y: float(y[x.argmin()] - y[x.argmax()]), within, wanted)


def lowest_value(within: float) -> Held:
    """Hold the lowest ordinate to the number."""
    return Held("the lowest ordinate", lambda x, y: float(y.min()), within)


def mean_abscissa(words: str, within: float, wanted: float) -> Held:
    """Hold the mean of the abscissae to ours."""
    return Held(f"the mean of the abscissae ({words})", lambda x, y: float(x.mean()), within, wanted)
