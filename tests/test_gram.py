"""What every Gram matrix keeps to, whatever the model and the cotangent: the contract of the one operator."""

import warnings

import numpy as np
import pytest
import torch
from conftest import jacobian, relative
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint
from zoo import CASES

import ntk_course as ntk
from ntk_course import tangents as cotangents
from ntk_course.tangents import PerSample


def hot(z, y):
    return torch.tensor([float(k == y) for k in range(len(z))], dtype=z.dtype)


def roots(p):
    return torch.stack([p[k].sqrt() * (torch.eye(len(p), dtype=p.dtype)[k] - p) for k in range(len(p))])


# By name: the cotangent, bound to labels, and its definition for one sample's logits z (K,) and label.
COTANGENTS = {
    "ones": (lambda y: ntk.ones, lambda z, y: torch.full_like(z, len(z) ** -0.5)),
    "labelled": (ntk.labelled, lambda z, y: (2 * hot(z, y) - 1) / len(z) ** 0.5),
    "centred": (ntk.centred, lambda z, y: hot(z, y) - 1 / len(z)),
    "logit": (ntk.logit, hot),
    "log_odds": (ntk.tangents.log_odds, lambda z, y: hot(z, y) - (z.exp() * (1 - hot(z, y))) / (z.exp() * (1 - hot(z, y))).sum()),
    "loss_gradient": (ntk.loss_gradient, lambda z, y: hot(z, y) - z.exp() / z.exp().sum()),
    "squared loss": (lambda y: ntk.loss_gradient(y, "squared"), lambda z, y: hot(z, y) - z),
    "a function": (lambda y: lambda z: z.softmax(1), lambda z, y: z.exp() / z.exp().sum()),
    "basis": (lambda y: ntk.basis, lambda z, y: torch.eye(len(z), dtype=z.dtype)),
    "fisher": (lambda y: ntk.tangents.fisher, lambda z, y: roots(z.exp() / z.exp().sum())),
    "two rows": (lambda y: lambda z: torch.stack([z.sin(), z.cos()], 1), lambda z, y: torch.stack([z.sin(), z.cos()])),
}
# n of each side differ from each other and from K.
N, M = 7, 4


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def problem(name, cotangent):
    build, shape = CASES[name]
    model = build().double()
    x = torch.randn(N + M, *shape, dtype=torch.float64)
    z = model(x).detach()
    y = torch.randint(0, z.shape[1], (N + M,))
    of, definition = COTANGENTS[cotangent]
    values = torch.stack([definition(row, label).to(z) for row, label in zip(z, y.tolist(), strict=True)])
    return model, x, of(y), z, values


def part(c, rows):
    return c[rows] if isinstance(c, PerSample) else c


