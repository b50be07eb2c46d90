"""Fig 18 of the lpNTK paper: when only 1 % or 5 % can be kept, at random or from the head clusters."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...training.sgd import device
from ..experiment import Experiment
from ..protocols import TEXT, Protocol
from ..results import Quoted, Result, over_seeds
from ._common import PaperRecipe, both_splits, clusters_of_class, fit, kernel_network, on_device


@dataclass(frozen=True)
class Config:
    """Settings of Fig 18.

    Attributes:
        data: name of the data set.
        protocol: whose network.
        limit: training samples, or None for all.
        recipe: of the kernel's network.
        validation: samples held out to choose its epoch by.
        share: clusters as a share of a class.
        fractions: of the data that are kept.
        training: on what is kept.
        seeds: of the draws and the networks trained on them.
    """

    data: str = "mnist"
    protocol: Protocol = TEXT
    limit: int | None = None
    recipe: PaperRecipe = PaperRecipe(epochs=6)
    validation: int = 0
    share: float = 0.1
    fractions: tuple[float, ...] = (0.01, 0.05)
    training: PaperRecipe = PaperRecipe()
    seeds: tuple[int, ...] = tuple(range(10))


# "smoke", "class" (digits, larger fractions) or "paper" (MNIST, ten runs).
PRESETS = {
    "smoke": Config(
        data="digits",
        limit=600,
        recipe=PaperRecipe(epochs=3, lr=0.05),
        fractions=(0.1,),
        training=PaperRecipe(epochs=5, lr=0.05),
        seeds=(0,),
    ),
    "class": Config(
        data="digits",
        limit=None,
        recipe=PaperRecipe(epochs=20, lr=0.05),
        fractions=(0.05, 0.2),
        training=PaperRecipe(epochs=30, lr=0.05),
    ),
    "paper": Config(),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Train on small sets drawn in four ways; a row for each seed, fraction and draw, with test accuracy by epoch.

    "head" draws each class's share from its head cluster, "tail" from all its other clusters, "random" from the whole
    class; so all three are balanced alike, and "random, unbalanced" draws from all samples as the paper does.
    """
    data, test = both_splits(config.data, config.limit)
    (x, y), held_out = on_device(data), on_device(test)
    model, _ = kernel_network(x, y, config.recipe, 0, config.protocol, config.validation, folder)
    pools = pools_of(model, x, y, config.share)
    return over_seeds(
        "small_samples",
        preset,
        config,
        data,
        lambda seed: trained_on(pools, x, y, held_out, config, seed),
        device=device(),
        folder=folder,
        progress=progress,
    )


def pools_of(model: nn.Module, x: Tensor, y: Tensor, share: float) -> dict[str, list[Tensor]]:
    """Cluster every class, and list its samples by place: in the head cluster, in the tail, or anywhere."""
    pools: dict[str, list[Tensor]] = {"head": [], "tail": [], "random": []}
    for label in y.unique().tolist():
        where, _, clusters = clusters_of_class(model, x, y, label, share)
        head = clusters.assignment == clusters.head
        for name, pool in (("head", where[head]), ("tail", where[~head]), ("random", where)):
            pools[name].append(pool)
    return pools


def draws(pools: dict[str, list[Tensor]], x: Tensor, fraction: float, seed: int) -> dict[str, Tensor]:
    """Draw a fraction of all samples from each pool, the same number of every class, and once from all samples."""
    generator = torch.Generator().manual_seed(seed)
    size = max(1, round(fraction * len(x) / len(pools["random"])))
    found = {
        name: torch.cat([p[torch.randperm(len(p), generator=generator).to(p.device)[:size]] for p in parts])
        for name, parts in pools.items()
    }
    total = size * len(pools["random"])
    return found | {"random, unbalanced": torch.randperm(len(x), generator=generator)[:total].to(x.device)}


def trained_on(pools: dict[str, list[Tensor]], x: Tensor, y: Tensor, held_out, config: Config, seed: int) -> list[dict]:
    """Draw each fraction from each pool, and from all samples, and train."""
    rows = []
    for fraction in config.fractions:
        for name, chosen in draws(pools, x, fraction, seed).items():
            _, history = fit(x[chosen], y[chosen], config.training, seed, config.protocol, validation=held_out)
            curve = history.validation.tolist()
            rows.append({"fraction": fraction, "draw": name, "samples": len(chosen), "accuracy": curve[-1], "curve": curve})
    return rows


def quoted(result: Result) -> list[Quoted]:
    """Set Fig 18 beside the run: median test accuracies in per cent, by what is kept and how it was drawn."""
    found = []
    for (fraction, draw), ends in result.frame().groupby(["fraction", "draw"], sort=False).accuracy:
        words = f"median accuracy, {fraction:.0%} kept, {draw}"
        found.append(Quoted.of("Fig. 18", words, None, [(100 * ends).median()]))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("fraction", "draw", "samples", "accuracy", "curve"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
