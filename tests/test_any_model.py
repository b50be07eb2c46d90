"""Any model: exact by whatever route, nothing of it changed, and a clear word where there is no kernel."""

import warnings

import pytest
import torch
from any_models import FLOATS, REFUSED, WORDS
from conftest import relative
from torch import nn

import ntk_course as ntk

N = 5


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def problem(name):
    torch.manual_seed(0)
    build, shape, routes = (FLOATS | WORDS)[name]
    x = torch.randint(0, shape, (N, 7)) if name in WORDS else torch.randn(N, *shape).double()
    return build().double(), x, routes


def by_backward(model, x):
    """Differentiate sample by sample and logit by logit with plain ``backward``: the rows (N, K, d), and a model as it was."""
    state = {name: t.clone() for name, t in model.state_dict().items()}
    weights, rows = [p for p in model.parameters() if p.requires_grad], []
    for i in range(len(x)):
        z = model(x[i : i + 1].clone())
        for k in range(z.shape[1]):
            model.zero_grad()
            z[0, k].backward(retain_graph=True)
            rows.append(torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad.to_dense()).flatten() for p in weights]))
    model.zero_grad()
    model.load_state_dict(state)
    return torch.stack(rows).view(len(x), -1, rows[0].numel())


@pytest.mark.parametrize("name", FLOATS | WORDS)
def test_any_model_by_plain_backward(name):
    """Every block size, both kinds of cotangents, products and rows; model, samples and random state are left alone."""
    model, x, routes = problem(name)
    phi = by_backward(model, x)
    full = torch.einsum("nid,mjd->nmij", phi, phi)
    y = torch.arange(N) % full.shape[2]
    c = ntk.labelled(y)(torch.zeros(N, full.shape[2]).double())
    labelled = torch.einsum("nmij,ni,mj->nm", full, c, c)
    before, samples, chance = {name: t.clone() for name, t in model.state_dict().items()}, x.clone(), torch.get_rng_state()
    gram = ntk.Gram(model, x, ntk.basis)
    assert relative(gram.dense(), full) < 1e-10
    for block_size in (1, 2, 3):
        assert relative(ntk.entk(model, x, block_size=block_size), full) < 1e-10
    gram = ntk.Gram(model, x, ntk.labelled(y), block_size=3)
    assert relative(gram.dense(), labelled) < 1e-10
    assert relative(gram @ torch.arange(N).double(), labelled @ torch.arange(N).double()) < 1e-10
    assert relative(gram[2], labelled[2]) < 1e-10
    assert relative(ntk.Gram(model, x, ntk.labelled(y), x[:2], ntk.labelled(y[:2])).dense(), labelled[:, :2]) < 1e-10
    assert torch.equal(x, samples) and torch.equal(torch.get_rng_state(), chance)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    if routes is not None:
        assert set(gram.routes.values()) - {"rule"} == set(routes)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_without_a_kernel_is_refused_and_left_alone(name):
    build, error, words = REFUSED[name]
    torch.manual_seed(0)
    model, x = build(), torch.randn(N, 6)
    x = x.to(next(model.parameters()).dtype) if name != "complex weights" else x
    before, samples, chance = {name: t.clone() for name, t in model.state_dict().items()}, x.clone(), torch.get_rng_state()
    with pytest.raises(error, match=f"^model.*{words}"):
        ntk.Gram(model, x, ntk.ones)
    assert torch.equal(x, samples) and torch.equal(torch.get_rng_state(), chance)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_one_sample_is_enough():
    model, x, _ = problem("LSTM")
    phi = by_backward(model, x[:1])
    assert relative(ntk.entk(model, x[:1]), torch.einsum("nid,mjd->nmij", phi, phi)) < 1e-10


def test_what_is_known_of_a_model_is_forgotten_when_it_changes():
    """By weights, modes, settings, modules and forwards: a second kernel tries again, an unchanged model does not."""

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.noise, self.calls = nn.Linear(6, 3), 0.0, []

        def forward(self, x):
            self.calls.append(len(x))
            return self.a(x) + (self.noise * torch.randn(len(x), 3) if self.noise else 0)

    model, x = Noisy(), torch.randn(5, 6)
    ntk.pntk(model, x)
    model.calls.clear()
    ntk.pntk(model, x)
    assert model.calls == [5]
    with torch.no_grad():
        model.a.weight.mul_(2)
    model.calls.clear()
    ntk.pntk(model, x)
    assert model.calls == [1, 1, 1, 2, 3, 5, 5]
    model.noise = 1.0
    with pytest.raises(ValueError, match="second call"):
        ntk.pntk(model, x)
    model.noise, model.a = 0.0, nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5))
    with pytest.raises(ValueError, match="is random"):
        ntk.pntk(model, x)
    model.eval()
    model.a[0].forward = lambda h: h.mean(0, keepdim=True)[:, :3] + nn.Linear.forward(model.a[0], h)
    with pytest.raises(ValueError, match="depend on the others"):
        ntk.pntk(model, x)


def pntk_of(model, x, other):
    one, two = (by_backward(model, some).mean(1) * by_backward(model, x[:1]).shape[1] ** 0.5 for some in (x, other))
    return one @ two.T


