"""The two sides of a Gram matrix, checked: a model, samples and their cotangents."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..basics import fingerprints, validate
from ..basics.notes import note
from ..tangents import precision as precisions
from ..tangents.cotangents import Cotangent, PerSample, checked, looked_at, of_block, part
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
        stacked: R and S, the cotangents a sample of either side, or None where there is one and no axis for it.
        precision: of products.
    """

    model: nn.Module
    known: Probe
    x1: Tensor
    c1: Cotangent
    x2: Tensor
    c2: Cotangent
    symmetric: bool
    stacked: tuple[int, int] | None
    precision: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, M), or (N, M, R, S) for stacked cotangents."""
        return (len(self.x1), len(self.x2), *(self.stacked or ()))

    @property
    def cotangents(self) -> tuple[int, int]:
        """R and S, 1 where there is no axis for them."""
        return self.stacked or (1, 1)

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
            "model": fingerprints.of_model(self.model),
            "data": fingerprints.of_tensor(*(x for x, _ in sides)),
            "cotangent": fingerprints.of_tensor(*(t for x, c in sides for t in self._values(x, c))),
            "parameters": fingerprints.of_object(list(self.known.numels)),
            "dtype": str(self.dtype),
            "symmetric": str(self.symmetric),
            "precision": self.precision,
        }

    def _values(self, x: Tensor, c: Cotangent) -> list[Tensor]:
        if isinstance(c, Tensor):
            return [c]
        some = looked_at(len(x)).to(x.device)
        with torch.no_grad():
            seen = of_block(part(c, some), run(self.model, x[some], self.known.traces))
        return [seen, c.values] if isinstance(c, PerSample) else [seen]


def check(
    model: nn.Module, x1: Tensor, c1: Cotangent, x2: Tensor | None, c2: Cotangent | None, precision: str = "exact"
) -> Sides:
    """Check the arguments of a Gram matrix, as :class:`ntk_course.Gram` promises."""
    if c2 is None and x2 is not None and not isinstance(c1, Tensor | PerSample):
        c2 = c1
    if (x2 is None) != (c2 is None):
        raise ValueError(f"{'c2' if c2 is None else 'x2'}: got None; wanted x2 and c2 together, or neither")
    validate.per_sample(model)
    like = validate.parameters(model)[0]
    x1 = validate.inputs(x1, like, "x1")
    known = probe(model, x1, "x1")
    if slow := known.numels.keys() - known.understood - known.batched:
        names = ", ".join(sorted(slow)[:4]) + (f" and {len(slow) - 4} more" if len(slow) > 4 else "")
        note(f"model: {names}: differentiated one sample at a time (exact, and slow): neither a rule nor torch.func applies")
    c1, r = checked(c1, x1, known.z, "c1")
    precision = precisions.check(precision, like.dtype)
    if x2 is None or c2 is None:
        return Sides(model, known, x1, c1, x1, c1, True, None if r is None else (r, r), precision)
    x2, c2, s = _second(like, known, x1, x2, c2, ("x2", "c2"))
    if (r is None) != (s is None):
        raise ValueError(f"c2: got {s or 'no'} cotangents stacked a sample and {r or 'none'} in c1; wanted as many axes in both")
    return Sides(model, known, x1, c1, x2, c2, False, None if r is None or s is None else (r, s), precision)


def _second(
    like: Tensor, known: Probe, x: Tensor, x2: Tensor, c2: Cotangent, names: tuple[str, str]
) -> tuple[Tensor, Cotangent, int | None]:
    x2 = validate.inputs(x2, like, names[0])
    if x.shape[1:] != x2.shape[1:]:
        got, wanted = tuple(x2.shape[1:]), tuple(x.shape[1:])
        raise ValueError(f"{names[0]}: got samples of shape {got}; wanted {wanted}, as on the other side")
    return x2, *checked(c2, x2, known.z, names[1])


def against(sides: Sides, x: Tensor, c: Cotangent) -> Sides:
    """Return the sides of other samples against the second side's, under the same model."""
    x, c, r = _second(validate.parameters(sides.model)[0], sides.known, sides.x2, x, c, ("x", "c"))
    if (r is None) != (sides.stacked is None):
        raise ValueError(f"c: got {r or 'no'} cotangents stacked a sample; wanted as many axes as in the other side's")
    stacked = None if r is None else (r, sides.cotangents[1])
    return Sides(sides.model, sides.known, x, c, sides.x2, sides.c2, False, stacked, sides.precision)


def one_a_sample(sides: Sides, what: str) -> None:
    """Refuse stacked cotangents."""
    if sides.stacked:
        raise ValueError(f"{what}: got a Gram matrix of shape {sides.shape}; wanted one cotangent a sample, (N, M)")


def one_side(sides: Sides, what: str) -> None:
    """Refuse two sides."""
    if not sides.symmetric:
        raise ValueError(f"{what}: got a Gram matrix of two sides, {sides.shape}; wanted samples against themselves")
