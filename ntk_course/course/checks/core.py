"""How an answer is checked: run on test cases, compared with a reference, then with each known mistake."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """What a check found: status is "right", "wrong" or "unanswered"; message is for the reader."""

    status: str
    message: str

    def __repr__(self) -> str:
        return f"{ {'right': '✓', 'wrong': '✗', 'unanswered': '…'}[self.status] } {self.message}"


def compare(answer: Callable, cases: Sequence[tuple], reference: Callable, mistakes: Mapping[str, Callable]) -> Outcome:
    """Run an answer on every case and compare it with the reference, then with each known mistake.

    Args:
        answer: the reader's function; like the others it gets copies of its own, so that it may work in place.
        cases: argument tuples.
        reference: the right function.
        mistakes: hint -> the function that someone would write who makes this mistake.

    Returns:
        An :class:`Outcome`; a wrong answer that agrees with a mistake on every case gets that mistake's hint.
    """
    got = collect(answer, cases)
    if isinstance(got, Outcome):
        return got
    wanted = [_numbers(reference(*_fresh(case))) for case in cases]
    if all(map(_same, got, wanted)):
        return Outcome("right", f"Right, on {len(cases)} test case{'s' if len(cases) > 1 else ''}.")
    for hint, mistake in mistakes.items():
        if all(map(_same, got, [_numbers(mistake(*_fresh(case))) for case in cases])):
            return Outcome("wrong", hint)
    for g, w in zip(got, wanted, strict=True):
        if g.shape != w.shape:
            return Outcome("wrong", f"Your answer has shape {tuple(g.shape)}; wanted {tuple(w.shape)}.")
    worst = max(float((g - w).abs().max()) for g, w in zip(got, wanted, strict=True))
    return Outcome("wrong", f"The shape is right, the numbers are not: the largest difference is {worst:.3g}.")


def collect(answer: Callable, cases: Sequence[tuple]) -> list[Tensor] | Outcome:
    """Run an answer on every case; an :class:`Outcome` instead where it is missing, raises, or returns no numbers."""
    got = []
    for case in cases:
        try:
            value = answer(*_fresh(case))
        except NotImplementedError:
            value = None
        except Exception as error:  # any mistake of the reader's must come back as a sentence, not a traceback
            return Outcome("wrong", f"Your function raised {type(error).__name__}: {error}")
        if value is None or value is ...:
            return Outcome("unanswered", "Not answered yet: replace the `...` with your code and run this cell again.")
        try:
            got.append(_numbers(value))
        except (TypeError, ValueError, RuntimeError):
            return Outcome(
                "wrong", f"Your function returned {type(value).__name__}; wanted numbers (a tensor, an array or a float)."
            )
    return got


def _fresh(case: tuple) -> tuple:
    """Copy a case's arguments, each by itself: an answer may work in place, and that must change nothing for anybody else."""
    return tuple(map(copy.deepcopy, case))


def _numbers(value) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", torch.float64)
    return torch.as_tensor(np.asarray(value, dtype=np.float64))


def _same(a: Tensor, b: Tensor) -> bool:
    # 1e-4: an answer computed in float32 is right; every known mistake is off by far more
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)


def random(*shape: int, seed: int = 0) -> Tensor:
    """Draw a float64 test case."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
