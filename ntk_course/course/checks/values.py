"""What an answer may return, how two values are compared, and how one is shown."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

# a value is a tensor of numbers or of truth values, or a list of such
Value = "Tensor | list"


class Unreadable(Exception):
    """What was returned, in words, where it is no number, array or sequence of them."""


def read(value) -> Tensor | list | str:
    """Turn what came back into a tensor (float64 on the CPU, or bool), or a list of them; a word stays one.

    Raises:
        Unreadable: it is something else.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return read(list(value.values()))
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "USO":  # words, and numbers of Python
        return read(value.tolist())
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind == "f" and value.dtype.itemsize > 8:
        value = value.astype(np.float64)
    if isinstance(value, (Fraction, Decimal)):
        value = float(value)
    try:
        if isinstance(value, (Tensor, np.ndarray, np.generic, bool, int, float)):
            if isinstance(value, np.ndarray):
                value = np.ascontiguousarray(value).reshape(value.shape)  # torch does not read backwards
            elif isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            tensor = torch.as_tensor(value).detach().cpu()
            tensor = tensor if tensor.layout == torch.strided else tensor.to_dense()
            if tensor.is_complex():
                raise Unreadable("complex numbers; wanted real ones")
            return tensor.clone() if tensor.dtype == torch.bool else tensor.to(torch.float64, copy=True)
        if isinstance(value, (list, tuple, set, frozenset, range)):
            parts = [read(part) for part in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
            tensors = [part for part in parts if isinstance(part, Tensor)]
            if parts and len(tensors) == len(parts) and len({part.shape for part in tensors}) == 1:
                same_kind = all(part.dtype == torch.bool for part in tensors)
                return torch.stack([part if same_kind else part.double() for part in tensors])
            return parts if parts else torch.zeros(0, dtype=torch.float64)
    except Unreadable:
        raise
    except Exception as problem:
        raise Unreadable(f"{type(value).__name__} that cannot be read as numbers") from problem
    if hasattr(value, "to_numpy"):  # pandas
        return read(value.to_numpy())
    raise Unreadable(f"{type(value).__name__}; wanted numbers (a tensor, an array, a list or a float)")


def same(a, b) -> bool:
    """Compare two values; 1e-4, since an answer computed in float32 is right, and every known mistake is off by far more."""
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    if isinstance(a, list) or isinstance(b, list):
        return isinstance(a, list) and isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if a.shape != b.shape:
        return False
    if a.dtype == b.dtype == torch.bool:
        return bool((a == b).all())
    return bool(_close(a, b).all())


def _close(a: Tensor, b: Tensor) -> Tensor:
    """Say of every entry whether two tensors of one shape agree in it."""
    a, b = a.double(), b.double()
    scale = float(b[b.isfinite()].abs().max()) if b.isfinite().any() else 1.0
    return torch.isclose(a, b, rtol=1e-4, atol=1e-6 * scale if scale else 1e-9, equal_nan=True)


NEAR = "Near, and not the number"
SMALL = 48  # numbers that still fit into a line


def shown(value, digits: int = 4) -> str:
    """Write a value in one line, with four digits; large ones by their shape."""
    if isinstance(value, np.ndarray):
        value = torch.as_tensor(np.ascontiguousarray(value))
    if isinstance(value, Tensor) and value.numel() <= SMALL:
        return str(_rounded(value.detach().cpu().tolist(), digits))
    if isinstance(value, Tensor):
        return f"tensor of shape {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        inside = ", ".join(shown(part) for part in value)
        return f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Module) and sum(p.numel() for p in value.parameters()) <= SMALL:
        return _module(value)
    text = repr(value)
    return text if len(text) < 120 else f"{type(value).__name__}"


def first_difference(got, wanted) -> list[str]:
    """Show the first entry that is wrong, where two tensors of one shape are too large to be shown."""
    if not (isinstance(got, Tensor) and isinstance(wanted, Tensor) and got.shape == wanted.shape and got.numel() > SMALL):
        return []
    apart = (~_close(got, wanted)).nonzero()
    if not len(apart):
        return []
    at = tuple(apart[0].tolist())
    place = ", ".join(map(str, at))
    return [f"{len(apart)} of {got.numel()} entries differ; [{place}]: yours {shown(got[at])}, wanted {shown(wanted[at])}"]


def _module(model: Module) -> str:
    """Write a small network in one line, layer by layer, with its weights."""
    layers = [layer for layer in model.modules() if not list(layer.children())]
    words = [
        f"{type(layer).__name__}({', '.join(f'{name} = {shown(p)}' for name, p in layer.named_parameters())})" for layer in layers
    ]
    return " -> ".join(words)


def _rounded(value, digits: int = 4):
    if isinstance(value, list):
        return [_rounded(part, digits) for part in value]
    if not isinstance(value, float):
        return value
    return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.{digits}g}")


