"""How a network is trained: one description of SGD, taken by everything that trains."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..basics import validate

# The factor on the learning rate in an epoch, counted from 0; along a recorded path, in a step.
Schedule = Callable[[int], float]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    r"""Steps of SGD on the mean loss of a batch, :math:`v \leftarrow \mu v + \nabla L(w) + \lambda w,\ w \leftarrow w - \eta v`.

    What trains takes one, or its fields by keyword, or both: then a keyword changes that field. What a function has no use
    for (an augmentation along a recorded path) it refuses.

    Attributes:
        lr: learning rate eta.
        epochs: passes over the data, where training is counted in epochs.
        batch_size: samples a step, or None for all of them.
        momentum: mu (heavy ball).
        weight_decay: lambda.
        schedule: maps the epoch (along a path the step), from 0, to a factor on lr; see :func:`cosine`, :func:`step_decay`.
        optimizer: "sgd", or "adam" (torch.optim.Adam with its other defaults, and without momentum), or anything that makes an
            optimizer of ``(parameters, lr=...)``: a class of torch.optim, or a functools.partial of one; weight decay is its own
            unless it is given here.
        augment: makes of a batch (B, ...) another of its shape, as :func:`crop_and_flip`.
        autocast: dtype of the passes, e.g. torch.bfloat16 on a GPU; weights and loss stay in their own. None: theirs.

    Raises:
        ValueError: an unknown optimizer, momentum with Adam, numbers below their least.

    Example:
        >>> recipe = Recipe(lr=0.1, epochs=5, momentum=0.9)
        >>> train(model, x, y, recipe, progress=False).accuracy.shape
        torch.Size([5])
        >>> train(model, x, y, recipe, epochs=2, progress=False).accuracy.shape
        torch.Size([2])
    """

    lr: float
    epochs: int | None = None
    batch_size: int | None = 128
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: Schedule | None = None
    optimizer: str | Callable[..., torch.optim.Optimizer] = "sgd"
    augment: Callable[[Any], Any] | None = None
    autocast: torch.dtype | None = None

    def __post_init__(self):
        """Check what can be checked without the data."""
        if self.optimizer not in ("sgd", "adam") and not callable(self.optimizer):
            raise ValueError(f"optimizer: got {self.optimizer!r}; wanted 'sgd', 'adam', or what makes an optimizer of parameters")
        if self.optimizer != "sgd" and self.momentum:
            raise ValueError(
                f"momentum: got {self.momentum} with optimizer={self.optimizer!r}; wanted 0: Adam has moments of its own, and "
                "another optimizer takes its own by functools.partial"
            )
        for name in ("lr", "momentum", "weight_decay"):
            object.__setattr__(self, name, validate.number(getattr(self, name), name))
        if self.autocast is not None and not (isinstance(self.autocast, torch.dtype) and self.autocast.is_floating_point):
            raise TypeError(f"autocast: got {self.autocast!r}; wanted a dtype such as torch.bfloat16, or None")
        if self.schedule is not None and not callable(self.schedule):
            raise TypeError(f"schedule: got {self.schedule!r}; wanted a function of the epoch that returns a factor on lr")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) is not None:
                validate.positive(getattr(self, name), name)

    def steps_on(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Return torch's optimizer for some parameters."""
        named: dict[str, Callable[..., torch.optim.Optimizer]] = {
            "adam": torch.optim.Adam,
            "sgd": partial(torch.optim.SGD, momentum=self.momentum),
        }
        if isinstance(self.optimizer, str):
            return named[self.optimizer](parameters, lr=self.lr, weight_decay=self.weight_decay)
        own = {"weight_decay": self.weight_decay} if self.weight_decay else {}
        try:
            found = self.optimizer(parameters, lr=self.lr, **own)
        except TypeError as error:
            raise TypeError(f"optimizer: got {self.optimizer!r} ({error}); wanted one of (parameters, lr=...)") from error
        if not isinstance(found, torch.optim.Optimizer) or isinstance(found, torch.optim.LBFGS):
            raise TypeError(f"optimizer: got {type(found).__name__}; wanted an optimizer that steps on gradients alone")
        return found

    def factor(self, count: int) -> float:
        """Return what the schedule makes of the learning rate in an epoch, or along a path in a step."""
        return 1.0 if self.schedule is None else validate.number(self.schedule(count), "schedule")

    def factors_on(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Return torch's scheduler, to be stepped after every epoch."""
        return torch.optim.lr_scheduler.LambdaLR(optimizer, self.factor)

    def batch_of(self, count: int) -> int:
        """Return the samples a step out of so many."""
        return count if self.batch_size is None else self.batch_size


def recipe_of(given: Recipe | None, settings: dict, what: str, used: Iterable[str], **defaults) -> Recipe:
    """Return a recipe changed by settings, after checking that a function has a use for all of it.

    Args:
        given: what the caller passed, or None.
        settings: fields by keyword.
        what: the function's name, for messages.
        used: the fields that it has a use for.
        **defaults: its own, where no recipe is given.
    """
    names, used = {field.name for field in fields(Recipe)}, set(used)
    for name in settings:
        if name not in names & used:
            why = ", and what an optimizer takes besides by functools.partial" if "optimizer" in used else ""
            why = ": other steps are no sums of training gradients" if name in names - used else why
            raise TypeError(f"{what}: got {name}={settings[name]!r}; wanted fields of a Recipe out of {sorted(used)}{why}")
    if given is not None and not isinstance(given, Recipe):
        raise TypeError(f"recipe: got {type(given).__name__}; wanted a Recipe, or its fields by keyword")
    if given is None and "lr" not in settings:
        raise TypeError(f"{what}: got no lr; wanted a Recipe, or lr=... by keyword")
    recipe = replace(given, **settings) if given is not None else Recipe(**{**defaults, **settings})
    for field in fields(Recipe):
        if field.name not in used | {"lr", "epochs"} and getattr(recipe, field.name) != field.default:
            raise ValueError(f"recipe: got {field.name}={getattr(recipe, field.name)!r}, for which {what} has no use")
    if "epochs" in used and recipe.epochs is None:
        raise TypeError(f"{what}: got no epochs; wanted a number of passes over the data")
    return recipe
