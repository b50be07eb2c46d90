"""Models of many kinds as people bring them, each in a line or two; and models that cannot have a kernel, with the reason."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Linear, Embedding = nn.Linear, nn.Embedding
weight_norm = nn.utils.parametrizations.weight_norm


class Of(nn.Module):
    """A model made of modules and parameters by name, and a function of it and x."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.how = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.how(self, x)


def free(*shape):
    return nn.Parameter(torch.randn(*shape) / 2)


def recurrent(kind, **settings):
    width = 5 * (1 + settings.get("bidirectional", False))
    return lambda: Of(lambda s, x: s.o(s.r(x)[0].mean(1)), r=kind(4, 5, batch_first=True, **settings), o=Linear(width, 3))


def sequence_first(kind):
    return lambda: Of(lambda s, x: s.o(s.r(x.transpose(0, 1))[0].mean(0)), r=kind(4, 5, num_layers=2), o=Linear(5, 3))


def cell(s, x):
    h = c = x.new_zeros(len(x), 5)
    for t in range(x.shape[1]):
        h, c = s.r(x[:, t], (h, c))
    return s.o(h)


def attends(**settings):
    def forward(s, x):
        return s.o(s.a(x, x[..., : s.a.kdim], x[..., : s.a.vdim])[0].mean(1))

    return lambda: Of(forward, a=nn.MultiheadAttention(8, 2, batch_first=True, **settings), o=Linear(8, 3))


def attention_first(s, x):
    x = x.transpose(0, 1)
    return s.o(s.a(x, x, x)[0].mean(0))


def encoder(s, x):
    masked = (x[..., 0] > 1) & (torch.arange(5, device=x.device) > 0)
    return s.o(s.e(x, src_key_padding_mask=masked).mean(1))


def by_hand(s, x):
    return s.o((s.q(x) @ s.k(x).transpose(1, 2)).softmax(2) @ s.v(x)).mean(1)


def scaled_dot_product(s, x):
    q, k, v = (m(x)[:, None] for m in (s.q, s.k, s.v))
    return s.o(F.scaled_dot_product_attention(q, k, v)[:, 0]).mean(1) * s.g


def relative_positions(s, x):
    place = torch.arange(5, device=x.device)
    apart = place[:, None] - place[None] + 4
    return s.o(((s.q(x) @ s.q(x).transpose(1, 2)) + s.t[apart]).softmax(2) @ x).mean(1)


def tokens_and_places(s, x):
    h = torch.cat([s.c.expand(len(x), -1, -1), s.e(x)], 1) + s.p
    return s.o((h * s.g).mean(1))


def experts_by_index(s, x):
    scores = s.g(x)
    best, out = scores.argmax(1), x.new_zeros(len(x), 3)
    for i, expert in enumerate(s.e):
        if (mine := best == i).any():
            out[mine] = expert(x[mine]) * scores[mine, i : i + 1]
    return out


def experts_by_sample(s, x):
    scores = s.g(x)
    return torch.stack([s.e[int(best)](row) for best, row in zip(scores.argmax(1), x, strict=True)]) + scores


def as_often_as_it_says(s, x):
    rows = []
    for row in x:
        for _ in range(1 + int(row[0] > 0)):
            row = s.a(row).tanh()
        rows.append(s.o(row))
    return torch.stack(rows)


def physics(s, x):
    x = x.detach().clone().requires_grad_(True)
    u = s.o(torch.tanh(s.a(x)))
    return torch.cat([u, torch.autograd.grad(u.sum(), x, create_graph=True)[0]], 1)


def physics_by_func(s, x):
    def u(row):
        return s.o(torch.tanh(s.a(row)))[0]

    return torch.cat([torch.vmap(torch.func.grad(u))(x), torch.vmap(u)(x)[:, None]], 1)


def fresh_buffer(s, x):
    out = torch.zeros_like(x)
    out[:, 1:] = x[:, :-1] * s.g
    out[:, 0] = 1.0
    return s.o(out)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.g = Linear(6, 3), free(3)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("average", torch.zeros(3))

    def forward(self, x):
        z = self.a(x) * self.g
        self.count += 1
        self.average = 0.9 * self.average + 0.1 * z.detach().mean(0)
        return z


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        return 3 * ctx.saved_tensors[0] ** 2 * grad


