"""Layer rules: for each kind of layer, its parameters' per-sample gradients from its input and the cotangents arriving.

A rule takes the module, its input x (N, ...), and b (N, R, ...), what R cotangents a sample send back to its output. It
yields pairs (parameter, share); a share is a tensor (N, R, D), the gradient itself, or :class:`OuterProducts`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Numbers copied at a time when patches are laid out: enough to keep the cores busy, few enough to stay in their caches.
_CHUNK = {"cpu": 2**20, "cuda": 2**26}


class OuterProducts(NamedTuple):
    """A weight gradient as a sum of outer products over T positions, in G groups.

    b is (N, R, G, q, T); a is a view that reshapes to (N, G, p, T): the patches of a convolution overlap, and laying
    them out is put off until it is known how they will be used.
    """

    a: Tensor
    b: Tensor

    @property
    def sizes(self) -> tuple[int, int, int]:
        """T, p and q."""
        (n, _, groups, q, t), inputs = self.b.shape, self.a.shape.numel()
        return t, inputs // (n * groups * t), q

    def laid_out(self, rows: slice = slice(None)) -> Tensor:
        """Copy some samples' inputs into (n, G, p, T)."""
        a, (t, p, _) = self.a[rows], self.sizes
        return a.reshape(len(a), self.b.shape[2], p, t)

    def formed(self) -> Tensor:
        """Carry out the sum: the gradient itself, (N, R, G * q * p)."""
        (n, r, groups, q, t), p = self.b.shape, self.sizes[1]
        out = self.b.new_empty(n, r, groups, q, p)
        step = max(1, _CHUNK.get(self.b.device.type, 2**20) // (groups * p * t))
        for rows in (slice(i, i + step) for i in range(0, n, step)):
            out[rows] = torch.einsum("ngpt,nrgqt->nrgqp", self.laid_out(rows), self.b[rows])
        return out.flatten(2)

    def kept(self, with_bias: bool = False) -> list[tuple[Tensor, Tensor]]:
        """Lay the factors out for products, one pair (N, T, p), (N, R, T, q) for each group.

        A bias is a weight whose input is 1, so its gradient comes with the weight's for one more number in a, (N, T, p + 1).
        """
        a, b = self.laid_out().transpose(2, 3), self.b.transpose(3, 4)
        if with_bias:
            a = nn.functional.pad(a, (0, 1), value=1.0)
        return [(a[:, g].contiguous(), b[:, :, g].contiguous()) for g in range(a.shape[1])]


def join(one: Tensor | OuterProducts, other: Tensor | OuterProducts) -> Tensor | OuterProducts:
    """Add the gradients of two uses of one parameter."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one + other
    assert isinstance(one, OuterProducts) and isinstance(other, OuterProducts)  # one rule makes both
    return OuterProducts(torch.cat([one.laid_out(), other.laid_out()], dim=3), torch.cat([one.b, other.b], dim=4))


def _linear(module: nn.Linear, x: Tensor, b: Tensor):
    n, r, q = b.shape[0], b.shape[1], b.shape[-1]
    b = b.reshape(n, r, 1, -1, q).transpose(3, 4)
    yield module.weight, OuterProducts(x.reshape(n, 1, -1, x.shape[-1]).transpose(2, 3), b)
    yield module.bias, b.sum(dim=(2, 4)) if b.shape[4] > 1 else b.flatten(2)


def _conv2d(module: nn.Conv2d, x: Tensor, b: Tensor):
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    n, r, q = b.shape[:3]
    yield module.weight, OuterProducts(_patches(x, module, b.shape[3:]), b.reshape(n, r, module.groups, q // module.groups, -1))
    yield module.bias, b.sum(dim=(3, 4))


def _patches(x: Tensor, module: nn.Conv2d, size: torch.Size) -> Tensor:
    """View the windows that a convolution reads, (N, C, kh, kw, H', W'), without copying (F.unfold is several times slower)."""
    (sn, sc, sh, sw), (dh, dw), (th, tw) = x.stride(), module.dilation, module.stride
    shape = (*x.shape[:2], *module.kernel_size, *size)
    return x.as_strided(shape, (sn, sc, sh * dh, sw * dw, sh * th, sw * tw), x.storage_offset())


def _batch_norm(module: nn.modules.batchnorm._BatchNorm, x: Tensor, b: Tensor):
    along_channels = (1, -1) + (1,) * (x.dim() - 2)
    assert module.running_mean is not None and module.running_var is not None  # validate.per_sample has seen to it
    mean, var = module.running_mean.view(along_channels), module.running_var.view(along_channels)
    return _affine(module, (x - mean) * torch.rsqrt(var + module.eps), b, channels=True)


def _group_norm(module: nn.GroupNorm, x: Tensor, b: Tensor):
    return _affine(module, F.group_norm(x, module.num_groups, eps=module.eps), b, channels=True)


def _layer_norm(module: nn.LayerNorm, x: Tensor, b: Tensor):
    return _affine(module, F.layer_norm(x, module.normalized_shape, eps=module.eps), b, channels=False)


def _affine(module, x_hat: Tensor, b: Tensor, channels: bool):
    """Gradients of ``out = weight * x_hat + bias``, whose weight lives on axis 1 or on the last axes."""
    last = b.dim() - (0 if channels else module.weight.dim())
    over = tuple(range(3 if channels else 2, last))
    for p, g in ((module.weight, b * x_hat.unsqueeze(1)), (module.bias, b)):
        yield p, (g.sum(dim=over) if over else g).flatten(2)


RULES: dict[type[nn.Module], Callable] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
}
