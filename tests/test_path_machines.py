"""Path kernels as kernels: symmetry, eigenvalues, and their use in a Gaussian process and a support vector machine."""

import numpy as np
import pytest
import torch
from conftest import jacobian
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct

import ntk_course as ntk
from ntk_course.kernels.paths.machines import logit_uncertainty, per_class, support_vectors, symmetric_gram, weighted_gram

DATA, TEST = ntk.load("gaussians"), ntk.load("gaussians", "test")
X, Y, XT = DATA.x.double()[:24], DATA.y[:24], TEST.x.double()[:6]


def path(activation="tanh", **options):
    torch.manual_seed(0)
    model = ntk.mlp((100, 12, 3), activation).double()
    return ntk.train_path(model, X, Y, steps=5, lr=0.2, progress=False, **options)


def flat(gram):
    """Write (N, M, K, K) as the matrix over pairs (sample, output)."""
    n, m, k, _ = gram.shape
    return gram.permute(0, 2, 1, 3).reshape(n * k, m * k)


ALL, ROLE = torch.cat([X, XT]), torch.arange(30) < 24


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_symmetric_gram_is_a_kernel_and_holds_the_path_kernel(activation):
    run = path(activation)
    mixed = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    gram = symmetric_gram(run, ALL[mixed], ROLE[mixed])[mixed.argsort()][:, mixed.argsort()]
    matrix = flat(gram)
    torch.testing.assert_close(matrix, matrix.T)
    values = torch.linalg.eigvalsh(matrix)
    assert values[0] > -1e-10 * values[-1]
    torch.testing.assert_close(gram[24:, :24], ntk.epk(run, XT, "gauss", 4).gram)


def test_symmetric_gram_entry_by_entry():
    run, total = path(), 0
    both = ntk.load("gaussians").x.double()[:4]
    role = torch.tensor([True, False, True, False])
    t, w = ntk.kernels.paths.quadrature("midpoint", 3)
    for s in range(5):
        start, end = run.weights[s], run.weights[s + 1]
        for tq, wq in zip(t, w, strict=True):
            rows = []
            for n in range(4):
                model = ntk.mlp((100, 12, 3), "tanh").double()
                torch.nn.utils.vector_to_parameters(start if role[n] else start + tq * (end - start), model.parameters())
                rows.append(jacobian(torch.nn.Sequential(model, torch.nn.LogSoftmax(1)), both[n : n + 1])[0])
            phi = torch.stack(rows)
            total = total + wq * 0.2 / 24 * torch.einsum("nid,mjd->nmij", phi, phi)
    torch.testing.assert_close(symmetric_gram(run, both, role, "midpoint", 3), total)


def test_one_input_in_two_roles_has_two_features():
    run = path()
    gram = symmetric_gram(run, torch.cat([X[:1], X[:1]]), torch.tensor([True, False]))
    assert (gram[0, 0] - gram[1, 1]).abs().max() > 1e-6


def test_the_weighted_kernel_is_not_symmetric():
    run = path(loss="cross_entropy")
    gram = weighted_gram(run, X, Y)
    asymmetry = (gram - gram.permute(1, 0, 3, 2)).norm() / gram.norm()
    assert asymmetry > 1e-3
    wanted = 0
    for s in range(5):
        model = ntk.mlp((100, 12, 3), "tanh").double()
        torch.nn.utils.vector_to_parameters(run.weights[s], model.parameters())
        j = jacobian(model, X)
        error = (torch.nn.functional.one_hot(Y, 3) - model(X).softmax(1)).norm(dim=1).detach()
        wanted = wanted + 0.2 / 24 * torch.einsum("nid,mjd,m->nmij", j, j, error)
    torch.testing.assert_close(gram, wanted)


def test_gaussian_process_against_scikit_learn():
    """A linear kernel, for which scikit-learn's own Gaussian process gives mean and deviation."""
    g = torch.Generator().manual_seed(0)
    x, role = torch.randn(20, 4, generator=g, dtype=torch.float64), torch.arange(20) < 14
    targets = torch.randn(14, 2, generator=g, dtype=torch.float64)
    gram = (x @ x.T + 1)[:, :, None, None] * torch.eye(2, dtype=torch.float64)
    ridge = 1e-2 * float((x[:14] @ x[:14].T + 1).diagonal().mean())
    mean, spread = logit_uncertainty(gram, targets, role, noise=1e-2, samples=200_000)
    draws = []
    for k in range(2):
        process = GaussianProcessRegressor(DotProduct(1.0), alpha=ridge, optimizer=None).fit(
            x[:14].numpy(), targets[:, k].numpy()
        )
        draws.append(process.predict(x[14:].numpy(), return_std=True))
    rng = np.random.default_rng(1)
    logits = np.stack([m + s * rng.standard_normal((200_000, 6)) for m, s in draws], axis=-1)
    wanted = torch.from_numpy(logits).softmax(-1)
    torch.testing.assert_close(mean, wanted.mean(0), atol=5e-3, rtol=0)
    torch.testing.assert_close(spread, wanted.std(0), atol=5e-3, rtol=0)


def test_support_vectors_classify():
    torch.manual_seed(0)
    x, y, model = DATA.x.double()[:90], DATA.y[:90], ntk.mlp((100, 12, 3), "tanh").double()
    run = ntk.train_path(model, x, y, steps=20, lr=0.2, progress=False)
    gram = symmetric_gram(run, torch.cat([x, TEST.x.double()[:60]]), torch.arange(150) < 90)
    machine = support_vectors(gram[:90, :90], y, C=10.0)
    found = machine.predict(per_class(gram[90:, :90]).sum(0).numpy())
    assert (found == TEST.y[:60].numpy()).mean() > 0.8  # chance is a third


def test_bad_input():
    run = path()
    with pytest.raises(ValueError, match="quadrature: got 'piecewise'"):
        symmetric_gram(run, X, torch.ones(24, dtype=torch.bool), "piecewise")
    with pytest.raises(ValueError, match="path: got mini-batches or momentum"):
        symmetric_gram(path(momentum=0.9), X, torch.ones(24, dtype=torch.bool))
    with pytest.raises(ValueError, match="training: got torch.int64"):
        symmetric_gram(run, X, torch.ones(24).long())
    with pytest.raises(ValueError, match="targets: got shape"):
        logit_uncertainty(torch.zeros(3, 3, 2, 2), torch.zeros(3, 2), torch.tensor([True, True, False]))
    with pytest.raises(ValueError, match="symmetric"):
        support_vectors(weighted_gram(path(loss="squared"), X, Y), Y)
