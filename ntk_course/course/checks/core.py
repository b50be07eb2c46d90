"""How an answer is checked: on cases drawn anew, beside a reference; a mistake is named, or shown on a case small enough to follow by hand."""

import copy
import linecache
import secrets
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from inspect import signature

import numpy as np
from torch import Tensor
from torch.nn import Module

from . import tally
from .draws import Draw
from .values import NEAR, Unreadable, difference, first_difference, read, same, shown


@dataclass(frozen=True)
class Outcome:
    """What a check found, shown by its repr.

    Attributes:
        status: "right", "wrong" or "unanswered".
        message: for the reader.
        number: of the exercise, "3.2".
        case: lines that show the case that failed: its arguments, what came back, and what was wanted.
    """

    status: str
    message: str
    number: str = ""
    case: tuple[str, ...] = ()

    def __repr__(self) -> str:
        mark = {"right": "✓", "wrong": "✗", "unanswered": "…"}[self.status]
        return "\n    ".join([" ".join(filter(None, (mark, self.number, self.message))), *self.case])

    def demand(self) -> None:
        """Raise unless the answer was right: for tools that grade by whether a cell fails.

        Raises:
            AssertionError: the answer was wrong, or there was none; with what the check says.
        """
        if self.status != "right":
            raise AssertionError(f"\n{self!r}")


class Seed:
    """Where the next check's cases come from: drawn anew at each call, or always the same in tests."""

    fixed: int | None = None

    def __call__(self) -> int:
        """Return a new seed, or the fixed one."""
        return secrets.randbits(62) if self.fixed is None else self.fixed


SEED = Seed()


def judged_same(got, wanted, *arguments) -> bool:
    """Take an answer for right if it has the reference's numbers, to the rounding of float32."""
    return same(got, wanted)


