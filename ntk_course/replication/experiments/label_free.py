"""Controls for LANTK-HR: what a kernel gains from shuffled labels, from powers of itself, which know none, and from more layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...analysis.regression import kernel_ridge
from ...kernels.infinite import dense as infinite
from ...kernels.label_aware import label_products, with_label_part
from ...training.sgd import device
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import both_splits, some_classes
from .label_products import CIFAR_PAIRS, MNIST_PAIRS, corners


@dataclass(frozen=True)
class Config:
    """Settings as in label_products: float64, images scaled to one norm, the NTK of one hidden layer of ReLUs.

    Attributes:
        data: name of the data set.
        pairs: of classes, or longer lists of them.
        points: training samples of a pair.
        test: test samples of a pair at most.
        weights: lambda, in units of mean |K| / mean |Z|.
        powers: of the kernel, entry by entry, in the place of Z.
        depth: hidden layers of the deeper NTK.
        seeds: which samples are drawn.
    """

    data: str = "mnist"
    pairs: tuple[tuple[int, ...], ...] = MNIST_PAIRS
    points: int = 2000
    test: int = 2000
    weights: tuple[float, ...] = (0.1, 1.0)
    powers: tuple[int, ...] = (2, 3)
    depth: int = 3
    seeds: tuple[int, ...] = (0, 1, 2)


# "smoke" (digits), "class" (MNIST) or "paper" (CIFAR-10).
PRESETS = {
    "smoke": Config(data="digits", pairs=((3, 5),), points=40, test=20, seeds=(0, 1)),
    "class": Config(),
    "paper": Config(data="cifar10", pairs=CIFAR_PAIRS),
}


def controls(own: Tensor, other: Tensor, y: Tensor, powers: Sequence[int], seed: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (name, part of the training points, part of the test points) for what may stand in the place of HR's Z.

    Shuffled labels leave Z all that it has but the truth: the same numbers of each class, given to other samples.
    """
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)).to(y.device)]
    yield "HR 1, shuffled", *(label_products(own, shuffled, h, own=h is own) for h in (own, other))
    for p in powers:
        yield f"K^{p}", own**p, other**p


def run(config: Config, preset: str = "class", progress: bool = True, folder=None, name: str = "label_free") -> Result:
    """Regress with each kernel; a row for each seed, pair, addition and weight."""
    train, test = both_splits(config.data)

    def one_seed(seed: int, classes: tuple[int, ...]) -> list[dict]:
        x, y = (t.to(device()) for t in some_classes(train, classes, config.points, seed))
        x_test, y_test = (t.to(device()) for t in some_classes(test, classes, config.test))

        def ntk(depth: int) -> tuple[Tensor, Tensor]:
            return infinite.mlp(x, depth=depth, w_std=2**0.5).ntk, infinite.mlp(x_test, x, depth=depth, w_std=2**0.5).ntk

        def row(added: str, weight: float, own: Tensor, other: Tensor) -> dict:
            fit = kernel_ridge(own, corners(y, len(classes)), attempts=25)
            right = (fit.predict(other).argmax(1) == y_test).double().mean().item()
            return {"pair": list(classes), "added": added, "weight": weight, "accuracy": right, "ridge": fit.ridge}

        own, other = ntk(1)
        z, z_other = (label_products(own, y, h, own=h is own) for h in (own, other))
        rows = [row("none", 0.0, own, other), row(f"{config.depth} hidden layers instead", 0.0, *ntk(config.depth))]
        for added, part, part_other in [("HR 1", z, z_other), *controls(own, other, y, config.powers, seed)]:
            for weight in config.weights:
                scale = weight * float(own.abs().mean() / part.abs().mean())
                mixed = with_label_part(own, part, other, part_other, scale)
                rows.append(row(added, weight, mixed.train, mixed.cross))
        return rows

    parts = [(pair,) for pair in config.pairs]
    return over_seeds(name, preset, config, train, one_seed, device=device(), parts=parts, folder=folder, progress=progress)


def quoted(result: Result, item: str = "LANTK-HR") -> list[Quoted]:
    """Set the control beside LANTK-HR: gains in points of kernels bent without labels."""
    name = result.provenance["data"]["name"]
    plain = {(r["seed"], *r["pair"]): r["accuracy"] for r in result.rows if r["added"] == "none"}
    found = []
    for added in dict.fromkeys(r["added"] for r in result.rows if r["added"] != "none"):
        rows = [r for r in result.rows if r["added"] == added and r["weight"] in (0.0, 0.1)]
        gains = [100 * (r["accuracy"] - plain[r["seed"], *r["pair"]]) for r in rows]
        found.append(Quoted.of(item, f"gain of {added}, points, {name}, control", None, gains))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("pair", "added", "weight", "accuracy", "ridge"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
