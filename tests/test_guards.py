"""What happens around a Gram matrix between its making and its numbers: each is either seen, or makes no difference."""

import numpy as np
import pytest
import torch
from conftest import jacobian, relative
from torch import nn

import ntk_course as ntk
from ntk_course.basics import fingerprints
from ntk_course.tangents import tangent_features


def setting(activation="tanh"):
    torch.manual_seed(0)
    x, y = torch.randn(9, 6).double(), torch.arange(9) % 4
    return ntk.mlp((6, 8, 4), activation).double(), x, ntk.labelled(y)


ASKED = {
    "dense": lambda g: g.dense(),
    "row": lambda g: g[2],
    "block": lambda g: g[:3, 4:],
    "diagonal": lambda g: g.diagonal(),
    "product": lambda g: g @ torch.ones(9).double(),
    "many products": lambda g: g @ torch.ones(9, 40).double(),
    "quadratic": lambda g: g.quadratic(torch.ones(9).double()),
    "blocks": lambda g: list(g.blocks()),
    "reduced": lambda g: g.reduce(ntk.TopPartners(2), progress=False),
    "kept": lambda g: g.keep(),
}


@pytest.mark.parametrize("asked", ASKED)
def test_a_model_that_went_back_to_training_is_refused_when_asked(asked):
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4)).double().eval()
    _, x, c = setting()
    gram = ntk.Gram(model, x, c)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    model.train()
    with pytest.raises(ValueError, match=r"model: got module .1. \(BatchNorm1d\) in a mode"):
        ASKED[asked](gram)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("asked", ["dense", "row", "diagonal", "product", "quadratic"])
def test_an_autocast_around_the_call_changes_nothing(asked):
    model, x, c = setting()
    model, x = model.float(), x.float()
    ask = {"product": lambda g: g @ torch.ones(9), "quadratic": lambda g: g.quadratic(torch.ones(9))}.get(asked, ASKED[asked])
    wanted = ask(ntk.Gram(model, x, c))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ask(ntk.Gram(model, x, c)), wanted)
        assert torch.is_autocast_enabled("cpu")


def test_a_layer_whose_forward_was_replaced_has_no_rule():
    for change in (nn.functional.gelu, lambda h: 2 * h, lambda h: nn.functional.normalize(h, dim=1)):
        model, x, c = setting()
        theirs = model[1].forward
        model[1].forward = lambda h, theirs=theirs, change=change: change(theirs(h))
        wanted = by_loop(model, x, c)
        assert relative(ntk.tangent_kernel(model, x, c), wanted) < 1e-12


def by_loop(model, x, c):
    rows = []
    for i in range(len(x)):
        z = model(x[i : i + 1])
        found = torch.autograd.grad((z * c[i : i + 1](z.detach())).sum(), list(model.parameters()))
        rows.append(torch.cat([g.flatten() for g in found]))
    phi = torch.stack(rows)
    return phi @ phi.T


def test_nothing_that_comes_out_has_a_graph():
    model, x, _ = setting()
    c, x = torch.randn(9, 4).double().requires_grad_(), x.requires_grad_()
    gram = ntk.Gram(model, x, c)
    for name, ask in ASKED.items():
        found = ask(gram)
        parts = found if isinstance(found, tuple) else (found,)
        assert not any(t.requires_grad for t in parts if isinstance(t, torch.Tensor)), name
    features = tangent_features(model, x, c)
    tensors = [*features.dense, *(t for pair in features.factors for t in pair)]
    assert tensors and not any(t.requires_grad for t in tensors)
    with pytest.raises(TypeError, match=r"c1: got torch.complex[0-9]*; wanted real numbers"):
        ntk.Gram(model, x, torch.ones(9, 4) * torch.tensor(1j, dtype=torch.complex128))


def own(source):
    """Define the same model with another forward, as an editor between two runs would."""
    space = {"torch": torch, "nn": nn}
    exec(
        "class Own(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.inner, self.last = nn.Linear(6, 8), nn.Linear(8, 4)\n"
        f"    def forward(self, x):\n        return {source}\n",
        space,
    )
    torch.manual_seed(0)
    return space["Own"]().double()


