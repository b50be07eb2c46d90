"""Fig 18 of the lpNTK paper once more: does the rate decide who wins? Its code's rate, a tenth of it, and its text's."""

from dataclasses import dataclass, replace

from torch import Tensor

from ...training.sgd import device
from ..experiment import Experiment
from ..protocols import CODE
from ..results import Quoted, Result, over_seeds
from . import small_samples
from ._common import TEN, both_splits, fit, kernel_network, on_device
from .small_samples import draws, pools_of


@dataclass(frozen=True)
class Config(small_samples.Config):
    """Settings of :mod:`small_samples`, and rates.

    Attributes:
        data: name of the data set.
        protocol: whose network.
        limit: training samples, or None for all.
        recipe: of the kernel's network.
        validation: samples held out to choose its epoch by.
        share: clusters as a share of a class.
        fractions: of the data that are kept.
        training: on what is kept, but for the rate.
        seeds: of the draws and the networks trained on them.
        clusterings: networks whose kernels cluster the classes; seed s draws from the clusters of network s modulo their number.
        tested: test samples that every epoch is scored on, the first ones, or None for all.
        rates: learning rates; the paper's code has 0.1, and its text 0.001 for other experiments on MNIST.
        kinds: the draws to compare; the paper's two.
        failed: test accuracy below which a run counts as failed.
    """

    clusterings: int = 1
    tested: int | None = None
    rates: tuple[float, ...] = (0.001, 0.01, 0.1)
    kinds: tuple[str, ...] = ("head", "random, unbalanced")
    failed: float = 0.5


PRESETS = {name: Config(**vars(settings)) for name, settings in small_samples.PRESETS.items()}
PRESETS["code"] = Config(
    protocol=CODE,
    recipe=TEN,
    validation=5000,
    clusterings=2,
    tested=1000,
    kinds=("head", "random"),
)


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Train on small sets drawn in several ways at every rate; a row for each seed, fraction, draw and rate, with test accuracy by epoch."""
    data, test = both_splits(config.data, config.limit)
    (x, y), (x_test, y_test) = on_device(data), on_device(test)
    held_out = x_test[: config.tested], y_test[: config.tested]
    pools: dict[int, dict[str, list[Tensor]]] = {}

    def one_seed(seed: int, rate: float, fraction: float) -> list[dict]:
        which = seed % config.clusterings
        if which not in pools:
            network = kernel_network(x, y, config.recipe, which, config.protocol, config.validation, folder)[0]
            pools[which] = pools_of(network, x, y, config.share)
        rows, recipe = [], replace(config.training, lr=rate)
        found = draws(pools[which], x, fraction, seed)
        for kind in config.kinds:
            part = x[found[kind]], y[found[kind]]
            curve = fit(*part, recipe, seed, config.protocol, validation=held_out)[1].validation.tolist()
            head = {"fraction": fraction, "draw": kind, "lr": rate, "clustering": which}
            rows.append(head | {"accuracy": curve[-1], "best": max(curve), "curve": curve})
        return rows

    parts = [(rate, fraction) for fraction in config.fractions for rate in config.rates]
    how = {"device": device(), "parts": parts, "folder": folder, "progress": progress}
    return over_seeds("small_samples_rates", preset, config, data, one_seed, **how)


def summary(result: Result) -> list[dict]:
    """Give, for every fraction, rate and draw, the runs, how many failed, and mean and median test accuracy in per cent."""
    lines = []
    for (fraction, rate, kind), ends in result.frame().groupby(["fraction", "lr", "draw"], sort=False).accuracy:
        failed = int((ends < result.provenance["config"]["failed"]).sum())
        head = {"kept": f"{fraction:.0%}", "rate": rate, "draw": kind, "runs": len(ends), "failed": failed}
        lines.append(head | {"mean": (100 * ends).mean(), "median": (100 * ends).median()})
    return sorted(lines, key=lambda line: (line["kept"], line["rate"], line["draw"]))


def quoted(result: Result) -> list[Quoted]:
    """Set Fig 18 beside the run: mean and median test accuracies in per cent, and the share of failed runs."""
    found = []
    for line in summary(result):
        words = f"{line['kept']} kept, {line['draw']}, rate {line['rate']}"
        found.append(
            Quoted.of("Fig. 18", f"per cent of {line['runs']} runs failed, {words}", None, [100 * line["failed"] / line["runs"]])
        )
        found += [Quoted.of("Fig. 18", f"{key} accuracy of all runs, {words}", None, [line[key]]) for key in ("mean", "median")]
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("fraction", "draw", "lr", "clustering", "accuracy", "best", "curve"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
