"""How models are read into a limit: forms in which researchers write theirs, against finite networks; and forms that are refused."""

import pytest
import torch
from conftest import relative
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from ntk_course import basis
from ntk_course.kernels import empirical
from ntk_course.kernels.infinite import limit
from ntk_course.models import standardised

W, B = 1.3, 0.4
L, C, P = nn.Linear, nn.Conv2d, lambda *shape: nn.Parameter(torch.randn(*shape))


class Made(nn.Module):
    """A forward made of a function and modules, parameters and buffers by name."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


class Labelled(Made):
    """The same of samples and a label of each."""

    def forward(self, x, y):
        return self.function(self, x, y)


class Equalised(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight * 0.5, bias=self.bias * 2)


def drawn(model, scales):
    """Draw weights of the same scale at every width; parameters that no layer has are by name, or of deviation 1."""
    for path, module in model.named_modules():
        if "Norm" in type(module).__name__:
            continue
        for name, p in module.named_parameters(recurse=False):
            own = f"{path}.{name}".lstrip(".")
            if own in scales:
                std = scales[own]
            elif isinstance(module, L | C | nn.Conv1d | nn.RNN):
                std = B if name.startswith("bias") else W / p[0].numel() ** 0.5
            else:
                std = 1.0
            nn.init.normal_(p, std=std)
    return model


def parts(x):
    return x if isinstance(x, tuple) else (x,)


def doubled(x):
    """Copy samples, real numbers in double precision."""
    made = tuple(part.double() if part.is_floating_point() else part.clone() for part in parts(x))
    return made if isinstance(x, tuple) else made[0]


def scores(h, less):
    return torch.softmax(h @ h.transpose(1, 2) / h.shape[-1] - less, -1)


def drawn_over(table):
    nn.init.normal_(table.weight)
    return table


def read_out(m, h):
    return m.out(torch.relu(m.more(h)).mean(1))


def written(m, x):
    x *= 2
    return m.out(torch.relu(m.a(x)))


torch.manual_seed(0)
ROWS, TOKENS, IMAGES, GRIDS = torch.randn(4, 6), torch.randn(4, 5, 6), torch.randn(4, 2, 5, 5), torch.randn(4, 2, 3, 6)
WORDS, CLASSES = torch.tensor([[1, 2, 1, 0, 8], [1, 1, 3, 4, 4], [5, 6, 7, 8, 0], [1, 2, 3, 3, 1]]), torch.tensor([2, 0, 1, 0])
MASK = 1e4 * torch.triu(torch.ones(5, 5), 1)
TWO = lambda n: {"a": L(6, n), "b": L(6, n), "more": L(n, n), "out": L(n, 8)}

# name: samples, model of n channels, scales of parameters by name that are no layer's
RIGHT = {
    "scores less a mask": (
        TOKENS,
        lambda n: Made(lambda m, x: read_out(m, scores(m.a(x), m.mask) @ m.b(x)), mask=MASK, **TWO(n)),
        {},
    ),
    "one less the scores": (
        TOKENS,
        lambda n: Made(lambda m, x: read_out(m, (1 - scores(m.a(x), 0)) @ m.b(x)), **TWO(n)),
        {},
    ),
    "scores with the negative": (
        TOKENS,
        lambda n: Made(lambda m, x: (lambda h: read_out(m, torch.softmax(h @ (0 - h).mT / n, -1) @ m.b(x)))(m.a(x)), **TWO(n)),
        {},
    ),
    "a position's parameter, indexed": (
        TOKENS,
        lambda n: Made(lambda m, x: m.out(torch.relu(m.a(x) + m.p[None])[:, :1].flatten(1)), a=L(6, n), p=P(5, n), out=L(n, 8)),
        {},
    ),
    "a position's parameter, with an axis more, in a mean": (
        TOKENS,
        lambda n: Made(lambda m, x: m.out(torch.relu(m.a(x) + m.p.unsqueeze(0)).mean(1)), a=L(6, n), p=P(5, n), out=L(n, 8)),
        {},
    ),
    "positions of one draw, (1, T, n), in part": (
        TOKENS,
        lambda n: Made(lambda m, x: m.out(torch.relu(m.a(x) + m.p[:, :5]).flatten(1)), a=L(6, n), p=P(1, 7, n), out=L(5 * n, 8)),
        {},
    ),
    "a token of a class": (
        TOKENS,
        lambda n: Made(lambda m, x: read_out(m, torch.cat([m.p.expand(x.shape[0], -1, -1), m.a(x)], 1)), p=P(1, 1, n), **TWO(n)),
        {},
    ),
    "a row for a bias": (
        ROWS,
        lambda n: Made(lambda m, x: m.out(torch.relu(m.a(x) + m.p)), a=L(6, n), p=P(1, n), out=L(n, 8)),
        {},
    ),
    "scales of channels, (1, n, 1, 1)": (
        IMAGES,
        lambda n: Made(
            lambda m, x: m.out((m.a(x) + m.p.view(1, -1, 1, 1) * m.b(torch.relu(m.a2(x)))).mean((2, 3))),
            a=C(2, n, 3),
            a2=C(2, n, 3),
            b=C(n, n, 1),
            p=P(n),
            out=L(n, 8),
        ),
        {},
    ),
    "rows and columns, as many as a group of samples": (
        GRIDS,
        lambda n: Made(
            lambda m, x: m.out(torch.relu(m.a(x) + m.r[:, None] + m.c[None]).mean((1, 2))),
            a=L(6, n),
            r=P(2, n),
            c=P(3, n),
            out=L(n, 8),
        ),
        {},
    ),
    "rows, with an axis more": (
        GRIDS.transpose(1, 2),
        lambda n: Made(lambda m, x: m.out(torch.relu(m.a(x) + m.r.unsqueeze(1)).mean((1, 2))), a=L(6, n), r=P(3, n), out=L(n, 8)),
        {},
    ),
    "a bias times a number": (
        ROWS,
        lambda n: Made(lambda m, x: m.out(torch.relu(F.linear(x, m.w, m.b * 3.0))), w=P(n, 6), b=P(n), out=L(n, 8)),
        {"w": W / 6**0.5, "b": B},
    ),
    "weights times a number, by name": (
        ROWS,
        lambda n: Made(lambda m, x: m.out(torch.relu(F.linear(x, weight=m.w * 0.5, bias=m.b))), w=P(n, 6), b=P(n), out=L(n, 8)),
        {"w": W / 6**0.5, "b": B},
    ),
    "weights turned": (
        ROWS,
        lambda n: Made(lambda m, x: m.out(torch.relu(F.linear(x, m.w.t(), m.b))), w=P(6, n), b=P(n), out=L(n, 8)),
        {"w": W / 6**0.5, "b": B},
    ),
    "a filter's bias times a number": (
        IMAGES,
        lambda n: Made(
            lambda m, x: m.out(torch.relu(F.conv2d(x, m.w, m.b * -3, padding=1)).mean((2, 3))),
            w=P(n, 2, 3, 3),
            b=P(n),
            out=L(n, 8),
        ),
        {"w": W / 18**0.5, "b": B},
    ),
    "an equalised layer": (
        ROWS,
        lambda n: nn.Sequential(Equalised(6, n), nn.ReLU(), L(n, 8)),
        {"0.weight": W / 6**0.5, "0.bias": B},
    ),
    "a norm without weights, twice": (
        ROWS,
        lambda n: Made(
            lambda m, x: (lambda h: m.out(torch.relu(h + m.norm(m.b(torch.relu(h))))))(m.norm(m.a(x))),
            a=L(6, n),
            b=L(n, n),
            norm=nn.LayerNorm(n, elementwise_affine=False),
            out=L(n, 8),
        ),
        {},
    ),
    "many channels in each of two groups": (
        IMAGES,
        lambda n: Made(
            lambda m, x: m.out(torch.relu(m.b(torch.relu(m.a(x)))).mean((2, 3))),
            a=C(2, n, 3),
            b=C(n, n, 3, groups=2),
            out=L(n, 8),
        ),
        {},
    ),
    "a recurrent network's last state": (
        TOKENS,
        lambda n: Made(lambda m, x: m.out(m.r(x)[1].squeeze(0)), r=nn.RNN(6, n, batch_first=True), out=L(n, 8)),
        {},
    ),
    "two recurrent networks of tanh": (
        TOKENS,
        lambda n: Made(
            lambda m, x: m.out(m.r(x)[0][:, -1] + m.q(x.flip(1))[0][:, -1]),
            r=nn.RNN(6, n, batch_first=True),
            q=nn.RNN(6, n, batch_first=True),
            out=L(n, 8),
        ),
        {},
    ),
    "rows of a table by words": (
        WORDS,
        lambda n: Made(lambda m, x: m.out(torch.relu(m.b(m.w[x])).mean(1)), w=P(9, n), b=L(n, n), out=L(n, 8)),
        {},
    ),
    "a row of a class, doubled": (
        (ROWS, CLASSES),
        lambda n: Labelled(lambda m, x, y: m.out(torch.relu(m.a(x) + (2 * m.w)[y])), a=L(6, n), w=P(3, n), out=L(n, 8)),
        {},
    ),
    "a row by the largest number": (
        ROWS,
        lambda n: Made(lambda m, x: m.out(torch.relu(m.a(x) + m.w[x.argmax(1)])), a=L(6, n), w=P(6, n), out=L(n, 8)),
        {},
    ),
    "a table looked up by a function": (
        WORDS,
        lambda n: Made(lambda m, x: m.out(torch.relu(m.b(F.embedding(x, m.w))).mean(1)), w=P(9, n), b=L(n, n), out=L(n, 8)),
        {},
    ),
    "words and places": (
        WORDS,
        lambda n: Made(
            lambda m, x: m.out(torch.relu(m.e(x) + m.p(torch.arange(x.shape[1]))).mean(1)),
            e=nn.Embedding(9, n),
            p=nn.Embedding(5, n),
            out=L(n, 8),
        ),
        {},
    ),
    "a word that is not trained, drawn over": (
        WORDS,
        lambda n: Made(
            lambda m, x: m.out(torch.relu(m.b(m.e(x))).mean(1)),
            e=drawn_over(nn.Embedding(9, n, padding_idx=1)),
            b=L(n, n),
            out=L(n, 8),
        ),
        {},
    ),
    "the last word, by a mask": (
        (TOKENS, CLASSES),
        lambda n: Labelled(
            lambda m, x, y: m.out((torch.relu(m.a(x)) * F.one_hot(y, 5)[..., None].double()).sum(1)), a=L(6, n), out=L(n, 8)
        ),
        {},
    ),
    "samples written over": (ROWS, lambda n: Made(written, a=L(6, n), out=L(n, 8)), {}),
    "in place, and a multiple added": (
        ROWS,
        lambda n: Made(
            lambda m, x: m.out(torch.add(torch.sub(m.a(x), m.b(x).neg().mul_(0.5), alpha=3), m.c(x), alpha=2).relu_()),
            a=L(6, n),
            b=L(6, n),
            c=L(6, n),
            out=L(n, 8),
        ),
        {},
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_read_as_finite_networks_are(name):
    """The mean kernel of thirty networks of 256 channels, in the norm."""
    x, make, scales = RIGHT[name]
    x, before = doubled(x), doubled(x)
    model = make(16).double().eval()
    tables = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Embedding)}
    fields = {key: 1.0 for key, _ in model.named_parameters() if ("." not in key or key in tables) and key not in scales}
    found = limit(model, x, w_std=W, b_std=B, deviations=fields)
    assert all(map(torch.equal, parts(x), parts(before)))
    kernels = []
    for seed in range(30):
        torch.manual_seed(seed)
        net = drawn(make(256).double().eval(), scales)
        kernels.append(empirical(standardised(net), basis)(doubled(x)))
    assert relative(torch.stack(kernels).mean(0), found.ntk) < 0.05


def hooked(n, how):
    net = nn.Sequential(L(6, n), nn.ReLU(), L(n, 4))
    how(net[0])
    return net


def frozen_inside(m, x):
    with torch.no_grad():
        h = torch.relu(m.a(x))
    return m.out(torch.relu(m.more(h)))


def aliased(m, x):
    h = m.a(x)
    g = h
    h *= 2
    return m.out(torch.relu(g))


def beside(m, x, left, right):
    return torch.cat([3 * left(x), right(x)], -1)


RNN = lambda n: nn.RNN(6, n, batch_first=True, nonlinearity="relu")
FOUR = lambda n: {k: L(6, n) for k in "abcd"}
REFUSED = {
    "tokens normed over a batch": (
        TOKENS,
        lambda n: Made(lambda m, x: m.out(torch.relu(m.norm(m.a(x))).mean(1)), a=L(6, n), norm=nn.BatchNorm1d(5), out=L(n, 4)),
        r"layer 'norm' \(BatchNorm1d\); it acts on axis 1 of \('N', 5, 16\), where positions are",
    ),
    "groups of tokens": (
        TOKENS.repeat(1, 4, 1),
        lambda n: Made(lambda m, x: m.out(torch.relu(m.norm(m.a(x))).mean(1)), a=L(6, n), norm=nn.GroupNorm(2, 20), out=L(n, 4)),
        r"layer 'norm' \(GroupNorm\); it acts on axis 1",
    ),
    "products of unlike channels": (
        ROWS,
        lambda n: Made(lambda m, x: m.out(beside(m, x, m.a, m.b) * beside(m, x, m.c, m.d)), out=L(2 * n, 4), **FOUR(n)),
        "channels that are not alike.*on both sides",
    ),
    "groups of few channels": (
        IMAGES,
        lambda n: Made(
            lambda m, x: m.out(torch.tanh(m.g(torch.relu(m.a(x)))).mean((2, 3))),
            a=C(2, n, 5),
            g=C(n, n, 1, groups=n // 2),
            out=L(n, 4),
        ),
        "it has 8 groups, of 2 channels each; wanted at least 8",
    ),
    "groups of unlike channels": (
        IMAGES,
        lambda n: Made(
            lambda m, x: m.out(torch.tanh(m.g(torch.cat([4 * torch.relu(m.a(x)), torch.relu(m.b(x))], 1))).mean((2, 3))),
            a=C(2, n, 3),
            b=C(2, n, 3),
            g=C(2 * n, 2 * n, 1, groups=2),
            out=L(2 * n, 4),
        ),
        "groups of channels that are not alike",
    ),
    "two recurrent networks of ReLUs": (
        TOKENS,
        lambda n: Made(lambda m, x: m.out(m.r(x)[0][:, -1] + m.q(x.flip(1))[0][:, -1]), r=RNN(n), q=RNN(n), out=L(n, 4)),
        "several parts whose mean is not zero, one of which is not known",
    ),
    "scores of recurrent networks of ReLUs": (
        TOKENS,
        lambda n: Made(
            lambda m, x: m.out((torch.softmax(m.r(x)[0] @ m.q(x)[0].mT / n, -1) @ m.a(x)).mean(1)),
            r=RNN(n),
            q=RNN(n),
            a=L(6, n),
            out=L(n, 4),
        ),
        "several parts whose mean is not zero, one of which is not known",
    ),
    "no_grad": (
        ROWS,
        lambda n: Made(frozen_inside, a=L(6, n), more=L(n, n), out=L(n, 4)),
        "not what torch.fx wrote down.*no_grad",
    ),
    "written over by another name": (ROWS, lambda n: Made(aliased, a=L(6, n), out=L(n, 4)), "not what torch.fx wrote down"),
    "a hook": (
        ROWS,
        lambda n: hooked(n, lambda m: m.register_forward_hook(lambda m, i, o: 2 * o)),
        r"layer '0' \(Linear\) with hooks",
    ),
    "a hook before": (ROWS, lambda n: hooked(n, lambda m: m.register_forward_pre_hook(lambda m, i: (2 * i[0],))), "with hooks"),
    "a forward of its own": (
        ROWS,
        lambda n: hooked(n, lambda m: setattr(m, "forward", lambda x: 3 * F.linear(x, m.weight))),
        "with hooks",
    ),
    "a hook backwards": (
        ROWS,
        lambda n: hooked(n, lambda m: m.register_full_backward_hook(lambda m, i, o: tuple(2 * g for g in i if g is not None))),
        "with hooks",
    ),
    "spectral norm": (ROWS, lambda n: hooked(n, nn.utils.spectral_norm), "with hooks.*spectral_norm"),
    "weight norm": (ROWS, lambda n: hooked(n, lambda m: nn.utils.weight_norm(m)), "with hooks"),
    "pruned": (ROWS, lambda n: hooked(n, lambda m: prune.random_unstructured(m, "weight", 0.5)), "with hooks"),
    "wrapped": (
        ROWS,
        lambda n: nn.DataParallel(nn.Sequential(L(6, n), nn.ReLU(), L(n, 4))),
        "got DataParallel; wanted the module in it",
    ),
    "another softplus": (
        ROWS,
        lambda n: nn.Sequential(L(6, n), nn.Softplus(threshold=0.5), L(n, 4)),
        r"layer '1' \(Softplus\); by its settings it is another function than softplus",
    ),
    "another softplus, by a function": (
        ROWS,
        lambda n: Made(lambda m, x: m.out(F.softplus(m.a(x), beta=2)), a=L(6, n), out=L(n, 4)),
        "another function than softplus",
    ),
    "words of bounded length": (
        torch.randint(0, 5, (4, 3), generator=torch.Generator().manual_seed(0)),
        lambda n: Made(
            lambda m, x: m.out(torch.relu(m.b(m.e(x))).mean(1)), e=nn.Embedding(5, n, max_norm=1.0), b=L(n, n), out=L(n, 4)
        ),
        "got max_norm",
    ),
    "dropped scores": (
        TOKENS,
        lambda n: Made(
            lambda m, x: (lambda k: m.out(F.scaled_dot_product_attention(k, k, m.b(x), dropout_p=0.5, scale=1 / n).mean(1)))(
                m.a(x)
            ),
            a=L(6, n),
            b=L(6, n),
            out=L(n, 4),
        ),
        r"got dropout_p=0\.5",
    ),
    "a token of each sample": (
        (TOKENS, CLASSES),
        lambda n: Labelled(lambda m, x, y: m.out(torch.relu(m.a(x))[torch.arange(x.shape[0]), y]), a=L(6, n), out=L(n, 4)),
        "chosen by that sample's numbers; wanted",
    ),
    "tokens in an order of each sample": (
        TOKENS,
        lambda n: Made(
            lambda m, x: m.out(m.a(x)[torch.arange(x.shape[0])[:, None], x[..., 0].argsort(1)][:, 0]), a=L(6, n), out=L(n, 4)
        ),
        "chosen by that sample's numbers; wanted",
    ),
    "an expert of each sample": (
        (ROWS, CLASSES),
        lambda n: Labelled(lambda m, x, y: m.out(torch.relu((x[:, None] @ m.w[y])[:, 0])), w=P(3, 6, n), out=L(n, 4)),
        "rows of a parameter.*wanted a table",
    ),
    "dropped by a function": (
        ROWS,
        lambda n: Made(lambda m, x: m.out(F.dropout(m.a(x), 0.5)), a=L(6, n), out=L(n, 4)),
        "depends on chance",
    ),
    "places of bounded length": (
        TOKENS,
        lambda n: Made(
            lambda m, x: m.out(torch.relu(m.a(x) + m.p(torch.arange(x.shape[1]))).mean(1)),
            a=L(6, n),
            p=nn.Embedding(5, n, max_norm=1.0),
            out=L(n, 4),
        ),
        "the same for all samples",
    ),
    "noise": (
        ROWS,
        lambda n: Made(lambda m, x: m.out(torch.relu(m.a(x + torch.randn_like(x)))), a=L(6, n), out=L(n, 4)),
        "from a second call",
    ),
    "less the others' mean": (
        ROWS,
        lambda n: Made(lambda m, x: m.out(torch.relu(m.a(x - x.mean(0)))), a=L(6, n), out=L(n, 4)),
        "depend on the others",
    ),
    "over the largest": (
        ROWS,
        lambda n: Made(lambda m, x: m.out(torch.relu(m.a(x / x.max()))), a=L(6, n), out=L(n, 4)),
        "depend on the others",
    ),
    "the next sample": (
        ROWS,
        lambda n: Made(lambda m, x: m.out(m.a(x) + m.b(x).flip(0)), a=L(6, n), b=L(6, n), out=L(n, 4)),
        "depend on the others",
    ),
    "samples and tokens on one axis": (
        TOKENS,
        lambda n: Made(lambda m, x: m.out(torch.relu(m.a(x.reshape(-1, 6))).view(x.shape[0], -1)), a=L(6, n), out=L(5 * n, 4)),
        "layer 'a'.*first axis is not that of samples",
    ),
    "samples met by tokens": (
        TOKENS[:2, :2],
        lambda n: Made(lambda m, x: m.out((m.a(x.mean(1)) + m.b(x)).mean(1)), a=L(6, n), b=L(6, n), out=L(n, 4)),
        "depend on the others|samples would meet positions|does not take|wanted what the model takes",
    ),
    "a mean over channels": (
        ROWS,
        lambda n: Made(lambda m, x: m.q(torch.relu(m.a(x) + m.p)).mean(1, keepdim=True), a=L(6, n), p=P(1, n), q=L(n, n)),
        "takes channels together",
    ),
    "a parameter that meets samples": (
        ROWS,
        lambda n: Made(lambda m, x: m.out(torch.relu(m.a(x)[:2] + m.p)), a=L(6, n), p=P(2, n), out=L(n, 4)),
        "wanted",
    ),
    "a bias of plain numbers": (
        ROWS,
        lambda n: Made(lambda m, x: F.linear(torch.relu(m.a(x)), m.w, m.c), a=L(6, n), w=P(4, n), c=torch.ones(4)),
        "its bias is made of plain numbers",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_words(name):
    x, make, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as told:
        limit(make(16).eval(), doubled(x))
    assert str(told.value).startswith(("model: ", "x1: "))


def test_the_number_of_samples_is_no_axis_of_others():
    """Groups that a model is read on have sizes that no other axis has; two to nine samples of positions of any number are the same."""
    torch.manual_seed(0)
    for size in (2, 3, 5, 7):
        x = torch.randn(9, size, 6, dtype=torch.float64)
        model = Made(lambda m, x: m.out(torch.relu(m.a(x) + m.p[None]).mean(1)), a=L(6, 16), p=P(size, 16), out=L(16, 2)).double()
        whole = limit(model, x)
        for n in (1, 2, 3, 5, 7):
            torch.testing.assert_close(limit(model, x[:n]).ntk, whole.ntk[:n, :n], rtol=1e-13, atol=0.0)


def test_an_error_of_an_activation_says_where():
    net = nn.Sequential(L(6, 16), nn.Tanh(), L(16, 2)).double()
    with pytest.raises(ArithmeticError, match="model: at '_1', activation: its variance"):
        limit(net, ROWS.double(), w_std=30.0)


def test_constants_that_a_forward_makes_are_of_its_numbers():
    net, by = (
        Made(lambda m, x: m.out(torch.relu(m.a(x @ torch.full((6, 6), 0.5)))), a=L(6, 16), out=L(16, 2)),
        torch.full((6, 6), 0.5),
    )
    assert torch.allclose(limit(net, ROWS).ntk, limit(nn.Sequential(net.a, nn.ReLU(), net.out), ROWS @ by).ntk)
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_is_the_same_in_any_mode_and_leaves_the_random_state(mode):
    net = nn.Sequential(L(6, 16), nn.ReLU(), L(16, 2)).double()
    wanted, state = limit(net, ROWS.double()), torch.get_rng_state()
    with mode():
        found = limit(net, ROWS.double())
    assert torch.equal(found.ntk, wanted.ntk) and torch.equal(torch.get_rng_state(), state)
