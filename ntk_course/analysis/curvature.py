r"""The curvature that gradient descent meets: the largest eigenvalue of the loss's Hessian, which bounds stable rates."""

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from ..basics import validate
from ..training import losses
from ..training.losses import Loss


def sharpness(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss = "cross_entropy", *, tolerance: float = 1e-6, seed: int = 0
) -> float:
    r"""Compute the largest eigenvalue of the Hessian of the mean loss over the weights.

    Gradient descent with the rate :math:`\eta` is stable on a quadratic function of sharpness :math:`\lambda` while
    :math:`\eta < 2/\lambda`; trained at large rates, networks come to :math:`\lambda\approx 2/\eta` and stay (Cohen et al., 2021).
    Where every sample fits exactly, the Hessian of the squared loss is :math:`J^\top J/N`, whose largest eigenvalue is that of
    the tangent kernel over N. Found by Lanczos iteration (ARPACK) on Hessian-vector products, one double backward pass each.

    Args:
        model: in eval mode, or without layers that differ in train mode.
        x: (N, ...), all in one batch.
        y: targets, as in :func:`ntk_course.train`.
        loss: as in :func:`ntk_course.train`.
        tolerance: relative error of the eigenvalue.
        seed: of the first vector.

    Returns:
        The algebraically largest eigenvalue, in units of loss over squared weights.

    Raises:
        TypeError, ValueError: bad inputs or targets; scipy's ArpackNoConvergence: too few iterations for the tolerance.

    Example:
        >>> sharpness(mlp((64, 16, 10)), x, y) > 0
        True
    """
    weights = [p for p in validate.parameters(model) if p.requires_grad]
    x = validate.inputs(x, weights[0], least=1)
    z = model(x)
    y = losses.targets(y, z.detach(), len(x), losses.known(loss))
    mean = losses.of_samples(losses.settled(loss, z.detach(), y), z, y).mean()
    slopes = torch.autograd.grad(mean, weights, create_graph=True)
    slope = torch.cat([s.flatten() for s in slopes])
    size = len(slope)

    def product(vector: np.ndarray) -> np.ndarray:
        v = torch.as_tensor(vector.ravel()).to(slope)
        found = torch.autograd.grad(slope @ v, weights, retain_graph=True, materialize_grads=True)
        return torch.cat([f.flatten() for f in found]).double().cpu().numpy()

    if size < 3:  # too few for ARPACK
        hessian = np.stack([product(e) for e in np.eye(size)])
        return float(np.linalg.eigvalsh(hessian)[-1])
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    first = np.random.default_rng(seed).standard_normal(size)
    return float(eigsh(operator, k=1, which="LA", v0=first, tol=tolerance, return_eigenvectors=False)[0])
