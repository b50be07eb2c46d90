"""Test cases drawn anew: sizes that differ from one another, numbers, labels, kernels that can exist."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class Draw:
    """A source of random test cases; float64 tensors on the CPU.

    Attributes:
        generator: of all of them, never torch's global one, which belongs to the reader.
    """

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers."""
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, low: float, high: float, digits: int | None = None) -> float:
        """Draw one number, rounded to some digits where a reader is to see it."""
        value = low + (high - low) * float(torch.rand((), generator=self.generator, dtype=torch.float64))
        return value if digits is None else round(value, digits)

    def integer(self, low: int, high: int) -> int:
        """Draw a whole number from low to high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Draw whole numbers from low to high, both included."""
        return torch.randint(low, high + 1, shape, generator=self.generator)

    def sizes(self, count: int, low: int = 2, high: int = 7) -> list[int]:
        """Draw sizes that are all different, so that an axis taken for another, or a size written down, does not pass."""
        return [low + int(i) for i in torch.randperm(high - low + 1, generator=self.generator)[:count]]

    def order(self, n: int) -> Tensor:
        """Draw a permutation of 0 to n - 1."""
        return torch.randperm(n, generator=self.generator)

    def choice(self, values: Sequence):
        """Draw one of some values."""
        return values[self.integer(0, len(values) - 1)]

    def labels(self, n: int, k: int) -> Tensor:
        """Draw labels (n,) of which every class occurs if there is room."""
        y = torch.cat([torch.arange(k), self.integers(0, k - 1, max(0, n - k))])[:n]
        return y[self.order(n)] if n >= k else self.integers(0, k - 1, n)

    def bits(self, *shape: int, share: float = 0.5) -> Tensor:
        """Draw a bool tensor with about a share of True."""
        return torch.rand(*shape, generator=self.generator) < share

    def each(self, values: Sequence) -> list:
        """Return all of some values in an order that is drawn, so that none written down passes for all."""
        return [values[i] for i in self.order(len(values))]

    def softmax(self, *shape: int) -> Tensor:
        """Draw probabilities along the last axis."""
        return (1.5 * self.normal(*shape)).softmax(-1)

    def gram(self, n: int, rank: int | None = None) -> Tensor:
        """Draw a Gram matrix (n, n): symmetric, no negative eigenvalue, vectors of different lengths."""
        features = self.normal(n, rank or n + 1) * (0.3 + 2 * torch.rand(n, 1, generator=self.generator, dtype=torch.float64))
        return features @ features.T

    def jacobians(self, n: int, k: int, d: int) -> Tensor:
        """Draw Jacobians (n, k, d) of n samples."""
        return self.normal(n, k, d)


def telling_apart(make: Callable[[], tuple | None], rules: Sequence[Callable]) -> Iterator[tuple]:
    """Yield drawn cases until every two rules have answered one of them differently; ``make`` may return None for no case."""
    alike = {(p, q) for p in range(len(rules)) for q in range(p)}
    for _ in range(100_000):
        if not alike:
            return
        case = make()
        if case is None:
            continue
        said = [rule(*case) for rule in rules]
        apart = {(p, q) for p, q in alike if said[p] != said[q]}
        if apart:
            alike -= apart
            yield case
    raise ValueError(f"rules: these pairs answer alike, case after case: {sorted(alike)}; wanted different rules")


@dataclass(frozen=True, repr=False)
class Formula:
    """A function that an answer is given, shown as its formula where a case is shown."""

    function: Callable
    formula: str

    def __call__(self, *arguments):
        """Return the function's value."""
        return self.function(*arguments)

    def __repr__(self) -> str:
        return self.formula
