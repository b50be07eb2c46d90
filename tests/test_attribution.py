"""Whom a prediction thanks: against leaving out, retraining, inverses over weights, and others' code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch import nn
from torch.func import functional_call, hessian, jacrev

import ntk_course as ntk
from ntk_course.analysis import Laplace, datamodelling_score, kernel_ridge, leave_one_out, leave_one_out_effects, trak

REFERENCE = json.loads((Path(__file__).parent / "reference" / "attribution.json").read_text())


def points(n, d=4, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def stored():
    """The network, points and labels that traker has seen."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    model.load_state_dict({name: torch.tensor(w, dtype=torch.float64) for name, w in REFERENCE["weights"].items()})
    x, asked = (torch.tensor(REFERENCE[name], dtype=torch.float64) for name in ("x", "asked"))
    return model, x, torch.tensor(REFERENCE["y"]), asked, torch.tensor(REFERENCE["labels"])


def features(model, x, of):
    """Return the gradients of outputs ``of(z)`` (N,) in the weights, (N, d), by reverse mode."""
    weights = {name: p.detach() for name, p in model.named_parameters()}
    parts = jacrev(lambda w: of(functional_call(model, w, (x,))))(weights)
    return torch.cat([p.flatten(1) for p in parts.values()], 1)


def odds(z, y):
    p = z.softmax(1).gather(1, y[:, None])[:, 0]
    return (p / (1 - p)).log()


# ----- leaving one out, by the kernel


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("outputs", [(), (3,)])
def test_leave_one_out_effects_by_leaving_one_out(ridge, outputs):
    gram = points(7, 9) @ points(7, 9).T
    cross, y = points(4, 7, seed=1), points(7, 3, seed=2)[:, 0] if not outputs else points(7, 3, seed=2)
    found = leave_one_out_effects(gram, cross, y, ridge)
    assert found.shape == (4, 7, *outputs)
    everything = kernel_ridge(gram, y, ridge).predict(cross)
    for i in range(7):
        rest = [j for j in range(7) if j != i]
        without = kernel_ridge(gram[rest][:, rest], y[rest], ridge).predict(cross[:, rest])
        torch.testing.assert_close(found[:, i], everything - without, rtol=1e-9, atol=1e-9)


def test_a_points_effect_on_itself_is_what_the_others_lack():
    gram, y = points(7, 9) @ points(7, 9).T, points(7, 3, seed=2)
    found = leave_one_out_effects(gram, gram, y, 0.2)
    own = kernel_ridge(gram, y, 0.2).predict(gram) - leave_one_out(gram, y, 0.2)
    torch.testing.assert_close(torch.stack([found[i, i] for i in range(7)]), own, rtol=1e-9, atol=1e-9)


def test_effects_are_those_of_linearised_networks_retrained():
    """A network's expansion, trained to the end on the squared loss with and without each sample, by steps on its weights."""
    torch.manual_seed(0)
    model, x, asked, y = ntk.mlp((4, 16, 1), activation="tanh").double(), points(5), points(3, seed=1), points(5, 1, seed=2)[:, 0]
    j, j_asked = (features(model, at, lambda z: z[:, 0]) for at in (x, asked))

    def trained(rows):
        w = torch.zeros(j.shape[1], dtype=torch.float64)
        rate = 1 / torch.linalg.eigvalsh(j[rows] @ j[rows].T)[-1]
        for _ in range(20_000):
            w = w + rate * j[rows].T @ (y[rows] - j[rows] @ w)
        return j_asked @ w

    gram = ntk.Gram(model, x, ntk.ones)
    found = leave_one_out_effects(gram.dense(), gram.against(asked, ntk.ones).dense(), y)
    for i in range(5):
        wanted = trained(list(range(5))) - trained([k for k in range(5) if k != i])
        torch.testing.assert_close(found[:, i], wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cross": torch.zeros(2, 4)}, "cross: got shape"),
        ({"targets": torch.zeros(4)}, "targets: got"),
        ({"ridge": -1.0}, "ridge: got -1"),
    ],
)
def test_effects_refuse(change, says):
    given = {"gram": torch.eye(3), "cross": torch.zeros(2, 3), "targets": torch.zeros(3), "ridge": 0.0} | change
    with pytest.raises(ValueError, match=says):
        leave_one_out_effects(**given)


# ----- influence functions


