"""Fig 15 of the lpNTK paper: how long-tailed the farthest point clusters of each class are."""

from dataclasses import dataclass, replace

from ...data.datasets import load
from ...training.sgd import device
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import PaperRecipe, clusters_of_class, fit, on_device


@dataclass(frozen=True)
class Config:
    """Settings of Fig 15.

    Attributes:
        data: name of the data set.
        limit: training samples, or None for all.
        recipe: how the network is trained before its kernel is taken.
        share: clusters as a share of the class.
        seeds: of the network.
    """

    data: str = "mnist"
    limit: int | None = None
    recipe: PaperRecipe = PaperRecipe()
    share: float = 0.1
    seeds: tuple[int, ...] = (0, 1, 2)


# "smoke", "class" (digits) or "paper" (MNIST).
PRESETS = {
    "smoke": Config(data="digits", limit=400, recipe=PaperRecipe(epochs=2, lr=0.05), seeds=(0,)),
    "class": Config(data="digits", limit=None, recipe=PaperRecipe(epochs=20, lr=0.05)),
    "paper": Config(seeds=(0,)),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Cluster every class before and after training; one row for each seed, state and class."""
    data = load(config.data, limit=config.limit)
    x, y = on_device(data)

    def one_seed(seed: int) -> list[dict]:
        rows = []
        for state, epochs in (("untrained", 0), ("trained", config.recipe.epochs)):
            model, history = fit(x, y, replace(config.recipe, epochs=epochs), seed)
            for label in range(data.num_classes):
                where, _, clusters = clusters_of_class(model, x, y, label, config.share)
                sizes = clusters.sizes.sort(descending=True).values
                rows.append(
                    {
                        "state": state,
                        "accuracy": history.accuracy[-1].item() if history else None,
                        "class": label,
                        "samples": len(where),
                        "clusters": len(sizes),
                        "head_share": sizes[0].item() / len(where),
                        "more_than_one": int((sizes > 1).sum()),
                        "top_30": sizes[:30].tolist(),
                    }
                )
        return rows

    return over_seeds("cluster_sizes", preset, config, data, one_seed, device=device(), folder=folder, progress=progress)


def quoted(result: Result) -> list[Quoted]:
    """Set Fig 15 beside the run: class 0 there, and the range over all classes."""
    rows = result.frame(state="trained")
    zero, heads = rows[rows["class"] == 0], rows.head_share
    return [
        Quoted.of("Fig. 15", "head cluster's share of class 0", None, zero.head_share),
        Quoted.of("Fig. 15", "head cluster's share, smallest of ten classes", None, [heads.min()]),
        Quoted.of("Fig. 15", "head cluster's share, largest of ten classes", None, [heads.max()]),
        Quoted.of("Fig. 15", "clusters of more than one sample, class 0 (paper: 5 to 20)", None, zero.more_than_one),
    ]


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("state", "accuracy", "class", "samples", "clusters", "head_share", "more_than_one", "top_30"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