@pytest.mark.parametrize("cotangent", ["labelled", "basis"])
@pytest.mark.parametrize("name", [name for name in CASES if "resnet" not in name])
def test_the_contract(name, cotangent):
    """Symmetric, positive semi-definite; blocks, rows, columns, diagonal, products and two sides agree with brute force."""
    model, x, c, z, values = problem(name, cotangent)
    phi = jacobian(model, x, values.view(N + M, -1, z.shape[1]))
    wanted = torch.einsum("nrd,msd->nmrs", phi, phi)
    wanted = wanted if values.dim() == 3 else wanted[..., 0, 0]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    for block_size, memory in ((None, None), (1, None), (3, 2000), (5, 10**6)):
        gram = ntk.Gram(model, x, c, block_size=block_size, memory=memory)
        assert gram.shape == wanted.shape and gram.symmetric and len(gram) == N + M
        dense = gram.dense()
        assert dense.dtype == gram.dtype == torch.float64 and dense.device == gram.device and not dense.requires_grad
        assert relative(dense, wanted) < 1e-10
        assert relative(gram.diagonal(), wanted.diagonal(dim1=0, dim2=1).movedim(-1, 0)) < 1e-10
        for index in (
            2,
            -1,
            slice(1, 6),
            slice(None, None, -2),
            [3, 0, 3],
            torch.arange(N + M) % 2 == 0,
            (slice(2, 5), [1, 7]),
            ([0, 5, 2], torch.tensor([1, 7])),
            np.ix_([0, 5, 2], [1, 7]),
            (4, 2),
            (np.int64(4), np.int64(2)),
        ):
            got = gram[index]
            assert got.shape == expected(wanted, index).shape
            assert relative(got, expected(wanted, index)) < 1e-10, index
    flat = wanted if values.dim() == 2 else wanted.permute(0, 2, 1, 3).reshape(len(phi) * phi.shape[1], -1)
    assert relative(flat, flat.T) < 1e-12
    assert torch.linalg.eigvalsh((flat + flat.T) / 2)[0] > -1e-10 * flat.diagonal().max()
    columns = values.shape[1:-1]
    for shape in ((), (2,), (20,)):
        v = torch.randn(N + M, *columns, *shape, dtype=torch.float64)
        got = (gram @ v).reshape(len(flat), *shape)
        assert relative(got, flat @ v.reshape(len(flat), *shape)) < 1e-10
    one, other = slice(0, N), slice(N, N + M)
    two = ntk.Gram(model, x[one], part(c, one), x[other], part(c, other), block_size=3)
    assert relative(two.dense(), wanted[one, other]) < 1e-10
    assert relative(two.T.dense(), wanted[other, one]) < 1e-10
    assert relative(ntk.Gram(model, x[other], part(c, other)).against(x[one], part(c, one)).dense(), wanted[one, other]) < 1e-10
    v = torch.randn(M, *columns, dtype=torch.float64)
    assert (
        relative(two @ v, torch.einsum("nm...s,ms->n...", wanted[one, other], v) if columns else wanted[one, other] @ v) < 1e-10
    )
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def expected(wanted, index):
    """Index as NumPy's ``ix_``: rows and columns each by themselves."""
    rows, cols = index if isinstance(index, tuple) else (index, slice(None))
    rows, cols = (i.ravel() if isinstance(i, np.ndarray) else int(i) if isinstance(i, np.integer) else i for i in (rows, cols))
    n = np.arange(len(wanted))
    found = wanted[torch.as_tensor(n[rows].copy())] if not isinstance(rows, int) else wanted[rows]
    if isinstance(cols, slice) and cols == slice(None):
        return found
    if isinstance(rows, int):
        return found[cols]
    return found[:, torch.as_tensor(n[cols].copy())]


@pytest.mark.parametrize("cotangent", COTANGENTS)
def test_every_cotangent_by_brute_force(cotangent):
    model, x, c, z, values = problem("mlp tanh", cotangent)
    torch.testing.assert_close(c(z), values, rtol=1e-12, atol=1e-12)
    phi = jacobian(model, x, values.view(len(x), -1, z.shape[1]))
    wanted = torch.einsum("nrd,msd->nmrs", phi, phi)
    for block_size in (None, 2):  # it sees the logits of a block, in whatever blocks they come
        got = ntk.tangent_kernel(model, x, c, block_size=block_size)
        assert relative(got, wanted if values.dim() == 3 else wanted[..., 0, 0]) < 1e-12


def test_every_named_cotangent_is_in_the_list():
    public = {name for name in cotangents.__all__ if getattr(getattr(cotangents, name), "__module__", "").endswith(".cotangents")}
    assert public - {"signs", "PerSample"} <= COTANGENTS.keys(), "add it to COTANGENTS, with its definition"


def test_a_cotangent_of_some_samples_is_that_of_the_others_left_out():
    z, y = torch.randn(6, 4, dtype=torch.float64), torch.tensor([3, 0, 1, 1, 2, 0])
    assert ntk.labelled(y)[2:4](z[2:4]).tolist() == ntk.labelled(y)(z)[2:4].tolist()


def poisson(z, y):
    return (z.exp() - y[:, None] * z).sum(1)


