r"""The NNGP and NTK of convolutional networks with infinitely many channels (CNTK; Arora et al., 2019), block by block."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad
from tqdm.auto import tqdm

from ...basics import validate
from .dense import Kernels, expectations

POOLINGS = ("flatten", "average")


def cntk(
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    depth: int,
    pooling: str = "flatten",
    activation: str = "relu",
    w_std: float = 2**0.5,
    b_std: float = 0.0,
    kernel_size: int = 3,
    memory: int | None = None,
    progress: bool = False,
) -> Kernels:
    r"""Compute the kernels of ``depth`` convolutions and activations, a head, and one linear layer, infinitely wide.

    At positions p of one image and q of the other, with the mean A over a filter's offsets (zero outside the image),

    .. math:: \Sigma_{l+1} = \sigma_w^2\, A\,\mathbb E\,\phi(u)\phi(v) + \sigma_b^2,\quad
              \Theta_{l+1} = \Sigma_{l+1} + \sigma_w^2\, A\big(\mathbb E\,\phi'(u)\phi'(v)\; \Theta_l\big).

    The head "flatten" needs the pairs p = q only; "average" (global average pooling) all pairs of positions, which is
    H W times the work and the memory.

    Args:
        x1: images (N1, C, H, W).
        x2: (N2, C, H, W), or None for x1 again; then half of the blocks are computed.
        depth: convolutions, each followed by the activation.
        pooling: "flatten" or "average".
        activation: one of :data:`ntk_course.kernels.infinite.ACTIVATIONS`.
        w_std: sigma_w, of every layer.
        b_std: sigma_b.
        kernel_size: of the square filters, odd; the image keeps its size.
        memory: bytes that one block's covariances may take, a few such blocks are in use at a time; by default as many as
            stay in the cache on a CPU, and 256 MiB elsewhere.
        progress: show a bar over the blocks.

    Returns:
        :class:`ntk_course.kernels.infinite.Kernels` (N1, N2), in x1's dtype, on its device; computed in float64.

    Raises:
        ValueError: inputs that are not images, an unknown pooling, a depth below 1, an even filter.

    Example:
        >>> nngp, ntk = cntk(x[:4], depth=2, pooling="average")
        >>> ntk.shape
        torch.Size([4, 4])
    """
    validate.positive(depth, "depth")
    if pooling not in POOLINGS:
        raise ValueError(f"pooling: got {pooling!r}; wanted one of {POOLINGS}")
    if validate.positive(kernel_size, "kernel_size") % 2 == 0:
        raise ValueError(f"kernel_size: got {kernel_size}; wanted an odd number, so that the image keeps its size")
    x1, x2 = validate.tensor(x1), validate.tensor(x2)
    a, b = validate.double(x1, "x1"), None if x2 is None else validate.double(x2, "x2")
    if a.dim() != 4:
        raise ValueError(f"x1: got shape {tuple(a.shape)}; wanted images (N, C, H, W)")
    if b is not None and a.shape[1:] != b.shape[1:]:
        raise ValueError(f"x2: got images of shape {tuple(b.shape[1:])}; wanted {tuple(a.shape[1:])}, as in x1")

    def affine(k: Tensor) -> Tensor:
        return w_std**2 * k + b_std**2

    def conv(k: Tensor) -> Tensor:
        return affine(_filtered(k, kernel_size))

    def variances(x: Tensor) -> list[Tensor]:
        """Return the variance of every unit at every position, layer by layer, (N, H, W)."""
        found = [conv(x.square().mean(1))]
        for _ in range(depth - 1):
            found.append(conv(expectations(activation, found[-1], found[-1], found[-1])[0]))
        return found

    own = variances(a)
    other = own if b is None else variances(b)
    right = a if b is None else b
    positions = a[0, 0].numel() ** (1 if pooling == "flatten" else 2)
    if memory is None:
        memory = 2**20 if a.device.type == "cpu" else 2**28
    side = max(1, int((memory / (8 * positions)) ** 0.5))
    nngp, ntk = (a.new_empty(len(a), len(right)) for _ in range(2))
    blocks = [(i, j) for i in range(0, len(a), side) for j in range(i if b is None else 0, len(right), side)]
    for i, j in tqdm(blocks, desc="cntk", unit="block", disable=not progress):
        rows, cols = slice(i, i + side), slice(j, j + side)
        value, tangent = _block(
            a[rows], right[cols], [v[rows] for v in own], [v[cols] for v in other], pooling, activation, w_std**2, conv, affine
        )
        nngp[rows, cols], ntk[rows, cols] = value, tangent
        if b is None and i != j:
            nngp[cols, rows], ntk[cols, rows] = value.T, tangent.T
    return Kernels(nngp.to(x1.dtype), ntk.to(x1.dtype))


def _block(a, b, own, other, pooling, activation, scale, conv: Callable, affine: Callable) -> tuple[Tensor, Tensor]:
    """Carry the covariances of all pairs of two groups of images through the layers."""
    if pooling == "flatten":
        k = torch.einsum("nchw,mchw->nmhw", a, b) / a.shape[1]
        outer = [(p[:, None], q[None]) for p, q in zip(own, other, strict=True)]
    else:
        k = torch.einsum("nchw,mcij->nmhwij", a, b) / a.shape[1]
        outer = [(p[:, None, :, :, None, None], q[None, :, None, None]) for p, q in zip(own, other, strict=True)]
    sigma = conv(k)
    theta = sigma.clone()
    for i, (p, q) in enumerate(outer):
        value, slope = expectations(activation, sigma, p, q)
        theta *= slope
        if i < len(outer) - 1:
            sigma = conv(value)
            theta = sigma + conv(theta) - affine(theta.new_zeros(()))  # the mean over a filter, without the bias
    last = tuple(range(2, value.dim()))
    sigma = affine(value.mean(last))
    return sigma, sigma + scale * theta.mean(last)


def _filtered(k: Tensor, size: int) -> Tensor:
    """Average over the offsets of a filter, zero outside; over the same offset at both positions of (N, M, H, W, H, W)."""
    if k.dim() < 6:
        return avg_pool2d(k, size, 1, size // 2)
    reach, (h, w) = size // 2, k.shape[2:4]
    wide = pad(k, (reach,) * 8)
    total = torch.zeros_like(k)
    for dy in range(size):
        for dx in range(size):
            total += wide[:, :, dy : dy + h, dx : dx + w, dy : dy + h, dx : dx + w]
    return total.div_(size**2)
