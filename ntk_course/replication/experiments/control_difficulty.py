"""Fig 2 of the lpNTK paper: a sample made easier or harder by the company it is trained in, and four controls."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...analysis.interactions import interchangeable
from ...data.datasets import load
from ...training.ensemble import train_ensemble
from ...training.sgd import device
from ..experiment import Experiment
from ..protocols import CODE, CODE_NARROW, TEXT, Protocol
from ..results import Quoted, Result, over_seeds
from ._common import TEN, PaperRecipe, ResNetRecipe, clusters_of_class, initial, kernel_network, on_device

# The paper's three sets, and what they are to be compared with: others of the class at random, the nearest in pixels, nobody.
# Alone a centroid has more of the mean loss for itself than in company; LIGHT is alone with the weight that it has in company.
KINDS = ("most", "medium", "least")
LIGHT = "alone, same weight"
CONTROLS = ("random", "pixels", "alone", LIGHT)


@dataclass(frozen=True)
class Config:
    """Settings of Fig 2; ten added samples, 50 epochs and the rate 0.01 are the paper's public code's for MNIST.

    Attributes:
        data: name of the data set.
        protocol: whose network.
        limit: training samples, or None for all.
        recipe: how the network is trained whose kernel picks the company.
        validation: samples held out to choose its epoch by.
        share: clusters as a share of the class.
        added: samples of company for each class.
        training: how the small sets are trained on, at a constant rate.
        runs: initialisations for each seed; with ten seeds of ten runs, a hundred in all.
        seeds: of the runs.
    """

    data: str = "mnist"
    protocol: Protocol = TEXT
    limit: int | None = None
    recipe: PaperRecipe = PaperRecipe(epochs=6)
    validation: int = 0
    share: float = 0.1
    added: int = 10
    training: PaperRecipe = PaperRecipe(epochs=50, lr=0.01, decay=1.0)
    runs: int = 10
    seeds: tuple[int, ...] = tuple(range(10))


# "smoke", "class" (digits), "paper" (MNIST, a hundred runs), "code" (MNIST, the public code's network), "narrow" (CIFAR-10) or
# "cifar10" (twenty runs).
_DIGITS = PaperRecipe(epochs=20, lr=0.05)
_SMALL = PaperRecipe(epochs=50, lr=0.01, decay=1.0)
PRESETS = {
    "smoke": Config(
        data="digits",
        protocol=CODE,
        recipe=PaperRecipe(epochs=2, lr=0.05),
        added=3,
        training=PaperRecipe(epochs=5, lr=0.01, decay=1.0),
        runs=2,
        seeds=(0,),
    ),
    "class": Config(data="digits", recipe=_DIGITS, added=5, training=_SMALL, seeds=tuple(range(4))),
    "paper": Config(),
    "code": Config(protocol=CODE, recipe=TEN, validation=5000, runs=4),
    "narrow": Config(
        data="cifar10", protocol=CODE_NARROW, limit=5_000, recipe=replace(ResNetRecipe(), epochs=15), validation=500, runs=2
    ),
    "cifar10": Config(data="cifar10", protocol=CODE, recipe=ResNetRecipe(), added=50, runs=10, seeds=(0, 1)),
}


def chosen(x: Tensor, y: Tensor, config: Config, folder=None) -> tuple[Tensor, dict[str, Tensor]]:
    """Choose each class's head centroid (K,) and its company of every kind, (K * added,), by one kernel network, of seed 0."""
    model, _ = kernel_network(x, y, config.recipe, 0, config.protocol, config.validation, folder)
    centroids, company = [], {kind: [] for kind in (*KINDS, *CONTROLS[:2])}
    for label in y.unique().tolist():
        where, rows, clusters = clusters_of_class(model, x, y, label, config.share)
        centroid = int(clusters.centroids[clusters.head])
        centroids.append(where[centroid])
        for kind in KINDS:
            company[kind].append(where[interchangeable(rows[centroid], clusters, config.added, kind)])
        others = torch.cat([where[:centroid], where[centroid + 1 :]])
        order = torch.randperm(len(others), generator=torch.Generator().manual_seed(label)).to(others.device)
        company["random"].append(others[order[: config.added]])
        far = (x[others] - x[where[centroid]]).flatten(1).norm(dim=1)
        company["pixels"].append(others[far.argsort(stable=True)[: config.added]])
    return torch.stack(centroids), {kind: torch.cat(parts) for kind, parts in company.items()}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Train on each class's head centroid and its company; a row for each seed, class and kind, with the loss curve.

    ``difficulty`` is the centroid's loss summed over the epochs, run by run, each taken at the visit, before its step, and in train
    mode; ``in_eval_mode`` is the same with dropout off. ``curve`` is the mean loss at the visits of each epoch. All sets are one
    batch, so that every network makes one step an epoch. Alone, a centroid has a tenth of the mean loss for itself, in company of
    ten a hundred-and-tenth; in "alone, same weight" it has that too, by a lower rate and as much more weight decay.
    """
    data = load(config.data, limit=config.limit)
    x, y = on_device(data)
    centroids, company = chosen(x, y, config, folder)
    company["alone"] = company[LIGHT] = centroids[:0]

    def one_seed(seed: int) -> list[dict]:
        models, found = [initial(x, 1000 * seed + r, config.protocol) for r in range(config.runs)], []
        for kind in (*KINDS, *CONTROLS):
            subset = torch.cat([centroids, company[kind]]).expand(config.runs, -1)
            recipe = replace(config.training.recipe(), augment=None, autocast=None)
            if kind == LIGHT:  # the same steps as those of a loss divided by so much
                share = 1 + config.added
                recipe = replace(recipe, lr=recipe.lr / share, weight_decay=recipe.weight_decay * share)
            ensemble = train_ensemble(models, x, y, subset, recipe, watch=centroids, seed=1000 * seed, progress=False)
            visits, watched = (
                _losses(ensemble.logits[:, :, : len(centroids)], y[centroids]),
                _losses(ensemble.watched, y[centroids]),
            )
            for label in range(len(centroids)):
                found.append(
                    {
                        "class": label,
                        "kind": kind,
                        "difficulty": visits[:, :, label].sum(0).tolist(),
                        "in_eval_mode": watched[:, :, label].sum(0).tolist(),
                        "curve": visits[:, :, label].mean(1).tolist(),
                    }
                )
        return found

    return over_seeds("control_difficulty", preset, config, data, one_seed, device=device(), folder=folder, progress=progress)


def _losses(logits: Tensor, y: Tensor) -> Tensor:
    """Return the losses (E, M, n) of logits (E, M, n, K)."""
    labels = y.cpu().expand(logits.shape[:-1])
    return cross_entropy(logits.flatten(0, 2), labels.flatten(), reduction="none").view(logits.shape[:3])


def ordered(result: Result, key: str = "difficulty") -> list[dict]:
    """Average over all runs: one row for each class, with the difficulty in each company and whether most < medium < least."""
    runs = result.frame().explode(key).astype({key: float})
    means = runs.pivot_table(key, "class", "kind").reset_index()[["class", *KINDS, *CONTROLS]]
    means["ordered"] = (means.most < means.medium) & (means.medium < means.least)
    return means.to_dict("records")


def quoted(result: Result) -> list[Quoted]:
    """Set Fig 2 beside the run: in how many classes the order is the paper's, as it is and with two sets exchanged."""
    config = result.provenance["config"]
    rows, item = ordered(result), "Fig. 2" + ", CIFAR-10" * (config["data"] == "cifar10")
    found = [Quoted.of(item, "classes with most < medium < least", 10.0, [float(sum(row["ordered"] for row in rows))])]
    if config["protocol"]["exchanged"]:
        turned = sum(row["most"] < row["least"] < row["medium"] for row in rows)
        words = "classes with most < least < medium, which the code's exchange of two sets would draw as the figure's order"
        found.append(Quoted.of(item, words, None, [float(turned)]))
    for kind in (*KINDS, *CONTROLS):
        for key, words in (("difficulty", "at its visits"), ("in_eval_mode", "in eval mode")):
            if key == "difficulty" or config["protocol"]["follows"] == "code":
                runs = result.frame(kind=kind)[key].explode()
                found.append(Quoted.of(item, f"difficulty of the centroid {words}, company: {kind}", None, runs))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("class", "kind", "difficulty", "in_eval_mode", "curve"),
}

# Of the preset "cifar10", a seed on an H100; reckoned from operations, not measured.
EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, seconds_on_a_gpu=180)
