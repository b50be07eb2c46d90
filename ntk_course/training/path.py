"""Training paths: every weight state of a training run, with the batches and step sizes that made it."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap, read_array_header_1_0, read_magic
from torch import Tensor, nn
from torch.nn.functional import one_hot
from tqdm.auto import tqdm

from ..basics import fingerprints, folders, validate
from ..basics.samples import Batch, described, form, given, read
from ..models.adapted import Output, adapted, origin
from ..models.functional import assign, call_with
from ..models.networks import zero_output_layer
from . import losses
from .losses import Loss
from .recipe import Recipe, recipe_of
from .sgd import whole_batches

LOSSES = ("log_softmax", *losses.NAMES)
_FILES = ("weights.npy", "path.json", "data.npz")
# Relative difference that a step recorded in single precision may have from the one described.
_DEPARTS = 1e-3
# NumPy has no such numbers; what lies in a file are their bits.
_BITS = {torch.bfloat16: torch.int16}


@dataclass(frozen=True, eq=False)
class TrainingPath:
    r"""The weights :math:`w_0, \dots, w_S` of a run, and what each step was made of.

    The network output f and the loss are a pair. "log_softmax": f are log-probabilities and
    :math:`L = -f_y`, whose gradient does not change (Bell et al., 2023, Thm 3.7). "cross_entropy": f are logits, the
    log-softmax is part of the loss. "squared": f are outputs, :math:`L = \tfrac12\|f - e_y\|^2`, or with real targets y in
    place of the unit vectors. A function of outputs and targets: one loss for each sample, (n,).

    Attributes:
        model: gives outputs (N, K) or (N,); its own weights do not matter, the path's are used.
        x: training inputs (N, ...), or several tensors with samples first.
        y: labels (N,), or what the loss takes.
        weights: trainable parameters of every state, flattened in the model's order, (S + 1, d).
        batches: the samples that each step's gradient was a mean over, S index tensors.
        lrs: step sizes, (S,).
        momentum: mu of :math:`v \leftarrow \mu v + g,\ w \leftarrow w - \eta v`.
        loss: "log_softmax", "cross_entropy", "squared", or a function of outputs and targets.
    """

    model: nn.Module
    x: Tensor | Batch = field(repr=False)
    y: Tensor = field(repr=False)
    weights: Tensor = field(repr=False)
    batches: tuple[Tensor, ...] = field(repr=False)
    lrs: tuple[float, ...]
    momentum: float = 0.0
    loss: Loss = "log_softmax"

    def __post_init__(self):
        if len(self.weights) < 2:
            raise ValueError(f"weights: got {len(self.weights)} weight state(s); wanted at least two, a path has a step")
        for name, items in (("batches", self.batches), ("lrs", self.lrs)):
            if len(items) != len(self.weights) - 1:
                raise ValueError(f"{name}: got {len(items)} for {len(self.weights)} weight states; wanted one for each step")
        losses.known(self.loss, LOSSES)
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

    def verify(self) -> None:
        """Check that weights are finite and, once, that the steps are those that batches, step sizes and momentum say.

        Raises:
            ArithmeticError: non-finite weights, with the step; ValueError: other steps, such as those of Adam or of weight decay.
        """
        for s, weights in enumerate(self.weights):
            if not torch.isfinite(weights).all():
                raise ArithmeticError(f"path: got non-finite weights at step {s} of {len(self) - 1}; wanted finite ones")
        self.departures  # noqa: B018

    @cached_property
    def departures(self) -> tuple[float, ...]:
        """How far each recorded step is from the one described, relative to it: of weights kept in single precision 1e-7 and more."""
        found: list[float] = []
        velocity, eps = torch.zeros_like(self.weights[0], device=self.x.device), torch.finfo(self.weights.dtype).eps
        for s, batch in enumerate(self.batches):
            w = self.weights[s].to(self.x.device)
            velocity = self.momentum * velocity + self.gradient(s, batch.to(self.x.device))
            wanted, step = -self.lrs[s] * velocity, self.weights[s + 1].to(self.x.device) - w
            apart, scale = float((step - wanted).norm()), max(float(step.norm()), float(wanted.norm()))
            found.append(apart / scale if scale else 0.0)
            if apart > _DEPARTS * scale + 8 * eps * float(w.norm()):
                raise ValueError(
                    f"path: got weights whose step {s} is not that of SGD on its batch with lr={self.lrs[s]:g} and "
                    f"momentum={self.momentum:g} ({found[-1]:.1e} of it differ); wanted steps that are sums of training gradients: "
                    "of Adam, weight decay or another loss they are not, and no path kernel adds up to them"
                )
        return tuple(found)

    def gradient(self, step: int, batch: Tensor) -> Tensor:
        """Return the gradient of a batch's mean loss at a weight state, (d,)."""
        w = self.weights[step].to(self.x.device).clone().requires_grad_()
        with torch.enable_grad():
            f = self.output(self.unflatten(w), self.x[batch])
            return torch.autograd.grad(losses.of_samples(self.loss, f, self.y[batch]).mean(), w)[0]

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """Cut weights (..., d) into the model's parameters by name, (..., *shape)."""
        out, start = {}, 0
        for name, p in self.model.named_parameters():
            if p.requires_grad:
                out[name] = flat[..., start : start + p.numel()].reshape(*flat.shape[:-1], *p.shape)
                start += p.numel()
        return out

    def output(self, params: dict[str, Tensor], x: Tensor | Batch) -> Tensor:
        """Return the network output f of a batch under given parameters, (N, K)."""
        z = validate.logits(call_with(self.model, params, x), len(x))
        return z.log_softmax(1) if self.loss == "log_softmax" else z

    def model_at(self, step: int) -> nn.Module:
        """Return a copy of the model with the weights of a state."""
        return assign(copy.deepcopy(self.model), self.unflatten(self.weights[step]))

    @torch.no_grad()
    def outputs(self, x: Any, step: int = -1) -> Tensor:
        """Return f at a weight state, (N, K); the last by default."""
        x = self.points(x)
        return self.output(self.unflatten(self.weights[step].to(x.device)), x)

    def points(self, x: Any, name: str = "x") -> Tensor | Batch:
        """Check other samples, and read them where they are a data set.

        Raises:
            TypeError, ValueError: samples of another form than the training inputs.
        """
        points = read(given(x, validate.parameters(self.model)[0], name, origin(self.model)))
        if form(points) != form(self.x):
            got, wanted = (described(some) for some in (points, self.x))
            if got == wanted:
                got, wanted = (str(form(some)) for some in (points, self.x))
            raise ValueError(f"{name}: got samples of shape {got}; wanted {wanted}")
        return points

    def log_probs(self, x: Any, step: int = -1) -> Tensor:
        """Return the network's own log-probabilities at a weight state, (N, K)."""
        if self.loss not in ("log_softmax", "cross_entropy"):
            raise ValueError(f"loss: got a path of the loss {self.loss!r}, which has no probabilities; wanted outputs(x, step)")
        return self.outputs(x, step).log_softmax(1)

    def coefficients(self, step: int, samples: Tensor) -> Tensor:
        r"""Return :math:`-\partial L/\partial f` of training samples at a weight state, (B, K); they are the a of Thm 3.6."""
        if self.loss == "log_softmax":  # they do not change
            return one_hot(self.y[samples], self.num_outputs).to(self.weights.dtype)
        return losses.slopes(self.loss, self.outputs(self.x[samples], step), self.y[samples])


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
    losses.known(loss, LOSSES)
    recipe = recipe_of(recipe, settings, "train_path", ("lr", "batch_size", "momentum", "schedule"), batch_size=None)
    validate.per_sample(model)
    own = zero_output_layer(copy.deepcopy(model)) if zero_output else copy.deepcopy(model)
    params = validate.parameters(own)
    x = read(given(x, params[0], "x", own))
    own = adapted(own, x, output)
    with torch.no_grad():
        z = validate.logits(own(x[:1]), 1)
    y = losses.targets(y, z, len(x), loss)
    size = sum(p.numel() for p in params)
    batch_size, schedule, momentum = min(len(x), recipe.batch_of(len(x))), recipe.schedule, recipe.momentum
    order = whole_batches(len(x), batch_size, seed)
    batches = tuple(next(order).to(x.device) for _ in range(validate.positive(steps, "steps")))
    lrs = tuple(recipe.lr * (schedule(s) if schedule else 1.0) for s in range(steps))
    weights = _room(steps + 1, size, params[0], folder)
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
    return path if folder is None else _finish(path, Path(folder))


