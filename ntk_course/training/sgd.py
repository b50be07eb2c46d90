"""Training as the papers do it: cross entropy, SGD with momentum, weight decay and a schedule, repeatable by seed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from tqdm.auto import tqdm

from ..basics import validate
from .recipe import Recipe, Schedule, recipe_of

# Of a recipe, what train() has a use for: all of it.
_FIELDS = [field.name for field in fields(Recipe)]


@dataclass(frozen=True)
class History:
    """What training leaves behind, measured in eval mode after every epoch.

    E is the number of epochs; for all but the validation it is 1 where only the last epoch was scored.

    Attributes:
        loss: mean cross entropy over the training set in nats, (E,).
        accuracy: training accuracy in [0, 1], (E,).
        losses: every sample's cross entropy, (E, N), or None where not asked for.
        predictions: every sample's predicted class, (E, N), or None where not asked for.
        validation: accuracy on the validation samples in [0, 1], (E,), or None without any.
    """

    loss: Tensor
    accuracy: Tensor
    losses: Tensor | None
    predictions: Tensor | None
    validation: Tensor | None = None


def device() -> torch.device:
    """Return the GPU where there is one, else the CPU.

    Example:
        >>> model.to(device())(x.to(device())).shape
        torch.Size([32, 10])
    """
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
    x: Tensor,
    y: Tensor,
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    per_sample: bool = False,
    each_epoch: bool = True,
    validation: tuple[Tensor, Tensor] | None = None,
    keep_best: bool = False,
    progress: bool = True,
    **settings,
) -> History:
    r"""Train a model in place by SGD on the mean cross entropy of each batch.

    :math:`v \leftarrow \mu v + \nabla L(w) + \lambda w,\quad w \leftarrow w - \eta v` (torch.optim.SGD). The seed fixes
    the order of the batches, any dropout and any augmentation; the global random state is left as it was. The model ends
    in eval mode. An interrupt leaves it whole, with the weights of the last finished step.

    Args:
        model: gives logits (N, K); its own initialisation is the caller's (``torch.manual_seed`` before building it).
        x: (N, ...), on the model's device.
        y: integer labels (N,), on the model's device.
        recipe: a :class:`ntk_course.training.Recipe`, or its fields by keyword: ``epochs`` and ``lr`` at least.
        seed: of the batch order.
        per_sample: keep every sample's loss and prediction.
        each_epoch: score the training samples after every epoch, or only after the last: for LeNet-5 a fifth of the work.
        validation: other samples and labels, on the model's device, to be scored after every epoch.
        keep_best: end with the weights of the epoch with the best validation accuracy, the first among equals.
        progress: show a bar.
        **settings: fields of the recipe: ``epochs``, ``lr``, ``batch_size`` (128; None for all), ``momentum``,
            ``weight_decay``, ``schedule``, ``optimizer``, ``augment`` (the history sees no augmentation), ``autocast``.

    Returns:
        A :class:`History`, on the CPU.

    Raises:
        TypeError, ValueError: bad inputs or labels; ArithmeticError: the loss became NaN or infinite (the learning
        rate is too large).

    Example:
        >>> history = train(mlp((64, 32, 10)), x, y, epochs=5, lr=0.1, progress=False)
        >>> history.accuracy.shape
        torch.Size([5])
    """
    recipe = recipe_of(recipe, settings, "train", _FIELDS)
    epochs = recipe.epochs or 0
    x = validate.inputs(x, validate.parameters(model)[0])
    with torch.no_grad():
        z = validate.logits(model.eval()(x[:1]), 1)
    y = validate.labels(y, len(x), z.shape[1], z)
    batch_size, augment = recipe.batch_of(len(x)), recipe.augment or (lambda part: part)
    if keep_best and validation is None:
        raise ValueError("validation: got None with keep_best; wanted samples and labels to choose the epoch by")
    if validation is not None:
        x_val = validate.inputs(validation[0], z, "validation")
        y_val = validate.labels(validation[1], len(x_val), z.shape[1], z, "validation")

    optimizer = recipe.steps_on(validate.parameters(model))
    scheduler = recipe.factors_on(optimizer)
    order = torch.Generator().manual_seed(seed)
    rows: list[tuple[Tensor, Tensor]] = []
    scores: list[float] = []
    best: dict[str, Tensor] = {}
    with (
        torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []),
        torch.autocast(x.device.type, recipe.autocast, enabled=recipe.autocast is not None),
    ):
        torch.manual_seed(seed)
        bar = tqdm(range(epochs), desc="training", unit="epoch", disable=not progress)
        for epoch in bar:
            model.train()
            for batch in torch.randperm(len(x), generator=order).to(x.device).split(batch_size):
                loss = cross_entropy(model(augment(x[batch])).to(x.dtype), y[batch])
                if not torch.isfinite(loss):
                    raise ArithmeticError(
                        f"lr: the loss became {loss.item()} in epoch {epoch} with lr={recipe.lr}; wanted a smaller one"
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            scheduler.step()
            model.eval()
            if each_epoch or epoch == epochs - 1:
                rows.append(evaluate(model, x, y))
                bar.set_postfix(loss=f"{rows[-1][0].mean():.3f}")
            if validation is not None:
                scores.append((evaluate(model, x_val, y_val)[1] == y_val).float().mean().item())
                if keep_best and scores[-1] > max(scores[:-1], default=-1.0):
                    best = {name: value.clone() for name, value in model.state_dict().items()}
    if best:
        model.load_state_dict(best)
    losses, predictions = (torch.stack(column).cpu() for column in zip(*rows, strict=True))
    accuracy = (predictions == y.cpu()).float().mean(1)
    each, seen = (losses, predictions) if per_sample else (None, None)
    return History(losses.mean(1), accuracy, each, seen, torch.tensor(scores) if scores else None)


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


@torch.no_grad()
def evaluate(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 1024) -> tuple[Tensor, Tensor]:
    """Return every sample's cross entropy (N,) in nats and predicted class (N,); the model's mode is left as it is.

    Args:
        model: gives logits (N, K).
        x: (N, ...), on the model's device.
        y: integer labels (N,).
        batch_size: samples a forward pass.

    Example:
        >>> losses, predictions = evaluate(model, x, y)
        >>> losses.shape
        torch.Size([32])
    """
    z = torch.cat([model(part).to(x.dtype) for part in x.split(batch_size)])
    return cross_entropy(z, y, reduction="none"), z.argmax(1)
