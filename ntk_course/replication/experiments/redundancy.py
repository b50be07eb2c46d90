"""Table 2 of the lpNTK paper: what "redundant" selects, by kernel and state of training, and training without it."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ...analysis.pruning import el2n
from ...basics.fingerprints import of_model, of_tensor
from ...gram.operator import Gram
from ...gram.reducers import Partners, Several, TopPartners
from ...tangents.cotangents import labelled, ones
from ...training.sgd import device
from ..experiment import Experiment
from ..protocols import CODE, CODE_NARROW, TEXT, Protocol
from ..results import Quoted, Result, over_seeds
from ._common import SHORT, TEN, PaperRecipe, ResNetRecipe, both_splits, fit, kept, kernel_network, on_device

AMONG = ("all", "later")


@dataclass(frozen=True)
class Config:
    """Settings of Table 2.

    Attributes:
        data: name of the data set.
        protocol: whose network, with which samples a sample is compared before it is left out, and which accuracy is reported.
        limit: training samples, or None for all.
        recipe: of every training, of the kernel's network and of those that are compared.
        validation: samples held out to choose the kernel's weights by, as the paper does (sec. 2.3).
        states: epochs after which redundancy is counted besides, for the first seed only.
        sizes: numbers of samples, drawn at random, among which it is counted besides, for the first seed only.
        tenth: train without the most redundant tenth too.
        seeds: of the networks.
    """

    data: str = "mnist"
    protocol: Protocol = TEXT
    limit: int | None = None
    recipe: PaperRecipe = PaperRecipe()
    validation: int = 5000
    states: tuple[int, ...] = (0, 1)
    sizes: tuple[int, ...] = (500, 2000, 8000)
    tenth: bool = True
    seeds: tuple[int, ...] = tuple(range(10))


# "smoke" (digits), "class" (MNIST, 6 epochs, 3 seeds), "paper" (30 epochs, 10 seeds), "code" (the public code's network, 10
# epochs), "narrow" or "cifar10" (both CIFAR-10). The last three take the first 10,000 or 5,000 images: a seed takes minutes.
PRESETS = {
    "smoke": Config(
        data="digits", limit=500, recipe=PaperRecipe(epochs=3, lr=0.05), validation=100, states=(0,), sizes=(100, 200), seeds=(0,)
    ),
    "class": Config(recipe=SHORT, seeds=(0, 1, 2)),
    "paper": Config(),
    "code": Config(protocol=CODE, limit=10_000, recipe=TEN, validation=1000, states=(), sizes=(), tenth=False, seeds=(0, 1)),
    "narrow": Config(
        data="cifar10",
        protocol=CODE_NARROW,
        limit=5_000,
        recipe=ResNetRecipe(epochs=15),
        validation=500,
        states=(),
        sizes=(),
        tenth=False,
        seeds=(0, 1),
    ),
    "cifar10": Config(
        data="cifar10", protocol=CODE, limit=10_000, recipe=ResNetRecipe(), validation=1000, states=(), sizes=(), seeds=(0, 1)
    ),
}


def partners(
    model: nn.Module, x: Tensor, y: Tensor, kernel: str, within_class: bool, folder: str | Path | None = None
) -> dict[str, Partners]:
    """Find each sample's closest partner among all others and among later ones, of all samples or of those of its label."""

    def make() -> dict:
        found = {name: (torch.empty(len(x)), torch.arange(len(x)), torch.empty(len(x))) for name in AMONG}
        groups = (
            [(y == label).nonzero()[:, 0] for label in y.unique()] if within_class else [torch.arange(len(x), device=x.device)]
        )
        for where in groups:
            gram = Gram(model, x[where], labelled(y[where]) if kernel == "lpNTK" else ones)
            both = gram.reduce(Several((TopPartners(1), TopPartners(1, later=True))), progress=False)
            for name, (value, index, own) in zip(AMONG, both, strict=True):
                for part, values in zip(found[name], (value[:, 0], where[index[:, 0]], own), strict=True):
                    part[where.cpu()] = values.cpu()
        return found

    about = ("partners", kernel, within_class, of_tensor(x, y) + of_model(model) if folder else "")
    found = kept(folder, about, make, x.device)
    return {name: Partners(*parts) for name, parts in found.items()}


