"""Tables 4 to 6 of the lpNTK paper once more: which optimizer, initial weights and network give which entries?"""

from dataclasses import dataclass, replace

import torch

from ...analysis.difficulty import MEASURES, difficulty_correlation, visits_by_size
from ...analysis.difficulty import learning_difficulty as difficulty_of
from ...data.datasets import load
from ...training.recipe import Recipe
from ...training.sgd import device, step_decay
from ..experiment import Experiment
from ..protocols import CODE, CODE_NARROW, TEXT, Protocol
from ..results import Quoted, Result, over_seeds
from ._common import initial, on_device

SIZES = (4096, 1024, 256, 64, 16, 4, 1)
# The tables whole, as the paper prints them: row X, then the columns from X on.
PAPER = {
    "Table 4": (
        (1.0, 0.8512, 0.7282, 0.5753, 0.3865, 0.2330, 0.062),
        (1.0, 0.8206, 0.6775, 0.4731, 0.2888, 0.0658),
        (1.0, 0.7856, 0.5853, 0.3687, 0.0858),
        (1.0, 0.7169, 0.4871, 0.1566),
        (1.0, 0.6379, 0.2303),
        (1.0, 0.3720),
    ),
    "Table 5": (
        (1.0, 0.9096, 0.7376, 0.4065, 0.2141, 0.0695, 0.0307),
        (1.0, 0.8830, 0.5128, 0.2707, 0.0858, 0.0498),
        (1.0, 0.6782, 0.3486, 0.0971, 0.0605),
        (1.0, 0.5898, 0.1774, 0.1598),
        (1.0, 0.6601, 0.6023),
        (1.0, 0.8414),
    ),
    "Table 6": (
        (1.0, 0.8433, 0.5772, 0.2805, 0.1840, 0.0628, 0.0131),
        (1.0, 0.7377, 0.4142, 0.2595, 0.0950, 0.0254),
        (1.0, 0.5409, 0.3979, 0.1352, 0.0345),
        (1.0, 0.4082, 0.1493, 0.0427),
        (1.0, 0.1844, 0.0673),
        (1.0, 0.0912),
    ),
}


def printed(table: str, one: int, other: int) -> float | None:
    """Return the paper's correlation between two sizes, or None where its table has none.

    Example:
        >>> printed("Table 5", 4, 1)
        0.8414
    """
    if table not in PAPER or one not in SIZES or other not in SIZES:
        return None
    i, j = sorted((SIZES.index(one), SIZES.index(other)))
    return 1.0 if i == j else PAPER[table][i][j - i]


@dataclass(frozen=True)
class Setting:
    """One way to train the networks of Algorithm 1.

    Attributes:
        table: whose rate and batches these are.
        optimizer: "sgd" or "adam".
        lr: learning rate.
        batch_size: samples a step.
        momentum: heavy ball.
        weight_decay: on all weights.
        decay: factor on the rate every second epoch.
        own: each network starts from weights of its own, as in the public code; else all from the same, as in Algorithm 1.
    """

    table: str
    optimizer: str
    lr: float
    batch_size: int
    momentum: float = 0.0
    weight_decay: float = 0.0
    decay: float = 1.0
    own: bool = False

    def __str__(self) -> str:
        """Say it in words, as rows name it."""
        how = self.optimizer.upper() if self.optimizer == "sgd" else self.optimizer.capitalize()
        words = [f"{self.table}: {how}, rate {self.lr:g}"]
        words += [f"momentum {self.momentum:g}"] * bool(self.momentum) + ["decay"] * (self.decay != 1)
        return ", ".join([*words, "own weights" if self.own else "common weights"])


def _both(setting: Setting) -> tuple[Setting, Setting]:
    return setting, replace(setting, own=True)


