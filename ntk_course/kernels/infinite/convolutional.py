r"""The NNGP and NTK of convolutional networks with infinitely many channels (CNTK; Arora et al., 2019), block by block."""

from torch import Tensor, nn

from ...basics import validate
from ...models.networks import activation_module
from .composed import Kernels, limit

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

    pixels = a[0, 0].numel()
    layers: list[nn.Module] = []
    for channels in (a.shape[1], *[2] * (depth - 1)):
        layers += [
            nn.Conv2d(channels, 2, kernel_size, padding="same", bias=b_std > 0, device="meta"),
            activation_module(activation),
        ]
    if pooling == "average":
        layers.append(nn.AdaptiveAvgPool2d(1))
    last = nn.Linear(2 * (pixels if pooling == "flatten" else 1), 1, bias=b_std > 0, device="meta")
    net = nn.Sequential(*layers, nn.Flatten(), last)
    return limit(net, x1, x2, w_std=w_std, b_std=b_std, memory=memory, progress=progress)
