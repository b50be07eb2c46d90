"""Infinitely wide networks: against another implementation, quadrature, identities, and finite networks."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from conftest import relative

import ntk_course as ntk
from ntk_course.kernels.infinite.activations import SMOOTH, expectations
from ntk_course.kernels.infinite.convolutional import cntk
from ntk_course.kernels.infinite.dense import mlp, network

STORED = json.loads((Path(__file__).parent / "reference/infinite.json").read_text())
ABOUT = ("activation", "depth", "w_std", "b_std")


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def name(row):
    return " ".join(str(v) for k, v in row.items() if k not in ("nngp", "ntk"))


@pytest.mark.parametrize("row", STORED["mlp"], ids=name)
def test_mlp_equals_neural_tangents(row):
    options = {key: row[key] for key in (*ABOUT, "parameterization", "width")}
    found = mlp(tensor(STORED["x1"]), tensor(STORED["x2"]), **options)
    assert relative(found.nngp, tensor(row["nngp"])) < 1e-12
    assert relative(found.ntk, tensor(row["ntk"])) < 1e-12


@pytest.mark.parametrize("activation", ["relu", "erf", "gelu", "silu"])
@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
def test_tiles_change_nothing(monkeypatch, activation, parameterization):
    x, other = torch.randn(23, 6, dtype=torch.float64), torch.randn(9, 6, dtype=torch.float64)
    options = {"depth": 2, "activation": activation, "w_std": 1.3, "b_std": 0.2, "parameterization": parameterization}
    options["width"] = None if parameterization == "ntk" else 50
    whole, two = mlp(x, **options), mlp(x, other, **options)
    monkeypatch.setattr("ntk_course.kernels.infinite.composed._CACHED", 25)
    for small, large in zip((*mlp(x, **options), *mlp(x, other, **options)), (*whole, *two), strict=True):
        assert relative(small, large) < 1e-14
    tiled = mlp(x, **options)
    assert all(torch.equal(kernel, kernel.T) for kernel in tiled)


def test_memory_of_a_large_matrix_is_that_of_its_tiles():
    """Twice as many samples take four times the result, and no more than that beside it."""
    from torch.profiler import ProfilerActivity, profile

    held = []
    for n in (2048, 4096):
        x = torch.randn(n, 4)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            mlp(x, depth=1)
        events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
        sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
        held.append(max(itertools.accumulate(sizes)) - 2 * 4 * n * n)
    assert held[1] < 1.2 * held[0]


def test_numpy_is_taken_as_it_is():
    x = torch.randn(7, 5, dtype=torch.float64)
    for kernel, images in ((lambda x, y: mlp(x, y, depth=2), x), (lambda x, y: cntk(x, y, depth=2), x.view(7, 1, 1, 5))):
        for a, b in zip(kernel(images.numpy(), images[:2].numpy()), kernel(images, images[:2]), strict=True):
            assert isinstance(a, torch.Tensor) and torch.equal(a, b)
    with pytest.raises(TypeError, match="x1: got list; wanted a floating-point tensor"):
        mlp([[1.0]], depth=1)


@pytest.mark.parametrize("row", STORED["cntk"], ids=name)
def test_cntk_equals_neural_tangents(row):
    found = cntk(*map(tensor, STORED["images"]), **{key: row[key] for key in (*ABOUT, "pooling")})
    assert relative(found.nngp, tensor(row["nngp"])) < 1e-12
    assert relative(found.ntk, tensor(row["ntk"])) < 1e-12


@pytest.mark.parametrize("activation", [*SMOOTH, "erf", "gelu"])
@pytest.mark.parametrize(("k11", "k22", "c"), [(0.8, 1.3, 0.6), (2.5, 0.3, -0.9), (1.0, 1.0, 0.999)])
def test_expectations_by_quadrature_in_two_dimensions(activation, k11, k22, c):
    z = torch.linspace(-9, 9, 1201, dtype=torch.float64)
    w = (-z.square() / 2).exp()
    w = w[:, None] * w / w.sum() ** 2
    u = (k11**0.5 * z)[:, None].expand(len(z), len(z))
    v = k22**0.5 * (c * z[:, None] + (1 - c * c) ** 0.5 * z)
    f = {"erf": torch.erf, "gelu": torch.nn.functional.gelu, **SMOOTH}[activation]
    u, v = u.clone().requires_grad_(), v.clone().requires_grad_()
    fu, fv = f(u), f(v)
    du, dv = torch.autograd.grad(fu.sum(), u)[0], torch.autograd.grad(fv.sum(), v)[0]
    value, slope = expectations(activation, *map(tensor, (c * (k11 * k22) ** 0.5, k11, k22)))
    torch.testing.assert_close(value, (w * fu * fv).sum(), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(slope, (w * du * dv).sum(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "abs", "gelu", "tanh", "silu"])
def test_mean_of_finite_networks(activation):
    """The mean tangent kernel of wide networks lies within five of its own standard errors."""
    torch.manual_seed(0)
    x = torch.randn(4, 6, dtype=torch.float64)
    draws = torch.stack([ntk.entk(network((6, 256, 256, 1), activation, 1.2, 0.5).double(), x)[..., 0, 0] for _ in range(60)])
    wanted = mlp(x, depth=2, activation=activation, w_std=1.2, b_std=0.5).ntk
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - wanted).abs() < 5 * error).all()
    assert (error < 0.05 * wanted.diagonal().mean()).all()


def test_standard_parameterization_of_a_finite_network():
    torch.manual_seed(0)
    x, grams = torch.randn(3, 5, dtype=torch.float64), []
    for _ in range(80):
        model = ntk.mlp((5, 200, 1)).double()
        for layer in (model[1], model[3]) if isinstance(model[1], torch.nn.Linear) else (model[0], model[2]):
            torch.nn.init.normal_(layer.weight, std=1.2 / layer.in_features**0.5)
            torch.nn.init.normal_(layer.bias, std=0.3)
        grams.append(ntk.entk(model, x)[..., 0, 0])
    draws = torch.stack(grams)
    wanted = mlp(x, depth=1, w_std=1.2, b_std=0.3, parameterization="standard", width=200).ntk
    assert ((draws.mean(0) - wanted).abs() < 5 * draws.std(0) / 80**0.5).all()


def test_images_of_one_pixel_are_vectors():
    x1, x2 = torch.randn(4, 3, 1, 1).double(), torch.randn(2, 3, 1, 1).double()
    wanted = mlp(x1, x2, depth=3, w_std=1.3, b_std=0.2)
    for pooling in ("flatten", "average"):
        found = cntk(x1, x2, depth=3, w_std=1.3, b_std=0.2, kernel_size=1, pooling=pooling)
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("pooling", ["flatten", "average"])
def test_blocks_and_symmetry_of_the_cntk(pooling):
    x = torch.randn(5, 2, 4, 3)
    whole = cntk(x, x, depth=2, pooling=pooling)
    for memory in (1, 10_000):
        some = cntk(x, depth=2, pooling=pooling, memory=memory)
        assert some.ntk.dtype == torch.float32
        torch.testing.assert_close(some, whole)
        assert torch.equal(some.ntk, some.ntk.T)


@pytest.mark.parametrize("activation", ["relu", "abs", "erf", "gelu", "tanh"])
def test_definite_and_consistent(activation):
    torch.manual_seed(0)
    x = torch.randn(20, 6, dtype=torch.float64)
    own, twice = (mlp(x, *others, depth=4, activation=activation, w_std=1.2, b_std=0.1) for others in ((), (x,)))
    for one, other in zip(own, twice, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(one, one.T)
        assert torch.linalg.eigvalsh(one)[0] > 0


@pytest.mark.parametrize("activation", ["relu", "erf", "gelu", "tanh"])
def test_an_input_of_zeros(activation):
    x = torch.stack([torch.zeros(5), torch.ones(5)]).double()
    for kernel in mlp(x, depth=2, activation=activation):
        assert torch.isfinite(kernel).all()
        assert kernel[0].abs().max() < 1e-12  # odd activations or not: GELU and ReLU vanish at 0 too


def test_bad_input():
    x = torch.randn(3, 4)
    for wrong, words in (
        ({"depth": 0}, "depth: got 0"),
        ({"depth": 1, "activation": "swish"}, "activation: got 'swish'; wanted one of"),
        ({"depth": 1, "parameterization": "mup"}, "parameterization: got 'mup'"),
        ({"depth": 1, "parameterization": "standard"}, "width: got None with 'standard'"),
        ({"depth": 1, "width": 5}, "width: got 5 with 'ntk'"),
        ({"depth": 1, "x2": torch.randn(3, 5)}, "x2: got samples of 5 numbers; wanted 4"),
        ({"depth": 1, "x2": torch.full((3, 4), torch.nan)}, r"x2: got 12 non-finite value\(s\)"),
        ({"depth": 1, "x2": torch.ones(3, 4).long()}, "x2: got torch.int64; wanted a floating-point tensor"),
        ({"depth": 1, "x2": torch.ones(0, 4)}, "x2: got N = 0 samples"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            mlp(x, **wrong)
    with pytest.raises(ArithmeticError, match="wanted a smaller w_std"):
        mlp(100 * x, depth=1, activation="tanh")
    images = torch.randn(2, 1, 4, 4)
    for wrong, words in (
        ({"pooling": "max"}, "pooling: got 'max'"),
        ({"kernel_size": 2}, "kernel_size: got 2; wanted an odd number"),
        ({"x2": torch.randn(2, 1, 4, 5)}, "x2: got images of shape"),
        ({"x2": torch.randn(2, 4)}, "x2: got images of shape .4,.; wanted"),
    ):
        with pytest.raises(ValueError, match=words):
            cntk(images, depth=1, **wrong)
    with pytest.raises(ValueError, match="activation: got 'swish'"):
        network((3, 4, 1), "swish")
