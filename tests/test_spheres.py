"""Spectra on spheres: closed forms, traces, Gram matrices of random points, and regression there."""

import math

import pytest
import torch
from scipy.special import eval_gegenbauer, iv

import ntk_course as ntk
from ntk_course.analysis import kernel_ridge, learning_curve, sphere_spectrum
from ntk_course.kernels import infinite


def points(n, d, seed=0):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True)


def exponential(a, b):
    return (a @ b.T).exp()


def relu(depth, b_std, which="ntk"):
    return lambda a, b: getattr(infinite.mlp(a, b, depth=depth, w_std=2**0.5, b_std=b_std), which)


@pytest.mark.parametrize("d", [2, 3, 4, 7, 30])
def test_exponential_kernel_has_bessel_functions(d):
    found = sphere_spectrum(exponential, d, 8).eigenvalues
    nu = d / 2 - 1
    wanted = [math.gamma(d / 2) * 2**nu * iv(ell + nu, 1.0) for ell in range(9)]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("d", [2, 3, 5, 12])
def test_eigenvalues_add_up_to_the_kernel(d):
    """At every angle: the addition theorem, and at angle 0 the trace."""
    values, counts = sphere_spectrum(exponential, d, 30)
    t = torch.linspace(-1, 1, 9, dtype=torch.float64)
    whole = torch.zeros_like(t)
    for ell, (value, count) in enumerate(zip(values, counts, strict=True)):
        if d == 2:
            legendre = torch.cos(ell * t.acos())
        else:
            legendre = torch.from_numpy(eval_gegenbauer(ell, d / 2 - 1, t.numpy()) / eval_gegenbauer(ell, d / 2 - 1, 1.0))
        whole += value * count * legendre
    torch.testing.assert_close(whole, t.exp(), rtol=1e-10, atol=1e-10)


def test_multiplicities():
    assert sphere_spectrum(exponential, 2, 4).multiplicities.tolist() == [1, 2, 2, 2, 2]
    assert sphere_spectrum(exponential, 3, 4).multiplicities.tolist() == [1, 3, 5, 7, 9]
    assert sphere_spectrum(exponential, 4, 4).multiplicities.tolist() == [1, 4, 9, 16, 25]
    assert sphere_spectrum(exponential, 10, 2).multiplicities.tolist() == [1, 10, 54]


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("d", [2, 3, 6])
def test_gram_matrices_of_random_points_have_these_eigenvalues(d, depth):
    values, counts = sphere_spectrum(relu(depth, 0.5), d, 3, radius=d**0.5)
    x = d**0.5 * points(2500, d)
    found = torch.linalg.eigvalsh(relu(depth, 0.5)(x, x)).flip(0) / len(x)
    order = values.argsort(descending=True)[:3]
    at = 0
    for ell in order.tolist():  # means over a degree's eigenvalues: single ones spread
        count = int(counts[ell])
        assert float(found[at : at + count].mean()) == pytest.approx(float(values[ell]), rel=0.06)
        at += count


def test_without_biases_one_hidden_layer_sees_no_odd_harmonics():
    """Basri et al. (2019): of the odd degrees only the first is left, and even ones fall like a power."""
    values = sphere_spectrum(relu(1, 0.0), 3, 12).eigenvalues
    assert values[3::2].abs().max() < 1e-14
    assert (values[[0, 1, 2, 4, 6, 8, 10, 12]] > 1e-5).all()
    with_bias = sphere_spectrum(relu(1, 1.0), 3, 12).eigenvalues
    assert (with_bias > 1e-5).all()


@pytest.mark.parametrize(("d", "which", "power"), [(2, "ntk", -2), (3, "ntk", -3), (3, "nngp", -5), (5, "ntk", -5)])
def test_powers_of_the_decay(d, which, power):
    """Bietti and Mairal (2019): degree^-d for the NTK, degree^-(d + 2) for the NNGP, whose kernel is smoother by one degree."""
    values = sphere_spectrum(relu(1, 0.0, which), d, 80).eigenvalues[40::2]
    ell = torch.arange(40, 81, 2, dtype=torch.float64)
    slope = (values[-1] / values[0]).log() / (ell[-1] / ell[0]).log()
    assert float(slope) == pytest.approx(power, abs=0.2)


