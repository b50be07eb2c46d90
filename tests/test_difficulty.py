"""Ensembles in one vmap against one model at a time, and Algorithm 1 against a loop written from the paper's text."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

import ntk_course as ntk

DATA = ntk.load("digits", limit=400)
X, Y = DATA.x.double(), DATA.y
SETTINGS = {"epochs": 3, "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "schedule": ntk.training.step_decay(0.5, 2)}


def net(seed=0, build=lambda: ntk.mlp((64, 12, 10))):
    torch.manual_seed(seed)
    return build().double()


def subsets(m=5, n=30, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(len(X), generator=g)[:n] for _ in range(m)])


@pytest.mark.parametrize("build", [lambda: ntk.mlp((64, 12, 10)), lambda: ntk.small_cnn(channels=(3, 4))], ids=["mlp", "cnn"])
@pytest.mark.parametrize("batch_size", [8, None])
@pytest.mark.parametrize("together", [2, 64])
def test_each_member_is_the_model_trained_alone(build, batch_size, together):
    chosen, models = subsets(), [net(m, build) for m in range(5)]
    ensemble = ntk.training.train_ensemble(
        models, X, Y, chosen, batch_size=batch_size, seed=7, together=together, progress=False, **SETTINGS
    )
    for m, own in enumerate(models):
        alone = copy.deepcopy(own)
        ntk.train(alone, X[chosen[m]], Y[chosen[m]], batch_size=batch_size, seed=7 + m, progress=False, **SETTINGS)
        for name, p in alone.named_parameters():
            torch.testing.assert_close(ensemble.state[name][m], p.detach(), rtol=1e-9, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), net(0, build).parameters(), strict=True))


def test_adam_is_each_members_own():
    """Against torch.optim.Adam on one model at a time, over the batches of the same seed."""
    model, chosen = net(), subsets(3, 20)
    how = {"epochs": 3, "lr": 0.01, "weight_decay": 1e-3, "batch_size": 8}
    ensemble = ntk.training.train_ensemble(model, X, Y, chosen, optimizer="adam", seed=7, progress=False, **how)
    for m in range(3):
        alone, order = copy.deepcopy(model), torch.Generator().manual_seed(7 + m)
        adam = torch.optim.Adam(alone.parameters(), lr=0.01, weight_decay=1e-3)
        for _ in range(3):
            for batch in torch.randperm(20, generator=order).split(8):
                adam.zero_grad()
                cross_entropy(alone(X[chosen[m][batch]]), Y[chosen[m][batch]]).backward()
                adam.step()
        for name, p in alone.named_parameters():
            torch.testing.assert_close(ensemble.state[name][m], p.detach(), rtol=1e-9, atol=1e-12)
    for wrong, said in (
        ({"optimizer": "rmsprop"}, "got 'rmsprop'"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum: got 0.9"),
    ):
        with pytest.raises(ValueError, match=said):
            ntk.training.train_ensemble(model, X, Y, chosen, epochs=1, lr=0.1, **wrong)


def test_batch_statistics_stay_each_members_own():
    models = [net(m, lambda: ntk.resnet18(in_channels=1, width=2)) for m in range(2)]
    chosen = subsets(2, 12)
    ensemble = ntk.training.train_ensemble(models, X, Y, chosen, epochs=2, lr=0.01, batch_size=6, seed=3, progress=False)
    for m, own in enumerate(models):
        ntk.train(own, X[chosen[m]], Y[chosen[m]], epochs=2, lr=0.01, batch_size=6, seed=3 + m, progress=False)
        for name, value in own.state_dict().items():
            torch.testing.assert_close(ensemble.state[name][m], value, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("together", [1, 64])
def test_watched_samples_are_answered_in_eval_mode(together):
    """Against each model trained alone for e epochs: with batch statistics by its running ones, with dropout without a mask."""
    chosen, watch, how = subsets(2, 12), torch.tensor([5, 300, 7]), {"lr": 0.01, "batch_size": 6, "seed": 3, "progress": False}
    models = [net(m, lambda: ntk.resnet18(in_channels=1, width=2)) for m in range(2)]
    ensemble = ntk.training.train_ensemble(models, X, Y, chosen, epochs=3, watch=watch, together=together, **how)
    assert ensemble.watched.shape == (3, 2, 3, 10)
    for m, own in enumerate(models):
        for epochs in (0, 1, 2):
            alone = copy.deepcopy(own).eval()
            if epochs:
                ntk.train(alone, X[chosen[m]], Y[chosen[m]], epochs=epochs, **how | {"seed": 3 + m})
            torch.testing.assert_close(ensemble.watched[epochs, m], alone(X[watch]).detach(), rtol=1e-7, atol=1e-9)
    model = net(0, lambda: ntk.models.authors_cnn(1, 8))
    dropped = ntk.training.train_ensemble(model, X, Y, watch[None], epochs=1, watch=watch, together=together, **how)
    torch.testing.assert_close(dropped.watched[0, 0], model.eval()(X[watch]).detach())
    assert (dropped.logits[0, 0] - dropped.watched[0, 0]).abs().max() > 0.01  # the visit is in train mode
    again = ntk.training.train_ensemble(model, X, Y, watch[None], epochs=1, together=together, **how)
    assert torch.equal(again.logits, dropped.logits) and again.watched is None
    with pytest.raises(ValueError, match="watch: got .*wanted indices"):
        ntk.training.train_ensemble(model, X, Y, watch[None], epochs=1, watch=torch.tensor([len(X)]), **how)


def test_networks_with_initial_weights_of_their_own():
    """Model m of all sizes together, the largest size first."""
    how, built = {"epochs": 2, "lr": 0.05, "progress": False}, []

    def build(m):
        built.append(m)
        return net(m)

    universe, visits = ntk.analysis.visits_by_size(build, X, Y, (4, 2, 1), batch_size=8, **how)
    assert built == list(range(1 + 2 + 4))
    splits = ntk.analysis.nested_subsets(Y, (4, 2, 1))
    place = {int(i): n for n, i in enumerate(universe)}
    for m, (size, part) in enumerate([(4, 0), (2, 0), (2, 1), (1, 0), (1, 1), (1, 2), (1, 3)]):
        chosen = splits[size][part]
        alone = ntk.training.train_ensemble(net(m), X, Y, chosen[None], batch_size=8, seed=part, **how)
        for i, sample in enumerate(chosen.tolist()):
            torch.testing.assert_close(visits[size][:, place[sample]], alone.logits[:, 0, i])


def test_dropout_follows_the_seed_and_leaves_the_global_state_alone():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 12), torch.nn.Dropout(0.5), torch.nn.Linear(12, 10)
    ).double()
    states = []
    for other in (1, 2):
        torch.manual_seed(other)
        before = torch.get_rng_state()
        run = ntk.training.train_ensemble(model, X, Y, subsets(2, 12), epochs=3, lr=0.1, seed=4, progress=False)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(run.state["1.weight"])
    assert torch.equal(*states)


def test_logits_are_those_of_the_visit_in_the_order_of_the_subset():
    """With batches of one, replay each member step by step: the logits kept are those just before the sample's own step."""
    chosen, model = subsets(2, 6), net()
    ensemble = ntk.training.train_ensemble(model, X, Y, chosen, epochs=2, lr=0.3, batch_size=1, seed=5, progress=False)
    assert ensemble.logits.shape == (2, 2, 6, 10)
    for m in range(2):
        own, order = copy.deepcopy(model), torch.Generator().manual_seed(5 + m)
        for epoch in range(2):
            for i in torch.randperm(6, generator=order).tolist():
                sample = chosen[m, i]
                z = own(X[sample : sample + 1])
                torch.testing.assert_close(ensemble.logits[epoch, m, i], z[0].detach())
                grads = torch.autograd.grad(cross_entropy(z, Y[sample : sample + 1]), list(own.parameters()))
                with torch.no_grad():
                    for p, g in zip(own.parameters(), grads, strict=True):
                        p -= 0.3 * g


