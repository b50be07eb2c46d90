"""Fig 18 once more, as the paper words it: head clusters of what is left when redundant samples are gone."""

from dataclasses import dataclass

from ...training.sgd import device
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from . import small_samples
from ._common import both_splits, kernel_network, on_device
from .redundancy import partners
from .small_samples import pools_of, trained_on


@dataclass(frozen=True)
class Config(small_samples.Config):
    """Settings of :mod:`small_samples`, whose run this one is to be compared with.

    Attributes:
        data: name of the data set.
        protocol: whose network, and with which samples a sample is compared.
        limit: training samples, or None for all.
        recipe: of the kernel's network.
        validation: samples held out to choose its epoch by.
        share: clusters as a share of what is left of a class.
        fractions: of all the data that are kept.
        training: on what is kept.
        seeds: of the draws and the networks trained on them.
    """


PRESETS = {name: Config(**vars(settings)) for name, settings in small_samples.PRESETS.items()}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Remove what is redundant under lpNTK, cluster the rest, and train on draws of it; rows as in small_samples.

    "random" draws from each class's samples that are left, "random, unbalanced" from all samples, redundant ones too. A
    pool smaller than its share is taken whole; ``samples`` says so.
    """
    data, test = both_splits(config.data, config.limit)
    (x, y), held_out = on_device(data), on_device(test)
    model, _ = kernel_network(x, y, config.recipe, 0, config.protocol, config.validation, folder)
    found = partners(model, x, y, "lpNTK", False)[config.protocol.compared]
    left = (found.value <= found.own).nonzero()[:, 0]
    pools = {name: [left[p] for p in parts] for name, parts in pools_of(model, x[left], y[left], config.share).items()}

    def one_seed(seed: int) -> list[dict]:
        return [{"left": len(left)} | row for row in trained_on(pools, x, y, held_out, config, seed)]

    how = {"device": device(), "folder": folder, "progress": progress}
    return over_seeds("small_samples_left", preset, config, data, one_seed, **how)


def quoted(result: Result) -> list[Quoted]:
    """Set Fig 18 beside the run: median test accuracies in per cent, by what is kept and how it was drawn."""
    share = 100 * result.rows[0]["left"] / result.provenance["data"]["samples"]
    found = [Quoted.of("Fig. 18", "per cent of the samples left", None, [share])]
    for (fraction, draw), ends in result.frame().groupby(["fraction", "draw"], sort=False).accuracy:
        words = f"median accuracy, {fraction:.0%} kept, {draw}, of what is left"
        found.append(Quoted.of("Fig. 18", words, None, [(100 * ends).median()]))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("left", "fraction", "draw", "samples", "accuracy", "curve"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
