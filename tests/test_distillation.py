"""Points made by the kernel: against a linear kernel's own minimum, and the regression on them."""

import pytest
import torch

from ntk_course.analysis import distil, kernel_ridge
from ntk_course.kernels import infinite


def points(n, d=4, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(a, b):
    return a @ b.T


def dense(a, b):
    """One hidden layer of erf units, by its expectations, which have a derivative."""
    cross, own, other = (1.44 * k / a.shape[1] + 0.09 for k in (a @ b.T, a.square().sum(1)[:, None], b.square().sum(1)))
    values, slopes = infinite.expectations("erf", cross, own, other)
    return 1.44 * values + 0.09 + 1.44 * slopes * cross


def test_the_kernel_of_these_tests_is_that_of_the_limit():
    wanted = infinite.mlp(points(5), points(4, seed=1), depth=1, activation="erf", w_std=1.2, b_std=0.3).ntk
    torch.testing.assert_close(dense(points(5), points(4, seed=1)), wanted, rtol=1e-10, atol=1e-12)


def test_the_loss_is_that_of_the_regression_on_the_points():
    x, y, start, values = points(20), points(20, 2, seed=1), points(5, seed=2), points(5, 2, seed=3)
    found = distil(dense, x, y, start, values, ridge=1e-2, steps=3, learn_targets=True, progress=False)
    for points_, targets, loss in ((start, values, found.losses[0]), (found.x, found.targets, found.losses[-1])):
        gram = dense(points_, points_)
        fit = kernel_ridge(gram, targets, 1e-2 * float(gram.diagonal().mean()))
        wanted = (y - fit.predict(dense(x, points_))).square().mean()
        assert abs(float(loss) - float(wanted)) < 1e-6 * float(wanted)


def test_a_linear_kernels_points_reach_the_least_squares_minimum():
    """Two points in the plane with targets of their own give any linear function, so that the least loss is that of least squares."""
    x = points(30, 2)
    y = x @ torch.tensor([[2.0], [-1.0]]).double() + 0.3 * points(30, 1, seed=1)
    least = (y - x @ torch.linalg.lstsq(x, y).solution).square().mean()
    found = distil(linear, x, y, points(2, 2, seed=2), points(2, 1, seed=3), ridge=0.0, steps=1500, lr=0.03, progress=False)
    assert -1e-12 <= float(found.losses[-1] - least) < 1e-6 * float(least) < float(found.losses[0] - least)


def test_it_keeps_targets_unless_asked_and_what_it_was_given():
    x, y, start, values = points(20), points(20, 1, seed=1)[:, 0], points(5, seed=2), points(5, 1, seed=3)[:, 0]
    kept, made = start.clone(), values.clone()
    found = distil(dense, x, y, start, values, steps=5, progress=False)
    with torch.inference_mode():
        there = distil(dense, *(1.0 * t for t in (x, y, start, values)), steps=5, progress=False)
    assert torch.equal(there.x, found.x) and torch.equal(there.losses, found.losses)
    assert torch.equal(found.targets, values) and found.targets.shape == (5,) and not torch.equal(found.x, start)
    moved = distil(dense, x, y, start, values, steps=5, learn_targets=True, progress=False)
    assert not torch.equal(moved.targets, values) and torch.equal(start, kept) and torch.equal(values, made)
    assert not found.x.requires_grad and len(found.losses) == 6 and found.losses[-1] < found.losses[0]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"start": torch.zeros(5, 3)}, ValueError, r"start: got shape \(5, 3\); wanted \(S, 4\)"),
        ({"start_targets": torch.zeros(5, 2)}, ValueError, "start_targets: got 2 outputs; wanted 1"),
        ({"targets": torch.zeros(19)}, ValueError, "targets: got"),
        ({"ridge": -1.0}, ValueError, "ridge: got -1"),
        ({"lr": 0.0}, ValueError, "lr: got 0"),
        ({"targets": torch.full((20,), torch.nan)}, ValueError, "targets: got 20 non-finite"),
        ({"start": points(5).float()}, ValueError, "start: got torch.float32 on cpu for x in torch.float64"),
        ({"start": torch.zeros(5, 4, dtype=torch.int64)}, ValueError, "start: got torch.int64"),
        ({"start": torch.zeros(0, 4).double()}, ValueError, r"start: got shape \(0, 4\); wanted \(S, 4\) with S at least 1"),
        ({"lr": 1e200}, ArithmeticError, "at step 1 of"),
        ({"start": points(5)[[0, 0, 1, 2, 3]], "ridge": 0.0}, ArithmeticError, "ridge: got 0, with which .* at step 0"),
    ],
)
def test_it_refuses(change, error, says):
    given = {"x": points(20), "targets": points(20, 1)[:, 0], "start": points(5), "start_targets": points(5, 1)[:, 0]} | change
    with pytest.raises(error, match=says):
        distil(dense, given.pop("x"), **given, progress=False)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"kernel": torch.eye(3)}, TypeError, "kernel: got Tensor; wanted a function"),
        ({"kernel": lambda a, b: (a @ b.T).float()}, ValueError, "kernel: got shape .* for 3 and 3 points in torch.float32"),
        ({"learn_targets": 1}, TypeError, "learn_targets: got 1; wanted True or False"),
        ({"x": points(0), "targets": points(0, 2)}, ValueError, "x: got no points"),
        ({"targets": 1e200 * points(6, 2)}, ArithmeticError, "targets: got a loss of inf at step 0 of 5; wanted smaller ones"),
    ],
)
def test_it_names_what_is_wrong_before_it_starts(change, error, says):
    given = {
        "kernel": linear,
        "x": points(6),
        "targets": points(6, 2),
        "start": points(3),
        "start_targets": points(3, 2),
    } | change
    with pytest.raises(error, match=says):
        distil(**given, steps=5, progress=False)


def test_a_kernel_without_a_derivative_is_refused():
    with pytest.raises(ValueError, match="kernel: got values without a derivative"):
        distil(
            lambda a, b: infinite.mlp(a, b, depth=1).ntk, points(20), points(20, 1), points(5), points(5, 1), learn_targets=True
        )


def test_kernels_that_are_none_are_refused():
    given = (points(20), points(20, 1), points(5), points(5, 1))
    for kernel, error, says in (
        (lambda a, b: b @ a.T, ValueError, r"kernel: got shape \(5, 20\) for 20 and 5 points"),
        (lambda a, b: (a @ b.T).detach().numpy(), ValueError, "kernel: got ndarray"),
        (
            lambda a, b: (-torch.cdist(a, b)).exp() * torch.sqrt(((a[:, None] - b) ** 2).sum(2)),
            ArithmeticError,
            "not positive|derivative",
        ),
        (
            lambda a, b: torch.exp(-((a[:, None] - b) ** 2).sum(2).sqrt()),
            ArithmeticError,
            "kernel: got a derivative that is not finite",
        ),
        (lambda a, b: (a @ b.T) / 0, ArithmeticError, "kernel: got values that are not finite at step 0"),
    ):
        with pytest.raises(error, match=says):
            distil(kernel, *given, progress=False)


def test_it_leaves_a_kernels_own_weights_alone():
    net = torch.nn.Linear(4, 3).double()
    with torch.no_grad():  # it asks for its own gradients
        distil(
            lambda a, b: net(a).tanh() @ net(b).tanh().T,
            points(20),
            points(20, 1),
            points(3),
            points(3, 1),
            steps=2,
            progress=False,
        )
    assert all(p.grad is None for p in net.parameters())