@dataclass(frozen=True, repr=False)
class Check:
    """An exercise's check, called with the answer.

    Attributes:
        number: of the exercise, "3.2": chapter and place.
        wants: the answer's signature and what it returns, for the docstring.
        reference: a right answer.
        cases: from a :class:`Draw`, the argument tuples; the first ones are small enough to follow by hand.
        mistakes: hint -> the function that someone would write who makes this mistake.
        use: how an answer is used on a case, if it is not simply called: ``use(answer, *case)``.
        judge: ``judge(got, wanted, *case)``, whether a value is right; or a sentence that says what is wrong with it.
        names: of a case's parts, where they are not the answer's arguments.
    """

    number: str
    wants: str
    reference: Callable
    cases: Callable[[Draw], Iterable[tuple]]
    mistakes: Mapping[str, Callable] = field(default_factory=dict)
    use: Callable | None = None
    judge: Callable = judged_same
    names: str = ""

    def __post_init__(self) -> None:
        tally.register(self.number)

    def __repr__(self) -> str:
        return f"<check of exercise {self.number}: {self.wants}>"

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        return f"Check exercise {self.number}, ``{self.wants}``. Returns an :class:`Outcome`; a check never raises."

    def __call__(self, answer: Callable) -> Outcome:
        """Check an answer."""
        outcome = self._outcome(answer, list(self.cases(Draw(SEED()))))
        tally.remember(self.number, outcome.status)
        return outcome

    def _outcome(self, answer: Callable, cases: Sequence[tuple]) -> Outcome:
        def outcome(status: str, message: str, case: Iterable[str] = ()) -> Outcome:
            return Outcome(status, message, self.number, tuple(case))

        if answer is None or answer is ...:
            return outcome("unanswered", UNANSWERED)
        if not callable(answer):
            return outcome(
                "wrong", f"This is {_article(type(answer).__name__)}; wanted the function itself, without parentheses."
            )
        got = []
        for case in cases:
            try:
                value = self._used(answer, case)
            except Exception as error:  # any mistake of the reader's must come back as a sentence, not a traceback
                if isinstance(error, NotImplementedError) and not str(error):  # a stub, as nbgrader writes it
                    return outcome("unanswered", UNANSWERED)
                return outcome(
                    "wrong",
                    f"Your function raised {type(error).__name__}: {error}{_why(error)}",
                    [*_line(error), *self._arguments(case)],
                )
            if _holds(value, ...):
                return outcome("unanswered", UNANSWERED)
            if _holds(value, None):
                return outcome(
                    "wrong", "Your function returned None: is there a `return` on every way through it?", self._arguments(case)
                )
            try:
                got.append(read(value))
            except Unreadable as problem:
                return outcome("wrong", f"Your function returned {problem}.", self._arguments(case))
        wanted = [read(self._used(self.reference, case)) for case in cases]
        got = [_one_number(g, w) for g, w in zip(got, wanted, strict=True)]
        verdicts = [self._verdict(*each) for each in zip(got, wanted, cases, strict=True)]
        if all(verdict is True for verdict in verdicts):
            return outcome("right", "Right.")
        wrong = [i for i, verdict in enumerate(verdicts) if verdict is not True]
        # what the sentence will be about: another shape, where there is one
        odd = [i for i in wrong if getattr(got[i], "shape", None) != getattr(wanted[i], "shape", None)]
        failed = min(odd or wrong, key=lambda i: (not _has_nan(got[i]), _room(cases[i])))
        order = [failed, *(i for i in range(len(cases)) if i != failed)]  # the case that is shown comes first
        reordered = [got[i] for i in order], [wanted[i] for i in order], [cases[i] for i in order]
        verdict = verdicts[failed]
        said = verdict if isinstance(verdict, str) else _difference(*reordered, self._names())
        where = self._shown(got[failed], wanted[failed], cases[failed], digits=8 if said.startswith(NEAR) else 4)
        for hint, mistake in self.mistakes.items():
            if self._agrees(mistake, got, cases):
                return outcome("wrong", hint, where)
        return outcome("wrong", self._other_arguments(got, cases) or said, where)

    def _used(self, answer: Callable, case: tuple):
        fresh = tuple(map(copy.deepcopy, case))  # an answer may work in place; that must change nothing for anybody else
        return self.use(answer, *fresh) if self.use else answer(*fresh)

    def _verdict(self, got, wanted, case: tuple) -> bool | str:
        try:
            return self.judge(got, wanted, *map(copy.deepcopy, case))
        except Exception:  # a value of another shape, mostly; the comparison that follows says so
            return False

    def _agrees(self, mistake: Callable, got: Sequence, cases: Sequence[tuple]) -> bool:
        with suppress(Exception):  # a mistake need not run on every case
            return all(same(g, read(self._used(mistake, case))) for g, case in zip(got, cases, strict=True))
        return False

    def _other_arguments(self, got: Sequence, cases: Sequence[tuple]) -> str:
        """Find that the answer would be right for other arguments: one written down, one left out, two exchanged."""
        if self.judge is not judged_same:
            return ""
        if len(cases) > 2 and all(same(got[0], each) for each in got[1:]):
            return f"It is {shown(got[0])} in every case: does the answer use what it is given?"
        for i, name in enumerate(self._names()[: len(cases[0])]):
            values = dict.fromkeys(case[i] for case in cases if isinstance(case[i], (int, float)))
            for value in (1, *list(values)[:MANY]) if values else ():
                if self._agrees_on(got, cases, [(*case[:i], type(case[i])(value), *case[i + 1 :]) for case in cases]):
                    there = f"`{name}` does not enter" if value == 1 else f"{shown(value)} is written down where `{name}` belongs"
                    return f"Right if `{name}` were {shown(value)} in every case: {there}."
            for j in range(i + 1, len(cases[0])):
                exchanged = [(*c[:i], c[j], *c[i + 1 : j], c[i], *c[j + 1 :]) for c in cases]
                if self._agrees_on(got, cases, exchanged):
                    return f"`{name}` and `{self._names()[j]}` are exchanged."
        return ""

    def _agrees_on(self, got: Sequence, cases: Sequence[tuple], others: Sequence[tuple]) -> bool:
        """Say whether the answer is the reference on other cases, and these differ from the ones that were asked."""
        with suppress(Exception):  # the reference need not run on them
            read_there = (read(self._used(self.reference, other)) for other in others)
            return all(same(g, r) for g, r in zip(got, read_there, strict=True))
        return False

    def _names(self) -> list[str]:
        inside = self.names or self.wants.partition("(")[2].partition(")")[0] or ", ".join(signature(self.reference).parameters)
        return [name.strip() for name in inside.split(",")]

    def _arguments(self, case: tuple) -> list[str]:
        return [f"{name} = {shown(value)}" for name, value in zip(self._names(), case, strict=False)]

    def _shown(self, got, wanted, case: tuple, digits: int = 4) -> list[str]:
        lines = [*self._arguments(case), f"yours:  {shown(got, digits)}"]
        if self.judge is not judged_same:
            return lines
        return [*lines, f"wanted: {shown(wanted, digits)}", *first_difference(got, wanted)]


