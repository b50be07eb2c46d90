"""Training paths: every weight state of a training run, with the batches and step sizes that made it."""

import copy
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap, read_array_header_1_0, read_magic
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, nll_loss, one_hot
from tqdm.auto import tqdm

from ..basics import validate
from ..models.functional import assign, call_with
from ..models.networks import zero_output_layer
from .recipe import Recipe, recipe_of
from .sgd import whole_batches

LOSSES = ("log_softmax", "cross_entropy", "squared")


@dataclass(frozen=True, eq=False)
class TrainingPath:
    r"""The weights :math:`w_0, \dots, w_S` of a run, and what each step was made of.

    The network output f and the loss are one of three pairs. "log_softmax": f are log-probabilities and
    :math:`L = -f_y`, whose gradient does not change (Bell et al., 2023, Thm 3.7). "cross_entropy": f are logits, the
    log-softmax is part of the loss. "squared": f are logits, :math:`L = \tfrac12\|f - e_y\|^2`.

    Attributes:
        model: gives logits; its own weights do not matter, the path's are used.
        x: training inputs (N, ...).
        y: labels (N,).
        weights: trainable parameters of every state, flattened in the model's order, (S + 1, d).
        batches: the samples that each step's gradient was a mean over, S index tensors.
        lrs: step sizes, (S,).
        momentum: mu of :math:`v \leftarrow \mu v + g,\ w \leftarrow w - \eta v`.
        loss: "log_softmax", "cross_entropy" or "squared".
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    weights: Tensor = field(repr=False)
    batches: tuple[Tensor, ...] = field(repr=False)
    lrs: tuple[float, ...]
    momentum: float = 0.0
    loss: str = "log_softmax"

    def __post_init__(self):
        if len(self.weights) < 2:
            raise ValueError(f"weights: got {len(self.weights)} weight state(s); wanted at least two, a path has a step")
        for name, items in (("batches", self.batches), ("lrs", self.lrs)):
            if len(items) != len(self.weights) - 1:
                raise ValueError(f"{name}: got {len(items)} for {len(self.weights)} weight states; wanted one for each step")
        if self.loss not in LOSSES:
            raise ValueError(f"loss: got {self.loss!r}; wanted one of {LOSSES}")
        size = sum(p.numel() for p in validate.parameters(self.model))
        if self.weights.shape[1:] != (size,):
            raise ValueError(f"weights: got shape {tuple(self.weights.shape)}; wanted (S + 1, {size}) for this model")

    def __len__(self) -> int:
        """Count the weight states, S + 1."""
        return len(self.weights)

    @cached_property
    def num_outputs(self) -> int:
        """Count the outputs, K."""
        return self.outputs(self.x[:1], 0).shape[1]

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """Cut weights (..., d) into the model's parameters by name, (..., *shape)."""
        out, start = {}, 0
        for name, p in self.model.named_parameters():
            if p.requires_grad:
                out[name] = flat[..., start : start + p.numel()].reshape(*flat.shape[:-1], *p.shape)
                start += p.numel()
        return out

    def output(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
        """Return the network output f of a batch under given parameters, (N, K)."""
        z = call_with(self.model, params, x)
        return z.log_softmax(1) if self.loss == "log_softmax" else z

    def model_at(self, step: int) -> nn.Module:
        """Return a copy of the model with the weights of a state."""
        return assign(copy.deepcopy(self.model), self.unflatten(self.weights[step]))

    @torch.no_grad()
    def outputs(self, x: Tensor, step: int = -1) -> Tensor:
        """Return f at a weight state, (N, K); the last by default."""
        x = validate.inputs(x, validate.parameters(self.model)[0])
        return self.output(self.unflatten(self.weights[step].to(x.device)), x)

    def log_probs(self, x: Tensor, step: int = -1) -> Tensor:
        """Return the network's own log-probabilities at a weight state, (N, K)."""
        if self.loss == "squared":
            raise ValueError("loss: got a path of the squared loss, which has no probabilities; wanted outputs(x, step)")
        return self.outputs(x, step).log_softmax(1)

    def coefficients(self, step: int, samples: Tensor) -> Tensor:
        r"""Return :math:`-\partial L/\partial f` of training samples at a weight state, (B, K); they are the a of Thm 3.6."""
        target = one_hot(self.y[samples], self.num_outputs).to(self.x.dtype)
        if self.loss == "log_softmax":
            return target
        f = self.outputs(self.x[samples], step)
        return target - (f.softmax(1) if self.loss == "cross_entropy" else f)


def train_path(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: Recipe | None = None,
    *,
    steps: int,
    seed: int = 0,
    loss: str = "log_softmax",
    zero_output: bool = True,
    folder: str | Path | None = None,
    progress: bool = True,
    **settings,
) -> TrainingPath:
    r"""Train a copy of a model and keep every step's weights.

    :math:`v_{s+1} = \mu v_s + \frac1B \sum_{i \in B_s} \nabla L_i(w_s),\quad w_{s+1} = w_s - \eta_s v_{s+1}` with
    :math:`\eta_s` = lr times the schedule at s. Bell et al. (2023) take full batches and :math:`\mu = 0`.

    Args:
        model: gives logits (N, K), in eval mode where it has BatchNorm or Dropout; not changed.
        x: (N, ...), on the model's device.
        y: integer labels (N,).
        recipe: a :class:`ntk_course.training.Recipe` of SGD without weight decay, or its fields by keyword.
        steps: S.
        seed: of the batches.
        loss: as in :class:`TrainingPath`.
        zero_output: set the last linear layer to zero first, so that the initial output is the same for every x.
        folder: keep the weights in files there, memory-mapped, instead of in memory; written whole or not at all.
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
    if loss not in LOSSES:
        raise ValueError(f"loss: got {loss!r}; wanted one of {LOSSES}")
    recipe = recipe_of(recipe, settings, "train_path", ("lr", "batch_size", "momentum", "schedule"), batch_size=None)
    validate.per_sample(model)
    own = zero_output_layer(copy.deepcopy(model)) if zero_output else copy.deepcopy(model)
    params = validate.parameters(own)
    x = validate.inputs(x, params[0])
    with torch.no_grad():
        z = validate.logits(own(x[:1]), 1)
    y = validate.labels(y, len(x), z.shape[1], z)
    size = sum(p.numel() for p in params)
    batch_size, schedule, momentum = min(len(x), recipe.batch_of(len(x))), recipe.schedule, recipe.momentum
    order = whole_batches(len(x), batch_size, seed)
    batches = tuple(next(order).to(x.device) for _ in range(validate.positive(steps, "steps")))
    lrs = tuple(recipe.lr * (schedule(s) if schedule else 1.0) for s in range(steps))
    weights = _room(steps + 1, size, params[0], folder)
    path = TrainingPath(own, x, y, weights, batches, lrs, momentum, loss)

    weights[0] = torch.cat([p.detach().flatten() for p in params])
    velocity = torch.zeros(size, dtype=x.dtype, device=x.device)
    for s in tqdm(range(steps), desc="training path", unit="step", disable=not progress):
        w = weights[s].to(x.device).requires_grad_()
        with torch.enable_grad():
            f = path.output(path.unflatten(w), x[batches[s]])
            (gradient,) = torch.autograd.grad(_loss(f, y[batches[s]], loss), w)
        velocity = momentum * velocity + gradient
        weights[s + 1] = w.detach() - lrs[s] * velocity
        if not torch.isfinite(weights[s + 1]).all():
            raise ArithmeticError(
                f"weights became non-finite at step {s + 1} of {steps} with lr={lrs[s]:g}; wanted a smaller one"
            )
    return path if folder is None else _finish(path, Path(folder))


def _loss(f: Tensor, y: Tensor, loss: str) -> Tensor:
    if loss == "squared":
        return 0.5 * (f - one_hot(y, f.shape[1])).square().sum(1).mean()
    return nll_loss(f, y) if loss == "log_softmax" else cross_entropy(f, y)


def _room(rows: int, size: int, like: Tensor, folder: str | Path | None) -> Tensor:
    """Make room for the weights, in memory or in a file that is not yet under its own name."""
    if folder is None:
        return torch.empty(rows, size, dtype=like.dtype, device=like.device)
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "weights.npy").unlink(missing_ok=True)  # or an older path would look whole beside this one's data
    dtype = torch.empty(0, dtype=like.dtype).numpy().dtype
    return torch.from_numpy(open_memmap(Path(folder) / "weights.npy.part", "w+", dtype, (rows, size)))


def _finish(path: TrainingPath, folder: Path) -> TrainingPath:
    """Write what else belongs to a path, then give the weights their name: the last thing that happens."""
    about = {"lrs": path.lrs, "momentum": path.momentum, "loss": path.loss, "states": len(path)}
    arrays = {f"batch_{s}": batch.cpu().numpy() for s, batch in enumerate(path.batches)}
    arrays |= {"x": path.x.cpu().numpy(), "y": path.y.cpu().numpy()}
    np.savez(folder / "data.npz", allow_pickle=False, **arrays)
    (folder / "path.json").write_text(json.dumps(about))
    (folder / "weights.npy.part").replace(folder / "weights.npy")
    return load_path(folder, path.model)


def load_path(folder: str | Path, model: nn.Module) -> TrainingPath:
    """Read a path that :func:`train_path` wrote to a folder; its weights stay in the file, memory-mapped.

    Args:
        folder: as given to :func:`train_path`.
        model: of the same architecture, on the device to work on.

    Returns:
        A :class:`TrainingPath`.

    Raises:
        FileNotFoundError: no finished path there; ValueError: a file was cut short, with how many states are whole, or
        the model has another number of parameters.

    Example:
        >>> kept = train_path(mlp((64, 8, 10)).double(), x, y, steps=5, lr=0.1, folder=folder / "run", progress=False)
        >>> len(load_path(folder / "run", mlp((64, 8, 10)).double()))
        6
    """
    folder = Path(folder)
    for name in ("weights.npy", "path.json", "data.npz"):
        if not (folder / name).is_file():
            hint = ", only an unfinished run" if (folder / "weights.npy.part").exists() else ""
            raise FileNotFoundError(f"folder: got {folder} without {name}{hint}; wanted one written by train_path")
    about = json.loads((folder / "path.json").read_text())
    with open(folder / "weights.npy", "rb") as file:
        read_magic(file)
        (rows, size), _, dtype = read_array_header_1_0(file)
        whole = ((folder / "weights.npy").stat().st_size - file.tell()) // (size * dtype.itemsize)
    if whole < rows or rows != about["states"]:
        raise ValueError(
            f"folder: got a weights.npy cut short, {whole} of {about['states']} states are whole; wanted all of them"
        )
    data = np.load(folder / "data.npz")
    like = validate.parameters(model)[0]
    x, y = torch.from_numpy(data["x"]).to(like), torch.from_numpy(data["y"]).to(like.device)
    batches = tuple(torch.from_numpy(data[f"batch_{s}"]).to(like.device) for s in range(rows - 1))
    weights = torch.from_numpy(np.load(folder / "weights.npy", mmap_mode="c"))
    return TrainingPath(model, x, y, weights, batches, tuple(about["lrs"]), about["momentum"], about["loss"])
