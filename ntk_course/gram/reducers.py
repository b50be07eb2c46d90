"""Reducers: what to keep of a Gram matrix that streams past and is never held.

A reducer is four steps over a state, a dict of tensors on the CPU or the kernel's device: ``begin`` with one, ``fold`` a
block in, ``merge`` two states (of two processes, or of a run and its continuation), ``finish``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from ..basics import validate

if TYPE_CHECKING:
    from .operator import Gram

State = dict[str, Tensor]


class Reducer(Protocol):
    """What :meth:`ntk_course.Gram.reduce` asks of a reducer; anything with these four methods will do.

    A checkpoint is only continued by a reducer of the same class and the same values; one whose values are not plain (numbers,
    text, tensors, arrays and containers of them) has a method ``key()`` that returns a text in their place. One that takes the
    blocks (n, m, R, S) of stacked cotangents says ``stacked = True``.
    """

    def begin(self, gram: "Gram") -> State:
        """Return the state before the first block of a matrix, of which shape, dtype, device and symmetric may be asked."""

    def fold(self, state: State, rows: slice, cols: slice, block: Tensor) -> None:
        """Take a block (n, m) into the state, in place; of a symmetric matrix its transpose comes by itself."""

    def merge(self, one: State, other: State) -> State:
        """Join the states of two disjoint sets of blocks."""

    def finish(self, state: State):
        """Turn the state of all blocks into the result."""


class Partners(NamedTuple):
    """Each sample's most similar other samples.

    Attributes:
        value: the kernel value with it, (N,); (N, k) for the k most similar, the largest first.
        index: which sample it is, as ``value``.
        own: the kernel value of each sample with itself, (N,); NaN between two sides, and where blocks are missing.
    """

    value: Tensor
    index: Tensor  # type: ignore[assignment]  # a tuple has a method of this name
    own: Tensor


@dataclass(frozen=True)
class TopPartners:
    r"""Keep each row's k largest entries :math:`\kappa_{ij}`, of samples against themselves those with :math:`j \ne i`.

    Between test and training samples: which training samples speak most for each test sample. Ties go to
    the lowest index, in whatever order the blocks come.

    Attributes:
        count: k.
        later: look at the columns j > i only; rows with fewer than k of them are filled up with -inf and their own index.
    """

    count: int = 1
    later: bool = False

    def __post_init__(self):
        """Check k."""
        validate.positive(self.count, "count")

    def begin(self, gram: "Gram") -> State:
        """Make room for the partners of every row."""
        n, m = gram.shape
        k, like = self.count, torch.empty(0, dtype=gram.dtype, device=gram.device)
        return {
            "value": like.new_full((n, k), -torch.inf),
            "index": torch.full((n, k), torch.iinfo(torch.int64).max, device=gram.device),
            "own": like.new_full((n,), torch.nan),
            "others": torch.tensor(m - gram.symmetric),
            "symmetric": torch.tensor(gram.symmetric),
        }

    def fold(self, state: State, rows: slice, cols: slice, block: Tensor) -> None:
        """Look at the entries that reach a row's k-th largest so far: after the first few blocks there are next to none."""
        if rows == cols and bool(state["symmetric"]):
            state["own"][rows] = block.diagonal()
            block = block.clone().fill_diagonal_(-torch.inf)
        if self.later and cols.start < rows.stop:
            if cols.stop - 1 <= rows.start:
                return
            block = block.masked_fill(~torch.ones_like(block, dtype=torch.bool).triu(rows.start - cols.start + 1), -torch.inf)
        most, least = block.amax(1), state["value"][rows, -1]
        if not bool((most < torch.inf).all()):  # NaN goes through a maximum
            validate.finite(block, "gram")
        touched = ((most >= least) & (most > -torch.inf)).nonzero()[:, 0]
        if len(touched) == 0:
            return
        block, least = block[touched], least[touched]
        if block.shape[1] > 4 * self.count and bool(least.isinf().any()):  # all entries of a new row would be hits
            least = torch.maximum(least, block.topk(self.count).values[:, -1])
        row, col = ((block >= least[:, None]) & (block > -torch.inf)).nonzero(as_tuple=True)
        count = torch.bincount(row, minlength=len(touched))
        # each row's hits side by side: the i-th hit of a row is its i-th after the first
        nth = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
        value = block.new_full((len(touched), int(count.max())), -torch.inf)
        index = torch.full_like(value, torch.iinfo(torch.int64).max, dtype=torch.int64)
        value[row, nth], index[row, nth] = block[row, col], col + cols.start
        at = touched + rows.start
        state["value"][at], state["index"][at] = self._best(
            torch.cat([state["value"][at], value], 1), torch.cat([state["index"][at], index], 1)
        )

    def merge(self, one: State, other: State) -> State:
        """Choose among both states' partners."""
        value, index = self._best(*(torch.cat([one[name], other[name]], 1) for name in ("value", "index")))
        own = torch.where(one["own"].isnan(), other["own"], one["own"])
        return one | {"value": value, "index": index, "own": own}

    def finish(self, state: State) -> Partners:
        """Return the partners, (N, k), k at most as many as there are."""
        k = min(self.count, int(state["others"]))
        value, index = state["value"][:, :k], state["index"][:, :k]
        if self.later:
            index = torch.where(value > -torch.inf, index, torch.arange(len(index), device=index.device)[:, None])
        return Partners(value, index, state["own"])

    def _best(self, value: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        best, order = value.sort(dim=1, descending=True)
        following = best[:, 1 : self.count + 1]
        if not bool(((following == best[:, : following.shape[1]]) & (following > -torch.inf)).any()):  # no ties
            return best[:, : self.count], index.gather(1, order[:, : self.count])
        by_index = index.argsort(1)
        value, index = value.gather(1, by_index), index.gather(1, by_index)
        value, order = value.sort(dim=1, descending=True, stable=True)
        return value[:, : self.count], index.gather(1, order[:, : self.count])


@dataclass(frozen=True)
class Histogram:
    """Count a Gram matrix's entries, the diagonal's included, between edges; entries outside go to the two end bins.

    Attributes:
        edges: increasing numbers; e edges make e + 1 bins, of which bin b holds ``edges[b - 1] <= entry < edges[b]``.
    """

    edges: Sequence[float]

    def __post_init__(self):
        """Check the edges."""
        edges = validate.array(self.edges, "edges", "numbers in increasing order").double()
        if edges.dim() != 1 or len(edges) == 0 or not bool((edges.diff() > 0).all()) or not bool(edges.isfinite().all()):
            raise ValueError(f"edges: got {self.edges}; wanted at least one finite number, in increasing order")

    def begin(self, gram: "Gram") -> State:
        """Begin with no entry."""
        return {"counts": torch.zeros(len(self.edges) + 1, dtype=torch.int64, device=gram.device)}

    def fold(self, state: State, rows: slice, cols: slice, block: Tensor) -> None:
        """Count a block's entries; in float64, so that an edge is where it was put."""
        validate.finite(block, "gram")
        edges = torch.as_tensor(self.edges, dtype=torch.float64, device=block.device)
        bins = torch.bucketize(block.flatten().double(), edges, right=True)
        state["counts"] += torch.bincount(bins, minlength=len(edges) + 1)

    def merge(self, one: State, other: State) -> State:
        """Add the counts."""
        return {"counts": one["counts"] + other["counts"]}

    def finish(self, state: State) -> Tensor:
        """Return the counts, (e + 1,) int64."""
        return state["counts"]


@dataclass(frozen=True)
class Several:
    """Several reducers in one pass over the blocks; what is found is a tuple of what each finds.

    Attributes:
        reducers: any number of them, all of stacked cotangents or none.
    """

    reducers: Sequence[Reducer]

    def __post_init__(self):
        """Check them."""
        if not self.reducers or len({bool(getattr(r, "stacked", False)) for r in self.reducers}) > 1:
            raise ValueError(f"reducers: got {self.reducers}; wanted some, all of stacked cotangents or none")

    @property
    def stacked(self) -> bool:
        """Say whether they take blocks of stacked cotangents."""
        return bool(getattr(self.reducers[0], "stacked", False))

    def begin(self, gram: "Gram") -> State:
        """Begin each."""
        return self._joined([reducer.begin(gram) for reducer in self.reducers])

    def fold(self, state: State, rows: slice, cols: slice, block: Tensor) -> None:
        """Give the block to each."""
        parts = self._parts(state)
        for reducer, part in zip(self.reducers, parts, strict=True):
            reducer.fold(part, rows, cols, block)
        state.update(self._joined(parts))

    def merge(self, one: State, other: State) -> State:
        """Merge each one's states."""
        pairs = zip(self.reducers, self._parts(one), self._parts(other), strict=True)
        return self._joined([reducer.merge(a, b) for reducer, a, b in pairs])

    def finish(self, state: State) -> tuple:
        """Finish each."""
        return tuple(reducer.finish(part) for reducer, part in zip(self.reducers, self._parts(state), strict=True))

    def _joined(self, parts: Sequence[State]) -> State:
        return {f"{i} {name}": t for i, part in enumerate(parts) for name, t in part.items()}

    def _parts(self, state: State) -> list[State]:
        parts: list[State] = [{} for _ in self.reducers]
        for name, t in state.items():
            i, own = name.split(" ", 1)
            parts[int(i)][own] = t
        return parts
