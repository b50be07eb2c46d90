"""Streaming: tiles and plans, the memory bound, halves after running out, precision, reducers, checkpoints."""

import copy
import itertools
import weakref
from types import SimpleNamespace

import pytest
import torch
from conftest import relative
from torch import nn
from torch.profiler import ProfilerActivity, profile

import ntk_course as ntk
from ntk_course.basics import fingerprints
from ntk_course.gram import blocks as engine
from ntk_course.gram import plan as plans
from ntk_course.gram.reducers import TopPartners
from ntk_course.tangents import features as tangents


def like(n, m, symmetric=True):
    """Stand in for a Gram matrix, of which a reducer asks no more."""
    return SimpleNamespace(shape=(n, m), dtype=torch.float32, device=torch.device("cpu"), symmetric=symmetric)


@pytest.fixture
def digits():
    data = ntk.load("digits", limit=210)
    return ntk.mlp((64, 24, 10)), data.x, ntk.labelled(data.y)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 9, 10])
def test_tiles_of_a_symmetric_matrix_cover_each_pair_once_and_share_it_evenly(n):
    work = plans.tiles(n, n, symmetric=True)
    assert sorted(tuple(sorted(tile)) for tile in work) == list(itertools.combinations_with_replacement(range(n), 2))
    rows = [sum(i == row for i, _ in work) for row in range(n)]
    assert max(rows) - min(rows) <= 1
    assert work == sorted(work, key=lambda tile: tile[0])  # row by row, as tile_blocks wants them
    for size in (1, 2, 3, 4):
        parts = [plans.share(work, rank, size) for rank in range(size)]
        assert [tile for part in parts for tile in part] == work
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_tiles_of_two_sides():
    assert plans.tiles(2, 3, symmetric=False) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_pairs_are_products_over_gradients_formed():
    """Count both for every stripe length that divides the rows."""
    n = 24
    for held in (1, 2, 3, 4, 6, 8, 12, 24):
        work, formed = plans.tiles(n, n, symmetric=True), 0
        for start in range(0, n, held):
            rows = set(range(start, start + held))
            formed += len(rows | {j for i, j in work if i in rows})
        assert plans.pairs_of(n, n, held, symmetric=True) == pytest.approx(n * n / 2 / formed, rel=0.15), held
        assert plans.pairs_of(n, 60, held, symmetric=False) == pytest.approx(n * 60 / (n + 60 * n / held))


def test_the_probe_counts_what_a_sample_keeps():
    from ntk_course.tangents.probe import probe

    # Linear keeps its input (6 numbers) and ReLU its output (8), which is the last layer's input
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 10))
    assert probe(model, torch.randn(3, 6)).saved == 4 * (6 + 8)
    assert probe(model.double(), torch.randn(3, 6).double()).saved == 8 * (6 + 8)


def test_a_plan_follows_from_memory():
    model, x = ntk.lenet5(), torch.randn(3000, 1, 28, 28)
    plenty, some, least = (ntk.Gram(model, x, ntk.ones, memory=m)._plan for m in (2**33, 2**25, 1))
    assert plenty.block_size == 512 and plenty.stripe * 512 >= 3000
    assert some.block_size < 256 and some.stripe * some.block_size < 3000
    assert least[:2] == (1, 1)
    assert ntk.Gram(model, x, ntk.ones, block_size=100, memory=2**33)._plan[:2] == (100, 30)


def test_a_network_of_large_activations_gets_small_blocks():
    gram = ntk.Gram(ntk.resnet18().eval(), torch.randn(300, 3, 32, 32), ntk.ones, memory=2**35)
    assert gram.block_size in (16, 32)


