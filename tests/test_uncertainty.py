"""What trained networks answer from many starts, linearised Laplace and calibration: against drawing, training, weights and others' code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct
from torch import nn
from torch.func import functional_call, jacrev

import ntk_course as ntk
from ntk_course.analysis import Laplace, Law, averaged, calibration_error, trained_law
from ntk_course.kernels import infinite
from ntk_course.replication.experiments import bandits

REFERENCE = json.loads((Path(__file__).parent / "reference" / "laplace.json").read_text())


def points(n, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights_of(model):
    return {name: p.detach() for name, p in model.named_parameters()}


def jacobian(model, x):
    """Return dz/dw, (N, K, d), by reverse mode of the whole batch."""
    parts = jacrev(lambda w: functional_call(model, w, (x,)))(weights_of(model))
    return torch.cat([p.flatten(2) for p in parts.values()], 2)


# ----- the linearised network, and the start from its kernel


@pytest.fixture
def network():
    torch.manual_seed(0)
    return infinite.network((5, 16, 3), "tanh", 1.5, 0.3).double()


def test_linearised_is_the_expansion(network):
    x, flat = points(7), ntk.models.linearised(network)
    step = [torch.randn_like(p) for p in flat.moves]
    for p, m in zip(flat.moves, step, strict=True):
        p.data.copy_(m)
    wanted = network(x) + jacobian(network, x) @ torch.cat([m.flatten() for m in step])
    torch.testing.assert_close(flat(x), wanted, rtol=1e-12, atol=1e-12)


def test_linearised_has_the_networks_kernel_wherever_it_moves(network):
    x, flat = points(7), ntk.models.linearised(network)
    for p in flat.moves:
        p.data.normal_()
    torch.testing.assert_close(ntk.entk(flat, x), ntk.entk(network, x), rtol=1e-12, atol=1e-12)


def test_linearised_and_restarted_keep_what_they_expand_in_eval_mode():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)).double().eval(), points(6)
    flat, again = ntk.models.linearised(model), ntk.models.restarted(model, 1)
    before, start = flat(x), again.drawn.both(x)
    flat.train(), again.train()
    for _ in range(2):
        flat(x), again(x)
    torch.testing.assert_close(flat(x), before, rtol=0, atol=0)
    for one, other in zip(again.drawn.both(x), start, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert model.training and not flat.model.training and not again.drawn.model.training


def test_linearised_leaves_the_model_and_frozen_weights_alone(network):
    before = {n: p.clone() for n, p in network.named_parameters()}
    first = next(iter(network.parameters())).requires_grad_(False)
    flat = ntk.models.linearised(network)
    assert len(flat.moves) == len(before) - 1 and not first.requires_grad
    network.requires_grad_(True)
    flat(points(3)).sum().backward()
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in network.named_parameters())


def test_a_restarted_networks_starts_have_the_kernel_as_covariance(network):
    """Over 4,000 draws, within five standard errors of every entry; mean zero; and the tangent kernel stays what it was."""
    x = points(3)
    with torch.no_grad():
        starts = torch.stack([ntk.models.restarted(network, seed)(x).flatten() for seed in range(4000)])
    kernel = ntk.entk(network, x).permute(0, 2, 1, 3).reshape(9, 9)
    product = starts[:, :, None] * starts[:, None, :]
    assert ((product.mean(0) - kernel).abs() < 5 * product.std(0) / len(starts) ** 0.5).all()
    assert (starts.mean(0).abs() < 5 * starts.std(0) / len(starts) ** 0.5).all()
    torch.testing.assert_close(ntk.entk(ntk.models.restarted(network, 1), x), ntk.entk(network, x), rtol=1e-12, atol=1e-12)


def test_restarting_draws_by_its_seed_and_leaves_the_global_state():
    torch.manual_seed(3)
    model, x = ntk.mlp((5, 8, 2)).double(), points(4)
    state = torch.get_rng_state()
    a, b, other = (ntk.models.restarted(model, seed)(x) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.allclose(a, other) and torch.equal(state, torch.get_rng_state())


# ----- laws


def test_the_law_is_that_of_trained_networks():
    """1,500 linearised networks, trained by their gradient flow from starts of their own; limits' kernels beside them at width 4,096.

    The starts are drawn, so that mean and covariance are held against five standard errors; the kernels of one network stand in for all.
    """
    x, asked, y = points(6), points(3, seed=1), points(6, 1, seed=2)[:, 0]
    everything = torch.cat([x, asked])
    torch.manual_seed(0)
    wide = infinite.network((5, 4096, 1), "relu", 1.4, 0.2).double()
    tangent = ntk.entk(wide, everything)[..., 0, 0]
    found = infinite.mlp(everything, depth=1, activation="relu", w_std=1.4, b_std=0.2)
    law = trained_law(tangent, found.nngp, y)
    ends = []
    with torch.no_grad():
        for seed in range(1500):
            torch.manual_seed(seed + 1)
            start = infinite.network((5, 512, 1), "relu", 1.4, 0.2).double()(everything)[:, 0]
            how = {"time": float("inf"), "start": start[:6], "start_cross": start[6:]}
            ends.append(ntk.analysis.gradient_flow(tangent[:6, :6], tangent[6:, :6], y, **how))
    ends = torch.stack(ends)
    off = ends - law.mean
    product = off[:, :, None] * off[:, None, :]
    assert (off.mean(0).abs() < 5 * ends.std(0) / 1500**0.5).all()
    assert ((product.mean(0) - law.covariance).abs() < 5 * product.std(0) / 1500**0.5).all()


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_the_law_at_a_time_is_that_of_gradient_descent(ridge):
    """1,200 linearised networks by steps of gradient descent on half the squared errors, pulled back to their start by the ridge."""
    torch.manual_seed(0)
    x, asked, y = points(6), points(3, seed=1), points(6, 1, seed=2)[:, 0]
    net = infinite.network((5, 64, 1), "tanh", 1.4, 0.2).double()
    j = jacobian(net, torch.cat([x, asked]))[:, 0]
    tangent, rate, steps = j @ j.T, 1e-3 / float((j @ j.T).diagonal().max()), 1500
    root = torch.randn(9, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    law = trained_law(tangent, root @ root.T, y, ridge=ridge, noise=0.3, time=rate * steps)
    draws = torch.Generator().manual_seed(4)
    start = root @ torch.randn(9, 1200, generator=draws, dtype=torch.float64)
    wanted = y[:, None] + 0.3**0.5 * torch.randn(6, 1200, generator=draws, dtype=torch.float64)
    moves = torch.zeros(j.shape[1], 1200, dtype=torch.float64)
    for _ in range(steps):
        moves -= rate * (j[:6].T @ (start[:6] + j[:6] @ moves - wanted) + ridge * moves)
    ends = (start + j @ moves)[6:].T
    off = ends - law.mean
    product = off[:, :, None] * off[:, None, :]
    assert (off.mean(0).abs() < 5 * ends.std(0) / 1200**0.5).all()
    assert ((product.mean(0) - law.covariance).abs() < 5 * product.std(0) / 1200**0.5).all()
    exact = j[6:] @ moves.mean(1) + start[6:].mean(
        1
    )  # of the mean draw, which is linear: no chance is left but that of Euler's steps
    unit = torch.eye(6, dtype=torch.float64)
    weights = trained_law(tangent, torch.zeros(9, 9), unit, ridge=ridge, time=rate * steps).mean
    torch.testing.assert_close(exact, start[6:].mean(1) + weights @ (wanted - start[:6]).mean(1), rtol=5e-3, atol=5e-4)


@pytest.mark.parametrize("noise", [1e-2, 1.0])
def test_start_and_tangent_alike_with_ridge_as_noise_is_scikit_learns_posterior(noise):
    x, asked, y = points(9), points(4, seed=1), points(9, 2, seed=2)
    everything = torch.cat([x, asked])
    kernel = 1.0 + everything @ everything.T  # what DotProduct(1) is
    law = trained_law(kernel, kernel, y, ridge=noise, noise=noise)
    for k in range(2):
        theirs = GaussianProcessRegressor(DotProduct(1.0), alpha=noise, optimizer=None).fit(x.numpy(), y[:, k].numpy())
        mean, covariance = theirs.predict(asked.numpy(), return_cov=True)
        np.testing.assert_allclose(law.mean[:, k], mean, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(law.covariance, covariance, rtol=1e-6, atol=1e-8)


def test_gpytorch_answers_alike_on_the_same_kernel():
    gpytorch = pytest.importorskip("gpytorch")
    x, asked, y, noise = points(9), points(4, seed=1), points(9, 1, seed=2)[:, 0], 0.1

    class Tangents(gpytorch.kernels.Kernel):
        def forward(self, a, b, diag=False, **_):
            found = infinite.mlp(a, b, depth=2).ntk
            return found.diagonal() if diag else found

    class Process(gpytorch.models.ExactGP):
        def __init__(self):
            likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
            likelihood.noise = noise
            super().__init__(x, y, likelihood)
            self.mean, self.kernel = gpytorch.means.ZeroMean(), Tangents()

        def forward(self, at):
            return gpytorch.distributions.MultivariateNormal(self.mean(at), self.kernel(at))

    with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
        theirs = Process().eval()(asked)
    kernel = infinite.mlp(torch.cat([x, asked]), depth=2).ntk
    law = trained_law(kernel, kernel, y, ridge=noise, noise=noise)
    torch.testing.assert_close(theirs.mean, law.mean, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(theirs.covariance_matrix, law.covariance, rtol=1e-5, atol=1e-8)


def test_a_start_at_zero_has_no_spread_and_a_larger_start_a_larger_one():
    """The covariance is linear in the start's, so that what is added to it can only add."""
    everything = points(10)
    found = infinite.mlp(everything, depth=2, w_std=1.4, b_std=0.1)
    y = points(6, 1, seed=1)
    assert not trained_law(found.ntk, torch.zeros(10, 10), y).covariance.any()
    plain, corrected = (trained_law(found.ntk, start, y).covariance for start in (found.nngp, found.ntk))
    rest = trained_law(found.ntk, found.ntk - found.nngp, y).covariance
    torch.testing.assert_close(corrected - plain, rest, rtol=1e-9, atol=1e-12)
    assert torch.linalg.eigvalsh(rest).min() > 0