_PLAIN = Setting("Table 4", "sgd", 0.1, 128)
_RECIPE = Setting("Table 4", "sgd", 0.1, 128, 0.9, 5e-4, 0.7)
_ADAM = Setting("Table 5", "adam", 0.001, 256)
_SLOW = replace(_RECIPE, table="Table 5", lr=0.001, batch_size=256)
GRID = (_PLAIN, *_both(_RECIPE), *_both(_SLOW), *_both(_ADAM))


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        data: name of the data set.
        protocol: whose network; a difficulty is added up at the visits of training, so under dropout where it has any.
        sizes: samples per class.
        settings: how the networks are trained.
        epochs: passes over every subset.
        seeds: of the initial weights and the split.
    """

    data: str = "mnist"
    protocol: Protocol = TEXT
    sizes: tuple[int, ...] = (64, 16, 4, 1)
    settings: tuple[Setting, ...] = GRID
    epochs: int = 30
    seeds: tuple[int, ...] = (0, 1, 2)


# "smoke" (digits), "class" (MNIST, 64 a class), "paper" (MNIST, 4096 a class, Adam), "code" (MNIST, 64 a class, the public code's
# network) or "narrow" (CIFAR-10, 64 a class; without BatchNorm a loss overflows at the code's rate of 0.1, so it is 0.01).
PRESETS = {
    "smoke": Config(data="digits", protocol=CODE, sizes=(16, 4, 1), settings=GRID[1:3], epochs=5, seeds=(0,)),
    "class": Config(),
    "paper": Config(sizes=SIZES, settings=(_ADAM,), seeds=(0,)),
    "code": Config(protocol=CODE),
    "narrow": Config(
        data="cifar10", protocol=CODE_NARROW, settings=_both(replace(_RECIPE, table="Table 6", lr=0.01, decay=1.0)), seeds=(0,)
    ),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Correlate the difficulties of all pairs of sizes; a row for each seed, setting, measure and pair.

    ``right_at_the_end`` is the share of samples that the networks of size ``to`` have right at their last visit, and
    ``rho_initial`` the correlation of the difficulty at that size with the loss of the common initial network.
    """
    data = load(config.data)
    x, y = on_device(data)
    settings = {str(setting): setting for setting in config.settings}

    def one_seed(seed: int, name: str) -> list[dict]:
        setting = settings[name]
        start = initial(x, seed, config.protocol)
        recipe = Recipe(
            lr=setting.lr, epochs=config.epochs, batch_size=setting.batch_size, momentum=setting.momentum,
            weight_decay=setting.weight_decay, optimizer=setting.optimizer, schedule=step_decay(setting.decay, 2),
        )  # fmt: skip
        models = (lambda m: initial(x, 10_000 * seed + m, config.protocol)) if setting.own else start
        universe, visits = visits_by_size(
            models, x, y, config.sizes, recipe=recipe, batch_size=setting.batch_size, seed=seed, progress=progress
        )
        labels = y.cpu()[universe.cpu()]
        with torch.no_grad():
            logits = torch.cat([start(part) for part in x[universe].split(1024)]).cpu()
        rows = []
        for measure in MEASURES:
            found = {size: difficulty_of(z, labels, measure) for size, z in visits.items()}
            first = difficulty_of(logits[None], labels, measure)
            rho, sizes = difficulty_correlation(found).tolist(), list(found)
            for i, a in enumerate(sizes):
                for j, b in enumerate(sizes[i:], i):
                    right = (visits[b][-1].argmax(-1) == labels).double().mean().item()
                    row = {"setting": name, "table": setting.table, "measure": measure, "from": a, "to": b, "rho": rho[i][j]}
                    alone = torch.corrcoef(torch.stack([first.double(), found[b].double()]))[0, 1].item()
                    rows.append(row | {"right_at_the_end": right, "rho_initial": alone})
        return rows

    how = {"device": device(), "parts": [(name,) for name in settings], "folder": folder, "progress": progress}
    return over_seeds("difficulty_training", preset, config, data, one_seed, **how)


def entries(result: Result, measure: str = "loss") -> list[dict]:
    """Average over the seeds: a row for each setting and pair of different sizes, with the paper's entry and the distance from it."""
    rows = result.frame(measure=measure)
    found = []
    for (setting, table, a, b), some in rows[rows["to"] < rows["from"]].groupby(["setting", "table", "from", "to"], sort=False):
        paper = printed(table, a, b)
        found.append(
            {
                "setting": setting,
                "from": a,
                "to": b,
                "paper": paper,
                "rho": some.rho.mean(),
                "right": some.right_at_the_end.mean(),
            }
        )
    return found  # fmt: skip


def quoted(result: Result) -> list[Quoted]:
    """Set every entry of Tables 4 to 6 that these sizes have beside the run, by the code's distance and by the loss."""
    found = []
    for measure in MEASURES:
        rows = result.frame(measure=measure)
        for (setting, table, a, b), some in rows[rows["to"] < rows["from"]].groupby(
            ["setting", "table", "from", "to"], sort=False
        ):
            words = f"rho of {a} with {b} a class, by the {measure}, {setting.split(': ')[1]}"
            found.append(Quoted.of(f"{table}, other training", words, printed(table, a, b), some.rho))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("setting", "table", "measure", "from", "to", "rho", "right_at_the_end", "rho_initial"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
