"""What the full training set reaches, Tables 2 and 3 of the lpNTK paper: by learning rate, at the last and the best epoch."""

from dataclasses import dataclass, replace

from ...training.sgd import device
from ..experiment import Experiment
from ..protocols import CODE, CODE_NARROW, TEXT, Protocol
from ..results import Quoted, Result, over_seeds
from ._common import TEN, PaperRecipe, ResNetRecipe, both_splits, fit, on_device
from .pruned_training import PAPER

# A run that is never right more often than this has not trained.
FAILED = 0.5


@dataclass(frozen=True)
class Config:
    """Settings; but for the rate, training is that of the paper's own code.

    Attributes:
        data: name of the data set.
        protocol: whose network.
        limit: training samples, or None for all.
        recipe: of the training.
        rates: learning rates to put into it.
        seeds: of the initial weights and the batches.
    """

    data: str = "mnist"
    protocol: Protocol = TEXT
    limit: int | None = None
    recipe: PaperRecipe = PaperRecipe()
    rates: tuple[float, ...] = (0.01, 0.03, 0.1)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


# "smoke" (digits), "class" (10,000 samples, 6 epochs), "paper" (all, 30 epochs), "code" (the public code's network, 10 epochs),
# "narrow" (CIFAR-10, 15 epochs) or "cifar10".
_SHORT = PaperRecipe(epochs=6, decay=0.35)
PRESETS = {
    "smoke": Config(data="digits", limit=300, recipe=PaperRecipe(epochs=2), rates=(0.01, 0.1), seeds=(0,)),
    "class": Config(limit=10000, recipe=_SHORT, seeds=(0, 1, 2)),
    "paper": Config(),
    "code": Config(protocol=CODE, recipe=TEN, rates=(0.1,), seeds=(0, 1, 2)),
    "narrow": Config(data="cifar10", protocol=CODE_NARROW, recipe=ResNetRecipe(epochs=15), rates=(0.1,), seeds=(0,)),
    "cifar10": Config(data="cifar10", protocol=CODE, recipe=ResNetRecipe(), rates=(0.1,), seeds=(0, 1)),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Train on all samples at every rate; a row has the test accuracy after the last epoch, the best, and that of each."""
    data, test = both_splits(config.data, config.limit)
    (x, y), held_out = on_device(data), on_device(test)

    def one_seed(seed: int, rate: float) -> list[dict]:
        curve = fit(x, y, replace(config.recipe, lr=rate), seed, config.protocol, validation=held_out)[1].validation.tolist()
        return [{"lr": rate, "accuracy": curve[-1], "best": max(curve), "curve": curve}]

    how = {"device": device(), "parts": [(rate,) for rate in config.rates], "folder": folder, "progress": progress}
    return over_seeds("training_rates", preset, config, data, one_seed, **how)


def quoted(result: Result) -> list[Quoted]:
    """Set the full set's row of Table 3 beside the run: accuracies in per cent of what trained, and how many runs did not."""
    found, data = [], result.provenance["config"]["data"]
    item, paper = "Tables 2 and 3, full" + ", CIFAR-10" * (data == "cifar10"), PAPER.get(data, {}).get("full")
    for rate, runs in result.frame().groupby("lr", sort=False):
        trained = runs[runs.best > FAILED]
        words = f"runs of {len(runs)} that never left chance, rate {rate}"
        found.append(Quoted.of(item, words, None, [float(len(runs) - len(trained))]))
        for key, words in (("accuracy", "after the last epoch"), ("best", "at the epoch best on the test set")):
            if len(trained):
                found.append(Quoted.of(item, f"test accuracy {words}, rate {rate}, of the others", paper, 100 * trained[key]))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("lr", "accuracy", "best", "curve"),
}

# Of the preset "cifar10", a seed on an H100; reckoned from operations, not measured.
EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, seconds_on_a_gpu=200)
