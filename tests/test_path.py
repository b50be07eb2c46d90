"""Path kernels: exact to rounding, entry by entry and as a whole, for every rule, loss and optimiser that is promised."""

import copy

import pytest
import torch
from conftest import jacobian, relative
from torch import nn

import ntk_course as ntk
from ntk_course.kernels.paths.features import Features
from ntk_course.kernels.paths.kernel import dpk, epk, factors_are_cheaper, mean_jacobian, step_breakpoints
from ntk_course.kernels.paths.kinks import activation_pattern
from ntk_course.kernels.paths.rules import Quadrature, pieces, quadrature
from ntk_course.kernels.paths.turning import _bisect, breakpoints
from ntk_course.models.functional import assign
from ntk_course.tangents.features import tangent_product
from ntk_course.training import TrainingPath, load_path, train_path

DATA, TEST = ntk.load("gaussians"), ntk.load("gaussians", "test")
X, Y, XT = DATA.x.double()[:60], DATA.y[:60], TEST.x.double()[:8]
DIGITS = ntk.load("digits", limit=120)
IMAGES, LABELS = DIGITS.x.double()[:100], DIGITS.y[:100]


def net(activation="tanh", sizes=(100, 16, 3)):
    torch.manual_seed(0)
    return ntk.mlp(sizes, activation).double()


def trained(activation="tanh", sizes=(100, 16, 3), steps=12, lr=0.2, **options):
    return train_path(net(activation, sizes), X, Y, steps=steps, lr=lr, progress=False, **options)


def error(path, kernel, x=XT):
    return float((kernel.predict() - path.outputs(x)).abs().max())


# ----- the path itself


def test_the_weights_are_those_of_torch_sgd():
    path = trained(batch_size=20, momentum=0.9, schedule=lambda s: 1 / (1 + s))
    model = ntk.models.zero_output_layer(net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    order = torch.Generator().manual_seed(0)
    batches = [b for _ in range(4) for b in torch.randperm(60, generator=order).split(20)]
    for s in range(12):
        flat = torch.cat([p.detach().flatten() for p in model.parameters()])
        torch.testing.assert_close(path.weights[s], flat, rtol=1e-12, atol=1e-14)
        for group in optimizer.param_groups:
            group["lr"] = 0.2 / (1 + s)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(X[batches[s]]), Y[batches[s]]).backward()
        optimizer.step()
        assert torch.equal(path.batches[s], batches[s])
    torch.testing.assert_close(path.log_probs(XT), model(XT).log_softmax(1).detach())
    assert len(path) == 13
    torch.testing.assert_close(path.log_probs(XT, 0), torch.full((8, 3), 1 / 3).double().log())


# ----- exactness


@pytest.mark.parametrize("activation", ["tanh", "gelu", "softplus"])
@pytest.mark.parametrize("nodes", [4, 8])
def test_smooth_networks_to_rounding(activation, nodes):
    path = trained(activation)
    assert error(path, epk(path, XT, "gauss", nodes)) < 1e-12
    assert 1e-4 < error(path, epk(path, XT, "left", 100)) < 1e-2
    assert error(path, dpk(path, XT)) > 1e-2


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "abs"])
@pytest.mark.parametrize("sizes", [(100, 16, 3), (100, 12, 10, 3)])
def test_networks_with_kinks_piece_by_piece(sizes, activation):
    path = trained(activation, sizes)
    assert error(path, epk(path, XT, "piecewise", 6)) < 1e-11
    assert error(path, epk(path, XT, "gauss", 6)) > 1e-6  # without the pieces the kinks show


def test_a_cnn_with_max_pooling():
    torch.manual_seed(0)
    model = ntk.small_cnn(channels=(3, 4)).double()
    path = train_path(model, IMAGES, LABELS, steps=6, lr=0.2, progress=False)
    x = DIGITS.x.double()[100:106]
    assert error(path, epk(path, x, "piecewise", 6), x) < 1e-9
    assert error(path, epk(path, x, "gauss", 6), x) > 1e-7


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 20}, {"schedule": lambda s: 0.7**s}, {"momentum": 0.9}, {"batch_size": 25, "momentum": 0.9, "lr": 0.05}],
    ids=["batches", "schedule", "momentum", "all"],
)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_other_optimisers(options, activation):
    path = trained(activation, **options)
    assert error(path, epk(path, XT, "piecewise" if activation == "relu" else "gauss", 6)) < 1e-11


def test_left_riemann_converges_at_first_order():
    path = trained("tanh")
    errors = [error(path, epk(path, XT, "left", n)) for n in (1, 10, 100)]
    assert 8 < errors[0] / errors[1] < 12
    assert 9 < errors[1] / errors[2] < 11


