"""Table 1 of the lpNTK paper: forgetting between consecutive batches, counted and predicted in every way it may have been."""

from dataclasses import dataclass, replace

import numpy as np

from ...analysis.forgetting import PREDICTORS, Predictor, event_scores, forgetting_run, scores_per_iteration
from ...data.datasets import load
from ...training.sgd import device
from ..experiment import Experiment
from ..protocols import CODE, CODE_NARROW, TEXT, Protocol
from ..results import Quoted, Result, over_seeds
from ._common import initial, on_device


@dataclass(frozen=True)
class Config:
    """Settings of Table 1.

    Attributes:
        data: name of the data set.
        protocol: the text's network in eval mode, or the code's in train mode.
        iterations: of training, from the initial weights.
        batch_size: samples a step.
        settings: (learning rate, momentum, weight decay); the paper states 1e-3, its code trains with momentum 0.9.
        batches: watched and assumed: those "trained" on, or "stored" ones in their order, as the code reads them.
        factors: on the change of the softmax by the true error, beside those of PREDICTORS.
        seeds: of initialisation, batches and dropout.
    """

    data: str = "mnist"
    protocol: Protocol = TEXT
    iterations: int = 50
    batch_size: int = 128
    settings: tuple[tuple[float, float, float], ...] = ((0.1, 0.0, 0.0), (0.1, 0.9, 5e-4), (1e-3, 0.0, 0.0), (1e-3, 0.9, 5e-4))
    batches: tuple[str, ...] = ("trained",)
    factors: tuple[float, ...] = ()
    seeds: tuple[int, ...] = tuple(range(10))


