"""Training and paths of one's own models, losses and optimizers: what is recorded is what happened, and bad input is named."""

import os
import subprocess
import sys
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from any_models import Of
from torch import nn
from torch.nn import functional as F

import ntk_course as ntk
from ntk_course.training import load_path


def net(final=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, final)).double()


@pytest.fixture
def data():
    return torch.randn(18, 6).double(), torch.randint(0, 3, (18,)), torch.randn(5, 6).double()


def path_of(model, x, y, **settings):
    return ntk.train_path(model.double(), x, y, **{"steps": 4, "lr": 0.1, "progress": False, **settings})


def trained(model, x, y, **settings):
    ntk.train(model, x, y, **{"epochs": 3, "lr": 0.1, "progress": False, **settings})
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.AdamW,
        partial(torch.optim.AdamW, weight_decay=0.5),
        partial(torch.optim.SGD, weight_decay=0.5, nesterov=True, momentum=0.5),
    ],
)
def test_an_optimizer_keeps_its_own_settings(optimizer, data):
    x, y, _ = data
    model, order = net(), torch.Generator().manual_seed(0)
    steps = optimizer(model.parameters(), lr=0.1)
    for _ in range(3):
        for batch in torch.randperm(18, generator=order).split(7):
            steps.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            steps.step()
    wanted = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(trained(net(), x, y, optimizer=optimizer, batch_size=7), wanted)


def test_an_autocast_around_the_call_changes_nothing(data):
    x, y, x_test = (t.float() if t.is_floating_point() else t for t in data)
    plain = ntk.train_path(net().float(), x, y, steps=4, lr=0.1, progress=False)
    weights, loss = trained(net().float(), x, y), ntk.training.evaluate(net().float(), x, y)[0]
    with torch.autocast("cpu", torch.bfloat16):
        inside = ntk.train_path(net().float(), x, y, steps=4, lr=0.1, progress=False)
        assert torch.equal(inside.weights, plain.weights)
        assert torch.equal(inside.outputs(x_test), plain.outputs(x_test))
        assert ntk.epk(inside, x_test).error < 1e-5
        assert torch.equal(trained(net().float(), x, y), weights)
        assert torch.equal(ntk.training.evaluate(net().float(), x, y)[0], loss)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_training_within_modes_without_gradients(around, data):
    x, y, x_test = data
    weights, model, untrained = trained(net(), x, y), net(), net()
    path = path_of(net(), x, y)
    with around():
        assert torch.equal(trained(model, x * 1, y * 1), weights)
        inside = path_of(untrained, x * 1, y * 1)
        assert torch.equal(inside.weights, path.weights)
        assert ntk.epk(inside, x_test * 1).error < 1e-13
        gram, v = ntk.Gram(model, x * 1, ntk.labelled(y * 1)), torch.ones(18).double()
        torch.testing.assert_close(gram @ v, gram.dense() @ v)


def flat():
    torch.manual_seed(0)
    return Of(lambda s, x: s.h(torch.tanh(s.a(x)))[:, 0], a=nn.Linear(6, 8), h=nn.Linear(8, 1)).double()


