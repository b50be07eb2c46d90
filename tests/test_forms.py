"""Samples and answers in every form: several tensors, data sets, tokens, dicts; losses, targets, and paths along them."""

import math

import pytest
import torch
from conftest import relative
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

import ntk_course as ntk
from ntk_course.tangents import masked, per_token, summed
from ntk_course.training import TrainingPath, load_path

Linear = nn.Linear


class Tokens(nn.Module):
    """A small language model that answers with a dict, as those of Hugging Face do."""

    def __init__(self):
        super().__init__()
        self.e, self.l = nn.Embedding(20, 8), nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
        self.o = Linear(8, 5)

    def forward(self, input_ids, attention_mask=None):
        h = self.l(self.e(input_ids), src_key_padding_mask=None if attention_mask is None else attention_mask == 0)
        return {"logits": self.o(h), "hidden": h}


def tokens():
    torch.manual_seed(0)
    mask = torch.ones(6, 7, dtype=torch.long)
    mask[2, 4:], mask[0, 5:] = 0, 0
    return Tokens().double().eval(), torch.randint(0, 20, (6, 7)), mask, torch.randint(0, 5, (6, 7))


def by_backward(model, rows):
    """Gradients (N, R, D) of numbers (N, R), one at a time."""
    weights = list(model.parameters())
    found = [[torch.autograd.grad(v, weights, retain_graph=True, allow_unused=True) for v in of_sample] for of_sample in rows]
    flat = lambda g: torch.cat([(torch.zeros_like(w) if t is None else t).flatten() for w, t in zip(weights, g, strict=True)])  # noqa: E731
    return torch.stack([torch.stack([flat(g) for g in of_sample]) for of_sample in found])


class Items(Dataset):
    def __init__(self, **columns):
        self.columns = columns

    def __len__(self):
        return 6

    def __getitem__(self, i):
        return {name: t[i] for name, t in self.columns.items()}


@pytest.mark.parametrize("form", ["dict", "tuple", "items", "loader"])
def test_labelled_tokens_with_a_mask(form):
    model, ids, mask, y = tokens()
    x = {
        "dict": {"input_ids": ids, "attention_mask": mask},
        "tuple": (ids, mask),
        "items": Items(input_ids=ids, attention_mask=mask),
        "loader": DataLoader(Items(input_ids=ids, attention_mask=mask), batch_size=4),
    }[form]
    signs = (2 * F.one_hot(y, 5) - 1).double() / 5**0.5 * mask[..., None]
    each = (model(ids, mask)["logits"] * signs).sum(2)  # (N, T)
    phi = by_backward(model, each)
    of_tokens = torch.einsum("ntd,mud->nmtu", phi, phi)
    for block_size in (None, 2):
        options = {"output": "logits", "block_size": block_size}
        c = masked(ntk.labelled(y), mask)
        assert relative(ntk.tangent_kernel(model, x, c, **options), of_tokens.sum((2, 3))) < 1e-12
        assert relative(ntk.lpntk(model, x, torch.where(mask > 0, y, -100), **options), of_tokens.sum((2, 3))) < 1e-12
        assert relative(ntk.tangent_kernel(model, x, per_token(c), **options), of_tokens) < 1e-12
        assert relative(ntk.tangent_kernel(model, x, summed(per_token(c)), **options), of_tokens.diagonal(0, 2, 3).sum(2)) < 1e-12


def test_every_answer_of_a_summed_matrix():
    model, ids, mask, _ = tokens()
    gram = ntk.Gram(model, (ids, mask), summed(ntk.basis), output="logits")
    whole = ntk.entk(model, (ids, mask), output="logits").diagonal(0, 2, 3).sum(2)
    v = torch.randn(6, dtype=torch.float64)
    assert relative(gram.dense(), whole) < 1e-12
    assert relative(gram @ v, whole @ v) < 1e-12
    assert relative(gram.quadratic(v), v @ whole @ v) < 1e-12
    assert relative(gram.diagonal(), whole.diagonal()) < 1e-12
    assert relative(gram[1], whole[1]) < 1e-12
    assert relative(gram.against((ids[:2], mask[:2]), summed(ntk.basis)).dense(), whole[:2]) < 1e-12
    with pytest.raises(ValueError, match="projected: got summed"):
        gram.projected(3)
    with pytest.raises(ValueError, match=r"wanted summed\(\) and as many on both sides"):
        gram.against((ids[:2], mask[:2]), ntk.basis)