# ----- the kernel, entry by entry


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_every_entry_against_brute_force(momentum):
    """Jacobians by plain autograd, and the double sum over a step and all gradients inside it."""
    path = trained(steps=4, batch_size=15, momentum=momentum)
    rule, few = quadrature("gauss", 3), XT[:3]

    def at(flat, x):
        model = copy.deepcopy(path.model)
        torch.nn.utils.vector_to_parameters(flat, model.parameters())
        return jacobian(torch.nn.Sequential(model, torch.nn.LogSoftmax(1)), x)

    wanted = torch.zeros(3, 60, 3, 3, dtype=torch.float64)
    for s in range(4):
        start, end = path.weights[s], path.weights[s + 1]
        mean = sum(w * at(start + t * (end - start), few) for t, w in zip(*rule, strict=True))
        for r in range(s + 1):
            batch = path.batches[r]
            if r == s or momentum:
                wanted[:, batch] += (
                    0.2 * momentum ** (s - r) / 15 * torch.einsum("nid,mjd->nmij", mean, at(path.weights[r], X[batch]))
                )
    found = epk(path, few, "gauss", 3, per_step=True)
    torch.testing.assert_close(found.gram, wanted, rtol=1e-10, atol=1e-12)
    own = torch.einsum("nmij,mj->nmi", wanted, torch.nn.functional.one_hot(Y, 3).double())
    torch.testing.assert_close(found.points, own, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.steps.sum(0), own.sum(1))


def test_a_sample_that_is_twice_in_a_batch_counts_twice():
    path = trained(steps=2)
    batches = (torch.tensor([5, 3, 5]), torch.arange(60))
    start = path.weights[0].clone().requires_grad_()
    loss = -path.output(path.unflatten(start), X[batches[0]])[range(3), Y[batches[0]]].mean()
    middle = path.weights[0] - 0.2 * torch.autograd.grad(loss, start)[0]
    own = middle.clone().requires_grad_()
    loss = -path.output(path.unflatten(own), X)[range(60), Y].mean()
    end = middle - 0.2 * torch.autograd.grad(loss, own)[0]
    drawn = TrainingPath(path.model, X, Y, torch.stack([path.weights[0], middle, end]), batches, path.lrs)
    kernel = epk(drawn, XT)
    assert error(drawn, kernel) < 1e-12
    torch.testing.assert_close(kernel.machine(), kernel.predict())


def mixed_layers():
    """Convolution, group norm, batch norm, a layer under two names, a frozen bias and a user's hook."""
    torch.manual_seed(1)
    first, own = torch.nn.Conv2d(1, 3, 3), torch.nn.Linear(6, 6)
    first.register_forward_hook(lambda module, args, out: out.tanh())
    model = torch.nn.Sequential(
        first, torch.nn.GroupNorm(1, 3), torch.nn.AvgPool2d(3), torch.nn.BatchNorm2d(3), torch.nn.Flatten(),
        torch.nn.Linear(12, 6), own, torch.nn.Tanh(), own, torch.nn.Linear(6, 10),
    ).double().eval()  # fmt: skip
    model[3].running_var.uniform_(0.5, 2)
    model[5].bias.requires_grad_(False)
    return model


def test_features_on_a_line_are_those_at_its_weights():
    """Each sample at its own nodes in one pass, against one weight state at a time."""
    path = train_path(mixed_layers(), IMAGES, LABELS, steps=2, lr=0.3, zero_output=False, progress=False)
    start, change = path.weights[0], path.weights[1] - path.weights[0]
    t, w = torch.rand(2, 4, 3, dtype=torch.float64)
    features, training = Features(path, IMAGES[:4]), Features(path, IMAGES[4:9])(start)
    assert features.covered
    found = tangent_product(features.averaged(start, change, Quadrature(t, w)), training)
    for n in range(4):
        wanted = sum(
            w[n, q] * tangent_product(features.of(IMAGES[n : n + 1])(start + t[n, q] * change), training) for q in range(3)
        )
        torch.testing.assert_close(found[n : n + 1], wanted)


def test_the_two_ways_to_a_kernel_agree(monkeypatch):
    """By layer factors and by forward-mode passes, on a network of every kind of layer."""
    path = train_path(mixed_layers(), IMAGES[:20], LABELS[:20], steps=2, lr=0.3, zero_output=False, progress=False)
    grams = []
    for by_factors in (True, False):
        monkeypatch.setattr("ntk_course.kernels.paths.kernel.factors_are_cheaper", lambda *a, by_factors=by_factors: by_factors)
        grams.append(epk(path, IMAGES[20:24], "gauss", 3).gram)
        assert error(path, epk(path, IMAGES[20:24], "gauss", 8), IMAGES[20:24]) < 1e-10
    torch.testing.assert_close(*grams)


