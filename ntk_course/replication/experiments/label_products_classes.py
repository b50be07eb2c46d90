"""LANTK-HR on all ten classes at once: label products become products of a simplex's corners."""

from dataclasses import dataclass

from ..experiment import Experiment
from ..results import Quoted, Result
from . import label_products
from .label_products import gain, largest

TEN = (tuple(range(10)),)


@dataclass(frozen=True)
class Config(label_products.Config):
    """Settings of :mod:`label_products`.

    Attributes:
        data: name of the data set.
        pairs: one list of ten classes.
        sizes: training samples.
        test: test samples at most.
        depths: hidden layers; the first one's NTK is the kernel, NNGP and NTK of all are the features of the regression.
        weights: lambda, in units of mean |K| / mean |Z|; the paper has 0.1.
        accuracies: of the labels whose products stand for a Z of known quality.
        seeds: which samples are drawn, and those labels.
    """

    pairs: tuple[tuple[int, ...], ...] = TEN
    sizes: tuple[int | None, ...] = (2000,)


# "smoke" (digits), "class" (MNIST) or "paper" (CIFAR-10, 4,000 images).
PRESETS = {
    "smoke": Config(data="digits", pairs=TEN, sizes=(60,), test=40, depths=(1, 2), seeds=(0,)),
    "class": Config(),
    "paper": Config(data="cifar10", pairs=TEN, sizes=(4000,)),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Compare the kernel with and without label parts; rows as in :mod:`label_products`."""
    return label_products.run(config, preset, progress, folder, name="label_products_classes")


def quoted(result: Result) -> list[Quoted]:
    """Give the kernel's test accuracy in per cent, gains over it in points, and the rise of elasticity."""
    of = largest(result)
    return [
        of("Multi-class", "test accuracy of the kernel alone", "none", lambda r, _: 100 * r["accuracy"]),
        of("Multi-class", "gain of version 1, points", "HR 1", gain),
        of("Multi-class", "gain of version 2, points", "HR 2", gain),
        of("Multi-class", "gain by regression on pair features, points", "regression", gain),
        of("Multi-class", "gain by predictions left out, points", "predictions", gain),
        of("Multi-class", "gain with the true products, points", "signs 100% right", gain),
        of("Multi-class", "rise of elasticity on test samples", "HR 1", lambda r, p: r["elasticity_test"] - p["elasticity_test"]),
    ]


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": (
        "pair",
        "train",
        "estimate",
        "weight",
        "accuracy",
        "ridge",
        "elasticity",
        "elasticity_test",
        "correlation",
        "within",
        "between",
    ),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
