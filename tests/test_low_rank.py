"""Moves of low rank: what the network answers, what is trained, and what they leave of the tangent kernel."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

import ntk_course as ntk
from ntk_course.models import LowRank, low_rank


def points(n, d=4, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def test_it_answers_as_before_and_trains_its_moves_alone(network):
    x, before = points(7), {name: p.clone() for name, p in network.named_parameters()}
    tuned = low_rank(network, rank=2)
    assert torch.equal(tuned(x), network(x))
    assert {name for name, p in tuned.named_parameters() if p.requires_grad} == {
        f"{i}.{m}.weight" for i in (0, 2) for m in ("down", "up")
    }
    optimizer = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(tuned(x), torch.tensor([0, 1, 2, 0, 1, 2, 0])).backward()
        optimizer.step()
    assert not torch.allclose(tuned(x), network(x))
    assert all(torch.equal(p, before[name]) and p.requires_grad for name, p in network.named_parameters())
    assert torch.equal(tuned[0].layer.weight, before["0.weight"])
    move = tuned[0].scale * tuned[0].up.weight @ tuned[0].down.weight
    assert torch.linalg.matrix_rank(move) == 2
    torch.testing.assert_close(tuned[0](x), x @ (before["0.weight"] + move).T + before["0.bias"], rtol=1e-12, atol=1e-12)


def test_the_engine_sees_its_kernel(network):
    x, tuned = points(7), low_rank(network, rank=2, scale=3.0)
    for p in tuned.parameters():  # away from the start, where both factors count
        p.data += 0.1 * torch.randn_like(p) if p.requires_grad else 0
    weights = {name: p.detach() for name, p in tuned.named_parameters() if p.requires_grad}
    parts = jacrev(lambda w: functional_call(tuned, w, (x,)))(weights)
    j = torch.cat([p.flatten(2) for p in parts.values()], 2)
    torch.testing.assert_close(ntk.entk(tuned, x), torch.einsum("nkd,mld->nmkl", j, j), rtol=1e-10, atol=1e-12)


def test_its_kernel_at_the_start_by_formula(network):
    """Layer by layer: inputs through A, times what comes back."""
    x, tuned = points(7), low_rank(network, rank=2, scale=3.0, seed=5)
    hidden = torch.tanh(network[0](x)).detach()
    back = (1 - hidden.square())[:, :, None] * network[2].weight.detach().T  # (N, 6, K)
    ins = [a @ tuned[i].down.weight.detach().T for i, a in ((0, x), (2, hidden))]
    outs = [torch.einsum("nhk,mhl->nmkl", back, back), torch.eye(3, dtype=torch.float64).expand(7, 7, 3, 3)]
    wanted = sum(9 * (a @ a.T)[:, :, None, None] * b for a, b in zip(ins, outs, strict=True))
    torch.testing.assert_close(ntk.entk(tuned, x), wanted, rtol=1e-10, atol=1e-12)


def test_over_draws_its_kernel_is_that_of_the_weights(network):
    """400 draws of A: the mean within five standard errors, and on one layer's diagonal the deviation that a projection has."""
    x, rank, layers = points(5), 8, ["0", "2"]
    draws = torch.stack([ntk.entk(low_rank(network, rank, seed=seed), x) for seed in range(400)])
    wanted = ntk.Gram(network, x, ntk.basis, parameters=["0.weight", "2.weight"]).dense()
    assert ((draws.mean(0) - wanted).abs() < 5 * draws.std(0) / 20 + 1e-12).all()
    one = torch.stack([ntk.entk(low_rank(network, rank, layers="2", seed=seed), x)[0, 0, 0, 0] for seed in range(400)])
    assert abs(float(one.std() / one.mean()) / (2 / rank) ** 0.5 - 1) < 0.15
    assert len(layers) == sum(isinstance(m, LowRank) for m in low_rank(network, rank).modules())


def test_it_draws_by_its_seed_and_leaves_the_global_state(network):
    state = torch.get_rng_state()
    a, b, other = (low_rank(network, 2, seed=seed)[0].down.weight for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, other) and torch.equal(state, torch.get_rng_state())


def test_chosen_layers_and_a_single_one(network):
    tuned = low_rank(network, 2, layers=["2"])
    assert type(tuned[0]) is nn.Linear and isinstance(tuned[2], LowRank)
    assert isinstance(low_rank(nn.Linear(3, 2), 1), LowRank)


def test_torchs_own_blocks_read_its_weights():
    """A transformer's layer reads weights of its parts where no gradient is asked for; attention reads those of its output."""
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double().eval()
    x, tuned = points(3, 40).view(3, 5, 8), low_rank(block, 2)
    assert isinstance(tuned.self_attn.out_proj, LowRank) and isinstance(tuned.linear1, LowRank)
    with torch.no_grad():
        torch.testing.assert_close(tuned(x), block(x), rtol=1e-12, atol=1e-12)
    for p in tuned.parameters():
        p.data += 0.1 * torch.randn_like(p) if p.requires_grad else 0
    asked = tuned(x)
    with torch.no_grad():
        torch.testing.assert_close(tuned(x), asked, rtol=1e-10, atol=1e-12)
    assert (asked - block(x)).abs().max() > 1e-3
    layer = tuned.linear1
    assert (layer.in_features, layer.out_features) == (8, 16) and layer.bias is layer.layer.bias
    torch.testing.assert_close(layer.weight, layer.layer.weight + layer.up.weight @ layer.down.weight)


def test_a_subclass_counts_while_its_forward_is_that_of_a_linear_layer():
    class Named(nn.Linear):
        pass

    class Other(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    tuned = low_rank(nn.Sequential(Named(4, 4), Other(4, 4), nn.Linear(4, 2)), 2)
    assert [isinstance(m, LowRank) for m in tuned] == [True, False, True]


def test_it_keeps_the_mode(network):
    assert not any(m.training for m in low_rank(network.eval(), 2).modules())
    assert all(m.training for m in low_rank(network.train(), 2).modules())


def test_it_refuses(network):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = self.b = nn.Linear(3, 3)
            self.c = nn.Linear(3, 3)
            self.d = nn.Linear(3, 3)
            self.d.weight = self.c.weight

    for wrong, says in (
        (lambda: low_rank(network, 2, layers=["1"]), r"layers: got \['1'\]"),
        (lambda: low_rank(network, 2, layers=[]), "layers: got none; wanted at least one of"),
        (lambda: low_rank(nn.Conv2d(1, 1, 3), 2), "model: got a Conv2d without a linear layer"),
        (lambda: low_rank(network, 0), "rank: got 0"),
        (lambda: low_rank(network, 2, scale=-1.0), "scale: got -1"),
        (lambda: low_rank(Tied(), 1), r"layers: got 'a', whose weight stands in the model as \['a', 'b'\]"),
        (lambda: low_rank(Tied(), 1, layers="b"), "layers: got 'b', whose weight stands"),
        (lambda: low_rank(Tied(), 1, layers=["c", "d"]), "layers: got 'c', whose weight stands"),
        (lambda: low_rank(low_rank(network, 2), 2), "model: got one that has moves of low rank already"),
    ):
        with pytest.raises(ValueError, match=says):
            wrong()
    assert isinstance(low_rank(Tied(), 1, layers="c").c, LowRank)
    for wrong, says in (
        (lambda: low_rank("a", 1), "model: got str"),
        (lambda: low_rank(network, 1, scale="a"), "scale: got 'a'"),
    ):
        with pytest.raises(TypeError, match=says):
            wrong()
