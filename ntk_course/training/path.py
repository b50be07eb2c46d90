"""Training paths: every weight state of a training run, with the batches and step sizes that made it."""

import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ..basics import validate
from ..basics.dtypes import own_dtype
from ..basics.samples import Batch, described, form, given, leaves, read
from ..basics.settings import where_it_lies
from ..models.adapted import origin
from ..models.functional import assign, call_with, ungraphed
from . import losses
from .losses import Loss
from .sgd import answered

LOSSES = ("log_softmax", *losses.NAMES)
# Relative difference that a step recorded in single precision may have from the one described.
_DEPARTS = 1e-3


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
