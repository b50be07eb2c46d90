"""What uses of parameters look like in every block, whatever its size: found in a batch of two samples and one of three."""

from collections.abc import Sequence, Set
from typing import NamedTuple

import torch
from torch import Tensor

from . import trial
from .graph import Graph, Key, Use, read
from .routes import reordered
from .rules import Seen


class Kind(NamedTuple):
    """What a use of parameters looks like in every block.

    Attributes:
        operation: its name, such as AddmmBackward0.
        slot: which of its inputs they are.
        names: of the parameters.
        shape: of its output for one sample.
        axis: of the output that grows with the samples.
        inner: whether one sample's entries lie side by side on it.
    """

    operation: str
    slot: int
    names: frozenset[str]
    shape: torch.Size
    axis: int
    inner: bool = True

    def fits(self, use: Use, n: int) -> bool:
        """Say whether a use in a block of n samples is of this kind."""
        if (self.operation, self.slot, self.names) != (use.kind, use.slot, use.names):
            return False
        return use.shape == self.shape[: self.axis] + (n * self.shape[self.axis],) + self.shape[self.axis + 1 :]

    def seen(self, n: int) -> Seen:
        """Return how it sees n samples."""
        return Seen(n, self.axis, self.shape[self.axis], self.inner)


def pairs_of(runs: trial.Runs, names: dict[int, str]) -> tuple[frozenset[Key], list[tuple[Use, Kind]]]:
    """List the uses in the batch of three with their kinds, as far as they are the same for two samples and for three."""
    shared = frozenset.intersection(*(read(z, names).shared for z in (runs.pair, runs.together)))
    uses = [read(z, names, shared).uses for z in (runs.pair, runs.together)]
    patterns = []
    for some in uses:
        of_name: dict[str, list] = {}
        for use in some:
            for name in use.names:
                of_name.setdefault(name, []).append((use.kind, use.slot))
        patterns.append(of_name)
    known = {name for name, pattern in patterns[1].items() if patterns[0].get(name) == pattern}
    uses = [[use for use in some if use.names <= known] for some in uses]
    if len({len(some) for some in uses}) > 1:
        return shared, []
    pairs, odd = [], set()
    for two, three in zip(*uses, strict=True):
        kind = _kind(two, three)
        if kind is None:
            odd |= two.names | three.names
        else:
            pairs.append((three, kind))
    return shared, [(use, kind) for use, kind in pairs if not use.names & odd]


def _kind(two: Use, three: Use) -> Kind | None:
    """Compare a use in a batch of two with the same in a batch of three: one axis grows with the samples."""
    small, large = two.shape, three.shape
    if (two.kind, two.slot, two.names) != (three.kind, three.slot, three.names) or len(small) != len(large):
        return None
    grown = [axis for axis, (n, m) in enumerate(zip(small, large, strict=True)) if n != m]
    if len(grown) != 1 or large[(axis := grown[0])] * 2 != 3 * small[axis] or small[axis] % 2:
        return None
    return Kind(two.kind, two.slot, two.names, small[:axis] + (small[axis] // 2,) + small[axis + 1 :], axis)


def matched(z: Tensor, graph: Graph, kinds: Sequence[Kind], n: int, reorders: bool = False) -> list[tuple[Use, Seen]] | None:
    """Find the uses of some kinds in a batch of n samples; None where they are not the same, or samples change places."""
    names = frozenset[str]().union(*(kind.names for kind in kinds))
    found = [use for use in graph.uses if use.names & names]
    if len(found) != len(kinds) or not all(kind.fits(use, n) for kind, use in zip(kinds, found, strict=True)):
        return None
    uses = [(use, kind.seen(n)) for kind, use in zip(kinds, found, strict=True)]
    return None if (reorders and n > 1 or graph.may_reorder(n)) and reordered(z, uses, n) else uses


def turned(pairs: list[tuple[Use, Kind]], names: Set[str]) -> list[tuple[Use, Kind]]:
    """Take the uses of some parameters for ones whose positions come before the samples, perhaps they do."""
    return [(use, kind._replace(inner=not kind.inner) if kind.names & names else kind) for use, kind in pairs]


def dropped(pairs: list[tuple[Use, Kind]], names: Set[str]) -> list[tuple[Use, Kind]]:
    """Drop parameters, and all that meet the samples together with them, until none is left of them."""
    while together := {name for use, _ in pairs if use.names & names for name in use.names}:
        pairs, names = [(use, kind) for use, kind in pairs if not use.names & together], names | together
    return pairs