class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, by):
        ctx.save_for_backward(x, by)
        return x * by

    @staticmethod
    def backward(ctx, grad):
        x, by = ctx.saved_tensors
        return grad * by, (grad * x).sum(0)


def fixed_point(s, x):
    h = torch.zeros_like(x)
    for _ in range(4):
        h = torch.tanh(s.u(h) + s.a(x))
    return s.o(h)


def arithmetic(s, x):
    return s.o((x - s.a) / (s.b.square() + 1) * torch.exp(s.c) + (s.a - x) ** 2 + 1 / (s.b + 5 * x.square() + 9))


def rarer_arithmetic(s, x):
    h = (x.abs() + 1) ** s.p + torch.maximum(x, s.p) + torch.where(x > 0, s.p, s.q)
    return s.o(h + torch.lerp(x, x.sin(), s.q) + torch.addcmul(x, x, s.q))


def vectors(s, x):
    return torch.stack([x @ s.a, (x * x) @ s.b, (x @ s.a).sin() * s.c], 1)


def squeeze_excite(s, x):
    h = s.c(x)
    return s.o((h * s.f(h.mean((2, 3))).sigmoid()[:, :, None, None]).flatten(1))


def u_shape(s, x):
    one = s.a(x).relu()
    return s.o(torch.cat([one, s.u(F.max_pool2d(one, 2))], 1)).mean((2, 3))


def frames(way):
    def forward(s, x):  # (N, 3 frames, C, H, W)
        if way == "inner":
            return s.o(s.c(x.flatten(0, 1)).tanh().unflatten(0, (-1, 3)).mean((1, 3, 4)))
        return s.o(s.c(x.transpose(0, 1).flatten(0, 1)).tanh().unflatten(0, (3, -1)).mean((0, 3, 4)))

    return forward


def many_transposed(s, x):
    return s.o(s.b(s.a(x).unflatten(2, (2, 2, -1))).flatten(1))


def complex_inside(s, x):
    return s.o((torch.complex(s.a(x), s.b(x)) * torch.complex(s.g, s.h)).abs())


def filtered(s, x):
    return s.o(torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(s.k)))


class GPT(nn.Module):
    def __init__(self, tied=False):
        super().__init__()
        self.words, self.places = Embedding(11, 8), Embedding(7, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(8), Linear(8, 11, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, x):
        h = self.words(x) + self.places(torch.arange(x.shape[1], device=x.device))
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], h.device, h.dtype)
        return self.head(self.norm(self.block(h, src_mask=mask, is_causal=True)))[:, -1]


def packed(s, x):
    lengths = (x > 3).sum(1).clamp(min=1).cpu()
    packed = nn.utils.rnn.pack_padded_sequence(s.e(x), lengths, batch_first=True, enforce_sorted=False)
    return s.o(s.r(packed)[1][-1])


def sorted_by_length(s, x):
    order = (x > 3).sum(1).argsort(descending=True, stable=True)
    return s.o(torch.tanh(s.e(x[order])).mean(1))[order.argsort()]


def of_words(forward=lambda s, x: s.o(s.e(x).tanh().mean(1)), kind=Embedding, words=11, **settings):
    return lambda: Of(forward, e=kind(words, 6, **settings), o=Linear(6, 3))


def norms(kind, **settings):
    return lambda: nn.Sequential(nn.Conv2d(2, 4, 3), kind(**settings), nn.ReLU(), nn.Flatten(), Linear(36, 3)).eval()


def experts():
    return nn.ModuleList(Linear(6, 3) for _ in range(3))


