"""Kernels of any architecture: against neural-tangents, finite networks, degenerate cases, and one's own arithmetic."""

import json
import math
from pathlib import Path

import pytest
import torch
from conftest import relative
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F

from ntk_course import cntk, entk
from ntk_course.kernels import empirical
from ntk_course.kernels.infinite import limit, mlp
from ntk_course.models import standardised

STORED = json.loads((Path(__file__).parent / "reference/composed.json").read_text())["kernels"]
W, B = 1.3, 0.4


def images(*layers):
    """Take images with channels last, as neural-tangents has them."""
    return nn.Sequential(Channels(), *layers)


class Channels(nn.Module):
    def forward(self, x):
        return x.movedim(-1, 1)


class Erf(nn.Module):
    def forward(self, x):
        return torch.erf(x)


class Block(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.layer = nn.Linear(n, n)

    def forward(self, x):
        return x + self.layer(x.relu())


class Gate(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.gate, self.value = nn.Linear(n, n), nn.Linear(n, n)

    def forward(self, x):
        return F.gelu(self.gate(x)) * self.value(x)


class Beside(nn.Module):
    def __init__(self, d, n):
        super().__init__()
        self.left, self.right = nn.Linear(d, n), nn.Linear(d, n)

    def forward(self, x):
        return torch.cat([torch.erf(self.left(x)), torch.relu(self.right(x))], -1)


class Attention(nn.Module):
    """Scores divided by the width, of queries that are keys."""

    def __init__(self, n):
        super().__init__()
        self.query, self.value, self.out = (nn.Linear(n, n, bias=False) for _ in range(3))

    def forward(self, x):
        q = self.query(x)
        scores = torch.softmax(q @ q.transpose(-2, -1) / q.shape[-1], -1)
        return self.out(scores @ self.value(x))


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)


def norm(n):
    return nn.LayerNorm(n, eps=1e-12, elementwise_affine=False)


PEERS = {
    "residual": lambda n: [nn.Linear(5, n), Block(n), Block(n), Erf(), nn.Linear(n, 1)],
    "gate": lambda n: [nn.Linear(5, n), nn.ReLU(), Gate(n), nn.Linear(n, 1)],
    "beside": lambda n: [Beside(5, n), nn.Linear(2 * n, n), nn.ReLU(), nn.Linear(n, 1)],
    "norm": lambda n: [nn.Linear(5, n), norm(n), nn.ReLU(), nn.Linear(n, n), norm(n), nn.GELU(), nn.Linear(n, 1)],
    "strided": lambda n: [
        *(Channels(), nn.Conv2d(2, n, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(n, n, (3, 2), stride=(2, 1)), Erf(), nn.Flatten(), nn.Linear(8 * n, 1)),
    ],
    "circular": lambda n: [
        *(Channels(), nn.Conv2d(2, n, 3, padding=1, padding_mode="circular"), nn.ReLU()),
        *(nn.Conv2d(n, n, 3, padding="same", padding_mode="circular"), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, 1)),
    ],
    "pooled": lambda n: [
        *(Channels(), nn.Conv2d(2, n, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(n, n, 3, padding=1), nn.GELU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, 1)),
    ],
    "channels": lambda n: [
        *(Channels(), nn.Conv2d(2, n, 3, padding=1), nn.GroupNorm(1, n, eps=1e-12, affine=False), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(30 * n, 1)),
    ],
    "line": lambda n: [
        *(Channels(), nn.Conv1d(5, n, 3, padding=1), nn.ReLU(), nn.Conv1d(n, n, 3, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(4 * n, 1)),
    ],
    "attention": lambda n: [
        *(nn.Linear(5, n), Attention(n), norm(n), nn.Linear(n, n), nn.ReLU(), Mean(), nn.Linear(n, 1)),
    ],
}


@pytest.mark.parametrize("name", STORED)
def test_equals_neural_tangents(name):
    row, net = STORED[name], nn.Sequential(*PEERS[name](8))
    x1, x2 = (torch.tensor(row[k], dtype=torch.float64) for k in ("x1", "x2"))
    own = {"query": 1.2, "value": 0.9, "out": 1.1} if name == "attention" else {}
    found = limit(net, x1, x2, w_std=W, b_std=B, deviations={f"1.{k}.weight": v for k, v in own.items()})
    assert relative(found.nngp, torch.tensor(row["nngp"], dtype=torch.float64)) < 1e-12
    assert relative(found.ntk, torch.tensor(row["ntk"], dtype=torch.float64)) < 1e-12


# Finite networks, by autograd. Their weights are drawn so that a gradient in the NTK parameterization is a scale times torch's.


class Residual(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.a, self.b, self.c, self.out = nn.Linear(30, n), nn.Linear(n, n), nn.Linear(n, n, bias=False), nn.Linear(n, 1)

    def forward(self, x):
        h = self.a(x)
        h = h + self.b(torch.relu(h))
        h = h - 0.5 * self.c(F.gelu(h))
        return self.out(torch.tanh(h))


class Normed(nn.Module):
    """Trained factors meet an activation, and what follows a sum does not."""

    def __init__(self, n):
        super().__init__()
        self.a, self.b, self.c, self.out = nn.Linear(30, n), nn.Linear(n, n), nn.Linear(n, n), nn.Linear(n, 1)
        self.first, self.second, self.third = nn.LayerNorm(n), nn.RMSNorm(n), nn.LayerNorm(n)

    def forward(self, x):
        h = F.gelu(2 * self.first(self.a(x)))
        h = torch.erf(self.third(self.b(h)))
        return self.out(self.second(torch.relu(self.c(h))))


class Transformer(nn.Module):
    """One block: positions, attention in two heads with scores over the width, and a network for every token."""

    def __init__(self, n):
        super().__init__()
        self.embed, self.key, self.value, self.mix = (
            nn.Linear(6, n),
            nn.Linear(n, n, bias=False),
            nn.Linear(n, n),
            nn.Linear(n, n),
        )
        self.up, self.down, self.out = nn.Linear(n, n), nn.Linear(n, n), nn.Linear(n, 1)
        self.positions = nn.Parameter(torch.zeros(5, n))
        self.before, self.between = nn.LayerNorm(n), nn.LayerNorm(n)

    def forward(self, x):
        h = self.embed(x.view(x.shape[0], 5, 6)) + self.positions
        g = self.before(h)
        q, v = (layer(g).view(x.shape[0], 5, 2, -1).transpose(1, 2) for layer in (self.key, self.value))
        scores = torch.softmax(2 * (q @ q.transpose(-2, -1)) / q.size(-1), -1)
        h = h + self.mix((scores @ v).transpose(1, 2).reshape(x.shape[0], 5, -1))
        h = h + self.down(F.gelu(self.up(self.between(h))))
        return self.out(h.mean(1))


class Recurrent(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.rnn = nn.RNN(6, n, num_layers=2, batch_first=True, nonlinearity="relu")
        self.out = nn.Linear(n, 1)

    def forward(self, x):
        _, h = self.rnn(x.view(-1, 5, 6))
        return self.out(h[-1])


class States(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.rnn, self.out = nn.RNN(6, n, batch_first=True), nn.Linear(n, 1)

    def forward(self, x):
        return self.out(self.rnn(x.view(-1, 5, 6))[0].mean(1))


class Graph(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, n), nn.Linear(n, n), nn.Linear(n, 1)

    def forward(self, nodes, edges, there):
        h = torch.relu(self.a(edges @ nodes))
        h = torch.relu(self.b(edges @ h))
        return self.out((h * there).sum(1))


class Convolutions(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, n, 3, padding=1), nn.Conv2d(n, n, 3, stride=2, padding=1)
        self.c = nn.Conv2d(n, n, 2, padding=1, padding_mode="circular")
        self.norm, self.start, self.out = nn.GroupNorm(1, n), nn.BatchNorm2d(n), nn.Linear(n, 1)

    def forward(self, x):
        h = torch.relu(self.start(self.a(x.view(-1, 1, 6, 5))))
        h = torch.relu(self.norm(self.b(h)))
        return self.out(F.avg_pool2d(torch.relu(self.c(h)), 2).mean((2, 3)))


class Words(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.embed, self.conv, self.out = nn.Embedding(4, n), nn.Conv1d(n, n, 3, padding=1), nn.Linear(5 * n, 1)

    def forward(self, words):
        return self.out(torch.relu(self.conv(self.embed(words).mT)).flatten(1))


class Token(nn.Module):
    """A token of its own is put before the others, and read at the end."""

    def __init__(self, n):
        super().__init__()
        self.embed, self.mix, self.out = nn.Linear(6, n), nn.Linear(n, n), nn.Linear(n, 1)
        self.token = nn.Parameter(torch.zeros(1, 1, n))
        self.last = nn.Linear(n, n)

    def forward(self, x):
        h = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x.view(-1, 5, 6))], 1)
        h = self.mix(torch.tanh(h))
        scores = F.softmax(h @ h.transpose(1, 2) / h.shape[-1], dim=-1)
        return self.out(torch.sigmoid(self.last(scores @ h))[:, 0])


class Timm(nn.Module):
    """Attention as it is often written: queries, keys and values in one layer, samples moved to the second axis."""

    def __init__(self, n):
        super().__init__()
        self.embed, self.qkv, self.mix, self.out = nn.Linear(6, n), nn.Linear(n, 3 * n), nn.Linear(n, n), nn.Linear(n, 1)
        self.before = nn.LayerNorm(n)

    def forward(self, x):
        h = self.embed(x.view(x.shape[0], 5, 6))
        B, N, C = h.shape
        _, k, v = self.qkv(self.before(h)).reshape(B, N, 3, 2, C // 2).permute(2, 0, 3, 1, 4).unbind(0)
        scores = ((k @ k.transpose(-2, -1)) / k.shape[-1]).softmax(-1)
        h = h + self.mix((scores @ v).transpose(1, 2).reshape(B, N, C))
        return self.out(h.mean(1))


class Halves(nn.Module):
    """A gate and what it opens, from one layer."""

    def __init__(self, n):
        super().__init__()
        self.both, self.out = nn.Linear(30, 2 * n), nn.Linear(n, 1)

    def forward(self, x):
        gate, value = self.both(x).chunk(2, -1)
        return self.out(F.silu(gate) * value)


class Gated(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.a, self.b, self.out, self.norm = nn.Linear(30, n), nn.Linear(30, n), nn.Linear(n, 1), nn.LayerNorm(n)

    def forward(self, x):
        return self.out(F.silu(self.a(x)) * self.norm(self.b(x)))


class Isomorphic(nn.Module):
    """What a node has, and what its neighbours have, in one sum, with the nodes' mean taken off; layers twice as deep as sums."""

    def __init__(self, n):
        super().__init__()
        self.a, self.b, self.c, self.out = nn.Linear(6, n), nn.Linear(n, n), nn.Linear(n, n), nn.Linear(n, 1)

    def forward(self, nodes, edges, there):
        h = torch.relu(self.a(nodes))
        h = self.b(1.3 * h + edges @ h)
        h = torch.relu(h - h.mean(1, keepdim=True)) * there
        h = self.c(h[:, 1:] - h[:, :-1])
        scores = torch.softmax(h @ h.flip(1).mT / h.shape[-1], -1)
        return self.out((h + scores @ h).sum(1))


class Means(nn.Module):
    """Sums, stacks and norms of what is not zero on average; positions that became channels before the activation."""

    def __init__(self, n):
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(6, n), nn.Linear(n, n), nn.Linear(n, n), nn.Linear(3 * n, n)
        self.norm, self.out = nn.LayerNorm(n), nn.Linear(n, 1)

    def forward(self, x):
        h = self.a(x.view(-1, 5, 6))
        first, second = torch.relu(h), F.softplus(self.b(torch.tanh(h)))
        h, g = self.norm(first + second), F.silu(self.c(second))
        h = torch.stack([h[:, 0], h.sum(1) / 2 + g[:, 4], h[:, 3] + 0.5 * g[:, 1]], 1)
        return self.out(torch.relu(self.d(h.flatten(1))))


class Dense(nn.Module):
    """Sums that have parts in common, a norm of activations over positions too, and an activation behind flattening."""

    def __init__(self, n):
        super().__init__()
        self.a, self.b, self.c = nn.Conv1d(6, n, 1), nn.Conv1d(n, n, 3, padding=1), nn.Conv1d(n, n, 1)
        self.group, self.out = nn.GroupNorm(1, n), nn.Linear(5 * n, 1)

    def forward(self, x):
        first = self.a(x.view(-1, 5, 6).mT)
        second = first + self.b(self.group(torch.relu(first)))
        third = second + self.c(torch.tanh(second)) - 0.5 * first
        return self.out(torch.relu((third + 0.4 * second.flip(2)).flatten(1)))


FINITE = [
    Isomorphic,
    Means,
    Dense,
    Residual,
    Normed,
    Transformer,
    Timm,
    Halves,
    Recurrent,
    States,
    Graph,
    Convolutions,
    Words,
    Token,
    Gated,
]
OWN = {"positions": 0.7, "token": 1.0, "embed.weight": 1.0}


def samples(kind):
    x = 0.6 * torch.randn(4, 30, dtype=torch.float64)
    if kind is Words:
        return (torch.tensor([[0, 1, 2, 3, 0], [1, 1, 2, 0, 0], [3, 2, 1, 0, 3], [0, 0, 0, 0, 0]]),)
    if kind not in (Graph, Isomorphic):
        return (x,)
    edges = (torch.rand(4, 5, 5) > 0.5).double()
    there = torch.ones(4, 5, 1, dtype=torch.float64)
    there[1, 3:], there[2, 4:] = 0, 0
    return x.view(4, 5, 6), (edges + edges.mT + torch.eye(5)) / 3, there


def scales(model):
    """Return each parameter's deviation, or None where it stays: the factor of its gradient in the NTK parameterization."""
    found = {}
    for name, p in model.named_parameters():
        owner = model.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm | nn.BatchNorm2d):
            found[name] = None
        elif name in OWN and not (name == "embed.weight" and isinstance(owner, nn.Linear)):
            found[name] = OWN[name]
        else:
            found[name] = B if "bias" in name else W / math.sqrt(p[0].numel())
    return found


def redraw(model):
    """Draw all weights but those of norms, and return the scales."""
    std = scales(model)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if std[name] is not None:
                p.copy_(torch.randn_like(p) * std[name])
    return std


def scaled_gram(model, given, std):
    """Return the tangent kernel by autograd, in the parameterization whose weights are these scales times numbers."""
    weights = {name: p.detach() for name, p in model.named_parameters()}
    jacobians = jacrev(lambda some: functional_call(model, some, given)[:, 0])(weights)
    rows = [(1.0 if std[name] is None else std[name]) * j.flatten(1) for name, j in jacobians.items()]
    return sum(r @ r.T for r in rows)


def drawn(model, given):
    """Draw the weights, and return the tangent kernel."""
    return scaled_gram(model, given, redraw(model))


def the_limit(model, given, **more):
    own = {name: s for name, s in scales(model).items() if name in OWN and s == OWN[name]}
    return limit(model, given if len(given) > 1 else given[0], w_std=W, b_std=B, deviations=own, **more)


@pytest.mark.parametrize("kind", FINITE)
def test_mean_of_finite_networks(kind):
    """The mean tangent kernel of wide networks lies within five of its own standard errors, which are small."""
    given, model = samples(kind), kind(256).double().eval()
    draws = torch.stack([drawn(model, given) for _ in range(60)])
    wanted = the_limit(model, given).ntk
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - wanted).abs() < 5 * error).all()
    assert error.norm() < 0.06 * wanted.norm()


@pytest.mark.parametrize("kind", FINITE)
def test_outputs_of_finite_networks(kind):
    given, model = samples(kind), kind(128).double().eval()
    outputs = []
    for _ in range(1500):
        redraw(model)
        with torch.no_grad():
            outputs.append(model(*given)[:, 0])
    products = torch.stack([z[:, None] * z for z in outputs])
    wanted = the_limit(model, given).nngp
    error = products.std(0) / len(products) ** 0.5
    assert ((products.mean(0) - wanted).abs() < 5 * error).all()
    assert error.norm() < 0.07 * wanted.norm()


@pytest.mark.parametrize("kind", FINITE)
def test_one_network_comes_nearer_with_the_root_of_its_width(kind):
    given, widths, errors = samples(kind), (32, 128, 512), []
    wanted = the_limit(kind(32).double().eval(), given).ntk
    for n in widths:
        model = kind(n).double().eval()
        errors.append(sum(relative(drawn(model, given), wanted) ** 2 for _ in range(32)) ** 0.5)
    slope = math.log(errors[-1] / errors[0]) / math.log(widths[-1] / widths[0])
    assert -0.65 < slope < -0.35


@pytest.mark.parametrize("kind", FINITE)
def test_neither_width_nor_tiles_nor_a_second_side_change_it(kind):
    given = samples(kind)
    whole = the_limit(kind(32).double().eval(), given)
    for n, memory in ((24, 1), (40, 8 * 4 * 25)):
        torch.testing.assert_close(the_limit(kind(n).double().eval(), given, memory=memory), whole)
    assert all(torch.equal(k, k.T) for k in whole)
    second = tuple(t[:3].clone() for t in given)
    own = {name: s for name, s in scales(kind(32)).items() if name in OWN and s == OWN[name]}
    both = [some if len(some) > 1 else some[0] for some in (given, second)]
    crossed = limit(kind(32).double().eval(), *both, w_std=W, b_std=B, deviations=own)
    for one, other in zip(crossed, whole, strict=True):
        torch.testing.assert_close(one, other[:, :3], rtol=1e-6, atol=1e-7)
    assert torch.linalg.eigvalsh(whole.ntk)[0] > -1e-9


@pytest.mark.parametrize("kind", FINITE)
def test_layers_add_up(kind):
    """With only one parameter trained the output's covariance stays, and the tangent kernels of all add up."""
    given, model = samples(kind), kind(32).double().eval()
    whole, total = the_limit(model, given), 0
    for p in model.parameters():
        for q in model.parameters():
            q.requires_grad_(q is p)
        part = the_limit(model, given)
        torch.testing.assert_close(part.nngp, whole.nngp)
        total = total + part.ntk
    torch.testing.assert_close(total, whole.ntk)


# Degenerate cases, which equal the fully connected network


def test_degenerate_cases():
    x = torch.randn(5, 6, dtype=torch.float64)
    wanted = mlp(x, depth=1, w_std=W, b_std=B)
    one = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    same = {
        "an image of one pixel": (
            nn.Sequential(nn.Conv2d(6, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1)),
            x[:, :, None, None],
        ),
        "as many equal tokens": (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), Mean(), nn.Linear(8, 1)), x[:, None].expand(5, 3, 6)),
        "a branch times nothing": (Weighted(one, 0.0), x),
        "a graph of one node": (Alone(8), (x[:, None], torch.ones(5, 1, 1, dtype=torch.float64))),
    }
    for name, (model, given) in same.items():
        for found, kernel in zip(limit(model, given, w_std=W, b_std=B), wanted, strict=True):
            assert relative(found, kernel) < 1e-12, name
    recurrent = Once(8)
    found = limit(recurrent, x[:, None], w_std=W, b_std=B, deviations={"rnn.bias_hh_l0": 0.0})
    for k, kernel in zip(found, wanted, strict=True):
        assert relative(k, kernel) < 1e-12


