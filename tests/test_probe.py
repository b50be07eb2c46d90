"""What the probe of a model sees: samples that say nothing, rules that are wrong, weights that change afterwards."""

from functools import partial

import numpy as np
import pytest
import torch
from any_models import Of, free
from conftest import jacobian, relative
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune
from torch.utils.data import DataLoader, Dataset, TensorDataset

import ntk_course as ntk
from ntk_course.tangents import rules


def entk_of(model, x, other=None):
    one = jacobian(model, x)
    two = one if other is None else jacobian(model, other)
    return torch.einsum("nrd,msd->nmrs", one, two)


def recurrent(kind, first):
    """A recurrent layer and a head, the samples first or second."""
    pick = (lambda h: h[:, -1]) if first else (lambda h: h[-1])
    return Of(
        lambda s, x: s.o(pick(s.r(x if first else x.transpose(0, 1))[0])), r=kind(4, 5, batch_first=first), o=nn.Linear(5, 3)
    )


def attention(first):
    def forward(s, x):
        x = x if first else x.transpose(0, 1)
        return s.o(s.r(x, x, x)[0].mean(1 if first else 0))

    return Of(forward, r=nn.MultiheadAttention(4, 2, batch_first=first), o=nn.Linear(4, 3))


def rows_first():
    def forward(s, x):
        n, t, _ = x.shape
        return s.b(torch.tanh(s.a(x.transpose(0, 1).reshape(t * n, -1)).view(t, n, -1)).sum(0))

    return Of(forward, a=nn.Linear(4, 6, bias=False), b=nn.Linear(6, 3))


SEQUENCES = {
    "LSTM": lambda: recurrent(nn.LSTM, True),
    "LSTM, sequence first": lambda: recurrent(nn.LSTM, False),
    "GRU": lambda: recurrent(nn.GRU, True),
    "RNN, sequence first": lambda: recurrent(nn.RNN, False),
    "attention": lambda: attention(True),
    "attention, sequence first": lambda: attention(False),
    "rows of all samples": rows_first,
    "transformer": lambda: Of(
        lambda s, x: s.o(s.e(x).mean(1)), e=nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True), o=nn.Linear(4, 3)
    ).eval(),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_samples_without_a_gradient_settle_nothing(name):
    """Blank samples at both ends agree with any way to lay out the others."""
    model, x = SEQUENCES[name]().double(), torch.randn(6, 3, 4).double()
    x[0] = x[-1] = 0
    assert relative(ntk.entk(model, x), entk_of(model, x)) < 1e-12


@pytest.mark.parametrize("name", SEQUENCES)
def test_what_blank_samples_said_is_not_believed_of_others(name):
    """What is known of a model is used for other samples of the same form."""
    model, x = SEQUENCES[name]().double(), torch.randn(5, 3, 4).double()
    ntk.Gram(model, torch.zeros(3, 3, 4).double(), ntk.basis).dense()
    assert relative(ntk.entk(model, x), entk_of(model, x)) < 1e-12
    wide = torch.zeros(60, 3, 4).double()
    wide[[2, 17, 18]] = torch.randn(3, 3, 4).double()
    fresh = SEQUENCES[name]().double()
    assert relative(ntk.entk(fresh, wide)[1:20, 1:20], entk_of(fresh, wide[1:20])) < 1e-12


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_head_of_zeros_that_is_trained_afterwards(name):
    """Weights are read when something is asked: what lay below a zero was never tried."""
    model, x = SEQUENCES[name]().double(), torch.randn(5, 3, 4).double()
    head = model.b if hasattr(model, "b") else model.o
    with torch.no_grad():
        head.weight.zero_()
        gram = ntk.Gram(model, x, ntk.basis)
        gram.dense()
        head.weight.normal_()
    assert relative(gram.dense(), entk_of(model, x)) < 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "attention", "transformer"])
def test_a_small_gradient_in_low_precision(name, dtype):
    """Beside a large gradient a small one may drown in rounding, and with it the order of samples and positions."""
    model, x = SEQUENCES[name]().to(dtype), (0.1 * torch.randn(6, 3, 4)).to(dtype)
    gram, exact = ntk.Gram(model, x, ntk.ones), SEQUENCES[name]().double()
    exact.load_state_dict(model.state_dict())
    for weight in [n for n, p in model.named_parameters() if p.dim() == 2]:
        wanted = ntk.Gram(exact, x.double(), ntk.ones, parameters=weight, block_size=1).dense()
        assert relative(gram.only(weight).dense().double(), wanted) < 0.15, weight