def test_a_smaller_block_where_it_saves_stripes():
    assert plans.halves(256) == [256, 128, 64, 32, 16, 8, 4, 2, 1]
    assert plans.halves(100)[:3] == [100, 50, 25] and plans.halves(1) == [1]
    assert plans.choose_block(1000, {256: 1000, 128: 1000}) == (256, 1000)
    assert plans.choose_block(1000, {256: 256, 128: 512, 64: 640, 32: 960, 16: 1000, 8: 1000}) == (16, 1000)
    assert plans.choose_block(1000, {256: 210, 128: 250, 64: 256}) == (256, 210)  # 5 stripes against 4: not worth it
    assert plans.choose_block(1000, {256: -5, 128: 0, 64: 64, 8: 1000}) == (64, 64)
    assert plans.choose_block(1000, {256: -5, 128: 0, 8: 8}) == (8, 8)
    assert plans.choose_block(1000, {256: -5, 1: -2}) == (1, 1)


def test_free_memory_is_the_machines_or_the_containers(tmp_path, monkeypatch):
    told, container = tmp_path / "meminfo", tmp_path / "cgroup"
    container.mkdir()
    assert plans.free_memory(told, container) == 8 * 2**30
    told.write_text("MemTotal: 4000 kB\nMemAvailable:   3000 kB\n")
    assert plans.free_memory(told, container) == 3000 * 1024
    (container / "memory.max").write_text("max\n")
    (container / "memory.current").write_text("1000\n")
    assert plans.free_memory(told, container) == 3000 * 1024
    (container / "memory.max").write_text("5000\n")
    assert plans.free_memory(told, container) == 4000
    (container / "memory.max").write_text("9000000000\n")  # more than the machine has free
    assert plans.free_memory(told, container) == 3000 * 1024
    monkeypatch.setattr(plans, "free_memory", lambda: 800)
    monkeypatch.setattr(plans, "_READ", [])
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert plans.default_memory(torch.device("cpu")) == 200


def test_little_memory_keeps_gradients_in_factors():
    """A convolution over 2 x 2 pixels: formed for many pairs, kept where each would be used for few."""
    model = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.Flatten(), nn.Linear(64, 10))
    x, c = torch.randn(4000, 8, 2, 2), torch.randn(4000, 10)
    sizes = {}
    for memory in (2**33, 2**15):
        gram = ntk.Gram(model, x, c, memory=memory)
        sizes[memory] = len(engine.tangent_features(model, x[:1], c[:1], gram._plan.layout).factors)
        rows, cols, block = next(iter(gram.blocks()))
        wanted = ntk.tangent_kernel(model, x[rows], c[rows], x[cols], c[cols])
        assert relative(block, wanted) < 1e-5
    assert sizes == {2**33: 1, 2**15: 2}


@pytest.mark.slow
@pytest.mark.parametrize("mebibytes", [48, 128])
def test_memory_stays_within_its_bound(mebibytes):
    model, x, c = ntk.lenet5(), torch.randn(3000, 1, 28, 28), torch.ones(3000, 10)  # 41 MiB of features
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:  # every allocation and every release
        for _ in ntk.Gram(model, x, c, memory=mebibytes * 2**20).blocks():
            pass
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    assert 10 < max(itertools.accumulate(sizes)) / 2**20 < mebibytes


def running_out(monkeypatch, most, product=None):
    """Let features of more than ``most`` samples, or a product of more than ``product`` rows, not fit on a GPU."""
    calls, times = [], engine.tangent_product

    def limited(features):
        def of_few(model, x, *rest):
            calls.append(len(x))
            if len(x) > most:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return features(model, x, *rest)

        return of_few

    def limited_product(f, g, *rest):
        if product is not None and f.samples > product:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return times(f, g, *rest)

    for name in ("tangent_features", "tangent_pieces"):
        monkeypatch.setattr(engine, name, limited(getattr(engine, name)))
    monkeypatch.setattr(engine, "tangent_product", limited_product)
    return calls


def test_running_out_of_gpu_memory_halves_the_block_and_goes_on(digits, monkeypatch):
    model, x, c = digits
    wanted = ntk.tangent_kernel(model, x, c, block_size=50)
    calls = running_out(monkeypatch, most=20, product=13)
    assert relative(ntk.tangent_kernel(model, x, c, block_size=50), wanted) < 1e-6
    assert max(calls) == 50 and calls.count(50) == 1  # learnt once
    assert set(calls[1:]) <= set(range(1, 26))


