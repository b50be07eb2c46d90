"""Learning curves from spectra: conservation, limits, and Monte Carlo regression with a spectrum that is known."""

import math

import pytest
import torch

import ntk_course as ntk
from ntk_course.analysis import kernel_ridge, learning_curve, leave_one_out, risk_estimate


def spectrum(count=200, power=1.5):
    return torch.arange(1, count + 1, dtype=torch.float64) ** -power


def target(count=200, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator=g, dtype=torch.float64) * spectrum(count, 0.7)


@pytest.mark.parametrize("n", [1, 5, 40, 190])
def test_learnabilities_add_up_to_the_samples(n):
    curve = learning_curve(spectrum(), target(), n)
    assert float(curve.learnabilities.sum()) == pytest.approx(n, rel=1e-9)
    assert ((curve.learnabilities > 0) & (curve.learnabilities < 1)).all()
    assert curve.training_error == 0
    with_ridge = learning_curve(spectrum(), target(), n, ridge=0.3)
    assert float(with_ridge.learnabilities.sum()) + 0.3 / with_ridge.constant == pytest.approx(n, rel=1e-9)
    assert (with_ridge.learnabilities < curve.learnabilities).all()


@pytest.mark.parametrize("features", ["gaussian", "signs"])
@pytest.mark.parametrize(("n", "ridge", "noise"), [(10, 0.0, 0.0), (40, 0.0, 0.1), (40, 0.05, 0.1), (100, 1.0, 0.5)])
def test_prediction_against_regression_on_random_samples(features, n, ridge, noise):
    """Features are independent, of mean square one: their kernel has exactly this spectrum."""
    lam, v, errors, losses, estimates = spectrum(), target(), [], [], []
    g = torch.Generator().manual_seed(n)
    for _ in range(150):
        x, new = torch.randn(n + 300, 200, generator=g, dtype=torch.float64).split([n, 300])
        if features == "signs":
            x, new = x.sign(), new.sign()
        y = x @ v + noise**0.5 * torch.randn(n, generator=g, dtype=torch.float64)
        wanted = new @ v + noise**0.5 * torch.randn(300, generator=g, dtype=torch.float64)
        gram = (x * lam) @ x.T
        fit = kernel_ridge(gram, y, ridge=ridge)
        errors.append(float((fit.predict((new * lam) @ x.T) - wanted).square().mean()))
        losses.append(float((fit.predict(gram) - y).square().mean()))
        estimates.append(float(risk_estimate(gram, y, ridge)))
    curve = learning_curve(lam, v, n, ridge=ridge, noise=noise)
    for found, predicted in ((errors, curve.test_error), (estimates, curve.test_error), (losses, curve.training_error)):
        found = torch.tensor(found)
        error = float(found.std()) / len(found) ** 0.5
        # the theory is of many samples: a few per cent at ten of them
        assert float(found.mean()) == pytest.approx(predicted, abs=4 * error + (0.06 if n == 10 else 0.02) * predicted + 1e-12)


def test_equal_eigenvalues_are_learnt_alike():
    curve = learning_curve(torch.full((50,), 3.0, dtype=torch.float64), target(50), 20)
    torch.testing.assert_close(curve.learnabilities, torch.full((50,), 0.4, dtype=torch.float64))
    assert curve.constant == pytest.approx(3.0 * 0.6 / 0.4)
    assert curve.overfitting == pytest.approx(20 / (20 - 50 * 0.16))
    assert curve.test_error == pytest.approx(curve.overfitting * 0.36 * float(target(50).square().sum()))


def test_scaling_the_kernel_and_the_ridge_changes_nothing():
    one = learning_curve(spectrum(), target(), 30, ridge=0.2, noise=0.1)
    other = learning_curve(1e-9 * spectrum(), target(), 30, ridge=0.2e-9, noise=0.1)
    assert other.test_error == pytest.approx(one.test_error, rel=1e-9)
    assert other.training_error == pytest.approx(one.training_error, rel=1e-9)
    assert other.constant == pytest.approx(1e-9 * one.constant, rel=1e-9)


def test_a_huge_ridge_learns_nothing():
    curve = learning_curve(spectrum(), target(), 30, ridge=1e9, noise=0.3)
    assert curve.test_error == pytest.approx(float(target().square().sum()) + 0.3, rel=1e-6)
    assert curve.training_error == pytest.approx(curve.test_error, rel=1e-6)


def test_the_estimate_is_generalised_cross_validation():
    g = torch.Generator().manual_seed(0)
    phi = torch.randn(12, 20, generator=g, dtype=torch.float64)
    gram, y = phi @ phi.T, torch.randn(12, 2, generator=g, dtype=torch.float64)
    hat = gram @ torch.linalg.inv(gram + 0.7 * torch.eye(12, dtype=torch.float64))
    rest = y - hat @ y
    wanted = rest.square().mean(0) / (1 - hat.trace() / 12) ** 2
    torch.testing.assert_close(risk_estimate(gram, y, 0.7), wanted)
    # where all points are alike it is leaving each out
    circle = torch.exp(torch.cos(2 * math.pi * (torch.arange(9)[:, None] - torch.arange(9)) / 9)).double()
    y = torch.randn(9, generator=g, dtype=torch.float64)
    left = (leave_one_out(circle, y, 0.2) - y).square().mean()
    torch.testing.assert_close(risk_estimate(circle, y, 0.2), left)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"eigenvalues": torch.ones(3).double(), "coefficients": torch.ones(4).double()}, "eigenvalues"),
        ({"eigenvalues": -torch.ones(4).double()}, "eigenvalues"),
        ({"eigenvalues": torch.zeros(4).double()}, "eigenvalues"),
        ({"samples": 4}, "samples"),
        ({"samples": 0}, "samples"),
        ({"ridge": -1.0}, "ridge"),
        ({"noise": float("nan")}, "noise"),
    ],
)
def test_errors_name_the_argument(bad, words):
    given = {"eigenvalues": torch.ones(4).double(), "coefficients": torch.ones(4).double(), "samples": 2} | bad
    with pytest.raises(ValueError, match=f"^{words}"):
        learning_curve(given.pop("eigenvalues"), given.pop("coefficients"), given.pop("samples"), **given)
    assert ntk.analysis.learning_curve is learning_curve
