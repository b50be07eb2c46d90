"""Sec. 4.1 and Fig 4 of the EPK paper: how exact the path kernel is, by activation, rule and number of nodes."""

import time
from dataclasses import dataclass

import torch

from ...data.datasets import load
from ...kernels.paths.kernel import epk
from ...models.networks import mlp
from ...training.record import train_path
from ...training.sgd import device
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds

RULES = (("left", 1), ("left", 10), ("left", 100), ("midpoint", 10), ("gauss", 2), ("gauss", 4), ("gauss", 8), ("piecewise", 4))
WAYS = (
    ("full batch", None, 0.0, 1.0),
    ("batches", 100, 0.0, 1.0),
    ("schedule", None, 0.0, 0.95),
    ("momentum", None, 0.9, 1.0),
)


@dataclass(frozen=True)
class Config:
    """Settings; float64 throughout.

    Attributes:
        points: training points, a third of each class, in 100 dimensions.
        test: test points.
        hidden: width of the hidden layer (the paper does not say).
        activations: of the hidden layer.
        steps: S (the paper does not say).
        lr: step size for the mean loss; a tenth of it with momentum.
        rules: (rule, nodes) for the first of the ways.
        ways: (name, batch size, momentum, factor on the step size each step), each with "piecewise", or "gauss" where smooth.
        nodes: for the ways.
        seeds: of the initial weights and the batches.
    """

    points: int = 3000
    test: int = 100
    hidden: int = 64
    activations: tuple[str, ...] = ("tanh", "gelu", "softplus", "relu")
    steps: int = 50
    lr: float = 0.1
    rules: tuple[tuple[str, int], ...] = RULES
    ways: tuple[tuple[str, int | None, float, float], ...] = WAYS
    nodes: int = 8
    seeds: tuple[int, ...] = (0,)


# "smoke", "class" (300 points) or "paper" (3000 points).
PRESETS = {
    "smoke": Config(points=60, test=8, hidden=8, activations=("tanh", "relu"), steps=4, rules=RULES[-2:], ways=WAYS[:2]),
    "class": Config(points=300, test=50, hidden=32, steps=20),
    "paper": Config(),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Measure the largest error of a log-probability over the test points; a row for each activation and rule or way."""
    data = load("gaussians", limit=config.points)
    x, y = data.x.to(device(), torch.float64), data.y.to(device())
    x_test = load("gaussians", "test").x[: config.test].to(x)

    def one_seed(seed: int, activation: str) -> list[dict]:
        torch.manual_seed(seed)
        model = mlp((x.shape[1], config.hidden, 3), activation).to(x)
        rows = []
        own = "piecewise" if activation == "relu" else "gauss"
        for i, (way, batch_size, momentum, decay) in enumerate(config.ways):
            path = train_path(
                model,
                x,
                y,
                steps=config.steps,
                lr=config.lr / 10 if momentum else config.lr,
                batch_size=batch_size,
                momentum=momentum,
                schedule=lambda s, decay=decay: decay**s,
                seed=seed,
                progress=False,
            )
            # every rule on the first way; a dict drops the one that is there twice
            for rule, nodes in dict.fromkeys((*(config.rules if i == 0 else ()), (own, config.nodes))):
                start = time.perf_counter()
                error = epk(path, x_test, rule, nodes).error
                seconds = time.perf_counter() - start
                about = {"activation": activation, "training": way, "rule": rule, "nodes": nodes}
                rows.append(about | {"error": error, "seconds": seconds})
        return rows

    parts = [(activation,) for activation in config.activations]
    return over_seeds(
        "path_rules", preset, config, data, one_seed, device=device(), parts=parts, folder=folder, progress=progress
    )


def quoted(result: Result) -> list[Quoted]:
    """Set Fig 4 and Alg. 1 beside the run: the largest error of a log-probability, by rule and by way of training."""
    shown, found = (("left", 100), ("gauss", 4), ("piecewise", 4), ("gauss", 8), ("piecewise", 8)), []
    settings = result.frame().groupby(["activation", "training", "rule", "nodes"], sort=False).error.max()
    for (activation, training, rule, nodes), error in settings.items():
        if (rule, nodes) not in shown:
            continue
        plain = training == "full batch"
        item = "Thm. 3.7, Alg. 1, Fig. 4" if plain else "Sec. 3.3, App. A.5"
        words = f"{activation}, {rule} {nodes}" if plain else f"{activation}, {training}"
        found.append(Quoted.of(item, f"largest error, {words}", None, [error]))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("activation", "training", "rule", "nodes", "error", "seconds"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
