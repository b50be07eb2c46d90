"""Lazy and rich training: scales, parametrisations, implicit bias, curvature and the catapult, each by a second route."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy import optimize

import ntk_course as ntk
from ntk_course.analysis import (
    bias_penalty,
    catapult,
    implicit_bias,
    kernel_derivative,
    kernel_distance,
    lazy_move,
    relative_change,
    sharpness,
)
from ntk_course.kernels.infinite.activations import expectations
from ntk_course.models import DiagonalNetwork, Exponents, exponents, parametrised, scaled


def normal(*shape, seed=0):
    """Draw float64 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smooth(d=5, width=30, seed=0):
    """Make a small smooth network of one output."""
    torch.manual_seed(seed)
    return ntk.mlp((d, width, 1), "tanh").double()


def descend(model, x, y, rate, steps):
    """Gradient descent on half the summed squared error, written out."""
    params = [p for p in model.parameters() if p.requires_grad]
    for _ in range(steps):
        loss = (model(x)[:, 0] - y).square().sum() / 2
        for p, g in zip(params, torch.autograd.grad(loss, params), strict=True):
            p.data -= rate * g
    return model


# The scale alpha


def test_a_scaled_network_starts_from_zero_and_has_alpha_squared_times_the_kernel():
    model, x = smooth(), normal(6, 5)
    h = scaled(model, 3.0)
    assert float(h(x).detach().abs().max()) == 0
    torch.testing.assert_close(ntk.pntk(h, x), 9 * ntk.pntk(model, x))
    torch.testing.assert_close(scaled(model, 3.0, centred=False)(x), 3 * model(x))


def test_the_start_stays_in_eval_mode_and_is_not_trained():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    h, x = scaled(model, 2.0), torch.randn(6, 5)
    before = h.start(x)
    h.train()
    torch.testing.assert_close(h.start(x), before)
    assert [n for n, p in h.named_parameters() if p.requires_grad] == [
        "model.0.weight",
        "model.0.bias",
        "model.2.weight",
        "model.2.bias",
    ]
    ntk.train(h, x, torch.randn(6), loss="squared", epochs=2, lr=0.01, progress=False)
    torch.testing.assert_close(h.start(x), before)


@pytest.mark.parametrize("width", [8, 30])
def test_the_kernel_changes_by_one_over_alpha_times_what_was_predicted(width):
    x, y = normal(4, 5), torch.tensor([1.0, -1.0, 0.5, -0.5], dtype=torch.float64)
    predicted = kernel_derivative(smooth(width=width), x, lazy_move(smooth(width=width), x, y))
    before = ntk.pntk(smooth(width=width), x)
    errors, alphas = [], [30.0, 120.0, 480.0]
    for alpha in alphas:
        model = smooth(width=width)
        rate = 1 / float(torch.linalg.eigvalsh(before)[-1]) / alpha**2
        slowest = float(torch.linalg.eigvalsh(before)[0] / torch.linalg.eigvalsh(before)[-1])
        descend(scaled(model, alpha), x, y, rate, int(25 / slowest))
        change = alpha * (ntk.pntk(model, x) - before)
        errors.append(float((change - predicted).norm() / predicted.norm()))
    slope = np.polyfit(np.log(alphas), np.log(errors), 1)[0]
    assert errors[-1] < 0.05
    assert -1.1 < slope < -0.9  # the next order


def test_the_lazy_move_is_the_shortest_that_fits_to_first_order():
    model, x, y = smooth(), normal(6, 5), normal(6, seed=1)
    move = lazy_move(model, x, y)
    jacobian = []
    for one in x:
        model.zero_grad()
        model(one[None]).sum().backward()
        jacobian.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    shortest = torch.linalg.pinv(torch.stack(jacobian)) @ y
    torch.testing.assert_close(torch.cat([m.flatten() for m in move.values()]), shortest)


def test_the_kernel_derivative_is_a_difference_quotient():
    model, x = smooth(), normal(6, 5)
    move = {name: normal(*p.shape, seed=i) for i, (name, p) in enumerate(model.named_parameters())}

    def at(t):
        other = copy.deepcopy(model)
        for name, p in other.named_parameters():
            p.data += t * move[name]
        return ntk.pntk(other, x)

    h = 1e-3
    wanted = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    torch.testing.assert_close(kernel_derivative(model, x, move), wanted, rtol=1e-6, atol=1e-6)
    partial = {"1.weight": move["1.weight"]}
    still = kernel_derivative(model, x, {**{n: torch.zeros_like(m) for n, m in move.items()}, **partial})
    torch.testing.assert_close(kernel_derivative(model, x, partial), still)


