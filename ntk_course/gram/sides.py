"""The two sides of a Gram matrix, checked: a model, samples and their cotangents."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..basics import fingerprints, validate
from ..basics.notes import note
from ..basics.samples import Samples, Stored, described, form, given, leaves
from ..models.adapted import Output, adapted, origin
from ..models.choice import Choice, chosen_from
from ..tangents import precision as precisions
from ..tangents.cotangents import Cotangent, PerSample, Summed, checked, fits_any, looked_at, of_block, part
from ..tangents.probe import Probe, probe
from ..tangents.running import run


@dataclass(frozen=True, eq=False)
class Sides:
    """What a Gram matrix is made of.

    Attributes:
        model: with its own parameters, which may train on: nothing is computed yet.
        known: what a probe of the model told; only the parameters it lists count.
        x1: (N, ...).
        c1: their cotangents.
        x2: (M, ...), the same as x1 where the matrix is symmetric.
        c2: their cotangents.
        symmetric: whether the second side is the first.
        rows: R and S, the cotangents a sample of either side.
        stacked: R and S, where each has rows of its own in the matrix; None where there is one, or where they are summed.
        precision: of products.
    """

    model: nn.Module
    known: Probe
    x1: Samples
    c1: Cotangent
    x2: Samples
    c2: Cotangent
    symmetric: bool
    rows: tuple[int, int]
    stacked: tuple[int, int] | None
    precision: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, M), or (N, M, R, S) for stacked cotangents."""
        return (len(self.x1), len(self.x2), *(self.stacked or ()))

    @property
    def cotangents(self) -> tuple[int, int]:
        """The rows a sample has in the matrix, R and S, or 1."""
        return self.stacked or (1, 1)

    @property
    def products(self) -> tuple[int, int]:
        """Two numbers of cotangents whose product says how many products two samples take: R and S, or R where they are summed."""
        return self.rows if self.stacked else (self.rows[0], 1)

    @property
    def dtype(self) -> torch.dtype:
        """Of the model and of the matrix."""
        return self.known.z.dtype

    @property
    def device(self) -> torch.device:
        """Of the model and of the matrix."""
        return self.known.z.device

    def describe(self) -> dict[str, str]:
        """Fingerprint what the matrix is made from; a cotangent that is a function, by its values for some of the samples."""
        sides = [(self.x1, self.c1)] if self.symmetric else [(self.x1, self.c1), (self.x2, self.c2)]
        return {
            "model": fingerprints.of_model(self.model, self.known.traces.settings),
            "data": fingerprints.of_tensor(*(t for x, _ in sides for t in _data(x))),
            "cotangent": fingerprints.of_tensor(*(t for x, c in sides for t in self._values(x, c))),
            "parameters": fingerprints.of_object(list(self.known.numels)),
            "dtype": str(self.dtype),
            "symmetric": str(self.symmetric),
            "precision": self.precision,
        }

    def _values(self, x: Samples, c: Cotangent) -> list[Tensor]:
        if isinstance(c, Summed):
            return [*self._values(x, c.of), torch.ones(())]
        if isinstance(c, Tensor):
            return [c]
        some = looked_at(len(x)).to(x.device)
        with torch.no_grad():
            seen = of_block(part(c, some), run(self.model, x[some], self.known.traces))
        return [seen, *c.all_values] if isinstance(c, PerSample) else [seen]


# Samples of a data set that are read at a time for their fingerprint.
_READ = 512


def _data(x: Samples) -> Iterator[Tensor]:
    for some in [x] if not isinstance(x, Stored) else (x[i : i + _READ] for i in range(0, len(x), _READ)):
        yield from leaves(some)


