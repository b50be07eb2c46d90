"""Forgetting events between consecutive batches, and predicting them to first order (Guo et al., 2024, Algorithm 2)."""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import NamedTuple

import torch
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from ..basics import validate
from ..training.recipe import Recipe, recipe_of
from ..training.sgd import whole_batches
from .one_step import Step, first_order_change, sgd_step, softmax_jacobian

SPACES = ("softmax", "logits")
BATCHES = ("trained", "stored")


class Predictor(NamedTuple):
    """One way to predict who is forgotten.

    Attributes:
        space: "softmax" adds the first-order change to the probabilities, "logits" to the logits.
        step: "true" or "kappa_tilde" for the SGD step of :func:`sgd_step` with that error, "made" for the step that the
            optimiser really made.
        factor: on that step; 1/(1 - momentum) makes up for the length of a heavy ball's.
    """

    space: str
    step: str
    factor: float = 1.0


PREDICTORS = {
    "kappa tilde, softmax": Predictor("softmax", "kappa_tilde"),
    "kappa tilde, logits": Predictor("logits", "kappa_tilde"),
    "softmax, gradient": Predictor("softmax", "true"),
    "softmax, step": Predictor("softmax", "made"),
    "logits, gradient": Predictor("logits", "true"),
    "logits, step": Predictor("logits", "made"),
}


class Scores(NamedTuple):
    """How well events were predicted; precision, recall and F1 are NaN where there was no event to predict.

    Attributes:
        precision: predicted events that happened, in [0, 1]; 0 where none was predicted.
        recall: events that were predicted, in [0, 1].
        f1: their harmonic mean.
        events: how many events there were.
        predicted: how many were predicted.
    """

    precision: float
    recall: float
    f1: float
    events: int
    predicted: int

    def __str__(self) -> str:
        if not self.events:
            return f"undefined: no forgetting event to predict ({self.predicted} predicted)"
        return f"precision {self.precision:.3f}, recall {self.recall:.3f}, F1 {self.f1:.3f} ({self.events} events)"


class ForgettingRun(NamedTuple):
    """What happened in T iterations to the batch before each.

    Attributes:
        known: sample i of the batch before was classified rightly before the step, (T, B) bool.
        forgotten: and wrongly after it: the events, (T, B) bool.
        predicted: for each predictor, the events foreseen, (T, B) bool.
        loss: mean loss of the batch stepped on, before the step, (T,).
        between_passes: the batch stepped on before was classified rightly in the pass of its own step, and wrongly in a pass of
            the same mode after the step on the next batch, (T, B) bool. With dropout on, two passes have two masks.
    """

    known: Tensor
    forgotten: Tensor
    predicted: dict[str, Tensor]
    loss: Tensor
    between_passes: Tensor


def predict_forgetting(model: nn.Module, x: Tensor, y: Tensor, step: Step, space: str = "logits") -> Tensor:
    r"""Predict which samples a step makes the model forget: right now, wrong after the change to first order.

    In "logits" the prediction is :math:`\arg\max (z + J\Delta w)`; in "softmax", as in the paper and eq. (1),
    :math:`\arg\max (q + A J \Delta w)`, whose entries may leave [0, 1].

    Args:
        model: with the weights before the step, in eval mode where it has BatchNorm or Dropout.
        x: (N, ...).
        y: integer labels (N,).
        step: change of the weights, from :func:`sgd_step` or a difference of two states.
        space: "logits" or "softmax".

    Returns:
        (N,) bool, on the model's device.

    Raises:
        TypeError, ValueError: bad inputs, labels, step or space.

    Example:
        >>> predict_forgetting(model, x[:16], y[:16], sgd_step(model, x[16:], y[16:], lr=0.1)).shape
        torch.Size([16])
    """
    if space not in SPACES:
        raise ValueError(f"space: got {space!r}; wanted one of {SPACES}")
    validate.per_sample(model)
    x = validate.inputs(x, validate.parameters(model)[0])
    z, change = first_order_change(model, x, step)
    return _foreseen(z, change, validate.labels(y, len(x), z.shape[1], z), space)


def _foreseen(z: Tensor, change: Tensor, y: Tensor, space: str) -> Tensor:
    after = z + change
    if space == "softmax":
        q = z.softmax(1)
        after = q + torch.einsum("nij,nj->ni", softmax_jacobian(q), change)
    return (z.argmax(1) == y) & (after.argmax(1) != y)


