"""Training as the papers do it: SGD with momentum, weight decay and a schedule, repeatable by seed; of any loss."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from tqdm.auto import tqdm

from ..basics import validate
from ..basics.dtypes import own_dtype
from ..basics.interrupts import undisturbed
from ..basics.samples import Batch, Samples, described, given
from ..models.adapted import Output, adapted, origin
from ..models.functional import ungraphed
from . import losses
from .losses import Loss
from .recipe import Recipe, Schedule, recipe_of

# Of a recipe, what train() has a use for: all of it.
_FIELDS = [field.name for field in fields(Recipe)]


@dataclass(frozen=True)
class History:
    """What training leaves behind, measured in eval mode after every epoch.

    E is the number of epochs; for all but the validation it is 1 where only the last epoch was scored.

    Attributes:
        loss: mean over the training set, (E,); of cross entropy in nats.
        accuracy: training accuracy in [0, 1], (E,), or None where the targets are no labels.
        losses: every sample's loss, (E, N), or None where not asked for.
        predictions: every sample's predicted class, (E, N), or output, (E, N, K), where the targets are no labels; None where not
            asked for.
        validation: accuracy on the validation samples in [0, 1], (E,), or their mean loss where the targets are no labels; None
            without any.
    """

    loss: Tensor
    accuracy: Tensor | None
    losses: Tensor | None
    predictions: Tensor | None
    validation: Tensor | None = None


def device() -> torch.device:
    """Return where the course computes: what the variable NTK_COURSE_DEVICE names, else the GPU where there is one, else the CPU.

    Raises:
        RuntimeError: the variable names no device that PyTorch knows.

    Example:
        >>> model.to(device())(x.to(device())).shape
        torch.Size([32, 10])
    """
    return torch.device(os.environ.get("NTK_COURSE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))


def cosine(epochs: int) -> Schedule:
    r"""Return the schedule that multiplies the learning rate by :math:`(1 + \cos(\pi e / E))/2` in epoch e of E.

    Example:
        >>> cosine(10)(5)
        0.5
    """
    validate.positive(epochs, "epochs")
    return lambda epoch: (1 + math.cos(math.pi * epoch / epochs)) / 2


def step_decay(factor: float, every: int) -> Schedule:
    """Return the schedule that multiplies the learning rate by ``factor`` once every ``every`` epochs.

    Example:
        >>> step_decay(0.5, every=2)(4)
        0.25
    """
    validate.positive(every, "every")
    return lambda epoch: factor ** (epoch // every)


def train(
    model: nn.Module,
    x: Any,
    y: Tensor,
    recipe: Recipe | None = None,
    *,
    loss: Loss = "cross_entropy",
    output: Output | None = None,
    seed: int = 0,
    per_sample: bool = False,
    each_epoch: bool = True,
    validation: tuple[Any, Tensor] | None = None,
    keep_best: bool = False,
    progress: bool = True,
    **settings,
) -> History:
    r"""Train a model in place by SGD on the mean loss of each batch.

    :math:`v \leftarrow \mu v + \nabla L(w) + \lambda w,\quad w \leftarrow w - \eta v` (torch.optim.SGD). The seed fixes
    the order of the batches, any dropout and any augmentation; the global random state is left as it was. The model ends
    in eval mode, and with the ``.grad`` that it had. An interrupt leaves it whole, with the weights of the last finished step.

    Args:
        model: gives outputs (N, K), (N,) or (N, T, K); its own initialisation is the caller's (``torch.manual_seed`` before
            building it).
        x: (N, ...), on the model's device, or several tensors or a data set as in :class:`ntk_course.Gram`.
        y: targets on the model's device: integer labels (N,), or what the loss takes.
        recipe: a :class:`ntk_course.training.Recipe`, or its fields by keyword: ``epochs`` and ``lr`` at least.
        loss: "cross_entropy", "squared" (half of the squared distance to real targets, or to the unit vectors of labels), or a
            function of outputs (n, K), or (n,), and targets, one loss for each sample; see :mod:`ntk_course.training.losses`.
        output: the part of the model's answer that counts, as in :class:`ntk_course.Gram`.
        seed: of the batch order.
        per_sample: keep every sample's loss and prediction.
        each_epoch: score the training samples after every epoch, or only after the last: for LeNet-5 a fifth of the work.
        validation: other samples and labels, on the model's device, to be scored after every epoch.
        keep_best: end with the weights of the epoch with the best validation accuracy (or loss), the first among equals.
        progress: show a bar.
        **settings: fields of the recipe: ``epochs``, ``lr``, ``batch_size`` (128; None for all), ``momentum``,
            ``weight_decay``, ``schedule``, ``optimizer``, ``augment`` (the history sees no augmentation), ``autocast``.

    Returns:
        A :class:`History`, on the CPU.

    Raises:
        TypeError, ValueError: bad inputs or targets; ArithmeticError: the loss became NaN or infinite (the learning
        rate is too large); on a GPU, which is not waited for at every step, this is seen at the end of the epoch.

    Example:
        >>> history = train(mlp((64, 32, 10)), x, y, epochs=5, lr=0.1, progress=False)
        >>> history.accuracy.shape
        torch.Size([5])
    """
    recipe = recipe_of(recipe, settings, "train", _FIELDS)
    epochs = recipe.epochs or 0
    model, x, z = answering(model, x, output)
    y = losses.targets(y, z, len(x), losses.known(loss))
    loss, labels = losses.settled(loss, z, y), losses.is_labels(y, loss)
    batch_size, augment = recipe.batch_of(len(x)), recipe.augment or _as_it_is
    if keep_best and validation is None:
        raise ValueError("validation: got None with keep_best; wanted samples and labels to choose the epoch by")
    if validation is not None:
        if not isinstance(validation, tuple | list) or len(validation) != 2:
            raise TypeError(f"validation: got {type(validation).__name__}; wanted a pair of samples and labels")
        x_val = given(validation[0], z, "validation", origin(model))
        y_val = losses.targets(validation[1], z, len(x_val), loss, "validation")

    rows: list[tuple[Tensor, Tensor]] = []
    scores: list[float] = []
    best: dict[str, Tensor] = {}
    order = torch.Generator().manual_seed(validate.seed(seed))
    with _left_whole(model), torch.random.fork_rng([z.device] if z.device.type == "cuda" else []):
        optimizer = recipe.steps_on(validate.parameters(model))
        scheduler = recipe.factors_on(optimizer)
        torch.manual_seed(seed)
        bar = tqdm(range(epochs), desc="training", unit="epoch", disable=not progress)
        for epoch in bar:
            model.train()
            seen = z.new_zeros(())
            for batch in torch.randperm(len(x), generator=order).to(z.device).split(batch_size):
                with _passes(z, recipe), _enough(len(batch), batch_size):
                    f = validate.answer(model(augment(x[batch])), len(batch)).to(z.dtype)
                mean = losses.of_samples(loss, f, y[batch]).mean()
                if not mean.requires_grad:
                    raise ValueError(
                        "loss: got values without a gradient; wanted a loss, and a model, that depend on the weights"
                    )
                seen += mean.detach()
                if z.device.type == "cpu":
                    _finite(seen, epoch, recipe)
                optimizer.zero_grad(set_to_none=True)
                mean.backward()
                with undisturbed():
                    optimizer.step()
            _finite(seen, epoch, recipe)
            scheduler.step()
            model.eval()
            if each_epoch or epoch == epochs - 1:
                with _passes(z, recipe):
                    rows.append(_evaluated(model, x, y, loss, z.dtype))
                bar.set_postfix(loss=f"{rows[-1][0].mean():.3f}")
            if validation is not None:
                with _passes(z, recipe):
                    of_each, guesses = _evaluated(model, x_val, y_val, loss, z.dtype)
                scores.append(_right(guesses[None], y_val).item() if labels else of_each.mean().item())
                if keep_best and (
                    not scores[:-1] or (scores[-1] > max(scores[:-1]) if labels else scores[-1] < min(scores[:-1]))
                ):
                    best = {name: value.clone() for name, value in model.state_dict().items()}
    if best:
        model.load_state_dict(best)
    of_epochs, predictions = (torch.stack(column).cpu() for column in zip(*rows, strict=True))
    accuracy = _right(predictions, y.cpu()) if labels else None
    each, guessed = (of_epochs, predictions) if per_sample else (None, None)
    return History(of_epochs.mean(1), accuracy, each, guessed, torch.tensor(scores) if scores else None)


@contextmanager
def _left_whole(model: nn.Module) -> Iterator[None]:
    """Train whatever surrounds the call, and leave the model in eval mode with the ``.grad`` it had, also where that fails."""
    before = [(p, p.grad) for p in model.parameters()]
    try:
        with torch.inference_mode(False), torch.enable_grad(), own_dtype():
            yield
    finally:
        model.eval()
        for p, grad in before:
            p.grad = grad


@contextmanager
def _enough(n: int, batch_size: int) -> Iterator[None]:
    """Say what to do where a batch is too small for the statistics of a BatchNorm."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(f"batch_size: got {batch_size}, which leaves a batch of {n} ({error}); wanted another") from error


