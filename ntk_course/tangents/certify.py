"""Is a way to per-sample gradients right? What it gives is held against plain autograd, sample by sample or added up."""

import logging
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from .culprit import same, tolerance_of
from .graph import Use
from .routes import by_rules, gradients
from .rules import Seen
from .shares import OuterProducts, Share, weighted
from .trial import Runs

# At level DEBUG it tells why a rule is not used: `logging.getLogger("ntk_course").setLevel("DEBUG")`.
log = logging.getLogger(__name__)


def sample_by_sample(model: nn.Module, runs: Runs, weights: Mapping[str, nn.Parameter], v: Tensor) -> dict[str, Tensor | None]:
    """Differentiate each of three samples by itself, by plain autograd: gradients (3, D) by name, None for what none depends on.

    A rule is held against the graph it reads: that of the batch, with the other samples' cotangents at 0. Alone a sample may
    go through other kernels, whose rounding turns a rectifier on or off. Only where alone it has quite another gradient, as
    with an embedding that scales it by counts over the batch, does that one count.
    """
    apart = _differentiated(model, zip([runs.together] * 3, torch.diag_embed(v.T).permute(1, 2, 0), strict=True), weights)
    alone = _differentiated(model, zip(runs.alone, v.split(1), strict=True), weights)
    rounding = rounding_of(alone) if any(g is not None for g in alone.values()) else 0.0
    return {
        name: of_batch if of_batch is not None and g is not None and near(of_batch, g, rounding) else g
        for (name, g), of_batch in zip(alone.items(), apart.values(), strict=True)
    }


def _differentiated(
    model: nn.Module, passes: Iterable[tuple[Tensor, Tensor]], weights: Mapping[str, nn.Parameter]
) -> dict[str, Tensor | None]:
    rows = [gradients(model, z, some, list(weights.values())) if z.requires_grad else [None] * len(weights) for z, some in passes]
    found: dict[str, Tensor | None] = {}
    for (name, w), of_samples in zip(weights.items(), zip(*rows, strict=True), strict=True):
        some = [torch.zeros_like(w) if g is None else g for g in of_samples]
        found[name] = None if all(g is None for g in of_samples) else torch.stack(some).view(len(some), -1)
    return found


def near(one: Tensor, other: Tensor, rounding: float) -> bool:
    """Say whether two ways to one gradient agree but for roundings, each of which may turn a rectifier on or off."""
    tolerance = min(30 * torch.finfo(one.dtype).eps ** 0.5, 0.5)
    scale = max(float(one.norm()), float(other.norm()))
    return float((one - other).norm()) <= tolerance * scale + rounding * one.numel() ** 0.5


def rounding_of(plain: Mapping[str, Tensor | None]) -> float:
    """Return what rounding may leave of a gradient that cancels: relative to the largest of them."""
    found = [g for g in plain.values() if g is not None]
    return max(float(g.abs().max()) * 10 * torch.finfo(g.dtype).eps for g in found)


def adds_up(
    model: nn.Module, z: Tensor, weights: Mapping[str, nn.Parameter], v: Tensor, plain: Mapping[str, Tensor | None]
) -> bool:
    """Say whether the gradient of a batch is the sum of its samples': an embedding may scale it by counts over the batch."""
    whole = gradients(model, z, v, list(weights.values()))
    tolerance, rounding = tolerance_of(z.dtype), rounding_of(plain)
    return all(
        wanted is None or g is None or same(g.flatten(), wanted.sum(0), tolerance, rounding)
        for g, wanted in zip(whole, plain.values(), strict=True)
    )


def counted(share: Share) -> int:
    """Count the samples that have a gradient; of one in factors, those that have both factors."""
    if isinstance(share, Tensor):
        return int(share.flatten(1).any(1).sum())
    some = share.b.flatten(1).any(1)
    return int((some & share.a.flatten(1).any(1) if isinstance(share, OuterProducts) else some).sum())


class Verdict:
    """Shares of a batch against plain autograd: for each cotangent added up over the samples, each times a number of its own.

    A rule that gives one sample what is another's, or one cotangent what is another's, changes the sum, though all that it gives
    may add up to the right whole. The numbers are powers of two: no rounding on the way, in whatever dtype, is another for them.
    """

    def __init__(self, model: nn.Module, z: Tensor, c: Tensor, shares: Mapping[str, Share], weights: Mapping[str, nn.Parameter]):
        """Differentiate the logits z (n, K) of a batch with cotangents c (n, R, K), each times its number; the graph is kept."""
        self.by = _numbers(c)
        self.whole: dict[str, Tensor] = {}
        passes = [gradients(model, z, v, [weights[name] for name in shares]) for v in (self.by[:, :, None] * c).unbind(1)]
        for name, found in zip(shares, zip(*passes, strict=True), strict=True):
            rows = [torch.zeros_like(weights[name]) if g is None else g for g in found]
            self.whole[name] = torch.stack(rows).view(len(rows), -1)
        self.shares, self.tolerance = shares, tolerance_of(z.dtype)
        largest = max((float(g.abs().max()) for g in self.whole.values() if g.numel()), default=0.0)
        self.rounding = largest * 10 * torch.finfo(z.dtype).eps

    def _is(self, name: str, found: Tensor) -> bool:
        wanted = self.whole[name]
        if not bool(torch.isfinite(wanted).all()):  # a sum beyond all numbers tells nothing
            return True
        return found.shape == wanted.shape and same(found, wanted, self.tolerance, self.rounding)

    def of_gradients(self, name: str) -> bool:
        """Say whether a share's gradients add up."""
        share = self.shares[name]
        if (share if isinstance(share, Tensor) else share.b).shape[:2] != self.by.shape:
            return False
        return self._is(name, torch.stack([weighted(share, by, r) for r, by in enumerate(self.by.unbind(1))]))

    def of_factors(self, name: str) -> bool:
        """Say whether its factors do, as they are laid out for products."""
        return self._is(name, self._laid_out(self.shares[name])[0])

    def of_pair(self, name: str, bias: str) -> bool:
        """Say whether a weight's factors and a bias do that is one more input of it."""
        weight, other = self._laid_out(self.shares[name], True)
        return self._is(name, weight) and self._is(bias, other)

    def _laid_out(self, share: Share, with_bias: bool = False) -> tuple[Tensor, Tensor]:
        """Add up factors: gradients (R, D) of the weight, and of the bias."""
        weight, bias = [], []
        assert not isinstance(share, Tensor)
        for a, b in share.kept(with_bias):
            b = b * self.by[:, :, None, None]
            if not isinstance(share, OuterProducts):
                table = b.new_zeros(b.shape[1], share.rows, b.shape[3])
                weight.append(table.index_add_(1, a.flatten(), b.transpose(0, 1).flatten(1, 2)))
                continue
            found = torch.einsum("ntp,nrtq->rpq", a, b)
            if with_bias:
                bias.append(found[:, -1])
                found = found[:, :-1]
            weight.append(found if share.turned else found.transpose(1, 2))
        return torch.stack(weight, 1).flatten(1), torch.cat(bias, 1) if bias else torch.empty(0)