def forgetting_run(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: Recipe | None = None,
    *,
    iterations: int,
    seed: int = 0,
    predictors: dict[str, Predictor] | Sequence[str] = tuple(PREDICTORS),
    train_mode: bool = False,
    batches: str = "trained",
    progress: bool = True,
    **settings,
) -> ForgettingRun:
    """Train for some iterations and watch, at each, what the step does to the batch before (Guo et al., 2024, Algorithm 2).

    A sample of the batch at t is forgotten at t + 1 where the model has it right before the step on the batch at t + 1
    and wrong after it. These answers, and all tangents, are taken in eval mode. The steps are too, unless ``train_mode``:
    BatchNorm keeps the running statistics that it has, Dropout is off.

    Args:
        model: gives logits (N, K); trained in place.
        x: (N, ...), on the model's device; batches are drawn without replacement, a fresh order each epoch.
        y: integer labels (N,).
        recipe: a :class:`ntk_course.training.Recipe` of SGD at one rate, or its fields by keyword.
        iterations: T; one step more is made first, so that there is a batch before.
        seed: of the batch order, and of dropout.
        predictors: names out of :data:`PREDICTORS`, or a dict of your own.
        train_mode: make the steps in train mode, with Dropout on, as the paper's public code does; the events that it counts
            are then ``between_passes``.
        batches: which batches are watched, and taken for the step by a predictor that needs one: those "trained" on, or
            consecutive "stored" samples, as the paper's public code reads them, whatever batch was trained on.
        progress: show a bar.
        **settings: fields of the recipe: ``lr``, ``batch_size`` (128, at most N), ``momentum``, ``weight_decay``.

    Returns:
        A :class:`ForgettingRun`, on the CPU.

    Raises:
        TypeError, ValueError: bad inputs, labels or names.

    Example:
        >>> run = forgetting_run(mlp((64, 8, 10)), x, y, iterations=3, batch_size=8, lr=0.1, progress=False)
        >>> event_scores(run.forgotten, run.predicted["logits, gradient"])._fields
        ('precision', 'recall', 'f1', 'events', 'predicted')
    """
    if not isinstance(predictors, dict):
        unknown = [name for name in predictors if name not in PREDICTORS]
        if unknown:
            raise ValueError(f"predictors: got {unknown[0]!r}; wanted names out of {list(PREDICTORS)}")
        predictors = {name: PREDICTORS[name] for name in predictors}
    recipe = recipe_of(recipe, settings, "forgetting_run", ("lr", "batch_size", "momentum", "weight_decay"))
    batch_size = recipe.batch_of(len(x))
    if batch_size > len(x):
        raise ValueError(f"batch_size: got {batch_size} for {len(x)} samples; wanted at most as many")
    if batches not in BATCHES:
        raise ValueError(f"batches: got {batches!r}; wanted one of {BATCHES}")
    x = validate.inputs(x, validate.parameters(model)[0])
    validate.positive(iterations, "iterations")
    y = validate.labels(y, len(x), validate.logits(model.eval()(x[:1]), 1).shape[1], x)
    optimizer = recipe.steps_on(validate.parameters(model))
    drawn = whole_batches(len(x), batch_size, seed)
    stored = cycle(torch.arange(len(x) - len(x) % batch_size).split(batch_size)) if batches == "stored" else None
    rows = []
    with _left_in_eval_mode(model, seed, x):
        trained = next(drawn)
        watched = next(stored) if stored else trained
        hit, _ = _step(model, optimizer, x[trained], y[trained], train_mode)
        for _ in tqdm(range(iterations), desc="iterations", disable=not progress):
            drawn_now, before = next(drawn), copy.deepcopy(model)
            assumed = next(stored) if stored else drawn_now
            known = _right(before, x[watched], y[watched])
            hit_now, loss = _step(model, optimizer, x[drawn_now], y[drawn_now], train_mode)
            steps = {
                how: _difference(model, before) if how == "made" else sgd_step(before, x[assumed], y[assumed], recipe.lr, how)
                for how in {p.step for p in predictors.values()}
            }
            changes = {how: first_order_change(before, x[watched], step) for how, step in steps.items()}
            foreseen = [_foreseen(changes[p.step][0], p.factor * changes[p.step][1], y[watched], p.space)
                        for p in predictors.values()]  # fmt: skip
            lapsed = hit & ~_right(model, x[trained], y[trained], train_mode)
            rows.append((known, known & ~_right(model, x[watched], y[watched]), torch.stack(foreseen), loss, lapsed))
            trained, watched, hit = drawn_now, assumed, hit_now
    known, forgotten, foreseen, loss, lapsed = (torch.stack(column).cpu() for column in zip(*rows, strict=True))
    return ForgettingRun(known, forgotten, dict(zip(predictors, foreseen.unbind(1), strict=True)), loss, lapsed)


