r"""Losses of single samples, from outputs and targets: by name, or one's own function.

    cross_entropy   of logits and integer labels (N,)
    squared         half of the squared distance to real targets, or to the unit vectors of integer labels
    a function      of outputs (n, K) and targets (n, ...), one loss for each sample, (n,); of one output a sample, (n, 1), or
                    (n,) where it does not take those

Where outputs have positions, (N, T, K), so have labels, (N, T), with -100 where a position does not count; a sample's loss is
the sum over its positions.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import one_hot

from ..basics import validate

Loss = str | Callable[[Tensor, Tensor], Tensor]
NAMES = ("cross_entropy", "squared")


def known(loss: Loss, names: tuple[str, ...] = NAMES) -> Loss:
    """Refuse what is neither a name nor a function."""
    if not callable(loss) and loss not in names:
        raise ValueError(
            f"loss: got {loss!r}; wanted one of {names}, or a function of (z, y) that returns one loss a sample, (n,)"
        )
    return loss


def targets(y, z: Tensor, num_samples: int, loss: Loss, name: str = "y") -> Tensor:
    """Check the targets of a loss against outputs z (1, ..., K), and return labels as int64, real targets in the dtype of z.

    Raises:
        TypeError, ValueError: targets of another length, kind or device.
    """
    if callable(loss):
        y = validate.array(y, name, "a target for each sample", rows=True)
        if y.dim() == 0 or len(y) != num_samples:
            raise ValueError(f"{name}: got shape {tuple(y.shape)}; wanted a target for each of {num_samples} samples")
    elif loss == "squared" and _are_real(
        y := validate.array(y, name, "real targets (N, K), or integer labels (N,)", rows=True), z
    ):
        wanted = (num_samples, *z.shape[1:])
        if y.shape == wanted[:1] and wanted[1:] == (1,):
            y = y[:, None]
        if y.shape != wanted:
            raise ValueError(f"{name}: got shape {tuple(y.shape)}; wanted {wanted}, a target for each output")
        validate.finite(y, name)
        y = y.to(z.dtype)
    else:
        return validate.labels(y, num_samples, z.shape[-1], z, name, tuple(z.shape[1:-1]))
    validate.same_device(y, z, name)
    return y.clone() if y.is_inference() else y.detach()


def _are_real(y: Tensor, z: Tensor) -> bool:
    """Say whether targets of the squared loss are numbers to reach: of a single output also integers are, there are no classes."""
    return y.is_floating_point() or z.shape[1:] == (1,) and not y.is_complex()


def settled(loss: Loss, z: Tensor, y: Tensor) -> Loss:
    """Return a loss after trying, where it is a function, that it gives each of a few samples one of its own.

    Args:
        loss: a name, or a function of outputs and targets.
        z: outputs like those it will get, (1, ..., K).
        y: checked targets (N, ...).

    Returns:
        The loss; of one output a sample, where it wants (n,) in place of (n, 1), a function that hands it those.

    Raises:
        ValueError: it returns something other than one loss a sample, or one that depends on the other samples.
    """
    if not callable(loss) or isinstance(loss, _Flat):
        return loss
    some = y[:3]
    draw = torch.randn(len(some), *z.shape[1:], generator=torch.Generator().manual_seed(0)).to(z)
    try:
        return _each_its_own(loss, draw, some)
    except Exception:
        if z.shape[1:] != (1,):
            raise
        try:
            return _each_its_own(_Flat(loss), draw, some)
        except Exception:  # what it says of the outputs as they are is the better message
            pass
        raise


class _Flat:
    """A loss of outputs (n,), where there are (n, 1)."""

    def __init__(self, of: Callable[[Tensor, Tensor], Tensor]):
        self.of = of

    def __call__(self, z: Tensor, y: Tensor) -> Tensor:
        return self.of(z[:, 0], y)


def written(loss: Loss) -> Loss:
    """Return a loss as it was given."""
    return loss.of if isinstance(loss, _Flat) else loss


def _each_its_own(loss: Callable[[Tensor, Tensor], Tensor], z: Tensor, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    with torch.no_grad():
        try:
            together = of_samples(loss, z, y)
            apart = torch.cat([of_samples(loss, z[i : i + 1], y[i : i + 1]) for i in range(len(z))])
        except (RuntimeError, TypeError, IndexError) as error:
            raise ValueError(
                f"loss: got {type(error).__name__} ({error}) for outputs {tuple(z.shape)} and targets {tuple(y.shape)}; wanted a "
                "function of these that returns one loss a sample"
            ) from error
    if not torch.allclose(together.double(), apart.double(), rtol=1e-2 if z.element_size() < 4 else 1e-4, equal_nan=True):
        raise ValueError(
            f"loss: got losses that depend on the other samples, of outputs {tuple(z.shape)} and targets {tuple(y.shape)}; wanted "
            "each sample's own, and no shape spread over another"
        )
    return loss


def is_labels(y: Tensor, loss: Loss) -> bool:
    """Say whether checked targets are labels, so that there is an accuracy."""
    return not callable(loss) and not y.is_floating_point()


def of_samples(loss: Loss, z: Tensor, y: Tensor) -> Tensor:
    """Return each sample's loss (n,), of checked targets.

    Raises:
        ValueError: a function that returns something else.
    """
    if callable(loss):
        values = loss(z, y)
        if not isinstance(values, Tensor) or values.shape != (len(z),) or not values.is_floating_point():
            got = f"{values.dtype} of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"loss: got {got} for outputs {tuple(z.shape)} and targets {tuple(y.shape)}; wanted one real number for each of "
                f"{len(z)} sample(s), ({len(z)},), as with reduction='none'"
            )
        return values
    if loss == "squared":
        counted = 1.0 if y.is_floating_point() else (y != validate.IGNORED)[..., None]
        return (0.5 * (z - _wanted(z, y)).square() * counted).flatten(1).sum(1)
    flat = z.flatten(0, -2)
    values = (functional.nll_loss if loss == "log_softmax" else functional.cross_entropy)(flat, y.flatten(), reduction="none")
    return values.view(len(z), -1).sum(1) if z.dim() > 2 else values


def slopes(loss: Loss, z: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`-\partial L/\partial z` of each sample, in the shape of z, of checked targets.

    Raises:
        ValueError: a function whose values have no gradient.
    """
    if callable(loss):
        with torch.enable_grad():
            z = z.detach().clone().requires_grad_()
            values = of_samples(loss, z, y)
            if not values.requires_grad:
                raise ValueError("loss: got values without a gradient; wanted a loss that depends on the logits")
            return -torch.autograd.grad(values.sum(), z)[0]
    found = {"squared": lambda: _wanted(z, y) - z, "log_softmax": lambda: _wanted(z, y)}.get(
        loss, lambda: _wanted(z, y) - z.softmax(-1)
    )()
    return found if y.is_floating_point() or z.dim() == 2 else found.masked_fill((y == validate.IGNORED)[..., None], 0)


def _wanted(z: Tensor, y: Tensor) -> Tensor:
    """Return real targets, or the unit vectors of labels, in the shape of z."""
    return y if y.is_floating_point() else one_hot(y.clamp(min=0), z.shape[-1]).to(z.dtype)