def test_difficulty_measures_by_their_formulas():
    logits = torch.randn(4, 3, 5, 10, dtype=torch.float64)
    y = torch.randint(0, 10, (3, 5))
    loss, distance = (ntk.analysis.learning_difficulty(logits, y, measure) for measure in ("loss", "distance"))
    for m in range(3):
        for i in range(5):
            q = logits[:, m, i].softmax(-1)
            e = torch.zeros(10, dtype=torch.float64)
            e[y[m, i]] = 1
            torch.testing.assert_close(loss[m, i], sum(-torch.log(q[t, y[m, i]]) for t in range(4)))
            torch.testing.assert_close(distance[m, i], sum(((q[t] - e) ** 2).sum() ** 0.5 for t in range(4)))


def test_nested_subsets_nest_and_cover():
    y = torch.arange(10).repeat(40)[torch.randperm(400)]
    found = ntk.analysis.nested_subsets(y, (16, 4, 1, 32), seed=1)
    assert {x: tuple(s.shape) for x, s in found.items()} == {32: (1, 320), 16: (2, 160), 4: (8, 40), 1: (32, 10)}
    for size, rows in found.items():
        assert sorted(rows.flatten().tolist()) == sorted(found[32].flatten().tolist())  # a partition of the universe
        for row in rows:
            assert torch.bincount(y[row]).tolist() == [size] * 10
    for large, small in ((32, 16), (16, 4), (4, 1)):
        parents = [set(row.tolist()) for row in found[large]]
        assert all(any(set(row.tolist()) <= parent for parent in parents) for row in found[small])
    assert not torch.equal(found[1], ntk.analysis.nested_subsets(y, (16, 4, 1, 32), seed=2)[1])