def test_one_number_a_sample():
    model = nn.Sequential(Linear(5, 4), nn.Tanh(), Linear(4, 1), nn.Flatten(0)).double()
    x, t = torch.randn(7, 5).double(), torch.randn(7).double()
    phi = by_backward(model, model(x)[:, None])[:, 0]
    assert relative(ntk.entk(model, x)[..., 0, 0], phi @ phi.T) < 1e-12
    slope = (t - model(x)).detach()[:, None]
    assert relative(ntk.tangent_kernel(model, x, ntk.loss_gradient(t, "squared")), (slope * phi) @ (slope * phi).T) < 1e-12


def test_a_pair_of_a_data_set_is_input_and_target_where_the_model_takes_one_argument():
    model, x, y = ntk.mlp((10, 16, 3)).double(), torch.randn(9, 10).double(), torch.randint(0, 3, (9,))
    wanted = ntk.lpntk(model, x, y)
    for data in (TensorDataset(x, y), TensorDataset(x), DataLoader(TensorDataset(x, y))):
        assert torch.equal(ntk.lpntk(model, data, y), wanted)
    _, ids, mask, _ = tokens()
    with pytest.raises(TypeError, match="takes more, so that the rest may be inputs or targets; wanted a dict"):
        ntk.pntk(tokens()[0], TensorDataset(ids, mask), output="logits")
    with pytest.raises(ValueError, match="DataLoader in another order .RandomSampler.; wanted shuffle=False"):
        ntk.lpntk(model, DataLoader(TensorDataset(x, y), shuffle=True), y)


def test_an_answer_that_is_no_tensor_says_how_to_pick():
    model, ids, _, y = tokens()
    with pytest.raises(TypeError, match="returned dict of logits, hidden; wanted .*output= picks a part"):
        ntk.pntk(model, ids)
    with pytest.raises(ValueError, match="output: got 'loss'; wanted a part of the model's answer, a dict of logits, hidden"):
        ntk.pntk(model, ids, output="loss")
    with pytest.raises(ValueError, match=r"y1: got shape \(6, 3\); wanted \(6, 7\), one label for each position"):
        ntk.lpntk(model, ids, y[:, :3], output="logits")
    with pytest.raises(ValueError, match="input_ids .6, 7., attention_mask .3, 7.; wanted the same number"):
        ntk.pntk(model, {"input_ids": ids, "attention_mask": ids[:3]}, output="logits")


def test_parameters_are_chosen_by_name_pattern_module_or_as_they_are():
    model, ids, _, _ = tokens()
    whole = {n: ntk.Gram(model, ids, ntk.ones, output="logits").only(n).dense() for n, _ in model.named_parameters()}
    for choice, names in (
        ("o", ["o.weight", "o.bias"]),
        (model.o, ["o.weight", "o.bias"]),
        (model.e.weight, ["e.weight"]),
        ("l.linear?.bias", ["l.linear1.bias", "l.linear2.bias"]),
        (["o.bias", model.e], ["o.bias", "e.weight"]),
    ):
        assert relative(ntk.pntk(model, ids, output="logits", parameters=choice), sum(whole[n] for n in names)) < 1e-12
    with pytest.raises(ValueError, match="parameters: got 'head'; wanted some of the trainable parameters, e.weight"):
        ntk.pntk(model, ids, output="logits", parameters="head")


def test_a_matrix_that_does_not_fit_says_what_to_do():
    gram = ntk.Gram(Linear(2, 2), torch.zeros(10**6, 2), ntk.ones)
    with pytest.raises(MemoryError, match=r"1000000 x 1000000, 3725.3 GiB.*G.reduce.*G.save"):
        gram.dense()


# ----- training