@contextmanager
def _left_in_eval_mode(model: nn.Module, seed: int, x: Tensor) -> Iterator[None]:
    """Let the seed fix dropout's masks; leave the global random state as it was, and the model in eval mode, whatever happens."""
    try:
        with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
    finally:
        model.eval()


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, train_mode: bool) -> tuple[Tensor, Tensor]:
    """Make a step; return who was right in its pass, and the loss there."""
    with torch.enable_grad():
        z = model.train(train_mode)(x)
        loss = cross_entropy(z, y)
        if not torch.isfinite(loss):
            raise ArithmeticError(f"lr: the loss became {loss.item()}; wanted a smaller learning rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.eval()
    return z.detach().argmax(1) == y, loss.detach()


@torch.no_grad()
def _right(model: nn.Module, x: Tensor, y: Tensor, train_mode: bool = False) -> Tensor:
    right = model.train(train_mode)(x).argmax(1) == y
    model.eval()
    return right


@torch.no_grad()
def _difference(after: nn.Module, before: nn.Module) -> Step:
    moved = zip(after.named_parameters(), before.parameters(), strict=True)
    return {name: p - q for (name, p), q in moved if p.requires_grad}


def event_scores(forgotten: Tensor, predicted: Tensor) -> Scores:
    r"""Score predicted against true events, all pooled: precision, recall, F1, and how many there were.

    Without a single event nothing can be recalled, and the scores are NaN rather than perfect.

    Args:
        forgotten: bool, any shape.
        predicted: bool, the same shape.

    Returns:
        :class:`Scores`.

    Raises:
        TypeError, ValueError: not bool, or shapes that differ.

    Example:
        >>> event_scores(torch.tensor([True, False, False]), torch.tensor([True, True, False])).f1
        0.6666666666666666
    """
    for name, t in (("forgotten", forgotten), ("predicted", predicted)):
        if t.dtype != torch.bool:
            raise TypeError(f"{name}: got dtype {t.dtype}; wanted bool")
    if forgotten.shape != predicted.shape:
        raise ValueError(f"predicted: got shape {tuple(predicted.shape)}; wanted {tuple(forgotten.shape)}, as in forgotten")
    events, foreseen = int(forgotten.sum()), int(predicted.sum())
    if not events:
        return Scores(math.nan, math.nan, math.nan, 0, foreseen)
    flat = (t.flatten().numpy(force=True) for t in (forgotten, predicted))
    precision, recall, f1, _ = precision_recall_fscore_support(*flat, average="binary", zero_division=0.0)
    return Scores(float(precision), float(recall), float(f1), events, foreseen)


def scores_per_iteration(forgotten: Tensor, predicted: Tensor, empty: float = math.nan) -> list[Scores]:
    """Score each iteration by itself: the scores of (T, B) events, row by row, by default NaN where an iteration had none.

    Averages over iterations depend on what an empty iteration counts as. The paper's public code counts a precision without
    predictions, and a recall without events, as 1: ``empty=1``. Else take ``numpy.nanmean``, or pool with :func:`event_scores`.

    Args:
        forgotten: (T, B) bool.
        predicted: (T, B) bool.
        empty: what a precision without predictions and a recall without events count as, in [0, 1], or NaN.

    Returns:
        T :class:`Scores`.

    Example:
        >>> forgotten = torch.tensor([[True, False], [False, True]])
        >>> [s.f1 for s in scores_per_iteration(forgotten, forgotten)]
        [1.0, 1.0]
        >>> scores_per_iteration(forgotten, torch.zeros_like(forgotten), empty=1.0)[0].precision
        1.0
    """
    scores = [event_scores(f, p) for f, p in zip(forgotten, predicted, strict=True)]
    return scores if math.isnan(empty) else [_with_empty(s, empty) for s in scores]


def _with_empty(scores: Scores, empty: float) -> Scores:
    precision = empty if not scores.predicted else scores.precision if scores.events else 0.0
    recall = scores.recall if scores.events else empty
    return scores._replace(
        precision=precision, recall=recall, f1=2 * precision * recall / (precision + recall) if precision + recall else 0.0
    )