@pytest.mark.parametrize("stacked", [False, True])
def test_a_block_with_itself_is_symmetric_to_the_bit(digits, stacked):
    model, x, c = digits
    x, c = x.repeat(2, 1, 1, 1), ntk.signs(c.values.repeat(2), 10)
    c = torch.stack([c, torch.rand_like(c)], 1) if stacked else c
    gram = ntk.Gram(model, x, c)
    features = engine.tangent_features(model, x, c, gram._plan.layout)
    found = engine.Worker(gram._sides, gram._plan.layout).own_product(features)
    assert relative(found, engine.tangent_product(features, features).transpose(1, 2)) < 1e-6
    half = 210
    assert torch.equal(found[:half, half:], found[half:, :half].transpose(0, 1).transpose(2, 3))


@pytest.mark.parametrize("stacked", [False, True])
def test_one_block_that_does_not_fit_is_cut_too(digits, monkeypatch, stacked):
    model, x, c = digits
    c = ntk.basis if stacked else c
    wanted = ntk.Gram(model, x, c).dense()
    calls = running_out(monkeypatch, most=len(x) // 3)
    assert relative(ntk.Gram(model, x, c).dense(), wanted) < 1e-6
    assert max(calls) == len(x) and len(calls) > 4


def test_one_block_holds_no_more_than_one_large_weight_at_a_time(monkeypatch):
    """Pieces of one block's features are let go as they are used, and give what all of them give."""
    convolutions = [layer for i in (1, 24, 24) for layer in (nn.Conv2d(i, 24, 3), nn.ReLU())]
    model = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4))
    x, c = torch.randn(30, 1, 14, 14), ntk.ones
    gram, alive, most, original = ntk.Gram(model, x, c), [], [], engine.tangent_pieces

    def watched(*args):
        for piece in original(*args):
            most.append(sum(ref() is not None for ref in alive))
            alive.append(weakref.ref(piece.dense[0]))
            yield piece
            del piece

    pieces = list(original(model, x, c, gram._plan.layout))
    assert [len(p.dense) for p in pieces] == [1, 1, 1] and not any(p.factors for p in pieces[1:])
    monkeypatch.setattr(engine, "tangent_pieces", watched)
    whole = engine.tangent_features(model, x, c, gram._plan.layout)
    assert relative(gram.dense(), engine.tangent_product(whole, whole)[:, 0, :, 0]) < 1e-6
    assert max(most) <= 1


def test_running_out_at_one_sample_is_an_error(digits, monkeypatch):
    model, x, c = digits
    running_out(monkeypatch, most=0)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        ntk.tangent_kernel(model, x, c)


@pytest.mark.parametrize("most", [40, 65, 110])
def test_a_stripe_that_does_not_fit_is_cut(digits, monkeypatch, most):
    """Let features of no more than so many samples be alive at once."""
    model, x, c = digits
    wanted = ntk.tangent_kernel(model, x, c, block_size=10)
    original, alive, highest = engine.tangent_features, [], []

    def few(model, x, *rest):
        highest.append(sum(n for dense, n in alive if dense() is not None))
        if highest[-1] + len(x) > most:
            highest.pop()
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        found = original(model, x, *rest)
        alive.append((weakref.ref(found.dense[0]), len(x)))
        return found

    monkeypatch.setattr(engine, "tangent_features", few)
    assert relative(ntk.tangent_kernel(model, x, c, block_size=10, memory=2**30), wanted) < 1e-6
    assert most - 20 < max(highest) <= most  # it was used


