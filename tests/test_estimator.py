"""The course's kernels as scikit-learn's estimators: against scikit-learn's own regression, cloned, searched, piped."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn import kernel_ridge as theirs
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ntk_course as ntk

DIGITS = ntk.load("digits")
X, Y = DIGITS.x[:80].double(), DIGITS.y[:80]
NEW = DIGITS.x[80:120].double()


@pytest.fixture
def kernel():
    torch.manual_seed(0)
    return partial(ntk.pntk, ntk.mlp((64, 16, 10)).double())


def test_regression_is_scikit_learns(kernel):
    y = (Y % 2 * 2.0 - 1).numpy()
    gram, cross = kernel(X).numpy(), kernel(NEW, X).numpy()
    wanted = theirs.KernelRidge(alpha=1e-2 * gram.diagonal().mean(), kernel="precomputed").fit(gram, y).predict(cross)
    model = ntk.KernelRidge(kernel, ridge=1e-2)
    np.testing.assert_allclose(model.fit(X, y).predict(NEW), wanted, rtol=1e-8)
    np.testing.assert_allclose(model.fit(X.numpy(), list(y)).predict(NEW.numpy()), wanted, rtol=1e-8)
    two = np.stack([y, 3 * y], 1)
    np.testing.assert_allclose(model.fit(X, two).predict(NEW), np.stack([wanted, 3 * wanted], 1), rtol=1e-8)


def test_a_linear_kernel_is_ridge_regression():
    linear = lambda a, b=None: a.flatten(1) @ (a if b is None else b).flatten(1).T  # noqa: E731
    flat = X.flatten(1).numpy()
    ridge = 0.1 * (flat**2).sum(1).mean()
    wanted = np.linalg.solve(flat.T @ flat + ridge * np.eye(64), flat.T @ Y.numpy())
    found = ntk.KernelRidge(linear, 0.1).fit(X, Y).predict(NEW)
    np.testing.assert_allclose(found, NEW.flatten(1).numpy() @ wanted, rtol=1e-7)


@pytest.mark.parametrize("names", [None, np.array(list("abcdefghij")), np.arange(10) * 7 - 3])
def test_classes_may_be_called_anything(kernel, names):
    y = Y.numpy() if names is None else names[Y.numpy()]
    model = ntk.analysis.KernelClassifier(kernel).fit(X, y)
    assert set(model.predict(NEW)) <= set(y) and model.score(X, y) == 1.0
    assert model.decision_function(NEW).shape == (40, 10)
    wanted = ntk.analysis.KernelClassifier(kernel).fit(X, Y).predict(NEW)
    np.testing.assert_array_equal(model.predict(NEW), wanted if names is None else names[wanted])


def test_two_classes_decide_by_a_sign(kernel):
    y = np.where(Y.numpy() % 2, "odd", "even")
    model = ntk.analysis.KernelClassifier(kernel).fit(X, y)
    decided = model.decision_function(NEW)
    assert decided.shape == (40,)
    np.testing.assert_array_equal(model.predict(NEW), np.where(decided > 0, "odd", "even"))
    assert RidgeClassifier().fit(X.flatten(1), y).decision_function(NEW.flatten(1)).shape == (40,)


def test_it_is_cloned_searched_and_piped(kernel):
    assert is_classifier(ntk.analysis.KernelClassifier(kernel)) and is_regressor(ntk.KernelRidge(kernel))
    fitted = ntk.analysis.KernelClassifier(kernel, ridge=0.5).fit(X, Y)
    fresh = clone(fitted)
    assert fresh.ridge == 0.5 and not hasattr(fresh, "fit_")
    search = GridSearchCV(ntk.analysis.KernelClassifier(kernel), {"ridge": [1e-4, 1e-1, 1e3]}, cv=3).fit(
        X.flatten(1).numpy(), Y.numpy()
    )
    assert search.best_params_["ridge"] < 1e3 and search.best_score_ > 0.6
    other = {"kernel": [kernel, lambda a, b=None: torch.eye(len(a), len(a if b is None else b), dtype=a.dtype)]}
    assert (
        GridSearchCV(ntk.analysis.KernelClassifier(kernel), other, cv=3)
        .fit(X.flatten(1).numpy(), Y.numpy())
        .best_params_["kernel"]
        is not None
    )
    piped = make_pipeline(StandardScaler(), ntk.analysis.KernelClassifier(kernel))
    assert cross_val_score(piped, X.flatten(1).numpy(), Y.numpy(), cv=3).mean() > 0.6
    infinite = ntk.KernelRidge(lambda a, b=None: ntk.infinite.mlp(a, b, depth=1).ntk).fit(X.flatten(1), Y.double())
    assert infinite.predict(NEW.flatten(1)).shape == (40,)


def test_errors_say_what_is_wanted(kernel):
    with pytest.raises(TypeError, match="kernel: got str; wanted a function"):
        ntk.KernelRidge("rbf").fit(X, Y)
    with pytest.raises(TypeError, match="kernel: got a function that returns Kernels; wanted a tensor"):
        ntk.KernelRidge(lambda a, b=None: ntk.infinite.mlp(a, b, depth=1)).fit(X, Y)
    with pytest.raises(ValueError, match=r"kernel: got shape \(80, 80, 10, 10\) for 80 samples; wanted one number"):
        ntk.KernelRidge(partial(ntk.entk, kernel.args[0])).fit(X, Y)
    with pytest.raises(ValueError, match="not fitted"):
        ntk.KernelRidge(kernel).predict(X)
    with pytest.raises(ValueError, match="continuous"):
        ntk.analysis.KernelClassifier(kernel).fit(X, np.linspace(0, 1, 80))
    with pytest.raises(ValueError, match="targets"):
        ntk.KernelRidge(kernel).fit(X, Y[:5])
