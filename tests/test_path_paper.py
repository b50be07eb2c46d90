"""Section 4.1 of the EPK paper at its own size, and what is promised beyond it; the errors are printed at the end of a run."""

import pytest
import torch

import ntk_course as ntk
from ntk_course.kernels.paths.machines import symmetric_gram, weighted_gram

DATA, TEST = ntk.load("gaussians"), ntk.load("gaussians", "test")
X, Y, XT = DATA.x.double(), DATA.y, TEST.x.double()[:100]
DIGITS = ntk.load("digits", limit=140)
SMOOTH = ("tanh", "gelu", "softplus")


def trained(activation, sizes=(100, 64, 3), n=3000, steps=10, lr=0.1, **options):
    torch.manual_seed(0)
    return ntk.train_path(ntk.mlp(sizes, activation).to(X.dtype), X[:n], Y[:n], steps=steps, lr=lr, progress=False, **options)


def test_the_problem_is_the_papers():
    assert X.shape == (3000, 100)
    assert torch.bincount(Y).tolist() == [1000] * 3


@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("nodes", [4, 8])
def test_section_4_1_smooth(activation, nodes, note_error):
    error = ntk.epk(trained(activation), XT, "gauss", nodes).error
    assert note_error(f"sec. 4.1, 3000 points, {activation}, gauss {nodes}", error, "1e-12") <= 1e-12


def test_section_4_1_relu(note_error):
    path = trained("relu")
    error = ntk.epk(path, XT, "piecewise", 4).error
    assert note_error("sec. 4.1, 3000 points, relu, piecewise 4", error, "1e-11") <= 1e-11
    assert note_error("  relu, gauss 4, kinks ignored", ntk.epk(path, XT, "gauss", 4).error, "above 1e-6") > 1e-6


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_section_4_1_as_printed(activation, note_error):
    error = ntk.epk(trained(activation), XT, "left", 100).error
    assert 1e-5 < note_error(f"  {activation}, left Riemann 100, the paper's rule", error, "about 1e-4 to 1e-3") < 1e-2


def test_deeper_networks_and_pooling(note_error):
    path = trained("relu", (100, 24, 16, 3), n=300)
    assert note_error("relu, two hidden layers, piecewise 4", ntk.epk(path, XT, "piecewise", 4).error, "1e-9") <= 1e-9
    torch.manual_seed(0)
    x, y = DIGITS.x.double(), DIGITS.y
    path = ntk.train_path(ntk.small_cnn(channels=(4, 8)).double(), x[:100], y[:100], steps=10, lr=0.3, progress=False)
    kernel = ntk.epk(path, x[100:], "piecewise", 4)
    assert note_error("digits, CNN with ReLU and max pooling, piecewise 4", kernel.error, "1e-9") <= 1e-9


WAYS = {
    "mini-batches of 100": {"batch_size": 100},
    "a step-size schedule": {"schedule": lambda s: 0.8**s},
    "momentum 0.9": {"momentum": 0.9, "lr": 0.02},
    "all three": {"batch_size": 100, "schedule": lambda s: 0.8**s, "momentum": 0.9, "lr": 0.02},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("activation", "rule", "bound"), [("tanh", "gauss", 1e-12), ("relu", "piecewise", 1e-11)])
def test_other_ways_to_train(way, activation, rule, bound, note_error):
    path = trained(activation, n=300, **WAYS[way])
    error = ntk.epk(path, XT, rule, 8).error
    assert note_error(f"{activation}, {way}, {rule} 8", error, f"{bound:.0e}") <= bound


def test_single_precision_and_where_its_error_comes_from(note_error):
    torch.manual_seed(0)
    x, xt = X[:300].float(), XT.float()
    path = ntk.train_path(ntk.mlp((100, 64, 3), "tanh"), x, Y[:300], steps=30, lr=0.1, progress=False)
    whole = ntk.epk(path, xt, "gauss", 4).error
    exact = ntk.training.TrainingPath(path.model.double(), x.double(), Y[:300], path.weights.double(), path.batches, path.lrs)
    from_path = ntk.epk(exact, xt.double(), "gauss", 4).error
    assert note_error("float32, path and kernel", whole, "1e-4") < 1e-4
    assert note_error("  float32 path, float64 kernel: rounding of the steps alone", from_path, "1e-4, above 1e-9") < 1e-4
    assert from_path > 1e-9


def test_one_machine_or_many(note_error):
    for loss in ("log_softmax", "cross_entropy", "squared"):
        kernel = ntk.epk(trained("tanh", n=300, loss=loss), XT, "gauss", 6)
        apart = (kernel.machine() - kernel.predict()).abs().max().item()
        promised = "1e-12" if loss == "log_softmax" else "above 1e-2"
        note_error(f"Thm 3.7, {loss}: ensemble against one machine", apart, promised)
        assert kernel.error <= 1e-12
        assert apart <= 1e-12 if loss == "log_softmax" else apart > 1e-2


def test_remark_1(note_error):
    path = trained("tanh", n=300, zero_output=False)
    kernel = ntk.epk(path, XT, "gauss", 6)
    constant = path.outputs(path.x, 0).mean(0)
    spread = (path.outputs(XT, 0) - constant).abs().max().item()
    error = (kernel.predict(constant) - kernel.network).abs().max().item()
    assert note_error("Remark 1, constant b", error, f"the initial spread {spread:.1e}") == pytest.approx(spread, rel=1e-9)
    assert note_error("  b = f(x) before training", kernel.error, "1e-12") <= 1e-12


def test_eigenvalues(note_error):
    path = trained("tanh", n=60)
    gram = symmetric_gram(path, torch.cat([path.x, XT[:30]]), torch.arange(90) < 60)
    matrix = gram.permute(0, 2, 1, 3).reshape(270, 270)
    values = torch.linalg.eigvalsh(matrix)
    assert (
        note_error("symmetric path kernel, lowest eigenvalue over highest", (values[0] / values[-1]).item(), "-1e-10") >= -1e-10
    )
    other = weighted_gram(trained("tanh", n=60, loss="cross_entropy"), path.x, path.y)
    asymmetry = ((other - other.permute(1, 0, 3, 2)).norm() / other.norm()).item()
    assert note_error("  eq. (18), relative asymmetry", asymmetry, "above 1e-3") > 1e-3