# "smoke", "class" (digits), "paper" (MNIST, the text's network), "code" (MNIST, the code's), "narrow" (CIFAR-10) or "cifar10".
_CODE = Config(
    protocol=CODE,
    settings=((1e-3, 0.9, 5e-4), (0.1, 0.9, 5e-4)),
    batches=("trained", "stored"),
    factors=(2.0, 3.0, 4.0, 10.0),
)
_CIFAR = replace(_CODE, data="cifar10", iterations=700, settings=((1e-3, 0.9, 5e-4),), seeds=(0, 1, 2))
PRESETS = {
    "smoke": Config(
        data="digits", iterations=20, batch_size=32, settings=((0.5, 0.0, 0.0),), batches=("trained", "stored"), factors=(3.0,), seeds=(0,)
    ),
    "class": Config(data="digits", iterations=50, batch_size=64),
    "paper": Config(),
    "code": _CODE,
    "narrow": replace(_CIFAR, protocol=CODE_NARROW, batches=("trained",), factors=()),
    "cifar10": _CIFAR,
}  # fmt: skip


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Train and predict; one row for each seed, setting, batches and predictor, with the number of events beside every score.

    ``precision``, ``recall`` and ``f1`` are pooled over the iterations; ``mean_precision``, ``mean_recall`` and ``mean_f1`` are means
    over the iterations in which an empty one counts as 1, as the code has it. ``between_passes`` counts events as the code does.
    """
    data = load(config.data)
    x, y = on_device(data)
    predictors = PREDICTORS | {f"softmax, gradient x {f:g}": Predictor("softmax", "true", f) for f in config.factors}

    def one_seed(seed: int) -> list[dict]:
        rows = []
        for lr, momentum, weight_decay in config.settings:
            for batches in config.batches:
                found = forgetting_run(
                    initial(x, seed, config.protocol),
                    x,
                    y,
                    iterations=config.iterations,
                    lr=lr,
                    momentum=momentum,
                    weight_decay=weight_decay,
                    batch_size=config.batch_size,
                    seed=seed,
                    predictors=predictors,
                    train_mode=config.protocol.train_mode,
                    batches=batches,
                    progress=False,
                )
                about = {
                    "lr": lr,
                    "momentum": momentum,
                    "batches": batches,
                    "known": int(found.known.sum()),
                    "iterations_with_events": int(found.forgotten.any(1).sum()),
                    "between_passes": int(found.between_passes.sum()),
                    "loss_first": found.loss[0].item(),
                    "loss_last": found.loss[-1].item(),
                }
                for name, foreseen in found.predicted.items():
                    scores = event_scores(found.forgotten, foreseen)
                    each = np.array([s[:3] for s in scores_per_iteration(found.forgotten, foreseen, empty=1.0)]).mean(0)
                    means = dict(zip(("mean_precision", "mean_recall", "mean_f1"), each.tolist(), strict=True))
                    hits = {"hits": int((found.forgotten & foreseen).sum())}
                    rows.append(about | {"predictor": name, **scores._asdict(), **hits, **means})
        return rows

    return over_seeds("forgetting_prediction", preset, config, data, one_seed, device=device(), folder=folder, progress=progress)


MEANS = ("mean_precision", "mean_recall", "mean_f1")


def pooled(result: Result) -> list[dict]:
    """Pool all seeds: a row for each setting, batches and predictor, with events, scores, and the means with empty ones as 1."""
    rows, keys = [], ["lr", "momentum", "batches", "predictor"]
    for values, some in result.frame().groupby(keys, sort=False):
        events, predicted, hits = some[["events", "predicted", "hits"]].sum().tolist()
        precision = hits / predicted if predicted else (0.0 if events else None)
        recall, f1 = (hits / events, 2 * hits / (events + predicted)) if events else (None, None)
        rows.append({**dict(zip(keys, values, strict=True)), "events": events})
        rows[-1] |= {"precision": precision if events else None, "recall": recall, "F1": f1, **some[list(MEANS)].mean().to_dict()}
    return rows


def quoted(result: Result) -> list[Quoted]:
    """Set Table 1 beside the run: events as they are counted, and scores of the paper's predictors, pooled and as means."""
    config = result.provenance["config"]
    mnist, code = result.provenance["data"]["name"] == "mnist", config["protocol"]["follows"] == "code"
    (precision, recall, f1), table = ((42.72, 59.02, 49.54), "Table 1") if mnist else ((49.47, 69.50, 57.76), "Table 1, CIFAR-10")
    paper = {"precision": precision, "recall": recall, "f1": f1}
    found, events = [], 7873 if mnist else 2799
    for lr, momentum, _ in config["settings"]:
        for batches in config["batches"]:
            setting = f"rate {lr:g}, momentum {momentum:g}" + ", stored batches" * (batches == "stored")
            rows = result.frame(lr=lr, momentum=momentum, batches=batches)
            counted = rows[rows.predictor == "kappa tilde, softmax"]
            total, share = float(counted.events.sum()), 10 / len(counted)
            found.append(Quoted.of(table, f"events, per ten seeds, {setting}", events, [share * total]))
            if code and batches == "trained":
                passes = float(counted.between_passes.sum())
                found.append(
                    Quoted.of(table, f"events between passes under dropout, per ten seeds, {setting}", events, [share * passes])
                )
            for name, words in (
                ("kappa tilde, softmax", "kappa tilde"),
                *((("softmax, gradient", "the true error"),) if code else ()),
            ):
                some = rows[rows.predictor == name]
                for key, value in paper.items():
                    if total >= 100:  # a score of fewer events would be noise
                        found.append(Quoted.of(table, f"{key} of {words}, {setting}", value, 100 * some[key].dropna()))
                    if code:
                        averaged = f"{key} of {words}, mean with empty iterations as 1, {setting}"
                        found.append(Quoted.of(table, averaged, value, 100 * some[f"mean_{key}"]))
            if total >= 100 and batches == "trained":
                best = 100 * rows[rows.predictor == "logits, step"].f1.dropna()
                found.append(Quoted.of(table, f"f1 of the first order in logits along the step, {setting}", None, best))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": (
        "lr",
        "momentum",
        "batches",
        "predictor",
        "precision",
        "recall",
        "f1",
        "events",
        "predicted",
        "hits",
        "known",
        *MEANS,
        "iterations_with_events",
        "between_passes",
        "loss_first",
        "loss_last",
    ),
}

# Of the preset "cifar10", a seed on an H100; reckoned from operations, not measured.
EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, seconds_on_a_gpu=140)
