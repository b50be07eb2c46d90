"""Relations, farthest point clustering, redundancy and partners, against loops that follow the paper's text line by line."""

import math

import pytest
import torch
from torch import nn

import ntk_course as ntk
from ntk_course.analysis import Relation


def psd(n, seed=0, d=5, spread=1.0):
    """Make a Gram matrix of vectors of different lengths in few dimensions, so that all relations occur."""
    g = torch.Generator().manual_seed(seed)
    phi = torch.randn(n, d, generator=g, dtype=torch.float64) * (1 + spread * torch.rand(n, 1, generator=g, dtype=torch.float64))
    return phi @ phi.T


def algorithm_3(gram, m):
    """Farthest point clustering as the paper prints it, with lists and loops; lowest index on ties."""
    n = len(gram)
    centroids = [max(range(n), key=lambda i: (gram[i][i], -i))]
    lists = [[i for i in range(n) if i != centroids[0]]]
    while len(centroids) < m:
        _, new = min((gram[c][i], i) for c, members in zip(centroids, lists, strict=True) for i in members)
        fresh = []
        for c, members in zip(centroids, lists, strict=True):
            for i in list(members):
                if i == new or gram[new][i] > gram[c][i]:
                    members.remove(i)
                    if i != new:
                        fresh.append(i)
        centroids.append(new)
        lists.append(fresh)
    return centroids, [sorted([c, *members]) for c, members in zip(centroids, lists, strict=True)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("m", [1, 2, 7, 40])
def test_clusters_are_those_of_algorithm_3(seed, m):
    gram = psd(40, seed)
    found = ntk.farthest_point_clustering(gram, m)
    centroids, lists = algorithm_3(gram.tolist(), m)
    assert found.centroids.tolist() == centroids
    assert [found.members(j).tolist() for j in range(m)] == lists
    assert found.sizes.tolist() == [len(members) for members in lists]
    assert torch.equal(found.similarity, gram[found.centroids[found.assignment], torch.arange(40)])
    assert len(lists[found.head]) == max(map(len, lists))


def test_ties_do_not_lose_or_move_a_centroid():
    gram = torch.ones(6, 6, dtype=torch.float64)  # all samples identical
    found = ntk.farthest_point_clustering(gram, 3)
    assert found.centroids.tolist() == [0, 1, 2]
    assert found.assignment.tolist() == [0, 1, 2, 0, 0, 0]  # equal is not closer: nobody else moves
    # 3 is closer to 1 than 1 is to itself, and still a centroid stays where it is
    gram = torch.tensor([[9.0, 0, 1], [0, 1, 2], [1, 2, 5]], dtype=torch.float64)
    assert ntk.farthest_point_clustering(gram, 3).assignment.tolist() == [0, 1, 2]


def test_only_the_rows_of_centroids_are_looked_at():
    gram, asked = psd(30), []

    def row(i):
        asked.append(i)
        return gram[i]

    found = ntk.farthest_point_clustering(row, 6, diagonal=gram.diagonal())
    assert asked == found.centroids.tolist()
    assert torch.equal(found.assignment, ntk.farthest_point_clustering(gram, 6).assignment)


@pytest.mark.parametrize("memory", [2**31, 40_000])
def test_rows_on_demand_are_rows_of_the_gram_matrix(memory):
    torch.manual_seed(0)
    model = ntk.small_cnn().double()
    data = ntk.load("digits", limit=70)
    gram = ntk.lpntk(model, data.x, data.y)
    c = ntk.labelled(data.y)
    rows = ntk.Gram(model, data.x, c, memory=memory)
    assert len(rows) == 70
    assert rows.keep() == (memory == 2**31)
    for i in (0, 33, 69):
        torch.testing.assert_close(rows[i], gram[i], rtol=1e-5, atol=0)
    torch.testing.assert_close(rows.diagonal(), gram.diagonal(), rtol=1e-5, atol=0)
    same = ntk.farthest_point_clustering(rows, 7), ntk.farthest_point_clustering(gram, 7)
    assert torch.equal(same[0].assignment, same[1].assignment)
    with pytest.raises(IndexError, match="row: got 70; wanted -70 to 69"):
        rows[70]


@pytest.mark.parametrize("by", ["projections", "angle"])
def test_relations_follow_the_definitions_pair_by_pair(by):
    gram, t, tolerance = psd(60, d=2), 0.6, 0.2
    kinds = ntk.analysis.relations(gram, t, tolerance, by)
    seen = set()
    for u in range(60):
        for o in range(60):
            p, q = gram[u, o] / gram[u, u], gram[u, o] / gram[o, o]
            if by == "angle":
                p = q = gram[u, o] / (gram[u, u] * gram[o, o]).sqrt()
            wanted = Relation.NEITHER
            if abs(p) <= tolerance and abs(q) <= tolerance:
                wanted = Relation.UNRELATED
            if (p >= t and q >= t) or u == o:
                wanted = Relation.INTERCHANGEABLE
            if p <= -t and q <= -t:
                wanted = Relation.CONTRADICTORY
            assert kinds[u, o] == wanted
            seen.add(wanted)
    assert seen == set(Relation)


def test_cosines():
    gram = psd(12)
    wanted = [[float(gram[i, j] / (gram[i, i] * gram[j, j]) ** 0.5) for j in range(12)] for i in range(12)]
    torch.testing.assert_close(ntk.analysis.cosines(gram), torch.tensor(wanted, dtype=torch.float64))
    assert ntk.analysis.cosines(torch.zeros(2, 2)).tolist() == [[0, 0], [0, 0]]


def test_a_threshold_of_one_still_holds_on_the_diagonal():
    gram = psd(30).float()
    assert (ntk.analysis.relations(gram, 1.0).diagonal() == Relation.INTERCHANGEABLE).all()


def test_extreme_examples_of_two_classes():
    """App. D.1: two copies of one input are interchangeable with one label and contradictory with two."""
    torch.manual_seed(0)
    model = ntk.mlp((64, 32, 2)).double()
    x = ntk.load("digits", limit=1).x.repeat(2, 1, 1, 1)
    same = ntk.analysis.relations(ntk.lpntk(model, x, torch.tensor([0, 0])), 1.0)
    opposite = ntk.analysis.relations(ntk.lpntk(model, x, torch.tensor([0, 1])), 1.0)
    assert same[0, 1] == Relation.INTERCHANGEABLE
    assert opposite[0, 1] == Relation.CONTRADICTORY


def test_closest_partners_and_redundancy_by_loops():
    gram = psd(50)
    value, index, own = ntk.analysis.closest_partners(gram)
    marked = ntk.redundant(gram)
    for i in range(50):
        others = [(float(gram[i, j]), -j) for j in range(50) if j != i]
        best, j = max(others)
        assert (float(value[i]), int(index[i]), float(own[i])) == (best, -j, float(gram[i, i]))
        assert bool(marked[i]) == any(gram[i, j] > gram[i, i] for j in range(50) if j != i)
    assert 0 < marked.sum() < 50


@pytest.mark.parametrize("block_size", [7, 16, 64])
def test_streamed_blocks_give_the_same_as_the_whole_matrix(block_size):
    torch.manual_seed(0)
    model = ntk.mlp((64, 16, 10)).double()
    data = ntk.load("digits", limit=50)
    gram = ntk.lpntk(model, data.x, data.y)
    c = ntk.labelled(data.y)
    streamed = ntk.analysis.closest_partners(ntk.Gram(model, data.x, c, block_size=block_size, memory=60_000))
    whole = ntk.analysis.closest_partners(gram)
    assert torch.equal(streamed.index, whole.index)
    torch.testing.assert_close(streamed.value, whole.value)
    assert torch.equal(
        ntk.redundant(ntk.Gram(model, data.x, c, block_size=block_size)),
        ntk.redundant(gram),
    )


def test_ties_between_partners_go_to_the_lowest_index():
    ones = torch.ones(9, 9)
    assert ntk.analysis.closest_partners(ones).index.tolist() == [1] + [0] * 8
    assert not ntk.redundant(ones).any()  # as similar as itself is not more


@pytest.mark.parametrize("block_size", [None, 1, 7, 11, 200])
def test_later_samples_only(block_size):
    """By loops over the whole matrix, and streamed in blocks; the public code of the paper compares so."""
    torch.manual_seed(0)
    features = (
        torch.randint(-2, 3, (23, 4)).double() * torch.linspace(0.5, 2, 23, dtype=torch.float64)[torch.randperm(23)][:, None]
    )
    model = nn.Linear(4, 1, bias=False).double()
    gram = features @ features.T
    given = gram if block_size is None else ntk.Gram(model, features, ntk.ones, block_size=block_size)
    found, marked = ntk.analysis.closest_partners(given, "later"), ntk.redundant(given, among="later")
    for i in range(23):
        later = [(float(gram[i, j]), -j) for j in range(i + 1, 23)]
        value, index = max(later, default=(-math.inf, -i))
        assert found.value[i].item() == pytest.approx(value) and int(found.index[i]) == -index
        assert bool(marked[i]) == (value > float(gram[i, i]))
    assert not marked[-1] and marked.sum() < ntk.redundant(given).sum()
    with pytest.raises(ValueError, match="among: got 'earlier'; wanted 'all' or 'later'"):
        ntk.redundant(gram, among="earlier")


def test_only_a_longer_vector_makes_redundant():
    gram = psd(80)
    own = gram.diagonal()
    partners = ntk.analysis.closest_partners(gram)
    marked = ntk.redundant(gram)
    assert (own[partners.index[marked]] > own[marked]).all()
    assert not ntk.redundant(gram / own.sqrt()[:, None] / own.sqrt()[None, :]).any()  # unit vectors: none can be


def test_interchangeable_partners():
    gram = psd(60, d=3)
    clusters = ntk.farthest_point_clustering(gram, 4)
    centroid = int(clusters.centroids[clusters.head])
    row, inside = gram[centroid], set(clusters.members(clusters.head).tolist()) - {centroid}
    outside = set(range(60)) - inside - {centroid}
    by_row = lambda group, flip: sorted(group, key=lambda i: (flip * float(row[i]), i))[:3]  # noqa: E731
    assert ntk.analysis.interchangeable(row, clusters, 3).tolist() == by_row(inside, -1)
    assert ntk.analysis.interchangeable(row, clusters, 3, "medium").tolist() == by_row(inside, 1)
    assert ntk.analysis.interchangeable(row, clusters, 3, "least").tolist() == by_row(outside, 1)
    with pytest.raises(ValueError, match="count: got 100; wanted at most"):
        ntk.analysis.interchangeable(row, clusters, 100)
    with pytest.raises(ValueError, match="which: got 'best'"):
        ntk.analysis.interchangeable(row, clusters, 1, "best")
    with pytest.raises(ValueError, match="row: got shape"):
        ntk.analysis.interchangeable(row[:5], clusters, 1)


BAD = [
    (torch.zeros(3, 4), "square"),
    (torch.tensor([[1.0, 2], [0, 1]]), "symmetric"),
    (torch.tensor([[1.0, torch.nan], [torch.nan, 1]]), "non-finite"),
    (torch.zeros(0, 0), "square"),
]


@pytest.mark.parametrize(("gram", "words"), BAD, ids=[words for _, words in BAD])
@pytest.mark.parametrize("use", [ntk.analysis.relations, ntk.redundant, lambda g: ntk.farthest_point_clustering(g, 1)])
def test_bad_gram_matrices_are_refused(gram, words, use):
    with pytest.raises(ValueError, match=f"gram: got .*{words}"):
        use(gram)


def test_other_bad_input():
    gram = psd(5)
    with pytest.raises(ValueError, match="num_clusters: got 6 for 5"):
        ntk.farthest_point_clustering(gram, 6)
    with pytest.raises(ValueError, match="num_clusters: got 0"):
        ntk.farthest_point_clustering(gram, 0)
    with pytest.raises(ValueError, match="diagonal: got None"):
        ntk.farthest_point_clustering(lambda i: gram[i], 2)
    with pytest.raises(ValueError, match="row 0 has shape|row . has shape"):
        ntk.farthest_point_clustering(lambda i: gram[i, :2], 2, diagonal=gram.diagonal())
    with pytest.raises(ValueError, match="threshold: got 0.5"):
        ntk.analysis.relations(gram, 0.5)
    with pytest.raises(ValueError, match="tolerance: got 0.7"):
        ntk.analysis.relations(gram, 0.6, 0.7)
    with pytest.raises(ValueError, match="by: got 'norm'"):
        ntk.analysis.relations(gram, by="norm")
    with pytest.raises(TypeError, match=r"gram: got torch\.int64"):
        ntk.analysis.relations(torch.eye(3).long())
    with pytest.raises(ValueError, match="at least two"):
        ntk.redundant(torch.ones(1, 1))
    two = ntk.Gram(ntk.mlp((4, 3)), torch.randn(3, 4), ntk.ones, torch.randn(2, 4), ntk.ones)
    with pytest.raises(ValueError, match=r"gram: got two sides, \(3, 2\); wanted samples against themselves"):
        ntk.analysis.closest_partners(two)
    with pytest.raises(TypeError, match="gram: got list"):
        ntk.analysis.closest_partners([1.0])
