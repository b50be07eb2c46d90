r"""Tangent features: for each sample the vector :math:`\phi_c(x) = c^\top \partial z(x; w)/\partial w`, kept in factors.

A weight that acts as ``out = input @ W.T`` at T positions (the pixels of a convolution, the tokens of a sequence, the
several calls of one module) has the per-sample gradient ``sum_t outer(b_t, a_t)``, with a_t the input at position t
and b_t the cotangent arriving there. Two samples then have the inner product
``sum_{t,u} (a_t . a'_u) (b_t . b'_u)``, which never needs the gradient itself. Parameters of other layers go to
torch.func. The decision is made for each parameter by looking at the autograd graph, not by trusting the module tree.
"""

import warnings
from collections.abc import Set
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vjp, vmap

from ..basics import validate
from ..models.functional import call_with
from .cotangents import Cotangent, of_block, part
from .layers import OuterProducts
from .layout import Layout
from .precision import multiplying, times
from .probe import Call, of_parameters, probe, record, shares_of, understood

# Numbers that a product of factors may hold at a time, beyond its result: on a CPU as many as stay in the cache.
_WORKSPACE = {"cpu": 2**20}
_WORKSPACE_ELSEWHERE = 2**26


class Tangents(NamedTuple):
    """Tangent features of N samples with R cotangents each.

    The feature vector is the concatenation of ``dense`` (N, R, D) and of one block for every pair in ``factors``,
    whose a (N, T, p) and b (N, R, T, q) stand for the p * q numbers ``sum_t outer(b_t, a_t)``.
    """

    dense: Tensor
    factors: tuple[tuple[Tensor, Tensor], ...]

    def numel(self) -> int:
        """Count the numbers held."""
        return self.dense.numel() + sum(a.numel() + b.numel() for a, b in self.factors)

    @property
    def multiply_adds(self) -> int:
        """Count what the product of two samples takes, one cotangent each."""
        return self.dense.shape[2] + sum(a.shape[1] ** 2 * (a.shape[2] + b.shape[3] + 1) for a, b in self.factors)

    def rounded(self) -> "Tangents":
        """Copy every number to bfloat16."""
        return Tangents(self.dense.bfloat16(), tuple((a.bfloat16(), b.bfloat16()) for a, b in self.factors))

    def samples(self, rows: slice | Tensor) -> "Tangents":
        """View some of the samples."""
        return Tangents(self.dense[rows], tuple((a[rows], b[rows]) for a, b in self.factors))

    def split(self, size: int) -> "list[Tangents]":
        """View the samples in slices of at most ``size``."""
        return [self.samples(slice(i, i + size)) for i in range(0, len(self.dense), size)]

    @staticmethod
    def join(parts: "list[Tangents]") -> "Tangents":
        """Copy the features of several blocks into one."""
        factors = [
            (torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs]))
            for pairs in zip(*(p.factors for p in parts), strict=True)
        ]
        return Tangents(torch.cat([p.dense for p in parts]), tuple(factors))

    def averaged(self, weights: Tensor) -> "Tangents":
        """Average N * Q features over Q neighbours, with weights (N, Q); in factors they become further positions."""
        n, q = weights.shape
        dense = torch.einsum("nqrd,nq->nrd", self.dense.unflatten(0, (n, q)), weights)
        factors = []
        for a, b in self.factors:
            a, b = a.unflatten(0, (n, q)), b.unflatten(0, (n, q)) * weights.view(n, q, 1, 1, 1)
            if (a == a[:, :1]).all():  # the first layer's inputs do not move
                factors.append((a[:, 0], b.sum(1)))
            else:
                factors.append((a.flatten(1, 2), b.transpose(1, 2).flatten(2, 3)))
        return Tangents(dense, tuple(factors))

    @staticmethod
    def added(parts: "list[Tangents]") -> "Tangents":
        """Add features of the same samples; factors become further positions."""
        factors = [
            (torch.cat(a, dim=1), torch.cat(b, dim=2))
            for a, b in (zip(*f, strict=True) for f in zip(*(p.factors for p in parts), strict=True))
        ]
        return Tangents(reduce(torch.add, [p.dense for p in parts]), tuple(factors))


