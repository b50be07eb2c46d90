"""Fig 15 of the lpNTK paper: how long-tailed the farthest point clusters of each class are."""

from dataclasses import dataclass, replace

from ...analysis.interactions import Clusters, redundant
from ...data.datasets import load
from ...training.sgd import device
from ..experiment import Experiment
from ..protocols import CODE, TEXT, Protocol
from ..results import Quoted, Result, over_seeds
from ._common import TEN, PaperRecipe, clusters_of_class, kernel_network, on_device


@dataclass(frozen=True)
class Config:
    """Settings of Fig 15.

    Attributes:
        data: name of the data set.
        protocol: whose network, and which samples a sample is compared with where what is redundant is left out first.
        limit: training samples, or None for all.
        recipe: how the network is trained before its kernel is taken.
        validation: samples held out to choose its epoch by.
        share: clusters as a share of the class.
        seeds: of the network.
    """

    data: str = "mnist"
    protocol: Protocol = TEXT
    limit: int | None = None
    recipe: PaperRecipe = PaperRecipe()
    validation: int = 0
    share: float = 0.1
    seeds: tuple[int, ...] = (0, 1, 2)


# "smoke", "class" (digits), "paper" (MNIST) or "code" (MNIST, the public code's network).
PRESETS = {
    "smoke": Config(data="digits", limit=400, recipe=PaperRecipe(epochs=2, lr=0.05), seeds=(0,)),
    "class": Config(data="digits", limit=None, recipe=PaperRecipe(epochs=20, lr=0.05)),
    "paper": Config(),
    "code": Config(protocol=CODE, recipe=TEN, validation=5000, seeds=(0, 1)),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Cluster every class before and after training, and what is left of it without its redundant samples; a row for each.

    In the state "trained, not redundant" samples that are redundant within their class are left out before the clusters are made.
    """
    data = load(config.data, limit=config.limit)
    x, y = on_device(data)

    def one_seed(seed: int) -> list[dict]:
        rows = []
        for state, epochs in (("untrained", 0), ("trained", config.recipe.epochs)):
            recipe = replace(config.recipe, epochs=epochs)
            validation = config.validation if epochs else 0
            model, history = kernel_network(x, y, recipe, seed, config.protocol, validation, folder)
            accuracy = history.accuracy[-1].item() if history else None
            for label in range(data.num_classes):
                where, gram, clusters = clusters_of_class(model, x, y, label, config.share)
                rows.append({"state": state, "accuracy": accuracy, "class": label, **_sizes(clusters)})
                if history:
                    left = where[~redundant(gram, config.protocol.compared)]
                    clusters = clusters_of_class(model, x[left], y[left], label, config.share)[2]
                    rows.append({"state": "trained, not redundant", "accuracy": accuracy, "class": label, **_sizes(clusters)})
        return rows

    return over_seeds("cluster_sizes", preset, config, data, one_seed, device=device(), folder=folder, progress=progress)


def _sizes(clusters: Clusters) -> dict:
    sizes = clusters.sizes.sort(descending=True).values
    samples = int(sizes.sum())
    about = {"samples": samples, "clusters": len(sizes), "head_share": sizes[0].item() / samples}
    return about | {"more_than_one": int((sizes > 1).sum()), "top_30": sizes[:30].tolist()}


def quoted(result: Result) -> list[Quoted]:
    """Set Fig 15 beside the run: class 0 there, and the range over all classes, before and after redundant samples are left out."""
    found = []
    for state in ("trained", "trained, not redundant"):
        rows = result.frame(state=state)
        zero, heads = rows[rows["class"] == 0], rows.groupby("class").head_share.mean()
        words = "" if state == "trained" else ", redundant samples left out"
        found += [
            Quoted.of("Fig. 15", f"head cluster's share of class 0{words}", None, zero.head_share),
            Quoted.of("Fig. 15", f"head cluster's share, smallest of ten classes' means{words}", None, [heads.min()]),
            Quoted.of("Fig. 15", f"head cluster's share, largest of ten classes' means{words}", None, [heads.max()]),
            Quoted.of("Fig. 15", f"clusters of more than one sample, class 0 (paper: 5 to 20){words}", None, zero.more_than_one),
            Quoted.of(
                "Fig. 15", f"clusters of more than one sample, all classes (paper: 5 to 20){words}", None, rows.more_than_one
            ),
        ]
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("state", "accuracy", "class", "samples", "clusters", "head_share", "more_than_one", "top_30"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
