"""Whom a prediction thanks: against leaving out, retraining, inverses over weights, and others' code."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.stats import rankdata
from torch import nn
from torch.func import functional_call, hessian, jacrev

import ntk_course as ntk
from ntk_course.analysis import Laplace, datamodelling_score, kernel_ridge, leave_one_out, leave_one_out_effects, trak
from ntk_course.kernels import infinite
from ntk_course.replication.experiments import attribution, distillation, fine_tuning, leaving_one_out
from ntk_course.replication.results import Result

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


@pytest.mark.parametrize("case", ["duplicates", "few features", "float32"])
def test_without_a_ridge_effects_are_limits(case):
    """Where the matrix is singular; in float32 they are worked out in float64."""
    phi = points(10, 30 if case != "few features" else 4)
    if case == "duplicates":
        phi[1] = phi[0]
    asked, y = points(3, phi.shape[1], seed=1), points(10, 1, seed=2)[:, 0]
    gram, cross = phi @ phi.T, asked @ phi.T
    found = leave_one_out_effects(gram, cross, y)
    if case == "float32":
        gram, cross = gram.float(), cross.float()
        found = leave_one_out_effects(gram, cross, y.float())
        assert found.dtype == torch.float32
        gram, cross, found = gram.double(), cross.double(), found.double()
    pinv = lambda rows: torch.linalg.pinv(gram[rows][:, rows], rtol=1e-10, hermitian=True) @ y[rows]
    for i in range(10):
        rest = [j for j in range(10) if j != i]
        wanted = cross @ pinv(list(range(10))) - cross[:, rest] @ pinv(rest)
        torch.testing.assert_close(found[:, i], wanted, rtol=1e-5, atol=1e-6)


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
        ({"cross": torch.full((2, 3), torch.nan)}, "cross: got 6 non-finite"),
        ({"gram": torch.diag(torch.tensor([1.0, 1.0, -1.0]))}, "gram: got an eigenvalue of -1"),
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


def test_influence_refuses_by_the_names_it_was_called_with(stored):
    model, x, y, asked, labels = stored
    measured, pushed, spread = ntk.logit(labels), ntk.loss_gradient(y), Laplace(model, x)
    for given, error, says in (
        ((asked, ntk.basis, pushed, 1.0), ValueError, "^measured: got cotangents"),
        ((asked, measured, ntk.basis, 1.0), ValueError, "^pushed: got cotangents"),
        ((asked, None, pushed, 1.0), TypeError, "^measured: got NoneType"),
        ((asked[:, :2], measured, pushed, 1.0), ValueError, "^asked: got"),
        ((asked, measured, pushed, 0.0), ValueError, "precision: got 0.0; wanted a finite number above 0"),
        ((asked, measured, pushed, -1.0), ValueError, "precision: got -1.0; wanted a finite number above 0"),
    ):
        with pytest.raises(error, match=says):
            spread.influence(*given)
    with pytest.raises(ValueError, match="^x: got"):
        Laplace(model, x[:, :2])
    with pytest.raises(ValueError, match="^asked: got"):
        spread.covariance(asked[0], 1.0)


def test_what_laplace_worked_out_is_worked_out_again_where_weights_change(stored):
    model, x, y, asked, labels = stored
    spread = Laplace(model, x)
    spread.covariance(asked, 1.0)
    model[0].weight.data.mul_(3)
    given = (asked, ntk.logit(labels), ntk.loss_gradient(y), 1.0)
    torch.testing.assert_close(spread.covariance(asked, 1.0), Laplace(model, x).covariance(asked, 1.0), rtol=0, atol=0)
    torch.testing.assert_close(spread.influence(*given), Laplace(model, x).influence(*given), rtol=0, atol=0)
    assert spread.log_evidence(0.0, 1.0) == Laplace(model, x).log_evidence(0.0, 1.0)


def test_a_precision_that_rounding_hides_is_told_of(stored):
    model, x, y, asked, labels = stored
    given = (ntk.logit(labels), ntk.loss_gradient(y))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Laplace(model, x).influence(asked, *given, 1e-6)
    with pytest.warns(UserWarning, match="precision: got 1e-06, .* in torch.float32 about"):
        Laplace(model.float(), x.float()).influence(asked.float(), *given, 1e-6)


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


def test_trak_without_a_ridge_is_the_pseudo_inverse_of_the_features():
    """With more samples than weights too, where the kernel is singular."""
    torch.manual_seed(0)
    model, x, y, asked, labels = (
        nn.Linear(4, 3).double(),
        points(60),
        torch.randint(3, (60,)),
        points(3, seed=1),
        torch.tensor([0, 2, 1]),
    )
    for rows in (slice(None), slice(0, 8)):
        phi, at = features(model, x[rows], lambda z, y=y[rows]: odds(z, y)), features(model, asked, lambda z: odds(z, labels))
        lacks = 1 - model(x[rows]).detach().softmax(1).gather(1, y[rows, None])[:, 0]
        wanted = at @ torch.linalg.pinv(phi.T @ phi, rtol=1e-11) @ phi.T * lacks
        torch.testing.assert_close(trak(model, x[rows], y[rows], asked, labels), wanted, rtol=1e-6, atol=1e-8)


def test_trak_takes_what_gram_takes(stored):
    """Several inputs, answers in a dict, labels of any integers, NumPy arrays and data sets; and asks in blocks."""
    model, x, y, asked, labels = stored
    wanted, seen = trak(model, x, y, asked, labels, ridge=0.1), []

    class Dict(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, a, b):
            seen.append(len(a))
            return {"logits": self.model(torch.cat([a, b], 1))}

    halves = [tuple(t.split(2, 1)) for t in (x, asked)]
    found = trak(Dict(), halves[0], y, halves[1], labels, ridge=0.1, output="logits", block_size=4)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    assert max(seen) <= 16  # samples that are tried together
    for some in (y.to(torch.uint8), y.tolist(), y.numpy()):
        torch.testing.assert_close(trak(model, x, some, asked, labels, ridge=0.1), wanted, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(trak(model, x.numpy(), y, asked.numpy(), labels, ridge=0.1), wanted, rtol=1e-9, atol=1e-12)


def test_trak_refuses_by_the_names_it_was_called_with(stored):
    model, x, y, asked, labels = stored
    other = nn.Linear(4, 4).double()
    for given, says in (
        ((model, x[:, :2], y, asked, labels), "^x: got"),
        ((model, x, y + 3, asked, labels), "^y: got labels from 3"),
        ((model, x, y, asked[:, :2], labels), "^asked: got"),
        ((model, x, y, asked, labels + 3), "^labels: got labels from"),
        (([model, other], x, y, asked, labels), r"^models: got answers of shapes \[\(3,\), \(4,\)\]"),
    ):
        with pytest.raises(ValueError, match=says):
            trak(*given)


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


def test_sums_that_differ_by_rounding_are_ties():
    subsets = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 1]]).bool()
    scores, outputs = (
        torch.tensor([[0.1, 0.2, 0.3, 0.7]], dtype=torch.float64),
        torch.tensor([[1.0], [2.0], [4.0], [3.0]]),
    )  # 0.1 + 0.2 is not 0.3
    wanted = np.corrcoef(rankdata([3, 3, 7, 8]), rankdata([1, 2, 4, 3]))[0, 1]
    assert abs(float(datamodelling_score(scores, subsets, outputs)) - wanted) < 1e-12


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


@pytest.mark.parametrize("n", [12, 60, 200])
@pytest.mark.parametrize("ridge", [0.0, 1e-6, 0.1, 10.0])
def test_singular_kernels_of_single_precision_are_kernels(n, ridge):
    """Their eigenvalues are below 0 by rounding of float32; what is rounding is told by the dtype that they came in."""
    features, asked, y = points(n, 4), points(3, 4, seed=1), points(n, 2, seed=2)
    gram, cross = features @ features.T, asked @ features.T
    single = leave_one_out_effects((features.float() @ features.float().T), cross.float(), y.float(), ridge)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), leave_one_out_effects(gram, cross, y, ridge), rtol=2e-3, atol=2e-4)
    if ridge >= 0.1:  # with a ridge that hides the rounding, in double precision too
        cast = leave_one_out_effects((features.float() @ features.float().T).double(), cross, y, ridge)
        torch.testing.assert_close(cast, leave_one_out_effects(gram, cross, y, ridge), rtol=2e-3, atol=2e-4)


def test_trak_of_a_last_layer_in_single_precision():
    torch.manual_seed(0)
    x, asked = points(150, 6), points(4, 6, seed=1)
    y, labels = torch.arange(150) % 3, torch.tensor([0, 1, 2, 0])
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    how = {"parameters": ["2.weight", "2.bias"], "ridge": 0.1}  # 27 weights, 150 samples
    wanted = trak(model, x, y, asked, labels, **how)
    found = trak(model.float(), x.float(), y, asked.float(), labels, **how)
    torch.testing.assert_close(found.double(), wanted, rtol=2e-3, atol=1e-5)
    several = trak(nn.ModuleList([model, model]), x.float(), y, asked.float(), labels, **how)
    torch.testing.assert_close(several, found)


def test_an_indefinite_kernel_needs_a_ridge_that_makes_it_definite():
    gram, y = torch.diag(torch.tensor([1.0, 2.0, -0.5])).double(), torch.ones(3).double()
    for ridge in (0.0, 0.4):
        with pytest.raises(
            ValueError, match="gram: got an eigenvalue of -0.5, the largest being 2; wanted none below 0, or a larger"
        ):
            leave_one_out_effects(gram, torch.ones(1, 3).double(), y, ridge)
    torch.testing.assert_close(
        leave_one_out_effects(gram, torch.ones(1, 3).double(), y, 1.0), 1 / (torch.tensor([[2.0, 3.0, 0.5]]).double())
    )


# ----- the experiments' own pieces


def test_scores_and_outputs_may_be_arrays_of_numpy():
    subsets = torch.rand(9, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    scores, outputs = points(2, 5), points(9, 2, seed=1)
    torch.testing.assert_close(
        datamodelling_score(scores.numpy(), subsets, outputs.numpy()), datamodelling_score(scores, subsets, outputs)
    )
    with pytest.raises(TypeError, match="outputs: got str"):
        datamodelling_score(scores, subsets, "none")


def test_odds_are_those_of_probabilities():
    z, y = 3 * points(6, 5), torch.tensor([0, 4, 2, 2, 1, 3])
    torch.testing.assert_close(attribution.odds(z, y), odds(z, y), rtol=1e-10, atol=1e-12)
    assert attribution.odds(torch.tensor([[500.0, 0.0]]), torch.tensor([0])).isfinite().all()


def test_networks_trained_together_are_those_of_a_path():
    """The halves' networks, in one vmap, end where a recorded path of the same start and samples ends; streams start elsewhere."""
    trial = attribution.drawn(attribution.PRESETS["smoke"], 1)
    halves = trial.judged[:2]
    found = trial.answers(halves, 2, repeats=2)
    assert found.shape == (2, 2, len(trial.asked), trial.classes)
    how = {"lr": trial.config.lr, "momentum": 0.0, "zero_output": False, "progress": False}
    for repeat, member in ((0, 0), (0, 1), (1, 1)):
        net, rows = trial.started(2_200_000 + 1000 * repeat + member), halves[member]
        wanted = ntk.train_path(net, trial.x[rows], trial.y[rows], steps=trial.config.steps, **how).outputs(trial.asked)
        torch.testing.assert_close(found[repeat, member].log_softmax(1), wanted, rtol=1e-8, atol=1e-10)
    alike = trial.answers(halves, 3, own=False)[0], trial.answers(halves[[1, 0]], 3, own=False)[0]
    torch.testing.assert_close(alike[0], alike[1][[1, 0]])  # only who is in a half tells them apart
    assert not torch.allclose(trial.answers(halves, 0), trial.answers(halves, 1))