def test_precision_is_named_and_bf16_rounds(digits):
    model, x, c = digits
    exact = ntk.tangent_kernel(model, x, c)
    off = relative(ntk.tangent_kernel(model, x, c, precision="bf16"), exact)
    assert 1e-5 < off < 4e-3  # each factor has 8 significant bits: 2^-9 = 2e-3
    assert ntk.tangent_kernel(model, x, c, precision="bf16").dtype == torch.float32
    assert torch.equal(ntk.tangent_kernel(model, x, c, precision="tf32"), exact)  # a CPU has none
    with pytest.raises(ValueError, match=r"precision: got 'fp8'; wanted one of"):
        ntk.tangent_kernel(model, x, c, precision="fp8")
    with pytest.raises(ValueError, match=r"precision: got 'bf16' for a model in torch.float64"):
        ntk.tangent_kernel(model.double(), x, c, precision="bf16")


def test_bf16_products_are_those_of_rounded_features(digits):
    model, x, c = digits
    features = engine.tangent_features(model, x, c)
    rounded = features.rounded()
    back = type(features)(tuple(d.float() for d in rounded.dense), tuple((a.float(), b.float()) for a, b in rounded.factors))
    torch.testing.assert_close(engine.tangent_product(rounded, rounded), engine.tangent_product(back, back))


@pytest.mark.skipif(
    not hasattr(torch.backends.cudnn, "conv"), reason="one switch for each kind of product is there since torch 2.9"
)
def test_exactness_is_asked_for_and_undone(digits, monkeypatch):
    """PyTorch lets convolutions on a GPU round to TF32 unless told otherwise."""
    before = torch.backends.cudnn.conv.fp32_precision
    seen = []
    # inside both: where features are made, where they are multiplied, and where neither is
    for name in ("by_rules", "_product", "tangent_pieces"):
        original = getattr(tangents if name != "tangent_pieces" else engine, name)

        def look(*args, name=name, original=original, **settings):
            seen.append((name, torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision))
            return original(*args, **settings)

        monkeypatch.setattr(tangents if name != "tangent_pieces" else engine, name, look)
    model, x, c = digits
    outside = ("tangent_pieces", torch.backends.cuda.matmul.fp32_precision, before)
    for asked, value in (("exact", "ieee"), ("tf32", "tf32"), ("bf16", "tf32")):
        seen.clear()
        ntk.tangent_kernel(model, x, c, precision=asked)
        assert set(seen) == {outside, ("by_rules", value, value), ("_product", value, value)}
    assert torch.backends.cudnn.conv.fp32_precision == before
    torch.backends.cudnn.allow_tf32  # the older interface still answers


@pytest.mark.parametrize("count", [1, 4, 30])
@pytest.mark.parametrize("block_size", [7, 64, 300])
def test_top_partners_by_sorting(digits, count, block_size):
    model, x, c = digits
    matrix = ntk.tangent_kernel(model, x, c, block_size=block_size)
    found = ntk.Gram(model, x, c, block_size=block_size).reduce(TopPartners(count), progress=False)
    others = matrix.clone().fill_diagonal_(-torch.inf)
    value, index = others.sort(dim=1, descending=True, stable=True)
    assert torch.equal(found.value, value[:, :count])
    assert torch.equal(found.index, index[:, :count])
    assert torch.equal(found.own, matrix.diagonal())


def test_ties_go_to_the_lowest_index_in_any_order_of_blocks():
    matrix = torch.randint(0, 3, (40, 40)).float()
    matrix = matrix + matrix.T
    parts = [slice(i, i + 10) for i in range(0, 40, 10)]
    wanted = matrix.clone().fill_diagonal_(-torch.inf).sort(dim=1, descending=True, stable=True)
    blocks = [(r, c, matrix[r, c]) for r in parts for c in parts]
    for seed in range(5):
        order = torch.randperm(16, generator=torch.Generator().manual_seed(seed)).tolist()
        top = TopPartners(6)
        states = [top.begin(like(40, 40)) for _ in range(2)]
        for n, b in enumerate(order):
            top.fold(states[n % 2], *blocks[b])
        found = top.finish(top.merge(*states))
        assert torch.equal(found.index, wanted.indices[:, :6])
        assert torch.equal(found.value, wanted.values[:, :6])


