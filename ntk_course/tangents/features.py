r"""Tangent features: for each sample the vector :math:`\phi_c(x) = c^\top \partial z(x; w)/\partial w`, kept in factors.

A weight that acts as ``out = input @ W.T`` at T positions (the pixels of a convolution, the tokens of a sequence, the
several calls of one module) has the per-sample gradient ``sum_t outer(b_t, a_t)``, with a_t the input at position t
and b_t the cotangent arriving there. Two samples then have the inner product
``sum_{t,u} (a_t . a'_u) (b_t . b'_u)``, which never needs the gradient itself. Parameters that no rule serves go to
torch.func, or to plain autograd one sample at a time: what is right for each is found once, by trying (see `probe`).
"""

from collections.abc import Iterator, Mapping
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..basics import validate
from ..basics.fingerprints import checksum
from ..basics.samples import Batch
from .certified import found_right, key_of, known_right
from .certify import wrong_in_block
from .cotangents import Cotangent, Summed, of_block, part
from .layout import Layout
from .precision import multiplying, times
from .probe import probe
from .routes import alone, by_rules, by_torch_func
from .running import in_rows, run, untraced
from .shares import Share, formed, in_factors

# Numbers that a product of factors may hold at a time, beyond its result: on a CPU as many as stay in the cache.
_WORKSPACE = {"cpu": 2**20}
_WORKSPACE_ELSEWHERE = 2**26
# Bytes of graph up to which all cotangents go back at once: a large pass is no faster than several, and takes more memory.
_AT_ONCE = 2**25


class Tangents(NamedTuple):
    """Tangent features of N samples with R cotangents each.

    The feature vector is the concatenation of the parts in ``dense``, each (N, R, D), and of one block for every pair in ``factors``,
    whose a (N, T, p) and b (N, R, T, q) stand for the p * q numbers ``sum_t outer(b_t, a_t)``. An integer a (N, T) holds
    numbers of rows in a table, and stands for unit vectors.
    """

    dense: tuple[Tensor, ...]
    factors: tuple[tuple[Tensor, Tensor], ...]

    @property
    def samples(self) -> int:
        """N."""
        return len(self.dense[0])

    @property
    def width(self) -> int:
        """Count the numbers that one sample has in ``dense``, for each cotangent."""
        return sum(d.shape[2] for d in self.dense)

    def dense_whole(self) -> Tensor:
        """Copy the parts of ``dense`` into one, (N, R, D): the small parameters of a layout first, then the large."""
        return torch.cat(self.dense, 2)

    def numel(self) -> int:
        """Count the numbers held."""
        return sum(d.numel() for d in self.dense) + sum(a.numel() + b.numel() for a, b in self.factors)

    @property
    def multiply_adds(self) -> int:
        """Count what the product of two samples takes, one cotangent each."""
        return self.width + sum(a.shape[1] ** 2 * (a[0, 0].numel() + b.shape[3] + 1) for a, b in self.factors)

    def rounded(self) -> "Tangents":
        """Copy every number to bfloat16."""
        factors = tuple((a.bfloat16() if a.is_floating_point() else a, b.bfloat16()) for a, b in self.factors)
        return Tangents(tuple(d.bfloat16() for d in self.dense), factors)

    def of(self, rows: slice | Tensor) -> "Tangents":
        """View some of the samples."""
        return Tangents(tuple(d[rows] for d in self.dense), tuple((a[rows], b[rows]) for a, b in self.factors))

    def merged(self) -> "Tangents":
        """Lay the R cotangents of each sample side by side in one, whose products are the sums of theirs."""
        dense = tuple(d.flatten(1).unsqueeze(1) for d in self.dense)
        return Tangents(dense, tuple((a, b.transpose(1, 2).flatten(2).unsqueeze(1)) for a, b in self.factors))

    def split(self, size: int) -> "list[Tangents]":
        """View the samples in slices of at most ``size``."""
        return [self.of(slice(i, i + size)) for i in range(0, self.samples, size)]

    @staticmethod
    def join(parts: "list[Tangents]") -> "Tangents":
        """Copy the features of several blocks into one; where one has fewer positions, the others' are nothing."""
        factors = []
        for pairs in zip(*(p.factors for p in parts), strict=True):
            most = max(a.shape[1] for a, _ in pairs)
            a = [nn.functional.pad(a, (0, 0) * (a.dim() - 2) + (0, most - a.shape[1])) for a, _ in pairs]
            b = [nn.functional.pad(b, (0, 0, 0, most - b.shape[2])) for _, b in pairs]
            factors.append((torch.cat(a), torch.cat(b)))
        return Tangents(tuple(torch.cat(d) for d in zip(*(p.dense for p in parts), strict=True)), tuple(factors))

    def averaged(self, weights: Tensor) -> "Tangents":
        """Average N * Q features over Q neighbours, with weights (N, Q); in factors they become further positions."""
        n, q = weights.shape
        dense = tuple(torch.einsum("nqrd,nq->nrd", d.unflatten(0, (n, q)), weights) for d in self.dense)
        factors = []
        for a, b in self.factors:
            a, b = a.unflatten(0, (n, q)), b.unflatten(0, (n, q)) * weights.view(n, q, 1, 1, 1)
            if (a == a[:, :1]).all():  # the first layer's inputs do not move
                factors.append((a[:, 0], b.sum(1)))
            else:
                factors.append((a.flatten(1, 2), b.transpose(1, 2).flatten(2, 3)))
        return Tangents(dense, tuple(factors))

    @staticmethod
    def beside(parts: "list[Tangents]") -> "Tangents":
        """Put pieces of the same samples' features together; nothing is copied."""
        return Tangents(tuple(d for p in parts for d in p.dense), tuple(pair for p in parts for pair in p.factors))

    @staticmethod
    def added(parts: "list[Tangents]") -> "Tangents":
        """Add features of the same samples; factors become further positions."""
        factors = [
            (torch.cat(a, dim=1), torch.cat(b, dim=2))
            for a, b in (zip(*f, strict=True) for f in zip(*(p.factors for p in parts), strict=True))
        ]
        dense = tuple(reduce(torch.add, d) for d in zip(*(p.dense for p in parts), strict=True))
        return Tangents(dense, tuple(factors))


