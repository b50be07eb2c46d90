"""Gram matrices on disk: whole, resumed after kills to the same bits, refused where they belong to something else."""

import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
import torch
from torchrun import setting, write

import ntk_course as ntk
from ntk_course.gram import store

zarr = pytest.importorskip("zarr")


@pytest.fixture(scope="module")
def children():
    """Children that start in a moment: a server process has everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torchrun", "torch", "ntk_course", "zarr"])
    return context


@pytest.fixture(scope="module")
def whole(tmp_path_factory, children):
    """Make the matrix as an uninterrupted child writes it."""
    path = tmp_path_factory.mktemp("whole") / "gram.zarr"
    child = children.Process(target=write, args=(path,))
    child.start()
    child.join(120)
    assert child.exitcode == 0
    return ntk.open_gram(path)[:]


def test_what_is_written_is_the_matrix(tmp_path):
    model, x, c = setting()
    matrix = ntk.tangent_kernel(model, x, c, block_size=64)
    array = ntk.Gram(model, x, c, block_size=64).save(tmp_path / "g.zarr", progress=False)
    assert array.shape == (300, 300) and array.chunks == (64, 64) and array.dtype == np.float32
    assert np.array_equal(array[:], matrix.numpy())
    assert np.array_equal(ntk.open_gram(tmp_path / "g.zarr")[7], matrix[7].numpy())
    assert array.read_only
    again = ntk.Gram(model, x, c).save(tmp_path / "g.zarr", progress=False)  # whole already: keeps its own blocks
    assert again.chunks == (64, 64)
    with pytest.raises(ValueError, match="read"):
        again[0, 0] = 1.0


def test_two_sides_and_float64(tmp_path):
    model, x, c = setting()
    model = model.double()
    array = ntk.Gram(model, x[:50], c[:50], x[50:], c[50:], block_size=64).save(tmp_path / "g.zarr", progress=False)
    wanted = ntk.tangent_kernel(model, x[:50], c[:50], x[50:], c[50:], block_size=64)
    assert array.dtype == np.float64
    assert np.array_equal(array[:], wanted.numpy())


def test_an_all_zero_block_is_a_block(tmp_path):
    model, x, c = setting()
    array = ntk.Gram(model, x, torch.zeros(len(x), 10), block_size=100).save(tmp_path / "g.zarr", progress=False)
    assert (array[:] == 0).all()


@pytest.mark.slow
def test_killed_at_twenty_random_moments_the_bits_are_the_same(tmp_path, children, whole):
    path, moments = tmp_path / "gram.zarr", random.Random(0)
    kills, partial, longest = 0, False, 1.2
    while kills < 20:
        child = children.Process(target=write, args=(path, 0.012))
        child.start()
        deadline = time.monotonic() + moments.uniform(0.0, longest)
        while time.monotonic() < deadline and child.is_alive():
            time.sleep(0.005)
        if not child.is_alive():  # it finished: begin another
            assert child.exitcode == 0
            assert np.array_equal(ntk.open_gram(path)[:], whole)
            path = path.with_name(f"gram{kills}.zarr")
            continue
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        kills += 1
        if (path / "zarr.json").exists():
            found = ntk.open_gram(path, partial=True)[:]
            there = ~np.isnan(found)
            partial |= 0 < there.sum() < there.size
            assert np.array_equal(found[there], whole[there])  # what is there is right
        longest += 0.0 if partial else 0.2  # on a machine where children start slowly
    assert partial
    child = children.Process(target=write, args=(path,))
    child.start()
    child.join(120)
    assert child.exitcode == 0
    assert np.array_equal(ntk.open_gram(path)[:], whole)
    assert not list(path.glob("c/**/*.partial"))


def undecided():
    """A convolution over 2 x 2 pixels, formed where its gradient takes part in 17 products or more."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(64, 10))
    return model, torch.randn(200, 8, 2, 2), torch.randn(200, 10)


@pytest.mark.parametrize("memory", [2**15, 2**22, None])
def test_other_memory_finishes_with_the_same_bits(tmp_path, memory, monkeypatch):
    """Which gradients are formed depends on memory, so an array keeps the choice it began with."""
    model, x, c = undecided()
    layouts = {m: ntk.Gram(model, x, c, block_size=10, memory=m)._plan.layout for m in (2**16, 2**30)}
    formed = {m: len(layout.factored) for m, layout in layouts.items()}
    assert formed == {2**16: 2, 2**30: 1}
    ntk.Gram(model, x, c, block_size=10, memory=2**16).save(tmp_path / "a.zarr", progress=False)
    stop_after(monkeypatch, 20)
    with pytest.raises(KeyboardInterrupt):
        ntk.Gram(model, x, c, block_size=10, memory=2**16).save(tmp_path / "b.zarr", progress=False)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"holds \d+ of 400 blocks"):
        ntk.open_gram(tmp_path / "b.zarr")
    b = ntk.Gram(model, x, c, block_size=77, memory=memory).save(tmp_path / "b.zarr", progress=False)
    assert np.array_equal(b[:], ntk.open_gram(tmp_path / "a.zarr")[:])
    assert dict(b.attrs) == dict(ntk.open_gram(tmp_path / "a.zarr").attrs)


def stop_after(monkeypatch, blocks, how=KeyboardInterrupt):
    original, seen = store.with_mirror, []

    def stopping(*args):
        seen.append(1)
        if len(seen) > blocks:
            raise how
        return original(*args)

    monkeypatch.setattr(store, "with_mirror", stopping)