def answering(model: nn.Module, x: Any, output: Output | None) -> tuple[nn.Module, Samples, Tensor]:
    """Return the model as one function of checked samples, those, and its outputs (1, ..., K) for the first in eval mode."""
    like = validate.parameters(model)[0]
    x = given(x, like, "x", model)
    x = x.clone() if isinstance(x, Tensor | Batch) and x.is_inference() else x
    first = x[:1]
    model = adapted(model, first, output, eager=False)
    with own_dtype(), torch.no_grad():
        return model, x, answered(model.eval(), first, "x").to(like.dtype)


def answered(model: nn.Module, x: Tensor | Batch, name: str) -> Tensor:
    """Return a model's outputs for samples that it has not seen yet, or say that it does not take them."""
    try:
        z = ungraphed(lambda: model(x))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if str(error).startswith(("model", "output")):
            raise
        raise ValueError(
            f"{name}: got samples of shape {described(x)}; wanted what the model takes ({type(error).__name__}: {error})"
        ) from error
    return validate.answer(z, len(x)).detach()


def _passes(z: Tensor, recipe: Recipe) -> torch.autocast:
    """Let a pass run in the recipe's own dtype, whatever surrounds the call.

    Without autocast's cache: it keeps the weights as they were when the outermost autocast began, and steps change them.
    """
    return torch.autocast(z.device.type, recipe.autocast, enabled=recipe.autocast is not None, cache_enabled=False)