# By name: how it is built, the shape of a sample, and the routes other than rules that its parameters take.
FLOATS = {
    "LSTM": (recurrent(nn.LSTM), (6, 4), ()),
    "GRU": (recurrent(nn.GRU), (6, 4), ()),
    "RNN": (recurrent(nn.RNN), (6, 4), ()),
    "LSTM, two layers, both ways": (recurrent(nn.LSTM, num_layers=2, bidirectional=True), (6, 4), ()),
    "GRU, without biases": (recurrent(nn.GRU, bias=False), (6, 4), ()),
    "LSTM, three layers": (recurrent(nn.LSTM, num_layers=3), (6, 4), ()),
    "LSTM, projected": (
        lambda: Of(lambda s, x: s.o(s.r(x)[0].mean(1)), r=nn.LSTM(4, 5, proj_size=3, batch_first=True), o=Linear(3, 3)),
        (6, 4),
        (),
    ),
    "LSTM, sequence first": (sequence_first(nn.LSTM), (6, 4), ()),
    "RNN, sequence first": (sequence_first(nn.RNN), (6, 4), ()),
    "LSTM cell": (lambda: Of(cell, r=nn.LSTMCell(4, 5), o=Linear(5, 3)), (6, 4), ()),
    "attention": (attends(), (5, 8), ()),
    "attention, other keys": (attends(kdim=5, vdim=6), (5, 8), ()),
    "attention, biased keys": (attends(add_bias_kv=True, add_zero_attn=True), (5, 8), ()),
    "attention, sequence first": (lambda: Of(attention_first, a=nn.MultiheadAttention(8, 2), o=Linear(8, 3)), (5, 8), ()),
    "attention by hand": (lambda: Of(by_hand, q=Linear(4, 4), k=Linear(4, 4), v=Linear(4, 4), o=Linear(4, 3)), (5, 4), ()),
    "attention by one function": (
        lambda: Of(scaled_dot_product, q=Linear(4, 4), k=Linear(4, 4), v=Linear(4, 4), o=Linear(4, 3), g=free(3)),
        (5, 4),
        (),
    ),
    "relative positions": (lambda: Of(relative_positions, q=Linear(4, 4), t=free(9), o=Linear(4, 3)), (5, 4), ()),
    "encoder with padding": (
        lambda: Of(
            encoder, e=nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2), o=Linear(8, 3)
        ).eval(),
        (5, 8),
        (),
    ),
    "decoder": (
        lambda: Of(
            lambda s, x: s.o(s.e(x, x.flip(1)).mean(1)), e=nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), o=Linear(8, 3)
        ).eval(),
        (5, 8),
        (),
    ),
    "class token, places, layer scale": (
        lambda: Of(tokens_and_places, c=free(1, 1, 8), e=Linear(4, 8), p=free(1, 6, 8), g=free(8), o=Linear(8, 3)),
        (5, 4),
        (),
    ),
    "places cut": (
        lambda: Of(
            lambda s, x: s.o((s.e(x) + s.p[:, : x.shape[1]]).tanh().mean(1)), e=Linear(4, 8), p=free(1, 9, 8), o=Linear(8, 3)
        ),
        (5, 4),
        (),
    ),
    "places looked up": (
        lambda: Of(
            lambda s, x: s.o((s.e(x) + s.p(torch.arange(x.shape[1], device=x.device))).tanh().mean(1)),
            e=Linear(4, 8),
            p=Embedding(9, 8),
            o=Linear(8, 3),
        ),
        (5, 4),
        (),
    ),
    "Conv1d": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 4, 3, padding=1, stride=2),
            nn.GELU(),
            nn.Conv1d(4, 6, 2, groups=2, dilation=2),
            nn.Flatten(),
            Linear(18, 3),
        ),
        (3, 10),
        (),
    ),
    "Conv3d": (
        lambda: nn.Sequential(
            nn.Conv3d(2, 4, (2, 3, 2), padding=(1, 0, 1)),
            nn.Tanh(),
            nn.Conv3d(4, 4, 2, groups=4, bias=False),
            nn.Flatten(),
            Linear(96, 3),
        ),
        (2, 3, 5, 4),
        (),
    ),
    "depthwise": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4, stride=2), nn.SiLU(), nn.Conv2d(8, 4, 1), nn.Flatten(), Linear(16, 3)),
        (4, 5, 5),
        (),
    ),
    "ConvTranspose2d": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1),
            nn.Tanh(),
            nn.ConvTranspose2d(4, 6, 2, groups=2, dilation=2),
            nn.Flatten(),
            Linear(480, 3),
        ),
        (2, 4, 3),
        (),
    ),
    "ConvTranspose1d and 3d": (
        lambda: Of(
            many_transposed,
            a=nn.ConvTranspose1d(2, 4, 4, stride=3, bias=False),
            b=nn.ConvTranspose3d(4, 2, 2, stride=(1, 2, 1)),
            o=Linear(192, 3),
        ),
        (2, 9),
        (),
    ),
    "padding of all kinds": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 2, padding="same"),
            nn.Conv2d(3, 3, 3, padding="same", padding_mode="reflect"),
            nn.Flatten(),
            Linear(75, 3),
        ),
        (1, 5, 5),
        (),
    ),
    "frames in the batch": (lambda: Of(frames("inner"), c=nn.Conv2d(2, 4, 3, padding=1), o=Linear(4, 3)), (3, 2, 5, 5), ()),
    "frames before the batch": (lambda: Of(frames("outer"), c=nn.Conv2d(2, 4, 3, padding=1), o=Linear(4, 3)), (3, 2, 5, 5), ()),
    "frames, transposed": (
        lambda: Of(frames("inner"), c=nn.ConvTranspose2d(2, 4, 3, padding=1), o=Linear(4, 3)),
        (3, 2, 5, 5),
        (),
    ),
    "a kernel used twice": (
        lambda: Of(
            lambda s, x: s.o((F.conv2d(x, s.k) + F.conv2d(x, s.k.flip(2))).flatten(1)), k=free(3, 1, 3, 3), o=Linear(27, 3)
        ),
        (1, 5, 5),
        (),
    ),
    "InstanceNorm": (norms(nn.InstanceNorm2d, num_features=4, affine=True), (2, 5, 5), ()),
    "InstanceNorm, tracked": (norms(nn.InstanceNorm2d, num_features=4, affine=True, track_running_stats=True), (2, 5, 5), ()),
    "GroupNorm": (norms(nn.GroupNorm, num_groups=2, num_channels=4), (2, 5, 5), ()),
    "LayerNorm of pictures": (norms(nn.LayerNorm, normalized_shape=[3, 3]), (2, 5, 5), ()),
    "BatchNorm": (norms(nn.BatchNorm2d, num_features=4), (2, 5, 5), ()),
    "RMSNorm": (lambda: nn.Sequential(Linear(6, 8), nn.RMSNorm(8), nn.SiLU(), Linear(8, 3)), (6,), ()),
    "squeeze and excite": (lambda: Of(squeeze_excite, c=nn.Conv2d(1, 4, 3), f=Linear(4, 4), o=Linear(36, 3)), (1, 5, 5), ()),
    "U-Net": (
        lambda: Of(u_shape, a=nn.Conv2d(1, 4, 3, padding=1), u=nn.ConvTranspose2d(4, 4, 2, stride=2), o=nn.Conv2d(8, 3, 1)),
        (1, 6, 6),
        (),
    ),
    "LoRA": (
        lambda: Of(
            lambda s, x: s.o((s.w(x) + 2 * F.linear(F.linear(x, s.a), s.b)).tanh()),
            w=Linear(6, 8).requires_grad_(False),
            a=free(2, 6),
            b=free(8, 2),
            o=Linear(8, 3),
        ),
        (6,),
        (),
    ),
    "LoRA, merged": (
        lambda: Of(
            lambda s, x: s.o(F.linear(x, s.w + s.b @ s.a / 2).tanh()),
            w=free(8, 6).requires_grad_(False),
            a=free(2, 6),
            b=free(8, 2),
            o=Linear(8, 3),
        ),
        (6,),
        (),
    ),
    "weight norm": (
        lambda: nn.Sequential(weight_norm(nn.Conv1d(2, 4, 3)), nn.Tanh(), nn.Flatten(), weight_norm(Linear(16, 3))),
        (2, 6),
        (),
    ),
    "weight norm, the old one": (lambda: nn.Sequential(nn.utils.weight_norm(Linear(6, 8)), nn.Tanh(), Linear(8, 3)), (6,), ()),
    "spectral norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(Linear(6, 8)), nn.Tanh(), Linear(8, 3)).eval(),
        (6,),
        (),
    ),
    "orthogonal": (lambda: nn.Sequential(nn.utils.parametrizations.orthogonal(Linear(6, 6)), nn.Tanh(), Linear(6, 3)), (6,), ()),
    "einsum": (
        lambda: Of(
            lambda s, x: torch.einsum("nti,io->no", torch.einsum("nti,io->nto", x, s.a).tanh(), s.b), a=free(4, 8), b=free(8, 3)
        ),
        (5, 4),
        (),
    ),
    "einsum, heads": (
        lambda: Of(
            lambda s, x: s.o(torch.einsum("nti,hio->nhto", x, s.a).tanh().flatten(2).mean(2)), a=free(2, 4, 8), o=Linear(2, 3)
        ),
        (5, 4),
        (),
    ),
    "weights by position": (
        lambda: Of(lambda s, x: s.o(torch.einsum("nti,tio->nto", x, s.a).tanh().flatten(1)), a=free(5, 4, 3), o=Linear(15, 3)),
        (5, 4),
        (),
    ),
    "weights on the left": (lambda: Of(lambda s, x: s.o((s.a @ x.T).T.tanh()), a=free(8, 6), o=Linear(8, 3)), (6,), ()),
    "vectors": (lambda: Of(vectors, a=free(6), b=free(6), c=free(1)), (6,), ()),
    "arithmetic": (lambda: Of(arithmetic, a=free(6), b=free(6), c=free(1), o=Linear(6, 3)), (6,), ()),
    "rarer arithmetic": (lambda: Of(rarer_arithmetic, p=free(6), q=free(6), o=Linear(6, 3)), (6,), ("torch.func",)),
    "a scalar": (
        lambda: Of(
            lambda s, x: s.a(x) * s.t.exp() + s.b, a=Linear(6, 3, bias=False), t=nn.Parameter(torch.tensor(0.3)), b=free(3)
        ),
        (6,),
        (),
    ),
    "splines": (
        lambda: Of(lambda s, x: (torch.stack([x.sin(), x.cos(), x**2], -1)[:, None] * s.c).sum((2, 3)), c=free(3, 6, 3)),
        (6,),
        (),
    ),
    "softmax of weights": (lambda: Of(lambda s, x: s.o(x @ s.p.softmax(1).T), p=free(8, 6), o=Linear(8, 3)), (6,), ()),
    "bilinear": (
        lambda: Of(lambda s, x: s.o(s.b(x, x.sin()).tanh()), b=nn.Bilinear(6, 6, 5), o=Linear(5, 3)),
        (6,),
        (),
    ),
    "baddbmm": (
        lambda: Of(
            lambda s, x: s.o(torch.baddbmm(s.b, x.transpose(0, 1), s.a).tanh().mean(0)),
            a=free(5, 4, 3),
            b=free(5, 1, 3),
            o=Linear(3, 3),
        ),
        (5, 4),
        (),
    ),
    "row by data": (
        lambda: Of(lambda s, x: s.o(s.t[(x > 0).long().sum(1)] + s.a(x)), t=free(7, 8), a=Linear(6, 8), o=Linear(8, 3)),
        (6,),
        ("torch.func",),
    ),
    "Fourier filter": (lambda: Of(filtered, k=free(6), o=Linear(6, 3)), (6,), ("torch.func",)),
    "complex inside": (
        lambda: Of(complex_inside, a=Linear(6, 8), b=Linear(6, 8), g=free(8), h=free(8), o=Linear(8, 3)),
        (6,),
        ("torch.func",),
    ),
    "hypernetwork": (
        lambda: Of(
            lambda s, x: s.o(torch.bmm(s.h(x).unflatten(1, (4, 6)), x[:, :, None])[..., 0].tanh()),
            h=Linear(6, 24),
            o=Linear(4, 3),
        ),
        (6,),
        (),
    ),
    "fixed point": (lambda: Of(fixed_point, a=Linear(6, 6), u=Linear(6, 6, bias=False), o=Linear(6, 3)), (6,), ()),
    "graph": (
        lambda: Of(
            lambda s, x: s.o((s.w @ s.b((s.w @ s.a(x)).relu())).mean(1)),
            w=free(5, 5).requires_grad_(False),
            a=Linear(4, 8),
            b=Linear(8, 8),
            o=Linear(8, 3),
        ),
        (5, 4),
        (),
    ),
    "graph, learned": (
        lambda: Of(lambda s, x: s.o((s.w @ s.a(x)).relu().mean(1)), w=free(5, 5), a=Linear(4, 8), o=Linear(8, 3)),
        (5, 4),
        (),
    ),
    "experts, mixed": (
        lambda: Of(
            lambda s, x: (s.g(x).softmax(1)[:, :, None] * torch.stack([e(x) for e in s.e], 1)).sum(1), g=Linear(6, 3), e=experts()
        ),
        (6,),
        (),
    ),
    "experts by index": (lambda: Of(experts_by_index, g=Linear(6, 3), e=experts()), (6,), ("autograd",)),
    "experts by sample": (lambda: Of(experts_by_sample, g=Linear(6, 3), e=experts()), (6,), ("autograd",)),
    "as often as x says": (lambda: Of(as_often_as_it_says, a=Linear(6, 6), o=Linear(6, 3)), (6,), ("autograd",)),
    "checkpoint": (
        lambda: Of(
            lambda s, x: s.o(checkpoint(s.a, x, use_reentrant=False) * s.g),
            a=nn.Sequential(Linear(6, 8), nn.Tanh()),
            g=free(8),
            o=Linear(8, 3),
        ),
        (6,),
        (),
    ),
    "checkpoint, reentrant": (
        lambda: Of(
            lambda s, x: s.o(checkpoint(s.a, s.i(x), use_reentrant=True)),
            i=Linear(6, 6),
            a=nn.Sequential(Linear(6, 8), nn.Tanh()),
            o=Linear(8, 3),
        ),
        (6,),
        ("autograd",),
    ),
    "derivatives inside": (lambda: Of(physics, a=Linear(2, 8), o=Linear(8, 1)), (2,), ()),
    "derivatives inside, by torch.func": (lambda: Of(physics_by_func, a=Linear(2, 8), o=Linear(8, 1)), (2,), ()),
    "fresh buffer": (lambda: Of(fresh_buffer, g=free(5), o=Linear(6, 3)), (6,), ()),
    "counting": (Counting, (6,), ()),
    "writes to x": (lambda: Of(lambda s, x: s.o(s.a(x.sub_(0.1).mul_(1.1)).tanh()), a=Linear(6, 8), o=Linear(8, 3)), (6,), ()),
    "in place at once": (lambda: nn.Sequential(nn.ReLU(inplace=True), Linear(6, 3)), (6,), ()),
    "slopes": (lambda: nn.Sequential(Linear(6, 8), nn.PReLU(8), Linear(8, 3), nn.PReLU()), (6,), ()),
    "random slopes, in eval": (lambda: nn.Sequential(Linear(6, 8), nn.RReLU(), nn.Dropout(0.5), Linear(8, 3)).eval(), (6,), ()),
    "dropout of nothing": (lambda: nn.Sequential(Linear(6, 8), nn.Dropout(0.0), Linear(8, 3)), (6,), ()),
    "own function": (lambda: Of(lambda s, x: s.o(Cube.apply(s.a(x)) * s.g), a=Linear(6, 8), g=free(8), o=Linear(8, 3)), (6,), ()),
    "own function of a parameter": (
        lambda: Of(lambda s, x: s.o(Scale.apply(s.a(x), s.g)), a=Linear(6, 8), g=free(8), o=Linear(8, 3)),
        (6,),
        ("autograd",),
    ),
    "unused": (lambda: Of(lambda s, x: s.a(x), a=Linear(6, 3), b=Linear(6, 100)), (6,), ("none",)),
    "compiled": (lambda: torch.compile(nn.Sequential(Linear(6, 8), nn.Tanh(), Linear(8, 3)), backend="eager"), (6,), ()),
}
# As above, of words: how many there are in the place of a shape.
WORDS = {
    "words": (of_words(), 11, ()),
    "words, padded": (of_words(padding_idx=2), 11, ()),
    "words, scaled by counts": (of_words(scale_grad_by_freq=True), 11, ("torch.func",)),
    "words, sparse": (of_words(sparse=True), 11, ()),
    "words, renormed": (of_words(max_norm=1.0), 11, ()),
    "many words": (of_words(words=2000), 2000, ()),
    "bag of words": (of_words(lambda s, x: s.o(s.e(x).tanh()), nn.EmbeddingBag), 11, ("torch.func",)),
    "words as unit vectors": (
        lambda: Of(lambda s, x: s.o(F.one_hot(x, 11).to(s.o.weight.dtype).mean(1)), o=Linear(11, 3)),
        11,
        (),
    ),
    "GPT": (GPT, 11, ()),
    "GPT, tied": (lambda: GPT(tied=True), 11, ()),
    "packed": (lambda: Of(packed, e=Embedding(11, 6), r=nn.GRU(6, 5, batch_first=True), o=Linear(5, 3)), 11, ("autograd",)),
    "sorted by length": (of_words(sorted_by_length), 11, None),
}