@pytest.mark.parametrize(
    ("loss", "function"),
    [
        ("cross_entropy", lambda z, y: nn.functional.cross_entropy(z, y, reduction="none")),
        ("squared", lambda z, y: (z - nn.functional.one_hot(y, 4)).square().sum(1) / 2),
        (lambda z, y: nn.functional.cross_entropy(z, y, reduction="none", label_smoothing=0.1),) * 2,
        (poisson, poisson),
    ],
    ids=["cross entropy", "squared", "smoothed", "poisson"],
)
def test_loss_gradients_by_finite_differences(loss, function):
    z, y, h = torch.randn(5, 4, dtype=torch.float64), torch.tensor([3, 0, 1, 1, 2]), 1e-6
    got = ntk.loss_gradient(y, loss)(z)
    for k in range(4):
        step = h * nn.functional.one_hot(torch.tensor(k), 4)
        slope = (function(z + step, y) - function(z - step, y)) / (2 * h)
        torch.testing.assert_close(got[:, k], -slope, rtol=1e-7, atol=1e-8)


def test_a_loss_that_is_averaged_is_refused():
    """Its gradient would change with the block."""
    model, x, y = nn.Linear(6, 4), torch.randn(5, 6), torch.arange(5) % 4
    for loss in (nn.functional.cross_entropy, lambda z, y: nn.functional.cross_entropy(z, y, reduction="none")[:, None]):
        with pytest.raises(ValueError, match="loss: got torch.float32 of shape .*wanted one real number for each"):
            ntk.Gram(model, x, ntk.loss_gradient(y, loss))
    with pytest.raises(ValueError, match="loss: got 'hinge'; wanted one of"):
        ntk.loss_gradient(y, "hinge")


def test_targets_of_a_regression_are_a_cotangent_too():
    model, x, y = ntk.mlp((6, 8, 1)).double(), torch.randn(9, 6).double(), torch.randn(9)
    c = ntk.loss_gradient(y.double(), lambda z, y: (z[:, 0] - y).square() / 2)
    phi = jacobian(model, x)[:, 0] * (y - model(x)[:, 0].detach())[:, None]
    assert relative(ntk.tangent_kernel(model, x, c, block_size=4), phi @ phi.T) < 1e-12


@pytest.mark.parametrize(
    ("c", "error", "words"),
    [
        (ntk.labelled(torch.arange(4)), ValueError, r"y: got shape \(4,\); wanted \(5,\)"),
        (ntk.labelled(torch.full((5,), 10)), ValueError, "y: got labels from 10 to 10; wanted 0 to 9"),
        (ntk.labelled(torch.zeros(5)), TypeError, "y: got dtype torch.float32"),
        (lambda z: z[:, :3], ValueError, r"c1: got shape \(1, 3\); wanted \(1, 10\)"),
        (lambda z: z / 0, ValueError, "c1: got .* non-finite"),
        (lambda z: z.tolist(), TypeError, "c1: got list; wanted a torch.Tensor"),
        ("labelled", TypeError, "c1: got str; wanted a torch.Tensor"),
        (PerSample(lambda z, t: z * t[:, None], torch.ones(3)), ValueError, r"y: got shape \(3,\); wanted a value for each of 5"),
    ],
)
def test_bad_cotangents_are_named_before_anything_is_computed(c, error, words):
    with pytest.raises(error, match=words):
        ntk.Gram(nn.Linear(6, 10), torch.randn(5, 6), c)


def test_sides_with_different_numbers_of_cotangents():
    """R and S decide on one layout together."""
    model = ntk.small_cnn(1, 8, (4, 6), 10).double()
    x = torch.randn(9, 1, 8, 8).double()
    c1, c2 = torch.randn(5, 7, 10).double(), torch.randn(4, 1, 10).double()
    full = ntk.entk(model, x[:5], x[5:])
    wanted = torch.einsum("nmij,nri,msj->nmrs", full, c1, c2)
    assert relative(ntk.tangent_kernel(model, x[:5], c1, x[5:], c2), wanted) < 1e-12
    with pytest.raises(ValueError, match="c2: got no cotangents stacked"):
        ntk.Gram(model, x[:5], c1, x[5:], ntk.ones)


def test_a_function_of_the_logits_serves_both_sides():
    model, x = ntk.mlp((6, 8, 10)).double(), torch.randn(9, 6).double()
    for c in (ntk.ones, ntk.basis, lambda z: z.softmax(1)):
        assert torch.equal(ntk.Gram(model, x[:5], c, x[5:]).dense(), ntk.Gram(model, x[:5], c, x[5:], c).dense())
    for c in (ntk.labelled(torch.arange(5)), torch.randn(5, 10)):
        with pytest.raises(ValueError, match="c2: got None; wanted x2 and c2 together"):
            ntk.Gram(model, x[:5], c, x[5:])


