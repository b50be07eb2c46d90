"""Scores and prunings, against their definitions written out sample by sample."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

import ntk_course as ntk

DATA = ntk.load("digits", limit=60)
X, Y = DATA.x.double(), DATA.y


def nets():
    torch.manual_seed(0)
    return [ntk.small_cnn(channels=(3, 4)).double() for _ in range(2)]


def test_el2n_and_grand_sample_by_sample():
    el2n, grand = torch.zeros(2, 60, dtype=torch.float64), torch.zeros(2, 60, dtype=torch.float64)
    for m, model in enumerate(nets()):
        for i in range(60):
            z = model(X[i : i + 1])
            q = z.softmax(1)[0].detach()
            q[Y[i]] -= 1
            el2n[m, i] = (q @ q) ** 0.5
            grads = torch.autograd.grad(cross_entropy(z, Y[i : i + 1]), list(model.parameters()))
            grand[m, i] = sum((g**2).sum() for g in grads) ** 0.5
    torch.testing.assert_close(ntk.analysis.el2n(nets(), X, Y, batch_size=17), el2n.mean(0))
    torch.testing.assert_close(ntk.analysis.grand(nets(), X, Y), grand.mean(0))
    torch.testing.assert_close(ntk.analysis.grand(nets()[1], X, Y), grand[1])
    torch.testing.assert_close(ntk.analysis.el2n(nets()[1], X, Y), el2n[1])


def test_forgetting_score_counts_falls():
    y = torch.tensor([0, 1, 1, 0])
    predictions = torch.tensor([[0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 1, 0]])
    assert ntk.analysis.forgetting_score(predictions, y).tolist() == [2, 1, 0, 0]
    assert ntk.analysis.forgetting_score(predictions[:2], y).tolist() == [1, math.inf, 0, 0]


def test_influence_is_a_difference_of_two_proportions():
    g = torch.Generator().manual_seed(0)
    right, included = torch.rand(9, 20, generator=g) < 0.6, torch.rand(9, 20, generator=g) < 0.5
    included[:, 0] = True
    found = ntk.analysis.influence_score(right, included)
    assert found[0].isnan()
    for i in range(1, 20):
        a = [float(right[t, i]) for t in range(9) if included[t, i]]
        b = [float(right[t, i]) for t in range(9) if not included[t, i]]
        assert found[i] == pytest.approx(sum(a) / len(a) - sum(b) / len(b))


def test_head_pruning_drops_from_the_head_only():
    clusters = ntk.analysis.Clusters(torch.tensor([3, 0]), torch.tensor([1, 0, 0, 0, 0, 0, 0, 1]), torch.zeros(8))
    keep = ntk.analysis.prune_head(clusters, 0.5, seed=0)
    assert int((~keep).sum()) == 3
    assert keep[[0, 7, 3]].all()  # the other cluster, and the centroid
    assert ntk.analysis.prune_head(clusters, 0.0).all()
    assert ntk.analysis.prune_head(clusters, 1.0).nonzero()[:, 0].tolist() == [0, 3, 7]
    assert len({tuple(ntk.analysis.prune_head(clusters, 0.5, seed=s).tolist()) for s in range(10)}) > 1


def test_flips_are_wrong_and_as_many_as_asked():
    y = torch.randint(0, 10, (1000,))
    noisy, flipped = ntk.analysis.flip_labels(y, 0.1, 10, seed=1)
    assert int(flipped.sum()) == 100
    assert torch.equal(noisy != y, flipped)
    assert len(((noisy - y) % 10).unique()) == 10  # 0 where untouched, and all nine wrong labels
    assert torch.equal(ntk.analysis.flip_labels(y, 0.1, 10, seed=1)[0], noisy)


def test_auc_is_the_chance_to_rank_a_flip_higher():
    g = torch.Generator().manual_seed(0)
    score, flipped = torch.randn(40, generator=g), torch.rand(40, generator=g) < 0.3
    score[:5] = score[5:10]  # ties count one half
    score[11] = torch.inf
    pairs = [(float(a > b) + 0.5 * float(a == b)) for a in score[flipped] for b in score[~flipped]]
    assert ntk.analysis.flip_auc(score, flipped) == pytest.approx(sum(pairs) / len(pairs))


def test_class_support_pair_by_pair():
    phi = torch.randn(9, 4, dtype=torch.float64)
    y, gram = torch.tensor([0, 1, 2] * 3), phi @ phi.T
    found = ntk.analysis.class_support(gram, y)
    for i in range(9):
        same = [j for j in range(9) if j != i and y[j] == y[i]]
        cosines = [float(gram[i, j] / (gram[i, i] * gram[j, j]) ** 0.5) for j in same]
        assert float(found[i]) == pytest.approx(sum(cosines) / len(cosines))


def test_bad_input():
    with pytest.raises(ValueError, match="model: got an empty"):
        ntk.analysis.el2n([], X, Y)
    with pytest.raises(ValueError, match="predictions: got shape"):
        ntk.analysis.forgetting_score(torch.zeros(3, 5), torch.zeros(4))
    with pytest.raises(TypeError, match="right: got dtype"):
        ntk.analysis.influence_score(torch.zeros(3, 5), torch.zeros(3, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="included: got shape"):
        ntk.analysis.influence_score(torch.zeros(3, 5, dtype=torch.bool), torch.zeros(3, 4, dtype=torch.bool))
    for fraction in (-0.1, 1.1):
        with pytest.raises(ValueError, match="fraction: got"):
            ntk.analysis.flip_labels(Y, fraction, 10)
        with pytest.raises(ValueError, match="fraction: got"):
            ntk.analysis.prune_head(ntk.analysis.Clusters(torch.tensor([0]), torch.zeros(4).long(), torch.zeros(4)), fraction)
    with pytest.raises(ValueError, match="num_classes: got 1"):
        ntk.analysis.flip_labels(torch.zeros(4).long(), 0.5, 1)
    with pytest.raises(ValueError, match="only one kind"):
        ntk.analysis.flip_auc(torch.zeros(3), torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="NaN"):
        ntk.analysis.flip_auc(torch.tensor([0, torch.nan]), torch.tensor([True, False]))
    with pytest.raises(ValueError, match="flipped: got shape"):
        ntk.analysis.flip_auc(torch.zeros(3), torch.zeros(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="class 1 has one sample"):
        ntk.analysis.class_support(torch.eye(3), torch.tensor([0, 0, 1]))