LOSSES = {
    "of (n,)": lambda z, t: F.huber_loss(z, t, reduction="none"),
    "of (n, 1)": lambda z, t: F.huber_loss(z, t[:, None], reduction="none")[:, 0],
    "bce": lambda z, t: F.binary_cross_entropy_with_logits(z, t.sigmoid(), reduction="none"),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_one_output_a_sample(name, data):
    """Written for what the model answers, (n,), or for what the package makes of it, (n, 1)."""
    x, _, x_test = data
    t, model, loss = torch.randn(18).double(), flat(), LOSSES[name]
    steps = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        steps.zero_grad()
        z = model(x)
        loss(z[:, None] if name == "of (n, 1)" else z, t).mean().backward()
        steps.step()
    wanted = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(trained(flat(), x, t, loss=loss, batch_size=None), wanted)
    path = path_of(flat(), x, t, loss=loss)
    assert ntk.epk(path, x_test).error < 1e-13
    gram = ntk.Gram(flat(), x, ntk.loss_gradient(t, loss)).dense()
    assert gram.shape == (18, 18)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda z, t: ((z - t) ** 2).mean(1), "depend on the other samples, of outputs"),
        (lambda z, t: (z[:, 0] - t) ** 2 / ((z[:, 0] - t) ** 2).sum(), "depend on the other samples"),
        (lambda z, t: ((z - t) ** 2).mean(), "wanted one real number for each of 3"),
        (lambda z, t: z[:, 0] > t, "torch.bool of shape"),
        (nn.CrossEntropyLoss, "wanted a function of these"),
    ],
)
def test_a_loss_that_is_not_each_samples_own(loss, words, data):
    x, t = data[0], torch.randn(18).double()
    for call in (trained, path_of):
        with pytest.raises(ValueError, match="loss: .*" + words):
            call(flat(), x, t, loss=loss)


def test_whole_numbers_are_targets_of_one_output(data):
    """There are no classes to choose from."""
    x, t = data[0], torch.arange(18)
    assert torch.equal(trained(flat(), x, t, loss="squared"), trained(flat(), x, t.double(), loss="squared"))
    one, two = (ntk.Gram(flat(), x, ntk.loss_gradient(y, "squared")).dense() for y in (t, t.double()))
    assert torch.equal(one, two)


def test_a_path_made_by_hand_of_one_output_a_sample(data):
    x, _, x_test = data
    made = path_of(flat(), x, (t := torch.randn(18).double()), loss="squared")
    path = ntk.training.TrainingPath(made.model, x, t, made.weights, made.batches, made.lrs, loss="squared")
    assert path.coefficients(0, torch.arange(5)).shape == (5, 1)
    assert ntk.epk(path, x_test).error < 1e-13


def test_samples_of_a_path_that_are_written_to(data):
    x, y, x_test = data
    path = path_of(net(), x, y)
    before = ntk.epk(path, x_test).points
    x.mul_(0.5)
    assert torch.equal(ntk.epk(path, x_test).points, before)
    path.x.mul_(0.5)
    with pytest.raises(ValueError, match="or the samples are others"):
        ntk.epk(path, x_test)


def test_which_layer_is_the_output_layer(data):
    """The last linear layer that samples pass, not the last that was written down."""
    x, y, x_test = data
    odd = Of(lambda s, x: s.head(torch.relu(s.a(x))), head=nn.Linear(8, 3), a=nn.Linear(6, 8))
    path = path_of(odd, x, y, steps=20)
    assert path.unflatten(path.weights[0])["a.weight"].abs().sum() > 0
    assert path.outputs(x_test).std(0).min() > 1e-3
    hidden = Of(lambda s, x: s.c(torch.relu(s.a(x))[:, :, None])[:, :, 0], a=nn.Linear(6, 8), c=nn.Conv1d(8, 3, 1))
    with pytest.raises(ValueError, match="model: got outputs that its last linear layer, a, at zero does not make the same"):
        path_of(hidden, x, y)
    odd.head.requires_grad_(False)
    with pytest.raises(ValueError, match="model: got a frozen output layer head"):
        path_of(odd, x, y)


class Table(nn.Module):
    def __init__(self, sparse=False):
        super().__init__()
        self.a, self.b, self.h = nn.Linear(6, 8), nn.Embedding(5, 8, sparse=sparse), nn.Linear(8, 3)

    def forward(self, num, cat, flag=True):
        return self.h(F.leaky_relu(self.a(num) + self.b(cat)))


