"""Training paths: every weight state of a training run, with the batches and step sizes that made it."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.lib.format import open_memmap, read_array_header_1_0, read_magic
from torch import Tensor, nn
from torch.nn.functional import one_hot
from tqdm.auto import tqdm

from ..basics import fingerprints, folders, validate
from ..basics.dtypes import own_dtype
from ..basics.samples import Batch, described, form, given, leaves, read
from ..basics.settings import where_it_lies
from ..models.adapted import Output, adapted, origin
from ..models.functional import assign, call_with, ungraphed
from ..models.networks import zero_output_layer
from . import losses
from .losses import Loss
from .recipe import Recipe, recipe_of
from .sgd import answered, whole_batches

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
        z = self._first_answer()
        object.__setattr__(self, "y", losses.targets(self.y, z, len(self.x), self.loss))
        object.__setattr__(self, "loss", losses.settled(self.loss, z, self.y))
        size = sum(p.numel() for p in validate.parameters(self.model))
        if self.weights.shape[1:] != (size,):
            raise ValueError(f"weights: got shape {tuple(self.weights.shape)}; wanted (S + 1, {size}) for this model")

    def __len__(self) -> int:
        """Count the weight states, S + 1."""
        return len(self.weights)

    def _first_answer(self) -> Tensor:
        """Return the outputs of the first sample, under the model's own weights."""
        with own_dtype(), torch.no_grad():
            return answered(self.model, self.x[:1], "x")

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

    @property
    def departures(self) -> tuple[float, ...]:
        """How far each recorded step is from the one described, relative to it: of weights kept in single precision 1e-7 and more.

        Worked out once, and again where the training samples have been written to.
        """
        made_of = tuple(where_it_lies(t) for t in (*leaves(self.x), self.y, self.weights))
        known = self.__dict__.get("_departures")
        if known is None or known[0] != made_of:
            known = self.__dict__["_departures"] = (made_of, self._departing())
        return known[1]

    def _departing(self) -> tuple[float, ...]:
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
                    "of Adam, weight decay or another loss they are not, and no path kernel adds up to them; nor where the model, its "
                    "frozen weights or buffers, or the samples are others than when the path was recorded"
                )
        return tuple(found)

    def gradient(self, step: int, batch: Tensor) -> Tensor:
        """Return the gradient of a batch's mean loss at a weight state, (d,)."""
        with torch.inference_mode(False), torch.enable_grad(), own_dtype():
            w = self.weights[step].to(self.x.device).clone().requires_grad_()
            f = self.output(self.unflatten(w), self.x[batch])
            return torch.autograd.grad(losses.of_samples(self.loss, f, self.y[batch]).mean(), w)[0]

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """Cut weights (..., d) into the model's parameters by name, (..., *shape)."""
        out, start = {}, 0
        for name, p in self.model.named_parameters():
            if p.requires_grad:
                out[name] = flat[..., start : start + p.numel()].reshape((*flat.shape[:-1], *p.shape))
                start += p.numel()
        return out

    def output(self, params: dict[str, Tensor], x: Tensor | Batch) -> Tensor:
        """Return the network output f of a batch under given parameters, (N, K)."""
        with own_dtype():
            z = validate.logits(call_with(self.model, params, x), len(x))
        return z.log_softmax(1) if self.loss == "log_softmax" else z

    def model_at(self, step: int) -> nn.Module:
        """Return a copy of the model with the weights of a state."""
        return assign(copy.deepcopy(self.model), self.unflatten(self.weights[step]))

    def outputs(self, x: Any, step: int = -1) -> Tensor:
        """Return f at a weight state, (N, K); the last by default."""
        if not isinstance(step, int) or not -len(self) <= step < len(self):
            raise IndexError(f"step: got {step!r}; wanted one of the {len(self)} weight states, {-len(self)} to {len(self) - 1}")
        x = self.points(x)
        params = self.unflatten(self.weights[step].to(x.device))
        return ungraphed(lambda: self.output(params, x)).detach()

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


# Samples on which it is seen that an output of zeros is the same for all.
_TRIED = 8


def _room(rows: int, size: int, like: Tensor, folder: str | Path | None) -> Tensor:
    """Make room for the weights, in memory or in a file that is not yet under its own name."""
    if folder is None:
        try:
            return torch.empty(rows, size, dtype=like.dtype, device=like.device)
        except RuntimeError as error:
            raise MemoryError(
                f"steps: got {rows} states of {size} weights, {rows * size * like.element_size() / 2**30:.1f} GiB; wanted fewer, or "
                "folder=, where they lie in a file"
            ) from error
    folders.own(folder, "folder", lambda inside: inside.name.removesuffix(".part") in _FILES)
    dtype = torch.empty(0, dtype=_BITS.get(like.dtype, like.dtype)).numpy().dtype
    return torch.from_numpy(open_memmap(Path(folder) / "weights.npy.part", "w+", dtype, (rows, size))).view(like.dtype)