def tangent_features(
    model: nn.Module, x: Tensor | Batch, c: Cotangent, layout: Layout | None = None, precision: str = "exact"
) -> Tangents:
    r"""Compute the tangent features :math:`\phi_c(x) = c^\top \partial z/\partial w` of one block of samples.

    Args:
        model: gives logits (N, K); only parameters with ``requires_grad`` count, each once, however often it is used.
        x: (N, ...).
        c: cotangents (N, K), or (N, R, K) for R of them a sample, or a function of the logits.
        layout: which weights are formed and which stay in factors, the same for both sides of a product; by default that of
            the block's product with itself.
        precision: of products and convolutions on a GPU, see :class:`ntk_course.Gram`.

    Returns:
        Tangents of N samples, in the model's dtype, on the model's device, detached.

    Raises:
        ValueError: the model returns something other than (N, K), or this block goes through other layers than the layout's.

    Example:
        >>> features = tangent_features(model, x, ones)
        >>> gram = tangent_product(features, features)[:, 0, :, 0]
    """
    return Tangents.beside(list(tangent_pieces(model, x, c, layout, precision)))


def tangent_pieces(
    model: nn.Module, x: Tensor | Batch, c: Cotangent, layout: Layout | None = None, precision: str = "exact"
) -> Iterator[Tangents]:
    """Compute the same piece by piece, one large weight after the other, so that each can be let go once it has been used.

    The inner products of all features are the sums of those of the pieces.
    """
    validate.per_sample(model)  # it may have gone back to training since it was probed
    with torch.inference_mode(False), torch.enable_grad(), multiplying(precision):
        x = x.clone() if x.is_inference() else x.detach()
        if layout is None:
            known = probe(model, x)
            layout = Layout.choose(known, len(x) / 2, of_block(part(c, slice(0, 1)), known.z).shape[1:-1].numel())
        known = layout.known
        z = run(model, x, known.traces)
        summed, c = isinstance(c, Summed), of_block(c, z)
        c = c.clone() if c.is_inference() else c.detach()
        c, z = c if c.dim() == 3 else c.unsqueeze(1), in_rows(z)
        trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        weights = {name: p for name, p in trainable if name in known.numels}
        names = {id(p): name for name, p in trainable if name in known.among}
        if frozen := known.numels.keys() - weights.keys():
            raise ValueError(f"model: got {', '.join(sorted(frozen))} frozen; wanted them trainable, as when they were probed")
        uses = known.uses(z, names, len(x))
        if uses is None:  # a block that goes another way through the model than the probe's two samples
            shares = _split(alone(model, x, c, weights, known.traces), weights)
        else:
            served = {i: name for i, name in names.items() if name in known.understood}
            small = len(x) * c.shape[1] * known.saved <= _AT_ONCE
            key = key_of(model, x, known.traces, known.among, layout.factored, checksum(c), checksum(z))
            fresh = not known_right(model, key)
            shares = by_rules(z, uses, c, served, retain=fresh, batched=known.stacks and small)
            del uses
            batched = {name: weights[name] for name in weights if name in known.batched}
            lonely = {name: weights[name] for name in weights if name not in known.batched | known.understood}
            if batched:
                with untraced(model, known.traces):
                    found = by_torch_func(model, x, c, {name: w.detach() for name, w in batched.items()}, known.nests)
                shares |= _split(found, batched)
            if fresh:  # held against plain autograd, once for each block of a model as it is
                wrong = wrong_in_block(model, z, c, shares, weights)
                if not wrong:
                    found_right(model, key)
                lonely |= {name: weights[name] for name in weights if name in wrong}
            del z
            if lonely:
                shares |= _split(alone(model, x, c, lonely, known.traces), lonely)
    pieces = _laid_out(layout, shares, c)
    del shares
    while True:
        with torch.inference_mode(False), torch.no_grad(), multiplying(precision):
            piece = next(pieces, None)
            if piece is None:
                return
            piece = piece.merged() if summed else piece
        yield piece
        del piece