def test_changes_and_distances():
    a, b = normal(4, 4), normal(4, 4, seed=1)
    torch.testing.assert_close(relative_change(a, b) ** 2, ((a - b) ** 2).sum() / (a**2).sum())
    cosine = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)
    torch.testing.assert_close(kernel_distance(a, b), 1 - cosine)
    assert float(kernel_distance(a, (1 + 1e-9) * a)) < 1e-16
    for bad in (normal(4, 3), normal(5, 4)):
        with pytest.raises(ValueError, match="after"):
            relative_change(a, bad)
    with pytest.raises(ValueError, match="before"):
        relative_change(0 * a, b)
    with pytest.raises(ValueError, match="norm of 0"):
        kernel_distance(a, 0 * b)


# Parametrisations


@pytest.mark.parametrize("how", ["ntk", "standard", "mup"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_all_are_one_network_at_the_base_width(how, depth):
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    answers = []
    for name in ("ntk", how):
        torch.manual_seed(0)
        answers.append(parametrised((7, *(16,) * depth, 3), name, base=16)(x))
    torch.testing.assert_close(*answers)


def trained(net, x, y, lr=0.05, steps=30):
    """Train, and return the answers along the way."""
    rate, answers = lr * net.rate_factor, []
    for _ in range(steps):
        z = net(x)
        answers.append(z.detach())
        grads = torch.autograd.grad((z - y).square().mean(), list(net.parameters()))
        for p, g in zip(net.parameters(), grads, strict=True):
            p.data -= rate * g
    return torch.stack(answers)


@pytest.mark.parametrize("theta", [-0.5, 0.3, 1.0])
@pytest.mark.parametrize("how", ["ntk", "mup", "mean_field"])
def test_shifting_the_exponents_changes_nothing_that_sgd_computes(how, theta):
    x, y = normal(6, 4), normal(6, 2, seed=1)
    a, b, c = exponents(how, 2)
    shifted = Exponents(tuple(v + theta for v in a), tuple(v - theta for v in b), c - 2 * theta)
    runs = []
    for which in (Exponents(a, b, c), shifted):
        torch.manual_seed(3)
        runs.append(trained(parametrised((4, 32, 2), which, base=8, activation="tanh").double(), x, y))
    torch.testing.assert_close(*runs, rtol=1e-5, atol=1e-6)
    assert float((runs[0][-1] - runs[0][0]).abs().max()) > 0.01


def test_mean_field_is_mup_with_one_hidden_layer():
    x, y, runs = normal(6, 4), normal(6, 2, seed=1), []
    for how in ("mean_field", "mup"):
        torch.manual_seed(3)
        runs.append(trained(parametrised((4, 128, 2), how, base=8, activation="tanh").double(), x, y))
    torch.testing.assert_close(*runs, rtol=1e-5, atol=1e-6)


def test_the_ntk_parametrisation_has_the_infinite_kernel():
    """With each layer's derivative with respect to weights that hold their own deviation: 2/d in the first layer, 2 after it."""
    x, kernels = normal(6, 10), []
    for seed in range(10):
        torch.manual_seed(seed)
        kernels.append(ntk.pntk(parametrised((10, 512, 512, 1), base=1).double(), x))
    kernels = torch.stack(kernels)
    covariance, kernel = 2 * x @ x.T / 10, x @ x.T
    for _ in range(2):
        own = covariance.diagonal()
        product, slopes = expectations("relu", covariance, own[:, None], own)
        covariance, kernel = 2 * product, product + 2 * slopes * kernel
    assert ((kernels.mean(0) - kernel).abs() < 5 * kernels.std(0) / 10**0.5).all()
    assert float(((kernels.mean(0) - kernel).norm()) / kernel.norm()) < 0.1


def test_who_moves_with_the_width():
    """Over widths the kernel moves less and less, keeps moving, or moves ever more: slopes of its change at a small rate."""
    x = normal(8, 6).float()
    y = torch.tensor([1.0, -1.0] * 4)[:, None]
    slopes = {}
    for how in ("ntk", "mup", "standard"):
        widths, moved = [64, 512], []
        for width in widths:
            changes = []
            for seed in range(3):
                torch.manual_seed(seed)
                net = parametrised((6, width, width, 1), how, base=64)
                before = ntk.pntk(net, x)
                trained(net, x, y, lr=0.003, steps=100)
                changes.append(float(relative_change(before, ntk.pntk(net, x))))
            moved.append(np.mean(changes))
        slopes[how] = np.polyfit(np.log(widths), np.log(moved), 1)[0]
    assert slopes["ntk"] < -0.4
    assert abs(slopes["mup"]) < 0.2
    assert slopes["standard"] > 0.3


# The diagonal network


def regression(n=5, d=12, seed=0):
    """Draw a problem that many coefficients solve, one of them sparse."""
    x, beta = normal(n, d, seed=seed), torch.zeros(d, dtype=torch.float64)
    beta[:2] = torch.tensor([1.0, -0.5])
    return x, x @ beta


@pytest.mark.parametrize("alpha", [0.05, 0.3, 1.0, 5.0])
def test_the_implicit_bias_is_the_least_penalty(alpha):
    x, y = regression()
    found = implicit_bias(x, y, alpha)
    torch.testing.assert_close(x @ found, y)

    def penalty(beta):
        q = 2 * alpha**2
        return float(np.sum(beta * np.arcsinh(beta / q) - np.sqrt(beta**2 + q * q) + q)), np.arcsinh(beta / q)

    best = optimize.minimize(
        penalty,
        np.linalg.pinv(x.numpy()) @ y.numpy(),
        jac=True,
        method="SLSQP",
        constraints={"type": "eq", "fun": lambda b: x.numpy() @ b - y.numpy(), "jac": lambda b: x.numpy()},
        options={"maxiter": 1000, "ftol": 1e-15},
    )
    torch.testing.assert_close(found, torch.from_numpy(best.x), rtol=1e-4, atol=1e-5)
    assert float(bias_penalty(found, alpha)) == pytest.approx(penalty(found.numpy())[0], rel=1e-9)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 2.0])