def test_nothing_is_computed_until_asked_and_the_model_runs_no_more_than_it_must():
    model, x, y = ntk.mlp((6, 8, 10)), torch.randn(40, 6), torch.arange(40) % 10
    sizes = []
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    gram = ntk.Gram(model, x, ntk.labelled(y))
    assert sizes == [1, 1, 1, 2, 3, 15]  # the probe
    sizes.clear()
    gram.dense()
    assert sizes == [40]
    assert gram.keep()
    sizes.clear()
    gram[3], gram[:5], gram[[1, 2], [3, 4]], gram.diagonal(), gram.dense(), gram.reduce(ntk.TopPartners(2), progress=False)
    assert sizes == []


def step(model, x, c):
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def by_data(model, x, c):
    for p in model.parameters():
        p.data.mul_(1.1)


def permuted(model, x, c):
    model[1].weight.data.copy_(model[1].weight.data.flip(0))


def columns_swapped(model, x, c):
    model[1].weight.data.copy_(model[1].weight.data.flip(1))


@torch.no_grad()
def in_place(model, x, c):
    model[1].weight[0, 0] += 1


def loaded(model, x, c):
    model.load_state_dict(ntk.mlp((6, 8, 10), "tanh").double().state_dict())


def replaced(model, x, c):
    model[1].weight = nn.Parameter(model[1].weight.detach() * 2)


def samples(model, x, c):
    x.mul_(2)


def labels(model, x, c):
    c.values.copy_(c.values.flip(0))


@pytest.mark.parametrize("change", [step, by_data, permuted, columns_swapped, in_place, loaded, replaced, samples, labels])
def test_kept_features_do_not_outlive_what_they_are_of(change):
    model, x, y = ntk.mlp((6, 8, 10), "tanh").double(), torch.randn(12, 6).double(), torch.arange(12) % 10
    c = ntk.labelled(y.clone())
    gram = ntk.Gram(model, x, c)
    test = gram.against(x[:3] + 1, ntk.labelled(y[:3]))
    before, other = gram[4], x[:3] + 1
    nn.functional.cross_entropy(model(x), y).backward()
    change(model, x, c)
    wanted = ntk.lpntk(model, x, c.values)
    assert relative(before, wanted[4]) > 1e-4
    assert relative(gram[4], wanted[4]) < 1e-12
    assert relative(gram.dense(), wanted) < 1e-12
    assert relative(test[:], ntk.lpntk(model, other, y[:3], x, c.values)) < 1e-12


@pytest.mark.parametrize(
    "c",
    [lambda z: z - z.mean(0), lambda z: z / z.norm(), lambda z: torch.randn_like(z), lambda z: z.softmax(0), lambda z: z.flip(0)],
    ids=["centred over the block", "norm of the block", "noise", "softmax over samples", "flipped"],
)
def test_a_cotangent_that_looks_beside_it_is_refused(c):
    with pytest.raises(ValueError, match="c1: got a function whose cotangent of one sample depends on the samples beside it"):
        ntk.Gram(nn.Linear(6, 10), torch.randn(5, 6), c)


def test_it_says_what_it_is():
    model, x = ntk.mlp((6, 8, 10)), torch.randn(4, 6)
    text = repr(ntk.Gram(model, x, ntk.ones))
    assert text == "Gram(4 x 4, torch.float32, cpu, symmetric; 2 of 2 weights in factors, blocks of 512)"
    assert repr(ntk.labelled(torch.arange(4))) == "labelled(y)"
    gram = ntk.Gram(model, x, ntk.ones)
    for index, error, words in (
        (4, IndexError, "row: got 4; wanted -4 to 3"),
        ([0, 9], IndexError, "row: got 0 to 9"),
        ((0, -5), IndexError, "column: got -5"),
        ([0.5], TypeError, "row: got"),
        (torch.tensor([True]), IndexError, "row: got a mask of 1; wanted 4"),
        ((1, 2, 3), IndexError, r"index: got \(1, 2, 3\); wanted rows, or rows and columns"),
        ((None, 2), IndexError, r"index: got \(None, 2\); wanted rows"),
        ((Ellipsis, 2), IndexError, r"index: got \(Ellipsis, 2\); wanted rows"),
    ):
        with pytest.raises(error, match=words):
            gram[index]
    assert len(list(gram)) == 4 and torch.equal(gram[...], gram.dense())
    with pytest.raises(ValueError, match="diagonal: got a matrix of 3 x 4"):
        ntk.Gram(model, x[:3], ntk.ones, x, ntk.ones).diagonal()


