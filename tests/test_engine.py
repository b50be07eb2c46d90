"""The Gram engine: blocks, symmetry, definiteness, identities, the plan chooser, and its errors."""

import pytest
import torch
from conftest import relative
from torch import nn

import ntk_course as ntk


@pytest.fixture
def setting():
    x, y = torch.randn(23, 1, 8, 8, dtype=torch.float64), torch.randint(0, 10, (23,))
    return ntk.small_cnn().double(), x, y


@pytest.mark.parametrize("block_size", [1, 4, 23, 100])
@pytest.mark.parametrize("memory", [1, 2**14, 2**31], ids=["a row at a time", "some rows", "all rows"])
def test_blocks_cover_every_pair_once(setting, block_size, memory):
    model, x, y = setting
    c = ntk.signs(y, 10).double()
    whole = ntk.tangent_kernel(model, x, c, block_size=23)
    for other in (None, 7):
        x2, c2 = (None, None) if other is None else (x[:other], c[:other])
        count = torch.zeros(23, other or 23)
        for rows, cols, block in ntk.Gram(model, x, c, x2, c2, block_size=block_size, memory=memory).blocks():
            count[rows, cols] += 1
            assert max(block.shape) <= block_size
            assert relative(block, whole[rows, cols]) < 1e-12
        assert bool((count == 1).all())


def test_stacked_blocks_and_their_transposes(setting):
    model, x, _ = setting
    whole = ntk.entk(model, x, block_size=23)
    small = ntk.entk(model, x, block_size=5)
    assert relative(small, whole) < 1e-12
    assert relative(small, small.permute(1, 0, 3, 2)) < 1e-12


def test_symmetric_and_positive_semidefinite(setting):
    model, x, y = setting
    matrix = ntk.entk(model, x).permute(0, 2, 1, 3).reshape(230, 230)
    for gram in (ntk.lpntk(model, x, y), ntk.pntk(model, x), matrix):
        assert relative(gram, gram.T) < 1e-14
        values = torch.linalg.eigvalsh((gram + gram.T) / 2)
        assert values[0] > -1e-12 * values[-1]


def test_identities(setting):
    model, x, y = setting
    full, s = ntk.entk(model, x), ntk.signs(y, 10).double()
    assert relative(ntk.lpntk(model, x, y), torch.einsum("nmij,ni,mj->nm", full, s, s) / 10) < 1e-12
    assert relative(ntk.pntk(model, x), full.sum((2, 3)) / 10) < 1e-12
    e_y = ntk.logit(y)
    assert relative(ntk.tangent_kernel(model, x, e_y), full[torch.arange(23)[:, None], torch.arange(23), y[:, None], y]) < 1e-12
    # cotangents are linear: the kernel of a sum is the sum of the kernels
    one, two = torch.randn(23, 10, dtype=torch.float64), torch.randn(23, 10, dtype=torch.float64)
    fixed = (x[:3], s[:3])
    summed = ntk.tangent_kernel(model, x, one, *fixed) + ntk.tangent_kernel(model, x, two, *fixed)
    assert relative(ntk.tangent_kernel(model, x, one + two, *fixed), summed) < 1e-12
    # the loss-gradient kernel has the squared gradient norms of GraNd on its diagonal
    error = ntk.loss_gradient(y)
    params = list(model.parameters())
    for n in (0, 5):
        loss = nn.functional.cross_entropy(model(x[n : n + 1]), y[n : n + 1])
        norm = sum((g**2).sum() for g in torch.autograd.grad(loss, params))
        assert torch.isclose(ntk.tangent_kernel(model, x, error)[n, n], norm)


def test_plan_counts_operations():
    from ntk_course.tangents import explicit_is_cheaper as explicit

    for t, p, q, pairs, r in [
        (784, 25, 6, 256, 1),
        (1, 400, 120, 256, 1),
        (16, 4608, 512, 64, 1),
        (4, 30, 20, 3, 2),
        (2, 9, 9, 5, 10),
        (4, 9, 9, 0.2, 10),
    ]:
        formed = r * t * p * q / pairs + r * r * p * q
        kept = t * t * p + t * t * r * r * q + t * t * r * r
        assert explicit(t, p, q, pairs, r) == (formed <= kept)
    assert explicit(784, 25, 6, 256) and not explicit(1, 400, 120, 256)
    assert explicit(100, 150, 16, 256) and not explicit(16, 4608, 512, 25_000)
    # forming pays only when it is shared by enough pairs
    assert explicit(3, 20, 20, 1e9) is False and explicit(4, 20, 20, 1e9) and not explicit(4, 20, 20, 1)


def test_workspace_of_a_product_is_bounded(monkeypatch):
    """Products over positions go through a few rows at a time when they must, with the same result."""
    model, x = ntk.small_cnn().double(), torch.randn(6, 1, 8, 8, dtype=torch.float64)
    monkeypatch.setattr("ntk_course.tangents.layout.explicit_is_cheaper", lambda *a: False)
    whole = ntk.entk(model, x)
    monkeypatch.setattr("ntk_course.tangents.features._WORKSPACE", {"cpu": 1})
    assert relative(ntk.entk(model, x), whole) < 1e-13


