"""One list of models for every test that holds for any: each kind of layer, each trap. A new kind is tested by adding it here."""

import torch
from torch import nn
from torch.nn import functional as F

import ntk_course as ntk


class CalledTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.shared(torch.tanh(self.shared(torch.tanh(self.first(x)))))))


class TwoNames(nn.Module):
    """One module under two names; torch.func.functional_call leaves such a model with other parameters than its own."""

    def __init__(self):
        super().__init__()
        self.a, self.scale = nn.Linear(6, 6), nn.Parameter(torch.rand(6))
        self.b, self.out = self.a, nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.b(self.a(x).tanh() * self.scale).tanh())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))


class TiedTransposed(nn.Module):
    """An autoencoder-style tie: one weight used by its module and, transposed, without it."""

    def __init__(self):
        super().__init__()
        self.encode, self.last = nn.Linear(6, 4), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(torch.tanh(F.linear(torch.tanh(self.encode(x)), self.encode.weight.t())))


class BareParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.scale = nn.Linear(6, 3), nn.Parameter(torch.randn(6))

    def forward(self, x):
        return self.linear(torch.sin(x * self.scale))


class ReadOutsideItsModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        return self.linear(x) + F.linear(x**2, self.linear.weight)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.never, self.ignored = nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        self.ignored(x)
        return self.linear(x)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.act, self.linear = nn.ReLU(inplace=True), nn.Linear(4 * 36, 3)

    def forward(self, x):
        h = self.bn(self.conv(x))
        h += 0.1
        h = self.linear(self.act(h).flatten(1))
        return h.mul_(2.0)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = x + torch.tanh(self.a(x))
        h = h + torch.tanh(self.b(h))
        return self.last(h)


class Convolutions(nn.Module):
    """Groups, stride, dilation, every padding, rectangular kernels, no bias, depthwise, and one linear over positions."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, groups=2),
            nn.Tanh(),
            nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), bias=False),
            nn.Tanh(),
            nn.Conv2d(6, 6, 2, dilation=(1, 2), padding="same", groups=6),
            nn.Tanh(),
            nn.Conv2d(6, 4, 3, padding=1, padding_mode="circular"),
            nn.Tanh(),
            nn.Conv2d(4, 4, 2, padding=(1, 0), padding_mode="reflect", dilation=1),
        )
        self.mix, self.norm, self.last = nn.Linear(6, 2), nn.LayerNorm([6, 2]), nn.Linear(4 * 3 * 2, 3)

    def forward(self, x):
        h = self.layers(x)
        h = self.norm(self.mix(h.flatten(2)[:, :, :18].reshape(len(x), 4, 3, 6)).repeat(1, 1, 2, 1))
        return self.last(torch.tanh(h[:, :, :3].flatten(1)))


class SequenceFirst(nn.Module):
    """Positions before samples: with as many samples as positions it looks batch-first."""

    def __init__(self):
        super().__init__()
        self.embed, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.embed(x.transpose(0, 1))).sum(0))


class Broadcast(nn.Module):
    """A layer that sees one row for the whole batch, however large."""

    def __init__(self):
        super().__init__()
        self.shift, self.last = nn.Linear(2, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(torch.tanh(x + self.shift(x.new_ones(1, 2))))


class Hooked(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)
        self.first.register_forward_hook(lambda module, args, out: torch.sin(out) * 2)
        self.last.register_forward_pre_hook(lambda module, args: (args[0] * 3,))

    def forward(self, x):
        return self.last(self.first(x))


class Keyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.first(input=x)))


class Tokens(nn.Module):
    """Token sequence with LayerNorm, GroupNorm over tokens, and a parametrised weight."""

    def __init__(self):
        super().__init__()
        self.inner = nn.utils.parametrizations.weight_norm(nn.Linear(4, 6))
        self.norm, self.group, self.last = nn.LayerNorm(6), nn.GroupNorm(1, 5), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.group(torch.tanh(self.norm(self.inner(x)))).mean(1))


class Slopes(nn.Module):
    """Learnt slopes as a module, as a function of a bare parameter, and as a method."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.last = nn.Linear(6, 4), nn.PReLU(4), nn.Linear(4, 3)
        self.slope, self.other = nn.Parameter(torch.rand(1)), nn.Parameter(torch.rand(3))

    def forward(self, x):
        return self.last(F.prelu(self.act(self.first(x)) - 0.1, self.slope)).prelu(self.other)