def _right(guesses: Tensor, y: Tensor) -> Tensor:
    """Return the share of labels that count and are guessed, in each of several epochs."""
    return (guesses == y)[:, y != validate.IGNORED].float().mean(1)


def _as_it_is(x: Any) -> Any:
    return x


def _finite(seen: Tensor, epoch: int, recipe: Recipe) -> None:
    if not torch.isfinite(seen):
        raise ArithmeticError(f"lr: the loss became {seen.item()} in epoch {epoch} with lr={recipe.lr}; wanted a smaller one")


def crop_and_flip(x: Tensor, padding: int = 4) -> Tensor:
    """Shift every image by up to ``padding`` pixels each way and mirror half of them: the usual augmentation of CIFAR-10.

    Args:
        x: images (N, C, H, W), on any device; what is shifted in is 0, the mean colour of standardised images.
        padding: the largest shift.

    Returns:
        A new tensor of that shape, dtype and device; draws come from torch's global random state.

    Raises:
        ValueError: x is not a batch of images, or padding below 1.

    Example:
        >>> history = train(model, x, y, epochs=2, lr=0.1, augment=crop_and_flip, progress=False)
        >>> len(history.accuracy)
        2
    """
    if x.dim() != 4:
        raise ValueError(f"x: got shape {tuple(x.shape)}; wanted images (N, C, H, W)")
    validate.positive(padding, "padding")
    n, _, height, width = x.shape
    padded = pad(x, (padding,) * 4)
    down, right = torch.randint(0, 2 * padding + 1, (2, n, 1), device=x.device)
    mirrored = torch.rand(n, 1, device=x.device) < 0.5
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    columns = torch.where(mirrored, width - 1 - columns, columns) + right
    picked = padded.gather(2, (rows + down)[:, None, :, None].expand(-1, x.shape[1], -1, padded.shape[3]))
    return picked.gather(3, columns[:, None, None, :].expand(-1, x.shape[1], height, -1))


def whole_batches(n: int, size: int, seed: int) -> Iterator[Tensor]:
    """Draw batches of exactly ``size`` of n samples without end, in a new random order each epoch, its rest left out.

    Example:
        >>> batches = whole_batches(100, 32, seed=0)
        >>> next(batches).shape
        torch.Size([32])
    """
    order = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(n, generator=order)[: n - n % size].split(size)


def evaluate(
    model: nn.Module,
    x: Any,
    y: Tensor,
    batch_size: int = 1024,
    *,
    loss: Loss = "cross_entropy",
    output: Output | None = None,
) -> tuple[Tensor, Tensor]:
    """Return every sample's loss (N,), cross entropy in nats, and predicted class (N,); the model's mode is left as it is.

    Args:
        model: gives outputs (N, K), (N,) or (N, T, K).
        x: (N, ...), on the model's device, or several tensors or a data set as in :class:`ntk_course.Gram`.
        y: integer labels (N,), or what the loss takes.
        batch_size: samples a forward pass; in train mode what BatchNorm and Dropout see and leave is the caller's.
        loss: as in :func:`train`; where the targets are no labels, the outputs stand in for the predicted classes.
        output: as in :func:`train`.

    Example:
        >>> losses, predictions = evaluate(model, x, y)
        >>> losses.shape
        torch.Size([32])
    """
    like = next((p for p in validate.a_module(model).parameters() if p.is_floating_point()), torch.empty(0))
    x = given(x, like, "x", model)
    model = adapted(model, x[:1], output, eager=False)
    size = validate.positive(batch_size, "batch_size")
    with own_dtype(), torch.no_grad():
        z = answered(model, x[:size], "x")[:1].to(like.dtype)
        y = losses.targets(y, z, len(x), losses.known(loss))
        return _evaluated(model, x, y, losses.settled(loss, z, y), like.dtype, size)


@torch.no_grad()
def _evaluated(
    model: nn.Module, x: Samples, y: Tensor, loss: Loss, dtype: torch.dtype, size: int = 1024
) -> tuple[Tensor, Tensor]:
    parts = [slice(i, i + size) for i in range(0, len(x), size)]
    z = torch.cat([validate.answer(ungraphed(partial(model, x[some])), len(y[some])).detach().to(dtype) for some in parts])
    return losses.of_samples(loss, z, y), z.argmax(-1) if losses.is_labels(y, loss) else z