def tangent_features(
    model: nn.Module, x: Tensor, c: Cotangent, layout: Layout | None = None, precision: str = "exact"
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
    validate.per_sample(model)  # it may have gone back to training since it was probed
    with torch.inference_mode(False), torch.enable_grad(), multiplying(precision):
        x = x.clone() if x.is_inference() else x.detach()
        if layout is None:
            known = probe(model, x)
            layout = Layout.choose(known, len(x) / 2, of_block(part(c, slice(0, 1)), known.z).shape[1:-1].numel())
        calls, z = record(model, x)
        c = of_block(c, validate.logits(z, len(x)))
        c = c.clone() if c.is_inference() else c.detach()
        c = c if c.dim() == 3 else c.unsqueeze(1)
        lost = layout.understood - understood(model, calls, z, len(x))
        if lost:
            raise ValueError(
                f"model: got a block of {len(x)} sample(s) that uses {', '.join(sorted(lost))} in another way than its first "
                "sample; wanted a model whose layers are the same for all samples"
            )
        shares = _shares(model, calls, z, c, layout.understood)
        dense: list[Tensor] = []
        factors: list[tuple[Tensor, Tensor]] = []
        for name, share in shares.items():
            if name in layout.factored and isinstance(share, OuterProducts):
                factors += share.kept(with_bias=name in layout.bias_of)
            elif name not in layout.joined:
                dense.append(share.formed() if isinstance(share, OuterProducts) else share)
        if rest := [name for name in layout.numels if name not in shares]:
            dense.append(_by_torch_func(model, x, c, rest))
    empty = c.new_zeros(len(x), c.shape[1], 0)
    return Tangents(torch.cat([empty, *dense], dim=2).detach(), tuple(factors))


def tangent_product(f: Tangents, g: Tangents, precision: str = "exact") -> Tensor:
    """Multiply the tangent features of two blocks: every inner product, shape (N, R, M, S); bfloat16 ones in float32.

    Example:
        >>> one, other = tangent_features(model, x[:3], ones), tangent_features(model, x[3:5], ones)
        >>> tangent_product(one, other).shape
        torch.Size([3, 1, 2, 1])
    """
    d, e = f.dense.shape[2], g.dense.shape[2]
    if d != e or len(f.factors) != len(g.factors):
        raise ValueError(f"tangents: got features of two layouts ({d} and {e} dense); wanted one model and one layout")
    with multiplying(precision):
        return _product(f, g)


def _product(f: Tangents, g: Tangents) -> Tensor:
    (n, r, d), (m, s, _) = f.dense.shape, g.dense.shape
    # Samples of the second block run innermost, whatever S is: long rows are what a processor multiplies fast.
    out = times(f.dense.reshape(n * r, d), g.dense.transpose(0, 1).reshape(s * m, d).T).view(n, r, s, m)
    workspace = _WORKSPACE.get(out.device.type, _WORKSPACE_ELSEWHERE)
    for (a, b), (a2, b2) in zip(f.factors, g.factors, strict=True):
        t, u = a.shape[1], a2.shape[1]
        b2 = b2.transpose(0, 1).flatten(0, 2)
        step = max(1, workspace // (r * t * m * s * u))
        for rows in (slice(i, i + step) for i in range(0, n, step)):
            inputs = times(a[rows].flatten(0, 1), a2.flatten(0, 1).T).view(-1, 1, t, 1, m, u)
            cotangents = times(b[rows].flatten(0, 2), b2.T).view(-1, r, t, s, m, u)
            if u == 1:
                for i in range(t):
                    out[rows].addcmul_(inputs[:, :, i, ..., 0], cotangents[:, :, i, ..., 0])
            else:
                out[rows] += cotangents.mul_(inputs).sum(dim=(2, 5))
    return out.transpose(2, 3)


def _shares(model: nn.Module, calls: list[Call], z: Tensor, c: Tensor, trusted: Set[str]) -> dict[str, Tensor | OuterProducts]:
    """Send the cotangents back to every noted call and collect each parameter's share of the features."""
    calls = of_parameters(model, calls, trusted)
    edges = [call.edge for call in calls]
    last = c.shape[1] - 1
    rounds = [torch.autograd.grad(z, edges, v, retain_graph=r < last) for r, v in enumerate(c.unbind(1))] if calls else []
    return shares_of(model, calls, [_stacked(arriving) for arriving in zip(*rounds, strict=True)], trusted)


def _stacked(rounds: tuple[Tensor, ...]) -> Tensor:
    """Stack what arrived for each of the R cotangents, (N, R, ...); a single one is not copied."""
    return torch.stack(rounds, dim=1) if len(rounds) > 1 else rounds[0].unsqueeze(1)


def _by_torch_func(model: nn.Module, x: Tensor, c: Tensor, names: list[str]) -> Tensor:
    """Form the remaining per-sample gradients with vmap over vjp: right for any model, slower and larger."""
    rest = {name: model.get_parameter(name).detach() for name in names}
    warnings.warn(
        f"tangents of {', '.join(rest)}: no layer rule applies, so torch.func forms them sample by sample "
        "(exact, but slower and with more memory)",
        stacklevel=2,
    )

    def one_sample(x_n: Tensor, c_n: Tensor) -> Tensor:
        pull = vjp(lambda free: call_with(model, free, x_n[None])[0], rest)[1]
        return vmap(lambda v: torch.cat([g.flatten() for g in pull(v)[0].values()]))(c_n)

    return vmap(one_sample)(x, c)
