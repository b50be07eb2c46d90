"""The benchmarks: they run, they judge as they say, and what is stored keeps what was promised."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ntk_course.replication import results

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def cost(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("cost", FOLDER / "cost.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("route", ["ntk_course", "torch.func recipe"])
def test_a_route_runs_alone_and_is_compared(route):
    command = [sys.executable, str(FOLDER / "cost.py"), "--one", "route", "LeNet-5", "64", route]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    row = json.loads(done.stdout)
    assert row["error"] < 1e-5 and row["seconds"] > 0 and row["parameters"] == 61_706


def test_two_routes_in_turns(cost):
    row = cost.beside("LeNet-5", 32, "torch.func recipe", rounds=3)
    assert row["rounds"] == 3 and row["ratio"] > 0 and min(row["seconds"], row["theirs"]) > 0
    monkey = iter([0.0, 1.0, 4.0, 5.0, 6.0, 14.0])  # ours: 1, 1; theirs: 3, 8
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost.time, "perf_counter", lambda: next(monkey))
        row = cost.beside("LeNet-5", 2, "torch.func recipe", rounds=2)
    assert (row["ratio"], row["seconds"], row["theirs"]) == (5.5, 1.0, 3.0)


def test_a_wrong_matrix_is_not_timed(cost, monkeypatch):
    monkeypatch.setitem(cost.ROUTES, "nngeometry", (lambda *a: lambda: 1.01 * cost.ROUTES["ntk_course"][0](*a)(), None))
    with pytest.raises(SystemExit, match="another matrix: relative difference 1.0e-02"):
        cost.one_route("MLP 3 x 512", 32, "nngeometry")


def test_promises_that_are_missed_are_listed(cost):
    def rows(peer, share, gib, two):
        return [
            {"part": "peers", "model": "LeNet-5", "samples": 512, "route": "ntk_course", "seconds": 1.0},
            {"part": "peers", "model": "LeNet-5", "samples": 512, "route": "nngeometry", "seconds": 0.1},  # not in turns
            {"part": "beside", "model": "LeNet-5", "samples": 512, "route": "nngeometry", "ratio": peer},
            {"part": "mnist", "of_peak": share, "gib": gib},
            {"part": "processes", "processes": 1, "seconds": two},
            {"part": "processes", "processes": 2, "seconds": 1.0},
            {"part": "processes", "processes": 2, "seconds": 3.0},  # a slow moment: the best counts
        ]

    assert cost.missed_promises(rows(2.1, 0.61, 2.9, 1.71)) == []
    assert "N = 512: 1.90 x nngeometry, promised 2" in cost.missed_promises(rows(1.9, 0.61, 2.9, 1.71))[0]
    assert "59% of the peak" in cost.missed_promises(rows(2.1, 0.59, 2.9, 1.71))[0]
    assert "3.1 GiB" in cost.missed_promises(rows(2.1, 0.61, 3.1, 1.71))[0]
    assert "two processes: 1.69 x" in cost.missed_promises(rows(2.1, 0.61, 2.9, 1.69))[0]


def test_multiply_adds_of_lenet(cost):
    import ntk_course as ntk

    formed = 6 * 25 + 6 + 16 * 150 + 16  # both convolutions and their biases
    factors = sum(p + 1 + q + 1 for p, q in ((400, 120), (120, 84), (84, 10)))  # a bias counts as one more input
    assert cost.multiply_adds(ntk.lenet5(), torch.randn(1, 1, 28, 28)) == formed + factors


def test_the_next_size_is_foreseen(cost):
    def run(n, seconds, gib):
        return {"samples": n, "seconds": seconds, "gib": gib}

    assert cost.foreseen([], 256) == (0.0, 0.0)
    assert cost.foreseen([run(256, 1.0, 2.0)], 512) == (4.0, 4.0)
    assert cost.foreseen([run(256, 1.0, 2.0), run(512, 2.0, 2.5)], 1024) == pytest.approx((4.0, 5.0))
    assert cost.foreseen([run(256, 1.0, 2.0), run(512, 8.0, 2.5)], 1024) == pytest.approx((32.0, 5.0))


def test_what_is_stored_says_where_it_comes_from(cost):
    stored = results.stored("cost", "class")
    assert {row["part"] for row in stored.rows} == {
        *("peak", "peak, one thread", "mnist", "processes", "approximations", "peers", "beside", "widths")
    }
    versions = stored.provenance["versions"]
    assert set(versions) == set(cost.LIBRARIES) and versions["neural-tangents"] == "0.6.5"
    assert stored.provenance["machine"]["cores"] == 2
    for row in stored.rows:
        assert row["part"] != "peers" or ("why" in row) != ("seconds" in row)
    in_turns = {(row["model"], row["samples"]) for row in stored.rows if row["part"] == "beside"}
    assert in_turns == set(cost.PROMISED)
