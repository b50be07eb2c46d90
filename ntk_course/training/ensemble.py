"""Many small models of one architecture, trained together in one vmap."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import stack_module_state, vmap
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from ..basics import validate
from ..models.functional import call_with
from .sgd import Schedule


@dataclass(frozen=True)
class Ensemble:
    """What :func:`train_ensemble` leaves behind.

    Attributes:
        state: parameters and buffers by name, (M, ...), member first, on the device of training.
        logits: what member m answered for its i-th sample when epoch e visited it, before that step: (E, M, n, K), on the CPU.
    """

    state: dict[str, Tensor]
    logits: Tensor


def train_ensemble(
    models: nn.Module | Sequence[nn.Module],
    x: Tensor,
    y: Tensor,
    subsets: Tensor,
    *,
    epochs: int,
    lr: float,
    batch_size: int | None = 128,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    optimizer: str = "sgd",
    schedule: Schedule | None = None,
    seed: int = 0,
    together: int = 64,
    progress: bool = True,
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
        epochs: passes over each subset.
        lr: learning rate, for the mean loss of a batch.
        batch_size: samples a step, or None for the whole subset.
        momentum: as in :func:`ntk_course.train`.
        weight_decay: as in :func:`ntk_course.train`.
        optimizer: "sgd", or "adam" (torch.optim.Adam with its other defaults, and without momentum).
        schedule: as in :func:`ntk_course.train`.
        seed: of the batch order of member 0.
        together: members in memory and in flight at once.
        progress: show a bar.

    Returns:
        An :class:`Ensemble`.

    Raises:
        TypeError, ValueError: bad inputs, labels or indices; ArithmeticError: a loss became NaN or infinite.

    Example:
        >>> halves = torch.randperm(32).view(2, -1)
        >>> train_ensemble(mlp((64, 8, 10)), x, y, halves, epochs=3, lr=0.1).logits.shape
        torch.Size([3, 2, 16, 10])
    """
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
    if optimizer not in ("sgd", "adam"):
        raise ValueError(f"optimizer: got {optimizer!r}; wanted 'sgd' or 'adam'")
    if optimizer == "adam" and momentum:
        raise ValueError(f"momentum: got {momentum} with optimizer='adam'; wanted 0, Adam has moments of its own")
    rule = partial(torch.optim.SGD, momentum=momentum) if optimizer == "sgd" else torch.optim.Adam
    rule = partial(rule, lr=lr, weight_decay=weight_decay)
    size = subsets.shape[1]
    batch_size = size if batch_size is None else validate.positive(batch_size, "batch_size")
    validate.positive(together, "together")
    parts = []
    with (
        tqdm(
            total=len(subsets) * validate.positive(epochs, "epochs"), desc="training", unit="epoch", disable=not progress
        ) as bar,
        torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []),
    ):
        torch.manual_seed(seed)
        for start in range(0, len(subsets), together):
            some = subsets[start : start + together].to(x.device)
            own = [models] * len(some) if isinstance(models, nn.Module) else models[start : start + together]
            orders = [torch.Generator().manual_seed(seed + start + m) for m in range(len(some))]
            try:
                how = (epochs, lr, batch_size, rule, schedule, bar)
                parts.append(_train_together(own, x, y, some, orders, *how))
            finally:
                for model in own:
                    model.eval()
    state = {name: torch.cat([part.state[name] for part in parts]) for name in parts[0].state}
    return Ensemble(state, torch.cat([part.logits for part in parts], dim=1))


def _train_together(models, x, y, subsets, orders, epochs, lr, batch_size, rule, schedule, bar) -> Ensemble:
    params, buffers = stack_module_state([model.train() for model in models])
    forward = vmap(lambda p, b, part: call_with(models[0], p | b, part), randomness="different")
    # SGD and Adam act on every number by itself, so one optimiser over the stack is each member's own.
    optimizer = rule(params.values())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule or (lambda epoch: 1.0))
    rows = torch.arange(len(subsets), device=x.device)[:, None]
    visited = []
    for epoch in range(epochs):
        order = torch.stack([torch.randperm(subsets.shape[1], generator=g) for g in orders]).to(x.device)
        parts = []
        for batch in order.split(batch_size, dim=1):
            chosen = subsets[rows, batch]
            z = forward(params, buffers, x[chosen])
            losses = cross_entropy(z.flatten(0, 1), y[chosen].flatten(), reduction="none")
            if not torch.isfinite(losses).all():
                raise ArithmeticError(f"lr: a loss became NaN or infinite in epoch {epoch} with lr={lr}; wanted a smaller one")
            optimizer.zero_grad(set_to_none=True)
            (losses.sum() / batch.shape[1]).backward()
            optimizer.step()
            parts.append(z.detach())
        logits = torch.cat(parts, dim=1)
        visited.append(logits.new_empty(logits.shape).scatter_(1, order[..., None].expand_as(logits), logits).cpu())
        scheduler.step()
        bar.update(len(subsets))
    return Ensemble({name: v.detach() for name, v in {**params, **buffers}.items()}, torch.stack(visited))