def two_tokens():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Flatten(), nn.Tanh(), nn.Linear(10, 3))


def frozen():
    model = ntk.small_cnn(2, 4, (3, 4), 3)
    model[0].weight.requires_grad_(False)
    model[-1].bias.requires_grad_(False)
    return model


def norms():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(64, 6)
    )
    model.extend([nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 3)])
    for _ in range(3):
        model(torch.randn(8, 2, 6, 6))
    return model.eval()


def grouped():
    """Groups that stay in factors, since there is one position."""
    return nn.Sequential(nn.Conv2d(8, 8, 1, groups=2), nn.Tanh(), nn.Conv2d(8, 8, 1, groups=4), nn.Flatten(), nn.Linear(8, 3))


def settled_resnet(width):
    """A ResNet whose BatchNorms have seen data, so that their statistics and parameters are not the trivial ones."""
    model = ntk.resnet18(width=width)
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(16, 3, 32, 32) * 1.5 + 0.3)
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.weight.uniform_(0.5, 1.5), m.bias.normal_(0, 0.1)
    return model.eval()


# name -> (model, input shape, whether torch.func is expected to help out)
CASES = {
    "mlp relu": (lambda: ntk.mlp((6, 8, 7, 3)), (6,)),
    "mlp gelu, no bias": (lambda: ntk.mlp((6, 8, 3), "gelu", bias=False), (2, 3)),
    "mlp tanh": (lambda: ntk.mlp((64, 32, 10), "tanh"), (1, 8, 8)),
    "mlp softplus": (lambda: ntk.mlp((6, 8, 3), "softplus"), (6,)),
    "mlp sigmoid": (lambda: ntk.mlp((6, 8, 3), "sigmoid"), (6,)),
    "lenet5": (ntk.lenet5, (1, 28, 28)),
    "small_cnn": (ntk.small_cnn, (1, 8, 8)),
    "resnet18, width 8": (lambda: settled_resnet(8), (3, 32, 32)),
    "called twice": (CalledTwice, (6,)),
    "one module, two names": (TwoNames, (6,)),
    "tied": (Tied, (6,)),
    "tied, transposed": (TiedTransposed, (6,)),
    "bare parameter": (BareParameter, (6,)),
    "read outside its module": (ReadOutsideItsModule, (6,)),
    "unused": (Unused, (6,)),
    "frozen": (frozen, (2, 4, 4)),
    "in place": (lambda: InPlace().eval(), (2, 6, 6)),
    "residual": (Residual, (6,)),
    "convolutions": (Convolutions, (2, 9, 8)),
    "grouped, one position": (grouped, (8, 1, 1)),
    "norms, dropout in eval": (norms, (2, 6, 6)),
    "sequence first, as many as samples": (SequenceFirst, (5, 4)),
    "sequence first, two positions": (SequenceFirst, (2, 4)),
    "one row for the whole batch": (Broadcast, (6,)),
    "hooks of the user's": (Hooked, (6,)),
    "keyword call": (Keyword, (6,)),
    "two tokens": (two_tokens, (2, 4)),
    "tokens, weight norm": (Tokens, (5, 4)),
    "one slope": (lambda: nn.Sequential(nn.Linear(6, 5), nn.PReLU(), nn.Linear(5, 3)), (6,)),
    "slopes by channel": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.PReLU(4), nn.Flatten(), nn.Linear(64, 3)),
        (2, 6, 6),
    ),
    "slopes in three ways": (Slopes, (6,)),
}