def describe(found: Partners, y: Tensor, error: Tensor) -> dict:
    """Say what the definition selects: how much, whose partners, how long the vectors are, how hard the samples."""
    gone = found.value > found.own
    counts = torch.bincount(found.index[gone], minlength=len(gone)).sort(descending=True).values
    covered = counts.cumsum(0) / max(1, int(gone.sum()))
    kept = ~gone
    quantiles = torch.quantile(found.own[: 2**24].double(), torch.tensor([0.05, 0.5, 0.95, 1.0], dtype=torch.float64))
    return {
        "redundant": gone.float().mean().item(),
        "partners_for_90_percent": int((covered < 0.9).sum()) + 1 if gone.any() else 0,
        "partner_same_label": (y[found.index[gone]] == y[gone]).float().mean().item() if gone.any() else None,
        "own_5_50_95_100": quantiles.tolist(),
        "own_kept_median": found.own[kept].median().item() if kept.any() else None,
        "own_removed_median": found.own[gone].median().item() if gone.any() else None,
        "el2n_kept": error[kept].mean().item() if kept.any() else None,
        "el2n_removed": error[gone].mean().item() if gone.any() else None,
    }


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Count redundant samples, then train without them; rows of part "fraction", "size" and "accuracy".

    Beside each pruned set stands a random one of the same size. As the rule as written leaves far fewer samples than the
    paper's text implies, the tenth of the samples with the largest ratio of closest partner to own value is removed too.
    ``accuracy`` is what the protocol reports: ``last`` of the epochs, or the ``best`` on the test set.
    """
    data, test = both_splits(config.data, config.limit)
    (x, y), (x_test, y_test) = on_device(data), on_device(test)
    protocol = config.protocol

    def one_seed(seed: int) -> list[dict]:
        model, history = kernel_network(x, y, config.recipe, seed, protocol, config.validation, folder)
        rows, keeps = [], {"full": torch.ones(len(x), dtype=torch.bool, device=x.device)}
        states = {f"best of {config.recipe.epochs} epochs": model}
        for epochs in config.states if seed == config.seeds[0] else ():
            recipe = replace(config.recipe, epochs=epochs)
            states[f"after {epochs}"] = kernel_network(x, y, recipe, seed, protocol, config.validation, folder)[0]
        for state, net in states.items():
            error = el2n(net, x, y)
            for kernel in ("lpNTK", "pNTK"):
                for within in (False, True):
                    both = partners(net, x, y, kernel, within, folder)
                    for among, found in both.items():
                        compared = ("same label" if within else "all") + ", later" * (among == "later")
                        head = {"part": "fraction", "state": state, "kernel": kernel, "compared": compared}
                        rows.append(head | describe(found, y, error))
                    if net is model and not within:
                        found = both[protocol.compared]
                        keeps[f"de-redundant by {kernel}"] = found.value <= found.own
                        if config.tenth:
                            tenth = (found.value / found.own).argsort(descending=True)[: len(x) // 10]
                            keeps[f"most redundant tenth by {kernel}"] = torch.ones_like(y, dtype=torch.bool)
                            keeps[f"most redundant tenth by {kernel}"][tenth] = False
        drawn = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
        for size in config.sizes if seed == config.seeds[0] else ():
            some = drawn[:size]
            for kernel in ("lpNTK", "pNTK"):
                for among, found in partners(model, x[some], y[some], kernel, False).items():
                    row = {"part": "size", "kernel": kernel, "samples": len(some), "compared": among}
                    cosine = found.value / (found.own * found.own[found.index]).sqrt()
                    row["closest_cosine"] = cosine.median().item()
                    rows.append(row | {"redundant": (found.value > found.own).float().mean().item()})
        for name in [n for n in keeps if n.startswith("de-") or n.endswith("by lpNTK")]:
            keeps[f"random, as many as {name}"] = _random_like(keeps[name], seed)
        for name, keep in keeps.items():
            if not keep.any():
                continue
            how = {"validation": (x_test, y_test), "folder": folder}
            curve = fit(x[keep], y[keep], config.recipe, seed + 100, protocol, **how)[1].validation.tolist()
            row = {"part": "accuracy", "set": name, "samples": int(keep.sum()), "classes": len(y[keep].unique())}
            rows.append(row | {"accuracy": protocol.reported(curve), "last": curve[-1], "best": max(curve)})
        return rows + [{"part": "kernel network", "validation": history.validation.tolist()}]

    return over_seeds("redundancy", preset, config, data, one_seed, device=device(), folder=folder, progress=progress)


def _random_like(keep: Tensor, seed: int) -> Tensor:
    order = torch.randperm(len(keep), generator=torch.Generator().manual_seed(seed)).to(keep.device)
    out = torch.zeros_like(keep)
    out[order[: int(keep.sum())]] = True
    return out


PAPER = {
    "mnist": {"full": 99.31, "de-redundant by pNTK": 99.27, "de-redundant by lpNTK": 99.30},
    "cifar10": {"full": 93.28, "de-redundant by pNTK": 90.93, "de-redundant by lpNTK": 93.17},
}


def quoted(result: Result) -> list[Quoted]:
    """Set Table 2 beside the run, and the shares that the rule removes."""
    found, config = [], result.provenance["config"]
    item = "Table 2" + ", CIFAR-10" * (config["data"] == "cifar10")
    rows = result.frame(part="fraction", state=f"best of {config['recipe']['epochs']} epochs")
    for (kernel, compared), some in rows[rows.compared.isin(["all", "all, later"])].groupby(["kernel", "compared"], sort=False):
        words = f"per cent redundant by {kernel}" + ", compared with later samples only" * (compared == "all, later")
        found.append(Quoted.of(item, words, None, 100 * some.redundant))
    for name, ends in result.frame(part="accuracy").groupby("set", sort=False).accuracy:
        found.append(Quoted.of(item, f"test accuracy, {name}", PAPER.get(config["data"], {}).get(name), 100 * ends))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "fraction": (
        "state",
        "kernel",
        "compared",
        "redundant",
        "partners_for_90_percent",
        "partner_same_label",
        "own_5_50_95_100",
        "own_kept_median",
        "own_removed_median",
        "el2n_kept",
        "el2n_removed",
    ),
    "size": ("kernel", "samples", "compared", "closest_cosine", "redundant"),
    "accuracy": ("set", "samples", "classes", "accuracy", "last", "best"),
    "kernel network": ("validation",),
}

# Of the preset "cifar10", a seed on an H100; reckoned from operations, not measured.
EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, seconds_on_a_gpu=150)
