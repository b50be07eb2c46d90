"""Every kernel against a brute-force torch.autograd Jacobian, for every model and for the traps."""

import warnings

import pytest
import torch
from conftest import jacobian, relative
from torch import nn
from torch.nn import functional as F
from zoo import CASES, settled_resnet

import ntk_course as ntk
from ntk_course.tangents.features import tangent_features, tangent_product
from ntk_course.tangents.layout import Layout
from ntk_course.tangents.probe import probe

BOUND = {torch.float64: 1e-10, torch.float32: 1e-5}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_kernels_equal_brute_force(name, dtype):
    build, shape = CASES[name]
    model = build().double()
    x1, x2 = torch.randn(5, *shape, dtype=torch.float64), torch.randn(3, *shape, dtype=torch.float64)
    j1, j2 = jacobian(model, x1), jacobian(model, x2)
    k = j1.shape[1]
    y1, y2 = torch.randint(0, k, (5,)), torch.randint(0, k, (3,))
    full = torch.einsum("nid,mjd->nmij", j1, j2)
    s1, s2 = 2 * F.one_hot(y1, k).double() - 1, 2 * F.one_hot(y2, k).double() - 1
    c1, c2 = torch.randn(5, k, dtype=torch.float64), torch.randn(3, k, dtype=torch.float64)

    model, x1, x2 = model.to(dtype), x1.to(dtype), x2.to(dtype)
    own = list(model.parameters())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")  # another test's files, closed by the garbage collector, are no note of ours
        warnings.simplefilter("always", UserWarning)
        got = {
            "entk": ntk.entk(model, x1, x2),
            "pntk": ntk.pntk(model, x1, x2),
            "lpntk": ntk.lpntk(model, x1, y1, x2, y2),
            "tangent": ntk.tangent_kernel(model, x1, c1, x2, c2),
        }
        symmetric = ntk.lpntk(model, x1, y1, block_size=2)
    wanted = {
        "entk": full,
        "pntk": full.sum((2, 3)) / k,
        "lpntk": torch.einsum("nmij,ni,mj->nm", full, s1, s2) / k,
        "tangent": torch.einsum("nmij,ni,mj->nm", full, c1, c2),
    }
    assert all(p is q for p, q in zip(model.parameters(), own, strict=True))
    for kernel, value in got.items():
        assert value.dtype == dtype and not value.requires_grad
        assert relative(value.double(), wanted[kernel]) < BOUND[dtype], kernel
    signed = torch.einsum("nid,ni->nd", j1, s1)
    assert relative(symmetric.double(), signed @ signed.T / k) < BOUND[dtype]
    assert set(ntk.Gram(model, x1, ntk.ones).routes.values()) <= {"rule", "none"}
    assert not [(str(w.message), w.filename, w.lineno) for w in caught]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_full_resnet18_equals_brute_force(dtype):
    model = settled_resnet(64).to(dtype)
    x, y = torch.randn(3, 3, 32, 32, dtype=dtype), torch.tensor([3, 0, 9])
    got = ntk.lpntk(model, x, y).double()
    phi = jacobian(model.double(), x.double(), ntk.labelled(y)(torch.zeros(3, 10).double()))[:, 0]
    assert relative(got, phi @ phi.T) < BOUND[dtype]
    one = jacobian(model, x[:1].double())[0]
    assert relative(ntk.entk(model.to(dtype), x[:1])[0, 0].double(), one @ one.T) < BOUND[dtype]


@pytest.mark.parametrize("pairs", [1e-9, 1e12], ids=["factored", "explicit where cheaper"])
@pytest.mark.parametrize("name", ["lenet5", "convolutions", "called twice", "resnet18, width 8"])
def test_both_plans_agree(name, pairs, monkeypatch):
    """The same features whether gradients are formed or kept in factors, also for stacked cotangents."""
    build, shape = CASES[name]
    model = build().double()
    monkeypatch.setattr("ntk_course.tangents.layout.explicit_is_cheaper", lambda *a: pairs > 1)
    if name == "lenet5":
        shape = (1, 28, 28)
    x = torch.randn(2, *shape, dtype=torch.float64)
    c = torch.randn(2, 2, model(x).shape[1], dtype=torch.float64)
    features = tangent_features(model, x, c)
    phi = jacobian(model, x, c)
    assert relative(tangent_product(features, features), torch.einsum("nrd,msd->nrms", phi, phi)) < 1e-10
    formed = features.width == phi.shape[2]
    assert formed == (pairs > 1) and bool(features.factors) == (pairs < 1)


@pytest.mark.filterwarnings("ignore:tangents of")
@pytest.mark.parametrize("name", CASES)
def test_numbers_are_known_before_any_feature_is(name):
    build, shape = CASES[name]
    model, x = build(), torch.randn(4, *shape)
    known = probe(model, x)
    for pairs in (0.5, 20.0, 1e12):
        for cotangents in (1, 3):
            layout = Layout.choose(known, pairs, cotangents)
            features = tangent_features(model, x, torch.randn(4, cotangents, known.num_outputs), layout)
            assert 4 * layout.numbers(cotangents) == features.numel()


def test_overwritten_layer_input_is_not_trusted():
    """A layer whose input is changed in place afterwards: the features must come from the values it really saw."""

    class Overwritten(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Linear(6, 3), nn.LayerNorm(3)

        def forward(self, x):
            x = x.clone()
            z = self.first(x)
            x.mul_(0)  # autograd itself refuses this; silently wrong numbers would be worse
            return z

    with pytest.raises(RuntimeError, match="modified by an inplace operation"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ntk.pntk(Overwritten(), torch.randn(4, 6))


def test_checkpointed_block():
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.last(torch.tanh(checkpoint(self.first, x, use_reentrant=False)))

    model, x = Checkpointed().double(), torch.randn(4, 6, dtype=torch.float64)
    j = jacobian(model, x)
    assert relative(ntk.entk(model, x), torch.einsum("nid,mjd->nmij", j, j)) < 1e-10


def test_ambient_grad_modes_do_not_matter():
    model, x, y = ntk.small_cnn(), torch.randn(6, 1, 8, 8), torch.arange(6)
    wanted = ntk.lpntk(model, x, y)
    with torch.no_grad():
        assert torch.equal(ntk.lpntk(model, x, y), wanted)
    with torch.inference_mode():
        assert torch.equal(ntk.lpntk(model, x.clone(), y), wanted)
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())