@pytest.mark.parametrize("block_size", [7, 64])
def test_partners_of_two_sides_by_sorting(digits, block_size):
    """Which training samples speak for a test sample; equal numbers of blocks on either side are no diagonal."""
    model, x, c = digits
    gram = ntk.Gram(model, x[:70], c[:70], x[70:], c[70:], block_size=block_size)
    value, index = gram.dense().sort(dim=1, descending=True, stable=True)
    found = gram.reduce(TopPartners(3), progress=False)
    assert torch.equal(found.value, value[:, :3]) and torch.equal(found.index, index[:, :3])
    assert bool(found.own.isnan().all())
    assert gram[:, :2].shape == (70, 2)
    few = ntk.Gram(model, x[:70], c[:70], x[70:72], c[70:72]).reduce(TopPartners(9), progress=False)
    assert few.index.shape == (70, 2)


def test_features_of_the_training_side_are_kept_for_new_test_samples(digits, monkeypatch):
    model, x, c = digits
    train = ntk.Gram(model, x[:150], c[:150], block_size=64)
    assert train.keep()
    seen, original = [], engine.tangent_features

    def counting(model, x, *rest):
        seen.append(len(x))
        return original(model, x, *rest)

    monkeypatch.setattr(engine, "tangent_features", counting)
    for test in (slice(150, 180), slice(180, 210)):
        found = train.against(x[test], c[test])
        wanted = ntk.tangent_kernel(model, x[test], c[test], x[:150], c[:150])
        seen.clear()
        partners = found.reduce(TopPartners(5), progress=False)
        assert seen == [30]  # the training side is not touched
        assert torch.equal(partners.index, wanted.topk(5).indices)
        assert relative(found[3], wanted[3]) < 1e-6 and relative(found.dense(), wanted) < 1e-6
    train.release()
    little = ntk.Gram(model, x[:150], c[:150], memory=10_000)
    assert not little.keep()
    assert relative(little.against(x[test], c[test]).dense(), wanted) < 1e-6


def test_stacked_cotangents_have_no_partners(digits):
    model, x, _ = digits
    with pytest.raises(ValueError, match=r"reducer TopPartners: .*\(210, 210, 10, 10\); wanted one cotangent a sample"):
        ntk.Gram(model, x, ntk.basis).reduce(TopPartners(2), progress=False)


def test_alone_without_checkpoint_nothing_is_fingerprinted(digits, monkeypatch):
    monkeypatch.setattr("ntk_course.basics.fingerprints.of_tensor", lambda *a: 1 / 0)
    ntk.Gram(*digits).reduce(TopPartners(2), progress=False)


def test_more_partners_than_there_are():
    found = TopPartners(9)
    state = found.begin(like(4, 4))
    found.fold(state, slice(0, 4), slice(0, 4), torch.eye(4))
    assert found.finish(state).index.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_entry_is_seen(bad):
    block = torch.zeros(4, 4)
    block[1, 2] = bad
    with pytest.raises(ValueError, match="gram: got 1 non-finite"):
        TopPartners().fold(TopPartners().begin(like(8, 8)), slice(0, 4), slice(4, 8), block)


def test_histogram_counts_the_whole_matrix(digits):
    model, x, c = digits
    matrix = ntk.tangent_kernel(model, x, c, block_size=50)
    edges = tuple(matrix.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist())
    counts = ntk.Gram(model, x, c, block_size=50).reduce(ntk.gram.Histogram(edges), progress=False)
    bins = [sum(bool(v >= e) for e in torch.tensor(edges)) for v in matrix.flatten()]
    assert counts.tolist() == torch.bincount(torch.tensor(bins), minlength=4).tolist()
    for wrong in ((), (1.0, 1.0), (2.0, 1.0), (float("nan"),)):
        with pytest.raises(ValueError, match="edges: got .*wanted"):
            ntk.gram.Histogram(wrong)
    with pytest.raises(ValueError, match="count: got 0"):
        TopPartners(0)


