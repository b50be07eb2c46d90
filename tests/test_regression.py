"""Learning with a kernel: against scikit-learn, gradient descent step by step, and small cases by hand."""

import pytest
import torch
from scipy.integrate import solve_ivp
from sklearn.kernel_ridge import KernelRidge

import ntk_course as ntk


def problem(n=12, m=5, k=3, d=20, seed=0):
    g = torch.Generator().manual_seed(seed)
    phi = torch.randn(n + m, d, generator=g, dtype=torch.float64) / d**0.5
    targets = torch.randn(n, k, generator=g, dtype=torch.float64)
    return phi[:n] @ phi[:n].T, phi[n:] @ phi[:n].T, targets, phi


@pytest.mark.parametrize("ridge", [0.3, 2.0])
def test_ridge_regression_is_scikit_learns(ridge):
    gram, cross, targets, _ = problem()
    wanted = KernelRidge(alpha=ridge, kernel="precomputed").fit(gram.numpy(), targets.numpy()).predict(cross.numpy())
    fit = ntk.analysis.kernel_ridge(gram, targets, ridge)
    assert fit.ridge == ridge
    torch.testing.assert_close(fit.predict(cross), torch.from_numpy(wanted))
    one = ntk.analysis.kernel_ridge(gram, targets[:, 0], ridge).predict(cross)
    torch.testing.assert_close(one, torch.from_numpy(wanted)[:, 0])


def test_no_ridge_interpolates_and_a_singular_matrix_gets_the_least():
    gram, _, targets, phi = problem()
    exact = ntk.analysis.kernel_ridge(gram, targets)
    assert exact.ridge == 0
    torch.testing.assert_close(exact.predict(gram), targets)
    twice = torch.cat([phi[:12], phi[:3]])
    low = torch.cat([targets, targets[:3]])
    fit = ntk.analysis.kernel_ridge(twice @ twice.T, low)
    assert 0 < fit.ridge < 1e-10
    torch.testing.assert_close(fit.predict(twice @ twice.T), low, rtol=1e-4, atol=1e-4)


def test_the_ridge_is_the_first_power_of_ten_that_is_enough():
    off = torch.diag(torch.tensor([1.0, 1.0, -1e-13], dtype=torch.float64))
    unit = torch.finfo(torch.float64).eps * (2 + 1e-13) / 3  # 1.5e-16
    assert ntk.analysis.kernel_ridge(off, torch.ones(3)).ridge == pytest.approx(1e3 * unit, rel=1e-9)
    assert ntk.analysis.kernel_ridge(off, torch.ones(3), ridge=1e-6).ridge == 1e-6
    negative = torch.diag(torch.tensor([1.0, -5.0], dtype=torch.float64))
    assert 5 < ntk.analysis.kernel_ridge(negative, torch.ones(2), attempts=18).ridge < 100


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("one", [False, True])
def test_leave_one_out_by_leaving_one_out(ridge, one):
    gram, _, targets, _ = problem()
    targets = targets[:, 0] if one else targets
    found = ntk.analysis.leave_one_out(gram, targets, ridge)
    for i in range(len(gram)):
        rest = [j for j in range(len(gram)) if j != i]
        fit = ntk.analysis.kernel_ridge(gram[rest][:, rest], targets[rest], ridge)
        torch.testing.assert_close(found[i], fit.predict(gram[i : i + 1, rest])[0])


def test_a_matrix_that_is_not_definite_is_refused():
    with pytest.raises(torch.linalg.LinAlgError, match="not positive definite, even with a ridge"):
        ntk.analysis.kernel_ridge(torch.diag(torch.tensor([1.0, 1.0, -10.0])), torch.ones(3), attempts=3)