def _room(rows: int, size: int, like: Tensor, folder: str | Path | None) -> Tensor:
    """Make room for the weights, in memory or in a file that is not yet under its own name."""
    if folder is None:
        return torch.empty(rows, size, dtype=like.dtype, device=like.device)
    folders.own(folder, "folder", lambda inside: inside.name.removesuffix(".part") in _FILES)
    (Path(folder) / "weights.npy").unlink(missing_ok=True)  # or an older path would look whole beside this one's data
    dtype = torch.empty(0, dtype=_BITS.get(like.dtype, like.dtype)).numpy().dtype
    return torch.from_numpy(open_memmap(Path(folder) / "weights.npy.part", "w+", dtype, (rows, size))).view(like.dtype)


def _finish(path: TrainingPath, folder: Path) -> TrainingPath:
    """Write what else belongs to a path, then give the weights their name: the last thing that happens."""
    x = path.x if isinstance(path.x, Batch) else Batch([path.x])
    about = {"lrs": path.lrs, "momentum": path.momentum, "loss": _name(path.loss), "states": len(path)}
    about["dtype"] = str(path.weights.dtype).removeprefix("torch.")
    about["args"] = [None if isinstance(v, Tensor) else v for v in x.args] if x is path.x else None
    about["kwargs"] = {k: None if isinstance(v, Tensor) else v for k, v in x.kwargs.items()}
    arrays = {f"batch_{s}": batch for s, batch in enumerate(path.batches)} | {f"x_{k}": t for k, t in x.named.items()}
    kept = {name: _in_numpy(t) for name, t in (arrays | {"y": path.y}).items()}
    np.savez(folder / "data.npz", allow_pickle=False, **kept)
    (folder / "path.json").write_text(json.dumps(about))
    (folder / "weights.npy.part").replace(folder / "weights.npy")
    return load_path(folder, path.model, path.loss if callable(path.loss) else None)