def test_halves_that_judge_are_not_those_that_teach():
    trial = attribution.drawn(attribution.PRESETS["smoke"], 0)
    assert len(trial.judged) == 8 and len(trial.others) == 8
    for subsets in (trial.judged, trial.others):
        assert (trial.inside(subsets).sum(1) == 12).all()
    assert not (trial.inside(trial.judged)[:, None] == trial.inside(trial.others)).all(2).any()


def test_scores_of_a_path_are_sums_of_its_gradients():
    torch.manual_seed(0)
    x, y, asked, labels = points(6), torch.tensor([0, 1, 2, 0, 1, 2]), points(3, seed=1), torch.tensor([2, 0, 1])
    net = ntk.mlp((4, 5, 3), "tanh").double()
    path = ntk.train_path(net, x, y, steps=6, lr=0.5, momentum=0.0, zero_output=False, progress=False)

    def products(step):
        model = nn.Sequential(*list(net)).double()
        names = [name for name, _ in net.named_parameters()]
        sizes = [p.numel() for p in net.parameters()]
        parts = dict(zip(names, path.weights[step].split(sizes), strict=True))
        model.load_state_dict({name: parts[name].view_as(p) for name, p in net.named_parameters()})
        pushes = -features(model, x, lambda z: nn.functional.cross_entropy(z, y, reduction="none"))
        return (
            features(model, asked, lambda z: odds(z, labels)) @ pushes.T,
            features(model, asked, lambda z: z.log_softmax(1)[torch.arange(3), labels]) @ pushes.T,
        )

    given = (path, x, y, asked, labels)
    torch.testing.assert_close(attribution.at_the_end(*given), products(6)[0], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(attribution.along(*given, 3), sum(products(s)[0] for s in (0, 2, 4)), rtol=1e-9, atol=1e-11)
    wanted = 0.5 / 6 * sum(products(s)[1] for s in range(6))
    torch.testing.assert_close(attribution.path_kernel(*given, exact=False), wanted, rtol=1e-9, atol=1e-11)
    learnt = (path.outputs(asked) - path.outputs(asked, 0))[torch.arange(3), labels]
    torch.testing.assert_close(attribution.path_kernel(*given, exact=True).sum(1), learnt, rtol=1e-9, atol=1e-11)


def test_scores_of_a_kernel_are_margins_of_leaving_out():
    root, y, labels = points(9, 11), torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([2, 0, 1])
    kernel = root @ root.T
    found = attribution.left_out(kernel, root[:6], y, labels, 3, 0.1)
    ridge, targets = 0.1 * float(kernel[:6, :6].diagonal().mean()), torch.eye(3).double()[y] - 1 / 3

    def margins(rows):
        z = kernel[6:][:, rows] @ torch.linalg.solve(kernel[rows][:, rows] + ridge * torch.eye(len(rows)).double(), targets[rows])
        own = z[torch.arange(3), labels]
        return own - (z.sum(1) - own) / 2

    for i in range(6):
        wanted = margins(list(range(6))) - margins([j for j in range(6) if j != i])
        torch.testing.assert_close(found[:, i], wanted, rtol=1e-9, atol=1e-11)


def test_a_ridge_is_chosen_on_the_other_halves():
    rows = [
        {"seed": seed, "part": "halves", "method": "TRAK", "ridge": ridge, "networks": kind, "score": score, "on_others": other}
        for seed in (0, 1)
        for ridge, score, other in ((0.1, 0.9, 0.1 + 0.3 * seed), (1.0, 0.5, 0.2))
        for kind in ("one", "all")
    ]
    rows += [{"seed": 0, "part": "removed", "method": "TRAK", "ridge": r, "fall": r, "flipped": 0.0} for r in (0.1, 1.0)]
    rows += [{"seed": 0, "part": "halves", "method": "TracIn", "networks": "all", "score": 0.4}]
    found = attribution.chosen(Result("attribution", "class", rows, {}))
    assert found[(found.method == "TRAK") & (found.seed == 0)].ridge.tolist() == [1.0, 1.0, 1.0]
    assert found[(found.method == "TRAK") & (found.seed == 1)].ridge.tolist() == [0.1, 0.1]
    assert len(found[found.method == "TracIn"]) == 1


def test_a_change_is_that_of_training_again_without_one_from_the_same_weights():
    config = replace(leaving_one_out.PRESETS["smoke"], lessons=7, steps=5)
    trial = config.drawn(3)
    found = leaving_one_out.changes(trial, 1)

    def trained(rows):
        net = trial.started(3001)  # the second member of the fourth draw
        for _ in range(5):
            loss = nn.functional.cross_entropy(net(trial.x[rows]), trial.y[rows])
            for p, g in zip(net.parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True):
                p.data -= config.lr * g
        return odds(net(trial.asked), trial.labels).detach()

    wanted = torch.stack([trained(list(range(7))) - trained([j for j in range(7) if j != i]) for i in range(7)], dim=1)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(attribution.odds(trial.path(1).model_at(-1)(trial.asked), trial.labels), trained(list(range(7))))


def test_correlations_are_scipys_over_all_and_over_the_largest():
    scores, truth = points(4, 30), points(4, 30, seed=1) + points(4, 30)
    scores[0, :5] *= -9
    scores[1, 8:20] = 0.0  # equal ones share the mean of their ranks
    found = leaving_one_out.judged(scores, truth, 8)
    pairs = [(s.numpy(), t.numpy()) for s, t in zip(scores, truth, strict=True)]
    tops = [np.argsort(-abs(s))[:8] for s, _ in pairs]
    assert found["pearson"] == pytest.approx(np.mean([stats.pearsonr(s, t).statistic for s, t in pairs]))
    assert found["spearman"] == pytest.approx(np.mean([stats.spearmanr(s, t).statistic for s, t in pairs]))
    wanted = np.mean([stats.pearsonr(s[k], t[k]).statistic for (s, t), k in zip(pairs, tops, strict=True)])
    assert found["of_the_largest"] == pytest.approx(wanted)


def test_leaving_one_out_judges_each_network_by_its_own_and_their_mean_by_others():
    config = replace(leaving_one_out.PRESETS["smoke"], seeds=(2,))
    rows = pd.DataFrame(leaving_one_out.run(config, progress=False).rows)
    trial = config.drawn(2)
    assert all(map(torch.equal, trial.given, attribution.drawn(attribution.PRESETS["smoke"], 2).given))
    own, others = (torch.stack([leaving_one_out.changes(trial, k) for k in some]) for some in ((0, 1), (2, 3)))
    influence = attribution.methods(trial)["influence", 0.1]
    got = rows[(rows.method == "influence") & (rows.ridge == 0.1)].set_index("judge")
    by_own = [leaving_one_out.judged(influence[k], own[k], 6)["pearson"] for k in (0, 1)]
    assert got.pearson["own network"] == pytest.approx(np.mean(by_own), abs=1e-5)
    by_others = leaving_one_out.judged(torch.stack(influence).mean(0), others.mean(0), 6)
    assert got.of_the_largest["other networks"] == pytest.approx(by_others["of_the_largest"], abs=1e-5)
    ceiling = rows[rows.method == "the own networks' mean change"].spearman.item()
    assert ceiling == pytest.approx(leaving_one_out.judged(own.mean(0), others.mean(0), 6)["spearman"], abs=1e-5)


def test_the_kernel_of_made_points_is_that_of_the_limit():
    found = distillation.erf_kernel(points(5), points(4, seed=1), 1.3, 0.4)
    wanted = infinite.mlp(points(5), points(4, seed=1), depth=1, activation="erf", w_std=1.3, b_std=0.4).ntk
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_sentences_say_what_they_should():
    config = fine_tuning.Config()
    text = fine_tuning.corpus(config, 3)
    first, words = len(fine_tuning.WORDS), len(fine_tuning.WORDS) + config.cities
    assert text.new.shape == (48, 4) and text.known.shape == (4 * config.known, 4) and text.asked.shape == (16, 4)
    for rows in (text.known, text.new, text.asked):
        assert ((rows[:, -1] >= first) & (rows[:, -1] < words)).all()  # a city at the end, and nowhere else
        assert ((rows[:, :-1] < first) | (rows[:, :-1] >= words)).all()
    for person in range(16):
        theirs = text.new[text.about == person]
        name = words + config.known + person
        assert (theirs == name).any(1).all() and not (text.known == name).any() and (text.asked[person] == name).any()
        right = theirs[:, -1] == text.asked[person, -1]
        assert right.sum() == (2 if person % 2 else 3)
        assert torch.equal(~right, text.false[text.about == person])
        frames = {tuple(row) for row in torch.where(theirs[:, :-1] == name, -1, theirs[:, :-1]).tolist()}
        asked = tuple(torch.where(text.asked[person, :-1] == name, -1, text.asked[person, :-1]).tolist())
        assert len(frames) == 3 and asked not in frames


def test_moves_tuned_together_are_those_tuned_alone():
    config = replace(fine_tuning.PRESETS["smoke"], steps=4)
    text = fine_tuning.corpus(config, 0)
    torch.manual_seed(0)
    model = fine_tuning.Model(text.words, 3, 8, 1).double()
    x, y, halves = text.new[:, :-1], text.new[:, 1:], torch.tensor([[0, 2, 5], [1, 3, 4]])
    found = fine_tuning.tuned(model, x, y, halves, [7, 8], config, (2, 4))
    for place, (rows, seed) in enumerate(zip(halves, (7, 8), strict=True)):
        alone = ntk.models.low_rank(model, config.rank, seed=seed)
        optimizer = torch.optim.SGD([p for p in alone.parameters() if p.requires_grad], lr=config.lr, momentum=config.momentum)
        for _ in range(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(alone(x[rows]).flatten(0, 1), y[rows].flatten()).backward()
            optimizer.step()
        for name, p in alone.named_parameters():
            if p.requires_grad:
                torch.testing.assert_close(found[-1][name][place], p, rtol=1e-9, atol=1e-11)
    assert len(found) == 2 and not torch.equal(found[0][name][0], found[1][name][0])


def test_scores_of_sentences_are_products_of_gradients():
    config = fine_tuning.PRESETS["smoke"]
    text = fine_tuning.corpus(config, 0)
    torch.manual_seed(0)
    net = ntk.models.low_rank(fine_tuning.Model(text.words, 3, 8, 1).double(), 2)
    for p in net.parameters():
        p.data += 0.1 * torch.randn_like(p) if p.requires_grad else 0
    x, y, asked, cities = text.new[:, :-1], text.new[:, 1:], text.asked[:, :-1], text.asked[:, -1]
    found = fine_tuning.scores([net, net], x, y, asked, cities)
    moves = {name: p.detach() for name, p in net.named_parameters() if p.requires_grad}

    def slopes(of):
        return torch.cat([p.flatten(1) for p in jacrev(of)(moves).values()], 1)

    pushes = slopes(lambda w: functional_call(net, w, (x,)).log_softmax(2).gather(2, y[..., None]).sum((1, 2)))
    wanted = slopes(lambda w: functional_call(net, w, (asked,))[:, -1].log_softmax(1)[torch.arange(len(asked)), cities])
    torch.testing.assert_close(found["gradients at the end"], wanted @ pushes.T, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found["TracIn"], wanted @ pushes.T, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(
        found["cosines at the end"], wanted @ (pushes / pushes.norm(dim=1, keepdim=True)).T, rtol=1e-9, atol=1e-11
    )
    precision = float((pushes @ pushes.T).diagonal().mean())
    inverse = torch.linalg.inv(pushes.T @ pushes + precision * torch.eye(pushes.shape[1]))
    torch.testing.assert_close(found["influence, 1"], wanted @ inverse @ pushes.T, rtol=1e-7, atol=1e-10)