# The powers of two by which samples are told apart: none so small beside another that rounding hides it.
_POWERS = {torch.bfloat16: 1, torch.float16: 1, torch.float64: 8}
_POWERS_ELSEWHERE = 4


def wrong_in_block(
    model: nn.Module, z: Tensor, c: Tensor, shares: Mapping[str, Share], weights: Mapping[str, nn.Parameter]
) -> set[str]:
    """Hold the shares of a block against one pass of plain autograd, as a :class:`Verdict` does, no gradient formed.

    Args:
        model: of the graph under z.
        z: logits (n, K), whose graph is kept.
        c: cotangents (n, R, K), of which one is looked at.
        shares: of the parameters, by name.
        weights: the parameters.

    Returns:
        The names of those that are wrong.
    """
    if not shares:
        return set()
    by, r = _numbers(c[:, :1])[:, 0], len(z) % c.shape[1]
    found = gradients(model, z, by[:, None] * c[:, r], [weights[name] for name in shares])
    plain = {name: torch.zeros_like(weights[name]) if g is None else g for name, g in zip(shares, found, strict=True)}
    largest = max((float(g.abs().max()) for g in plain.values() if g.numel()), default=0.0)
    tolerance, rounding = tolerance_of(z.dtype), largest * 10 * torch.finfo(z.dtype).eps
    return {
        name
        for name, g in plain.items()
        if bool(torch.isfinite(g).all()) and not same(weighted(shares[name], by, r), g.flatten(), tolerance, rounding)
    }


def _numbers(c: Tensor) -> Tensor:
    """Draw a power of two for each cotangent of each sample, (n, R): of few samples no two alike.

    None is negative: where samples are nearly alike, their sum would be nearly nothing, and rounding all that is left.
    """
    draw, most = torch.Generator().manual_seed(1), _POWERS.get(c.dtype, _POWERS_ELSEWHERE)
    values = torch.exp2(torch.arange(-most, most + 1).float())
    places = torch.stack([torch.randperm(len(c), generator=draw) for _ in range(c.shape[1])], 1)
    shuffled = values[torch.randperm(len(values), generator=draw)]
    return shuffled[places % len(values)].to(c)


def wrong_rules(
    model: nn.Module, z: Tensor, uses: Sequence[tuple[Use, Seen]], weights: Mapping[str, nn.Parameter], among: Iterable[str]
) -> tuple[set[str], dict[str, int]]:
    """Try the rules on a batch with logits z (n, K), two cotangents a sample: which are wrong, and how many samples said so much.

    Returns:
        Names of the parameters whose gradients are not those of plain autograd; for each other one the samples with a gradient.
    """
    n, names = len(z), set(among)
    c = torch.randn(n, 2, z.shape[1], generator=torch.Generator().manual_seed(2)).to(z)
    shares = attempted(z, uses, c, {id(weights[name]): name for name in names})
    wrong, verdict = names - shares.keys(), Verdict(model, z, c, shares, weights)
    told: dict[str, int] = {}
    for name in names - wrong:
        try:
            right = verdict.of_gradients(name)
            told[name] = counted(shares[name])
        except Exception as error:  # a share that is none
            log.debug("%s: its rule gave %s, for %d samples (%s)", name, type(shares[name]).__name__, n, error)
            right = False
        if not right:
            log.debug("%s: its rule gives other gradients than plain autograd, for %d samples and 2 cotangents", name, n)
            wrong.add(name)
    return wrong, told


def attempted(
    z: Tensor, uses: Sequence[tuple[Use, Seen]], c: Tensor, names: dict[int, str], batched: bool = False
) -> dict[str, Share]:
    """Compute the shares by rules; where that fails, of those parameters alone for which it does not."""
    try:
        return by_rules(z, uses, c, names, retain=True, batched=batched)
    except Exception as error:  # whatever a rule does not expect
        groups = {use.names for use, _ in uses}
        if len(groups) <= 1:
            for use, _ in uses:
                log.debug("%s: the rule of %s fails (%s: %s)", ", ".join(use.names), use.kind, type(error).__name__, error)
            return {}
    found: dict[str, Share] = {}
    for group in groups:
        some = [(use, seen) for use, seen in uses if use.names & group]
        if len(some) < len(uses):
            found |= {name: share for name, share in attempted(z, some, c, names).items() if name in group}
    return found