def test_labels_move_the_mean_and_not_the_spread():
    found = infinite.mlp(points(10), depth=2)
    one, other = (trained_law(found.ntk, found.nngp, points(6, 1, seed=s)) for s in (1, 2))
    assert torch.equal(one.covariance, other.covariance) and not torch.allclose(one.mean, other.mean)


def test_the_law_at_a_training_point_is_its_label():
    x = points(6)
    found = infinite.mlp(torch.cat([x, x[:2]]), depth=2, b_std=0.1)
    law = trained_law(found.ntk, found.nngp, points(6, 1, seed=1))
    torch.testing.assert_close(law.mean, points(6, 1, seed=1)[:2], rtol=1e-9, atol=1e-9)
    assert law.covariance.abs().max() < 1e-9 * found.nngp.diagonal().mean()


def test_votes_are_those_of_drawn_networks():
    mean = torch.tensor([[0.3, 0.0, -0.5], [2.0, 0.0, 0.0], [0.1, 0.1, 0.0], [0.5, 0.2, 0.2]], dtype=torch.float64)
    law = Law(mean, torch.diag(torch.tensor([1.0, 0.5, 1e-6, 0.0], dtype=torch.float64)))
    drawn = mean[None] + law.deviation[:, None] * torch.randn(
        200_000, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    shares = nn.functional.one_hot(drawn.argmax(2), 3).double().mean(0)
    assert ((law.votes() - shares).abs()[[0, 1, 2]] < 5 * (0.25 / 200_000) ** 0.5).all()
    assert law.votes()[3].tolist() == [1.0, 0.0, 0.0]
    torch.testing.assert_close(law.votes(), law.votes(1000), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(law.votes(100), law.votes(1000), rtol=1e-12, atol=1e-12)
    equal = Law(torch.zeros(1, 4, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
    assert equal.votes().tolist() == [[0.25] * 4]


def test_votes_between_two_are_a_normal_distribution():
    mean = torch.tensor([[1.0, 0.2], [-3.0, 3.0]], dtype=torch.float64)
    law = Law(mean, torch.diag(torch.tensor([0.25, 4.0], dtype=torch.float64)))
    wanted = torch.special.ndtr((mean[:, 0] - mean[:, 1]) / (2**0.5 * law.deviation))
    torch.testing.assert_close(law.votes()[:, 0], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": torch.eye(4)}, r"start: got shape \(4, 4\); wanted \(5, 5\)"),
        ({"targets": torch.ones(5)}, "targets: got 5; wanted at least 1 and fewer than the 5 points"),
        ({"targets": [1.0]}, "targets: got 0"),
        ({"noise": -1.0}, "noise: got -1.0"),
        ({"ridge": -1.0}, "ridge: got -1.0"),
        ({"tangent": torch.arange(25.0).view(5, 5)}, "tangent: .*symmetric"),
    ],
)
def test_what_no_law_is_made_of(change, message):
    given = {"tangent": torch.eye(5), "start": torch.eye(5), "targets": torch.ones(3), **change}
    with pytest.raises((TypeError, ValueError), match=message):
        trained_law(**given)


# ----- the Fisher cotangent, linearised Laplace


def test_fisher_rows_are_the_hessian_of_the_cross_entropy():
    z = points(4, 3)
    c = ntk.tangents.fisher(z)
    for row, rows in zip(z, c, strict=True):
        wanted = torch.func.hessian(lambda a: nn.functional.cross_entropy(a, torch.tensor(1)))(row)
        torch.testing.assert_close(rows.T @ rows, wanted, rtol=1e-12, atol=1e-12)


def test_fisher_of_positions_keeps_them_apart():
    z = points(2, 3 * 4).view(2, 3, 4)
    c = ntk.tangents.fisher(z)
    assert c.shape == (2, 12, 3, 4)
    for n in range(2):
        hessian = torch.func.hessian(lambda a: nn.functional.cross_entropy(a, torch.tensor([1, 0, 2]), reduction="sum"))(z[n])
        torch.testing.assert_close(torch.einsum("rtk,rsl->tksl", c[n], c[n]), hessian, rtol=1e-12, atol=1e-12)


def test_fisher_wants_two_logits():
    with pytest.raises(ValueError, match="fisher: got logits .*wanted at least two"):
        ntk.tangents.fisher(torch.zeros(3, 1))


def test_fisher_features_add_up_to_the_fisher_information():
    torch.manual_seed(0)
    model, x = ntk.mlp((5, 7, 3)).double(), points(6)
    j, p = jacobian(model, x), model(x).softmax(1).detach()
    wanted = sum(j[i].T @ (p[i].diag() - p[i][:, None] * p[i]) @ j[i] for i in range(6))
    values = torch.linalg.eigvalsh(ntk.Gram(model, x, ntk.tangents.fisher).dense().permute(0, 2, 1, 3).reshape(18, 18))
    torch.testing.assert_close(values.flip(0)[:12], torch.linalg.eigvalsh(wanted).flip(0)[:12], rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def reference():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    model.load_state_dict({name: torch.tensor(w, dtype=torch.float64) for name, w in REFERENCE["weights"].items()})
    return model, *(torch.tensor(REFERENCE[k], dtype=torch.float64) for k in ("x", "asked")), torch.tensor(REFERENCE["y"])


@pytest.mark.parametrize("found", REFERENCE["found"], ids=lambda f: f"precision {f['precision']}")
def test_laplace_is_that_of_laplace_torch(reference, found):
    model, x, asked, y = reference
    mine, wanted = Laplace(model, x), torch.tensor(found["covariance"], dtype=torch.float64)
    torch.testing.assert_close(mine.covariance(asked, found["precision"]), wanted, rtol=1e-9, atol=1e-12)
    said = -float(nn.functional.cross_entropy(model(x), y, reduction="sum"))
    assert mine.log_evidence(said, found["precision"]) == pytest.approx(found["evidence"], rel=1e-10)


def test_laplace_by_the_inverse_over_weights_for_squared_loss_and_some_parameters():
    torch.manual_seed(0)
    model, x, asked = ntk.mlp((5, 7, 2)).double(), points(6), points(3, seed=1)
    sigma, delta = 0.3, 0.7
    last = [name for name, _ in model.named_parameters()][-2:]
    mine = Laplace(model, x, lambda z: ntk.basis(z) / sigma, parameters=last).covariance(asked, delta)
    spread = Laplace(model, x, lambda z: ntk.basis(z) / sigma, parameters=last)
    where = sum(p.numel() for name, p in model.named_parameters() if name not in last)
    j, a = jacobian(model, x)[..., where:].flatten(0, 1), jacobian(model, asked)[..., where:]
    inverse = torch.linalg.inv(j.T @ j / sigma**2 + delta * torch.eye(j.shape[1], dtype=torch.float64))
    torch.testing.assert_close(mine, a @ inverse @ a.transpose(1, 2), rtol=1e-10, atol=1e-12)
    length = sum(float(p.detach().square().sum()) for name, p in model.named_parameters() if name in last)
    volume = float(torch.logdet(delta * inverse)) / 2  # of the weights that count alone
    assert spread.log_evidence(-3.0, delta) == pytest.approx(-3.0 - delta * length / 2 + volume, rel=1e-10)


def test_laplace_of_one_output_is_the_posterior():
    """Of squared loss: the tangent kernel over delta is a Gaussian process's, with the noise as its ridge."""
    torch.manual_seed(0)
    model, x, asked, sigma, delta = ntk.mlp((5, 7, 1)).double(), points(6), points(3, seed=1), 0.3, 0.7
    spread = Laplace(model, x, lambda z: ntk.basis(z) / sigma).covariance(asked, delta)[:, 0, 0]
    kernel = ntk.entk(model, torch.cat([x, asked]))[..., 0, 0] / delta
    law = trained_law(kernel, kernel, torch.zeros(6, dtype=torch.float64), ridge=sigma**2, noise=sigma**2)
    torch.testing.assert_close(spread, law.covariance.diagonal(), rtol=1e-9, atol=1e-12)


def test_laplace_refuses():
    model = ntk.mlp((5, 7, 3)).double()
    with pytest.raises(ValueError, match="cotangent: got one row a sample"):
        Laplace(model, points(3), ntk.ones)
    with pytest.raises(ValueError, match="precision: got 0"):
        Laplace(model, points(3)).covariance(points(2), 0.0)
    with pytest.raises(ValueError, match=r"covariance: got shape \(2, 3\)"):
        averaged(torch.zeros(2, 3), torch.zeros(2, 3))


def test_averaged_softmax_of_two_by_quadrature():
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    z, root = torch.tensor([[1.0, -0.5]], dtype=torch.float64), torch.tensor([[1.5, 0.0], [0.4, 0.7]], dtype=torch.float64)
    difference, deviation = 1.5, float((root[0] - root[1]).norm())
    wanted = (weights / weights.sum()) @ (1 / (1 + np.exp(-(difference + deviation * nodes))))
    found = averaged(z, (root @ root.T)[None], draws=40_000)[0, 0]
    assert abs(float(found) - wanted) < 5 * 0.3 / 200
    torch.testing.assert_close(averaged(z, torch.zeros(1, 2, 2)), z.softmax(1))


# ----- calibration


def test_calibration_error_by_its_definition():
    generator = np.random.default_rng(0)
    p = generator.dirichlet([0.5] * 4, 500)
    y = generator.integers(0, 4, 500)
    sure, right = p.max(1), p.argmax(1) == y
    wanted = 0.0
    for low in np.arange(10) / 10:
        inside = (sure > low) & (sure <= low + 0.1)
        if inside.any():
            wanted += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert calibration_error(torch.tensor(p), torch.tensor(y), bins=10) == pytest.approx(wanted, abs=1e-12)


def test_calibration_errors_ends():
    sure = torch.tensor([[1.0, 0.0]] * 4, dtype=torch.float64)
    assert calibration_error(sure, torch.tensor([0, 0, 0, 0])) == 0.0
    assert calibration_error(sure, torch.tensor([1, 1, 1, 1])) == 1.0
    with pytest.raises(ValueError, match="probabilities: got numbers that are no distributions"):
        calibration_error(2 * sure, torch.zeros(4, dtype=torch.long))


# ----- the bandit


def test_an_arms_posterior_is_the_law_of_its_rewards():
    x = points(12)
    kernel = infinite.mlp(x, depth=2, b_std=0.3).ntk
    arm, seen, rewards = bandits.Arm(kernel, 0.2), [0, 3, 4, 8, 9], [1.0, 0.0, 0.0, 1.0, 1.0]
    assert arm.posterior(5) == (0.0, pytest.approx(float(kernel[5, 5]) ** 0.5))
    for t, reward in zip(seen, rewards, strict=True):
        arm.learn(t, reward)
    some = [*seen, 5]
    part = kernel[some][:, some]
    law = trained_law(part, part, torch.tensor(rewards, dtype=torch.float64), ridge=0.2, noise=0.2)
    assert arm.posterior(5) == (pytest.approx(float(law.mean[0])), pytest.approx(float(law.deviation[0])))


def test_a_bandit_of_one_label_wins_and_one_of_chance_does_so_as_often_as_chance():
    kernel = torch.eye(400, dtype=torch.float64)
    y = torch.randint(4, (400,), generator=torch.Generator().manual_seed(0))
    assert bandits.played(kernel[:30, :30], 0 * y[:30], 1, 0.1, 0.0, 0.0, 0).all()
    won = bandits.played(kernel, y, 4, 0.1, 0.0, 1.0, 0).double().mean()
    assert abs(float(won) - 0.25) < 5 * (0.25 * 0.75 / 400) ** 0.5


def test_a_bonus_tries_what_has_not_been_tried():
    """Two labels, images of one kind: the greedy one stays with the label that paid once; a wide bonus tries the other."""
    kernel = torch.ones(40, 40, dtype=torch.float64)
    y = torch.tensor([0, *[1] * 39])
    first = next(seed for seed in range(20) if bandits.played(kernel[:1, :1], y[:1], 2, 0.5, 0.0, 0.0, seed)[0])
    greedy = bandits.played(kernel, y, 2, 0.5, 0.0, 0.0, first)
    curious = bandits.played(kernel, y, 2, 0.5, 3.0, 0.0, first)
    assert curious.sum() > greedy.sum() and curious[-10:].all()