def test_a_model_without_layer_rules_takes_the_other_way():
    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.inner, self.scale = torch.nn.Linear(100, 3).double(), torch.nn.Parameter(torch.rand(3, dtype=torch.float64))

        def forward(self, x):
            return (self.inner(x) * self.scale).tanh()

    path = train_path(Bare(), X, Y, steps=3, lr=0.05, zero_output=False, progress=False)
    assert not factors_are_cheaper(path, XT[:1], 4)
    assert error(path, epk(path, XT, "gauss", 12)) < 1e-10


@pytest.mark.parametrize("count", [2, 3])
def test_learnt_slopes_are_averaged_too(count):
    """As many points as outputs, and fewer: batched, PReLU's own derivative is wrong in the first case."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.PReLU(6), nn.Linear(6, 3)).double()
    path = ntk.train_path(model, torch.randn(9, 4).double(), torch.arange(9) % 3, steps=3, lr=0.1)
    x = torch.randn(count, 4).double()
    start, change = path.weights[0], path.weights[1] - path.weights[0]
    average = mean_jacobian(path, 0, x, quadrature("gauss", 3))
    rows = []
    for t, w in zip(*quadrature("gauss", 3), strict=True):
        at = nn.Sequential(assign(copy.deepcopy(model), path.unflatten(start + t * change)), nn.LogSoftmax(1))
        rows.append(w * jacobian(at, x))
    assert relative(average, sum(rows)) < 1e-12


def test_blocks_of_test_points_change_nothing():
    path = trained("relu", steps=3)
    whole, blocks = epk(path, XT, "piecewise", 3, per_step=True), epk(path, XT, "piecewise", 3, per_step=True, memory=200_000)
    torch.testing.assert_close(whole.gram, blocks.gram)
    torch.testing.assert_close(whole.steps, blocks.steps)


# ----- Theorem 3.7 and Remark 1


@pytest.mark.parametrize("loss", ["log_softmax", "cross_entropy", "squared"])
def test_ensemble_and_machine(loss):
    path = trained(loss=loss)
    kernel = epk(path, XT)
    assert error(path, kernel) < 1e-12  # the ensemble is exact for every loss
    apart = float((kernel.machine() - kernel.predict()).abs().max())
    assert apart < 1e-12 if loss == "log_softmax" else apart > 1e-2


def test_a_constant_bias_costs_what_the_initial_outputs_vary():
    path = trained(zero_output=False)
    kernel = epk(path, XT, nodes=10)
    assert error(path, kernel) < 1e-12
    constant = path.outputs(X, 0).mean(0)
    missed = (kernel.predict(constant) - path.outputs(XT)).abs()
    torch.testing.assert_close(missed, (constant - path.outputs(XT, 0)).abs(), rtol=1e-8, atol=1e-10)
    assert missed.max() > 1e-2


# ----- quadrature and kinks


@pytest.mark.parametrize(("rule", "nodes", "degree"), [("left", 5, 0), ("midpoint", 5, 1), ("gauss", 1, 1), ("gauss", 4, 7)])
def test_rules_are_exact_to_their_degree(rule, nodes, degree):
    t, w = quadrature(rule, nodes)
    for power in range(degree + 1):
        assert float((w * t**power).sum()) == pytest.approx(1 / (power + 1), abs=1e-14)
    assert abs(float((w * t ** (degree + 1)).sum()) - 1 / (degree + 2)) > 1e-6


def test_pieces_integrate_a_kinked_function():
    inside = [torch.tensor([0.3, 0.55]).double(), torch.empty(0).double()]
    t, w = pieces(inside, quadrature("gauss", 3))
    value = ((t[0] - 0.3).abs() + (t[0] - 0.55).abs() ** 3) @ w[0]
    assert float(value) == pytest.approx((0.3**2 + 0.7**2) / 2 + (0.55**4 + 0.45**4) / 4, abs=1e-15)
    assert w.sum(1).tolist() == pytest.approx([1, 1])


def test_closed_form_and_bisection_agree():
    path = trained("relu", steps=3, lr=1.0)
    start, change = path.unflatten(path.weights[1]), path.unflatten(path.weights[2] - path.weights[1])
    closed, found = breakpoints(path.model, start, change, XT), _bisect(path.model, start, change, XT, 8)
    assert sum(map(len, closed)) > 0
    for a, b in zip(closed, found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def test_patterns_change_at_the_breakpoints_and_nowhere_else():
    torch.manual_seed(0)
    path = train_path(ntk.small_cnn(channels=(2, 3)).double(), IMAGES, LABELS, steps=2, lr=1.0, zero_output=False, progress=False)
    start, change = path.unflatten(path.weights[0]), path.unflatten(path.weights[1] - path.weights[0])
    found = breakpoints(path.model, start, change, IMAGES[:3], scan=16)
    for x, inside in zip(IMAGES[:3], found, strict=True):
        assert len(inside) > 0
        grid = torch.linspace(0, 1, 400, dtype=torch.float64)
        rows = [torch.cat(activation_pattern(path.model, {n: p + t * change[n] for n, p in start.items()}, x)) for t in grid]
        seen = {k for k in range(399) if not torch.equal(rows[k], rows[k + 1])}
        assert seen <= {int(b * 399) for b in inside.tolist()}  # what a dense scan sees, the bisection has found


def test_average_jacobian_times_the_step_is_the_change():
    path = trained("relu", (100, 12, 10, 3), steps=2, lr=1.0)
    mean = mean_jacobian(path, 1, XT, pieces(step_breakpoints(path, 1, XT), quadrature("gauss", 8)))
    change = mean @ (path.weights[2] - path.weights[1])
    torch.testing.assert_close(change, path.outputs(XT, 2) - path.outputs(XT, 1), rtol=1e-9, atol=1e-12)


# ----- files


def test_a_path_in_a_folder_is_the_path_in_memory(tmp_path):
    options = {"batch_size": 20, "momentum": 0.5, "schedule": lambda s: 0.9**s}
    here, there = trained(**options), trained(**options, folder=tmp_path / "run")
    assert torch.equal(here.weights, there.weights)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["data.npz", "path.json", "weights.npy"]
    again = load_path(tmp_path / "run", net())
    torch.testing.assert_close(epk(here, XT).gram, epk(again, XT).gram)


def test_a_second_run_that_is_killed_leaves_the_first_whole_or_nothing(tmp_path, monkeypatch):
    """Until its end the older path stays; between the last renamings none of the two can be read."""
    first = trained(folder=tmp_path)
    weights, stop = first.weights.clone(), lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt)
    for where in ("numpy.savez", "ntk_course.training.path_files.json.dumps"):
        with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
            killed.setattr(where, stop)
            trained(folder=tmp_path, lr=0.1)
        assert torch.equal(load_path(tmp_path, net()).weights, weights)
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr("pathlib.Path.replace", stop)
        trained(folder=tmp_path, lr=0.1)
    with pytest.raises(FileNotFoundError, match="only an unfinished run"):
        load_path(tmp_path, net())


def test_a_file_cut_short_is_refused(tmp_path):
    trained(folder=tmp_path)
    whole = (tmp_path / "weights.npy").read_bytes()
    (tmp_path / "weights.npy").write_bytes(whole[: 128 + 8 * 1667 * 5 + 100])
    with pytest.raises(ValueError, match="cut short, 5 of 13 states are whole"):
        load_path(tmp_path, net())


def test_an_unfinished_run_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ntk_course.training.record.tqdm", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        trained(folder=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["weights.npy.part"]
    with pytest.raises(FileNotFoundError, match="without weights.npy, only an unfinished run"):
        load_path(tmp_path, net())


# ----- bad input


def test_bad_input():
    path = trained(steps=2)
    with pytest.raises(ValueError, match="at least two, a path has a step"):
        TrainingPath(path.model, X, Y, path.weights[:1], (), ())
    with pytest.raises(ValueError, match="lrs: got 1 for 3 weight states"):
        TrainingPath(path.model, X, Y, path.weights, path.batches, (0.1,))
    with pytest.raises(ValueError, match=r"weights: got shape \(3, 1667\); wanted"):
        TrainingPath(net(sizes=(100, 4, 3)), X, Y, path.weights, path.batches, path.lrs)
    with pytest.raises(ValueError, match="nodes: got 0"):
        epk(path, XT, "gauss", 0)
    with pytest.raises(ValueError, match="quadrature: got 'simpson'"):
        epk(path, XT, "simpson")
    with pytest.raises(ValueError, match=r"x_test: got samples of shape \(7,\); wanted \(100,\)"):
        epk(path, torch.zeros(3, 7).double())
    path.weights[1, 5] = torch.nan
    with pytest.raises(ArithmeticError, match="non-finite weights at step 1 of 2"):
        epk(path, XT)
    with pytest.raises(ArithmeticError, match="non-finite at step"):
        trained("relu", loss="squared", lr=1e200)
    with pytest.raises(ValueError, match="loss: got 'hinge'"):
        trained(loss="hinge")
    with pytest.raises(ValueError, match="no probabilities"):
        trained(loss="squared", steps=1).log_probs(XT)


def test_a_model_of_any_state_answers_as_the_path():
    torch.manual_seed(0)
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    path = ntk.train_path(ntk.mlp((4, 5, 3)).double(), x, y, steps=3, lr=0.5, progress=False)
    for step in (0, 2, -1):
        with torch.no_grad():
            torch.testing.assert_close(path.model_at(step)(x).log_softmax(1), path.outputs(x, step))
    assert path.model_at(0) is not path.model