def _name(loss: Loss) -> str:
    return loss if isinstance(loss, str) else f"function {fingerprints.of_function(loss)}"


def _in_numpy(t: Tensor) -> np.ndarray:
    """Return a tensor in NumPy; numbers it does not know in those that hold them."""
    return (t.float() if t.dtype in _BITS else t).cpu().numpy()


def load_path(
    folder: str | Path, model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor] | None = None, *, output: Output | None = None
) -> TrainingPath:
    """Read a path that :func:`train_path` wrote to a folder; its weights stay in the file, memory-mapped.

    Args:
        folder: as given to :func:`train_path`.
        model: of the same architecture, on the device to work on.
        loss: the function that was given, where it was one.
        output: as given to :func:`train_path`.

    Returns:
        A :class:`TrainingPath`.

    Raises:
        FileNotFoundError: no finished path there; ValueError: a file was cut short, with how many states are whole, or
        the model has another number of parameters, or another dtype, or the loss is another function.

    Example:
        >>> kept = train_path(mlp((64, 8, 10)).double(), x, y, steps=5, lr=0.1, folder=folder / "run", progress=False)
        >>> len(load_path(folder / "run", mlp((64, 8, 10)).double()))
        6
    """
    folder = Path(folder)
    for name in _FILES:
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
    wanted = about["loss"] if loss is None else _name(loss)
    if wanted != about["loss"] or (loss is None and wanted not in LOSSES):
        raise ValueError(f"loss: got {loss!r}; wanted that of the path, {about['loss']}")
    data = np.load(folder / "data.npz")
    like = validate.parameters(model)[0]
    if str(like.dtype) != f"torch.{about['dtype']}":
        raise ValueError(f"model: got {like.dtype}; wanted torch.{about['dtype']}, as on the path")

    def tensor(name: str) -> Tensor:
        t = torch.from_numpy(data[name]).to(like.device)
        return t.to(like.dtype) if t.is_floating_point() else t

    args = [tensor(f"x_{i}") if v is None else v for i, v in enumerate(about["args"] or [None])]
    x = Batch(args, {k: tensor(f"x_{k}") if v is None else v for k, v in about["kwargs"].items()})
    x = args[0] if about["args"] is None else x
    batches = tuple(tensor(f"batch_{s}") for s in range(rows - 1))
    weights = torch.from_numpy(np.load(folder / "weights.npy", mmap_mode="c")).view(like.dtype)
    model = adapted(model, x, output)
    return TrainingPath(model, x, tensor("y"), weights, batches, tuple(about["lrs"]), about["momentum"], loss or about["loss"])
