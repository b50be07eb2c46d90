"""Kernel regression as scikit-learn's estimators, so that any kernel of the course can be cloned, searched and piped."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .regression import kernel_ridge

Kernel = Callable[..., Tensor]


class _Fitted(BaseEstimator):
    """What both share: a kernel of two batches, and a ridge relative to the kernel's mean diagonal."""

    def __init__(self, kernel: Kernel, ridge: float = 1e-3):
        self.kernel = kernel
        self.ridge = ridge

    def _fit(self, x, targets: Tensor) -> None:
        if not callable(self.kernel):
            raise TypeError(f"kernel: got {type(self.kernel).__name__}; wanted a function of (x1, x2=None) that returns a tensor")
        self.x_ = _tensor(x)
        gram = _numbers(self.kernel(self.x_)).double()
        if gram.shape != (len(self.x_),) * 2:
            raise ValueError(f"kernel: got shape {tuple(gram.shape)} for {len(self.x_)} samples; wanted one number for each pair")
        self.fit_ = kernel_ridge((gram + gram.T) / 2, targets.to(gram), self.ridge * float(gram.diagonal().mean()))

    def _predict(self, x) -> np.ndarray:
        check_is_fitted(self, "fit_")
        cross = _numbers(self.kernel(_tensor(x), self.x_)).double()
        return self.fit_.predict(cross).cpu().numpy()


class KernelRidge(RegressorMixin, _Fitted):
    r"""Kernel ridge regression with a kernel of the course, as a regressor of scikit-learn.

    :math:`f(x) = k(x, X)\,(K + \rho\,\bar k I)^{-1} y` with the mean :math:`\bar k` of K's diagonal, so that one grid of ridges
    serves every kernel.

    Args:
        kernel: ``kernel(x1, x2=None) -> (N1, N2)``, one number a pair: ``ntk.cntk``, a path kernel,
            ``functools.partial(ntk.pntk, model)``; what it returns may be lazy.
        ridge: rho.

    Attributes:
        x_: the training inputs, as a tensor.
        fit_: a :class:`Fit`, in double precision.

    Raises:
        TypeError, ValueError: on ``fit``, a kernel that is no function or has no number for each pair.

    Example:
        >>> from functools import partial
        >>> from sklearn.model_selection import GridSearchCV
        >>> search = GridSearchCV(KernelRidge(partial(pntk, model)), {"ridge": [1e-4, 1e-2]}, cv=2)
        >>> search.fit(x.numpy(), y.numpy() % 2 * 2.0 - 1).predict(x[:3].numpy()).shape
        (3,)
    """

    def fit(self, x, y) -> "KernelRidge":
        """Fit targets (N,) or (N, K); inputs may be arrays or tensors (N, ...)."""
        self._fit(x, torch.as_tensor(np.asarray(y, dtype=np.float64)))
        return self

    def predict(self, x) -> np.ndarray:
        """Return predictions (M,) or (M, K)."""
        return self._predict(x)


class KernelClassifier(ClassifierMixin, _Fitted):
    """Classification by kernel ridge regression to one-hot labels, as a classifier of scikit-learn.

    Args:
        kernel: as for :class:`KernelRidge`.
        ridge: relative to the mean of the kernel's diagonal.

    Attributes:
        classes_: the labels seen, sorted.
        x_: the training inputs, as a tensor.
        fit_: a :class:`Fit`, in double precision.

    Raises:
        TypeError, ValueError: on ``fit``, as :class:`KernelRidge`, and for targets that are no labels.

    Example:
        >>> from functools import partial
        >>> KernelClassifier(partial(pntk, model)).fit(x, y).score(x, y) > 0.9
        True
    """

    def fit(self, x, y) -> "KernelClassifier":
        """Fit labels (N,), of any type that can be sorted."""
        y = np.asarray(y)
        check_classification_targets(y)
        self.classes_ = unique_labels(y)
        hot = y[:, None] == self.classes_
        self._fit(x, torch.from_numpy(hot.astype(np.float64)))
        return self

    def decision_function(self, x) -> np.ndarray:
        """Return the regression's outputs (M, K), or (M,) for two classes: above 0 for the second."""
        found = self._predict(x)
        return found[:, 1] - found[:, 0] if len(self.classes_) == 2 else found

    def predict(self, x) -> np.ndarray:
        """Return labels (M,)."""
        return self.classes_[self._predict(x).argmax(1)]


def _tensor(x) -> Tensor:
    return x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))


def _numbers(kernel) -> Tensor:
    found = kernel.dense() if hasattr(kernel, "dense") else kernel
    if not isinstance(found, Tensor):
        raise TypeError(
            f"kernel: got a function that returns {type(kernel).__name__}; wanted a tensor of one number for each pair"
        )
    return found.detach()