MANY = 6  # values of an argument that are tried for one written down
UNANSWERED = "Not answered yet: replace the `...` with your code and run this cell again."


def _holds(value, what) -> bool:
    """Say whether a value is, or a list or dict of values holds, ``...`` or None."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return value is what or any(_holds(part, what) for part in parts)


def _one_number(got, wanted):
    """Take one number in brackets for that number where one is wanted."""
    alone = isinstance(got, Tensor) and isinstance(wanted, Tensor) and wanted.dim() == 0 and got.numel() == 1
    return got.reshape(()) if alone else got


def _has_nan(value) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and bool(value.isnan().any())


def _room(case: Sequence) -> int:
    """Count the numbers in a case: the smallest that fails is the one to follow by hand."""
    return sum(
        part.numel()
        if isinstance(part, Tensor)
        else np.size(part)
        if isinstance(part, np.ndarray)
        else sum(p.numel() for p in part.parameters())
        if isinstance(part, Module)
        else 1
        for part in case
    )


def _article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _difference(got: Sequence, wanted: Sequence, cases: Sequence[tuple], names: Sequence[str]) -> str:
    with suppress(Exception):  # an answer can be stranger than anything foreseen there
        return difference(got, wanted, cases, names)
    return "Wrong. A case:"


def _why(error: BaseException) -> str:
    arc = "math domain error" in str(error) and "acos" in "".join(_line(error))
    return " (rounding can bring a cosine above 1)" if arc else ""


def _line(error: BaseException) -> list[str]:
    """Find the last line of the answer's own file that the error passed through."""
    if line := getattr(error, "answer_line", ""):  # it was raised in another process, which says where
        return [line]
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if "/site-packages/" not in f.filename and "/course/checks/" not in f.filename]
    for frame in reversed(mine):
        code = frame.line or linecache.getline(frame.filename, frame.lineno or 0).strip()
        if code and "/lib/python" not in frame.filename and "/ntk_course/" not in frame.filename:
            return [f"in line {frame.lineno} of the cell: {code}"]
    return []


def vectors_of(got: Tensor) -> Tensor:
    """Return the inner products of rows, for a judge that takes any vectors with the right ones."""
    return got.flatten(1) @ got.flatten(1).T


def judged_by_products(got, wanted, *arguments) -> bool | str:
    """Take any vectors for right whose inner products are the reference's: a rotation or a sign changes nothing."""
    if not isinstance(got, Tensor) or got.dim() < 2 or len(got) != len(wanted):
        return False
    products, asked = vectors_of(got), vectors_of(wanted)
    if same(products, asked):
        return True
    return f"The inner products of your vectors are {shown(products)}; wanted {shown(asked)}."
