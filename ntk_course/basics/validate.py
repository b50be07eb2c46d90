"""Errors for bad input: each names the argument, what was got, and what is wanted."""

from operator import index

import numpy as np
import torch
from torch import Tensor, nn

_BATCH_STATISTICS = (nn.modules.batchnorm._BatchNorm,)
_DROPOUT_INSIDE = (nn.MultiheadAttention, nn.RNNBase)
# Numbers looked at together.
_AT_ONCE = 2**20
_RANDOM_WHEN_TRAINING = (nn.modules.dropout._DropoutNd, nn.RReLU)


def labels(y, num_samples: int, num_classes: int, like: Tensor, name: str = "y") -> Tensor:
    """Return labels as an int64 tensor of shape (N,) after checking length, range [0, K) and the device of `like`."""
    y = array(y, name, "integer class labels")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"{name}: got dtype {y.dtype}; wanted integer class labels")
    if y.shape != (num_samples,):
        raise ValueError(f"{name}: got shape {tuple(y.shape)}; wanted ({num_samples},), one label for each sample")
    same_device(y, like, name)
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"{name}: got labels from {low} to {high}; wanted 0 to {num_classes - 1} for {num_classes} classes")
    return y.long()


def inputs(x: Tensor, like: Tensor, name: str = "x") -> Tensor:
    """Return x in the dtype of `like` (a weight), detached, after checking that it is a finite, non-empty batch on its device.

    A NumPy array goes to that device by itself.
    """
    if isinstance(x, np.ndarray):
        x = tensor(x).to(like.device)
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: got {type(x).__name__}; wanted a torch.Tensor whose first axis runs over samples")
    if x.is_nested or x.is_sparse:
        raise TypeError(f"{name}: got a {'nested' if x.is_nested else 'sparse'} tensor; wanted a dense one, (N, ...)")
    if x.is_complex():
        raise TypeError(f"{name}: got {x.dtype}; wanted real numbers: a kernel is an inner product of real gradients")
    if x.dim() < 2:
        raise ValueError(f"{name}: got shape {tuple(x.shape)}; wanted at least two axes, (N, ...), samples first")
    if x.shape[0] == 0:
        raise ValueError(f"{name}: got N = 0 samples; wanted at least one")
    same_device(x, like, name)
    if x.is_floating_point():
        x = x.to(like.dtype)
        finite(x, name)
    return x.detach()


def array(values, name: str, wanted: str) -> Tensor:
    """Return what holds numbers as a tensor, its unsigned integers as int64, for which torch has every operation."""
    try:
        t = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: got {type(values).__name__} ({error}); wanted {wanted}") from None
    return t.long() if t.dtype in (torch.uint16, torch.uint32, torch.uint64) else t


def tensor(x):
    """Return a NumPy array as the tensor that shares its memory, and anything else as it is."""
    return torch.from_numpy(x) if isinstance(x, np.ndarray) else x


def double(x: Tensor, name: str = "x") -> Tensor:
    """Return a detached batch in float64, on its own device, after the checks of :func:`inputs`."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"{name}: got {getattr(x, 'dtype', type(x).__name__)}; wanted a floating-point tensor (N, ...)")
    return inputs(x.detach(), torch.empty(0, dtype=torch.float64, device=x.device), name)


def parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters (each once) after checking that they share one device and dtype and are finite."""
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("model: got no trainable parameter (all are frozen, or there are none); wanted at least one")
    first_name, first = trainable[0]
    for name, p in model.named_parameters():
        if p.device != first.device:
            raise ValueError(
                f"model: got parameters on two devices ({first_name} on {first.device}, {name} on {p.device}); wanted one"
            )
    for name, p in trainable:
        if not p.is_floating_point():
            raise TypeError(
                f"model: got parameter {name} in {p.dtype}; wanted real ones: a kernel is an inner product of real gradients"
            )
        if p.dtype != first.dtype:
            raise ValueError(f"model: got two dtypes ({first_name} {first.dtype}, {name} {p.dtype}); wanted one")
    for name, p in model.named_parameters():
        finite(p, f"model parameter {name}")
    return [p for _, p in trainable]


def cotangents(c: Tensor, num_samples: int, num_outputs: int, like: Tensor, name: str = "c") -> Tensor:
    """Return cotangents in the dtype of `like`; shape (N, K), or (N, R, K) for R cotangents a sample."""
    if not isinstance(c, Tensor):
        hint = ", such as labelled(y), not labelled" if hasattr(c, "rule") else ""
        raise TypeError(
            f"{name}: got {type(c).__name__}; wanted a torch.Tensor of shape (N, K), or a function that returns one{hint}"
        )
    if c.dim() not in (2, 3) or c.shape[0] != num_samples or c.shape[-1] != num_outputs or 0 in c.shape:
        raise ValueError(
            f"{name}: got shape {tuple(c.shape)}; wanted ({num_samples}, {num_outputs}) or "
            f"({num_samples}, R, {num_outputs}): one cotangent of length K = {num_outputs} for each sample"
        )
    if c.is_complex():
        raise TypeError(f"{name}: got {c.dtype}; wanted real numbers")
    same_device(c, like, name)
    finite(c, name)
    return c.detach().to(like.dtype)


def logits(z, num_samples: int) -> Tensor:
    """Check that a model's answer is real and has shape (N, K)."""
    if not isinstance(z, Tensor):
        raise TypeError(f"model: returned {type(z).__name__}; wanted one tensor of logits, shape ({num_samples}, K)")
    if not z.is_floating_point():
        raise TypeError(f"model: returned {z.dtype}; wanted real logits, which have derivatives")
    if z.dim() != 2 or z.shape[0] != num_samples or z.shape[1] == 0:
        raise ValueError(
            f"model: returned shape {tuple(z.shape)} for {num_samples} sample(s); wanted logits of shape ({num_samples}, K)"
        )
    return z


def per_sample(model: nn.Module) -> None:
    """Refuse a model whose output for one sample depends on the others, or on chance."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}; wanted a torch.nn.Module")
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


def numbers(matrix):
    """Return a lazy matrix's numbers, and anything else as it is."""
    return matrix.dense() if hasattr(matrix, "dense") else matrix


def cross(k, gram: Tensor, name: str = "cross") -> Tensor:
    """Return the kernel (M, N) of other points with those of a Gram matrix (N, N), or a lazy one's numbers."""
    k = numbers(k)
    if not isinstance(k, Tensor) or k.dim() != 2 or k.shape[1] != len(gram):
        got = f"shape {tuple(k.shape)}" if isinstance(k, Tensor) else type(k).__name__
        raise ValueError(f"{name}: got {got}; wanted (M, {len(gram)})")
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


def whole(value, name: str, least: int = 0) -> int:
    """Return an argument that must be an integer, of whatever integer type."""
    try:
        number = least - 1 if isinstance(value, bool) else index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name}: got {value!r}; wanted an integer of at least {least}")
    return number