class NoForwardRule(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0].cos()


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = self.inner(x).chunk(3, 2)
        return self.last(nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0].mean(1))


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.Sequential(nn.Linear(4, 6), nn.Tanh()), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(checkpoint(self.inner, x.mean(1), use_reentrant=False))


class OwnFunction(Checkpointed):
    def forward(self, x):
        return self.last(NoForwardRule.apply(self.inner(x.mean(1))))


@pytest.mark.parametrize("build", [Attention, Checkpointed, OwnFunction])
@pytest.mark.parametrize("columns", [None, 1, 20])
def test_a_product_without_forward_mode_goes_by_blocks(build, columns):
    model, x = build().double(), torch.randn(9, 5, 4).double()
    gram = ntk.Gram(model, x, ntk.ones)
    v = torch.randn(9, *([] if columns is None else [columns])).double()
    dense = gram.dense()
    assert relative(gram @ v, dense @ v) < 1e-12
    assert relative(gram.quadratic(v), ((dense @ v) * v).sum(0)) < 1e-12


# ----- as other libraries know it


def test_scipy_finds_its_eigenvalues():
    from scipy.sparse.linalg import eigsh

    model, x = ntk.mlp((6, 8, 3)).double(), torch.randn(20, 6).double()
    gram = ntk.Gram(model, x, ntk.ones)
    wanted = torch.linalg.eigvalsh(gram.dense())[-3:]
    np.testing.assert_allclose(eigsh(gram.scipy(), k=3)[0], wanted, rtol=1e-9)
    two = ntk.Gram(model, x[:8], ntk.basis, x[8:], ntk.basis).scipy()
    flat = ntk.entk(model, x[:8], x[8:]).permute(0, 2, 1, 3).reshape(24, 36).numpy()
    v, w = np.random.default_rng(0).normal(size=(36, 2)), np.random.default_rng(1).normal(size=24)
    np.testing.assert_allclose(two @ v, flat @ v, rtol=1e-9)
    np.testing.assert_allclose(two.T @ w, flat.T @ w, rtol=1e-9)
    np.testing.assert_allclose(two @ (v + 1j * v[::-1]), flat @ (v + 1j * v[::-1]), rtol=1e-9)


def test_scikit_learn_takes_it_as_a_precomputed_kernel():
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import SVC

    data = ntk.load("digits", limit=150)
    model = ntk.mlp((64, 32, 10)).double()
    train = ntk.Gram(model, data.x[:100].double(), ntk.ones)
    svc = SVC(kernel="precomputed").fit(train, data.y[:100])
    test = train.against(data.x[100:].double(), ntk.ones)
    assert svc.predict(test).tolist() == svc.predict(test.dense().numpy()).tolist()
    assert (svc.predict(test) == data.y[100:].numpy()).mean() > 0.8
    folds = cross_val_score(SVC(kernel="precomputed"), train, data.y[:100], cv=4)  # cuts it with numpy.ix_
    assert folds.tolist() == cross_val_score(SVC(kernel="precomputed"), train.dense().numpy(), data.y[:100], cv=4).tolist()