def difference(got: Sequence, wanted: Sequence, cases: Sequence[tuple], names: Sequence[str]) -> str:
    """Say how an answer differs from what was wanted, over all cases: by a shape, a sign, a factor, an order, or only where.

    A case is a tuple of values, and the names are theirs.
    """
    if any(isinstance(value, str) for value in (*got, *wanted)):
        right = sum(map(same, got, wanted))
        return f"Right for {right} of {len(got)} cases; this one is wrong:" if right else "Wrong. A case:"
    for g, w in zip(got, wanted, strict=True):
        if isinstance(g, list) != isinstance(w, list) or (isinstance(g, list) and len(g) != len(w)):
            return f"Wanted {_described(w)}; this is {_described(g)}."
    if isinstance(wanted[0], list):
        return "Not all of what you returned is right. A case:"
    pairs = [(g, w) for g, w in zip(got, wanted, strict=True)]
    wrong = [(g, w) for g, w in pairs if not same(g, w)]
    shapes = [(g, w) for g, w in pairs if g.shape != w.shape]
    if shapes:
        g, w = shapes[0]
        if all(g.dim() >= 2 and g.mT.shape == w.shape and same(g.mT, w) for g, w in shapes):
            return f"The axes are exchanged: yours has shape {tuple(g.shape)}, wanted {tuple(w.shape)}."
        return f"Your answer has shape {tuple(g.shape)}; wanted {tuple(w.shape)}."
    if all(w.dtype == torch.bool for _, w in pairs):
        if all(g.dtype == torch.bool and same(g, ~w) for g, w in pairs):
            return "True and False are exchanged."
        return (
            f"Wrong for {len(wrong)} of {len(pairs)} cases; right for the others. The first of them:"
            if len(wrong) < len(pairs)
            else "Wrong. A case:"
        )
    pairs = [(g.double(), w.double()) for g, w in pairs if w.isfinite().all()]
    if all(same(g, w) for g, w in pairs):  # only where infinity or nothing is wanted is it wrong
        return f"Right for {len(got) - len(wrong)} of {len(got)} cases; this one is wrong:"
    for words, change in _CHANGES.items():
        if all(same(change(g), w) for g, w in pairs) and not all(same(g, w) for g, w in pairs):
            return words
    if all(same(g, w.abs()) for g, w in pairs):
        return "The signs are lost: some of these numbers are negative."
    if all(same(g, w.clamp(min=0)) for g, w in pairs):
        return "Negative values are cut off at 0."
    if any(g.isnan().any() for g, _ in pairs):
        return "There is a NaN where a number is wanted. A case:"
    if all(g.shape == w.shape and bool(((g - w).abs() <= 0.01 * w.abs()).all()) for g, w in pairs):
        return f"{NEAR}: off by less than a hundredth. A rounded constant, one term too few, or a method that only comes near?"
    factor = _factor(pairs, cases, names)
    if factor:
        return factor
    if all(g.dim() == 1 and same(g.sort().values, w.sort().values) for g, w in pairs):
        return "The right numbers in another order."
    if len(wrong) < len(got):
        return f"Right for {len(got) - len(wrong)} of {len(got)} cases; this one is wrong:"
    return "The shape is right, the numbers are not. A case:"


_CHANGES = {
    "The sign is turned round.": lambda g: -g,
    "This is 1 minus the right answer.": lambda g: 1 - g,
    "This is the reciprocal of the right answer.": lambda g: 1 / g,
    "This is the right answer's square root: square it.": lambda g: g.square(),
    "This is the right answer's square.": lambda g: g.clamp(min=0).sqrt(),
    "This is the right answer's logarithm.": lambda g: g.clamp(max=300).exp(),
    "The matrix is transposed.": lambda g: g.mT if g.dim() >= 2 else g,
    "Every number is one too small.": lambda g: g + 1,
    "Every number is one too large.": lambda g: g - 1,
}


def _factor(pairs: Sequence[tuple[Tensor, Tensor]], cases: Sequence[tuple], names: Sequence[str]) -> str | None:
    ratios = []
    for g, w in pairs:
        if not g.numel():
            continue
        if not bool(w.abs().max() > 0):
            if bool(g.abs().max() > 0):
                return None
            continue
        ratio = float((g * w).sum() / (w * w).sum())
        if ratio == 0 or not same(g, ratio * w):
            return None
        ratios.append(ratio)
    if not ratios:
        return None
    if max(ratios) - min(ratios) < 1e-3 * abs(ratios[0]):
        return f"Off by the factor {ratios[0]:.4g} in every case."
    for sentence, size in _sizes(cases, names):
        if len(size) != len(ratios) or not all(size) or len(set(size)) < 2:
            continue
        for power, words in _POWERS.items():
            if all(abs(r / s**power - 1) < 1e-3 for r, s in zip(ratios, size, strict=True)):
                return f"The numbers have {words}{sentence} too much: does it stand there once too often, or is it missing on the other side?"
            fixed = [r / s**power for r, s in zip(ratios, size, strict=True)]
            if abs(power) == 1 and max(fixed) - min(fixed) < 1e-3 * abs(fixed[0]):
                number = fixed[0] ** -power
                return f"It looks as if {number:.4g} stood where {sentence} belongs."
    if all(w.numel() > 2 for _, w in pairs):
        return "Off by a factor that differs from case to case (" + ", ".join(f"{r:.3g}" for r in ratios[:4]) + ")."
    return None


_POWERS = {
    1: "the factor ",
    -1: "one over ",
    0.5: "the square root of ",
    -0.5: "one over the square root of ",
    2: "the square of ",
    -2: "one over the square of ",
}


def _sizes(cases: Sequence[tuple], names: Sequence[str]):
    for place, (name, first) in enumerate(zip(names, cases[0], strict=False)):
        if isinstance(first, Tensor):
            for axis in range(first.dim()):
                yield f"the length of axis {axis} of `{name}`", [case[place].shape[axis] for case in cases]
        elif isinstance(first, (int, float)) and not isinstance(first, bool):
            yield f"`{name}`", [case[place] for case in cases]


def _described(value) -> str:
    return f"{len(value)} values" if isinstance(value, list) else f"one of shape {tuple(value.shape)}"