class Softplus(nn.Module):
    def forward(self, b):
        return F.softplus(b)


def softplus_bias():
    layer = nn.Linear(60, 50)
    parametrize.register_parametrization(layer, "bias", Softplus())
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(50, 3))


def pruned():
    layer = nn.Linear(60, 50)
    prune.random_unstructured(layer, "bias", amount=0.5)
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(50, 3))


BIASES = {
    "softplus": (softplus_bias, (60,)),
    "pruned": (pruned, (60,)),
    "scaled": (
        lambda: Of(lambda s, x: s.o(F.linear(x, s.w, 2 * s.b).tanh()), w=free(50, 60), b=free(50), o=nn.Linear(50, 3)),
        (60,),
    ),
    "mixed": (
        lambda: Of(
            lambda s, x: s.o(F.linear(x, s.w, s.m @ s.b).tanh()), w=free(50, 60), b=free(50), m=free(50, 50), o=nn.Linear(50, 3)
        ),
        (60,),
    ),
    "addmm": (
        lambda: Of(
            lambda s, x: s.o(torch.addmm(s.b, x, s.w.t(), beta=3, alpha=2).tanh()), w=free(50, 60), b=free(50), o=nn.Linear(50, 3)
        ),
        (60,),
    ),
    "of a convolution": (
        lambda: Of(
            lambda s, x: s.o(F.conv2d(x, s.w, 2 * s.b).tanh().mean((2, 3))), w=free(8, 3, 3, 3), b=free(8), o=nn.Linear(8, 3)
        ),
        (3, 3, 3),
    ),
    "of tokens": (
        lambda: Of(lambda s, x: s.o(F.linear(x, s.w, s.b.exp()).tanh().mean(1)), w=free(50, 60), b=free(50), o=nn.Linear(50, 3)),
        (2, 60),
    ),
}


@pytest.mark.parametrize("name", BIASES)
def test_a_bias_that_is_made_of_parameters(name):
    """In factors a bias is one more input of its weight, where it is the parameter itself and counts once."""
    build, shape = BIASES[name]
    model, x = build().double(), torch.randn(7, *shape).double()
    for layout in (None, 2):
        assert relative(ntk.Gram(model, x, ntk.basis, block_size=layout).dense(), entk_of(model, x)) < 1e-12
        wanted = entk_of(model, x).sum((2, 3)) / 3
        assert relative(ntk.Gram(model, x, ntk.ones, block_size=layout).dense(), wanted) < 1e-12


def after(change):
    """Make a rule of another one: what it returns is changed."""

    def wrap(old):
        def rule(use, seen):
            found = old(use, seen)
            return None if found is None else lambda b: change(found, b)

        return rule

    return wrap


def raises(error):
    def wrap(old):
        def rule(use, seen):
            raise error

        return rule

    return wrap


