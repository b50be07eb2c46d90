"""Many small models of one architecture, trained together in one vmap."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import stack_module_state, vmap
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from ..basics import validate
from ..models.functional import call_with
from .recipe import Recipe, recipe_of


@dataclass(frozen=True)
class Ensemble:
    """What :func:`train_ensemble` leaves behind.

    Attributes:
        state: parameters and buffers by name, (M, ...), member first, on the device of training.
        logits: what member m answered for its i-th sample when epoch e visited it, in train mode, before that step: (E, M, n, K), on
            the CPU.
        watched: what it answers for the i-th watched sample in eval mode when epoch e begins, (E, M, w, K), on the CPU; None where
            none are watched.
    """

    state: dict[str, Tensor]
    logits: Tensor
    watched: Tensor | None = None


def train_ensemble(
    models: nn.Module | Sequence[nn.Module],
    x: Tensor,
    y: Tensor,
    subsets: Tensor,
    recipe: Recipe | None = None,
    *,
    watch: Tensor | None = None,
    seed: int = 0,
    together: int = 64,
    progress: bool = True,
    **settings,
) -> Ensemble:
    r"""Train M models of one architecture, each on a subset of its own, ``together`` at a time in one vmap.

    Member m ends with the weights that ``train(copy, x[subsets[m]], y[subsets[m]], seed=seed + m)`` would give it: the
    same batches, the same SGD. Every sample is visited once an epoch, and the logits of that visit are kept, which is
    what Algorithm 1 of Guo et al. (2024) adds up. The seed fixes dropout too (other draws than in :func:`ntk_course.train`),
    and the global random state is left as it was. The models end in eval mode, after an interrupt too.

    Args:
        models: one module, whose weights all members start from, or M modules. Their weights are not changed.
        x: (N, ...), on the models' device.
        y: integer labels (N,).
        subsets: indices into x, (M, n).
        recipe: a :class:`ntk_course.training.Recipe` without augmentation and autocast, or its fields by keyword.
        watch: samples whose answers in eval mode are kept epoch by epoch, the same for all members: indices into x, (w,).
        seed: of the batch order of member 0.
        together: members in memory and in flight at once.
        progress: show a bar.
        **settings: fields of the recipe, as in :func:`ntk_course.train`.

    Returns:
        An :class:`Ensemble`.

    Raises:
        TypeError, ValueError: bad inputs, labels or indices; ArithmeticError: a loss became NaN or infinite.

    Example:
        >>> halves = torch.randperm(32).view(2, -1)
        >>> train_ensemble(mlp((64, 8, 10)), x, y, halves, epochs=3, lr=0.1).logits.shape
        torch.Size([3, 2, 16, 10])
    """
    used = ("lr", "epochs", "batch_size", "momentum", "weight_decay", "schedule", "optimizer")
    recipe = recipe_of(recipe, settings, "train_ensemble", used)
    subsets = torch.as_tensor(subsets)
    if subsets.dim() != 2 or subsets.is_floating_point() or 0 in subsets.shape:
        raise ValueError(f"subsets: got {subsets.dtype} of shape {tuple(subsets.shape)}; wanted indices (M, n)")
    if not isinstance(models, nn.Module) and len(models) != len(subsets):
        raise ValueError(f"models: got {len(models)} for {len(subsets)} subsets; wanted one, or one for each subset")
    first = models if isinstance(models, nn.Module) else models[0]
    x = validate.inputs(x, validate.parameters(first)[0])
    with torch.no_grad():
        z = validate.logits(first.eval()(x[:1]), 1)
    y = validate.labels(y, len(x), z.shape[1], z)
    if subsets.min() < 0 or subsets.max() >= len(x):
        raise ValueError(f"subsets: got indices {int(subsets.min())} to {int(subsets.max())}; wanted 0 to {len(x) - 1}")
    if watch is not None:
        watch = torch.as_tensor(watch)
        if watch.dim() != 1 or watch.is_floating_point() or not len(watch) or watch.min() < 0 or watch.max() >= len(x):
            raise ValueError(
                f"watch: got {watch.dtype} of shape {tuple(watch.shape)}; wanted indices (w,) from 0 to {len(x) - 1}"
            )
        watch = watch.to(x.device)
    validate.positive(together, "together")
    parts = []
    with (
        tqdm(total=len(subsets) * (recipe.epochs or 0), desc="training", unit="epoch", disable=not progress) as bar,
        torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []),
    ):
        torch.manual_seed(seed)
        for start in range(0, len(subsets), together):
            some = subsets[start : start + together].to(x.device)
            own = [models] * len(some) if isinstance(models, nn.Module) else models[start : start + together]
            orders = [torch.Generator().manual_seed(seed + start + m) for m in range(len(some))]
            try:
                parts.append(_train_together(own, x, y, some, watch, orders, recipe, bar))
            finally:
                for model in own:
                    model.eval()
    state = {name: torch.cat([part.state[name] for part in parts]) for name in parts[0].state}
    watched = None if watch is None else torch.cat([part.watched for part in parts if part.watched is not None], dim=1)
    return Ensemble(state, torch.cat([part.logits for part in parts], dim=1), watched)


def _train_together(models, x, y, subsets, watch, orders, recipe: Recipe, bar) -> Ensemble:
    params, buffers = stack_module_state([model.train() for model in models])
    forward = vmap(lambda p, b, part: call_with(models[0], p | b, part), randomness="different")
    # SGD and Adam act on every number by itself, so one optimiser over the stack is each member's own.
    optimizer = recipe.steps_on(params.values())
    scheduler = recipe.factors_on(optimizer)
    rows = torch.arange(len(subsets), device=x.device)[:, None]
    visited, answers = [], []
    for epoch in range(recipe.epochs or 0):
        order = torch.stack([torch.randperm(subsets.shape[1], generator=g) for g in orders]).to(x.device)
        parts = []
        if watch is not None:
            answers.append(_in_eval_mode(models[0], forward, params, buffers, x[watch].expand(len(subsets), *x[watch].shape)))
        for batch in order.split(recipe.batch_of(subsets.shape[1]), dim=1):
            chosen = subsets[rows, batch]
            z = forward(params, buffers, x[chosen])
            losses = cross_entropy(z.flatten(0, 1), y[chosen].flatten(), reduction="none")
            if not torch.isfinite(losses).all():
                raise ArithmeticError(
                    f"lr: a loss became NaN or infinite in epoch {epoch} with lr={recipe.lr}; wanted a smaller one"
                )
            optimizer.zero_grad(set_to_none=True)
            (losses.sum() / batch.shape[1]).backward()
            optimizer.step()
            parts.append(z.detach())
        logits = torch.cat(parts, dim=1)
        visited.append(logits.new_empty(logits.shape).scatter_(1, order[..., None].expand_as(logits), logits).cpu())
        scheduler.step()
        bar.update(len(subsets))
    state = {name: v.detach() for name, v in {**params, **buffers}.items()}
    return Ensemble(state, torch.stack(visited), torch.stack(answers) if answers else None)


@torch.no_grad()
def _in_eval_mode(model: nn.Module, forward, params, buffers, x: Tensor) -> Tensor:
    """Answer without dropout: the members run the code of the first model, in whatever mode that is."""
    model.eval()
    z = forward(params, buffers, x).cpu()
    model.train()
    return z