def in_forward(s, x):
    x = x.clone().requires_grad_()
    u = s.h(torch.tanh(s.a(x)))
    return torch.cat([u, torch.autograd.grad(u.sum(), x, create_graph=True)[0][:, :1]], 1)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_paths_of_unusual_models(momentum, data, tmp_path):
    x, y, x_test = data
    cat, cat_test = torch.randint(0, 5, (18,)), torch.randint(0, 5, (5,))
    several, others = {"num": x, "cat": cat, "flag": True}, {"num": x_test, "cat": cat_test, "flag": True}
    words, words_test = torch.randint(0, 5, (18, 4)), torch.randint(0, 5, (5, 4))
    bag = Of(lambda s, t: s.h(torch.tanh(s.b(t)).mean(1)), b=nn.Embedding(5, 8, sparse=True), h=nn.Linear(8, 3))
    scaled = Of(
        lambda s, x: s.h(torch.tanh(s.a(x) * s.t)), a=nn.Linear(6, 8), t=nn.Parameter(torch.tensor(1.0)), h=nn.Linear(8, 3)
    )
    physics = Of(in_forward, a=nn.Linear(6, 8), h=nn.Linear(8, 2))
    for model, one, two, more in (
        (Table(), several, others, {}),
        (Table(), (x, cat), (x_test, cat_test), {}),
        (bag, words, words_test, {}),
        (scaled, x, x_test, {}),
        (physics, x, x_test, {"zero_output": False}),
    ):
        path = path_of(model, one, y, momentum=momentum, **more)
        assert ntk.epk(path, two).error < 1e-12
        kept = path_of(model, one, y, momentum=momentum, folder=tmp_path / "run", **more)
        assert torch.equal(load_path(tmp_path / "run", model).weights, path.weights)
        assert torch.equal(kept.outputs(two), path.outputs(two))


KINKED = {
    "relu": lambda h: torch.relu(input=h),
    "clamp": lambda h: torch.clamp(input=h, min=0),
    "clamp_min": lambda h: torch.clamp_min(h, min=0),
    "amax": lambda h: h + h.amax(axis=1, keepdim=True),
    "max": lambda h: h + torch.max(input=h, dim=1, keepdim=True)[0],
    "max of an axis": lambda h: h + h.max(axis=1, keepdim=True)[0],
    "gt": lambda h: h * torch.gt(input=h, other=0),
    "sort": lambda h: torch.sort(input=h)[0],
    "maximum": lambda h: torch.maximum(h, other=-h),
    "minimum": lambda h: torch.minimum(input=h, other=h * 0.5),
}


@pytest.mark.parametrize("name", KINKED)
def test_operations_with_kinks_by_keyword(name, data):
    x, y, x_test = data
    path = path_of(Of(lambda s, x: s.h(KINKED[name](s.a(x))), a=nn.Linear(6, 8), h=nn.Linear(8, 3)), x, y)
    assert ntk.epk(path, x_test).error < 1e-12


def scaled_loss(factor):
    return lambda z, y: factor * F.cross_entropy(z, y, reduction="none")


def test_a_path_is_read_with_the_model_and_the_loss_it_was_made_with(data, tmp_path):
    x, y, x_test = data

    def build(seed=0, act=nn.GELU):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), act(), nn.Linear(8, 3)).double().eval()
        model[0].requires_grad_(False)
        return model

    path = path_of(build(), x, y, folder=tmp_path / "a", loss=scaled_loss(1.0))
    again = load_path(tmp_path / "a", build(), scaled_loss(1.0))
    assert torch.equal(again.outputs(x_test), path.outputs(x_test))
    other_statistics = build()
    other_statistics[1].running_mean.add_(1)
    for wrong in (build(seed=1), build(act=nn.ReLU), other_statistics):
        with pytest.raises(ValueError, match="model: got another one than the path's"):
            load_path(tmp_path / "a", wrong, scaled_loss(1.0))
    with pytest.raises(ValueError, match="model: .*BatchNorm|model: got module"):
        load_path(tmp_path / "a", build().train(), scaled_loss(1.0))
    with pytest.raises(ValueError, match="loss: got .*other values"):
        load_path(tmp_path / "a", build(), scaled_loss(3.0))