def _laid_out(layout: Layout, shares: dict[str, Share], c: Tensor) -> Iterator[Tangents]:
    """Lay the shares out as all blocks have them; each is let go once it has been handed out."""
    known = layout.known
    small = layout.small
    joint = c.new_empty(*c.shape[:2], sum(known.numels[name] for name in small))
    rooms = dict(zip(small, joint.split([known.numels[name] for name in small], 2), strict=True)) if small else {}
    factors: list[tuple[Tensor, Tensor]] = []
    for name in known.numels:
        if name in rooms:
            formed(shares.pop(name), rooms[name])
        elif name in layout.factored:
            share, bias = shares.pop(name), layout.bias_of.get(name)
            if isinstance(share, Tensor):
                factors += in_factors(share, known.sizes[name], None if bias is None else formed(shares[bias]))
            else:
                factors += share.kept(with_bias=bias is not None)
    yield Tangents((joint.detach(),), tuple((a.detach(), b.detach()) for a, b in factors))
    for name in layout.large:
        yield Tangents((formed(shares.pop(name)).detach(),), ())


def _split(gradients: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Share]:
    return dict(zip(weights, gradients.split([w.numel() for w in weights.values()], 2), strict=True))


def tangent_product(f: Tangents, g: Tangents, precision: str = "exact") -> Tensor:
    """Multiply the tangent features of two blocks: every inner product, shape (N, R, M, S); bfloat16 ones in float32.

    Example:
        >>> one, other = tangent_features(model, x[:3], ones), tangent_features(model, x[3:5], ones)
        >>> tangent_product(one, other).shape
        torch.Size([3, 1, 2, 1])
    """
    d, e = ([part.shape[2] for part in t.dense] for t in (f, g))
    if d != e or len(f.factors) != len(g.factors):
        raise ValueError(f"tangents: got features of two layouts ({sum(d)} and {sum(e)} dense); wanted one model and one layout")
    with multiplying(precision):
        return _product(f, g)


def _product(f: Tangents, g: Tangents) -> Tensor:
    (n, r), (m, s) = f.dense[0].shape[:2], g.dense[0].shape[:2]
    out = None
    for d, e in zip(f.dense, g.dense, strict=True):
        one, other = d.reshape(n * r, -1), e.reshape(m * s, -1).T
        if out is None or one.dtype != out.dtype:
            found = times(one, other)
            out = found if out is None else out.add_(found)
        else:  # adds up inside the product
            out.addmm_(one, other)
    assert out is not None  # there is at least one part
    out = out.view(n, r, m, s)
    if not f.factors:
        return out
    # Samples of the second block run innermost, whatever S is: long rows are what a processor multiplies fast.
    out = out.transpose(2, 3).contiguous()
    workspace = _WORKSPACE.get(out.device.type, _WORKSPACE_ELSEWHERE)
    for (a, b), (a2, b2) in zip(f.factors, g.factors, strict=True):
        t, u = a.shape[1], a2.shape[1]
        b2 = b2.transpose(0, 1).flatten(0, 2)
        step = max(1, workspace // (r * t * m * s * u))
        for rows in (slice(i, i + step) for i in range(0, n, step)):
            inputs = _inner(a[rows].flatten(0, 1), a2.flatten(0, 1)).to(out.dtype).view(-1, 1, t, 1, m, u)
            cotangents = times(b[rows].flatten(0, 2), b2.T).view(-1, r, t, s, m, u)
            if u == 1:
                for i in range(t):
                    out[rows].addcmul_(inputs[:, :, i, ..., 0], cotangents[:, :, i, ..., 0])
            else:
                out[rows] += cotangents.mul_(inputs).sum(dim=(2, 5))
    return out.transpose(2, 3)


def _inner(a: Tensor, other: Tensor) -> Tensor:
    """Multiply every input with every other one; of unit vectors, compare their numbers."""
    return a[:, None] == other[None] if a.dim() == 1 else times(a, other.T)
