"""Every reducer against the whole matrix: in any blocks, for one side and two, alone and merged from halves."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import ntk_course as ntk
from ntk_course import gram as room

N, M = 23, 9


def written_in_contributing():
    """Take the reducer that CONTRIBUTING.md shows as it stands there."""
    text = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
    code = re.search(r"```python\n(class RowMaximum:.*?)\n\n\n", text, re.DOTALL)
    space = {"torch": torch}
    exec(code[1], space)
    return space["RowMaximum"]()


def partners(matrix, symmetric):
    found = []
    for i, row in enumerate(matrix.tolist()):
        others = [(value, j) for j, value in enumerate(row) if not (symmetric and j == i)]
        found.append(sorted(others, key=lambda pair: (-pair[0], pair[1]))[:3])
    own = matrix.diagonal() if symmetric else torch.full(matrix.shape[:1], torch.nan, dtype=matrix.dtype)
    return (*(torch.tensor([[pair[k] for pair in row] for row in found], dtype=d) for k, d in ((0, own.dtype), (1, None))), own)


def later_partners(matrix, symmetric):
    found = []
    for i, row in enumerate(matrix.tolist()):
        after = sorted(((value, j) for j, value in enumerate(row) if j > i), key=lambda pair: (-pair[0], pair[1]))
        found.append((after + 2 * [(-math.inf, i)])[:2])
    own = matrix.diagonal() if symmetric else torch.full(matrix.shape[:1], torch.nan, dtype=matrix.dtype)
    return (*(torch.tensor([[pair[k] for pair in row] for row in found], dtype=d) for k, d in ((0, own.dtype), (1, None))), own)


class Total(room.Histogram):
    """The sum of all entries, in a state whose tensor every fold replaces by another."""

    def begin(self, gram):
        return {"counts": torch.zeros((), dtype=torch.float64)}

    def fold(self, state, rows, cols, block):
        state["counts"] = state["counts"] + block.double().sum()


EDGES = (-0.5, 0.0, 0.25, 2.0)
# By name: the reducer, and what it finds in a whole matrix (n, m), symmetric or of two sides.
REDUCERS = {
    "TopPartners": (room.TopPartners(3), partners),
    "TopPartners, later": (room.TopPartners(2, later=True), later_partners),
    "Histogram": (room.Histogram(EDGES), lambda k, _: torch.as_tensor(np.histogram(k, [-np.inf, *EDGES, np.inf])[0])),
    "Several": (
        room.Several((room.TopPartners(3), room.Histogram(EDGES), Total(EDGES), room.TopPartners(2, later=True))),
        lambda k, symmetric: (
            *partners(k, symmetric),
            REDUCERS["Histogram"][1](k, symmetric),
            k.double().sum(),
            *later_partners(k, symmetric),
        ),
    ),
    "CONTRIBUTING": (written_in_contributing(), lambda k, _: k.max(1).values),
}


def flat(found):
    return [found] if isinstance(found, torch.Tensor) else [t for part in found for t in flat(part)]


def same(found, wanted):
    found, wanted = flat(found), flat(wanted)
    return len(found) == len(wanted) and all(
        one.dtype == other.dtype
        and one.shape == other.shape
        and torch.allclose(one, other, rtol=1e-10, atol=1e-12, equal_nan=True)
        for one, other in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("block_size", [1, 4, 10, 64])
@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("name", REDUCERS)
def test_a_reducer_finds_what_the_whole_matrix_holds(name, sides, block_size):
    model, x, y = ntk.mlp((6, 8, 4), activation="tanh").double(), torch.randn(N + M, 6).double(), torch.arange(N + M) % 4
    c = ntk.labelled(y)
    reducer, definition = REDUCERS[name]
    two = (x[N:], c[N:]) if sides == 2 else ()
    gram = ntk.Gram(model, x[:N], c[:N], *two, block_size=block_size)
    matrix = gram.dense()
    wanted = definition(matrix, gram.symmetric)
    assert same(gram.reduce(reducer, progress=False), wanted)
    # two processes, or a run and its continuation: the blocks parted in any way, and one of the two without any
    cuts = (
        [slice(i, i + block_size) for i in range(0, N, block_size)],
        [slice(i, i + block_size) for i in range(0, matrix.shape[1], block_size)],
    )
    blocks = [(rows, cols) for rows in cuts[0] for cols in cuts[1]]
    for seed, share in ((0, 0.5), (1, 0.5), (2, 0.1), (3, 0.0), (4, 0.5), (5, 0.5)):
        if seed == 4:  # many entries alike: which counts is not to depend on the order of the blocks
            matrix = (2 * matrix / matrix.abs().mean()).round() / 2
            wanted = definition(matrix, gram.symmetric)
        order = np.random.default_rng(seed).permutation(len(blocks))
        states = reducer.begin(gram), reducer.begin(gram)
        for place, b in enumerate(order):
            rows, cols = (slice(*s.indices(n)[:2]) for s, n in zip(blocks[b], matrix.shape, strict=True))
            reducer.fold(states[place >= share * len(order)], rows, cols, matrix[rows, cols].clone())
        assert same(reducer.finish(reducer.merge(*states)), wanted)


def test_every_reducer_is_in_the_list():
    public = {
        name for name in room.__all__ if all(hasattr(getattr(room, name), step) for step in ("begin", "fold", "merge", "finish"))
    }
    assert public - {"Reducer"} <= REDUCERS.keys(), "add it to REDUCERS, with what it finds in a whole matrix"


def test_a_fold_that_returns_its_state_is_told_what_is_wanted():
    class Wrong(room.Histogram):
        def fold(self, state, rows, cols, block):
            return {"counts": state["counts"] + 1}

    with pytest.raises(TypeError, match=r"reducer: got a result from Wrong\.fold; wanted the state changed in place"):
        ntk.Gram(ntk.mlp((6, 8, 4)), torch.randn(5, 6), ntk.ones).reduce(Wrong((0.0,)), progress=False)


def test_a_checkpoint_wants_a_folder_of_its_own(tmp_path):
    gram = ntk.Gram(ntk.mlp((6, 8, 4)), torch.randn(5, 6), ntk.ones)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"checkpoint: got .*, which holds 'notes.txt'; wanted a folder of its own"):
        gram.reduce(room.Histogram((0.0,)), checkpoint=tmp_path, progress=False)
    (tmp_path / "notes.txt").unlink()

    class Writing(room.Histogram):  # something else writes there meanwhile: the result is not lost
        def fold(self, state, rows, cols, block):
            (tmp_path / "late.txt").write_text("mine")
            super().fold(state, rows, cols, block)

    assert gram.reduce(Writing((0.0,)), checkpoint=tmp_path, progress=False).sum() == 25
    assert [path.name for path in tmp_path.iterdir()] == ["late.txt"]
