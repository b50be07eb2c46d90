"""The control for LANTK-HR on all ten classes at once: powers of the kernel, which know no labels."""

from dataclasses import dataclass

from ..experiment import Experiment
from ..results import Quoted, Result
from . import label_free
from .label_products_classes import TEN


@dataclass(frozen=True)
class Config(label_free.Config):
    """Settings of :mod:`label_free`, with the samples of :mod:`label_products_classes`.

    Attributes:
        data: name of the data set.
        pairs: one list of ten classes.
        points: training samples.
        test: test samples at most.
        weights: lambda, in units of mean |K| / mean |Z|.
        powers: of the kernel, entry by entry, in the place of Z.
        depth: hidden layers of the deeper NTK.
        seeds: which samples are drawn.
    """

    pairs: tuple[tuple[int, ...], ...] = TEN


# "smoke" (digits), "class" (MNIST) or "paper" (CIFAR-10, 4,000 images).
PRESETS = {
    "smoke": Config(data="digits", pairs=TEN, points=60, test=40, seeds=(0,)),
    "class": Config(),
    "paper": Config(data="cifar10", pairs=TEN, points=4000),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Regress with each kernel; rows as in :mod:`label_free`."""
    return label_free.run(config, preset, progress, folder, name="label_free_classes")


def quoted(result: Result) -> list[Quoted]:
    """Give gains in points of kernels bent without labels."""
    return label_free.quoted(result, "Multi-class")


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("pair", "added", "weight", "accuracy", "ridge"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
