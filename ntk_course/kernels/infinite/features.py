"""Random features of the tangent kernel of an infinitely wide network: for more samples than a matrix of pairs can have."""

import math

import torch
from torch import Tensor, nn

from ...basics import validate
from ...models.networks import activation_module
from .activations import ACTIVATIONS
from .dense import Constant


def random_features(
    x: Tensor,
    *,
    depth: int,
    count: int,
    activation: str = "relu",
    w_std: float = 1.0,
    b_std: float = 0.0,
    seed: int = 0,
) -> Tensor:
    r"""Draw features whose inner products tend to the tangent kernel of :func:`mlp` (Zandieh et al., 2021; Han et al., 2022).

    Let z be features of a layer's :math:`\Sigma` and t of its :math:`\Theta`. With m random units :math:`u = Wz`,

    .. math:: z' = \big(\sigma_w\,\phi(u)/\sqrt m,\; \sigma_b\big), \qquad
              t' = \big(z',\; \sigma_w\, S(\phi'(u)/\sqrt m \otimes t)\big),

    where S is a TensorSketch (Pham & Pagh, 2013): two count sketches of m numbers, convolved by a Fourier transform, in place of the
    product's :math:`m\,\dim t`. The cost is linear in the samples; the error goes like :math:`1/\sqrt m`.

    Args:
        x: (N, ...), flattened.
        depth: hidden layers.
        count: m, random units of a layer, and numbers of a sketch.
        activation: one of :data:`ACTIVATIONS`.
        w_std: sigma_w, of every layer.
        b_std: sigma_b.
        seed: of the draws; the same for samples whose features are to be multiplied.

    Returns:
        (N, 2 m), or one more with biases, in x's dtype, on its device.

    Raises:
        TypeError, ValueError: bad inputs, a depth or count below 1, an unknown activation.

    Example:
        >>> f = random_features(x, depth=1, count=4096)
        >>> (f @ f.T / infinite.mlp(x, depth=1).ntk - 1).abs().mean() < 0.05
        tensor(True)
    """
    validate.positive(depth, "depth")
    validate.positive(count, "count")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: got {activation!r}; wanted one of {ACTIVATIONS}")
    x = validate.tensor(x)
    rows = validate.double(x, "x").flatten(1).to(x.dtype)
    draw = torch.Generator().manual_seed(validate.seed(seed))
    phi = activation_module(activation)
    z = Constant(w_std / math.sqrt(rows.shape[1]), b_std)(rows)
    t = z
    for _ in range(depth):
        units = z @ torch.randn(z.shape[1], count, generator=draw, dtype=torch.float64).to(z)
        value, slope = _value_and_slope(phi, units)
        z = Constant(w_std / math.sqrt(count), b_std)(value)
        t = torch.cat([z, w_std / math.sqrt(count) * _sketched(slope, t, count, draw)], 1)
    return t


def _value_and_slope(phi: nn.Module, units: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        units = units.detach().requires_grad_()
        value = phi(units)
        (slope,) = torch.autograd.grad(value.sum(), units)
    return value.detach(), slope


def _sketched(a: Tensor, b: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """Sketch the products of all of a's numbers with all of b's: the convolution of their count sketches."""
    both = []
    for t in (a, b):
        places = torch.randint(count, (t.shape[1],), generator=draw).to(t.device)
        signs = (2 * torch.randint(2, (t.shape[1],), generator=draw) - 1).to(t)
        both.append(t.new_zeros(len(t), count).index_add_(1, places, t * signs))
    return torch.fft.irfft(torch.fft.rfft(both[0]) * torch.fft.rfft(both[1]), n=count)
