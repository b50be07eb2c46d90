"""Shares: one parameter's per-sample gradients, formed or in the factors they are made of."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

# Numbers copied at a time when patches are laid out: enough to keep the cores busy, few enough to stay in their caches.
_CHUNK = {"cpu": 2**20, "cuda": 2**26}


def _chunks(n: int, numbers: int, device: torch.device) -> Iterator[slice]:
    """Cut n samples so that what is copied at a time stays small."""
    step = max(1, _CHUNK.get(device.type, 2**20) // numbers)
    return (slice(i, i + step) for i in range(0, n, step))


class Sizes(NamedTuple):
    """What a weight in factors is made of: T positions, p inputs, q outputs, G groups, and how.

    Attributes:
        positions: T.
        fan_in: p; of a table its rows.
        fan_out: q.
        groups: G.
        turned: the parameter is laid out (G, p, q), inputs before outputs, and not (G, q, p).
        table: the inputs are rows of a table, looked up by number.
    """

    positions: int
    fan_in: int
    fan_out: int
    groups: int = 1
    turned: bool = False
    table: bool = False

    @property
    def width(self) -> int:
        """Count the numbers that one position's input takes."""
        return 1 if self.table else self.fan_in


class OuterProducts(NamedTuple):
    """A weight gradient as a sum of outer products over T positions, in G groups.

    b is (N, R, G, q, T); a is a view that reshapes to (N, G, p, T): the patches of a convolution overlap, and laying
    them out is put off until it is known how they will be used. Where there is a faster way to the gradient than its factors,
    ``directly`` goes it.
    """

    a: Tensor
    b: Tensor
    turned: bool = False
    directly: Callable[[], Tensor] | None = None

    @property
    def sizes(self) -> Sizes:
        """T, p, q and G."""
        (n, _, groups, q, t), inputs = self.b.shape, self.a.shape.numel()
        return Sizes(t, inputs // (n * groups * t), q, groups, self.turned)

    def turn(self) -> "OuterProducts":
        """Lay the same gradient out the other way; of one group, it is the gradient of the transpose."""
        return self._replace(turned=not self.turned, directly=None)

    def laid_out(self, rows: slice = slice(None)) -> Tensor:
        """Copy some samples' inputs into (n, G, p, T)."""
        a, sizes = self.a[rows], self.sizes
        return a.reshape(len(a), sizes.groups, sizes.fan_in, sizes.positions)

    def formed(self, out: Tensor | None = None) -> Tensor:
        """Carry out the sum: the gradient itself, (N, R, G * q * p), written into `out` where that is given."""
        (n, r, groups, q, t), p = self.b.shape, self.sizes.fan_in
        if self.directly is not None:
            return self.directly() if out is None else out.copy_(self.directly())
        if groups == 1 and not self.turned:  # the cotangents are rows of one product
            whole = self.b.new_empty(n, r, q * p) if out is None or not out.is_contiguous() else out
            for rows in _chunks(n, p * t, self.b.device):
                a, b = self.laid_out(rows)[:, 0], self.b[rows, :, 0].flatten(1, 2)
                torch.bmm(b, a.transpose(1, 2), out=whole.view(n, r * q, p)[rows])
            return whole if out is None or whole is out else out.copy_(whole)
        out = self.b.new_empty(n, r, groups * p * q) if out is None else out
        whole, out = out, out.unflatten(2, (groups, *((p, q) if self.turned else (q, p))))
        result = "nrgpq" if self.turned else "nrgqp"
        for rows in _chunks(n, groups * p * t, self.b.device):
            out[rows] = torch.einsum(f"ngpt,nrgqt->{result}", self.laid_out(rows), self.b[rows])
        return whole

    def weighted(self, by: Tensor, r: int) -> Tensor:
        """Add up the samples' gradients for cotangent r, each times a number (N,): (G * q * p), no single one of them formed."""
        (n, _, groups, _, t), p = self.b.shape, self.sizes.fan_in
        result, total = "gpq" if self.turned else "gqp", None
        for rows in _chunks(n, groups * p * t, self.b.device):
            b = self.b[rows, r] * by[rows, None, None, None]
            found = torch.einsum(f"ngpt,ngqt->{result}", self.laid_out(rows), b)
            total = found if total is None else total.add_(found)
        assert total is not None
        return total.flatten()

    def kept(self, with_bias: bool = False) -> list[tuple[Tensor, Tensor]]:
        """Lay the factors out for products, one pair (N, T, p), (N, R, T, q) for each group.

        A bias is a weight whose input is 1, so its gradient comes with the weight's for one more number in a, (N, T, p + 1).
        """
        a, b = self.laid_out().transpose(2, 3), self.b.transpose(3, 4)
        if with_bias:
            a = nn.functional.pad(a, (0, 1), value=1.0)
        return [(a[:, g].contiguous(), b[:, :, g].contiguous()) for g in range(a.shape[1])]


class Lookups(NamedTuple):
    """The gradient of a table whose rows are looked up: what arrives at position t, b (N, R, T, q), belongs to row a (N, T)."""

    a: Tensor
    b: Tensor
    rows: int

    @property
    def sizes(self) -> Sizes:
        """T, the rows, and q."""
        return Sizes(self.a.shape[1], self.rows, self.b.shape[3], turned=True, table=True)

    def formed(self, out: Tensor | None = None) -> Tensor:
        """Add up what belongs to each row: the gradient itself, (N, R, rows * q), written into `out` where that is given."""
        n, r, t, q = self.b.shape
        out = self.b.new_zeros(n, r, self.rows * q) if out is None else out.zero_()
        out.unflatten(2, (self.rows, q)).scatter_add_(2, self.a[:, None, :, None].expand(n, r, t, q), self.b)
        return out

    def weighted(self, by: Tensor, r: int) -> Tensor:
        """Add up the samples' gradients for cotangent r, each times a number (N,): (rows * q)."""
        b = self.b[:, r] * by[:, None, None]
        return b.new_zeros(self.rows, b.shape[2]).index_add_(0, self.a.flatten(), b.flatten(0, 1)).flatten()

    def kept(self, with_bias: bool = False) -> list[tuple[Tensor, Tensor]]:
        """Return the one pair (N, T) of row numbers, (N, R, T, q)."""
        return [(self.a, self.b)]


Share = Tensor | OuterProducts | Lookups


def weighted(share: Share, by: Tensor, r: int) -> Tensor:
    """Add up the samples' gradients for cotangent r, each times a number (N,): (D,)."""
    return torch.einsum("nd,n->d", share[:, r], by) if isinstance(share, Tensor) else share.weighted(by, r)


def formed(share: Share, out: Tensor | None = None) -> Tensor:
    """Return the gradient itself, (N, R, D), or write it into `out`."""
    if isinstance(share, Tensor):
        return share if out is None else out.copy_(share)
    return share.formed(out)


def join(one: Share, other: Share) -> Share:
    """Add the gradients of two uses of one parameter; two of a kind stay in factors."""
    if isinstance(one, OuterProducts) and isinstance(other, OuterProducts) and one.sizes[1:] == other.sizes[1:]:
        a, b = torch.cat([one.laid_out(), other.laid_out()], 3), torch.cat([one.b, other.b], 4)
        return OuterProducts(a, b, one.turned)
    if isinstance(one, Lookups) and isinstance(other, Lookups):
        return Lookups(torch.cat([one.a, other.a], 1), torch.cat([one.b, other.b], 2), one.rows)
    return formed(one) + formed(other)


def in_factors(gradient: Tensor, sizes: Sizes, bias: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
    """Write gradients (N, R, D) as factors of other features: every input is a position of its own.

    A block whose gradients had to be formed can then be multiplied with blocks that are kept in factors.
    """
    (n, r, _), (_, p, q, groups, turned, table) = gradient.shape, sizes
    gradient = gradient.view(n, r, groups, *((p, q) if turned else (q, p)))
    b = gradient if turned else gradient.transpose(3, 4)  # (N, R, G, p, q)
    if table:
        return [(torch.arange(p, device=b.device).expand(n, p), b[:, :, 0])]
    ones = torch.eye(p if bias is None else p + 1, dtype=b.dtype, device=b.device).expand(n, -1, -1)
    if bias is not None:
        b = torch.cat([b, bias.view(n, r, groups, 1, q)], 3)
    return [(ones, b[:, :, g]) for g in range(groups)]