@pytest.mark.parametrize("time", [0.0, 0.7, 30.0])
def test_gradient_flow_by_integration(time):
    """The flow on the outputs of training and other points together, by scipy."""
    gram, cross, targets, _ = problem(k=1)
    start, elsewhere = torch.randn(12, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    both = torch.cat([gram, cross])

    def speed(_, f):
        return -(both @ (torch.from_numpy(f[:12]) - targets[:, 0])).numpy()

    solved = solve_ivp(speed, (0, max(time, 1e-12)), torch.cat([start, elsewhere]).numpy(), rtol=1e-10, atol=1e-12)
    found = ntk.analysis.gradient_flow(gram, both, targets[:, 0], time, start, torch.cat([start, elsewhere]))
    torch.testing.assert_close(found, torch.from_numpy(solved.y[:, -1]), rtol=1e-6, atol=1e-8)


def test_gradient_flow_is_the_limit_of_gradient_descent_on_a_linear_model():
    _, _, targets, phi = problem(k=2)
    weights, lr = torch.zeros(20, 2, dtype=torch.float64), 1e-4
    for _ in range(5000):
        weights -= lr * phi[:12].T @ (phi[:12] @ weights - targets)
    gram, cross = phi[:12] @ phi[:12].T, phi[12:] @ phi[:12].T
    torch.testing.assert_close(ntk.analysis.gradient_flow(gram, cross, targets, 0.5), phi[12:] @ weights, rtol=1e-3, atol=1e-4)
    endless = ntk.analysis.gradient_flow(gram, cross, targets, float("inf"))
    torch.testing.assert_close(endless, ntk.analysis.kernel_ridge(gram, targets).predict(cross))


def test_directions_without_data_do_not_move():
    phi = torch.randn(6, 2, dtype=torch.float64)
    gram, targets = phi @ phi.T, torch.randn(6, dtype=torch.float64)
    found = ntk.analysis.gradient_flow(gram, gram, targets, float("inf"))
    onto = phi @ torch.linalg.pinv(phi)
    torch.testing.assert_close(found, onto @ targets)


def test_alignment():
    y = torch.tensor([0, 0, 1, 2, 2, 1])
    target = torch.nn.functional.one_hot(y).double()
    for centred in (True, False):
        assert float(ntk.analysis.alignment(target @ target.T, y, centred)) == pytest.approx(1)
        assert float(ntk.analysis.alignment(5 * target @ target.T, y, centred)) == pytest.approx(1)
    plus = target @ target.T + 7.0  # a constant says nothing about labels
    assert float(ntk.analysis.alignment(plus, y)) == pytest.approx(1)
    assert float(ntk.analysis.alignment(plus, y, centred=False)) < 0.8
    gram = problem(6, 1)[0]
    centre = torch.eye(6, dtype=torch.float64) - 1 / 6
    a, b = centre @ gram @ centre, centre @ target @ target.T @ centre
    assert float(ntk.analysis.alignment(gram, y)) == pytest.approx(float((a * b).sum() / a.norm() / b.norm()))


def test_spectrum():
    q = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    values = torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    found, shares = ntk.analysis.spectrum(q @ torch.diag(values) @ q.T, 2 * q[:, 1] + q[:, 3])
    torch.testing.assert_close(found, values)
    torch.testing.assert_close(shares, torch.tensor([0, 0.8, 0, 0.2, 0], dtype=torch.float64))


def test_local_elasticity():
    gram = torch.tensor([[4.0, 2.0, 1.0], [2.0, 4.0, 0.5], [1.0, 0.5, 1.0]])
    y = torch.tensor([0, 0, 1])
    within, between = 2 / 4, (1 / 2 + 0.5 / 2) / 2
    assert float(ntk.analysis.local_elasticity(gram, y)) == pytest.approx(within / (within + between))
    found = ntk.analysis.local_elasticity(gram[:, 1:], y, y[1:])
    within, between = (2 + 4 + 1) / 3, (1 + 0.5 + 0.5) / 3
    assert float(found) == pytest.approx(within / (within + between))
    assert float(ntk.analysis.local_elasticity(torch.ones(4, 4), torch.tensor([0, 1, 0, 1]))) == pytest.approx(0.5)


def test_bad_input():
    gram, cross, targets, _ = problem()
    for call, words in (
        (lambda: ntk.analysis.kernel_ridge(gram[:5], targets), "gram: got"),
        (lambda: ntk.analysis.kernel_ridge(gram, targets[:5]), r"targets: got shape \(5, 3\); wanted \(12, K\)"),
        (lambda: ntk.analysis.kernel_ridge(gram, targets, -1.0), "ridge: got -1.0"),
        (lambda: ntk.analysis.gradient_flow(gram, cross, targets, -1.0), "time: got -1.0"),
        (lambda: ntk.analysis.gradient_flow(gram, cross.T, targets, 1.0), "cross: got shape"),
        (lambda: ntk.analysis.gradient_flow(gram, cross, targets, 1.0, targets[:5]), "start: got shape"),
        (lambda: ntk.analysis.alignment(gram, torch.zeros(12).long()), "y: got 1 class; wanted at least two"),
        (lambda: ntk.analysis.spectrum(gram, torch.zeros(12)), "targets: got zeros only"),
        (lambda: ntk.analysis.local_elasticity(gram, torch.zeros(12)), "no pair with two labels"),
        (lambda: ntk.analysis.local_elasticity(gram, torch.arange(12)), "no pair with one label"),
        (
            lambda: ntk.analysis.local_elasticity(gram, torch.zeros(5), torch.ones(5)),
            r"gram: got shape \(12, 12\); wanted \(5, 5\)",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            call()
