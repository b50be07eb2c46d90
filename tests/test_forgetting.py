"""Forgetting events and their prediction, against finite differences, the full kernel, and a replay step by step."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

import ntk_course as ntk

DATA = ntk.load("digits")
X, Y = DATA.x.double(), DATA.y


def net(seed=0):
    torch.manual_seed(seed)
    return ntk.mlp((64, 16, 12, 10), "tanh").double()


@pytest.mark.parametrize("error", ["true", "kappa_tilde"])
def test_first_order_change_is_the_kernel_times_the_error(error):
    model, x, new, y = net(), X[:7], X[7:20], Y[7:20]
    z, change = ntk.analysis.first_order_change(model, x, ntk.analysis.sgd_step(model, new, y, 0.3, error))
    e = one_hot(y, 10).double() - (model(new).softmax(1) if error == "true" else 0.1)
    wanted = 0.3 / 13 * torch.einsum("nmij,mj->ni", ntk.entk(model, x, new), e)
    torch.testing.assert_close(change, wanted.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(z, model(x).detach())
    step = ntk.analysis.sgd_step(model, new.float(), y, 0.3)
    assert ntk.analysis.first_order_change(model, x.float(), step)[0].dtype == torch.float64  # inputs follow the model


def test_the_step_is_the_one_sgd_makes():
    model, x, y = net(), X[:32], Y[:32]
    step, after = ntk.analysis.sgd_step(model, x, y, 0.1), copy.deepcopy(model)
    optimizer = torch.optim.SGD(after.parameters(), lr=0.1)
    cross_entropy(after(x), y).backward()
    optimizer.step()
    for (name, p), q in zip(model.named_parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(p + step[name], q)


@pytest.mark.parametrize("space", ["logits", "softmax"])
def test_prediction_against_finite_differences(space):
    """A large step, so that events are predicted; its first order comes from a central difference along it."""
    model = net()
    ntk.train(model, X[:400], Y[:400], epochs=3, lr=0.1, progress=False)
    x, y, step = X[:400], Y[:400], ntk.analysis.sgd_step(model, X[400:440], (Y[400:440] + 1) % 10, 2.0)

    def outputs(t):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for name, p in moved.named_parameters():
                p += t * step[name]
            z = moved(x)
            return z if space == "logits" else z.softmax(1)

    h = 1e-5
    after = outputs(0) + (outputs(h) - outputs(-h)) / (2 * h)
    wanted = (outputs(0).argmax(1) == y) & (after.argmax(1) != y)
    assert 5 < wanted.sum() < 395
    assert torch.equal(ntk.analysis.predict_forgetting(model, x, y, step, space), wanted)


def test_a_run_replayed_step_by_step():
    model, settings = net(), {"lr": 0.5, "momentum": 0.9, "weight_decay": 1e-3}
    run = ntk.analysis.forgetting_run(
        copy.deepcopy(model), X, Y, iterations=30, batch_size=16, seed=4, progress=False, **settings
    )
    optimizer = torch.optim.SGD(model.parameters(), **settings)
    batches = torch.randperm(len(X), generator=torch.Generator().manual_seed(4)).split(16)
    previous = None
    for t, now in enumerate(batches[:31]):
        before = copy.deepcopy(model)
        loss = cross_entropy(model(X[now]), Y[now])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if previous is not None:
            known = before(X[previous]).argmax(1) == Y[previous]
            lost = known & (model(X[previous]).argmax(1) != Y[previous])
            assert torch.equal(run.known[t - 1], known)
            assert torch.equal(run.forgotten[t - 1], lost)
            torch.testing.assert_close(run.loss[t - 1], loss.detach())
            made = {n: p.detach() - q for (n, p), q in zip(model.named_parameters(), before.parameters(), strict=True)}
            gradient = ntk.analysis.sgd_step(before, X[now], Y[now], 0.5)
            for name, step, space in (
                ("logits, step", made, "logits"),
                ("softmax, step", made, "softmax"),
                ("logits, gradient", gradient, "logits"),
                ("kappa tilde, softmax", ntk.analysis.sgd_step(before, X[now], Y[now], 0.5, "kappa_tilde"), "softmax"),
            ):
                wanted = ntk.analysis.predict_forgetting(before, X[previous], Y[previous], step, space)
                assert torch.equal(run.predicted[name][t - 1], wanted), name
        previous = now
    assert run.forgotten.sum() > 10
    assert not torch.equal(run.predicted["logits, step"], run.predicted["logits, gradient"])  # momentum parts them


def test_a_run_as_the_public_code_makes_it():
    """Steps and counting under dropout, watched batches in the order of storage, a factor on the change: replayed by hand."""
    torch.manual_seed(0)
    model = ntk.models.authors_cnn(1, 8).double()
    settings, images = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}, DATA.x.double()
    ways = {"one": ntk.analysis.Predictor("softmax", "true"), "three": ntk.analysis.Predictor("softmax", "true", 3.0)}
    run = ntk.analysis.forgetting_run(
        copy.deepcopy(model), images, Y, iterations=12, batch_size=50, seed=3, progress=False, predictors=ways,
        train_mode=True, batches="stored", **settings,
    )  # fmt: skip
    state = torch.get_rng_state()
    optimizer = torch.optim.SGD(model.parameters(), **settings)
    batches = torch.randperm(len(images), generator=torch.Generator().manual_seed(3)).split(50)
    torch.manual_seed(3)
    lapsed, right = 0, None
    for t, now in enumerate(batches[:13]):
        before = copy.deepcopy(model).eval()
        z = model.train()(images[now])
        optimizer.zero_grad()
        cross_entropy(z, Y[now]).backward()
        optimizer.step()
        if t:
            with torch.no_grad():
                wrong = model(images[batches[t - 1]]).argmax(1) != Y[batches[t - 1]]
                assert torch.equal(run.between_passes[t - 1], right & wrong)
                lapsed += int((right & wrong).sum())
                watched, assumed = slice(50 * t - 50, 50 * t), slice(50 * t, 50 * t + 50)
                known = before(images[watched]).argmax(1) == Y[watched]
                lost = known & (model.eval()(images[watched]).argmax(1) != Y[watched])
            assert torch.equal(run.known[t - 1], known) and torch.equal(run.forgotten[t - 1], lost)
            e = one_hot(Y[assumed], 10) - before(images[assumed]).softmax(1)
            change = 0.1 / 50 * torch.einsum("nmij,mj->ni", ntk.entk(before, images[watched], images[assumed]), e)
            q = before(images[watched]).softmax(1)
            for name, factor in (("one", 1), ("three", 3)):
                after = q + factor * torch.einsum("nij,nj->ni", ntk.analysis.softmax_jacobian(q), change)
                assert torch.equal(run.predicted[name][t - 1], known & (after.argmax(1) != Y[watched])), name
        right = z.argmax(1) == Y[now]
    assert lapsed > 2 * run.forgotten.sum() > 0  # two masks forget what no step has changed
    assert run.predicted["three"].sum() > run.predicted["one"].sum()
    torch.set_rng_state(state)
    with pytest.raises(ArithmeticError, match="lr: the loss became"):
        ntk.analysis.forgetting_run(model, images, Y, iterations=80, lr=1e300, train_mode=True, progress=False)
    assert not model.training
    with pytest.raises(ValueError, match="batches: got 'sorted'; wanted one of"):
        ntk.analysis.forgetting_run(net(), X, Y, iterations=1, lr=0.1, batches="sorted")


def test_what_an_empty_iteration_counts_as():
    truth = torch.tensor([[True, False], [False, False], [False, False], [True, False]])
    guess = torch.tensor([[False, False], [False, False], [True, True], [True, True]])
    found = [s[:3] for s in ntk.analysis.scores_per_iteration(truth, guess, empty=1.0)]
    assert found == [(1, 0, 0), (1, 1, 1), (0, 1, 0), pytest.approx((0.5, 1, 2 / 3))]
    assert all(math.isnan(v) for s in ntk.analysis.scores_per_iteration(truth, guess)[1:3] for v in s[:3])


def test_without_momentum_gradient_and_step_are_one():
    run = ntk.analysis.forgetting_run(net(), X, Y, iterations=20, lr=0.5, batch_size=32, progress=False)
    assert torch.equal(run.predicted["logits, step"], run.predicted["logits, gradient"])
    assert torch.equal(run.predicted["softmax, step"], run.predicted["softmax, gradient"])


def test_batches_go_on_past_an_epoch():
    run = ntk.analysis.forgetting_run(net(), X[:40], Y[:40], iterations=9, lr=0.1, batch_size=16, progress=False)
    assert run.forgotten.shape == (9, 16)


def test_scores_against_counts():
    g = torch.Generator().manual_seed(0)
    truth, guess = torch.rand(6, 50, generator=g) < 0.2, torch.rand(6, 50, generator=g) < 0.3
    found = [ntk.analysis.event_scores(truth, guess), *ntk.analysis.scores_per_iteration(truth, guess)]
    for scores, f, p in zip(found, [truth, *truth], [guess, *guess], strict=True):
        hits, missed, false = (int(t.sum()) for t in (f & p, f & ~p, ~f & p))
        assert hits and missed and false
        wanted = hits / (hits + false), hits / (hits + missed), hits / (hits + (missed + false) / 2)
        assert scores == pytest.approx((*wanted, hits + missed, hits + false))
    every = torch.ones(3, dtype=torch.bool)
    assert ntk.analysis.event_scores(every, every) == (1, 1, 1, 3, 3)


def test_no_event_is_undefined_not_perfect():
    none = torch.zeros(4, 5, dtype=torch.bool)
    scores = ntk.analysis.event_scores(none, none)
    assert all(math.isnan(v) for v in scores[:3])
    assert str(scores) == "undefined: no forgetting event to predict (0 predicted)"
    truth = none.clone()
    truth[0, 0] = True
    assert ntk.analysis.event_scores(truth, none)[:3] == (0, 0, 0)
    assert "F1 0.000 (1 events)" in str(ntk.analysis.event_scores(truth, none))


def test_bad_input():
    model = net()
    step = ntk.analysis.sgd_step(model, X[:4], Y[:4], 0.1)
    with pytest.raises(ValueError, match="error: got 'sign'"):
        ntk.analysis.sgd_step(model, X[:4], Y[:4], 0.1, "sign")
    with pytest.raises(ValueError, match="space: got 'probabilities'"):
        ntk.analysis.predict_forgetting(model, X[:4], Y[:4], step, "probabilities")
    with pytest.raises(ValueError, match="step: got '9.weight'"):
        ntk.analysis.first_order_change(model, X[:4], {"9.weight": torch.zeros(2)})
    with pytest.raises(ValueError, match="predictors: got 'oracle'"):
        ntk.analysis.forgetting_run(model, X, Y, iterations=1, lr=0.1, predictors=["oracle"])
    with pytest.raises(ValueError, match="batch_size: got 10000"):
        ntk.analysis.forgetting_run(model, X, Y, iterations=1, lr=0.1, batch_size=10_000)
    with pytest.raises(ValueError, match="shape"):
        ntk.analysis.event_scores(torch.zeros(3, dtype=torch.bool), torch.zeros(4, dtype=torch.bool))
    with pytest.raises(TypeError, match="predicted: got dtype"):
        ntk.analysis.event_scores(torch.zeros(3, dtype=torch.bool), torch.zeros(3))
    with pytest.raises(ArithmeticError, match="lr: the loss became"):
        ntk.analysis.forgetting_run(ntk.mlp((64, 12, 12, 10)), X, Y, iterations=80, lr=1e9, progress=False)