class Weighted(nn.Module):
    def __init__(self, model, factor):
        super().__init__()
        self.first, self.second, self.out, self.factor = model[0], nn.Linear(6, 8), model[2], factor

    def forward(self, x):
        return self.out(torch.relu(self.first(x) + self.factor * self.second(x)))


@pytest.mark.parametrize("form", ["(T, T)", "(1, T, T)"])
def test_matrices_over_nodes_for_all_samples(form):
    """As many nodes as samples, so that one axis could pass for the other."""
    nodes, edges = torch.randn(4, 4, 6, dtype=torch.float64), torch.rand(4, 4, dtype=torch.float64)
    wanted = limit(Alone(8), (nodes, edges.expand(4, 4, 4)), w_std=W, b_std=B)
    model = Edges(8, {"(T, T)": edges, "(1, T, T)": edges[None]}[form])
    for one, other in zip(limit(model, nodes, w_std=W, b_std=B), wanted, strict=True):
        assert relative(one, other) < 1e-12


class Edges(nn.Module):
    def __init__(self, n, edges):
        super().__init__()
        self.graph = Alone(n)
        self.register_buffer("edges", edges)

    def forward(self, nodes):
        return self.graph(nodes, self.edges)


class Alone(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.a, self.out = nn.Linear(6, n), nn.Linear(n, 1)

    def forward(self, nodes, edges):
        return self.out(torch.relu(edges @ self.a(nodes)).sum(1))


class Once(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.rnn, self.out = nn.RNN(6, n, batch_first=True, nonlinearity="relu"), nn.Linear(n, 1)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


def test_attention_by_hand():
    """The kernel of plain attention, written out."""
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(5, 8, bias=False), Attention(8), Mean(), nn.Linear(8, 1, bias=False))
    k = torch.einsum("ntc,msc->nmts", x, x) / 5
    a = torch.stack([torch.softmax(k[i, i], -1) for i in range(3)])
    weighed = torch.einsum("ntu,nmuv,msv->nmts", a, k, a)
    found = limit(model, x, w_std=1.0)
    assert relative(found.nngp, weighed.mean((2, 3))) < 1e-12
    # embedding, value, out and the last layer have the same share, query none
    assert relative(found.ntk, 4 * weighed.mean((2, 3))) < 1e-12


class Tempered(nn.Module):
    """Scores of scaled queries and keys, times a number over the width."""

    def __init__(self, n):
        super().__init__()
        self.embed, self.out = nn.Linear(5, n, bias=False), nn.Linear(n, 1, bias=False)

    def forward(self, x):
        h = self.embed(x)
        scores = (0.5 * h) @ (2 * h).mT * (3 / h.shape[-1]) / 2
        return self.out((scores.softmax(-1) @ h).mean(1))


def test_factors_of_scores_by_hand():
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    k = torch.einsum("ntc,msc->nmts", x, x) / 5
    a = torch.stack([torch.softmax(1.5 * k[i, i], -1) for i in range(3)])
    wanted = torch.einsum("ntu,nmuv,msv->nmts", a, k, a).mean((2, 3))
    assert relative(limit(Tempered(32), x, w_std=1.0).nngp, wanted) < 1e-12


@pytest.mark.parametrize("places", [1, 3])
def test_a_sample_with_itself_is_exact(places):
    """A correlation that rounding leaves below 1 would cost half of the digits: the slope of a ReLU has a root there."""
    x = torch.randn(50, 7, dtype=torch.float64)
    layers = [nn.Linear(7, 8, bias=False), nn.ReLU(), nn.Linear(8, 8, bias=False), nn.ReLU()]
    model = nn.Sequential(*layers, *([Mean()] if places > 1 else []), nn.Linear(8, 1, bias=False))
    found = limit(model, x if places == 1 else x[:, None].expand(50, places, 7), w_std=2**0.5)
    own = 2 * x.square().mean(1)
    bound = 1e-14 if places == 1 else 1e-8  # a token and its copy are two positions, whose correlation is 1 but for rounding
    assert relative(found.nngp.diagonal(), own) < bound
    assert relative(found.ntk.diagonal(), 3 * own) < bound


def test_a_users_own_model_in_the_standard_parameterization():
    """Of torch's own initial weights, nothing given: the mean of empirical kernels."""
    x = torch.randn(4, 1, 8, 8)
    make = lambda: nn.Sequential(
        nn.Conv2d(1, 128, 3), nn.ReLU(), nn.Conv2d(128, 128, 3), nn.GELU(), nn.Flatten(), nn.Linear(2048, 2)
    )
    draws = torch.stack([entk(make(), x)[..., 0, 0] for _ in range(40)])
    wanted = limit(make(), x, parameterization="standard").ntk
    assert wanted.dtype == torch.float32
    assert relative(draws.mean(0), wanted) < 0.03


def test_functions_of_parameters_are_layers():
    """Weights that no module passes: products by hand, biases that are added, functional layers."""
    x = torch.randn(3, 2, 5, 4, dtype=torch.float64)
    given = {"w_std": W, "b_std": B}
    layers = nn.Sequential(nn.Flatten(), nn.Linear(40, 8), nn.ReLU(), nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 1, bias=False))
    by_hand = limit(ByHand(), x.flatten(1), deviations={"bias": B}, **given)
    for one, other in zip(by_hand, limit(layers, x, **given), strict=True):
        assert relative(one, other) < 1e-12
    bare, wrapped = nn.Linear(40, 3), nn.Sequential(nn.Linear(40, 3))
    assert torch.equal(limit(bare, x.flatten(1), **given).ntk, limit(wrapped, x.flatten(1), **given).ntk)
    convolution = nn.Sequential(nn.Conv2d(2, 8, (5, 4), bias=False), nn.Flatten())
    assert torch.equal(limit(Filter(), x, w_std=W).ntk, limit(convolution, x, w_std=W).ntk)


class ByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.bias = nn.Parameter(torch.randn(8, 40)), nn.Parameter(torch.randn(8))
        self.second, self.shift = nn.Parameter(torch.randn(9, 8)), nn.Parameter(torch.randn(9))
        self.last = nn.Parameter(torch.randn(9, 1))

    def forward(self, x):
        h = torch.relu(x @ self.first.T + self.bias)
        return F.relu(F.linear(h, self.second, self.shift)) @ self.last


class Filter(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 2, 5, 4))

    def forward(self, x):
        return F.conv2d(x, self.weight).flatten(1)


@pytest.mark.parametrize("pooling", ["flatten", "average"])
def test_cntk_is_one_of_them(pooling):
    x = torch.randn(3, 2, 5, 4, dtype=torch.float64)
    head = [nn.Flatten(), nn.Linear(160, 1)] if pooling == "flatten" else [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1)]
    net = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), *head)
    for one, other in zip(limit(net, x, w_std=W, b_std=B), cntk(x, depth=2, pooling=pooling, w_std=W, b_std=B), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
def test_any_leaky_relu(slope):
    x = torch.randn(4, 6, dtype=torch.float64)
    found = limit(nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(slope), nn.Linear(8, 1)), x, w_std=W, b_std=0.0)
    relu = mlp(x, depth=1, w_std=W)
    linear = W**4 * x @ x.T / 6
    # (1 + a) / 2 u + (1 - a) / 2 |u|, and ReLU is the same with a = 0: what is even of it is taken out of the ReLU's
    wanted = ((1 + slope) / 2) ** 2 * linear + (1 - slope) ** 2 * (relu.nngp - linear / 4)
    assert relative(found.nngp, wanted) < 1e-12


