"""Training that is recorded: every step of gradient descent on a copy of a model, kept as a path."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..basics import validate
from ..basics.dtypes import own_dtype
from ..basics.samples import given, read
from ..models.adapted import Output, adapted
from ..models.networks import zero_output_layer
from . import losses
from .losses import Loss
from .path import LOSSES, TrainingPath
from .path_files import finish, room
from .recipe import Recipe, recipe_of
from .sgd import answered, whole_batches


@torch.inference_mode(False)
def train_path(
    model: nn.Module,
    x: Any,
    y: Tensor,
    recipe: Recipe | None = None,
    *,
    steps: int,
    seed: int = 0,
    loss: Loss = "log_softmax",
    output: Output | None = None,
    zero_output: bool = True,
    folder: str | Path | None = None,
    progress: bool = True,
    **settings,
) -> TrainingPath:
    r"""Train a copy of a model and keep every step's weights.

    :math:`v_{s+1} = \mu v_s + \frac1B \sum_{i \in B_s} \nabla L_i(w_s),\quad w_{s+1} = w_s - \eta_s v_{s+1}` with
    :math:`\eta_s` = lr times the schedule at s. Bell et al. (2023) take full batches and :math:`\mu = 0`.

    Args:
        model: gives outputs (N, K) or (N,), in eval mode where it has BatchNorm or Dropout; not changed.
        x: (N, ...), on the model's device, or several tensors as in :class:`ntk_course.Gram`; a data set is read whole.
        y: integer labels (N,), or what the loss takes.
        recipe: a :class:`ntk_course.training.Recipe` of SGD without weight decay, or its fields by keyword. Other steps are not
            sums of training gradients, and no path kernel adds up to them: they are refused.
        steps: S.
        seed: of the batches.
        loss: as in :class:`TrainingPath`.
        output: the part of the model's answer that counts, as in :class:`ntk_course.Gram`.
        zero_output: set the output layer to zero first, the last linear layer that runs, so that the initial output is the same for
            every x.
        folder: keep the weights in files there, memory-mapped, instead of in memory; written whole or not at all. A finished path
            that lies there is replaced at the end.
        progress: show a bar.
        **settings: fields of the recipe: ``lr``, ``batch_size`` (B; here by default None, all samples; a new random order each
            epoch, the rest of an epoch left out), ``momentum``, ``schedule`` (of the step).

    Returns:
        A :class:`TrainingPath` of steps + 1 weight states, in the model's dtype.

    Raises:
        TypeError, ValueError: bad inputs or labels; ArithmeticError: weights became non-finite, with the step.

    Example:
        >>> path = train_path(mlp((64, 8, 10)).double(), x, y, steps=5, lr=0.1, progress=False)
        >>> path.log_probs(x_test).shape, len(path)
        (torch.Size([8, 10]), 6)
    """
    losses.known(loss, LOSSES)
    recipe = recipe_of(recipe, settings, "train_path", ("lr", "batch_size", "momentum", "schedule"), batch_size=None)
    validate.per_sample(model)
    own = copy.deepcopy(model)
    params = validate.parameters(own)
    x = read(given(x, params[0], "x", own)).clone()
    own = adapted(own, x, output)
    with own_dtype(), torch.no_grad():
        z = validate.logits(answered(own, x[:1], "x"), 1)
        together = answered(own, x[:_TRIED], "x")[:1]
        if not torch.allclose(z, together, rtol=1e-2 if z.element_size() < 4 else 1e-3, atol=1e-5 * float(z.abs().max())):
            raise ValueError("model: got outputs of a sample that depend on the others in its batch; wanted each sample's own")
        if zero_output:
            zero_output_layer(own, x[:_TRIED])
    size = sum(p.numel() for p in params)
    batch_size, momentum = min(len(x), recipe.batch_of(len(x))), recipe.momentum
    order = whole_batches(len(x), batch_size, validate.seed(seed))
    batches = tuple(next(order).to(x.device) for _ in range(validate.positive(steps, "steps")))
    lrs = tuple(recipe.lr * recipe.factor(s) for s in range(steps))
    y = losses.targets(y, z, len(x), loss)
    losses.settled(loss, z, y)
    weights = room(steps + 1, size, params[0], folder)
    path = TrainingPath(own, x, y, weights, batches, lrs, momentum, loss)

    weights[0] = torch.cat([p.detach().flatten() for p in params])
    velocity = torch.zeros_like(weights[0], device=x.device)
    for s in tqdm(range(steps), desc="training path", unit="step", disable=not progress):
        velocity = momentum * velocity + path.gradient(s, batches[s])
        weights[s + 1] = weights[s].to(x.device) - lrs[s] * velocity
        if not torch.isfinite(weights[s + 1]).all():
            raise ArithmeticError(
                f"weights became non-finite at step {s + 1} of {steps} with lr={lrs[s]:g}; wanted a smaller one"
            )
    return path if folder is None else finish(path, Path(folder))


# Samples on which it is seen that an output of zeros is the same for all.
_TRIED = 8
