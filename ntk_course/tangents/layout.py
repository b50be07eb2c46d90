"""A layout: which weights' gradients are formed, and which stay in factors; decided once, and the same in every block."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from .probe import Probe

# Gradients of fewer numbers are laid side by side, so that one product serves many of them; that costs a copy, and a GPU, for
# which a small product is as long as a larger one, gains more by it.
_SMALL = {"cpu": 2**9}
_SMALL_ELSEWHERE = 2**12


def explicit_is_cheaper(
    positions: int,
    fan_in: int,
    fan_out: int,
    pairs: float,
    cotangents: int = 1,
    others: int | None = None,
    table: bool = False,
) -> bool:
    r"""Decide whether a weight's gradient should be formed or kept as T outer products, by counting multiply-adds.

    Per pair of samples, with R and S cotangents: the formed gradient costs :math:`R S\,p q` for the product and
    :math:`\frac{R + S}2\,T p q` for the forming, shared among the pairs that one sample takes part in; the factors cost
    :math:`T^2 (p + R S\,q + R S)`. A row of a table costs one comparison in place of p, and nothing to form.

    Args:
        positions: T.
        fan_in: p.
        fan_out: q.
        pairs: pairs per formed gradient, N M / (N + M) for an N x M Gram matrix.
        cotangents: R.
        others: S, of the other side; by default R.
        table: whether the p inputs are rows that are looked up.

    Returns:
        True when forming the gradient takes no more operations.

    Example:
        >>> explicit_is_cheaper(positions=784, fan_in=25, fan_out=6, pairs=256)
        True
        >>> explicit_is_cheaper(positions=1, fan_in=400, fan_out=120, pairs=256)
        False
    """
    others = cotangents if others is None else others
    both = cotangents * others
    forming = 0 if table else (cotangents + others) / 2 * positions * fan_in * fan_out / pairs
    explicit = both * fan_in * fan_out + forming
    factored = positions**2 * ((1 if table else fan_in) + both * fan_out + both)
    return explicit <= factored


@dataclass(frozen=True)
class Layout:
    """How tangent features are kept, so that those of any two blocks can be multiplied.

    Attributes:
        known: what the probe of the model told.
        factored: the weights that stay in factors.
    """

    known: Probe
    factored: frozenset[str]

    @classmethod
    def choose(cls, known: Probe, pairs: float, cotangents: int = 1, others: int | None = None) -> "Layout":
        """Choose for each weight what takes fewer operations, see :func:`explicit_is_cheaper`."""
        factored = [
            name
            for name, s in known.sizes.items()
            if not explicit_is_cheaper(s.positions, s.fan_in, s.fan_out, pairs, cotangents, others, s.table)
        ]
        return cls(known, frozenset(factored))

    @cached_property
    def bias_of(self) -> dict[str, str]:
        """The biases that are one more input of a weight in factors."""
        return {weight: bias for weight, bias in self.known.bias_of.items() if weight in self.factored}

    @cached_property
    def joined(self) -> frozenset[str]:
        """Those biases alone."""
        return frozenset(self.bias_of.values())

    @cached_property
    def whole(self) -> tuple[str, ...]:
        """The parameters whose gradients are formed."""
        return tuple(name for name in self.known.numels if name not in self.factored | self.joined)

    @cached_property
    def small(self) -> tuple[str, ...]:
        """Those of them with so few numbers that they are laid side by side, and come first."""
        return tuple(name for name in self.whole if self.known.numels[name] < self._few)

    @cached_property
    def large(self) -> tuple[str, ...]:
        """Those that follow, each by itself."""
        return tuple(name for name in self.whole if self.known.numels[name] >= self._few)

    @property
    def _few(self) -> int:
        return _SMALL.get(self.known.z.device.type, _SMALL_ELSEWHERE)

    def forming(self, factored: Iterable[str] = ()) -> "Layout":
        """Return the layout in which only some weights stay in factors, none by default."""
        return replace(self, factored=frozenset(factored))

    def numbers(self, cotangents: int = 1) -> int:
        """Count the numbers that the features of one sample hold."""
        numbers = {name: cotangents * numel for name, numel in self.known.numels.items()}
        for weight in self.factored:
            sizes = self.known.sizes[weight]
            each = sizes.groups * sizes.positions
            numbers[weight] = each * (sizes.width + cotangents * sizes.fan_out)
            if weight in self.bias_of:
                numbers[self.bias_of[weight]] = each
        return sum(numbers.values())
