"""Points chosen one after another, against regressions that are fitted for every candidate."""

import pytest
import torch

from ntk_course.analysis import forward_selection, kernel_ridge


def drawn(n=12, d=20, k=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(n, d, generator=rng, dtype=torch.float64)
    return features @ features.T / d, torch.randn(n, k, generator=rng, dtype=torch.float64)


def loss_of(gram, targets, chosen, rho):
    fit = kernel_ridge(gram[chosen][:, chosen], targets[chosen], rho)
    return float((targets - fit.predict(gram[:, chosen])).square().mean())


@pytest.mark.parametrize("ridge", [1e-6, 0.1, 3.0])
@pytest.mark.parametrize("outputs", [(), (3,)])
def test_every_choice_is_the_best_of_all_candidates(ridge, outputs):
    gram, targets = drawn()
    targets = targets if outputs else targets[:, 0]
    found = forward_selection(gram, targets, 6, ridge)
    rho, chosen = ridge * float(gram.diagonal().mean()), []
    assert float(found.losses[0]) == pytest.approx(float(targets.square().mean()))
    for step in range(6):
        tried = {j: loss_of(gram, targets, [*chosen, j], rho) for j in range(12) if j not in chosen}
        best = min(tried, key=tried.get)
        assert int(found.indices[step]) == best
        assert float(found.losses[step + 1]) == pytest.approx(tried[best], rel=1e-6)
        chosen.append(best)


def test_without_a_ridge_all_points_fit_all():
    gram, targets = drawn()
    found = forward_selection(gram, targets, 12, 0.0)
    assert sorted(found.indices.tolist()) == list(range(12))
    assert float(found.losses[-1]) < 1e-16


def test_it_does_not_take_what_the_chosen_ones_know():
    gram, targets = drawn(n=10, d=4)  # four features: four points tell all
    assert len(set(forward_selection(gram, targets, 4, 0.0).indices.tolist())) == 4
    with pytest.raises(ArithmeticError, match="count: got 5; wanted at most 4, or a ridge"):
        forward_selection(gram, targets, 5, 0.0)
    assert len(set(forward_selection(gram, targets, 10, 1e-3).indices.tolist())) == 10
    with pytest.raises(ArithmeticError, match="count: got 7; wanted at most 4, or a ridge"):
        forward_selection(gram.float(), targets, 7, 0.0)  # rounding of single precision is no point of its own


def test_the_unit_of_the_kernel_does_not_matter_and_nothing_given_changes():
    gram, targets = drawn()
    before = gram.clone(), targets.clone()
    found, scaled = forward_selection(gram, targets, 5), forward_selection(1e8 * gram, targets, 5)
    assert torch.equal(found.indices, scaled.indices)
    torch.testing.assert_close(found.losses, scaled.losses)
    assert torch.equal(gram, before[0]) and torch.equal(targets, before[1])
    single = forward_selection(gram.float(), targets.float(), 5)
    assert torch.equal(single.indices, found.indices) and single.losses.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"count": 0}, ValueError, "count: got 0"),
        ({"count": 13}, ValueError, "count: got 13; wanted at most 12"),
        ({"ridge": -1.0}, ValueError, "ridge: got -1"),
        ({"targets": torch.zeros(5, 3)}, ValueError, "targets: got"),
        ({"gram": torch.zeros(3, 4)}, ValueError, "gram: got"),
        ({"gram": torch.zeros(12, 12)}, ValueError, "gram: got zeros on the diagonal; wanted squared lengths"),
        ({"gram": torch.diag(torch.arange(12.0) - 1)}, ValueError, "gram: got -1 on the diagonal; wanted squared lengths"),
    ],
)
def test_it_refuses(change, error, says):
    gram, targets = drawn()
    given = {"gram": gram, "targets": targets, "count": 3} | change
    with pytest.raises(error, match=says):
        forward_selection(**given)
