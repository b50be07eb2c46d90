"""Products without entries, and approximations: against the exact matrix, and with the errors that theory gives."""

import numpy as np
import pytest
import torch
from conftest import relative
from scipy.sparse.linalg import aslinearoperator, cg
from torch import nn

import ntk_course as ntk
from ntk_course.models.functional import only


class Tied(nn.Module):
    """A weight used twice, a bare parameter and a frozen one."""

    def __init__(self):
        super().__init__()
        self.inner, self.scale = nn.Linear(8, 8), nn.Parameter(torch.rand(8))
        self.frozen = nn.Parameter(torch.rand(8), requires_grad=False)

    def forward(self, x):
        return self.inner(torch.tanh(self.inner(x) * self.scale) + self.frozen)


def resnet_like():
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10)]
    model = nn.Sequential(*layers).eval()
    model[1].running_mean.normal_()
    return model


MODELS = {
    "mlp": (lambda: ntk.mlp((8, 12, 10), "tanh"), (8,)),
    "convolutions": (resnet_like, (1, 8, 8)),
    "tied": (Tied, (8,)),
}


@pytest.fixture(params=MODELS)
def setting(request):
    build, shape = MODELS[request.param]
    model = build().double()
    x = torch.randn(40, *shape, dtype=torch.float64)
    k = model(x[:1]).shape[1]
    return model, x, torch.randn(40, k, dtype=torch.float64)


@pytest.mark.parametrize("batch_size", [256, 7])
def test_products_with_vectors(setting, batch_size, monkeypatch):
    monkeypatch.setattr("ntk_course.gram.implicit._BATCH", {"cpu": batch_size})
    model, x, c = setting
    matrix = ntk.tangent_kernel(model, x, c)
    v = torch.randn(40, 3, dtype=torch.float64)
    assert relative((ntk.Gram(model, x, c) @ v), matrix @ v) < 1e-12
    assert relative((ntk.Gram(model, x, c) @ v[:, 0]), matrix @ v[:, 0]) < 1e-12
    some = ntk.Gram(model, x[:9], c[:9], x[9:], c[9:]) @ v[9:]
    assert relative(some, matrix[:9, 9:] @ v[9:]) < 1e-12
    forms = ntk.Gram(model, x, c).quadratic(v)
    assert relative(forms, (v * (matrix @ v)).sum(0)) < 1e-12
    assert relative(ntk.Gram(model, x, c).quadratic(v[:, 1]), forms[1]) < 1e-12
    assert all(p.grad is None for p in model.parameters())


def test_conjugate_gradients_need_no_matrix(setting):
    model, x, c = setting
    b = torch.randn(40, dtype=torch.float64).numpy()

    operator = ntk.Gram(model, x, c).scipy() + aslinearoperator(np.eye(40))
    solution, info = cg(operator, b, rtol=1e-12, maxiter=400)
    wanted = torch.linalg.solve(ntk.tangent_kernel(model, x, c) + torch.eye(40), torch.from_numpy(b))
    assert info == 0
    assert relative(torch.from_numpy(solution), wanted) < 1e-8


def test_bad_vectors_are_named(setting):
    model, x, c = setting
    for v, words in (
        (torch.ones(39, dtype=torch.float64), r"v: got shape \(39,\); wanted a torch.Tensor \(40,\)"),
        (torch.ones(40, 1, 1, dtype=torch.float64), "v: got shape"),
        (torch.ones(40), "v: got torch.float32 .*wanted torch.float64"),
    ):
        for call in (ntk.Gram.__matmul__, ntk.Gram.quadratic):
            with pytest.raises(ValueError, match=words):
                call(ntk.Gram(model, x, c), v)
    with pytest.raises(ValueError, match=r"v: got shape \(40,\); wanted a torch.Tensor \(40, 2\)"):
        ntk.Gram(model, x, torch.stack([c, c], 1)) @ torch.ones(40, dtype=torch.float64)


def test_projections_have_the_error_of_johnson_and_lindenstrauss():
    model, x = ntk.mlp((8, 12, 10), "tanh").double(), torch.randn(20, 8, dtype=torch.float64)
    c = torch.randn(20, 10, dtype=torch.float64)
    matrix = ntk.tangent_kernel(model, x, c)
    own = matrix.diagonal()
    bound = (own[:, None] * own + matrix**2) ** 0.5
    for dim in (64, 1024):
        errors = []
        for seed in range(30):
            f = ntk.Gram(model, x, c).projected(dim, seed=seed)
            assert f.shape == (20, dim)
            errors.append((f @ f.T - matrix) / bound * dim**0.5)
        errors = torch.stack(errors)
        assert errors.mean(0).abs().max() < 5 / 30**0.5  # no bias, within five standard errors, in any entry
        assert 0.5 < errors.std() <= 1.05  # Rademacher signs have a little less than the bound