def gauss_newton(model, x, precision):
    """Return the Gauss-Newton Hessian of the summed cross entropy plus the prior's, over weights."""
    weights = {name: p.detach() for name, p in model.named_parameters()}
    parts = jacrev(lambda w: functional_call(model, w, (x,)))(weights)
    j = torch.cat([p.flatten(2) for p in parts.values()], 2)
    p = model(x).detach().softmax(1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    return torch.einsum("nkd,nkl,nle->de", j, inner, j) + precision * torch.eye(j.shape[2], dtype=torch.float64)


@pytest.mark.parametrize("precision", [0.05, 2.0])
def test_influence_is_the_inverse_hessian_over_weights(stored, precision):
    model, x, y, asked, labels = stored
    found = Laplace(model, x).influence(asked, ntk.tangents.log_odds(labels), ntk.loss_gradient(y), precision)
    pushes = -features(model, x, lambda z: nn.functional.cross_entropy(z, y, reduction="none"))
    wanted = features(model, asked, lambda z: odds(z, labels)) @ torch.linalg.solve(gauss_newton(model, x, precision), pushes.T)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


def test_influence_of_a_linear_model_is_the_slope_of_retraining():
    """Logistic regression, where Gauss-Newton is the Hessian: weights 1 + epsilon of a sample, trained to a gradient of 1e-12."""
    torch.manual_seed(0)
    x, y, asked, labels, precision = points(12), torch.randint(3, (12,)), points(3, seed=1), torch.tensor([0, 2, 1]), 0.5

    def loss(w, weights):
        each = nn.functional.cross_entropy(x @ w.view(4, 3), y, reduction="none")
        return (weights * each).sum() + precision / 2 * w.square().sum()

    def trained(weights):
        w = torch.zeros(12, dtype=torch.float64)
        for _ in range(30):  # Newton
            grad = torch.func.grad(loss)(w, weights)
            w = w - torch.linalg.solve(hessian(loss)(w, weights), grad)
        assert grad.abs().max() < 1e-12
        return w

    model = nn.Linear(4, 3, bias=False).double()
    model.weight.data.copy_(trained(torch.ones(12).double()).view(4, 3).T)
    found = Laplace(model, x).influence(asked, ntk.tangents.log_odds(labels), ntk.loss_gradient(y), precision)
    step = 1e-4
    for i in (0, 5, 11):
        ends = []
        for sign in (1, -1):
            weights = torch.ones(12, dtype=torch.float64)
            weights[i] += sign * step
            ends.append(odds(asked @ trained(weights).view(4, 3), labels))
        torch.testing.assert_close(found[:, i], (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-8)


def test_influence_is_the_first_order_of_leaving_one_out():
    """On the squared loss the two differ by one over one less the leverage, which is the training point's own influence."""
    torch.manual_seed(0)
    x, asked, y, ridge = points(9), points(3, seed=1), points(9, 1, seed=2), 0.7
    gram, cross = x @ x.T, asked @ x.T
    model = nn.Linear(4, 1, bias=False).double()
    model.weight.data.copy_((x.T @ kernel_ridge(gram, y, ridge).coefficients).T)
    spread = Laplace(model, x, ntk.basis)
    found = spread.influence(asked, ntk.ones, ntk.loss_gradient(y, "squared"), ridge)
    leverage = (gram @ torch.linalg.inv(gram + ridge * torch.eye(9))).diagonal()
    torch.testing.assert_close(found / (1 - leverage), leave_one_out_effects(gram, cross, y, ridge)[..., 0], rtol=1e-7, atol=1e-9)


def test_influence_wants_one_cotangent_a_sample(stored):
    model, x, y, asked, labels = stored
    with pytest.raises(ValueError, match="measured, pushed: got several cotangents"):
        Laplace(model, x).influence(asked, ntk.basis, ntk.basis, 1.0)
    with pytest.raises(ValueError, match="precision: got 0"):
        Laplace(model, x).influence(asked, ntk.logit(labels), ntk.loss_gradient(y), 0.0)


# ----- TRAK


def test_log_odds_is_the_derivative_of_the_log_odds(stored):
    model, x, y, *_ = stored
    phi = features(model, x, lambda z: odds(z, y))
    torch.testing.assert_close(ntk.Gram(model, x, ntk.tangents.log_odds(y)).dense(), phi @ phi.T, rtol=1e-10, atol=1e-12)


def test_log_odds_is_the_loss_gradient_over_what_the_label_lacks():
    z, y = 3 * points(6, 5), torch.tensor([0, 4, 2, 2, 1, 3])
    lacks = 1 - z.softmax(1).gather(1, y[:, None])
    torch.testing.assert_close(ntk.tangents.log_odds(y)(z), ntk.loss_gradient(y)(z) / lacks, rtol=1e-12, atol=1e-12)


def test_log_odds_of_a_learnt_sample_and_of_one_logit():
    c = ntk.tangents.log_odds(torch.tensor([0]))(torch.tensor([[500.0, 0.0, 0.0]]))
    assert torch.equal(c, torch.tensor([[1.0, -0.5, -0.5]]))
    with pytest.raises(ValueError, match="log_odds: got logits .*wanted at least two"):
        ntk.tangents.log_odds(torch.tensor([0]))(torch.zeros(1, 1))


@pytest.mark.parametrize("row", REFERENCE["found"], ids=lambda row: f"{row['ridge']:.0f}")
def test_trak_is_that_of_traker(stored, row):
    """traker works with features, in single precision, and up to a factor."""
    model, x, y, asked, labels = stored
    mean = float(ntk.Gram(model, x, ntk.tangents.log_odds(y)).diagonal().mean())
    found = trak(model, x, y, asked, labels, ridge=row["ridge"] / mean)
    wanted = torch.tensor(row["scores"], dtype=torch.float64)
    torch.testing.assert_close(found / found.norm(), wanted / wanted.norm(), rtol=1e-4, atol=5e-6)


def test_trak_of_several_models_averages_its_two_factors(stored):
    model, x, y, asked, labels = stored
    torch.manual_seed(1)
    models, parts = [model, ntk.mlp((4, 5, 3)).double()], []
    for one in models:
        phi, at = features(one, x, lambda z: odds(z, y)), features(one, asked, lambda z: odds(z, labels))
        rho = 0.1 * float(phi.square().sum(1).mean())
        inverse = torch.linalg.inv(phi.T @ phi + rho * torch.eye(phi.shape[1], dtype=torch.float64))
        parts.append((at @ inverse @ phi.T, 1 - one(x).detach().softmax(1).gather(1, y[:, None])[:, 0]))
    wanted = (parts[0][0] + parts[1][0]) / 2 * (parts[0][1] + parts[1][1]) / 2
    torch.testing.assert_close(trak(models, x, y, asked, labels, ridge=0.1), wanted, rtol=1e-7, atol=1e-10)


def test_trak_refuses(stored):
    model, x, y, asked, labels = stored
    with pytest.raises(ValueError, match="models: got none"):
        trak([], x, y, asked, labels)
    with pytest.raises(ValueError, match="ridge: got -1"):
        trak(model, x, y, asked, labels, ridge=-1.0)


# ----- the linear datamodelling score


def test_the_score_is_a_rank_correlation_over_subsets():
    draw = torch.Generator().manual_seed(0)
    scores, subsets = torch.randn(3, 8, generator=draw), torch.rand(20, 8, generator=draw) < 0.5
    outputs = torch.randn(20, 3, generator=draw)
    found = datamodelling_score(scores, subsets, outputs)
    for m in range(3):
        foreseen = [sum(scores[m, i].item() for i in range(8) if row[i]) for row in subsets]
        wanted = np.corrcoef(rankdata(foreseen), rankdata(outputs[:, m].numpy()))[0, 1]
        assert abs(float(found[m]) - wanted) < 1e-12


def test_the_score_of_what_made_the_outputs_is_one_and_knows_no_factor():
    draw = torch.Generator().manual_seed(0)
    scores, subsets = torch.randn(3, 8, generator=draw), torch.rand(20, 8, generator=draw) < 0.5
    outputs = subsets.float() @ scores.T
    for factor, wanted in ((1, 1.0), (5, 1.0), (-1, -1.0)):
        torch.testing.assert_close(datamodelling_score(factor * scores, subsets, outputs), torch.full((3,), wanted).double())
    assert datamodelling_score(torch.zeros(3, 8), subsets, outputs).isnan().all()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"subsets": torch.zeros(5, 8)}, TypeError, "subsets: got torch.float32"),
        ({"subsets": torch.zeros(2, 8, dtype=torch.bool)}, ValueError, "at least three"),
        ({"scores": torch.zeros(3, 7)}, ValueError, "scores: got shape"),
        ({"outputs": torch.zeros(3, 5)}, ValueError, "outputs: got shape"),
        ({"scores": torch.full((3, 8), torch.nan)}, ValueError, "scores: got"),
    ],
)
def test_the_score_refuses(change, error, says):
    given = {"scores": torch.zeros(3, 8), "subsets": torch.zeros(5, 8, dtype=torch.bool), "outputs": torch.zeros(5, 3)} | change
    with pytest.raises(error, match=says):
        datamodelling_score(**given)