def test_gradient_descent_ends_where_the_convex_problem_says(alpha):
    x, y = regression()
    net = DiagonalNetwork(12, alpha)
    torch.testing.assert_close(ntk.pntk(net, x), 8 * alpha**2 * x @ x.T)
    u, v = net.u.data, net.v.data
    rate = 0.01 / float(torch.linalg.eigvalsh(x @ x.T)[-1]) / max(alpha**2, 1.0)
    for _ in range(60_000):  # the gradient by hand, on the network's own weights
        slope = 2 * ((u * u - v * v) @ x.T - y) @ x
        u *= 1 - rate * slope
        v *= 1 + rate * slope
    found = net.coefficients().detach()
    torch.testing.assert_close(x @ found, y)
    wanted = implicit_bias(x, y, alpha)
    assert float((found - wanted).norm() / wanted.norm()) < 0.01
    # its kernel at the end has a closed form of its coefficients alone
    kernel = 4 * (x * (wanted.square() + 4 * alpha**4).sqrt()) @ x.T
    assert float((ntk.pntk(net, x) - kernel).norm() / kernel.norm()) < 0.02


def test_its_two_ends_are_least_squares_and_least_absolute_sum():
    for seed in range(3):
        x, y = regression(8, 30, seed)
        torch.testing.assert_close(implicit_bias(x, y, 1e3), torch.linalg.pinv(x) @ y)
        least = optimize.linprog(np.ones(60), A_eq=np.hstack([x, -x]), b_eq=y.numpy())
        sums = [float(implicit_bias(x, y, alpha).abs().sum()) for alpha in (1.0, 1e-2, 1e-4, 1e-8)]
        assert sums == sorted(sums, reverse=True)
        assert sums[-1] == pytest.approx(least.fun, rel=2e-2)
        assert sums[-1] >= least.fun * (1 - 1e-9)
    beta = normal(6)
    assert float(bias_penalty(beta, 1e4)) == pytest.approx(float(beta.square().sum() / 4e8), rel=1e-6)
    ratio = bias_penalty(beta, 1e-150) / (beta.abs().sum() * math.log(1e300))
    assert float(ratio) == pytest.approx(1, abs=0.01)


def test_what_has_no_implicit_bias_is_refused():
    x, y = regression()
    with pytest.raises(ValueError, match="y: got"):
        implicit_bias(torch.cat([x, x]), torch.cat([y, y + 1]), 0.1)
    with pytest.raises(ValueError, match="alpha"):
        implicit_bias(x, y, 0.0)
    with pytest.raises(ValueError, match="shapes"):
        implicit_bias(x, y[:3], 0.1)
    assert float(implicit_bias(x, 0 * y, 0.1).abs().max()) == 0
    for bad in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="alpha"):
            DiagonalNetwork(3, bad)


# Curvature


