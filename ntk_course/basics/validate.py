"""Errors for bad input: each names the argument, what was got, and what is wanted."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import index

import numpy as np
import torch
from torch import Tensor, nn

_BATCH_STATISTICS = (nn.modules.batchnorm._BatchNorm,)
_DROPOUT_INSIDE = (nn.MultiheadAttention, nn.RNNBase)
# Numbers looked at together.
_AT_ONCE = 2**20
_RANDOM_WHEN_TRAINING = (nn.modules.dropout._DropoutNd, nn.RReLU)


# The label of a position that does not count, as in torch.nn.functional.cross_entropy.
IGNORED = -100


def labels(y, num_samples: int, num_classes: int, like: Tensor, name: str = "y", positions: tuple[int, ...] = ()) -> Tensor:
    """Return labels as an int64 tensor of shape (N,) after checking length, range [0, K) and the device of `like`.

    Where a sample has several positions, such as tokens, it has a label for each, (N, T), or -100 where that does not count.
    """
    y = array(y, name, "integer class labels")
    if num_samples == 0:
        raise ValueError(f"{name}: got no labels; wanted at least one")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"{name}: got dtype {y.dtype}; wanted integer class labels")
    if y.shape != (num_samples, *positions):
        each = (
            f"position of each sample, classes last in the logits {(num_samples, *positions, num_classes)}"
            if positions
            else "sample"
        )
        hint = ": y.argmax(-1) of unit vectors" if y.shape == (num_samples, *positions, num_classes) else ""
        raise ValueError(
            f"{name}: got shape {tuple(y.shape)}; wanted {(num_samples, *positions)}, one label for each {each}{hint}"
        )
    same_device(y, like, name)
    counted = torch.where(y == IGNORED, 0, y) if positions else y
    low, high = (int(end) for end in counted.aminmax())
    if low < 0 or high >= num_classes:
        raise ValueError(f"{name}: got labels from {low} to {high}; wanted 0 to {num_classes - 1} for {num_classes} classes")
    return y.clone().long() if y.is_inference() else y.long()


def inputs(x: Tensor, like: Tensor, name: str = "x", least: int = 2) -> Tensor:
    """Return x in the dtype of `like` (a weight), detached, after checking that it is a finite, non-empty batch on its device.

    A NumPy array goes to that device by itself. Real numbers have at least so many axes, lest one sample pass for many.
    """
    if isinstance(x, np.ndarray):
        x = tensor(x, name).to(like.device)
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name}: got {type(x).__name__}; wanted a torch.Tensor whose first axis runs over samples, a tuple or dict of them, or "
            "a torch.utils.data.Dataset"
        )
    if x.is_nested or x.is_sparse:
        raise TypeError(f"{name}: got a {'nested' if x.is_nested else 'sparse'} tensor; wanted a dense one, (N, ...)")
    if x.is_complex():
        raise TypeError(f"{name}: got {x.dtype}; wanted real numbers: a kernel is an inner product of real gradients")
    if x.dim() < (least if x.is_floating_point() else 1):
        raise ValueError(f"{name}: got shape {tuple(x.shape)}; wanted at least two axes, (N, ...), samples first")
    if x.shape[0] == 0:
        raise ValueError(f"{name}: got N = 0 samples; wanted at least one")
    same_device(x, like, name)
    if x.is_floating_point():
        x = x.to(like.dtype)
        finite(x, name)
    return x.detach()


def array(values, name: str, wanted: str, *, rows: bool = False) -> Tensor:
    """Return what holds numbers as a tensor, its unsigned integers as int64, for which torch has every operation.

    With ``rows`` a single number is an error: wanted is one for each sample.
    """
    try:
        t = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: got {type(values).__name__} ({error}); wanted {wanted}") from None
    if rows and not t.dim():
        raise ValueError(f"{name}: got a single number ({t.item()}); wanted {wanted}, in brackets")
    return t.long() if t.dtype in (torch.uint16, torch.uint32, torch.uint64) else t


def tensor(x, name: str = "x"):
    """Return a NumPy array as the tensor that shares its memory where torch can, and anything else as it is.

    Arrays that run backwards, or whose bytes do, are copied.
    """
    if not isinstance(x, np.ndarray):
        return x
    if x.dtype.kind not in "fiubc":
        raise TypeError(f"{name}: got an array of {x.dtype}; wanted numbers")
    if not x.dtype.isnative or any(step < 0 for step in x.strides) or not x.flags.writeable:
        x = np.array(x, dtype=x.dtype.newbyteorder("="))
    return torch.from_numpy(x)


def double(x: Tensor, name: str = "x") -> Tensor:
    """Return a detached batch in float64, on its own device, after the checks of :func:`inputs`."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"{name}: got {getattr(x, 'dtype', type(x).__name__)}; wanted a floating-point tensor (N, ...)")
    return inputs(x.detach(), torch.empty(0, dtype=torch.float64, device=x.device), name)


def parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters (each once) after checking that they share one device and dtype and are finite."""
    a_module(model)
    named = list(model.named_parameters())
    trainable = [(name, p) for name, p in named if p.requires_grad]
    if not trainable:
        raise ValueError("model: got no trainable parameter (all are frozen, or there are none); wanted at least one")
    first_name, first = trainable[0]
    for name, p in named:
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise ValueError(f"model: got parameter {name} without a shape, of a lazy module; wanted model(x) called once before")
        if p.device != first.device:
            raise ValueError(
                f"model: got parameters on two devices ({first_name} on {first.device}, {name} on {p.device}); wanted one"
            )
    for name, p in trainable:
        if p.is_inference():
            raise ValueError(f"model: got parameter {name} made in inference mode, which nothing differentiates; wanted others")
        if not p.is_floating_point():
            raise TypeError(
                f"model: got parameter {name} in {p.dtype}; wanted real ones: a kernel is an inner product of real gradients"
            )
        if p.dtype != first.dtype:
            raise ValueError(f"model: got two dtypes ({first_name} {first.dtype}, {name} {p.dtype}); wanted one")
    at_once = first.device.type != "meta" and bool(torch.isfinite(torch.stack([p.detach().sum() for _, p in trainable])).all())
    for name, p in named:
        if not (at_once and p.requires_grad):
            finite(p, f"model parameter {name}")
    return [p for _, p in trainable]


def cotangents(c: Tensor, num_samples: int, outputs: tuple[int, ...], like: Tensor, name: str = "c") -> Tensor:
    """Return cotangents in the dtype of `like`; shape (N, K), or (N, R, K) for R cotangents a sample.

    Outputs of several axes are laid out in one, K in all.
    """
    if not isinstance(c, Tensor):
        hint = ", such as labelled(y), not labelled" if hasattr(c, "rule") else ""
        raise TypeError(
            f"{name}: got {type(c).__name__}; wanted a torch.Tensor of shape (N, K), or a function that returns one{hint}"
        )
    if c.shape == (num_samples,) and outputs == (1,):
        c = c[:, None]
    stacked = c.dim() == len(outputs) + 2
    if c.dim() != len(outputs) + 1 + stacked or c.shape[0] != num_samples or c.shape[1 + stacked :] != outputs or 0 in c.shape:
        k = ", ".join(map(str, outputs))
        raise ValueError(
            f"{name}: got shape {tuple(c.shape)}; wanted ({num_samples}, {k}) or "
            f"({num_samples}, R, {k}): one cotangent of the shape of the logits, {k}, for each sample"
        )
    if c.is_complex():
        raise TypeError(f"{name}: got {c.dtype}; wanted real numbers")
    same_device(c, like, name)
    finite(c, name)
    return c.detach().to(like.dtype).flatten(1 + stacked)


def answer(z, num_samples: int) -> Tensor:
    """Return a model's answer after checking that it is real and has samples first: (N, K), of (N,) too, or (N, T, K) and on."""
    if not isinstance(z, Tensor):
        names = f" of {', '.join(map(str, z))}" if isinstance(z, Mapping) else f" of {len(z)}" if isinstance(z, tuple) else ""
        raise TypeError(
            f"model: returned {type(z).__name__}{names}; wanted one tensor of logits, shape ({num_samples}, K): output= picks a part"
        )
    if not z.is_floating_point():
        raise TypeError(f"model: returned {z.dtype}; wanted real logits, which have derivatives")
    if z.dim() == 0 or z.shape[0] != num_samples or 0 in z.shape:
        raise ValueError(
            f"model: returned shape {tuple(z.shape)} for {num_samples} sample(s); wanted logits of shape ({num_samples}, K), also for "
            "one sample, whose axis a squeeze() without a number would drop"
        )
    return z[:, None] if z.dim() == 1 else z


def logits(z, num_samples: int) -> Tensor:
    """Return a model's answer after checking that it is real and has shape (N, K), of (N,) too."""
    z = answer(z, num_samples)
    if z.dim() != 2 or z.shape[0] != num_samples or z.shape[1] == 0:
        raise ValueError(
            f"model: returned shape {tuple(z.shape)} for {num_samples} sample(s); wanted logits of shape ({num_samples}, K)"
        )
    return z