def test_two_sides_reduce_too(digits):
    model, x, c = digits
    matrix = ntk.tangent_kernel(model, x[:30], c[:30], x[30:], c[30:])
    counts = ntk.Gram(model, x[:30], c[:30], x[30:], c[30:], block_size=16).reduce(ntk.gram.Histogram((0.0,)), progress=False)
    assert counts.tolist() == [int((matrix < 0).sum()), int((matrix >= 0).sum())]


class Stopping(TopPartners):
    """Partners, until the n-th block."""

    def __new__(cls, *args):
        return super().__new__(cls)

    def fold(self, state, rows, cols, block):
        Stopping.left -= 1
        if Stopping.left == 0:
            raise Stopping.how
        super().fold(state, rows, cols, block)


@pytest.mark.parametrize("how", [KeyboardInterrupt(), RuntimeError("the consumer's own")], ids=["Ctrl-C", "error"])
def test_a_stopped_reduction_goes_on_where_it_was(digits, how, tmp_path, monkeypatch):
    model, x, c = digits
    monkeypatch.setattr("ntk_course.gram.reduce._EVERY", 0.0)
    settings = {"checkpoint": tmp_path / "kept", "progress": False}
    wanted = ntk.Gram(model, x, c, block_size=20).reduce(TopPartners(3), progress=False)
    Stopping.how = how
    for left in (30, 20):  # of 66 tiles, 121 blocks
        Stopping.left = left
        with pytest.raises(type(how)):
            ntk.Gram(model, x, c, block_size=20).reduce(Stopping(3), **settings)
    assert len(list((tmp_path / "kept").glob("*.part"))) == 2
    Stopping.left = 10**9
    found = ntk.Gram(model, x, c, block_size=20).reduce(Stopping(3), **settings)
    assert 10**9 - Stopping.left < 121 - 40  # what was kept was not computed again
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert not (tmp_path / "kept").exists()


def test_a_checkpoint_keeps_how_it_began(tmp_path, monkeypatch):
    """With more memory a stopped reduction would form other gradients, in other blocks: it goes on with its own."""
    monkeypatch.setattr("ntk_course.gram.reduce._EVERY", 0.0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.Flatten(), nn.Linear(64, 10))
    x, c, little = torch.randn(200, 8, 2, 2), torch.randn(200, 10), {"block_size": 10, "memory": 2**16}
    wanted = ntk.Gram(model, x, c, **little).reduce(TopPartners(3), progress=False)
    other = ntk.Gram(model, x, c).reduce(TopPartners(3), progress=False)
    assert not torch.equal(wanted.value, other.value)
    Stopping.left, Stopping.how = 60, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        ntk.Gram(model, x, c, **little).reduce(Stopping(3), checkpoint=tmp_path / "kept", progress=False)
    Stopping.left = 10**9
    found = ntk.Gram(model, x, c).reduce(Stopping(3), checkpoint=tmp_path / "kept", progress=False)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_checkpoint_of_something_else_is_refused(digits, tmp_path, monkeypatch):
    model, x, c = digits
    monkeypatch.setattr("ntk_course.gram.reduce._EVERY", 0.0)
    settings = {"checkpoint": tmp_path / "kept", "progress": False}
    Stopping.left, Stopping.how = 30, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        ntk.Gram(model, x, c, block_size=20).reduce(Stopping(3), **settings)
    for change, word in (
        ({"model": ntk.mlp((64, 24, 10))}, "model"),
        ({"x": x.flip(0)}, "data"),
        ({"c": ntk.centred(c.values)}, "cotangent"),
        ({"c": ntk.labelled(c.values.flip(0))}, "cotangent"),
        ({"reducer": Stopping(4)}, "reducer"),
        ({"precision": "bf16"}, "precision"),
    ):
        arguments = {"reducer": Stopping(3), "model": model, "x": x, "c": c, "precision": "exact"} | change
        precise, reducer = arguments.pop("precision"), arguments.pop("reducer")
        with pytest.raises(ValueError, match=f"checkpoint: .* another {word}"):
            ntk.Gram(*arguments.values(), precision=precise, block_size=20).reduce(reducer, **settings)


