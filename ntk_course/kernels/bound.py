r"""Kernels as functions of two sets of points: everything else (a model, a path, labels, settings) is bound beforehand.

Every kernel of the course answers ``kernel(x1, x2=None) -> (N, M)``: x1 against x2, or against itself. So a comparison of
kernels is a loop. Those of infinite width are positive semi-definite on any points; those that know a training set (along a
path, label-aware) take it as x2, or as x1 alone, and refuse other points there.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..basics import validate
from ..basics.samples import Batch, leaves
from ..gram.operator import Gram
from ..tangents.cotangents import PerSample, basis, ones
from ..training.path import TrainingPath
from .infinite.composed import Kernels
from .infinite.dense import mlp as dense
from .label_aware import lantk_hr
from .paths.kernel import PathKernel
from .paths.kernel import epk as exact
from .tangent_hierarchy import lantk_nth, two_layer_hierarchy


class Kernel(Protocol):
    """What a kernel answers to."""

    def __call__(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """Return the kernel of x1 (N, ...) with x2 (M, ...), or with itself, (N, M)."""


def empirical(model: nn.Module, cotangent: Callable[[Tensor], Tensor] = ones, **options: Any) -> Kernel:
    """Bind a model and a cotangent that needs the logits alone.

    Args:
        model: as in :class:`ntk_course.Gram`.
        cotangent: such as :func:`ntk_course.ones`; with :func:`ntk_course.basis` the K kernels of the single outputs are
            averaged, the trace of the matrix-valued kernel over K.
        **options: ``block_size``, ``memory`` and ``precision`` of :class:`ntk_course.Gram`.

    Returns:
        A kernel in the model's dtype, on its device.

    Example:
        >>> kernel = empirical(model)
        >>> kernel(x_test, x).shape, torch.allclose(kernel(x), pntk(model, x))
        (torch.Size([8, 32]), True)
    """
    if isinstance(cotangent, PerSample):
        raise TypeError(f"cotangent: got {cotangent!r}, of given samples; wanted a function of the logits, which fits any points")

    def kernel(x1: Tensor, x2: Tensor | None = None) -> Tensor:
        found = Gram(model, x1, cotangent, x2, **options).dense()
        return traced(found) if cotangent is basis else found

    return kernel


def traced(gram: Tensor) -> Tensor:
    """Average the K kernels of the single outputs of a matrix-valued one, (N, M, K, K) to (N, M).

    Example:
        >>> traced(entk(model, x)).shape
        torch.Size([32, 32])
    """
    return gram.diagonal(dim1=2, dim2=3).mean(2)


def as_matrix(gram: Tensor) -> Tensor:
    """Lay blocks (N, M, R, S) of a matrix-valued kernel out as one matrix (N R, M S): a row for each output of each sample.

    Example:
        >>> as_matrix(entk(model, x)).shape
        torch.Size([320, 320])
    """
    n, m, r, s = gram.shape
    return gram.permute(0, 2, 1, 3).reshape(n * r, m * s)


def nngp(of: Callable[..., Kernels] = dense, **settings: Any) -> Kernel:
    """Bind the settings of a network of infinite width, and take the kernel of its outputs at initialisation.

    Args:
        of: :func:`ntk_course.infinite.mlp` or :func:`ntk_course.cntk`.
        **settings: of that function.

    Returns:
        A kernel in x1's dtype, on its device.

    Example:
        >>> nngp(depth=2)(x_test, x).shape
        torch.Size([8, 32])
    """
    return lambda x1, x2=None: of(x1, x2, **settings).nngp


def ntk(of: Callable[..., Kernels] = dense, **settings: Any) -> Kernel:
    """Bind the settings of a network of infinite width, and take its tangent kernel; as :func:`nngp`.

    Example:
        >>> ntk(cntk, depth=2)(x_test[:2], x[:3]).shape
        torch.Size([2, 3])
    """
    return lambda x1, x2=None: of(x1, x2, **settings).ntk


@dataclass
class AlongPath:
    r"""A path kernel, its outputs averaged: of any points with the path's own training points, whose gradients it sums.

    Attributes:
        path: from :func:`ntk_course.train_path`.
        how: :func:`ntk_course.epk` or :func:`ntk_course.dpk`, with settings bound by :func:`functools.partial`.

    Raises:
        ValueError: x2, or x1 alone, other than the training points.

    Example:
        >>> kernel = AlongPath(path)
        >>> kernel(x_test.double(), path.x).shape, kernel.machine(x_test.double()).shape
        (torch.Size([8, 32]), torch.Size([8, 10]))
    """

    path: TrainingPath
    how: Callable[..., PathKernel] = exact
    _last: tuple[Tensor, int, PathKernel] | None = field(default=None, repr=False)

    def __call__(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """Return (N, M); of the training points with themselves the symmetric part, since each has two roles."""
        x1, x2 = validate.tensor(x1), validate.tensor(x2)
        _known(x1 if x2 is None else x2, self.path.x)
        square = traced(self._at(x1).gram)
        return (square + square.T) / 2 if x2 is None else square

    def machine(self, x: Tensor) -> Tensor:
        """Return the kernel machine's own answer (N, K): its coefficients are those of training."""
        return self._at(x).predict()

    def _at(self, x: Tensor) -> PathKernel:
        written = 0 if x.is_inference() else x._version
        if self._last is None or self._last[0] is not x or self._last[1] != written:
            self._last = (x, written, self.how(self.path, x))
        return self._last[2]