def per_sample(model: nn.Module) -> None:
    """Refuse a model whose output for one sample depends on the others, or on chance."""
    a_module(model)
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            where = f" in module '{name}'" if name else ""
            raise TypeError(
                f"model: got TorchScript{where}; wanted the module before torch.jit, whose operations can be followed"
            )
    for name, module in model.named_modules():
        statistics = isinstance(module, _BATCH_STATISTICS) and (module.training or module.running_mean is None)
        random = isinstance(module, _RANDOM_WHEN_TRAINING) and module.training and getattr(module, "p", 1) > 0
        random |= isinstance(module, _DROPOUT_INSIDE) and module.training and module.dropout > 0
        if statistics or random:
            why = "normalises by the batch, so one sample's output depends on the others" if statistics else "is random"
            raise ValueError(
                f"model: got module '{name}' ({type(module).__name__}) in a mode where it {why}: "
                "per-sample tangents are undefined; wanted model.eval() (and running statistics)"
            )


def a_module(model) -> nn.Module:
    """Refuse what is no module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}; wanted a torch.nn.Module")
    return model


def numbers(matrix):
    """Return a lazy matrix's numbers, and anything else as it is."""
    return matrix.dense() if hasattr(matrix, "dense") else matrix


def cross(k, gram: Tensor, name: str = "cross") -> Tensor:
    """Return the kernel (M, N) of other points with those of a Gram matrix (N, N), or a lazy one's numbers."""
    k = numbers(k)
    if not isinstance(k, Tensor) or k.dim() != 2 or k.shape[1] != len(gram):
        got = f"shape {tuple(k.shape)}" if isinstance(k, Tensor) else type(k).__name__
        raise ValueError(f"{name}: got {got}; wanted (M, {len(gram)})")
    finite(k, name)
    return k


def gram(g, name: str = "gram") -> Tensor:
    """Return a Gram matrix, or a lazy one's numbers, after checking that it is square, finite and symmetric to rounding."""
    g = numbers(g)
    if not isinstance(g, Tensor) or not g.is_floating_point():
        got = g.dtype if isinstance(g, Tensor) else type(g).__name__
        raise TypeError(f"{name}: got {got}; wanted a floating-point tensor (N, N)")
    if g.dim() != 2 or g.shape[0] != g.shape[1] or 0 in g.shape:
        raise ValueError(f"{name}: got shape {tuple(g.shape)}; wanted a square matrix (N, N)")
    finite(g, name)
    off, scale = float((g - g.T).abs().max()), float(g.abs().max())
    if off > 1e3 * torch.finfo(g.dtype).eps * scale:
        raise ValueError(
            f"{name}: got entries that differ from the transposed ones by up to {off:.3g}; wanted a symmetric matrix"
        )
    return g


def number(value, name: str) -> float:
    """Return a finite number, not negative, as a float; a tensor or an array of one number too."""
    try:
        found = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name}: got {value!r}; wanted a number") from None
    if isinstance(value, str) or not 0 <= found < float("inf"):
        raise ValueError(f"{name}: got {value!r}; wanted a finite number, 0 or more")
    return found


def above_zero(value, name: str) -> float:
    """Return a finite number above zero as a float."""
    try:
        found = number(value, name)
    except ValueError:
        found = 0.0
    if not found:
        raise ValueError(f"{name}: got {value!r}; wanted a finite number above 0")
    return found


@contextmanager
def renamed(**names: str) -> Iterator[None]:
    """Let what is refused inside go by the names that the caller gave it, such as ``x1="asked"``."""
    try:
        yield
    except (TypeError, ValueError) as error:
        name, colon, rest = str(error).partition(":")
        if colon and name in names:
            raise type(error)(f"{names[name]}:{rest}") from error
        raise


def finite(t: Tensor, name: str) -> None:
    """Refuse NaN and infinity."""
    # One pass and no copy: NaN and infinity go through a sum. One that overflows by itself gets a closer look.
    if t.device.type == "meta" or bool(torch.isfinite(t.sum())):
        return
    bad = sum(int((~torch.isfinite(part)).sum()) for part in t.flatten().split(_AT_ONCE))
    if bad:
        raise ValueError(f"{name}: got {bad} non-finite value(s) (NaN or infinity); wanted finite numbers")


def same_device(t: Tensor, like: Tensor, name: str) -> None:
    """Refuse tensors that do not share a device."""
    if t.device != like.device:
        raise ValueError(f"{name}: got device {t.device}; wanted {like.device}, the model's device")


def positive(value, name: str) -> int:
    """Return an argument that must be an integer of at least one, of whatever integer type."""
    return whole(value, name, 1)


def seed(value) -> int:
    """Return a seed of random numbers, checked."""
    if whole(value, "seed") >= 2**63:
        raise ValueError(f"seed: got {value}; wanted an integer below 2**63")
    return whole(value, "seed")


def whole(value, name: str, least: int = 0) -> int:
    """Return an argument that must be an integer, of whatever integer type."""
    try:
        number = least - 1 if isinstance(value, bool) else index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name}: got {value!r}; wanted an integer of at least {least}")
    return number