def _finish(path: TrainingPath, folder: Path) -> TrainingPath:
    """Write what else belongs to a path, then give the weights their name: the last thing that happens.

    An older path in the folder stays whole until then.
    """
    x = path.x if isinstance(path.x, Batch) else Batch([path.x])
    loss = losses.written(path.loss)
    about: dict[str, Any] = {"lrs": path.lrs, "momentum": path.momentum, "loss": _name(loss), "states": len(path)}
    about["dtype"] = str(path.weights.dtype).removeprefix("torch.")
    about["model"], about["values"] = _of_model(path.model), _values(path)
    about["args"] = [None if isinstance(v, Tensor) else v for v in x.args] if x is path.x else None
    about["kwargs"] = {k: None if isinstance(v, Tensor) else v for k, v in x.kwargs.items()}
    arrays = {f"batch_{s}": batch for s, batch in enumerate(path.batches)} | {f"x_{k}": t for k, t in x.named.items()}
    kept = {name: _in_numpy(t) for name, t in (arrays | {"y": path.y}).items()}
    with open(folder / "data.npz.part", "wb") as file:
        np.savez(file, allow_pickle=False, **kept)
    (folder / "path.json.part").write_text(json.dumps(about))
    (folder / "weights.npy").unlink(missing_ok=True)  # or an older path would look whole beside this one's data
    for name in ("data.npz", "path.json", "weights.npy"):
        (folder / f"{name}.part").replace(folder / name)
    return load_path(folder, path.model, loss if callable(loss) else None)


def _of_model(model: nn.Module) -> str:
    """Fingerprint what a path does not keep of a model: its modules, settings, buffers and frozen weights."""
    return fingerprints.of_model(origin(model), weights=False)


def _values(path: TrainingPath) -> list[float]:
    """Return losses of a few samples at random outputs, which tell one loss from another that has the same code."""
    some = path.y[:_TRIED]
    draw = torch.randn(len(some), *path._first_answer().shape[1:], generator=torch.Generator().manual_seed(0)).to(
        path.weights.dtype
    )
    return losses.of_samples(path.loss, draw.to(some.device), some).double().tolist()


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
        model: of the same architecture, with the same buffers and frozen weights, on the device to work on.
        loss: the function that was given, where it was one.
        output: as given to :func:`train_path`.

    Returns:
        A :class:`TrainingPath`.

    Raises:
        FileNotFoundError: no finished path there; ValueError: a file was cut short, with how many states are whole, or
        the model has another number of parameters, another dtype, other buffers or frozen weights, or the loss is another function.

    Example:
        >>> kept = train_path(mlp((64, 8, 10)).double(), x, y, steps=5, lr=0.1, folder=folder / "run", progress=False)
        >>> len(load_path(folder / "run", mlp((64, 8, 10)).double()))
        6
    """
    folder = folders.named(folder, "folder")
    for name in _FILES:
        if not (folder / name).is_file():
            hint = ", only an unfinished run" if (folder / "weights.npy.part").exists() else ""
            raise FileNotFoundError(f"folder: got {folder} without {name}{hint}; wanted one written by train_path")
    try:
        about = json.loads((folder / "path.json").read_text())
        with open(folder / "weights.npy", "rb") as file:
            read_magic(file)
            (rows, size), _, dtype = read_array_header_1_0(file)
            whole = ((folder / "weights.npy").stat().st_size - file.tell()) // (size * dtype.itemsize)
        data = np.load(folder / "data.npz")
    except (ValueError, OSError, BadZipFile) as error:
        raise ValueError(f"folder: got {folder} with a damaged file ({error}); wanted one as train_path wrote it") from error
    if whole < rows or rows != about["states"]:
        raise ValueError(
            f"folder: got a weights.npy cut short, {whole} of {about['states']} states are whole; wanted all of them"
        )
    wanted = about["loss"] if loss is None else _name(loss)
    if wanted != about["loss"] or (loss is None and wanted not in LOSSES):
        raise ValueError(f"loss: got {loss!r}; wanted that of the path, {about['loss']}")
    validate.per_sample(model)
    like = validate.parameters(model)[0]
    if str(like.dtype) != f"torch.{about['dtype']}":
        raise ValueError(f"model: got {like.dtype}; wanted torch.{about['dtype']}, as on the path")

    def tensor(name: str) -> Tensor:
        t = torch.from_numpy(data[name]).to(like.device)
        return t.to(like.dtype) if t.is_floating_point() else t

    args = [tensor(f"x_{i}") if v is None else v for i, v in enumerate([None] if about["args"] is None else about["args"])]
    x = Batch(args, {k: tensor(f"x_{k}") if v is None else v for k, v in about["kwargs"].items()})
    x = args[0] if about["args"] is None else x
    batches = tuple(tensor(f"batch_{s}") for s in range(rows - 1))
    weights = torch.from_numpy(np.load(folder / "weights.npy", mmap_mode="c")).view(like.dtype)
    if about["model"] != _of_model(model):
        raise ValueError(
            "model: got another one than the path's: other modules, settings, buffers or frozen weights; wanted the same but for its "
            "trained weights"
        )
    model = adapted(model, x, output)
    path = TrainingPath(model, x, tensor("y"), weights, batches, tuple(about["lrs"]), about["momentum"], loss or about["loss"])
    if not np.allclose(_values(path), about["values"], rtol=1e-3, equal_nan=True):
        raise ValueError(f"loss: got {loss!r}, of the same code but with other values; wanted that of the path, {about['loss']}")
    return path
