"""Where a sample's activation pattern changes while the weights go along a line."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap

from ...basics import validate
from ...basics.samples import Batch, leaves, of_leaves
from ...models.functional import assign, call_with, ungraphed
from ...tangents.lines import movable, shifted
from ...tangents.running import plainly
from .kinks import Met, watched

# Numbers of input that go through the model at a time when patterns are compared.
_ROWS = 2**18
# Breakpoints of one sample in one step beyond which something other than the step must be wrong.
_MOST = 10_000


def breakpoints(
    model: nn.Module, start: dict[str, Tensor], change: dict[str, Tensor], x: Tensor | Batch, scan: int = 8
) -> list[Tensor]:
    r"""Find where the activation pattern of each sample changes as the weights go from w to w + change.

    With one layer of ReLUs behind one affine layer the inputs of the ReLUs are affine in t, and the roots are
    :math:`t = h_0/(h_0 - h_1)`. Otherwise the step is cut into ``scan`` parts, and every part whose ends have different
    patterns is bisected down to rounding. A unit that turns and turns back inside one part is not seen: what it leaves out
    shows in :attr:`ntk_course.kernels.paths.PathKernel.error`, and ``epk(nodes="auto")`` takes more parts then.

    Args:
        model: whose kinks are operations, see :func:`ntk_course.kernels.paths.activation_pattern`.
        start: parameters at t = 0, by name.
        change: by name.
        x: (N, ...).
        scan: parts of the step.

    Returns:
        For each sample its breakpoints inside (0, 1), in order; a model without kinks has none.

    Raises:
        ValueError: scan below 1; ArithmeticError: more than ten thousand breakpoints a sample.

    Example:
        >>> start, change = path.unflatten(path.weights[0]), path.unflatten(path.weights[1] - path.weights[0])
        >>> len(breakpoints(path.model, start, change, path.x))
        32
    """
    validate.positive(scan, "scan")
    return ungraphed(lambda: _breakpoints(model, start, change, x, scan))


def _breakpoints(
    model: nn.Module, start: dict[str, Tensor], change: dict[str, Tensor], x: Tensor | Batch, scan: int
) -> list[Tensor]:
    middle = _met(model, start, change, x, 0.5)
    one = next(iter(start.values()))
    if not middle:
        return [one.new_empty(0)] * len(x)
    if len(middle) == 1 and middle[0].input is not None and len(middle[0].input) == len(x):
        h0, h, h1 = (_met(model, start, change, x, t)[0].input.flatten(1) for t in (0.0, 0.5, 1.0))  # type: ignore[union-attr]
        # affine in t up to rounding: one affine layer before the kink
        if (h - (h0 + h1) / 2).abs().max() <= 64 * torch.finfo(h.dtype).eps * h.abs().max():
            turned = (h0 > 0) != (h1 > 0)
            roots = torch.where(turned, h0 / torch.where(turned, h0 - h1, 1.0), -1.0)
            return [_inside(row) for row in roots]
    return _bisect(model, start, change, x, scan)


def _inside(roots: Tensor) -> Tensor:
    return roots[(roots > 0) & (roots < 1)].unique()  # sorted


def _met(model: nn.Module, start: dict[str, Tensor], change: dict[str, Tensor], x: Tensor | Batch, t: float) -> list[Met]:
    with plainly(model), watched() as seen:
        call_with(model, {name: p + t * change[name] for name, p in start.items()}, x)
    return seen


def _bisect(model: nn.Module, start: dict[str, Tensor], change: dict[str, Tensor], x: Tensor | Batch, scan: int) -> list[Tensor]:
    at = _fingerprints(model, start, change, x)
    one = next(iter(start.values()))
    grid = torch.linspace(0, 1, scan + 1, dtype=one.dtype, device=one.device)
    everyone = torch.arange(len(x), device=one.device)
    whole = torch.stack([at(t.expand(len(x)), everyone) for t in grid])  # (scan + 1, N)
    part, sample = (whole[1:] != whole[:-1]).nonzero(as_tuple=True)
    low, high, from_, to = grid[part], grid[part + 1], whole[part, sample], whole[part + 1, sample]
    for _ in range(1 - int(np.log2(torch.finfo(one.dtype).eps))):
        if not len(sample):
            break
        if len(sample) > _MOST * len(x):
            raise ArithmeticError(f"breakpoints: got more than {_MOST} a sample in one step; wanted a smaller step size")
        middle = (low + high) / 2
        here = at(middle, sample)
        left, right = here != from_, here != to
        sample = torch.cat([sample[left], sample[right]])
        low, high = torch.cat([low[left], middle[right]]), torch.cat([middle[left], high[right]])
        from_, to = torch.cat([from_[left], here[right]]), torch.cat([here[left], to[right]])
    return [_inside((low + high)[sample == n] / 2) for n in range(len(x))]


def _fingerprints(
    model: nn.Module, start: dict[str, Tensor], change: dict[str, Tensor], x: Tensor | Batch
) -> Callable[[Tensor, Tensor], Tensor]:
    """Make the function from times (P,) and numbers of samples (P,) to a number for each activation pattern there.

    A pattern is multiplied with random 64-bit integers, so that two patterns share a number once in 2^64 times.
    """
    own, random = assign(copy.deepcopy(model), start), np.random.default_rng(0)
    keys: dict[int, Tensor] = {}

    def number(seen: list[Met], n: int) -> Tensor:
        rows = [met.codes.reshape(n, -1).long() for met in seen]
        for i, codes in enumerate(rows):
            if i not in keys or len(keys[i]) < codes.shape[1]:
                more = random.integers(-(2**63), 2**63, codes.shape[1] - len(keys.get(i, ())))
                keys[i] = torch.cat([keys.get(i, codes.new_empty(0)), torch.from_numpy(more).to(codes.device)])
        return torch.stack([(codes * keys[i][: codes.shape[1]]).sum(1) for i, codes in enumerate(rows)]).sum(0)

    def singly(t: Tensor, one: list[Tensor]) -> Tensor:
        seen = _met(own, start, change, of_leaves(x, [v[None] for v in one]), t)  # type: ignore[arg-type]
        return number(seen, 1)[0]

    def together(t: Tensor, some: list[Tensor]) -> Tensor:
        with plainly(own), watched() as seen, shifted(own, change, t):
            own(of_leaves(x, some))
        return number(seen, len(t))

    rows = max(1, _ROWS // sum(v[0].numel() for v in leaves(x)))
    one_pass = movable(own, x) and all(len(met.codes) == len(x) for met in _met(own, start, change, x, 0.0))
    run = together if one_pass else vmap(singly)
    return lambda t, n: torch.cat([run(a, [v[b] for v in leaves(x)]) for a, b in zip(t.split(rows), n.split(rows), strict=True)])