@dataclass
class LabelAwareKernel:
    """A kernel that knows the labels of its training points: LANTK-HR on any other kernel.

    Attributes:
        kernel: what labels are added to.
        x: training points (N, ...).
        y: their labels, as in :func:`ntk_course.lantk_hr`.

    Raises:
        ValueError: x2, or x1 alone, other than the training points.

    Example:
        >>> kernel = LabelAwareKernel(ntk(depth=1), x, 2 * (y > 4) - 1)
        >>> kernel(x).shape, kernel(x_test, x).shape
        (torch.Size([32, 32]), torch.Size([8, 32]))
    """

    kernel: Kernel
    x: Tensor
    y: Tensor

    def __call__(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """Return (N, N) for the training points, or (M, N) for other points with them.

        The two differ on the training points: what is added among them leaves each pair's own label out, which for new
        points there is none to leave out.
        """
        x1, x2 = validate.tensor(x1), validate.tensor(x2)
        _known(x1 if x2 is None else x2, self.x)
        train = self.kernel(self.x)
        if x2 is None:
            return lantk_hr(train, self.y).train
        cross = lantk_hr(train, self.y, self.kernel(x1, x2)).cross
        assert cross is not None
        return cross


@dataclass
class HierarchyKernel:
    """LANTK-NTH of a network with one hidden layer of ReLUs, whose mean hierarchy has a closed form.

    Attributes:
        x: training points (N, ...).
        y: their labels, -1 and 1.
        width: of the hidden layer.
        settings: of :func:`ntk_course.kernels.two_layer_hierarchy`.

    Raises:
        ValueError: x2, or x1 alone, other than the training points.

    Example:
        >>> kernel = HierarchyKernel(x[:4], 2 * (y[:4] > 4) - 1, 100, {"w_std": 2**0.5})
        >>> kernel(x[:4]).shape, kernel(x_test, x[:4]).shape
        (torch.Size([4, 4]), torch.Size([8, 4]))
    """

    x: Tensor
    y: Tensor
    width: int
    settings: dict = field(default_factory=dict)

    def __call__(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """Return (N, N) for the training points, or (M, N) for other points with them."""
        x1, x2 = validate.tensor(x1), validate.tensor(x2)
        _known(x1 if x2 is None else x2, self.x)
        n = len(self.x)
        points = self.x if x2 is None else torch.cat([self.x, x1])
        kernel = lantk_nth(*two_layer_hierarchy(points, n, self.width, **self.settings), self.y)
        return kernel if x2 is None else kernel[n:, :n]


def _known(x: Tensor | Batch, training: Tensor | Batch) -> None:
    """Refuse points that are not the training points."""
    pairs = list(zip(leaves(x), leaves(training), strict=False))
    same = type(x) is type(training) and all(a.shape == b.shape and torch.equal(a.to(b), b) for a, b in pairs)
    if x is not training and not same:
        raise ValueError(
            f"x2: got points of shape {tuple(leaves(x)[0].shape)} that are not the kernel's training points, "
            f"{tuple(leaves(training)[0].shape)}; wanted those, or x1 alone where they are x1"
        )
