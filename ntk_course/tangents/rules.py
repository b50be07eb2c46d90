"""Rules: for each operation of PyTorch, the per-sample gradients of a parameter it uses.

A rule takes a use (:class:`ntk_course.tangents.graph.Use`) and how its operation sees the samples. It reads the operation's
other input off the graph, where PyTorch has saved it for the backward pass, and returns a function from what R cotangents a
sample send back to the operation's output, (n, R, T, ...), to a share (:mod:`ntk_course.tangents.shares`); or None where it
does not apply. What it read is at hand then, though the backward pass has freed the graph.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .graph import Use
from .shares import Lookups, OuterProducts, Share


class Seen(NamedTuple):
    """How an operation sees the samples.

    Attributes:
        samples: n.
        axis: of the output, which holds n times T entries.
        positions: T, those of one sample.
        inner: a sample's entries lie side by side; otherwise all samples' first entries come first.
    """

    samples: int
    axis: int
    positions: int
    inner: bool

    def first(self, t: Tensor, axis: int | None = None) -> Tensor:
        """Bring the samples to the front, (n, T, ...), then their positions, then the other axes."""
        t = t.movedim(self.axis if axis is None else axis, 0)
        if self.inner:
            return t.unflatten(0, (self.samples, self.positions))
        return t.unflatten(0, (self.positions, self.samples)).transpose(0, 1)

    def stacked(self, arriving: "list[Tensor] | Tensor") -> Tensor:
        """Bring what arrives for R cotangents, of each or in one tensor (R, ...), to (n, R, T, ...)."""
        if isinstance(arriving, Tensor):
            t = arriving.movedim(self.axis + 1, 0)  # (n T, R, ...)
            if self.inner:
                return t.unflatten(0, (self.samples, self.positions)).transpose(1, 2)
            return t.unflatten(0, (self.positions, self.samples)).permute(1, 2, 0, *range(3, t.dim() + 1))
        firsts = [self.first(t) for t in arriving]
        return torch.stack(firsts, 1) if len(firsts) > 1 else firsts[0].unsqueeze(1)


Finish = Callable[[Tensor], Share]


def rule_of(use: Use, seen: Seen) -> Finish | None:
    """Return how what arrives at a use becomes a share, or None where no rule applies."""
    rule = RULES.get(use.kind)
    return None if rule is None else rule(use, seen)


def _summed(use: Use, seen: Seen, factor: Tensor | None = None, like: torch.Size | None = None) -> Finish | None:
    """Multiply by a factor of the output's shape, and sum over all that an input was broadcast over, but for the samples."""
    like, out = use.given if like is None else like, use.shape
    full = (1,) * (len(out) - len(like)) + tuple(like)
    if full[seen.axis] != 1:
        return None
    rest = [size for axis, size in enumerate(full) if axis != seen.axis]
    wide = [size for axis, size in enumerate(out) if axis != seen.axis]
    over = [2, *(3 + i for i, (size, broad) in enumerate(zip(rest, wide, strict=True)) if size == 1 and broad > 1)]
    if factor is None:
        return lambda b: b.sum(over).reshape(*b.shape[:2], -1)
    by = seen.first(factor.expand(out)).unsqueeze(1)
    return lambda b: (b * by).sum(over).reshape(*b.shape[:2], -1)


def _scaled(finish: Finish | None, factor: float) -> Finish | None:
    if finish is None or factor == 1:
        return finish
    return lambda b: finish(b * factor)


def _product(a: Tensor, turned: bool) -> Finish:
    """Give outer products of inputs a, (n, T, p) or (n, T, G, p), and what arrives, (n, R, T, q) or (n, R, T, G, q)."""
    if a.dim() == 3:
        a = a.transpose(1, 2).unsqueeze(1)
        return lambda b: OuterProducts(a, b.transpose(2, 3).unsqueeze(2), turned)
    a = a.permute(0, 2, 3, 1)
    return lambda b: OuterProducts(a, b.permute(0, 1, 3, 4, 2), turned)


def _matmul(use: Use, seen: Seen) -> Finish | None:
    """``mm`` and ``bmm``, (B,) rows x columns: the weight is one of the two, and the samples are rows or columns."""
    other = use.node._saved_self if use.slot == 1 else use.node._saved_mat2
    return _beside(other, use.slot, len(use.shape) - 2, seen)


def _beside(other: Tensor, slot: int, rows: int, seen: Seen) -> Finish | None:
    """Of a weight on the left (slot 0) or on the right (1) of a product, given what stands on its other side."""
    return _product(seen.first(other.detach()), slot == 1) if seen.axis == rows + 1 - slot else None


def _added(left: str, right: str, rows: int) -> Callable[[Use, Seen], Finish | None]:
    """Make the rule of ``beta * out + alpha * left @ right``, whose rows are on some axis; the weight is any of the three."""

    def rule(use: Use, seen: Seen) -> Finish | None:
        node = use.node
        if use.slot == 0:
            return _scaled(_summed(use, seen), node._saved_beta)
        other = getattr(node, f"_saved_{left if use.slot == 2 else right}")
        return _scaled(_beside(other, use.slot - 1, rows, seen), node._saved_alpha)

    return rule