WRONG = {
    "twice": after(lambda f, b: f(2 * b)),
    "summed over the cotangents": after(lambda f, b: f(b.sum(1, keepdim=True).expand_as(b).contiguous())),
    "the first cotangent alone": after(lambda f, b: f(b[:, :1].expand_as(b).contiguous())),
    "the cotangents the other way round": after(lambda f, b: f(b.flip(1))),
    "one cotangent too few": after(lambda f, b: f(b[:, :1])),
    "the samples the other way round": after(lambda f, b: (sh := f(b))._replace(a=sh.a.flip(0))),
    "of two samples the first": after(lambda f, b: (sh := f(b))._replace(a=sh.a.roll(1, 0))),
    "right for three samples": after(lambda f, b: f(b * (1 if len(b) == 3 else 2))),
    "right for several samples": after(lambda f, b: f(b * (2 if len(b) == 1 else 1))),
    "right where it is not in factors": after(
        lambda f, b: (sh := f(b))._replace(b=sh.b * 2, directly=lambda: sh._replace(directly=None).formed())
    ),
    "no share": after(lambda f, b: None),
    "a list": after(lambda f, b: [b]),
    "another shape": after(lambda f, b: f(b).formed()[:, 0]),
    "KeyError": raises(KeyError("mine")),
    "TypeError": raises(TypeError("mine")),
    "late": after(lambda f, b: {}["mine"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rule_is_not_used(name, monkeypatch):
    monkeypatch.setitem(rules.RULES, "AddmmBackward0", WRONG[name](rules.RULES["AddmmBackward0"]))
    build, x = lambda: nn.Sequential(nn.Linear(60, 50), nn.Tanh(), nn.Linear(50, 3)).double(), torch.randn(7, 60).double()
    for c, wanted in ((ntk.basis, lambda k: k), (ntk.ones, lambda k: k.sum((2, 3)) / 3)):
        for size in (None, 1, 2):
            model = build()
            assert relative(ntk.Gram(model, x, c, block_size=size).dense(), wanted(entk_of(model, x))) < 1e-12
    assert "rule" not in {route for weight, route in ntk.Gram(model, x, ntk.ones).routes.items() if "weight" in weight}


def test_why_a_rule_is_not_used_is_told(monkeypatch, caplog):
    monkeypatch.setitem(rules.RULES, "AddmmBackward0", WRONG["twice"](rules.RULES["AddmmBackward0"]))
    with caplog.at_level("DEBUG", "ntk_course"):
        ntk.pntk(nn.Linear(6, 3), torch.randn(5, 6))
    assert "weight: no rule, or another gradient than plain autograd's" in caplog.text.replace("bias, ", "")


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_two_vmaps_that_are_wrong_together(p):
    """The distance's gradient is right in one vmap, and wrong in two."""
    model = Of(lambda s, x: s.o(torch.exp(-(torch.cdist(x, s.c, p=p) ** 2) / 9)), c=free(7, 4), o=nn.Linear(7, 3)).double()
    x = torch.randn(6, 4).double()
    assert relative(ntk.entk(model, x), entk_of(model, x)) < 1e-10
    assert (
        relative(ntk.Gram(model, x, ntk.tangents.summed(ntk.basis)).dense(), entk_of(model, x).diagonal(dim1=2, dim2=3).sum(2))
        < 1e-10
    )


class Experts(nn.Module):
    """Each sample goes to one of four, by its first number."""

    def __init__(self):
        super().__init__()
        self.e = nn.ModuleList(nn.Linear(4, 3) for _ in range(4))

    def forward(self, x):
        which, out = x[:, 0].long(), x.new_zeros(len(x), 3)
        for k in which.unique().tolist():
            out[which == k] = self.e[k](x[which == k])
        return out


def test_experts_that_few_samples_ask():
    model, x = Experts().double(), torch.randn(50, 4).double()
    x[:, 0] = 0
    x[[3, 11, 29], 0] = torch.tensor([1.0, 2.0, 3.0]).double()
    wanted, v = entk_of(model, x).sum((2, 3)) / 3, torch.randn(50).double()
    gram = ntk.Gram(model, x, ntk.ones)
    assert relative(gram.dense(), wanted) < 1e-12
    assert relative(gram @ v, wanted @ v) < 1e-12
    assert relative(gram.quadratic(v), v @ wanted @ v) < 1e-12


PUT_BACK = {
    "a product and a sum": lambda h, p: (p.T[:, :, None] * h[None]).sum(1),
    "where": lambda h, p: torch.where(p.T[:, :, None] > 0, h[None], 0).sum(1),
    "from the right": lambda h, p: (h.T @ p).T,
    "linear": lambda h, p: F.linear(h.T, p.T).T,
    "column by column": lambda h, p: torch.stack([p.T @ h[:, k] for k in range(h.shape[1])], 1),
    "a bag": lambda h, p: F.embedding_bag(p.argmax(0)[:, None], h, mode="sum"),
}


@pytest.mark.parametrize("name", PUT_BACK)
def test_samples_that_change_places_on_the_way(name):
    """Sorted into two buckets and put back, by operations that usually leave every sample where it is."""

    def forward(s, x):
        order = torch.argsort((x[:, 0] > 0).long(), stable=True)
        return PUT_BACK[name](s.b(torch.tanh(s.a(x[order]))), F.one_hot(order, len(x)).to(x.dtype))

    model, x = Of(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 3)).double(), torch.randn(6, 4).double()
    x[:, 0] = torch.tensor([-1.0, 2.0, -0.5, 1.0, 0.3, -2.0])
    assert relative(ntk.entk(model, x), entk_of(model, x)) < 1e-12


def test_a_batch_that_is_coupled_only_when_it_is_large():
    model = Of(lambda s, x: s.a(x) - (s.a(x).mean(0) if len(x) > 4 else 0), a=nn.Linear(4, 3))
    with pytest.raises(ValueError, match="depend on the others"):
        ntk.pntk(model, torch.randn(7, 4))


def test_chance_and_traces_of_a_sample_in_between():
    """What only one of the samples in the middle sets off is found, and undone."""

    def noisy(s, x):
        return s.a(x) + torch.randn(len(x), 3) * (x > 3).any(1, keepdim=True)

    def tracing(s, x):
        if (x > 3).any():
            x.clamp_(max=3)
            s.seen += 1
            s.late = torch.ones(2)
        return s.a(x)

    x = torch.randn(6, 4)
    x[2, 1] = 5.0
    with pytest.raises(ValueError, match="second call"):
        ntk.pntk(Of(noisy, a=nn.Linear(4, 3)), x)
    model, before, state = Of(tracing, a=nn.Linear(4, 3)), x.clone(), torch.get_rng_state()
    model.register_buffer("seen", torch.zeros(()))
    model.register_buffer("late", None)
    ntk.pntk(model, x)
    assert torch.equal(x, before) and model.seen == 0 and model.late is None and torch.equal(state, torch.get_rng_state())


def test_data_sets_with_chance_in_them():
    class Flipped(Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, i):
            return torch.randn(4)

    with pytest.raises(ValueError, match="x1: got other samples from a second reading"):
        ntk.pntk(nn.Linear(4, 3), Flipped())


def test_loaders_that_go_another_way():
    data = TensorDataset(torch.randn(6, 4), torch.arange(6))
    for loader in (DataLoader(data, batch_sampler=[[5, 4], [3, 2], [1, 0]]), DataLoader(data, 4, drop_last=True)):
        with pytest.raises(ValueError, match="x1: got a DataLoader"):
            ntk.pntk(nn.Linear(4, 3), loader)
    assert ntk.pntk(nn.Linear(4, 3), DataLoader(data, 3, drop_last=True)).shape == (6, 6)


def straight_through(s, x):
    w = s.a.weight
    with torch.no_grad():
        d = w.sign() * w.abs().mean() - w
    return s.b(torch.tanh(F.linear(x, w + d, s.a.bias)))


def reversed_on_the_way(s, x):
    h = torch.tanh(s.a(x))
    if h.requires_grad:
        h.register_hook(lambda g: -0.5 * g)
    return s.b(h)


def detached_norm(s, x):
    with torch.no_grad():
        n = s.a.weight.norm()
    return s.b(torch.tanh(F.linear(x, s.a.weight / n, s.a.bias)))


def listed(s, x):
    return s.b(torch.tanh(F.linear(x, s.own[0], s.a.bias)))


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.round()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g

    @staticmethod
    def jvp(ctx, t):
        return torch.zeros_like(t)


@pytest.mark.parametrize(
    "forward", [straight_through, reversed_on_the_way, detached_norm, listed, lambda s, x: s.b(Rounded.apply(s.a(x)))]
)
def test_a_product_with_a_vector_where_the_gradient_is_not_the_derivative(forward):
    """Forward mode goes through no_grad, past hooks, and past parameters that are used by another name."""
    model, x = Of(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 3)).double(), torch.randn(6, 4).double()
    model.own = [model.a.weight]
    gram, v = ntk.Gram(model, x, ntk.ones), torch.randn(6, 2).double()
    wanted = entk_of(model, x).sum((2, 3)) / 3
    assert relative(gram.dense(), wanted) < 1e-12
    assert relative(gram @ v, wanted @ v) < 1e-12
    assert relative(gram.quadratic(v), (v * (wanted @ v)).sum(0)) < 1e-12
    step = ntk.analysis.one_step.sgd_step(model, x, torch.arange(6) % 3, lr=0.1)
    with pytest.raises(ValueError, match="whose derivative is not its gradient"):
        ntk.analysis.one_step.first_order_change(model, x, step)


def test_an_embedding_that_counts_words_over_the_batch():
    model = Of(lambda s, t: s.o(torch.tanh(s.e(t)).sum(1)), e=nn.Embedding(9, 4, scale_grad_by_freq=True), o=nn.Linear(4, 3))
    model, t, v = model.double(), torch.randint(0, 9, (6, 4)), torch.randn(6).double()
    gram = ntk.Gram(model, t, ntk.ones)
    assert relative(gram.quadratic(v), v @ gram.dense() @ v) < 1e-12
    stacked, w = ntk.Gram(model, t, ntk.basis), torch.randn(6, 3, 2).double()
    assert relative(stacked.quadratic(w), torch.einsum("nri,nmrs,msi->i", w, stacked.dense(), w)) < 1e-12


def by_number(model, x):
    model.alpha = 2.0


def by_dict(model, x):
    model.settings["t"] = 2.0


def by_tensor(model, x):
    model.bare.mul_(2)


def by_lambda(model, x):
    model.act = lambda h: h.sin()


def by_closure(model, x):
    model.act = scaled_by(2.0)


def by_partial(model, x):
    model.act = partial(torch.nn.functional.softplus, beta=2)


def by_data(model, x):
    x.data[2:].mul_(2)


def scaled_by(factor):
    return lambda h: factor * h.tanh()


@pytest.mark.parametrize("change", [by_number, by_dict, by_tensor, by_lambda, by_closure, by_partial, by_data])
def test_kept_features_and_stores_know_when_they_are_old(change, tmp_path):
    """Of settings that are no weights, and of samples that were written to behind torch's back."""

    def build():
        model = Of(lambda s, x: s.b(s.act(s.a(x) * s.alpha * s.settings["t"] * s.bare)), a=nn.Linear(4, 6), b=nn.Linear(6, 3))
        model.act = scaled_by(1.0)
        model.alpha, model.settings, model.bare = 1.0, {"t": 1.0}, torch.ones(6).double()
        return model.double()

    model, x = build(), torch.randn(6, 4).double()
    gram = ntk.Gram(model, x, ntk.ones)
    gram.keep()
    gram.save(tmp_path / "gram", progress=False)
    old = gram[0]
    change(model, x)
    wanted = entk_of(model, x).sum((2, 3)) / 3
    assert relative(old, wanted[0]) > 1e-3
    assert relative(gram.dense(), wanted) < 1e-12 and relative(gram[0], wanted[0]) < 1e-12
    with pytest.raises(ValueError, match=r"another (model|data)"):
        ntk.Gram(model, x, ntk.ones).save(tmp_path / "gram", progress=False)


def test_samples_that_are_shared_with_numpy_and_written_to():
    model, x = nn.Linear(4, 3).double(), np.random.default_rng(0).normal(size=(6, 4))
    gram = ntk.Gram(model, x, ntk.ones)
    gram[0]
    x[2:] *= 2
    assert relative(gram.dense(), ntk.pntk(model, torch.from_numpy(x))) < 1e-12


def test_a_forward_that_counts_is_the_same_model():
    """What a forward changes by itself is no setting: nothing is tried again, and a store goes on."""
    sizes = []

    def forward(s, x):
        s.calls += 1
        sizes.append(len(x))
        return s.a(x)

    model, x = Of(forward, a=nn.Linear(4, 3)), torch.randn(6, 4)
    model.calls = 0
    ntk.pntk(model, x)
    sizes.clear()
    ntk.pntk(model, x)
    assert sizes == [6]


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_a_sparse_buffer(layout):
    edges = (torch.rand(5, 5) < 0.5).double() + torch.eye(5).double()
    model = Of(
        lambda s, x: s.o(torch.stack([s.edges @ h for h in torch.tanh(s.a(x))]).mean(1)), a=nn.Linear(4, 6), o=nn.Linear(6, 3)
    )
    model.register_buffer("edges", edges.to_sparse() if layout == "coo" else edges.to_sparse_csr())
    model, x = model.double(), torch.randn(4, 5, 4).double()
    gram = ntk.Gram(model, x, ntk.basis)
    assert relative(gram.dense(), entk_of(model, x)) < 1e-12
    gram.keep()
    assert relative(gram[0], entk_of(model, x)[0]) < 1e-12


def test_a_choice_of_parameters_leaves_no_graph_behind():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    gram = ntk.Gram(model, torch.randn(6, 4).double(), ntk.ones, parameters="2")
    assert not (gram @ torch.ones(6).double()).requires_grad
    assert (gram.scipy() @ np.ones(6)).shape == (6,)


@pytest.mark.parametrize(
    "c",
    [
        lambda z: F.one_hot(z.argmax(1).mode().values, 3).expand(len(z), 3).double(),
        lambda z: F.normalize(z.sum(0), dim=0).expand(len(z), 3),
        lambda z: F.one_hot(z.argmax(1).flip(0), 3).double(),
        lambda z: F.one_hot(z[z[:, 0].argsort()].argmax(1), 3).double(),
        lambda z: z - z.mean(0),
    ],
)
def test_a_cotangent_that_looks_at_the_other_samples(c):
    """By their order, their largest class or their direction alone."""
    with pytest.raises(ValueError, match="c1: got a function whose cotangent of one sample depends on the samples beside it"):
        ntk.Gram(nn.Linear(4, 3).double(), torch.randn(5, 4).double(), c)


def test_samples_in_single_precision_for_a_model_in_half():
    """A model that computes with them before it rounds gets them as they are."""

    def forward(s, t):
        e = t.float() * torch.exp(-torch.arange(4.0))
        return s.b(torch.tanh(s.a(torch.cat([e.sin(), e.cos()], -1).to(s.a.weight.dtype))))

    model, t = Of(forward, a=nn.Linear(8, 6), b=nn.Linear(6, 3)).bfloat16(), torch.tensor([[1.0], [377.0], [723.0], [999.0]])
    exact = Of(lambda s, t: forward(s, t), a=nn.Linear(8, 6), b=nn.Linear(6, 3))
    exact.load_state_dict(model.state_dict())
    assert relative(ntk.pntk(model, t).float(), ntk.pntk(exact, t)) < 0.02
    assert ntk.pntk(nn.Linear(4, 3).bfloat16(), torch.randn(5, 4)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "array",
    [lambda a: a[::-1], lambda a: a.astype(">f8"), lambda a: np.asfortranarray(a), lambda a: np.broadcast_to(a[:1], a.shape)],
)
def test_arrays_of_any_order(array):
    model, x = nn.Linear(4, 3).double(), array(np.random.default_rng(0).normal(size=(5, 4)))
    assert relative(ntk.pntk(model, x), ntk.pntk(model, torch.tensor(x.astype(float).copy()))) < 1e-15


class Ragged(Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, i):
        return torch.ones(3 + i % 2)


def test_more_bad_input_is_named():
    model, x = nn.Linear(4, 3), torch.randn(5, 4)
    for call, error, words in (
        (lambda: ntk.pntk(model, np.array([["a"]])), TypeError, "x1: got an array of <U1"),
        (lambda: ntk.pntk(nn.LazyLinear(3), x), ValueError, "model: got parameter weight without a shape"),
        (lambda: ntk.pntk(model, x, output=lambda z: z.logits), ValueError, "output: got a function that fails"),
        (lambda: ntk.Gram(model, x, lambda z: z @ torch.zeros(7, 2)), ValueError, "c1: got RuntimeError"),
        (lambda: ntk.Gram(model, x, ntk.ones).save(3), TypeError, "path: got 3; wanted a path"),
        (lambda: ntk.open_gram(None), TypeError, "path: got None; wanted a path"),
        (lambda: ntk.signs(torch.tensor([1]), "3"), ValueError, "num_classes: got '3'"),
        (lambda: ntk.pntk(nn.Linear(3, 3), Ragged()), ValueError, "x1: got items that make no batch"),
    ):
        with pytest.raises(error, match=words):
            call()


class Permuted(nn.Module):
    """Samples are dealt out in an order that depends on them, and dealt back, by products and sums."""

    def __init__(self, deal):
        super().__init__()
        self.deal = deal
        self.l, self.m, self.o = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = torch.tanh(self.l(x))
        p = F.one_hot(x[:, 0].argsort(stable=True), len(x)).to(h)
        d = torch.tanh(self.m(self.deal(p, h)))
        return self.o((p[:, :, None] * d[:, None]).sum(0))


@pytest.mark.parametrize(
    "deal", [lambda p, h: (p[:, :, None] * h[None]).sum(1), lambda p, h: F.conv1d(h[None], p[:, :, None])[0]]
)
def test_samples_in_between_that_change_places(deal):
    """Few of them, none of which is tried first; and samples of the other side alone."""
    model, x = Permuted(deal).double(), torch.randn(50, 4).double()
    x[:, 0] = 0
    x[[5, 9, 20], 0] = torch.randn(3).double()
    other = torch.randn(6, 4).double()
    assert relative(ntk.entk(model, x), entk_of(model, x)) < 1e-12
    model = Permuted(deal).double()
    assert relative(ntk.entk(model, x[:3], other), entk_of(model, x[:3], other)) < 1e-12


def masked_rows():
    def forward(s, x):
        t = x.transpose(0, 1).contiguous()
        return s.o((torch.tanh(s.l(t)) * (t != 0).any(-1, keepdim=True)).sum(0))

    return Of(forward, l=nn.Linear(4, 5), o=nn.Linear(5, 2)).double()


def test_positions_that_say_nothing():
    """Samples whose gradient comes from one position alone fit two ways to lay them out."""
    x = torch.zeros(3, 2, 4).double()
    x[0, 0], x[1, 1] = torch.randn(2, 4).double()
    model, other = masked_rows(), torch.randn(20, 2, 4).double()
    assert relative(ntk.entk(model, x), entk_of(model, x)) < 1e-12
    assert relative(ntk.entk(model, other), entk_of(model, other)) < 1e-12
    assert relative(ntk.entk(model, x, other), entk_of(model, x, other)) < 1e-12
    wide = torch.randn(50, 3, 4).double()
    tried = sorted({*torch.linspace(0, 49, 15).round().long().tolist(), 25})
    wide[tried] = 0
    wide[0, 0], wide[tried[7], 1] = torch.randn(2, 4).double()
    model = masked_rows()
    assert relative(ntk.entk(model, wide), entk_of(model, wide)) < 1e-12


def test_hooks_on_parameters():
    """Set before, between two kernels, on an object that is there, with features kept; of what few samples touch."""
    x = torch.randn(50, 4).double()
    build = lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()  # noqa: E731
    model = build()
    gram = ntk.Gram(model, x, ntk.basis)
    gram.keep()
    gram.dense()
    model[0].weight.register_hook(lambda g: 3 * g)
    wanted, v = entk_of(model, x), torch.randn(50, 3).double()
    assert relative(gram.dense(), wanted) < 1e-12 and relative(ntk.entk(model, x), wanted) < 1e-12
    assert relative(gram @ v, torch.einsum("nmrs,ms->nr", wanted, v)) < 1e-12
    model, mask = build(), torch.tensor([1.0, 1.0, 0.0, 0.0]).double()
    x[torch.linspace(0, 49, 15).round().long(), 2:] = 0
    x[25, 2:] = 0
    model[0].weight.register_hook(lambda g: g * mask)
    assert relative(ntk.entk(model, x), entk_of(model, x)) < 1e-12


def halved_for_some(s, x):
    h = torch.tanh(s.a(x))
    if h.requires_grad:
        h.register_hook(lambda g: g * (x[:, :1] < 2))
    return s.b(h)


def plain_for_some(s, x):
    with torch.no_grad():
        q = s.a(x)
    return s.b(torch.tanh(torch.where(x[:, :1] < 2, s.a(x), q)))


@pytest.mark.parametrize("forward", [halved_for_some, plain_for_some])
def test_a_product_with_a_vector_where_some_gradients_are_not_the_derivative(forward):
    model, x = Of(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 3)).double(), torch.randn(50, 4).double()
    x[:, 0] = 1
    x[[3, 9, 30], 0] = 3
    v, wanted = torch.randn(50).double(), entk_of(model, x).sum((2, 3)) / 3
    for _ in range(2):
        assert relative(ntk.Gram(model, x, ntk.ones) @ v, wanted @ v) < 1e-12


def test_words_that_few_samples_share():
    model = Of(lambda s, t: s.o(torch.tanh(s.e(t)).sum(1)), e=nn.Embedding(40, 4, scale_grad_by_freq=True), o=nn.Linear(4, 3))
    model, t, v = model.double(), torch.randint(9, 40, (50, 3)), torch.randn(50).double()
    t[0], t[25], t[49] = torch.arange(3), torch.arange(3, 6), torch.arange(6, 9)
    gram = ntk.Gram(model, t, ntk.ones)
    assert relative(gram.quadratic(v), v @ gram.dense() @ v) < 1e-12
    assert relative(gram @ v, gram.dense() @ v) < 1e-12


def test_a_setting_that_changes_after_the_object_is_made():
    model = Of(
        lambda s, x: s.o(torch.tanh(s.l(x.transpose(0, 1) if s.first else x)).mean(0 if s.first else 1)),
        l=nn.Linear(4, 5),
        o=nn.Linear(5, 2),
    ).double()
    model.first, x = False, torch.randn(5, 3, 4).double()
    gram = ntk.Gram(model, x, ntk.basis)
    gram.dense()
    model.first = True
    assert relative(gram.dense(), entk_of(model, x)) < 1e-12