@pytest.mark.parametrize("name", ["weights.npy", "data.npz", "path.json"])
def test_a_damaged_file_is_named(name, data, tmp_path):
    x, y, _ = data
    path_of(net(), x, y, folder=tmp_path / "run")
    (tmp_path / "run" / name).write_bytes((tmp_path / "run" / name).read_bytes()[:9])
    with pytest.raises(ValueError, match=r"folder: got .*run with a damaged file"):
        load_path(tmp_path / "run", net())


def test_numbers_of_any_kind_are_numbers(data, tmp_path):
    x, y, _ = data
    plain = path_of(net(), x, y, lr=0.5, momentum=0.25)
    kept = path_of(
        net(),
        x,
        y,
        lr=np.float32(1.0),
        momentum=torch.tensor(0.25),
        schedule=lambda s: torch.tensor(0.5),
        folder=tmp_path / "run",
    )
    assert torch.equal(plain.weights, kept.weights)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"lr": "0.1"}, ValueError, "lr: got '0.1'"),
        ({"lr": None}, TypeError, "lr: got None; wanted a number"),
        ({"lr": -0.1}, ValueError, "lr: got -0.1"),
        ({"momentum": "x"}, TypeError, "momentum: got 'x'"),
        ({"momentum": -1.0}, ValueError, "momentum: got -1.0"),
        ({"schedule": 0.5}, TypeError, "schedule: got 0.5"),
        ({"schedule": lambda e: None}, TypeError, "schedule: got None"),
        ({"seed": None}, ValueError, "seed: got None"),
        ({"seed": 2**70}, ValueError, "seed: got 1180591620717411303424"),
    ],
)
def test_settings_are_named(settings, error, words, data):
    x, y, _ = data
    for call in (trained, path_of):
        with pytest.raises(error, match=words):
            call(net(), x, y, **settings)


def test_more_bad_input_is_named(data):
    x, y, x_test = data
    path = path_of(net(), x, y)
    for call, error, words in (
        (lambda: trained(net(), x, y, autocast="bf16"), TypeError, "autocast: got 'bf16'"),
        (lambda: trained(net(), x, y, validation=(x,)), TypeError, "validation: got tuple; wanted a pair"),
        (lambda: trained(net(), x, y, validation=x), TypeError, "validation: got Tensor; wanted a pair"),
        (lambda: trained(net(), x, y, optimizer=torch.optim.LBFGS), TypeError, "optimizer: got LBFGS"),
        (lambda: trained(net(), x, y, loss=lambda z, y: torch.zeros(len(z))), ValueError, "loss: got values without a gradient"),
        (lambda: trained(net(), x[:, :5], y), ValueError, r"x: got samples of shape \(5,\)"),
        (lambda: path_of(net(), x[:, :5], y), ValueError, r"x: got samples of shape \(5,\)"),
        (lambda: ntk.training.evaluate(net(), x[:, :5], y), ValueError, r"x: got samples of shape \(5,\)"),
        (lambda: ntk.training.evaluate(net(), x, y, batch_size=0), ValueError, "batch_size: got 0"),
        (lambda: ntk.epk(net(), x_test), TypeError, "path: got Sequential; wanted a TrainingPath"),
        (lambda: path.outputs(x_test, 99), IndexError, "step: got 99; wanted one of the 5"),
    ):
        with pytest.raises(error, match=words):
            call()


def test_training_gives_back_what_it_found(data):
    x, y, _ = data
    model = net()
    model(x).sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    trained(model, x, y)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))
    with pytest.raises(ArithmeticError):
        trained(model, x, y, lr=1e300)
    assert not model.training


