"""Table 1 of the lpNTK paper: forgetting between consecutive batches, predicted in six ways."""

from dataclasses import dataclass

import numpy as np

from ...analysis.forgetting import PREDICTORS, event_scores, forgetting_run, scores_per_iteration
from ...data.datasets import load
from ...training.sgd import device
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import initial, on_device


@dataclass(frozen=True)
class Config:
    """Settings of Table 1.

    Attributes:
        data: name of the data set.
        iterations: of training, from the initial weights.
        batch_size: samples a step.
        settings: (learning rate, momentum, weight decay); the paper states 1e-3, its code trains with momentum 0.9.
        seeds: of initialisation and batches.
    """

    data: str = "mnist"
    iterations: int = 50
    batch_size: int = 128
    settings: tuple[tuple[float, float, float], ...] = ((0.1, 0.0, 0.0), (0.1, 0.9, 5e-4), (1e-3, 0.0, 0.0), (1e-3, 0.9, 5e-4))
    seeds: tuple[int, ...] = tuple(range(10))


# "smoke", "class" (digits), "paper" (MNIST, ten seeds) or "cifar10" (700 steps, three seeds).
PRESETS = {
    "smoke": Config(data="digits", iterations=20, batch_size=32, settings=((0.5, 0.0, 0.0),), seeds=(0,)),
    "class": Config(data="digits", iterations=50, batch_size=64),
    "paper": Config(),
    "cifar10": Config(data="cifar10", iterations=700, settings=((0.01, 0.0, 0.0), (0.01, 0.9, 0.0005)), seeds=(0, 1, 2)),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Train and predict; one row for each seed, setting and predictor, with the number of events beside every score."""
    data = load(config.data)
    x, y = on_device(data)

    def one_seed(seed: int) -> list[dict]:
        rows = []
        for lr, momentum, weight_decay in config.settings:
            found = forgetting_run(
                initial(x, seed),
                x,
                y,
                iterations=config.iterations,
                lr=lr,
                momentum=momentum,
                weight_decay=weight_decay,
                batch_size=config.batch_size,
                seed=seed,
                progress=False,
            )
            for name in PREDICTORS:
                scores = event_scores(found.forgotten, found.predicted[name])
                each = [s.f1 for s in scores_per_iteration(found.forgotten, found.predicted[name]) if s.events]
                rows.append(
                    {
                        "lr": lr,
                        "momentum": momentum,
                        "predictor": name,
                        **scores._asdict(),
                        "hits": round(scores.recall * scores.events) if scores.events else 0,
                        "known": int(found.known.sum()),
                        "f1_per_iteration": float(np.mean(each)) if each else None,
                        "loss_first": found.loss[0].item(),
                        "loss_last": found.loss[-1].item(),
                    }
                )
        return rows

    return over_seeds("forgetting_prediction", preset, config, data, one_seed, device=device(), folder=folder, progress=progress)


def pooled(result: Result) -> list[dict]:
    """Pool all seeds: one row for each setting and predictor, with precision, recall, F1 and the count of events."""
    rows = []
    for (lr, momentum, predictor), some in result.frame().groupby(["lr", "momentum", "predictor"], sort=False):
        events, predicted, hits = some[["events", "predicted", "hits"]].sum().tolist()
        precision = hits / predicted if predicted else (0.0 if events else None)
        recall, f1 = (hits / events, 2 * hits / (events + predicted)) if events else (None, None)
        rows.append({"lr": lr, "momentum": momentum, "predictor": predictor, "events": events})
        rows[-1] |= {"precision": precision if events else None, "recall": recall, "F1": f1}
    return rows


def quoted(result: Result) -> list[Quoted]:
    """Set Table 1 beside the run: scores of kappa tilde in softmax space, which is the paper's, and of our best predictor."""
    mnist = result.provenance["data"]["name"] == "mnist"
    paper, table = ((42.72, 59.02, 49.54), "Table 1") if mnist else ((49.47, 69.50, 57.76), "Table 1, CIFAR-10")
    found, events = [], 7873 if mnist else 2799
    for lr, momentum, _ in result.provenance["config"]["settings"]:
        setting = f"rate {lr:g}, momentum {momentum:g}"
        counted = result.frame(lr=lr, momentum=momentum, predictor="kappa tilde, softmax")
        total = float(counted.events.sum())
        found.append(Quoted.of(table, f"events in {len(counted)} seeds, {setting}", float(events), [total]))
        if total < 100:
            continue  # a score of so few events would be noise
        for key, value in zip(("precision", "recall", "f1"), paper, strict=True):
            found.append(Quoted.of(table, f"{key} of kappa tilde, {setting}", value, 100 * counted[key].dropna()))
        best = 100 * result.frame(lr=lr, momentum=momentum, predictor="logits, step").f1.dropna()
        found.append(Quoted.of(table, f"f1 of the first order in logits along the step, {setting}", None, best))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": (
        "lr",
        "momentum",
        "predictor",
        "precision",
        "recall",
        "f1",
        "events",
        "predicted",
        "hits",
        "known",
        "f1_per_iteration",
        "loss_first",
        "loss_last",
    ),
}

# Of the preset "cifar10", a seed on an H100; reckoned from operations, not measured.
EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, seconds_on_a_gpu=140)