def test_training_takes_tokens_targets_losses_and_optimizers():
    torch.manual_seed(0)
    x, t = torch.randn(40, 5), torch.randn(40)
    model = nn.Sequential(Linear(5, 1), nn.Flatten(0))
    start = [p.detach().clone() for p in model.parameters()]
    history = ntk.train(
        model, x, t, epochs=2, batch_size=None, lr=0.1, loss="squared", optimizer=torch.optim.AdamW, progress=False
    )
    other = Linear(5, 1)
    for p, value in zip(other.parameters(), start, strict=True):
        p.data.copy_(value)
    steps = torch.optim.AdamW(other.parameters(), lr=0.1)  # with its own weight decay
    for _ in range(2):
        steps.zero_grad()
        (0.5 * (other(x)[:, 0] - t) ** 2).mean().backward()
        steps.step()
    torch.testing.assert_close(model[0].weight, other.weight)
    assert history.accuracy is None
    ids, y = torch.randint(0, 20, (30, 7)), torch.randint(0, 20, (30, 7))
    y[:, 5:] = -100
    language = nn.Sequential(nn.Embedding(20, 8), Linear(8, 20))
    assert ntk.train(language, ids, y, epochs=40, lr=0.5, progress=False).accuracy[-1] > 0.15
    losses, _ = ntk.training.evaluate(language, ids, y)
    wanted = F.cross_entropy(language(ids).flatten(0, 1), y.flatten(), reduction="none").view(30, 7).sum(1)
    torch.testing.assert_close(losses, wanted.detach())


# ----- paths


def of(how, **parts):
    class Of(nn.Module):
        def __init__(self):
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, *x):
            return how(self, *x)

    return Of()


X, Y, T = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)).double(), torch.arange(20) % 3, torch.linspace(-1, 1, 20)
SEQUENCES = torch.randn(20, 4, 6, generator=torch.Generator().manual_seed(1)).double()
IDS = torch.randint(0, 12, (20, 4), generator=torch.Generator().manual_seed(2))


def attends():
    return of(lambda s, x: s.o(s.a(x, x, x)[0].mean(1)), a=nn.MultiheadAttention(6, 2, batch_first=True), o=Linear(6, 3))


PATHS = {
    "relu by function": (lambda: of(lambda s, x: s.b(F.relu(s.a(x))), a=Linear(5, 16), b=Linear(16, 3)), X, {}),
    "where and clamp": (
        lambda: of(
            lambda s, x: s.b(torch.where(s.a(x) > 0.1, s.a(x).abs(), s.a(x).clamp(-0.5, 0.5))), a=Linear(5, 9), b=Linear(9, 3)
        ),
        X,
        {},
    ),
    "maxout": (lambda: of(lambda s, x: s.b(s.a(x).view(len(x), 8, 2).amax(-1)), a=Linear(5, 16), b=Linear(8, 3)), X, {}),
    "three layers of relu": (lambda: ntk.mlp((5, 16, 16, 16, 3), "relu"), X, {"lr": 1.0}),
    "relu with momentum": (lambda: ntk.mlp((5, 16, 16, 3), "relu"), X, {"momentum": 0.9, "batch_size": 5}),
    "pooling": (
        lambda: nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 4, 2), nn.MaxPool1d(2), nn.Flatten(), Linear(8, 3)),
        X,
        {},
    ),
    "LSTM": (lambda: of(lambda s, x: s.o(s.r(x)[0].mean(1)), r=nn.LSTM(6, 5, batch_first=True), o=Linear(5, 3)), SEQUENCES, {}),
    "attention": (attends, SEQUENCES, {}),
    "encoder": (
        lambda: nn.Sequential(nn.TransformerEncoderLayer(6, 2, 9, 0.0, batch_first=True), nn.Flatten(), Linear(24, 3)),
        SEQUENCES,
        {},
    ),
    "weight norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(Linear(5, 8)), nn.Tanh(), Linear(8, 3)),
        X,
        {},
    ),
    "tokens": (lambda: of(lambda s, x: s.o(s.e(x).mean(1).tanh()), e=nn.Embedding(12, 8), o=Linear(8, 3)), IDS, {}),
    "tokens and a mask": (
        lambda: of(lambda s, x, m: s.o((s.e(x) * m[..., None]).mean(1).tanh()), e=nn.Embedding(12, 8), o=Linear(8, 3)),
        (IDS, IDS % 2),
        {},
    ),
    "targets": (lambda: ntk.mlp((5, 16, 1)), X, {"y": T, "loss": "squared"}),
    "one's own loss": (
        lambda: of(lambda s, x: s.b(F.silu(s.a(x)))[:, 0], a=Linear(5, 16), b=Linear(16, 1)),
        X,
        {"y": T.double(), "loss": lambda z, y: F.huber_loss(z[:, 0], y, reduction="none")},
    ),
    "part of an answer": (lambda: of(lambda s, x: {"a": s.a(x)}, a=Linear(5, 3)), X, {"output": "a"}),
}