INTERRUPTED = """
import os, signal, threading, torch, ntk_course as ntk
class Many(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(1)) for _ in range(2000)])
    def forward(self, x):
        return torch.cat(list(self.w)).sum().expand(len(x))[:, None] + 0 * x[:, :1]
ntk.train(Many(), torch.ones(40, 2), torch.zeros(40), loss="squared", epochs=1, lr=0.0, progress=False)  # imports take seconds
moved = 0
for trial in range(8):
    model = Many()
    threading.Timer(0.5 + 0.137 * trial, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        ntk.train(model, torch.ones(40, 2), torch.zeros(40), loss=lambda z, t: z[:, 0], epochs=10**6, lr=1e-3, batch_size=10,
                  optimizer="adam", progress=False, each_epoch=False)
    except KeyboardInterrupt:
        pass
    w = torch.cat([p.detach() for p in model.w])
    moved += bool(w.abs().max() > 0)
    assert w.max() - w.min() < 5e-4, (trial, w.max() - w.min())
    assert not model.training and model.w[0].grad is None
print("whole" if moved else "none was trained")
"""


def test_an_interrupt_leaves_the_weights_of_one_step():
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=300, env=env)
    assert done.stdout.strip() == "whole", done.stderr[-2000:]


def test_a_kernel_larger_than_memory_is_refused_before_it_is_made(data, monkeypatch):
    x, y, x_test = data
    path = path_of(net(), x, y)
    monkeypatch.setattr("ntk_course.kernels.paths.kernel.free_on", lambda device: 1000)
    with pytest.raises(MemoryError, match="x_test: got a kernel of 5 x 18 x 3 x 3"):
        ntk.epk(path, x_test)


