"""How finely a step of a path is integrated: as finely as it takes, seen from the change of the outputs."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .rules import quadrature as rule_of


class Effort(NamedTuple):
    """How finely a step is integrated.

    Attributes:
        rule: of the quadrature.
        nodes: of the rule, or of each piece.
        scan: parts in which kinks are looked for.
        raised: whether more is taken where it is not enough.
    """

    rule: str
    nodes: int
    scan: int
    raised: bool

    @classmethod
    def first(cls, rule: str, nodes: int | str) -> "Effort":
        """Check what was asked for."""
        if nodes == "auto":
            if rule in ("left", "midpoint"):
                raise ValueError(f"nodes: got 'auto' with quadrature={rule!r}; wanted a number: only Gauss nodes reach rounding")
            rule_of(rule, 1)
            return cls(rule, _FEWEST, PARTS, True)
        rule_of(rule, nodes)  # type: ignore[arg-type]
        return cls(rule, int(nodes), PARTS, False)

    def more_nodes(self) -> "Effort":
        """Return the next finer rule."""
        return self._replace(nodes=self.nodes * 3 // 2)

    def more_parts(self) -> "Effort":
        """Return a closer search for kinks."""
        return self._replace(scan=4 * self.scan)


class Left(NamedTuple):
    """What a step leaves out: the largest difference, and how many times what rounding may leave."""

    step: int
    error: float
    excess: float


# Nodes of a step at first, and parts in which its kinks are looked for; and how far both go.
_FEWEST, PARTS, _MOST_NODES, _MOST_PARTS = 4, 8, 64, 512
# Roundings of the outputs, and of what they are summed up from, that may add up; and how many times as much is rounding still,
# where finer nodes leave no less.
_ROUNDINGS, NEARLY = 32, 8


def integrated(
    integrate: Callable[[Effort], tuple[tuple[Tensor, ...], Tensor, float]],
    effort: Effort,
    step: int,
    change: Tensor,
    scale: float,
    departs: float,
) -> tuple[tuple[Tensor, ...], Effort, Left]:
    """Integrate a step, finer and finer until it adds up to the change of the outputs, and say what that took and left."""
    best: tuple[tuple[Tensor, ...], Effort, Left] | None = None
    before = float("inf")
    while True:
        found, moved, summed = integrate(effort)
        error = float((moved - change).abs().max())
        allowed = _ROUNDINGS * torch.finfo(change.dtype).eps * (scale + summed) + departs * summed
        left = Left(step, error, error / allowed if error else 0.0)
        if best is None or error < best[2].error:
            best = (found, effort, left)
        if left.excess <= 1 or not effort.raised or left.excess <= NEARLY and error >= 0.5 * before:
            break
        if error < 0.5 * before and effort.nodes < _MOST_NODES:
            effort = effort.more_nodes()
        elif effort.rule == "piecewise" and effort.scan < _MOST_PARTS:
            effort = effort.more_parts()
        else:
            break
        before = error
    return best
