"""The one protocol: every kernel of the course is a function of two sets of points, and keeps to the same contract."""

import pytest
import torch
from conftest import relative

import ntk_course as ntk
from ntk_course.kernels import AlongPath, HierarchyKernel, LabelAwareKernel, empirical, nngp, traced
from ntk_course.kernels import ntk as wide

torch.manual_seed(0)
DIGITS = ntk.load("digits", limit=60)
X, Y = DIGITS.x[:14].double(), DIGITS.y[:14] % 2
OTHER = DIGITS.x[14:23].double()
MODEL = ntk.mlp((64, 12, 2)).double()
PATH = ntk.train_path(MODEL, X, Y, steps=4, lr=0.1, progress=False)
SIDES = 2 * Y - 1

# Kernels of any points, and those that know their training points.
ANY = {
    "ones": empirical(MODEL),
    "basis": empirical(MODEL, ntk.basis),
    "softmax": empirical(MODEL, lambda z: z.softmax(1), block_size=4),
    "NNGP": nngp(depth=2, w_std=2**0.5),
    "NTK": wide(depth=2, activation="silu", b_std=0.1),
    "CNTK": wide(ntk.cntk, depth=2, progress=False),
}
KNOWING = {
    "EPK": AlongPath(PATH),
    "DPK": AlongPath(PATH, ntk.dpk),
    "LANTK-HR": LabelAwareKernel(wide(depth=1), X, SIDES),
    "LANTK-NTH": HierarchyKernel(X[:6], SIDES[:6], 50, {"w_std": 2**0.5}),
}


@pytest.mark.parametrize("name", ANY)
def test_kernels_of_any_points(name):
    kernel, everything = ANY[name], torch.cat([X, OTHER])
    whole = kernel(everything)
    assert whole.shape == (23, 23) and whole.dtype == torch.float64 and not whole.requires_grad
    assert relative(whole, whole.T) < 1e-12
    assert torch.linalg.eigvalsh(whole)[0] > -1e-10 * whole.diagonal().max()
    assert relative(kernel(everything, everything), whole) < 1e-12  # two sides agree with one
    assert relative(kernel(OTHER, X), whole[14:, :14]) < 1e-12
    order = torch.randperm(23)
    assert relative(kernel(everything[order]), whole[order][:, order]) < 1e-12


@pytest.mark.parametrize("name", KNOWING)
def test_kernels_that_know_their_training_points(name):
    kernel = KNOWING[name]
    x = X[:6] if name == "LANTK-NTH" else X
    train, cross = kernel(x), kernel(OTHER, x)
    assert train.shape == (len(x), len(x)) and cross.shape == (9, len(x)) and cross.dtype == torch.float64
    assert relative(train, train.T) < 1e-12
    assert relative(kernel(OTHER[:3], x), cross[:3]) < 1e-10  # a point does not depend on its company
    assert relative(kernel(OTHER, x.clone()), cross) < 1e-12
    with pytest.raises(ValueError, match="x2: got points .* not the kernel's training points"):
        kernel(OTHER)
    with pytest.raises(ValueError, match="wanted those, or x1 alone"):
        kernel(x, x + 1)


@pytest.mark.parametrize("name", ANY | KNOWING)
def test_numpy_arrays_are_points_too(name):
    kernel, x = (ANY | KNOWING)[name], X[:6] if name == "LANTK-NTH" else X
    assert torch.equal(kernel(OTHER.numpy(), x.numpy()), kernel(OTHER, x))
    assert torch.equal(kernel(x.numpy()), kernel(x))


@pytest.mark.parametrize("name", ANY | KNOWING)
def test_points_changed_in_place_are_other_points(name):
    kernel, x, points = (ANY | KNOWING)[name], X[:6] if name == "LANTK-NTH" else X, OTHER.clone()
    before = kernel(points, x)
    points.mul_(2)
    assert relative(kernel(points, x), kernel(2 * OTHER, x)) < 1e-12
    assert relative(kernel(points, x), before) > 1e-3


def test_what_they_are_bound_to():
    """Each against the function it stands for."""
    full = ntk.entk(MODEL, OTHER, X)
    assert relative(ANY["basis"](OTHER, X), (full[..., 0, 0] + full[..., 1, 1]) / 2) < 1e-12
    assert torch.equal(traced(full), full.diagonal(dim1=2, dim2=3).mean(2))
    assert torch.equal(ANY["ones"](OTHER, X), ntk.pntk(MODEL, OTHER, X))
    assert torch.equal(ANY["NNGP"](OTHER, X), ntk.infinite.mlp(OTHER, X, depth=2, w_std=2**0.5).nngp)
    assert torch.equal(ANY["CNTK"](OTHER, X), ntk.cntk(OTHER, X, depth=2, progress=False).ntk)
    gram = ntk.infinite.mlp(X, depth=1).ntk
    assert torch.equal(KNOWING["LANTK-HR"](X), ntk.lantk_hr(gram, SIDES).train)
    exact = ntk.epk(PATH, OTHER)
    assert relative(KNOWING["EPK"](OTHER, X), (exact.gram[..., 0, 0] + exact.gram[..., 1, 1]) / 2) < 1e-12
    assert relative(KNOWING["EPK"].machine(OTHER), PATH.outputs(OTHER)) < 1e-3  # four nodes, and kinks
    assert relative(KNOWING["DPK"].machine(OTHER), ntk.dpk(PATH, OTHER).predict()) < 1e-12


def test_a_table_of_kernels_is_a_loop():
    accuracy = {}
    for name, kernel in (ANY | KNOWING).items():
        x, y = (X[:6], SIDES[:6]) if name == "LANTK-NTH" else (X, SIDES)
        fit = ntk.analysis.kernel_ridge(kernel(x), y.double(), ridge=1e-2)
        accuracy[name] = float((fit.predict(kernel(OTHER, x)).sign() == 2 * (DIGITS.y[14:23] % 2) - 1).double().mean())
    assert len(accuracy) == 10 and min(accuracy.values()) > 0.2