# What is refused


class Calls(nn.Module):
    """A small network around some operation on a hidden layer of eight."""

    def __init__(self, function, **layers):
        super().__init__()
        self.layer, self.out, self.function = nn.Linear(6, 8), nn.Linear(8, 1), function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.out(self.function(self, self.layer(x)))


def twice(model, h):
    return model.again(torch.relu(model.again(torch.relu(h))))


def overlapping(h):
    return torch.relu(h[:, :8]) * h[:, 4:]


class Tied(nn.Module):
    """Two names for one matrix."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 1)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.out(torch.relu(self.a(x) + self.b(x)))


def view_written_over(model, h):
    torch.relu_(h.view(-1, 8))
    return h + model.more(h)


def constant(layer):
    nn.init.constant_(layer.bias, 0.5)
    return layer


REFUSED = [
    (
        lambda m, h: torch.relu(h) * torch.relu(m.more(h)) + torch.relu(m.third(h)),
        {"more": nn.Linear(8, 8), "third": nn.Linear(8, 8)},
        r"operation 'add'.*whose mean is not zero, one of which is not known",
    ),
    (lambda m, h: m.up(m.down(h)), {"down": nn.Linear(8, 1), "up": nn.Linear(1, 8)}, r"layer 'up' \(Linear\).*takes one channel"),
    (
        lambda m, h: torch.relu_(h) + m.more(h),
        {"more": nn.Linear(8, 8)},
        r"operation 'relu_'.*writes over a value that is used again",
    ),
    (lambda m, h: m.act(h) + m.more(h), {"act": nn.ReLU(True), "more": nn.Linear(8, 8)}, r"layer 'act' \(ReLU\).*writes over"),
    (
        lambda m, h: torch.cat([torch.relu(h), m.more(torch.relu(h))], 1)[:, :8],
        {"more": nn.Linear(8, 8)},
        "channels that are not alike",
    ),
    (lambda m, h: m.more(h), {"more": constant(nn.Linear(8, 8))}, "parameter 'more.bias' with the mean 0.5"),
    (lambda m, h: view_written_over(m, h), {"more": nn.Linear(8, 8)}, r"operation 'relu_'.*writes over"),
    (lambda m, h: h.detach(), {}, r"operation 'detach'.*not known here"),
    (lambda m, h: h[:, None].mean(0), {}, r"operation 'mean'.*takes samples together"),
    (lambda m, h: torch.ones(3, 8, dtype=torch.float64) @ m.more.weight, {"more": nn.Linear(8, 8)}, "the same for all samples"),
    (lambda m, h: torch.stack([h, h], 0), {}, r"operation 'stack'.*samples after samples"),
    (lambda m, h: h + torch.relu(h), {}, r"operation 'add'.*both depend on the weights of 'layer'"),
    (lambda m, h: torch.relu(h) * h, {}, r"operation 'mul'.*both depend on the weights of 'layer'"),
    (lambda m, h: torch.relu(torch.relu(h)), {}, r"operation 'relu_1'.*not Gaussian"),
    (lambda m, h: torch.relu(h) + 1.0, {}, r"operation 'add'.*wanted them added to the samples, or a bias"),
    (lambda m, h: h[:, [0, 0, 1, 1, 2, 2, 3, 3]], {}, r"operation 'getitem'.*repeats channels"),
    (lambda m, h: overlapping(m.more(h)), {"more": nn.Linear(8, 12)}, r"operation 'mul'.*both depend on the weights of 'more'"),
    (lambda m, h: torch.softmax(h, -1), {}, r"operation 'softmax'.*random in the limit"),
    (lambda m, h: h.mean(1, keepdim=True).expand(-1, 8), {}, r"operation 'mean'.*takes channels together"),
    (lambda m, h: torch.exp(h), {}, r"operation 'exp'.*not known here"),
    (lambda m, h: h / h.norm(dim=1, keepdim=True), {}, r"operation 'norm'.*not known here"),
    (twice, {"again": nn.Linear(8, 8)}, r"layer 'again' \(Linear\).*weights are used twice"),
    (lambda m, h: m.gelu(h), {"gelu": nn.GELU("tanh")}, r"layer 'gelu' \(GELU\).*another function than gelu"),
    (
        lambda m, h: m.norm(torch.cat([h, m.more(torch.relu(h))], 1))[:, :8],
        {"norm": nn.LayerNorm(16), "more": nn.Linear(8, 8)},
        r"layer 'norm' \(LayerNorm\).*subtracts a mean over channels that are not alike",
    ),
    (lambda m, h: torch.relu(m.norm(h) + m.more(h)), {"norm": nn.LayerNorm(8), "more": nn.Linear(8, 8)}, "through a sum"),
    (lambda m, h: m.bilinear(h, h), {"bilinear": nn.Bilinear(8, 8, 8)}, r"layer 'bilinear' \(Bilinear\).*not known here"),
]


@pytest.mark.parametrize(("function", "layers", "words"), REFUSED, ids=[words for *_, words in REFUSED])
def test_refused(function, layers, words):
    with pytest.raises(ValueError, match=words) as error:
        limit(Calls(function, **layers), torch.randn(3, 6))
    assert (
        str(error.value).startswith("model: got ")
        and "wanted" in str(error.value)
        and "Original traceback" not in str(error.value)
    )


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 1)

    def forward(self, x):
        return self.out(self.attention(x, x, x)[0].mean(1))


def test_every_deviation_plays_its_part_or_is_refused():
    x = torch.randn(3, 6, dtype=torch.float64)
    normed = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1))
    for name in ("1.weight", "1.bias"):
        with pytest.raises(ValueError, match=f"deviations: got '{name}', whose deviation plays no part"):
            limit(normed, x, w_std=1.0, b_std=0.1, deviations={name: 2.0})
    two = Calls(lambda m, h: torch.relu(h)).double()
    two.last = two.out  # a second name, which named_parameters does not have
    wanted = limit(two, x, w_std=1.0, b_std=0.1, deviations={"out.weight": 3.0})
    torch.testing.assert_close(limit(two, x, w_std=1.0, b_std=0.1, deviations={"last.weight": 3.0}), wanted)
    torch.testing.assert_close(wanted.nngp - 0.01, 9 * (limit(two, x, w_std=1.0, b_std=0.1).nngp - 0.01))
    with pytest.raises(ValueError, match="deviations: got 'last.weight' and 'out.weight', which are one parameter"):
        limit(two, x, deviations={"last.weight": 3.0, "out.weight": 2.0})
    unused = Calls(lambda m, h: h, more=nn.Linear(8, 8))
    with pytest.raises(ValueError, match="'more.weight', whose deviation plays no part"):
        limit(unused, x, deviations={"more.weight": 3.0})


@pytest.mark.parametrize(("dtype", "size"), [(torch.float16, 255.0), (torch.float32, 1e20), (torch.float64, 1e160)])
def test_what_its_dtype_cannot_hold_is_no_kernel(dtype, size):
    x = (size * torch.rand(3, 6)).to(dtype) if size < 1e38 else size * torch.rand(3, 6, dtype=dtype)
    with pytest.raises(ArithmeticError, match="finite"):
        limit(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)), x, w_std=2**0.5)


def test_one_map_of_positions_or_another_says_the_same():
    """Sums of maps of one field are one map of it, however they are written; what acts on numbers acts before flattening too."""
    x = torch.randn(4, 5, 6, dtype=torch.float64)
    edges = torch.rand(5, 5, dtype=torch.float64)
    whole = torch.eye(5) + edges
    norms = {"ln": nn.LayerNorm(8), "rms": nn.RMSNorm(8), "plain": nn.LayerNorm(8, 0.3, elementwise_affine=False)}
    norms |= {"two": nn.Linear(8, 16), "two_": nn.Linear(8, 16), "glu": nn.GLU()}
    off = torch.tensor([False, True, False, True, True])[:, None]
    norms["group"] = nn.GroupNorm(1, 8, 0.2, affine=False)
    pairs = [
        (lambda m, h: (h + edges @ h).mean(1), lambda m, h: (whole.double() @ h).mean(1)),
        (lambda m, h: (h + h + h.flip(1)).mean(1), lambda m, h: (3 * h).mean(1)),
        (lambda m, h: (torch.relu(h) - torch.relu(h).mean(1, keepdim=True))[:, 2], lambda m, h: torch.relu(h)[:, 2] - torch.relu(h).mean(1)),
        (lambda m, h: torch.stack([h[:, 1], h[:, 4]], 1).sum(1), lambda m, h: h[:, 1] + h[:, 4]),
        (lambda m, h: torch.cat([h, h[:, :1] - h[:, 1:2]], 1).mean(1) * 6, lambda m, h: h.sum(1) + h[:, 0] - h[:, 1]),
        (lambda m, h: m.whole(torch.relu(h.flatten(1))), lambda m, h: m.whole(torch.relu(h).flatten(1))),
        (
            lambda m, h: (torch.softmax(h @ h.flip(1).mT / 8, -1) @ h)[:, 0],
            lambda m, h: (torch.softmax((h @ h.mT / 8).flip(-1), -1) @ h)[:, 0],
        ),
        (
            lambda m, h: (torch.softmax((2 * h + edges @ h) @ h.mT / 8, -1) @ h)[:, 0],
            lambda m, h: (torch.softmax(2 * (h @ h.mT / 8) + edges @ (h @ h.mT / 8), -1) @ h)[:, 0],
        ),
        (lambda m, h: F.glu(m.two(h)).mean(1), lambda m, h: (m.two(h)[..., :8] * torch.sigmoid(m.two_(h)[..., 8:])).mean(1)),
        (lambda m, h: m.glu(m.two(h)).mean(1), lambda m, h: F.glu(m.two(h)).mean(1)),
        (lambda m, h: h.masked_fill(off, 0).mean(1), lambda m, h: (h * (~off).double()).mean(1)),
        (lambda m, h: torch.index_select(h, 1, torch.tensor([3, 1])).mean(1), lambda m, h: (h[:, 1] + h[:, 3]) / 2),
        (lambda m, h: torch.relu(input=h).mean(1), lambda m, h: torch.relu(h).mean(1)),
        (lambda m, h: torch.relu(F.layer_norm(h, (8,), m.ln.weight, m.ln.bias)).mean(1), lambda m, h: torch.relu(m.ln(h)).mean(1)),
        (lambda m, h: torch.relu(F.layer_norm(h, (8,), eps=0.3)).mean(1), lambda m, h: torch.relu(m.plain(h)).mean(1)),
        (lambda m, h: torch.relu(F.rms_norm(h, (8,), m.rms.weight)).mean(1), lambda m, h: torch.relu(m.rms(h)).mean(1)),
        (lambda m, h: torch.relu(F.group_norm(h.mT, 1, eps=0.2)).mean(2), lambda m, h: torch.relu(m.group(h.mT)).mean(2)),
    ]  # fmt: skip
    for one, other in pairs:
        a, b = (limit(Calls(f, whole=nn.Linear(40, 8), **norms), x, w_std=1.3, b_std=0.4) for f in (one, other))
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        assert (a.ntk.diagonal() > 0).all()
    hidden = lambda m, h: m.more(torch.relu(h)).mean(1)
    both = (lambda m, h: (h - h).mean(1) + hidden(m, h)), hidden
    a, b = (limit(Calls(f, more=nn.Linear(8, 8)), x, w_std=1.3, b_std=0.4) for f in both)
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("whole", [False, True])
def test_a_norm_takes_the_mean_off_what_activations_make(whole):
    """Against a million channels drawn from their Gaussian, at positions of very different sizes."""
    x = torch.randn(3, 4, 6, dtype=torch.float64) * torch.tensor([0.2, 1.0, 3.0, 0.5])[:, None]
    norm = nn.GroupNorm(1, 8, affine=False) if whole else nn.LayerNorm(8, elementwise_affine=False)
    normed = (lambda m, h: m.norm(h.mT).mT) if whole else (lambda m, h: m.norm(h))
    flat = x.reshape(12, 6)
    root = torch.linalg.cholesky(1.69 * flat @ flat.T / 6 + 0.16 + 1e-9 * torch.eye(12))
    h = torch.relu((root @ torch.randn(12, 1_000_000, dtype=torch.float64)).view(3, 4, -1))
    wanted = F.layer_norm(h, h.shape[1:] if whole else h.shape[2:])
    for place in range(4):
        found = limit(Calls(lambda m, h, p=place: normed(m, torch.relu(h))[:, p], norm=norm), x, w_std=1.3, b_std=0.4)
        products = wanted[:, place] @ wanted[:, place].T / h.shape[-1]
        torch.testing.assert_close(found.nngp, 1.69 * products + 0.16, rtol=0.01, atol=0.01)


def test_an_output_without_an_axis_of_its_own():
    x = torch.randn(4, 6, dtype=torch.float64)
    whole = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    squeezed = nn.Sequential(*whole, nn.Flatten(0))
    for one, other in zip(limit(squeezed, x, w_std=1.0), limit(whole, x, w_std=1.0), strict=True):
        assert torch.equal(one, other)


class Scores(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.q, self.k, self.out, self.factor = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(16, 1), factor

    def forward(self, x):
        q, k = self.q(x), self.k(x)
        return self.out((torch.softmax(self.factor * q @ k.transpose(1, 2), -1) @ q).mean(1))


def test_more_is_refused():
    x, images, tokens = torch.randn(3, 6), torch.randn(3, 1, 6, 6), torch.randn(3, 4, 6)
    mlp_ = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    trained = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(128, 1)).eval()
    trained[1].running_var.fill_(2.0)
    pooled = nn.Sequential(nn.Conv2d(1, 8, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 1))
    depthwise = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(32, 1))
    for model, given, more, words in (
        (pooled, images, {}, r"layer '1' \(MaxPool2d\); the largest of correlated Gaussians"),
        (depthwise, images, {}, "8 groups, of 1 channels each"),
        (trained, images, {}, "those of a trained network"),
        (Heads(), tokens, {}, r"layer 'attention' \(MultiheadAttention\).*scores h @ h.mT / width"),
        (Scores(16**-0.5), tokens, {}, "summed over 16 channels times 0.25, which stay random"),
        (Scores(1.0), tokens, {}, "summed over 16 channels times 1"),
        (Tied(), x, {}, "used twice"),
        (
            nn.Sequential(nn.Conv2d(1, 8, 3), nn.LayerNorm((8, 4, 4)), nn.Flatten(), nn.Linear(128, 1)),
            images,
            {},
            "factor for every position",
        ),
        (mlp_, torch.randn(3, 5), {}, r"x1: got samples of shape \(5,\), which the model does not take"),
        (mlp_, x, {"w_std": -1.0}, "w_std: got -1.0; wanted a finite number, 0 or more"),
        (nn.Linear(6, 1).requires_grad_(False), x, {}, "all are frozen"),
        (nn.Linear(6, 2), tokens, {}, r"one for each of the positions \(4,\)"),
        (nn.Sequential(nn.LSTM(6, 8, batch_first=True)), tokens, {}, "its gates multiply functions of the same weights"),
        (mlp_, x, {"x2": torch.randn(2, 5)}, r"x2: got samples of shapes \[\(5,\)\]; wanted \[\(6,\)\]"),
        (mlp_, x, {"parameterization": "mup"}, "parameterization: got 'mup'"),
        (
            mlp_,
            x,
            {"deviations": {"weight": 1.0}},
            "deviations: got 'weight'; wanted names of the model's parameters, such as '0.weight'",
        ),
        (nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 1)), x, {}, r"wanted model.eval\(\)"),
    ):
        with pytest.raises(ValueError, match=words):
            limit(model, given, **more)
    with pytest.raises(TypeError, match="wanted a forward without decisions"):
        limit(Calls(lambda m, h: h if h.sum() > 0 else -h), x)
    with pytest.raises(TypeError, match="wanted a torch.nn.Module"):
        limit(lambda x: x, x)


def test_scores_of_independent_queries_settle_at_nothing():
    """Divided by the width, they vanish: attention is a mean over all tokens."""
    x = torch.randn(3, 4, 6, dtype=torch.float64)
    plain = nn.Sequential(nn.Linear(6, 8), Mean(), nn.Linear(8, 1))
    found, wanted = limit(Scores(1 / 16), x, w_std=1.2, b_std=0.3), limit(plain, x, w_std=1.2, b_std=0.3)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", FINITE)
def test_a_standardised_network_is_the_same_in_other_weights(kind):
    """Its kernel is autograd's with each gradient times the weight's root mean square, and its answers are the network's."""
    given, model = samples(kind), kind(24).double().eval()
    std = redraw(model)
    measured = {n: None if std[n] is None else float(p.detach().square().mean().sqrt()) for n, p in model.named_parameters()}
    wanted, same = scaled_gram(model, given, measured), standardised(model)
    torch.testing.assert_close(same(*given), model(*given))
    assert all(p.requires_grad for p in model.parameters())
    kernel = empirical(same)(given if len(given) > 1 else given[0])
    assert relative(kernel, wanted) < 1e-12


def test_an_empty_word_is_not_counted():
    """Neither measured scale has the row of zeros in it."""
    model = nn.Sequential(nn.Embedding(3, 8, padding_idx=0), Mean(), nn.Linear(8, 1)).double()
    words = torch.tensor([[1, 0], [1, 2], [0, 0]])
    table = model[0].weight.detach()[1:]
    assert standardised(model).scales[0] == pytest.approx(float(table.square().mean().sqrt()))
    shared = torch.tensor([[1.0, 1, 0], [1, 2, 0], [0, 0, 0]], dtype=torch.float64) / 4
    variance = float(table.square().mean())
    assert relative(limit(model, words, w_std=1.0, b_std=0.0).nngp, variance * shared) < 1e-12