def test_a_block_that_reaches_what_the_probe_did_not():
    """Parameters that no sample of the first side reaches are left out; a rare one that does is found, wherever it stands."""

    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, x):
            if (x > 50).any():
                return self.a(x) + (x > 50).any(1, keepdim=True) * self.b(x)
            return self.a(x)

    model, x = Branch().double(), torch.randn(40, 6).double()
    other = x[:5].clone()
    other[2] = 100.0
    gram = ntk.Gram(model, other, ntk.ones, x)
    assert relative(gram @ torch.ones(40).double(), pntk_of(model, other, x).sum(1)) < 1e-12
    gram = ntk.Gram(model, x, ntk.ones, other)
    for ask in (gram.dense, lambda: gram @ torch.ones(5).double()):
        with pytest.raises(ValueError, match=r"model: got a block of 5 sample\(s\) that reaches b.bias, b.weight"):
            ask()
    x[3] = 100.0
    assert relative(ntk.pntk(model, x), pntk_of(model, x, x)) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_keeps_its_routes(dtype):
    for name in ("LSTM", "attention", "ConvTranspose2d", "InstanceNorm", "weight norm", "GPT"):
        model, x, _ = problem(name)
        wanted = ntk.pntk(model, x)
        model, x = model.to(dtype), x.to(dtype) if x.is_floating_point() else x
        gram = ntk.Gram(model, x, ntk.ones)
        assert set(gram.routes.values()) == {"rule"}, name
        assert relative(gram.dense().double(), wanted) < 100 * torch.finfo(dtype).eps, name


def test_a_slow_route_is_noted_where_the_caller_is():
    model, x, _ = problem("own function of a parameter")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        ntk.pntk(model, x)
    (note,) = caught
    assert note.filename == __file__
    assert "model: g: differentiated one sample at a time" in str(note.message)


def by_list(h, order):
    back = order.argsort().tolist()
    return torch.stack([h[i] for i in back])


def by_pieces(h, order):
    rows = h.split(1)
    return torch.cat([rows[i] for i in order.argsort().tolist()])


def by_writing(h, order):
    out = torch.empty_like(h)
    out[order] = h
    return out


BACK = {
    "index": lambda h, order: h[order.argsort()],
    "index select": lambda h, order: h.index_select(0, order.argsort()),
    "gather": lambda h, order: h.gather(0, order.argsort()[:, None].expand_as(h)),
    "take": lambda h, order: torch.take_along_dim(h, order.argsort()[:, None], 0),
    "embedding": lambda h, order: nn.functional.embedding(order.argsort(), h),
    "scatter": lambda h, order: torch.zeros_like(h).scatter(0, order[:, None].expand_as(h), h),
    "index add": lambda h, order: torch.zeros_like(h).index_add(0, order, h),
    "index copy": lambda h, order: torch.zeros_like(h).index_copy(0, order, h),
    "a matrix": lambda h, order: nn.functional.one_hot(order.argsort(), len(h)).to(h) @ h,
    "a list": by_list,
    "pieces": by_pieces,
    "writing": by_writing,
}


@pytest.mark.parametrize("back", BACK)
def test_a_model_that_sorts_its_batch_and_puts_it_back(back):
    """The first sample and the last do not show it: by the key they are alike. What a block sends back tells."""

    class Sorting(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.o = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x):
            order = (x > 0).sum(1).argsort(stable=True)
            return BACK[back](self.o(torch.tanh(self.a(x[order]))), order)

    torch.manual_seed(0)
    model, x = Sorting().double(), torch.randn(8, 6).double()
    x[-1] = 1.3 * x[0]
    assert (x > 0).sum(1).unique().numel() > 2
    phi = by_backward(model, x)
    full = torch.einsum("nid,mjd->nmij", phi, phi)
    for block_size in (None, 1, 2, 3):
        assert relative(ntk.entk(model, x, block_size=block_size), full) < 1e-10


class Two(nn.Module):
    def __init__(self, first, last):
        super().__init__()
        self.first, self.last = first, last

    def forward(self, x):
        return self.last(self.first(x))


@pytest.mark.parametrize("how", ["module", "in place", "part"])
def test_a_kernel_compiles_nothing(how):
    """What torch.compile made runs as it was written: not one graph reaches a compiler, and the kernel is the plain one."""
    graphs = []

    def backend(graph, examples):
        graphs.append(graph)
        return graph.forward

    torch.manual_seed(0)
    part = nn.Sequential(nn.Linear(5, 4), nn.Tanh()).double()
    model = Two(part, nn.Linear(4, 3).double())
    x, y = torch.randn(6, 5, dtype=torch.float64), torch.arange(6) % 3
    wanted = ntk.lpntk(model, x, y)
    if how == "module":
        model = torch.compile(model, backend=backend)
    elif how == "in place":
        model.compile(backend=backend)
    else:
        model = Two(torch.compile(part, backend=backend), model.last)
    torch.testing.assert_close(ntk.lpntk(model, x, y), wanted, rtol=1e-12, atol=1e-12)
    assert ntk.Gram(model, x, ntk.basis).dense().shape == (6, 6, 3, 3) and graphs == []
    model(x)
    assert len(graphs) == 1
