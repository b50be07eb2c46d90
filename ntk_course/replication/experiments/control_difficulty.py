"""Fig 2 of the lpNTK paper: a sample made easier or harder by the company it is trained in."""

from dataclasses import dataclass

import torch

from ...analysis.interactions import interchangeable
from ...data.datasets import load
from ...training.ensemble import train_ensemble
from ...training.sgd import device
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import PaperRecipe, ResNetRecipe, clusters_of_class, fit, initial, on_device

KINDS = ("most", "medium", "least")


@dataclass(frozen=True)
class Config:
    """Settings of Fig 2; ten added samples, 50 epochs and the rate 0.01 are the paper's public code's for MNIST.

    Attributes:
        data: name of the data set.
        limit: training samples, or None for all.
        recipe: how the network is trained whose kernel picks the company.
        share: clusters as a share of the class.
        added: samples of company for each class.
        training: how the small sets are trained on, at a constant rate.
        runs: initialisations for each seed; with ten seeds of ten runs, a hundred in all.
        seeds: of the network and the runs.
    """

    data: str = "mnist"
    limit: int | None = None
    recipe: PaperRecipe = PaperRecipe(epochs=6)
    share: float = 0.1
    added: int = 10
    training: PaperRecipe = PaperRecipe(epochs=50, lr=0.01, decay=1.0)
    runs: int = 10
    seeds: tuple[int, ...] = tuple(range(10))


# "smoke", "class" (digits), "paper" (MNIST, a hundred runs) or "cifar10" (twenty).
_DIGITS = PaperRecipe(epochs=20, lr=0.05)
PRESETS = {
    "smoke": Config(
        data="digits",
        limit=None,
        recipe=PaperRecipe(epochs=2, lr=0.05),
        added=3,
        training=PaperRecipe(epochs=5, lr=0.01, decay=1.0),
        runs=2,
        seeds=(0,),
    ),
    "class": Config(
        data="digits",
        limit=None,
        recipe=_DIGITS,
        added=5,
        training=PaperRecipe(epochs=50, lr=0.01, decay=1.0),
        seeds=tuple(range(4)),
    ),
    "paper": Config(),
    "cifar10": Config(data="cifar10", recipe=ResNetRecipe(), runs=10, seeds=(0, 1)),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Train on each class's head centroid and its company; a row for each seed, class and kind, with the loss curve.

    One kernel network, of seed 0, chooses centroids and company for all runs. ``difficulty`` is the centroid's summed
    loss over the epochs, run by run; ``curve`` its mean loss in each epoch.
    """
    data = load(config.data, limit=config.limit)
    x, y = on_device(data)
    model, _ = fit(x, y, config.recipe, 0)
    centroids, company = [], {kind: [] for kind in KINDS}
    for label in range(data.num_classes):
        where, rows, clusters = clusters_of_class(model, x, y, label, config.share)
        centroid = int(clusters.centroids[clusters.head])
        centroids.append(where[centroid].item())
        for kind in KINDS:
            company[kind] += where[interchangeable(rows[centroid], clusters, config.added, kind)].tolist()

    def one_seed(seed: int) -> list[dict]:
        models, found = [initial(x, 1000 * seed + r) for r in range(config.runs)], []
        for kind in KINDS:
            subset = torch.tensor(centroids + company[kind]).expand(config.runs, -1)
            ensemble = train_ensemble(models, x, y, subset, config.training.recipe(), seed=1000 * seed, progress=False)
            logits = ensemble.logits[:, :, : len(centroids)]
            losses = torch.nn.functional.cross_entropy(
                logits.flatten(0, 2), y.cpu()[centroids].repeat(logits.shape[0] * config.runs), reduction="none"
            ).view(logits.shape[:3])
            for label in range(len(centroids)):
                found.append(
                    {
                        "class": label,
                        "kind": kind,
                        "difficulty": losses[:, :, label].sum(0).tolist(),
                        "curve": losses[:, :, label].mean(1).tolist(),
                    }
                )
        return found

    return over_seeds("control_difficulty", preset, config, data, one_seed, device=device(), folder=folder, progress=progress)


def ordered(result: Result) -> list[dict]:
    """Average over all runs: one row for each class, with the three difficulties and whether most < medium < least."""
    runs = result.frame().explode("difficulty").astype({"difficulty": float})
    means = runs.pivot_table("difficulty", "class", "kind").reset_index()[["class", *KINDS]]
    means["ordered"] = (means.most < means.medium) & (means.medium < means.least)
    return means.to_dict("records")


def quoted(result: Result) -> list[Quoted]:
    """Set Fig 2 beside the run: in how many classes the order of the three companies is the paper's."""
    rows, item = ordered(result), "Fig. 2" + ", CIFAR-10" * (result.provenance["config"]["data"] == "cifar10")
    found = [Quoted.of(item, "classes with most < medium < least", 10.0, [float(sum(row["ordered"] for row in rows))])]
    for kind in KINDS:
        runs = result.frame(kind=kind).difficulty.explode()
        found.append(Quoted.of(item, f"difficulty with the {kind} interchangeable", None, runs))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("class", "kind", "difficulty", "curve"),
}

# Of the preset "cifar10", a seed on an H100; reckoned from operations, not measured.
EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, seconds_on_a_gpu=180)