class DropPath(nn.Module):
    def forward(self, x):
        return x * (torch.rand(len(x), 1) > 0.3) / 0.7


class Centre(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Averaging(nn.Module):
    def __init__(self):
        super().__init__()
        self.o = Linear(6, 3)
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.o(x - self.mean)


class Calls(nn.Module):
    def __init__(self):
        super().__init__()
        self.o, self.calls = Linear(6, 3), 0

    def forward(self, x):
        self.calls += 1
        return self.o(x) * self.calls


def renormed(s, x):
    with torch.no_grad():
        s.o.weight.div_(s.o.weight.norm())
    return s.o(x)


def last(forward):
    return lambda: Of(forward, a=Linear(6, 8), o=Linear(8, 3))


def only_one(forward):
    return lambda: Of(forward, o=Linear(6, 3))


# By name: how it is built, the error, and what it says.
REFUSED = {
    "noise": (
        last(lambda s, x: s.o(s.a(x) + torch.randn(len(x), 8))),
        ValueError,
        "other logits from a second call .*what module 'o' is given",
    ),
    "drop path": (
        lambda: nn.Sequential(Linear(6, 8), DropPath(), Linear(8, 3)),
        ValueError,
        "second call .*module '1', DropPath",
    ),
    "dropout by function": (last(lambda s, x: s.o(F.dropout(s.a(x), 0.5))), ValueError, "second call"),
    "counts its calls": (Calls, ValueError, "second call"),
    "centred": (
        lambda: nn.Sequential(Linear(6, 8), Centre(), Linear(8, 3)),
        ValueError,
        "depend on the others in its batch .*module '1', Centre",
    ),
    "normed over the batch": (only_one(lambda s, x: s.o(x / x.norm())), ValueError, "depend on the others"),
    "attention over the batch": (last(lambda s, x: s.o((x @ x.T).softmax(1) @ s.a(x))), ValueError, "depend on the others"),
    "turned round": (only_one(lambda s, x: s.o(x.flip(0))), ValueError, "depend on the others"),
    "averages over batches": (Averaging, ValueError, "depend on the others"),
    "batch norm in training": (lambda: nn.Sequential(Linear(6, 8), nn.BatchNorm1d(8)), ValueError, "normalises by the batch"),
    "without gradient": (
        only_one(torch.no_grad()(lambda s, x: s.o(x))),
        ValueError,
        "depend on none of its 2 trainable parameters",
    ),
    "detached": (only_one(lambda s, x: s.o(x).detach()), ValueError, "depend on none"),
    "whole numbers": (only_one(lambda s, x: s.o(x).argmax(1)[:, None]), TypeError, "returned torch.int64; wanted real logits"),
    "complex logits": (only_one(lambda s, x: torch.complex(s.o(x), s.o(x))), TypeError, "returned torch.complex"),
    "complex weights": (
        lambda: nn.Sequential(Linear(6, 3, dtype=torch.complex64)),
        TypeError,
        "parameter 0.weight in torch.complex64",
    ),
    "no logits": (only_one(lambda s, x: s.o(x)[:, :0]), ValueError, r"returned shape \(1, 0\)"),
    "NaN": (only_one(lambda s, x: s.o(x) / 0 * 0), ValueError, "answer: got 3 non-finite"),
    "writes to its weights": (only_one(renormed), ValueError, "writes to its parameter o.weight"),
    "TorchScript": (
        lambda: torch.jit.script(nn.Sequential(Linear(6, 3))),
        TypeError,
        "got TorchScript; wanted the module before",
    ),
    "TorchScript inside": (
        lambda: nn.Sequential(torch.jit.script(Linear(6, 8)), Linear(8, 3)),
        TypeError,
        "TorchScript in module '0'",
    ),
    "a dict": (only_one(lambda s, x: {"z": s.o(x)}), TypeError, "returned dict"),
    "one number": (only_one(lambda s, x: s.o(x).sum()), ValueError, r"returned shape \(\)"),
}
