"""A laboratory's check: a prediction, a measured number with its uncertainty, a curve beside ours, and sentences."""

import base64
import io
import math
from dataclasses import dataclass
from html import escape

import numpy as np
from torch import Tensor

from . import tally
from .core import Outcome
from .curves import Held
from .values import Unreadable, read

FAR = 4.0  # a curve so many times as high or as low as ours is remarked upon, and not refused: a reader's task may differ
POINTS = 10_000  # of a curve: it is drawn
WORDS = 8  # a conclusion shorter than this says nothing that could be marked


@dataclass(frozen=True, repr=False)
class Report(Outcome):
    """What a laboratory's check found, with the reader's curve and ours.

    Attributes:
        picture: a PNG of both, or nothing.
        words: what the picture shows.
    """

    picture: bytes = b""
    words: str = ""

    def _repr_html_(self) -> str:
        text = f"<pre>{escape(repr(self))}</pre>"
        if not self.picture:
            return text
        return f'{text}<img alt="{escape(self.words)}" src="data:image/png;base64,{base64.b64encode(self.picture).decode()}">'


@dataclass(frozen=True, repr=False)
class Laboratory:
    """A laboratory's check, called with what was predicted, measured and concluded.

    Attributes:
        number: of the exercise, "1.7".
        quantity: what is measured, in words.
        low: the least value that is taken for right; the range holds our runs over seeds and what a reader may vary.
        high: the largest.
        ours: what we measured, in words.
        widest: the largest uncertainty that still says something.
        readings: (low, high, hint) for values that a known slip gives.
        x: our curve's abscissae.
        y: our curve's ordinates.
        axes: their labels.
        logs: draw both axes logarithmically.
        rubric: what an instructor looks for in the sentences, with points.
        answers: typical conclusions, with the points that they get.
        least: the smallest uncertainty that can be: below it the unit is another, or nothing was repeated.
        held: numbers that the curve must hold.
    """

    number: str
    quantity: str
    low: float
    high: float
    ours: str
    widest: float
    readings: tuple[tuple[float, float, str], ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    axes: tuple[str, str]
    logs: bool
    rubric: tuple[str, ...]
    answers: tuple[str, ...]
    least: float = 0.0
    held: tuple[Held, ...] = ()

    def __post_init__(self) -> None:
        tally.register(self.number)

    def __repr__(self) -> str:
        return f"<check of laboratory {self.number}: {self.quantity}>"

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        return (
            f"Check laboratory {self.number}: {self.quantity}, with its uncertainty, beside our curve. "
            "Returns a :class:`Report`; a check never raises."
        )

    def __call__(self, predicted, measured, uncertainty, curve, conclusion) -> Report:
        """Check what was predicted, measured (a number and its uncertainty), drawn (x, y) and concluded (sentences)."""
        given = {
            "predicted": predicted,
            "measured": measured,
            "uncertainty": uncertainty,
            "curve": curve,
            "conclusion": conclusion,
        }
        missing = [name for name, value in given.items() if value is None or value is ...]
        if missing:
            return self._report("unanswered", f"Not answered yet: {', '.join(missing)}.")
        numbers = {name: _number(given[name]) for name in ("measured", "uncertainty")}
        for name, number in numbers.items():
            if number is None:
                what = self.quantity if name == "measured" else "the spread or standard error of what was measured"
                return self._report("wrong", f"`{name}` is {_short(given[name])!r}; wanted one finite number, {what}.")
        if not str(predicted).strip():
            return self._report("wrong", "`predicted` is empty: write down what you expect before you run anything.")
        value, spread = numbers["measured"], numbers["uncertainty"]
        assert value is not None and spread is not None
        points = _points(curve)
        if points is None:
            wanted = f"wanted a pair (x, y) of at least three finite numbers each, and at most {POINTS:,}: {self.axes[0]}, and {self.axes[1]}"
            return self._report("wrong", f"`curve`: {wanted}.")
        if self.logs and not (points[0] > 0).all() & (points[1] > 0).all():
            return self._report(
                "wrong", "`curve`: a number is not positive; wanted the values themselves, the axes take the logarithms."
            )
        if not isinstance(conclusion, str) or len(conclusion.split()) < WORDS:
            return self._report(
                "wrong", f"`conclusion` is too short: say in a sentence or two what the number shows, {WORDS} words or more."
            )
        if not spread > 0:
            return self._report(
                "wrong", "An uncertainty is a positive number: repeat the measurement with other seeds and take the spread."
            )
        picture = {"picture": self._drawn(points), "words": self._words()}
        if not self.low <= value <= self.high:
            hints = [hint for low, high, hint in self.readings if low <= value <= high]
            said = " Or: ".join(hints) or f"Wanted a value between {self.low:g} and {self.high:g}."
            return self._report("wrong", f"You measured {value:.4g}; ours: {self.ours}. {said}", **picture)
        if self._exchanged(points):
            return self._report("wrong", f"The axes of your curve are exchanged: x is the {self.axes[0]}.", **picture)
        if not self._meets(points[0]):
            said = f"The abscissae of your curve run from {points[0].min():.3g} to {points[0].max():.3g}, ours"
            said = f"{said} from {min(self.x):.3g} to {max(self.x):.3g}: is x the {self.axes[0]}?"
            return self._report("wrong", said, **picture)
        for each in self.held:
            if fault := each.fault(*points, value):
                return self._report("wrong", fault, **picture)
        if spread < self.least:
            said = f"An uncertainty of {spread:.2g} is smaller than any that we saw: is it in the same unit, and of independent draws?"
            return self._report("wrong", said, **picture)
        if spread > self.widest:
            said = f"A spread of {spread:.4g} is more than we take ({self.widest:g}): does one seed stand apart, and why?"
            return self._report("wrong", said, **picture)
        return self._report(
            "right",
            f"Right: {self.quantity} is {value:.3g} ± {spread:.2g}; ours: {self.ours}. You predicted: {_short(predicted)}. "
            f"{self._apart(points)}Your sentences are for a reader to judge.",
            **picture,
        )

    def _report(self, status: str, message: str, **picture) -> Report:
        tally.remember(self.number, status)
        return Report(status, message, self.number, **picture)

    def _meets(self, x: np.ndarray) -> bool:
        """Say whether half of the abscissae lie in our range, or within three times of it where axes are logarithmic."""
        more = 3.0 if self.logs else 1.0
        low, high = min(self.x) / more, max(self.x) * more
        return bool(((x >= low) & (x <= high)).mean() >= 0.5)

    def _exchanged(self, points: tuple[np.ndarray, np.ndarray]) -> bool:
        """Say whether our abscissae, which the statement gives, stand among the ordinates: a power of one would not tell."""
        ours = np.array(self.x, dtype=float)
        x, y = ((np.abs(given[:, None] - ours) <= 0.01 * np.abs(ours)).any(1).mean() for given in points)
        return bool(self.logs and y > 0.5 > x)

    def _apart(self, points: tuple[np.ndarray, np.ndarray]) -> str:
        """Say so where the curve lies far above or below ours: another quantity can have the same power."""
        x, y = points
        inside = (x >= min(self.x)) & (x <= max(self.x)) & (y > 0)
        if not self.logs or not inside.any():
            return ""
        order = np.argsort(self.x)
        ours = np.interp(np.log(x[inside]), np.log(self.x)[order], np.log(self.y)[order])
        times = float(np.exp(np.median(np.log(y[inside]) - ours)))
        if 1 / FAR < times < FAR:
            return ""
        return f"Your curve lies at {times:.2g} times the height of ours: is it the same quantity, of the same task? "

    def _words(self) -> str:
        return (
            f"Two panels with the same axes, {self.axes[1]} against {self.axes[0]}: your points on the left, ours on the right."
        )

    def _drawn(self, points: tuple[np.ndarray, np.ndarray]) -> bytes:
        from matplotlib.figure import Figure  # a check of numbers should not wait for matplotlib
        from matplotlib.ticker import NullFormatter, ScalarFormatter

        figure = Figure(figsize=(7, 2.8), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for panel, (x, y), title in zip(panels, (points, (self.x, self.y)), ("yours", "ours"), strict=True):
            panel.plot(x, y, "o-")
            if title == "yours":
                panel.plot(self.x, self.y, ":", color="0.5", lw=1, label="ours")
                panel.legend(frameon=False)
            panel.set(title=title, xlabel=self.axes[0])
            if self.logs:
                panel.set(xscale="log", yscale="log")
                panel.xaxis.set_major_formatter(ScalarFormatter())
                panel.xaxis.set_minor_formatter(NullFormatter())
                panel.set_xticks(sorted(self.x)[:: 1 + len(self.x) // 4])
        panels[0].set_ylabel(self.axes[1])
        held = io.BytesIO()
        figure.savefig(held, format="png", dpi=120)
        return held.getvalue()


def _number(value) -> float | None:
    try:
        tensor = read(value)
    except Unreadable:
        return None
    if (
        isinstance(value, (bool, dict))
        or isinstance(tensor, (str, list))
        or tensor.numel() != 1
        or not math.isfinite(float(tensor))
    ):
        return None
    return float(tensor)


def _points(curve) -> tuple[np.ndarray, np.ndarray] | None:
    if not isinstance(curve, (tuple, list, np.ndarray)):
        return None
    if len(curve) != 2 and all(np.size(point) == 2 for point in curve):  # points instead of two rows
        curve = [[point[axis] for point in curve] for axis in (0, 1)]
    if len(curve) != 2:
        return None
    try:
        first, second = (read(part) for part in curve)
    except Unreadable:
        return None
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return None
    x, y = first.double().flatten().numpy(), second.double().flatten().numpy()
    sizes = 3 <= len(x) == len(y) <= POINTS
    return (x, y) if sizes and all(np.isfinite(part).all() and np.abs(part).max() < 1e100 for part in (x, y)) else None


def _short(value) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