def test_an_edited_forward_is_another_model(tmp_path):
    sources = [
        "self.last(torch.tanh(self.inner(x)))",
        "self.last(torch.relu(self.inner(x)))",
        "self.last(torch.tanh(self.inner(x)) * 2.0)",
        "self.last(torch.tanh(self.inner(x)) * 3.0)",
        "self.last((lambda h: torch.sin(h))(self.inner(x)))",
        "self.last((lambda h: torch.cos(h))(self.inner(x)))",
    ]
    digests = [fingerprints.of_model(own(source)) for source in sources]
    assert len(set(digests)) == len(sources)
    assert digests == [fingerprints.of_model(own(source)) for source in sources]
    _, x, c = setting()
    ntk.Gram(own(sources[0]), x, c).save(tmp_path / "g.zarr", progress=False)
    with pytest.raises(ValueError, match="path: .* another model; wanted"):
        ntk.Gram(own(sources[1]), x, c).save(tmp_path / "g.zarr", progress=False)


def test_whole_numbers_of_any_type():
    model, x, c = setting()
    gram = ntk.Gram(model, x, c, block_size=np.int64(4), memory=np.int64(10**6))
    assert gram.block_size == 4 and type(gram.block_size) is int
    assert gram.nystrom(np.int64(3)).shape[0] == gram.nystrom(3).shape[0]
    for wrong in (4.0, "4", True, 0, None, [4]):
        with pytest.raises(ValueError, match="count: got .*; wanted an integer of at least 1"):
            ntk.TopPartners(wrong)


def test_numpy_samples_are_samples():
    model, x, c = setting()
    assert torch.equal(ntk.tangent_kernel(model, x.numpy(), c), ntk.tangent_kernel(model, x, c))
    with pytest.raises(ValueError, match=r"x1: got samples of shape \(6,\) in torch.int64; wanted what the model takes"):
        ntk.Gram(model, torch.ones(9, 6).long(), c)


def test_the_side_that_is_wrong_is_named_as_the_caller_does():
    model, x, c = setting()
    gram = ntk.Gram(model, x, c)
    for arguments, words in (
        ((x[:2, :3], c[:2]), r"^x: got samples of shape \(3,\); wanted \(6,\)"),
        ((x[:2], c[:3]), r"y: got shape \(3,\); wanted \(2,\)"),
        ((x[:2], ntk.basis), "^c: got 4 cotangents stacked"),
    ):
        with pytest.raises(ValueError, match=words):
            gram.against(*arguments)
    with pytest.raises(TypeError, match="cotangent: got .*of given samples; wanted a function of the logits"):
        ntk.kernels.empirical(model, c)


def gram():
    return ntk.Gram(*setting())


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        (lambda: ntk.Gram(torch.relu, torch.ones(3, 6), ntk.ones), TypeError, "model: got builtin.*wanted a torch.nn.Module"),
        (lambda: ntk.labelled(["a"] * 9), TypeError, "y: got list .*wanted a value for each sample"),
        (lambda: ntk.labelled(None), TypeError, "y: got NoneType"),
        (lambda: ntk.Gram(*setting()[:2], ntk.labelled), TypeError, "c1: got PerSample; wanted .* such as labelled.y., not"),
        (
            lambda: ntk.Gram(*setting()[:2], ntk.loss_gradient(torch.ones(9), lambda z, y: z.detach().sum(1))),
            ValueError,
            "loss: got values without a gradient",
        ),
        (lambda: gram().only(3), TypeError, "parameters: got 3; wanted names, patterns"),
        (lambda: gram().only("2.*"), ValueError, "parameters: got '2.[*]'; wanted .*1.weight"),
        (lambda: gram().only([torch.nn.ReLU()]), ValueError, "parameters: got ReLU; wanted .*1.weight"),
        (lambda: gram().only([]), ValueError, "parameters: got none"),
        (lambda: gram().reduce(ntk.TopPartners), TypeError, "reducer: got <class.*wanted an object with begin"),
        (lambda: gram().reduce("mean"), TypeError, "reducer: got 'mean'"),
        (lambda: ntk.gram.Histogram(["a"]), TypeError, "edges: got list"),
        (lambda: gram().nystrom(3, seed=1.5), ValueError, "seed: got 1.5"),
        (lambda: gram().projected(3, seed="a"), ValueError, "seed: got 'a'"),
        (lambda: gram().nystrom([0, 0]), ValueError, "landmarks: got .*wanted different indices"),
        (lambda: gram() @ np.ones(9), ValueError, "v: got ndarray; wanted a torch.Tensor"),
        (lambda: gram()["a"], TypeError, "row: got str .*wanted a number, a slice"),
        (lambda: gram()[None], TypeError, "row: got NoneType"),
        (lambda: gram()[{1, 2}], TypeError, "row: got set"),
        (lambda: gram()[1, "a"], TypeError, "column: got str"),
    ],
)
def test_each_wrong_argument_is_named(ask, error, words):
    with pytest.raises(error, match=words):
        ask()