def test_algorithm_1_against_a_plain_loop():
    model, sizes = net(), (8, 4, 1)
    indices, visits = ntk.analysis.visits_by_size(model, X, Y, sizes, epochs=3, lr=0.2, batch_size=16, seed=2, progress=False)
    found = {size: ntk.analysis.learning_difficulty(z, Y[indices]) for size, z in visits.items()}
    splits = ntk.analysis.nested_subsets(Y, sizes, 2)
    universe = sorted(splits[8].flatten().tolist())
    assert indices.tolist() == universe
    for size in sizes:
        collected = dict.fromkeys(universe, 0.0)
        for m, subset in enumerate(splits[size]):
            own, order = copy.deepcopy(model), torch.Generator().manual_seed(2 + m)
            for _ in range(3):
                for batch in torch.randperm(len(subset), generator=order).split(16):
                    chosen = subset[batch]
                    losses = cross_entropy(own(X[chosen]), Y[chosen], reduction="none")
                    for i, value in zip(chosen.tolist(), losses.tolist(), strict=True):
                        collected[i] += value
                    grads = torch.autograd.grad(losses.mean(), list(own.parameters()))
                    with torch.no_grad():
                        for p, g in zip(own.parameters(), grads, strict=True):
                            p -= 0.2 * g
        wanted = torch.tensor([collected[i] for i in universe], dtype=torch.float64)
        torch.testing.assert_close(found[size], wanted)
    rho = ntk.analysis.difficulty_correlation(found)
    a, b = found[8] - found[8].mean(), found[1] - found[1].mean()
    torch.testing.assert_close(rho[0, 2], (a @ b) / (a.norm() * b.norm()))


def test_bad_input():
    model = net()
    with pytest.raises(ValueError, match="sizes: got 16 and 6"):
        ntk.analysis.nested_subsets(Y, (16, 6))
    with pytest.raises(ValueError, match="class . has only"):
        ntk.analysis.nested_subsets(Y, (256, 1))
    with pytest.raises(ValueError, match="measure: got 'l1'"):
        ntk.analysis.learning_difficulty(torch.zeros(2, 3, 10), torch.zeros(3).long(), "l1")
    with pytest.raises(ValueError, match=r"y: got shape \(4,\)"):
        ntk.analysis.learning_difficulty(torch.zeros(2, 3, 10), torch.zeros(4).long())
    with pytest.raises(ValueError, match="same value for every sample at size 1"):
        ntk.analysis.difficulty_correlation({4: torch.arange(3.0), 1: torch.ones(3)})
    with pytest.raises(ValueError, match="lengths"):
        ntk.analysis.difficulty_correlation({4: torch.arange(3.0), 1: torch.ones(2)})
    for wrong, words in ((torch.zeros(2), "indices"), (torch.zeros(2, 3), "float32"), (torch.full((1, 2), 400), "0 to 399")):
        with pytest.raises(ValueError, match=f"subsets: got .*{words}"):
            ntk.training.train_ensemble(model, X, Y, wrong, epochs=1, lr=0.1)
    with pytest.raises(ValueError, match="models: got 2 for 3 subsets"):
        ntk.training.train_ensemble([model, model], X, Y, subsets(3), epochs=1, lr=0.1)
    with pytest.raises(ArithmeticError, match="lr: a loss became"):
        ntk.training.train_ensemble(model, X, Y, subsets(2), epochs=30, lr=1e200, batch_size=4, progress=False)
    assert not model.training  # after an error too