@pytest.mark.parametrize(("n", "ridge"), [(20, 0.0), (60, 0.0), (60, 0.3)])
def test_regression_on_a_sphere_of_ten_dimensions_is_as_predicted(n, ridge):
    """Harmonics are not independent variables, as the theory's are: it is right to a tenth here, and not in four dimensions."""
    d = 10
    spectrum = sphere_spectrum(relu(1, 0.5), d, 200, radius=d**0.5)
    v = torch.zeros(201, dtype=torch.float64)
    v[1] = v[2] = 1.0

    def target(x):  # a harmonic of degree 1, and one of degree 2, each of mean square one
        t = x[:, 0] / d**0.5
        return t * d**0.5 + (d * t**2 - 1) / (2 * (d - 1) / (d + 2)) ** 0.5

    predicted = learning_curve(spectrum.eigenvalues.clamp(min=0), v, n, ridge=ridge, multiplicities=spectrum.multiplicities)
    errors = []
    for seed in range(100):
        x, new = (d**0.5 * points(n + 500, d, seed)).split([n, 500])
        fit = kernel_ridge(relu(1, 0.5)(x, x), target(x), ridge)
        errors.append(float((fit.predict(relu(1, 0.5)(new, x)) - target(new)).square().mean()))
    found = torch.tensor(errors)
    error = float(found.std()) / len(found) ** 0.5
    assert float(found.mean()) == pytest.approx(predicted.test_error, abs=3 * error + 0.1 * predicted.test_error)


def test_groups_are_their_members():
    lam, many = torch.tensor([1.0, 0.2, 0.05], dtype=torch.float64), torch.tensor([1, 3, 6])
    v = torch.tensor([0.7, 0.5, 0.1], dtype=torch.float64)
    grouped = learning_curve(lam, v, 4, ridge=0.1, noise=0.2, multiplicities=many)
    single = learning_curve(
        lam.repeat_interleave(many), (v / many.double().sqrt()).repeat_interleave(many), 4, ridge=0.1, noise=0.2
    )
    assert grouped.test_error == pytest.approx(single.test_error, rel=1e-12)
    assert grouped.training_error == pytest.approx(single.training_error, rel=1e-12)
    torch.testing.assert_close(grouped.learnabilities.repeat_interleave(many), single.learnabilities)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"dimension": 1}, "dimension: got 1"),
        ({"degree": -1}, "degree: got -1"),
        ({"radius": 0.0}, "radius: got 0.0"),
        ({"kernel": lambda a, b: a @ b.T + a[:, :1]}, "kernel: got other values when both points are turned"),
        ({"kernel": lambda a, b: (a @ b.T)[0]}, "kernel: got .*wanted"),
        ({"kernel": lambda a, b: (a @ b.T) / 0}, "kernel: got .*finite"),
    ],
)
def test_errors_name_the_argument(bad, words):
    given = {"kernel": exponential, "dimension": 3, "degree": 4} | bad
    with pytest.raises(ValueError, match=f"^{words}"):
        sphere_spectrum(given.pop("kernel"), given.pop("dimension"), given.pop("degree"), **given)
    assert ntk.analysis.sphere_spectrum is sphere_spectrum


def test_multiplicities_that_do_not_fit():
    with pytest.raises(ValueError, match="^multiplicities: got"):
        learning_curve(torch.ones(3), torch.ones(3), 2, multiplicities=torch.ones(4))
    with pytest.raises(ValueError, match="^samples: got 4 without a ridge for 4"):
        learning_curve(torch.ones(2), torch.ones(2), 4, multiplicities=torch.tensor([1, 3]))
