"""Fig 1 and Tables 4 to 6 of the lpNTK paper: a sample's difficulty in subsets of every size, correlated with the whole."""

from dataclasses import dataclass

from ...analysis.difficulty import MEASURES, difficulty_correlation, visits_by_size
from ...analysis.difficulty import learning_difficulty as difficulty_of
from ...data.datasets import load
from ...training.sgd import device
from ..experiment import Experiment
from ..protocols import CODE, TEXT, Protocol
from ..results import Quoted, Result, over_seeds
from ._common import initial, on_device
from .difficulty_training import printed

SETTINGS = (
    ("Table 4", 0.1, 128, 0.0, 0.0),
    ("Table 5", 0.001, 256, 0.0, 0.0),
    ("Table 5, momentum 0.9", 0.001, 256, 0.9, 5e-4),
)


@dataclass(frozen=True)
class Config:
    """Settings of Algorithm 1: plain SGD as it is printed, and the momentum of the paper's public code.

    Attributes:
        data: name of the data set.
        protocol: whose network.
        sizes: samples per class.
        settings: (name, learning rate, batch size, momentum, weight decay).
        epochs: passes over every subset (the paper does not say; its public code has 30 for MNIST).
        seeds: of the initial weights and the split.
    """

    data: str = "mnist"
    protocol: Protocol = TEXT
    sizes: tuple[int, ...] = (4096, 1024, 256, 64, 16, 4, 1)
    settings: tuple[tuple[str, float, int, float, float], ...] = SETTINGS
    epochs: int = 30
    seeds: tuple[int, ...] = (0,)


# "smoke" (digits), "class" (MNIST, 256 a class), "paper" (MNIST, 4096 a class) or "cifar10".
# On CIFAR-10 the smallest sizes are left out: 4,096 networks of ResNet-18 take hours on a GPU too.
PRESETS = {
    "smoke": Config(data="digits", sizes=(16, 4, 1), settings=SETTINGS[:1], epochs=5),
    "class": Config(sizes=(256, 64, 16, 4, 1)),
    "paper": Config(),
    "cifar10": Config(
        data="cifar10", protocol=CODE, sizes=(4096, 1024, 256), settings=(("Table 6", 0.1, 128, 0.9, 0.0005),), epochs=10
    ),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Correlate the difficulties of all pairs of sizes; a row for each seed, setting, measure and pair."""
    data = load(config.data)
    x, y = on_device(data)

    def one_seed(seed: int, name: str, lr: float, batch_size: int, momentum: float, weight_decay: float) -> list[dict]:
        universe, visits = visits_by_size(
            initial(x, seed, config.protocol),
            x,
            y,
            config.sizes,
            epochs=config.epochs,
            lr=lr,
            batch_size=batch_size,
            momentum=momentum,
            weight_decay=weight_decay,
            seed=seed,
            progress=progress,
        )
        rows = []
        for measure in MEASURES:
            found = {size: difficulty_of(z, y.cpu()[universe.cpu()], measure) for size, z in visits.items()}
            rho, sizes = difficulty_correlation(found).tolist(), list(found)
            rows += [
                {"setting": name, "measure": measure, "from": a, "to": b, "rho": rho[i][j]}
                for i, a in enumerate(sizes)
                for j, b in enumerate(sizes)
                if i <= j
            ]
        return rows

    how = {"device": device(), "parts": config.settings, "folder": folder, "progress": progress}
    return over_seeds("learning_difficulty", preset, config, data, one_seed, **how)


def quoted(result: Result) -> list[Quoted]:
    """Set Tables 4 to 6 beside the run, all entries of the sizes at hand."""
    found = []
    rows = result.frame(measure="loss")
    for (setting, a, b), some in rows[rows["to"] < rows["from"]].groupby(["setting", "from", "to"], sort=False):
        found.append(Quoted.of(setting, f"rho of {a} with {b} a class", printed(setting.split(",")[0], a, b), some.rho))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("setting", "measure", "from", "to", "rho"),
}

# Of the preset "cifar10", a seed on an H100; reckoned from operations, not measured.
EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, seconds_on_a_gpu=330)
