"""Table 5 of the lpNTK paper once more: which optimizer at the rate 0.001 makes its row fall gently?"""

from dataclasses import dataclass

from ...analysis.difficulty import difficulty_correlation, visits_by_size
from ...analysis.difficulty import learning_difficulty as difficulty_of
from ...data.datasets import load
from ...training.sgd import device
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import initial, on_device
from .learning_difficulty import PAPER


@dataclass(frozen=True)
class Config:
    """Settings; the rate, the batches and the sizes are Table 5's, the optimizer is what the paper may have used.

    Attributes:
        data: name of the data set.
        sizes: samples per class.
        optimizer: "adam", whose customary rate 0.001 is, or "sgd".
        lr: learning rate.
        batch_size: samples a step.
        epochs: passes over every subset.
        seeds: of the initial weights and the split.
    """

    data: str = "mnist"
    sizes: tuple[int, ...] = (4096, 1024, 256, 64, 16, 4, 1)
    optimizer: str = "adam"
    lr: float = 0.001
    batch_size: int = 256
    epochs: int = 30
    seeds: tuple[int, ...] = (0,)


# "smoke" (digits), "class" (MNIST, 256 a class) or "paper" (MNIST, 4096 a class).
_SMOKE = Config(data="digits", sizes=(16, 4, 1), epochs=5)
PRESETS = {
    "smoke": _SMOKE,
    "class": Config(sizes=(256, 64, 16, 4, 1)),
    "paper": Config(),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Correlate difficulties, by the loss, of the largest size with every other; a row for each seed and size."""
    data = load(config.data)
    x, y = on_device(data)

    def one_seed(seed: int) -> list[dict]:
        how = {"epochs": config.epochs, "lr": config.lr, "batch_size": config.batch_size, "optimizer": config.optimizer}
        universe, visits = visits_by_size(initial(x, seed), x, y, config.sizes, seed=seed, progress=progress, **how)
        labels = y.cpu()[universe.cpu()]
        rho = difficulty_correlation({size: difficulty_of(z, labels) for size, z in visits.items()})[0].tolist()
        right = [(z[-1].argmax(-1) == labels).float().mean().item() for z in visits.values()]
        head = {"from": max(visits)}
        return [head | {"to": n, "rho": r, "right_at_the_end": e} for n, r, e in zip(visits, rho, right, strict=True)]

    how = {"device": device(), "folder": folder, "progress": progress}
    return over_seeds("difficulty_optimizers", preset, config, data, one_seed, **how)


def quoted(result: Result) -> list[Quoted]:
    """Set the first row of Table 5 beside the run with another optimizer."""
    found, name = [], result.provenance["config"]["optimizer"].capitalize()
    rows = result.frame()
    for (size, universe), some in rows[rows["to"] < rows["from"]].groupby(["to", "from"], sort=False):
        words = f"rho of {universe} with {size} a class, {name}"
        found.append(Quoted.of("Table 5, Adam", words, PAPER["Table 5"].get(size), some.rho))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("from", "to", "rho", "right_at_the_end"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