def _trilinear(use: Use, seen: Seen) -> Finish | None:
    """``bilinear``: the products of two inputs, (p, o), are the inputs of one linear weight (q, p * o)."""
    node = use.node
    if use.slot != 1 or seen.axis != 0 or (list(node._saved_expand2), list(node._saved_sumdim)) != ([0], [2, 3]):
        return None
    one, other = seen.first(node._saved_i1.detach()), seen.first(node._saved_i3.detach())
    return _product(torch.einsum("ntp,nto->ntpo", one, other).flatten(2), False)


def _mv(use: Use, seen: Seen) -> Finish | None:
    if use.slot != 1:
        return None
    finish = _product(seen.first(use.node._saved_self.detach()), False)
    return lambda b: finish(b.unsqueeze(-1))


def _convolution(use: Use, seen: Seen) -> Finish | None:
    node = use.node
    if seen.axis != 0:
        return None
    if use.slot == 2:
        return lambda b: b.sum((2, *range(4, b.dim())))
    if use.slot != 1:
        return None
    x, groups, n, t = node._saved_input.detach(), node._saved_groups, seen.samples, seen.positions
    size, dims = use.given[2:], len(use.given) - 2
    stride, padding, dilation = (tuple(getattr(node, f"_saved_{name}")) for name in ("stride", "padding", "dilation"))
    stride, padding, dilation = (s * dims if len(s) == 1 else s for s in (stride, padding, dilation))
    around = [p for p in reversed(padding) for _ in (0, 1)]
    if node._saved_transposed:  # what the input sees of the output is what the output sees of the input elsewhere
        places = x.shape[2:]
        a = _positions_last(seen.first(x).reshape(n, t, groups, -1, places.numel()), 1)

        def transposed(b: Tensor) -> OuterProducts:
            windows = _windows(F.pad(b.flatten(0, 2), around), size, places, stride, dilation)
            windows = windows.reshape(n, b.shape[1], t, groups, -1, places.numel())
            return OuterProducts(a, _positions_last(windows, 2), True)

        return transposed
    places = use.shape[2:]
    windows = _windows(F.pad(x, around) if any(around) else x, size, places, stride, dilation)
    if t > 1:
        windows = _positions_last(seen.first(windows).reshape(n, t, groups, -1, places.numel()), 1)

    # windows are copies: of large ones, for one cotangent, a CPU is faster with a convolution that has a group for each sample
    each = x.shape[1] // groups * use.given[0] // groups
    often = (
        t == 1 and x.device.type == "cpu" and size.numel() > 1 and (dims == 3 or groups > 1 or x.shape[1] > 1 and each <= 4096)
    )

    def straight(b: Tensor) -> OuterProducts:
        factors = b.reshape(n, b.shape[1], t, groups, -1, places.numel())
        ways = (stride, padding, dilation)
        return OuterProducts(
            windows,
            _positions_last(factors, 2),
            directly=partial(_grouped, x, b, use.given, groups, ways) if often and b.shape[1] == 1 else None,
        )

    return straight


def _grouped(x: Tensor, b: Tensor, shape: torch.Size, groups: int, ways: tuple) -> Tensor:
    """Differentiate one convolution whose groups are all groups of all samples, for each of R cotangents."""
    n, r, _, q = b.shape[:4]
    (stride, padding, dilation), x = ways, x.reshape(1, -1, *x.shape[2:])
    weight = x.new_empty(n * shape[0], *shape[1:])
    still = (False, [0] * len(stride), n * groups, [False, True, False])
    of = [
        torch.ops.aten.convolution_backward(
            b[:, i].reshape(1, n * q, *b.shape[4:]), x, weight, None, stride, padding, dilation, *still
        )
        for i in range(r)
    ]
    return torch.stack([found[1].reshape(n, -1) for found in of], 1)


def _positions_last(t: Tensor, axis: int) -> Tensor:
    """Join an axis of positions with the last."""
    return t.movedim(axis, -2).flatten(-2)


def _windows(x: Tensor, size, places, stride, dilation) -> Tensor:
    """View what a window of some size sees at each place, (N, C, *size, *places), without copying."""
    (sn, sc, *along) = x.stride()
    within = (s * d for s, d in zip(along, dilation, strict=True))
    between = (s * w for s, w in zip(along, stride, strict=True))
    return x.as_strided((*x.shape[:2], *size, *places), (sn, sc, *within, *between), x.storage_offset())


def _embedding(use: Use, seen: Seen) -> Finish | None:
    node, rows = use.node, use.given[0]
    if node._saved_scale_grad_by_freq:
        return None
    a, padding = seen.first(node._saved_indices).flatten(1), node._saved_padding_idx
    kept = (a != padding)[:, None, :, None] if 0 <= padding < rows else None
    return lambda b: Lookups(a, b.flatten(2, -2) if kept is None else b.flatten(2, -2) * kept, rows)