def test_an_entry_on_an_edge_belongs_to_the_bin_above():
    state = ntk.gram.Histogram((0.0, 1.0)).begin(like(2, 2))
    ntk.gram.Histogram((0.0, 1.0)).fold(state, slice(0, 2), slice(0, 2), torch.tensor([[-1.0, 0.0], [0.5, 1.0]]))
    assert state["counts"].tolist() == [1, 2, 1]


def test_an_edge_between_two_neighbouring_floats_parts_them():
    below = torch.tensor([[1.0]])
    above = torch.nextafter(below, below + 1)
    state = ntk.gram.Histogram((1.0,)).begin(like(1, 1))
    for block in (below, above):
        ntk.gram.Histogram((1.0 + 1e-9,)).fold(state, slice(0, 1), slice(0, 1), block)
    assert state["counts"].tolist() == [1, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_histogram_counts_no_entry_that_is_no_number(bad):
    with pytest.raises(ValueError, match="gram: got 1 non-finite"):
        ntk.gram.Histogram((0.0,)).fold(
            ntk.gram.Histogram((0.0,)).begin(like(2, 2)), slice(0, 2), slice(0, 2), torch.tensor([[1.0, bad], [0.0, 2.0]])
        )


class RowMaximum:
    """A reducer as a user would write it: a plain class."""

    def __init__(self, scale, weights=None, rule=torch.amax):
        self.scale, self.weights, self.rule = scale, weights, rule

    def begin(self, gram):
        return {"most": torch.full(gram.shape[:1], -torch.inf)}

    def fold(self, state, rows, cols, block):
        state["most"][rows] = torch.maximum(state["most"][rows], self.rule(block, 1))
        if stop_at := self.scale.get("stop"):
            self.scale["stop"] = stop_at - 1
            if stop_at == 1:
                raise KeyboardInterrupt

    def merge(self, one, other):
        return {"most": torch.maximum(one["most"], other["most"])}

    def finish(self, state):
        return state["most"]

    def key(self):
        return str(self.scale["rows"])


def test_a_reducer_of_the_users_own_goes_on(digits, tmp_path, monkeypatch):
    model, x, c = digits
    monkeypatch.setattr("ntk_course.gram.reduce._EVERY", 0.0)
    settings = {"checkpoint": tmp_path / "kept", "progress": False}
    with pytest.raises(KeyboardInterrupt):
        ntk.Gram(model, x, c, block_size=20).reduce(RowMaximum({"rows": len(x), "stop": 30}), **settings)
    found = ntk.Gram(model, x, c, block_size=20).reduce(RowMaximum({"rows": len(x)}), **settings)
    assert torch.equal(found, ntk.tangent_kernel(model, x, c, block_size=20).amax(1))


class Plain:
    def __init__(self, *values):
        self.values = values


def test_reducers_are_told_apart_by_all_they_hold():
    edges = torch.linspace(0, 1, 2000, dtype=torch.float64)
    other = edges.clone()
    other[1000] += 1e-9
    things = [Plain(v) for v in (1, 1.0, True, "1", None, [1], [[1], 2], [1, [2]], {"a": 1}, {"a": 2}, torch.amax, torch.amin)]
    things += [Plain(v) for v in (edges, other, edges.numpy(), edges.float(), edges.tolist(), torch.float32, slice)]
    things += [ntk.gram.Histogram(edges), ntk.gram.Histogram(other), TopPartners(3), TopPartners(4), Stopping(3)]
    digests = [fingerprints.of_object(thing) for thing in things]
    assert len(set(digests)) == len(digests)
    assert digests == [fingerprints.of_object(copy.deepcopy(thing)) for thing in things]
    assert fingerprints.of_object(Plain({"a": 1, "b": 2})) == fingerprints.of_object(Plain({"b": 2, "a": 1}))
    for unknown in (lambda block: block, object(), torch.Generator()):
        with pytest.raises(TypeError, match="values.* cannot be told from others; wanted"):
            fingerprints.of_object(Plain(unknown))