def test_indices_come_in_many_kinds():
    wanted = gram().dense()
    for index in ([1, 2], (1, 2), np.array([1, 2], dtype="uint16"), torch.tensor([1, 2], dtype=torch.uint8), range(1, 3)):
        torch.testing.assert_close(gram()[index, :], wanted[1:3], rtol=1e-12, atol=1e-12)  # sums in another order
    assert gram()[[]].shape == (0, 9) and gram()[5:5].shape == (0, 9) and gram()[[], [1, 2]].shape == (0, 2)
    assert torch.equal(gram().nystrom([1, 2]), gram().nystrom(torch.tensor([1, 2])))
    assert torch.equal(ntk.Gram(*setting()[:2], ntk.labelled((np.arange(9) % 4).astype("uint16"))).dense(), wanted)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64, torch.int64, torch.uint8, torch.bool]
)
@pytest.mark.parametrize("count", [1, 7, 1024, 8 * 1024 + 3])
def test_a_checksum_sees_every_single_change_and_every_exchange(dtype, count):
    from ntk_course.basics.fingerprints import checksum

    torch.manual_seed(0)
    x = (
        torch.randint(0, 2, (count,)).to(dtype)
        if dtype in (torch.bool, torch.uint8)
        else torch.randn(count, 2)[:, 1].mul(9).to(dtype)
    )
    assert checksum(x) == checksum(x.clone()) == checksum(torch.cat([x[:1], x])[1:])  # also where it lies unaligned
    for i in {0, count // 3, count - 1}:
        changed = x.clone()
        changed[i] = ~x[i] if dtype == torch.bool else x[i] + 1
        assert checksum(changed) != checksum(x)
        if count > 1 and (other := (x != x[i]).nonzero()).numel():
            changed = x.clone()
            changed[i], changed[other[-1, 0]] = x[other[-1, 0]].clone(), x[i].clone()
            assert checksum(changed) != checksum(x)
    for words in (1, 2, 64, 1024, 2048):  # the first so many words of eight bytes change places with the next
        n = 8 * words // x.element_size()
        if 2 * n <= count and not torch.equal(x[:n], x[n : 2 * n]):
            assert checksum(torch.cat([x[n : 2 * n], x[:n], x[2 * n :]])) != checksum(x)
    assert checksum(x) != checksum(x[None]) and (count == 1 or checksum(x) != checksum(x[:-1]))


class Cancelling(nn.Module):
    """Answers that vanish at the ends and in the middle, as sums of large numbers whose rounding goes with the batch."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(1e3 * torch.randn(400, dtype=torch.float64))

    def forward(self, x):
        t = torch.tanh(1e-3 * x * self.w)
        wave = torch.sin(4 * torch.pi * x[:, 0]) * (t @ self.w)
        return (wave + t @ self.w - (t * self.w).sum(1))[:, None]


def test_rounding_of_large_numbers_that_cancel_is_not_dependence_on_the_batch():
    x = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
    model = Cancelling()
    assert relative(ntk.pntk(model, x), torch.einsum("nkd,mkd->nm", *2 * [jacobian(model, x)])) < 1e-10