@pytest.mark.parametrize("loss", ["cross_entropy", "squared", lambda z, y: (z[:, 0] - y).abs().pow(3)])
def test_sharpness_is_the_largest_eigenvalue_of_the_hessian(loss):
    torch.manual_seed(0)
    model, x, y = ntk.mlp((4, 5, 3), "tanh").double(), normal(7, 4), torch.arange(7) % 3
    names = [n for n, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]

    def mean(flat):
        pieces = torch.split(flat, [math.prod(s) for s in shapes])
        weights = {n: p.view(s) for n, p, s in zip(names, pieces, shapes, strict=True)}
        z = torch.func.functional_call(model, weights, x)
        if loss == "cross_entropy":
            return torch.nn.functional.cross_entropy(z, y)
        if loss == "squared":
            return (z - torch.nn.functional.one_hot(y, 3)).square().sum(1).mean() / 2
        return loss(z, y).mean()

    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    hessian = torch.autograd.functional.hessian(mean, flat)
    assert sharpness(model, x, y, loss) == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-5)


def test_at_a_perfect_fit_the_sharpness_is_the_kernels():
    model, x = smooth(), normal(6, 5)
    y = model(x).detach()
    kernel = torch.linalg.eigvalsh(ntk.pntk(model, x))[-1] / 6
    assert sharpness(model, x, y, "squared") == pytest.approx(float(kernel), rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_sharpness_of_very_few_weights(size):
    model, x = torch.nn.Linear(size, 1, bias=False).double(), normal(9, size)
    wanted = torch.linalg.eigvalsh(x.T @ x / 9)[-1]
    assert sharpness(model, x, normal(9, seed=2), "squared") == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("rate", [0.5, 1.9, 3.0, 3.8])
def test_the_catapult_is_gradient_descent_on_two_linear_layers(rate):
    n = 50
    u, v = normal(n).requires_grad_(), normal(n, seed=1).requires_grad_()
    with torch.no_grad():
        scale = ((u.square().sum() + v.square().sum()) / n).sqrt()
        u /= scale
        v /= scale
    f0 = float(u @ v) / n**0.5
    run = catapult(f0, 1.0, rate, width=n, steps=60)
    for step in range(61):
        f = u @ v / n**0.5
        kernel = (u.square().sum() + v.square().sum()) / n
        assert float(f.detach()) == pytest.approx(float(run.outputs[step]), rel=1e-6, abs=1e-9)
        assert float(kernel.detach()) == pytest.approx(float(run.kernels[step]), rel=1e-6)
        gu, gv = torch.autograd.grad(f.square() / 2, (u, v))
        with torch.no_grad():
            u -= rate * gu
            v -= rate * gv
    assert abs(float(run.outputs[-1])) < 1e-2
    if rate > 2:
        assert run.outputs.abs().max() > 2 * abs(f0)
        assert run.kernels[-1] < 2 / rate
    else:
        assert run.kernels[-1] > 0.8


def test_the_catapult_diverges_above_four_and_says_what_it_cannot_have():
    run = catapult(0.1, 1.0, 4.5, width=20, steps=2000)
    assert math.isinf(run.outputs[-1]) and len(run.outputs) == 2001
    assert not run.outputs.isnan().any() and not run.kernels.isnan().any()
    for bad in ({"output": 0.0}, {"output": 9.0}, {"rate": 0.0}, {"width": 0}, {"steps": -1}):
        with pytest.raises(ValueError, match=next(iter(bad)).replace("output", "output|kernel")):
            catapult(**{"output": 0.1, "kernel": 1.0, "rate": 1.0, "width": 20, "steps": 3, **bad})


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda: scaled(smooth(), 0), "alpha"),
        (lambda: scaled(smooth(), float("inf")), "alpha"),
        (lambda: scaled("net", 1.0), "model"),
        (lambda: exponents("mup", 1), "layers"),
        (lambda: exponents("mean_field", 3), "layers"),
        (lambda: exponents("mu", 2), "how"),
        (lambda: parametrised((4, 8, 9, 1)), "sizes"),
        (lambda: parametrised((4, 1)), "sizes"),
        (lambda: parametrised((4, 8, 1), exponents("ntk", 3)), "how"),
        (lambda: lazy_move(ntk.mlp((5, 4, 2)).double(), normal(3, 5), normal(3)), "model"),
        (lambda: lazy_move(smooth(), normal(3, 5), normal(4)), "y"),
        (lambda: kernel_derivative(smooth(), normal(3, 5), {"0.weight": normal(3, 3)}), "move"),
        (lambda: kernel_derivative(smooth(), normal(3, 5), {"1.weight": normal(3, 3)}), "move"),
    ],
)
def test_errors_name_the_argument(bad, words):
    with pytest.raises((ValueError, TypeError), match=f"^{words}"):
        bad()