def test_features_stay_small():
    """A Gram matrix of a wide layer must not form its gradients: 2,000 x 2,000 weights, 64 samples."""
    from ntk_course.tangents.features import tangent_features

    model = ntk.mlp((2000, 2000, 2))
    features = tangent_features(model, torch.randn(64, 2000), torch.randn(64, 1, 2))
    assert features.numel() < 64 * 20_000 < 64 * sum(p.numel() for p in model.parameters())


class Tuple(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize(
    ("model", "change", "words"),
    [
        (None, {"y1": torch.full((5,), 10)}, ["y1", "10 to 10", "0 to 9"]),
        (None, {"y1": torch.tensor([0, 1, 2, 3, -1])}, ["y1", "-1", "0 to 9"]),
        (None, {"y1": torch.zeros(4, dtype=torch.int64)}, ["y1", "(4,)", "(5,)"]),
        (None, {"y1": torch.zeros(5)}, ["y1", "float32", "integer"]),
        (None, {"y1": torch.zeros(5, dtype=torch.int64, device="meta")}, ["y1"]),
        (None, {"x1": torch.zeros(5)}, ["x1", "(5,)", "(N, ...)"]),
        (None, {"x1": torch.zeros(5, 7)}, ["x1", "(7,)", "model takes"]),
        (None, {"x1": torch.zeros(0, 6)}, ["x1", "N = 0", "at least one"]),
        (None, {"x1": [[0.0]]}, ["x1", "list", "Tensor"]),
        (None, {"x1": torch.full((5, 6), float("nan"))}, ["x1", "30 non-finite", "finite"]),
        (None, {"x1": torch.zeros(5, 6, device="meta")}, ["x1", "got device meta", "cpu"]),
        (None, {"x2": torch.zeros(5, 6)}, ["y2", "None", "together"]),
        (None, {"x2": torch.zeros(5, 2, 3), "y2": torch.zeros(5, dtype=torch.int64)}, ["x2", "(2, 3)", "(6,)"]),
        (ntk.mlp((6, 10)), {"x2": torch.zeros(5, 2, 3), "y2": torch.arange(5)}, ["x2", "(2, 3)", "(6,)"]),
        (None, {"block_size": 0}, ["block_size", "0", "at least 1"]),
        (None, {"memory": -1}, ["memory", "-1", "at least 1"]),
        (nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 10)), {}, ["'0'", "BatchNorm1d", "eval()"]),
        (nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 10)).eval(), {}, ["BatchNorm1d", "batch"]),
        (nn.Sequential(nn.Dropout(), nn.Linear(6, 10)), {}, ["Dropout", "random", "eval()"]),
        (Tuple(6, 10), {}, ["tuple", "logits"]),
        (nn.Sequential(nn.Linear(6, 10), nn.Flatten(0)), {}, ["model", "(10,)", "(1, K)"]),
        (nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Linear(3, 10)), {}, ["y1", "(5,)", "(5, 2)", "(5, 2, 10)"]),
        (nn.Linear(6, 10).requires_grad_(False), {}, ["model", "no trainable"]),
        (nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 10).double()), {}, ["model", "float64"]),
        (nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 10, device="meta")), {}, ["model", "meta"]),
    ],
)
def test_bad_input_is_named(model, change, words):
    model = model or nn.Linear(6, 10)
    arguments = {"x1": torch.randn(5, 6), "y1": torch.arange(5)} | change
    with pytest.raises((TypeError, ValueError)) as caught:
        ntk.lpntk(model, **arguments)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "wanted" in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bad_weights_are_named(value):
    model = nn.Linear(6, 10)
    model.weight.data[0, 0] = value
    with pytest.raises(ValueError, match=r"model parameter weight: got 1 non-finite.*wanted finite"):
        ntk.pntk(model, torch.randn(5, 6))


def test_numbers_whose_sum_overflows_are_finite():
    model = nn.Linear(6, 10)
    x = torch.full((5, 6), 3e38)
    assert not torch.isfinite(x.sum())
    with pytest.raises(ValueError, match="x1: got 1 non-finite"):
        ntk.pntk(model, x.index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(-torch.inf)))
    ntk.Gram(model, x, torch.ones(5, 10)).blocks()  # the input is taken


@pytest.mark.parametrize("c", [torch.zeros(5, 9), torch.zeros(4, 10), torch.zeros(10), torch.zeros(5, 0, 10)])
def test_bad_cotangents_are_named(c):
    with pytest.raises(ValueError, match=r"c1: got shape .*wanted \(5, 10\)"):
        ntk.tangent_kernel(nn.Linear(6, 10), torch.randn(5, 6), c)
    with pytest.raises(ValueError, match="c2: got None"):
        ntk.tangent_kernel(nn.Linear(6, 10), torch.randn(5, 6), torch.zeros(5, 10), torch.randn(5, 6))


def test_dtype_follows_the_model():
    model, x = nn.Linear(6, 10).double(), torch.randn(5, 6)
    assert ntk.pntk(model, x).dtype == torch.float64
    assert ntk.pntk(model.float(), x.double()).dtype == torch.float32