def test_projections_do_not_depend_on_memory_or_on_the_other_samples():
    model, x = ntk.lenet5(), torch.randn(12, 1, 28, 28)
    c = torch.randn(12, 10)
    whole = ntk.Gram(model, x, c).projected(150, seed=3)
    parts = ntk.Gram(model, x, c, memory=2**25).projected(150, seed=3)  # one drawing of columns at a time
    assert relative(parts, whole) < 1e-5
    assert relative(ntk.Gram(model, x[5:8], c[5:8]).projected(150, seed=3), whole[5:8]) < 1e-5
    assert relative(ntk.Gram(model, x, c).projected(150, seed=4), whole) > 1
    with pytest.raises(ValueError, match="dim: got 0"):
        ntk.Gram(model, x, c).projected(0)


def test_nystrom_is_exact_for_the_landmarks_and_below_everywhere(setting):
    model, x, c = setting
    matrix = ntk.tangent_kernel(model, x, c)
    chosen = torch.tensor([3, 17, 5, 30, 1])
    f = ntk.Gram(model, x, c).nystrom(chosen)
    assert relative((f @ f.T)[chosen], matrix[chosen]) < 1e-8
    assert torch.linalg.eigvalsh(matrix - f @ f.T)[0] > -1e-9 * matrix.diagonal().max()
    columns, within = matrix[:, chosen], matrix[chosen][:, chosen]
    assert relative(f @ f.T, columns @ torch.linalg.solve(within, columns.T)) < 1e-8
    everything = ntk.Gram(model, x, c).nystrom(40)
    assert relative(everything @ everything.T, matrix) < 1e-7
    errors = [relative(f @ f.T, matrix) for f in (ntk.Gram(model, x, c).nystrom(m, seed=1) for m in (2, 10, 30))]
    assert errors[0] > errors[1] > errors[2]


def test_equal_landmarks_count_once():
    """Samples twice over: half of the landmarks' directions are rounding, and are left out."""
    model, x = ntk.mlp((8, 12, 10)), torch.randn(10, 8).repeat(2, 1)
    c = torch.randn(10, 10).repeat(2, 1)
    f = ntk.Gram(model, x, c).nystrom(20)
    assert f.shape[1] <= 10
    assert relative(f @ f.T, ntk.tangent_kernel(model, x, c)) < 1e-3


@pytest.mark.parametrize(
    ("landmarks", "words"),
    [
        (41, "landmarks: got 41 for 40 samples; wanted at most 40"),
        (0, "landmarks: got 0"),
        (torch.tensor([1, 1]), "different indices"),
        (torch.tensor([0.5]), "different indices"),
        (torch.tensor([40]), "indices 40 to 40; wanted 0 to 39"),
    ],
)
def test_bad_landmarks_are_named(landmarks, words):
    model, x, c = ntk.mlp((8, 10)), torch.randn(40, 8), torch.randn(40, 10)
    with pytest.raises(ValueError, match=words):
        ntk.Gram(model, x, c).nystrom(landmarks)
    with pytest.raises(ValueError, match="none whose tangent features"):
        ntk.Gram(model, x, torch.zeros(40, 10)).nystrom(3)


def last(gram):
    """Compute the share of the last layer."""
    return list(gram.per_layer().values())[-1].dense()


@pytest.mark.filterwarnings("ignore:tangents of")
def test_the_shares_of_the_layers_add_up(setting):
    model, x, c = setting
    gram = ntk.Gram(model, x, c)
    shares = gram.per_layer()
    assert relative(sum(share.dense() for share in shares.values()), gram.dense()) < 1e-12
    v = torch.randn(40, dtype=torch.float64)
    for name, share in shares.items():
        with only(model, model.get_submodule(name).parameters(recurse=False)):
            assert relative(share.dense(), ntk.tangent_kernel(model, x, c)) < 1e-12
        assert relative(share @ v, share.dense() @ v) < 1e-10
    with pytest.raises(ValueError, match="parameters: got .no_such"):
        gram.only(["no_such"])


def test_last_layer_in_closed_form():
    model = ntk.mlp((8, 12, 16, 10)).double()
    x, c = torch.randn(9, 8, dtype=torch.float64), torch.randn(9, 10, dtype=torch.float64)
    h = model[:-1](x).detach()
    wanted = (c @ c.T) * (h @ h.T + 1)
    assert relative(last(ntk.Gram(model, x, c)), wanted) < 1e-12
    assert relative(last(ntk.Gram(model, x[:4], c[:4], x[4:], c[4:])), wanted[:4, 4:]) < 1e-12
    assert all(p.requires_grad for p in model.parameters())
    assert bool((last(ntk.Gram(model, x, c)).diagonal() < ntk.tangent_kernel(model, x, c).diagonal()).all())
    assert list(ntk.Gram(_Bare().double(), x, c[:, :8]).per_layer()) == [""]  # its own parameters, no layer's


class _Bare(nn.Module):
    """No layer at all, one parameter."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return x * self.w


def test_only_some_parameters_count_and_all_come_back():
    model = ntk.mlp((8, 12, 10))
    model[1].bias.requires_grad_(False)
    before = [p.requires_grad for p in model.parameters()]
    with pytest.raises(KeyError), only(model, model[-1].parameters()):
        assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
        raise KeyError
    assert [p.requires_grad for p in model.parameters()] == before
