"""Two and four processes against one: reductions, stores, seeds; a rank that fails, dies, or holds other data."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torchrun import setting, torchrun

import ntk_course as ntk
from ntk_course.basics import processes
from ntk_course.gram.reducers import TopPartners
from ntk_course.replication.experiments import theorem_1

HEAD = """
import os, sys, torch
sys.path.insert(0, os.environ["TESTS"])
from torchrun import setting
import ntk_course as ntk
from ntk_course import processes
from ntk_course.gram.reducers import TopPartners
folder = os.environ["FOLDER"]
rank = int(os.environ["RANK"])
model, x, c = setting()
"""


def launch(helpers, folder, body, count, **how):
    return torchrun(HEAD + body, count, folder, TESTS=str(helpers), FOLDER=str(folder), **how)


@pytest.fixture(autouse=True)
def one_thread():
    """As many as torchrun gives each process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def helpers(request):
    """The folder that the programs import their setting from."""
    return request.path.parent


def test_alone_there_is_a_world_of_one(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with processes.joined() as here:
        assert here == processes.world() == (0, 1)
    assert processes.gathered(lambda: 5, "five") == [5]
    assert processes.from_first(lambda: 5, "five") == 5
    processes.agreed({"a": "b"}, "nothing")
    with pytest.raises(KeyError):
        processes.gathered(lambda: {}["x"], "a failure")


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_find_what_one_finds(helpers, tmp_path, count):
    model, x, c = setting()
    launch(
        helpers,
        tmp_path,
        """
with processes.joined() as here:
    assert here.rank == rank and here.size == int(os.environ["WORLD_SIZE"])
    top = ntk.Gram(model, x, c, block_size=25).reduce(TopPartners(4), progress=False)
    two = ntk.Gram(model, x[:90], c[:90], x[90:], c[90:], block_size=25).reduce(ntk.gram.Histogram((0.0, 1.0)), progress=False)
    ntk.Gram(model, x, c, block_size=25).save(folder + "/g.zarr", progress=False)
    torch.save([*top, two], f"{folder}/found{rank}.pt")
assert processes.world() == (0, 1)
""",
        count,
    )
    top = ntk.Gram(model, x, c, block_size=25).reduce(TopPartners(4), progress=False)
    two = ntk.Gram(model, x[:90], c[:90], x[90:], c[90:], block_size=25).reduce(ntk.gram.Histogram((0.0, 1.0)), progress=False)
    for rank in range(count):
        found = torch.load(tmp_path / f"found{rank}.pt", weights_only=True)
        assert all(torch.equal(a, b) for a, b in zip(found, [*top, two], strict=True))
    matrix = ntk.tangent_kernel(model, x, c, block_size=25).numpy()
    assert np.array_equal(ntk.open_gram(tmp_path / "g.zarr")[:], matrix)


@pytest.mark.slow
def test_one_rank_fails_all_say_so_and_the_run_resumes(helpers, tmp_path):
    body = """
from ntk_course.gram import reduce
reduce._EVERY = 0.0
class Top(TopPartners):
    count_down = 10
    def fold(self, *args):
        Top.count_down -= 1
        if fails and rank == 1 and Top.count_down == 0:
            raise ValueError("the consumer's own")
        super().fold(*args)
fails = os.environ.get("FAILS") == "1"
with processes.joined():
    try:
        top = ntk.Gram(model, x, c, block_size=25).reduce(Top(4), progress=False, checkpoint=folder + "/kept")
        torch.save([*top, Top.count_down], f"{folder}/found{rank}.pt")
    except (RuntimeError, ValueError) as error:
        print(f"RANK {rank} SAYS {error!r}", flush=True)
        raise
"""
    done = launch(helpers, tmp_path, body, 2, check=False, FAILS="1")
    assert done.returncode != 0
    assert 'process 1 of 2 failed: ValueError("the consumer\'s own")' in done.stdout
    assert "RANK 1 SAYS ValueError" in done.stdout
    assert "RANK 0 SAYS RuntimeError" in done.stdout and "process 1 failed with ValueError" in done.stdout
    launch(helpers, tmp_path, body, 4)  # resumed by another number of processes
    model, x, c = setting()
    wanted = ntk.Gram(model, x, c, block_size=25).reduce(TopPartners(4), progress=False)
    folds = 0
    for rank in range(4):
        *found, left = torch.load(tmp_path / f"found{rank}.pt", weights_only=True)
        folds += 10 - left
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert folds < 144 / 2  # rank 0 had finished its half
    assert not (tmp_path / "kept").exists()


@pytest.mark.slow
def test_a_killed_rank_stops_the_run_and_the_store_is_finished_by_the_next(helpers, tmp_path):
    body = """
import signal
from ntk_course.gram import store
original, seen = store.with_mirror, []
def dying(*args):
    seen.append(1)
    if os.environ.get("DIES") == "1" and rank == 1 and len(seen) == 12:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args)
store.with_mirror = dying
with processes.joined():
    ntk.Gram(model, x, c, block_size=25).save(folder + "/g.zarr", progress=False)
"""
    done = launch(helpers, tmp_path, body, 2, check=False, DIES="1")
    assert done.returncode != 0 and "Signal 9" in done.stdout
    assert 0 < np.isnan(ntk.open_gram(tmp_path / "g.zarr", partial=True)[:]).mean() < 1
    launch(helpers, tmp_path, body, 2)
    model, x, c = setting()
    assert np.array_equal(ntk.open_gram(tmp_path / "g.zarr")[:], ntk.tangent_kernel(model, x, c, block_size=25).numpy())


@pytest.mark.slow
def test_ranks_that_disagree_are_told(helpers, tmp_path):
    done = launch(
        helpers,
        tmp_path,
        """
said = []
with processes.joined():
    for change in ("data", "model", "block_size"):
        x2 = x + 1 if change == "data" and rank == 1 else x
        m2 = setting(seed=1)[0] if change == "model" and rank == 1 else model
        size = 20 + rank if change == "block_size" else 25
        for call in (
            lambda: ntk.Gram(m2, x2, c, block_size=size).reduce(TopPartners(4), progress=False),
            lambda: ntk.Gram(m2, x2, c, block_size=25).save(folder + "/g.zarr", progress=False),
        ):
            try:
                call()
                said.append("nothing")
            except ValueError as error:
                said.append(str(error).split(";")[0])
import json
json.dump(said, open(f"{folder}/said{rank}.json", "w"))
""",
        2,
    )
    assert done.returncode == 0
    for rank in range(2):
        words = [
            f"{name}: got another one in process 1 than in process 0" for name in ("data", "data", "model", "model", "block_size")
        ]
        assert json.loads((tmp_path / f"said{rank}.json").read_text()) == [*words, "nothing"]


@pytest.mark.slow
def test_ranks_of_different_memory_cut_the_matrix_alike(helpers, tmp_path):
    launch(
        helpers,
        tmp_path,
        """
with processes.joined():
    gram = ntk.Gram(model, x, c, memory=(1 << 18) << 3 * rank)
    torch.save([gram._plan.block_size, *gram.reduce(TopPartners(4), progress=False)], f"{folder}/found{rank}.pt")
    gram.save(folder + "/g.zarr", progress=False)
""",
        2,
    )
    model, x, c = setting()
    gram = ntk.Gram(model, x, c, memory=1 << 18)
    top = gram.reduce(TopPartners(4), progress=False)
    sizes = []
    for rank in range(2):
        size, *found = torch.load(tmp_path / f"found{rank}.pt", weights_only=True)
        sizes.append(size)
        assert all(torch.equal(a, b) for a, b in zip(found, top, strict=True))
    assert sizes[0] < sizes[1]  # each would have cut it in its own way
    assert np.array_equal(ntk.open_gram(tmp_path / "g.zarr")[:], gram.dense().numpy())


@pytest.mark.slow
def test_seeds_are_dealt_out(helpers, tmp_path):
    command = """
import sys
from ntk_course.replication import cli
sys.exit(cli.main(["run", "theorem_1", "--preset", "smoke", "--results", folder]))
"""
    seeds = """
import dataclasses
from ntk_course.replication.experiments import theorem_1
preset = theorem_1.PRESETS["smoke"]
theorem_1.PRESETS["smoke"] = dataclasses.replace(preset, seeds=(0, 1, 2))
"""
    launch(helpers, tmp_path, seeds + command, 2)
    found = json.loads((tmp_path / "theorem_1/smoke.json").read_text())
    assert found["provenance"]["processes"] == 2
    config = dataclasses.replace(theorem_1.PRESETS["smoke"], seeds=(0, 1, 2))
    wanted = theorem_1.run(config, "smoke", progress=False).rows
    assert [row["seed"] for row in found["rows"]] == [row["seed"] for row in wanted]
    for row, other in zip(found["rows"], wanted, strict=True):
        assert all(
            value == (pytest.approx(other[name], rel=1e-4) if isinstance(value, float) else other[name])
            for name, value in row.items()
        )
    assert not list((tmp_path / "theorem_1").glob(".smoke-*"))