def test_what_is_there_is_not_computed_again(tmp_path, monkeypatch):
    model, x, c = setting()
    stop_after(monkeypatch, 50)
    with pytest.raises(KeyboardInterrupt):
        ntk.Gram(model, x, c, block_size=25).save(tmp_path / "g.zarr", progress=False)
    monkeypatch.undo()
    seen, original = [], store.with_mirror
    monkeypatch.setattr(store, "with_mirror", lambda *args: seen.append(1) or original(*args))
    ntk.Gram(model, x, c, block_size=25).save(tmp_path / "g.zarr", progress=False)
    assert len(seen) == 12 * 13 // 2 - 50


def test_a_store_of_something_else_is_refused(tmp_path):
    model, x, c = setting()
    path = tmp_path / "g.zarr"
    before = ntk.Gram(model, x, c).save(path, progress=False)[:]
    other = setting(seed=1)[0]
    with torch.no_grad():
        changed = setting()[0]
        changed[-1].bias[3] += 1e-6
    for change, word in (
        ({"model": other}, "model"),
        ({"model": changed}, "model"),
        ({"model": setting()[0].double()}, "model"),
        ({"x": x + 1e-6}, "data"),
        ({"c": ntk.labelled(c.values.roll(1, 0))}, "cotangent"),
        ({"precision": "bf16"}, "precision"),
    ):
        arguments = {"model": model, "x": x, "c": c, "precision": "exact"} | change
        precise = arguments.pop("precision")
        with pytest.raises(ValueError, match=f"path: .* another {word}; wanted"):
            ntk.Gram(*arguments.values(), precision=precise).save(path, progress=False)
    with pytest.raises(ValueError, match="another data"):
        ntk.Gram(model, x, c, x, c).save(path, progress=False)
    assert np.array_equal(ntk.open_gram(path)[:], before)


def test_a_store_of_another_version_is_refused(tmp_path):
    model, x, c = setting()
    array = ntk.Gram(model, x, c).save(tmp_path / "g.zarr", progress=False)
    zarr.open_array(tmp_path / "g.zarr", mode="r+").attrs["ntk_course_gram"] = 99
    for call in (lambda: ntk.open_gram(tmp_path / "g.zarr"), lambda: ntk.Gram(model, x, c).save(tmp_path / "g.zarr")):
        with pytest.raises(ValueError, match="version 99 .*wanted version 2"):
            call()
    zarr.create_array(tmp_path / "h.zarr", shape=(3,), dtype="float32")
    with pytest.raises(ValueError, match="version None"):
        ntk.open_gram(tmp_path / "h.zarr")
    with pytest.raises(FileNotFoundError, match="no Gram matrix at"):
        ntk.open_gram(tmp_path / "nothing.zarr")
    assert array.shape == (300, 300)


def test_a_disk_that_fills_up_leaves_whole_blocks(tmp_path, children, whole):
    """A child may not write files of more than 2000 bytes, and a chunk has 2500: each write breaks off in its middle."""
    path = tmp_path / "gram.zarr"
    errors = children.Queue()
    child = children.Process(target=write, args=(path, 0.0, 2000, errors))
    child.start()
    printed = errors.get(timeout=120)
    child.join(120)
    assert child.exitcode == 1
    assert "could not write block 1 of 78" in printed and "make room and call again" in printed
    assert np.isnan(ntk.open_gram(path, partial=True)[:]).all()  # nothing that looks whole
    child = children.Process(target=write, args=(path,))
    child.start()
    child.join(120)
    assert np.array_equal(ntk.open_gram(path)[:], whole)


def test_a_full_disk_is_named_and_what_was_written_stays(tmp_path, monkeypatch):
    model, x, c = setting()
    full = OSError(28, "No space left on device")
    stop_after(monkeypatch, 30, how=full)
    with pytest.raises(OSError, match=r"could not write block 31 of 78.*No space left.*make room and call again") as caught:
        ntk.Gram(model, x, c, block_size=25).save(tmp_path / "g.zarr", progress=False)
    assert caught.value.errno == 28
    monkeypatch.undo()
    array = ntk.Gram(model, x, c, block_size=25).save(tmp_path / "g.zarr", progress=False)
    assert np.array_equal(array[:], ntk.tangent_kernel(model, x, c, block_size=25).numpy())


def test_a_matrix_larger_than_its_disk_is_not_begun(tmp_path, monkeypatch):
    model, x, c = setting()
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"needs 0.00 GiB more and its disk has 0.00 GiB free"):
        ntk.Gram(model, x, c).save(tmp_path / "g.zarr", progress=False)


def test_stacked_cotangents_and_missing_zarr_are_named(tmp_path, monkeypatch):
    model, x, c = setting()
    with pytest.raises(ValueError, match=r"save: got .*\(300, 300, 10, 10\); wanted one cotangent a sample"):
        ntk.Gram(model, x, ntk.basis).save(tmp_path / "g.zarr")
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(ImportError, match=r'pip install "ntk_course\[store\]"'):
        ntk.Gram(model, x, c).save(tmp_path / "g.zarr")


def test_what_a_killed_process_left_half_written_is_cleared(tmp_path):
    model, x, c = setting()
    ntk.Gram(model, x, c, block_size=100).save(tmp_path / "a.zarr", progress=False)
    (tmp_path / "a.zarr/c/0/0.abc.partial").write_bytes(b"half")
    ntk.Gram(model, x, c).save(tmp_path / "a.zarr", progress=False)
    assert not list((tmp_path / "a.zarr").glob("c/**/*.partial"))