@pytest.mark.filterwarnings("error:epk")
@pytest.mark.parametrize("name", PATHS)
def test_the_default_path_kernel_is_exact_to_rounding(name):
    make, x, settings = PATHS[name]
    settings = {"lr": 0.3, "y": Y} | settings
    torch.manual_seed(1)
    model = make().double().eval()
    path = ntk.train_path(model, x, steps=4, zero_output=False, progress=False, **settings)
    test = tuple(t[:6].flip(1) for t in x) if isinstance(x, tuple) else x[:6].flip(1)
    kernel = ntk.epk(path, test)
    assert kernel.error < 1e-12
    assert not math.isnan(float(kernel.gram.sum()))
    assert (path.outputs(test, 0) - path.outputs(test)).abs().max() > 1e-3


def test_a_kink_that_nothing_shows_is_said():
    """A product with a step that no operation of the list makes."""
    torch.manual_seed(0)
    model = of(lambda s, x: s.b(s.a(x) * (1e30 * s.a(x)).sigmoid()), a=Linear(5, 16), b=Linear(16, 3)).double()
    path = ntk.train_path(model, X, Y, steps=2, lr=1.0, zero_output=False, progress=False)
    with pytest.warns(
        UserWarning, match="epk: what step . adds up to misses the change of the outputs by .*more nodes do not help"
    ):
        kernel = ntk.epk(path, X[:4])
    assert kernel.error > 1e-9


@pytest.mark.parametrize("rule", [torch.optim.Adam, lambda p, lr: torch.optim.SGD(p, lr, weight_decay=0.5)])
def test_steps_that_are_no_sums_of_gradients_are_refused(rule):
    model, batch = ntk.mlp((5, 8, 3)).double(), torch.arange(20)
    flat = lambda: torch.cat([p.detach().flatten() for p in model.parameters()])  # noqa: E731
    weights, optimizer = [flat()], rule(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        optimizer.step()
        weights.append(flat())
    path = TrainingPath(model, X, Y, torch.stack(weights), (batch,) * 3, (0.01,) * 3)
    for kernel in (ntk.epk, ntk.dpk):
        with pytest.raises(ValueError, match="step 0 is not that of SGD on its batch"):
            kernel(path, X[:3])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_is_kept_and_read_back(dtype, tmp_path):
    model, x = ntk.mlp((5, 8, 3)).to(dtype), X.to(dtype)
    path = ntk.train_path(model, x, Y, steps=3, lr=0.1, folder=tmp_path / "path", progress=False)
    again = load_path(tmp_path / "path", model)
    assert again.weights.dtype == dtype
    assert torch.equal(again.weights, path.weights)
    assert torch.equal(again.x, x)
    assert ntk.epk(again, x[:3]).gram.dtype == dtype
    gram = ntk.Gram(model, x, ntk.labelled(Y))
    assert {gram.dense().dtype, gram[1].dtype, (gram @ torch.ones(20, dtype=dtype)).dtype, gram.diagonal().dtype} == {dtype}
    stored = gram.save(tmp_path / "gram", progress=False)
    assert torch.equal(torch.from_numpy(stored[:]).to(dtype), gram.dense())


def test_a_path_of_several_tensors_and_its_own_loss_comes_back_from_its_folder(tmp_path):
    make, x, _ = PATHS["tokens and a mask"]

    def loss(z, y):
        return F.cross_entropy(z, y, reduction="none", label_smoothing=0.1)

    path = ntk.train_path(make().double(), x, Y, steps=2, lr=0.1, loss=loss, folder=tmp_path, progress=False)
    with pytest.raises(ValueError, match="loss: got None; wanted that of the path, function .*loss"):
        load_path(tmp_path, path.model)
    again = load_path(tmp_path, path.model, loss)
    assert again.x.args[0].dtype == torch.int64
    torch.testing.assert_close(ntk.epk(again, x).gram, ntk.epk(path, x).gram)


WRITERS = [
    lambda p: ntk.Gram(Linear(5, 3).double(), X, ntk.ones).save(p, progress=False),
    lambda p: ntk.train_path(Linear(5, 3).double(), X, Y, steps=1, lr=0.1, folder=p, progress=False),
]


@pytest.mark.parametrize("write", WRITERS)
def test_nobody_elses_folder_is_written_to(write, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="which holds 'notes.txt'; wanted a folder of its own"):
        write(tmp_path)
    with pytest.raises(FileExistsError, match="which is a file; wanted a folder"):
        write(tmp_path / "notes.txt")
    with pytest.raises(OSError, match="could not write to /proc/nothing"):
        write("/proc/nothing")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