def check(
    model: nn.Module,
    x1: Any,
    c1: Cotangent,
    x2: Any,
    c2: Cotangent | None,
    precision: str = "exact",
    output: Output | None = None,
    parameters: Choice | None = None,
) -> Sides:
    """Check the arguments of a Gram matrix, as :class:`ntk_course.Gram` promises."""
    if c2 is None and x2 is not None and fits_any(c1):
        c2 = c1
    if (x2 is None) != (c2 is None):
        raise ValueError(f"{'c2' if c2 is None else 'x2'}: got None; wanted x2 and c2 together, or neither")
    validate.per_sample(model)
    like = validate.parameters(model)[0]
    x1 = given(x1, like, "x1", model)
    model = adapted(model, x1[:1], output)
    known = probe(model, x1, "x1", None if parameters is None else chosen_from(origin(model), parameters))
    if slow := known.numels.keys() - known.understood - known.batched:
        names = ", ".join(sorted(slow)[:4]) + (f" and {len(slow) - 4} more" if len(slow) > 4 else "")
        note(f"model: {names}: differentiated one sample at a time (exact, and slow): neither a rule nor torch.func applies")
    c1, r = checked(c1, len(x1), known.z, "c1")
    precision = precisions.check(precision, like.dtype)
    if x2 is None or c2 is None:
        return Sides(model, known, x1, c1, x1, c1, True, *_axes(c1, r, c1, r, "c1"), precision)
    x2, c2, s = _other(model, known, x1, x2, c2, ("x2", "c2"))
    return Sides(model, known, x1, c1, x2, c2, False, *_axes(c1, r, c2, s, "c2"), precision)


def _other(model: nn.Module, known: Probe, x: Samples, x2, c2: Cotangent, names: tuple[str, str]):
    x2 = given(x2, validate.parameters(model)[0], names[0], origin(model))
    one, other = x[:1], x2[:1]
    if form(one) != form(other):
        got, wanted = described(other), described(one)
        if got == wanted:
            got, wanted = (", ".join(str(t.dtype).removeprefix("torch.") for t in leaves(some)) for some in (other, one))
        raise ValueError(f"{names[0]}: got samples of shape {got}; wanted {wanted}, as on the other side")
    return x2, *checked(c2, len(x2), known.z, names[1])


def _axes(
    c1: Cotangent, r: int | None, c2: Cotangent, s: int | None, name: str
) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Return how many cotangents a sample each side has, and, where they are rows of the matrix, again."""
    if (r is None) != (s is None):
        raise ValueError(
            f"{name}: got {s or 'no'} cotangents stacked a sample and {r or 'none'} on the other side; wanted as many axes in both"
        )
    if r is None or s is None:
        return (1, 1), None
    if isinstance(c1, Summed) or isinstance(c2, Summed):
        if not (isinstance(c1, Summed) and isinstance(c2, Summed) and r == s):
            raise ValueError(f"{name}: got {c1!r} ({r} a sample) against {c2!r} ({s}); wanted summed() and as many on both sides")
        return (r, s), None
    return (r, s), (r, s)


def against(sides: Sides, x, c: Cotangent) -> Sides:
    """Return the sides of other samples against the second side's, under the same model."""
    x, c, r = _other(sides.model, sides.known, sides.x2, x, c, ("x", "c"))
    single = sides.stacked is None and not isinstance(sides.c2, Summed)
    rows, stacked = _axes(sides.c2, None if single else sides.rows[1], c, r, "c")
    return Sides(
        sides.model, sides.known, x, c, sides.x2, sides.c2, False, rows[::-1], stacked and stacked[::-1], sides.precision
    )


def one_a_sample(sides: Sides, what: str) -> None:
    """Refuse stacked cotangents."""
    if sides.stacked:
        raise ValueError(f"{what}: got a Gram matrix of shape {sides.shape}; wanted one cotangent a sample, (N, M)")


def unsummed(sides: Sides, what: str) -> None:
    """Refuse summed cotangents."""
    if isinstance(sides.c1, Summed):
        raise ValueError(f"{what}: got {sides.c1!r}; wanted one cotangent a sample, or several apart")


def one_side(sides: Sides, what: str) -> None:
    """Refuse two sides."""
    if not sides.symmetric:
        raise ValueError(f"{what}: got a Gram matrix of two sides, {sides.shape}; wanted samples against themselves")