def _normed(statistics: Callable, channels: bool) -> Callable[[Use, Seen], Finish | None]:
    """Make the rule of ``out = weight * x_hat + bias``, the weight on axis 1 or on the last axes."""

    def rule(use: Use, seen: Seen) -> Finish | None:
        like = torch.Size((use.given.numel(), *[1] * (len(use.shape) - 2))) if channels else use.given
        if use.slot == 2:
            return _summed(use, seen, like=like)
        if use.slot != 1:
            return None
        mean, rstd = statistics(use.node)
        x = use.node._saved_input.detach()
        return _summed(use, seen, (x if mean is None else x - mean) * rstd, like)

    return rule


def _of_batch(node) -> tuple[Tensor, Tensor] | None:
    along = (-1,) + (1,) * (node._saved_input.dim() - 2)
    eps = node._saved_eps if hasattr(node, "_saved_eps") else node._saved_epsilon
    if node._saved_training:  # as instances norm: every channel of every sample is one of the batch of one
        mean, rstd = node._saved_result1, node._saved_result2
    else:
        mean, rstd = node._saved_running_mean, (node._saved_running_var + eps).rsqrt()
    return mean.view(along), rstd.view(along)


def _of_groups(node) -> tuple[Tensor, Tensor]:
    x, groups = node._saved_input, node._saved_group
    shape = (len(x), x.shape[1], *[1] * (x.dim() - 2))
    mean, rstd = (t.view(len(x), groups, 1) for t in (node._saved_result1, node._saved_result2))
    return tuple(t.expand(-1, -1, x.shape[1] // groups).reshape(shape) for t in (mean, rstd))


def _of_layers(node) -> tuple[Tensor, Tensor]:
    return node._saved_result1, node._saved_result2


def _of_squares(node) -> tuple[None, Tensor]:
    return None, node._saved_result1


def _add(use: Use, seen: Seen) -> Finish | None:
    return _scaled(_summed(use, seen), getattr(use.node, "_saved_alpha", 1) if use.slot == 1 else 1)


def _sub(use: Use, seen: Seen) -> Finish | None:
    return _scaled(_add(use, seen), -1 if use.slot == 1 else 1)


def _mul(use: Use, seen: Seen) -> Finish | None:
    other = use.node._saved_other if use.slot == 0 else use.node._saved_self
    return _summed(use, seen, other.detach()) if isinstance(other, Tensor) else _scaled(_summed(use, seen), other)


def _div(use: Use, seen: Seen) -> Finish | None:
    other = use.node._saved_other
    if not isinstance(other, Tensor):
        return _scaled(_summed(use, seen), 1 / other)
    other = other.detach()
    return _summed(use, seen, 1 / other if use.slot == 0 else -use.node._saved_self.detach() / other.square())


def _repeat(use: Use, seen: Seen) -> Finish | None:
    """Sum over the copies: each axis is (times, size), that of the samples (n, its own times, size)."""
    if not seen.inner:
        return None
    given = (1,) * (len(use.shape) - len(use.given)) + tuple(use.given)
    sizes = [given[seen.axis], *(size for axis, size in enumerate(given) if axis != seen.axis)]
    back = [0 if axis == seen.axis else axis + (axis < seen.axis) for axis in range(len(given))]

    def finish(b: Tensor) -> Tensor:
        for axis, size in enumerate(sizes):
            b = b.unflatten(2 + axis, (-1, size)).sum(2 + axis)
        return b.permute(0, 1, *(2 + axis for axis in back)).flatten(2)

    return finish


def _prelu(use: Use, seen: Seen) -> Finish | None:
    return _summed(use, seen, use.node._saved_self.detach().clamp(max=0)) if use.slot == 1 else None


RULES: dict[str, Callable[[Use, Seen], Finish | None]] = {
    "AddmmBackward0": _added("mat1", "mat2", 0),
    "BaddbmmBackward0": _added("batch1", "batch2", 1),
    "TrilinearBackward0": _trilinear,
    "MmBackward0": _matmul,
    "BmmBackward0": _matmul,
    "MvBackward0": _mv,
    "ConvolutionBackward0": _convolution,
    "EmbeddingBackward0": _embedding,
    "NativeBatchNormBackward0": _normed(_of_batch, channels=True),
    "CudnnBatchNormBackward0": _normed(_of_batch, channels=True),
    "NativeGroupNormBackward0": _normed(_of_groups, channels=True),
    "NativeLayerNormBackward0": _normed(_of_layers, channels=False),
    "FusedRmsNormBackward0": _normed(_of_squares, channels=False),
    "AddBackward0": _add,
    "SubBackward0": _sub,
    "MulBackward0": _mul,
    "DivBackward0": _div,
    "ExpandBackward0": _summed,
    "RepeatBackward0": _repeat,
    "PreluKernelBackward0": _prelu,
}
