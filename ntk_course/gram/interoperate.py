"""A Gram matrix as other libraries know one: scipy's LinearOperator, and that of linear_operator, on which GPyTorch stands."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import linalg
from torch import Tensor

from .sides import one_a_sample

if TYPE_CHECKING:
    from .operator import Gram


def scipy_operator(gram: "Gram") -> linalg.LinearOperator:
    """Return a scipy LinearOperator; of stacked cotangents that of the matrix (N R, M S)."""
    (n, m), (r, s) = gram.shape[:2], gram._sides.cotangents
    dtype = gram.dtype if gram.dtype == torch.float64 else torch.float32
    sides = {False: (gram, m, s), True: (gram.T, n, r)}

    def product(v: np.ndarray, transposed: bool) -> np.ndarray:
        if np.iscomplexobj(v):
            return product(v.real, transposed) + 1j * product(v.imag, transposed)
        matrix, count, stack = sides[transposed]
        v = torch.as_tensor(np.ascontiguousarray(v), dtype=gram.dtype, device=gram.device)
        wanted = (count, stack) if matrix._sides.stacked else (count,)
        out = matrix @ (v.view(wanted) if v.dim() == 1 or v.shape[1] == 1 else v.view(*wanted, -1))
        return out.to("cpu", dtype).reshape(-1, *v.shape[1:]).numpy()

    return linalg.LinearOperator(
        (n * r, m * s),
        matvec=lambda v: product(v, False),
        rmatvec=lambda v: product(v, True),
        matmat=lambda v: product(v, False),
        rmatmat=lambda v: product(v, True),
        dtype=np.dtype(str(dtype).removeprefix("torch.")),
    )


def gpytorch_operator(gram: "Gram"):
    """Return an operator of linear_operator that asks this object for products, rows and its diagonal."""
    one_a_sample(gram._sides, "linear_operator")
    try:
        from linear_operator import LinearOperator
    except ImportError as error:
        raise ImportError('it needs linear_operator: pip install "ntk_course[gpytorch]"') from error

    class GramOperator(LinearOperator):
        """The three methods that linear_operator asks for, and those it would otherwise derive from them at a higher price."""

        def __init__(self, x1: Tensor, x2: Tensor, gram: "Gram"):
            super().__init__(x1, x2, gram=gram)
            self.gram = gram

        def _matmul(self, rhs: Tensor) -> Tensor:
            return self.gram @ rhs

        def _size(self) -> torch.Size:
            return torch.Size(self.gram.shape)

        def _transpose_nonbatch(self) -> "GramOperator":
            turned = self.gram.T
            return self if turned is self.gram else GramOperator(self._args[1], self._args[0], gram=turned)

        def _diagonal(self) -> Tensor:
            return self.gram.diagonal()

        def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices) -> Tensor:
            rows, at = row_index.flatten().unique(return_inverse=True)
            return self.gram[rows][at, col_index.flatten()].view(row_index.shape)

        def _getitem(self, row_index, col_index, *batch_indices):
            return self.to_dense()[row_index, col_index]

        def _bilinear_derivative(self, left_vecs: Tensor, right_vecs: Tensor) -> tuple:
            return (None, None)

        def to_dense(self) -> Tensor:
            return self.gram.dense()

        @property
        def dtype(self) -> torch.dtype:
            return self.gram.dtype

        @property
        def device(self) -> torch.device:
            return self.gram.device

    sides = gram._sides
    one, two = (x if isinstance(x, Tensor) else sides.known.z for x in (sides.x1, sides.x2))
    return GramOperator(one, two, gram=gram)
