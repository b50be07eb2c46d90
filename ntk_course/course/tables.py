"""Tables of the book: words over the columns, as many digits as the uncertainty leaves, markup for a page and text for a terminal."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import pandas as pd
from torch import Tensor

from .spoken import spoken

NOTHING = "–"
_HYPHEN, _KEPT = re.compile(r"\b([A-Za-z])-(?=\w)"), "\\1\N{NON-BREAKING HYPHEN}"  # no line ends after the p of a p-value
LONG = 12  # rows from which on a table of a page can be sorted by its columns
LETTERS = 16  # of a cell from which on its column is one of sentences, which may break
WIDE = 7  # columns from which on it is set in smaller letters


@dataclass(frozen=True)
class Spread:
    """A mean with the standard deviation of what it was taken over, written to the digits that the latter leaves.

    Attributes:
        mean: of the values.
        sd: their standard deviation (n - 1); NaN for one value, which is then written alone.
        count: how many values.

    Example:
        >>> Spread.of([0.9312, 0.9401, 0.9346])
        0.935 ± 0.004
        >>> Spread.of([97.98], scale=1)
        97.98
    """

    mean: float
    sd: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float] | Tensor, scale: float = 1.0) -> "Spread":
        """Take mean and deviation of values, each times a scale (100 for per cent); what is missing is left out."""
        v = pd.Series([scale * float(value) for value in values if value is not None], dtype=float).dropna()
        if not len(v):
            raise ValueError("values: got none; wanted at least one number")
        return cls(float(v.mean()), float(v.std()) if len(v) > 1 else math.nan, len(v))

    def __repr__(self) -> str:
        if math.isnan(self.sd):
            return number(self.mean)
        if self.sd == 0:
            return f"{number(self.mean)} ± 0"
        if max(abs(self.mean), self.sd) < 1e-4:
            return f"{number(self.mean, 2)} ± {number(self.sd, 2)}"
        digits = decimals(self.sd)
        return f"{self.mean:,.{digits}f} ± {self.sd:,.{digits}f}".replace("-", "−")


def decimals(sd: float) -> int:
    """Return how many decimals an uncertainty leaves: its first digit, and the second where the first is a one."""
    if sd == 0 or not math.isfinite(sd):
        return 3
    place = math.floor(math.log10(sd))
    first = round(sd / 10**place, 6)
    return max(0, -place + (first < 1.95))


def number(value: float, significant: int = 4, sign: bool = False) -> str:
    """Write a number alone, to four significant digits at most, and no exponent where it can be read without one.

    Args:
        value: what is written; a dash where it is not finite.
        significant: how many digits.
        sign: write a plus before what is positive, as for a difference.

    Example:
        >>> number(1234.56), number(0.0331, 2, sign=True), number(-2e-7)
        ('1,235', '+0.033', '−2·10⁻⁷')
    """
    if not math.isfinite(value):
        return NOTHING
    plus = "+" if sign and value else ""
    if abs(value) < 1e9 and float(value).is_integer():
        return f"{int(value):{plus},}".replace("-", "−")
    place = math.floor(math.log10(abs(value)))
    if place < -4 or place >= 9:
        return f"{value / 10**place:{plus}.2g}·10{str(place).translate(_RAISED)}".replace("-", "−")
    return f"{value:{plus},.{min(_held(value), max(0, significant - 1 - place))}f}".replace("-", "−")


def _held(value: float) -> int:
    """Return how many decimals a number has, so that no digit is invented behind those of one that was rounded."""
    digits = Decimal(repr(float(value))).as_tuple().exponent
    return max(0, -digits) if isinstance(digits, int) else 0


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, repr=False)
class Table:
    """Rows to be read: shown as a table where there is a page, as aligned text where there is a terminal.

    Attributes:
        frame: of what is to be shown; its columns' names are the words over them.
        caption: a sentence over the table.
        digits: decimals of a column of plain floats, where four significant digits of the largest are not what is wanted.

    Example:
        >>> print(Table(pd.DataFrame({"score": ["EL2N"], "accuracy, %": [Spread.of([99.31, 99.28, 99.35])]})))
        score  accuracy, %
        EL2N   99.31 ± 0.04
    """

    frame: pd.DataFrame
    caption: str = ""
    digits: Mapping[str, int] = field(default_factory=dict)

    def _cells(self) -> list[list[str]]:
        columns = []
        for name in self.frame.columns:
            values = list(self.frame[name])
            fixed = self.digits.get(str(name))
            if fixed is None and any(isinstance(v, float) and math.isfinite(v) and v % 1 for v in values):
                fixed = _common(values)
            columns.append([_text(value, fixed) for value in values])
        return [list(row) for row in zip(*columns, strict=True)]

    def _heads(self) -> list[str]:
        return [spoken(str(name)) for name in self.frame.columns]

    def _numeric(self) -> list[bool]:
        return [
            all(isinstance(v, (int, float, Spread)) or v is None or v is pd.NA for v in self.frame[name])
            and not all(isinstance(v, bool) for v in self.frame[name])
            for name in self.frame.columns
        ]

    def __repr__(self) -> str:
        lines = [self._heads(), *self._cells()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        right = self._numeric()
        text = [
            "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join([spoken(self.caption), *text] if self.caption else text)

    def _repr_html_(self) -> str:
        sides = ["right" if numeric else "left" for numeric in self._numeric()]
        cells = self._cells()
        wordy = [max(len(cell) for cell in column) > LETTERS for column in zip(*cells, strict=True)]
        head = "".join(
            f'<th scope="col" style="text-align:{side}">{html.escape(_HYPHEN.sub(_KEPT, name))}</th>'
            for name, side in zip(self._heads(), sides, strict=True)
        )
        body = "".join(
            "<tr>"
            + "".join(
                f'<th scope="row"{_kind(side, words)}>{html.escape(cell)}</th>'
                if i == 0
                else f"<td{_kind(side, words)}>{html.escape(cell)}</td>"
                for i, (cell, side, words) in enumerate(zip(row, sides, wordy, strict=True))
            )
            + "</tr>"
            for row in cells
        )
        caption = f"<caption>{html.escape(spoken(self.caption))}</caption>" if self.caption else ""
        name = html.escape(spoken(self.caption) or f"table: {', '.join(self._heads())}")
        kind = " ntk-long" * (len(self.frame) >= LONG) + " ntk-wide" * (len(sides) >= WIDE)
        box = f'<div class="ntk-table{kind}" role="region" tabindex="0" aria-label="{name}">'  # a wide one is scrolled by keyboard too
        return f"{box}<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def table(rows: pd.DataFrame | Sequence[Mapping], caption: str = "", **digits: int) -> Table:
    """Lay rows out: a data frame, or dicts, whose columns have the names that a reader is to see.

    Floats get as many decimals as the largest of their column needs for four significant digits, a :class:`Spread` its own.

    Args:
        rows: what to show; None and NaN become a dash.
        caption: a sentence over the table.
        **digits: decimals for a column, by its name (``**{"accuracy, %": 1}``).

    Raises:
        ValueError: no rows; digits for a column that is not there.

    Example:
        >>> table([{"kernel": "lpNTK", "per cent redundant": 15.23}, {"kernel": "pNTK", "per cent redundant": 90.8}])
        kernel  per cent redundant
        lpNTK                15.23
        pNTK                 90.80
    """
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows), dtype=object)
    if not len(frame):
        raise ValueError("rows: got none; wanted at least one")
    if unknown := [name for name in digits if name not in frame.columns]:
        raise ValueError(f"digits: got {', '.join(unknown)}; wanted columns among {list(frame.columns)}")
    return Table(frame, caption, digits)


def _kind(side: str, words: bool) -> str:
    return f' style="text-align:{side}"' + ' class="ntk-words"' * words


def _common(values: Sequence) -> int | None:
    """Return decimals for a column: four significant digits of its largest number, if that leaves one of its smallest."""
    sizes = [abs(v) for v in values if isinstance(v, (int, float)) and math.isfinite(v) and v]
    if not sizes or max(sizes) > 1e3 * min(sizes) or max(sizes) < 1e-3:
        return None
    return min(max(map(_held, sizes)), max(0, 3 - math.floor(math.log10(max(sizes)))))


def _text(value, fixed: int | None) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if isinstance(value, float):
        return f"{value:,.{fixed}f}".replace("-", "−") if fixed is not None else number(value)
    return spoken(str(value)) if isinstance(value, str) else str(value)