def test_a_convolution_with_maxima_takes_no_finer_search_than_rounding():
    """In mini-batches with momentum as well: what is left is rounding, and no warning says otherwise."""
    torch.manual_seed(0)
    model = Of(
        lambda s, x: s.h(F.max_pool2d(torch.relu(s.b(F.max_pool2d(torch.relu(s.a(x)), 2))), 2).flatten(1)),
        a=nn.Conv2d(1, 4, 3, padding=1),
        b=nn.Conv2d(4, 6, 3, padding=1),
        h=nn.Linear(24, 3),
    )
    x, y = torch.randn(18, 1, 8, 8).double(), torch.randint(0, 3, (18,))
    path = path_of(model, x, y, batch_size=5, momentum=0.9, steps=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert ntk.epk(path, torch.randn(5, 1, 8, 8).double()).error < 1e-11


@pytest.mark.parametrize("width", [20, 90])
def test_a_path_whose_operations_forward_mode_does_not_know(width, data):
    """Formed gradients lie as the weights do, the large among the small; what no sample reaches is nothing."""

    class Odd(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(h):
            return h.tanh()

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(output)

        @staticmethod
        def backward(ctx, g):
            return g * (1 - ctx.saved_tensors[0].square())

    x, y, x_test = data
    parts = {"a": nn.Linear(6, width), "unused": nn.Linear(3, 2), "b": nn.Linear(width, width), "h": nn.Linear(width, 3)}
    for momentum in (0.0, 0.5):
        torch.manual_seed(0)
        one = path_of(Of(lambda s, x: s.h(Odd.apply(s.b(Odd.apply(s.a(x))))), **parts), x, y, momentum=momentum)
        two = path_of(Of(lambda s, x: s.h(s.b(s.a(x).tanh()).tanh()), **parts), x, y, momentum=momentum)
        torch.testing.assert_close(ntk.epk(one, x_test).gram, ntk.epk(two, x_test).gram)
        assert ntk.epk(one, x_test).error < 1e-12


@pytest.mark.parametrize("length", [2, 3, 5])
def test_a_path_of_a_model_that_puts_time_first(length, data):
    """As many positions as the samples that are tried."""
    x, x_test = torch.randn(12, length, 4).double(), torch.randn(5, length, 4).double()
    model = Of(lambda s, x: s.o(torch.tanh(s.l(x.transpose(0, 1).contiguous())).sum(0)), l=nn.Linear(4, 5), o=nn.Linear(5, 3))
    assert ntk.epk(path_of(model, x, torch.arange(12) % 3), x_test).error < 1e-13


def rows_of(model, *one):
    """Gradients (K, d) of one sample's outputs."""
    weights = list(model.parameters())
    return torch.stack(
        [
            torch.cat(
                [
                    g.flatten()
                    for g in torch.autograd.grad(z, weights, retain_graph=True, materialize_grads=True, allow_unused=True)
                ]
            )
            for z in model(*one)[0]
        ]
    )


def test_kernels_of_paths_of_several_inputs_and_real_targets(data):
    x, _, x_test = data
    cat, t = torch.randint(0, 5, (18,)), torch.randn(18, 3).double()
    path = path_of(Table(), (x, cat), t, loss="squared")
    gram = ntk.kernels.paths.symmetric_gram(path, (x, cat), torch.ones(18, dtype=torch.bool))
    weighted, plain = torch.zeros_like(gram), torch.zeros_like(gram)
    for s, rate in enumerate(path.lrs):  # the definitions, by plain autograd
        model = path.model_at(s)
        rows = torch.stack([rows_of(model.inner, x[n : n + 1], cat[n : n + 1]) for n in range(18)])
        inner = torch.einsum("nid,mjd->nmij", rows, rows)
        plain += rate / 18 * inner
        f = model.inner(x, cat)
        weighted += rate / 18 * inner * (f - t).norm(dim=1)[None, :, None, None]
    torch.testing.assert_close(gram, plain)
    torch.testing.assert_close(ntk.kernels.paths.weighted_gram(path, (x, cat), t), weighted)


def test_a_model_whose_samples_depend_on_each_other_has_no_path(data):
    x, y, _ = data
    with pytest.raises(ValueError, match="model: got outputs of a sample that depend on the others"):
        path_of(Of(lambda s, x: s.h(s.a(x) * x.max()), a=nn.Linear(6, 8), h=nn.Linear(8, 3)), x, y, zero_output=False)


def test_hints_in_messages(data):
    x, y, _ = data
    norm = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).double()
    for call, error, words in (
        (
            lambda: trained(norm, x[:17], y[:17], batch_size=4),
            ValueError,
            "batch_size: got 4, which leaves a batch of 1",
        ),
        (lambda: trained(net(), x, F.one_hot(y, 3)), ValueError, r"y.argmax\(-1\) of unit vectors"),
        (lambda: trained(net(), x, y, nesterov=True), TypeError, "by functools.partial"),
        (lambda: path_of(net(), x, y, weight_decay=0.1), TypeError, "other steps are no sums of training gradients"),
        (
            lambda: ntk.pntk(Of(lambda s, x: s.a(x).squeeze(), a=nn.Linear(6, 3)), x.float()),
            ValueError,
            r"a squeeze\(\) without a number",
        ),
    ):
        with pytest.raises(error, match=words):
            call()


def test_a_batch_of_one_that_has_statistics(data):
    """Over the places of an image."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    assert trained(model, torch.randn(17, 1, 6, 6), torch.arange(17) % 3, batch_size=4).isfinite().all()


class Asks(nn.Module):
    """A forward that asks for its mode."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 3)

    def forward(self, x):
        return self.a(x) * (2 if self.training else 1)


def test_a_mode_counts_where_it_is_asked_for(data, tmp_path):
    x, y, _ = data
    path_of(net().eval(), x, y, folder=tmp_path / "any")
    assert len(load_path(tmp_path / "any", net())) == 5
    path_of(Asks().eval(), x, y, folder=tmp_path / "own")
    with pytest.raises(ValueError, match="model: got another one"):
        load_path(tmp_path / "own", Asks().double())