def test_the_analyses_take_it_as_a_matrix():
    data = ntk.load("digits", limit=60)
    gram = ntk.Gram(ntk.mlp((64, 32, 10)).double(), data.x.double(), ntk.ones)
    targets, signs = nn.functional.one_hot(data.y, 10).double(), 2.0 * (data.y > 4) - 1
    for analysis in (
        lambda k: ntk.analysis.kernel_ridge(k, targets, 1e-3).coefficients,
        lambda k: ntk.analysis.leave_one_out(k, targets, 1e-3),
        lambda k: ntk.analysis.gradient_flow(k, k, targets, 0.1),
        lambda k: ntk.analysis.alignment(k, data.y),
        lambda k: ntk.analysis.spectrum(k, targets)[1],
        lambda k: ntk.analysis.cosines(k),
        lambda k: ntk.analysis.relations(k),
        lambda k: ntk.analysis.redundant(k),
        lambda k: ntk.analysis.closest_partners(k).index,
        lambda k: ntk.lantk_hr(k, signs.long(), k).cross,
    ):
        assert torch.equal(analysis(gram), analysis(gram.dense()))
    fit, test = ntk.analysis.kernel_ridge(gram, targets, 1e-3), gram.against(data.x[:5].double(), ntk.ones)
    assert relative(fit.predict(test), fit.predict(test.dense())) < 1e-9


def test_gpytorch_solves_with_it():
    pytest.importorskip("linear_operator")
    model, x = ntk.mlp((6, 8, 3)).double(), torch.randn(20, 6).double()
    gram = ntk.Gram(model, x, ntk.ones)
    dense, b = gram.dense(), torch.randn(20, 2).double()
    operator = gram.linear_operator()
    assert relative(operator @ b, dense @ b) < 1e-12
    assert relative(operator.diagonal(), dense.diagonal()) < 1e-12
    noisy = operator.add_jitter(1.0)
    assert relative(noisy.solve(b), torch.linalg.solve(dense + torch.eye(20), b)) < 1e-6
    assert relative(operator[3:5, 2], dense[3:5, 2]) < 1e-12
    assert relative(operator.to_dense(), dense) < 1e-12
    two = ntk.Gram(model, x[:8], ntk.ones, x[8:], ntk.ones).linear_operator()
    assert relative(two.mT @ b[:8], dense[:8, 8:].T @ b[:8]) < 1e-12


# ----- algebra, for any numbers


def linear():
    torch.manual_seed(0)
    return ntk.mlp((3, 5, 4), "tanh").double()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(1, 9), m=st.integers(1, 9), block=st.integers(1, 10), memory=st.integers(1, 20_000), seed=st.integers(0, 99))
def test_any_cut_gives_the_same_matrix(n, m, block, memory, seed):
    generator = torch.Generator().manual_seed(seed)
    x, c = (torch.randn(n + m, k, generator=generator, dtype=torch.float64) for k in (3, 4))
    model = linear()
    whole = ntk.tangent_kernel(model, x, c)
    gram = ntk.Gram(model, x, c, block_size=block, memory=memory)
    seen = torch.zeros(n + m, n + m)
    for rows, cols, part in gram.blocks():
        seen[rows, cols] += 1
        assert relative(part, whole[rows, cols]) < 1e-9
    assert bool((seen == 1).all())
    two = ntk.Gram(model, x[:n], c[:n], x[n:], c[n:], block_size=block, memory=memory)
    assert relative(two.dense(), whole[:n, n:]) < 1e-9


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_merging_partners_is_associative_and_order_free(data):
    n, k = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
    values = data.draw(st.lists(st.integers(-3, 3), min_size=n * n, max_size=n * n))  # with many ties
    matrix = torch.tensor(values, dtype=torch.float64).view(n, n)
    size = data.draw(st.integers(1, n))
    cuts = [slice(i, min(i + size, n)) for i in range(0, n, size)]
    blocks = data.draw(st.permutations([(r, c) for r in cuts for c in cuts]))

    class Stand:
        shape, dtype, device, symmetric = (n, n), torch.float64, torch.device("cpu"), False

    top, states = ntk.TopPartners(k), []
    for rows, cols in blocks:
        states.append(top.begin(Stand))
        top.fold(states[-1], rows, cols, matrix[rows, cols])
    while len(states) > 1:
        i = data.draw(st.integers(0, len(states) - 2))
        states[i : i + 2] = [top.merge(*states[i : i + 2])]
    value, index = matrix.sort(dim=1, descending=True, stable=True)
    found = top.finish(states[0])
    assert torch.equal(found.value, value[:, :k]) and torch.equal(found.index, index[:, :k])
