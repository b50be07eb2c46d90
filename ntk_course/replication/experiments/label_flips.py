"""Fig 3 and App. C and D.1 of the lpNTK paper: the three relations on clean and flipped labels, and two copies of one input."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...analysis.interactions import Relation, cosines, relations
from ...analysis.pruning import class_support, el2n, flip_auc, flip_labels, grand
from ...data.datasets import load
from ...kernels.named import tangent_kernel
from ...models.networks import mlp
from ...tangents.cotangents import centred, labelled, logit, loss_gradient
from ...training.sgd import device, train
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import PaperRecipe, fit, on_device

KERNELS = ("lpNTK", "kappa tilde", "y-th logit", "loss gradient")


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        data: name of the data set.
        limit: training samples, or None for all.
        observed: samples whose relations are counted.
        flipped: share of labels flipped.
        recipe: of training, at a rate at which the flipped set trains (at 0.1 it may not); the states looked at are before
            the first epoch, after ``early`` epochs, and at the end.
        early: epochs of the early state.
        threshold: t of App. C.
        seeds: of the network and the flips.
    """

    data: str = "mnist"
    limit: int | None = None
    observed: int = 2000
    flipped: float = 0.1
    recipe: PaperRecipe = PaperRecipe(lr=0.02)
    early: int = 1
    threshold: float = 0.55
    seeds: tuple[int, ...] = (0, 1, 2)


# "smoke", "class" (digits) or "paper" (MNIST).
PRESETS = {
    "smoke": Config(data="digits", limit=300, observed=150, flipped=0.1, recipe=PaperRecipe(epochs=2, lr=0.05), seeds=(0,)),
    "class": Config(data="digits", limit=None, observed=700, flipped=0.1, recipe=PaperRecipe(epochs=30, lr=0.05)),
    "paper": Config(limit=12000),
}


# The cotangents of the kernels that are compared, by name.
COTANGENTS = {"lpNTK": labelled, "kappa tilde": centred, "y-th logit": logit, "loss gradient": loss_gradient}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Count relations and find flips back, by kernel and state of training, then two copies of one input."""
    data = load(config.data, limit=config.limit)
    x, y = on_device(data)

    def one_seed(seed: int) -> list[dict]:
        rows = _copies(x, seed)
        for share in (0.0, config.flipped):
            noisy, flipped = flip_labels(y, share, data.num_classes, seed)
            for state, epochs in (("untrained", 0), ("early", config.early), ("trained", config.recipe.epochs)):
                model, history = fit(x, noisy, replace(config.recipe, epochs=epochs), seed)
                some, labels, true = x[: config.observed], noisy[: config.observed], y[: config.observed]
                wrong = flipped[: config.observed]
                head = {
                    "part": "relations",
                    "flipped": share,
                    "state": state,
                    "accuracy": history.accuracy[-1].item() if history else None,
                }
                for kernel in KERNELS:
                    gram = tangent_kernel(model, some, COTANGENTS[kernel](labels))
                    rows += [head | row for row in _relations(gram, labels, true, kernel, config.threshold)]
                if share:
                    for name, score in (("EL2N", el2n), ("GraNd", grand)):
                        rows.append(
                            head | {"part": "detection", "kernel": name, "auc": flip_auc(score(model, some, labels), wrong)}
                        )
        return rows

    return over_seeds("label_flips", preset, config, data, one_seed, device=device(), folder=folder, progress=progress)


def _relations(gram: Tensor, y: Tensor, true: Tensor, kernel: str, threshold: float) -> list[dict]:
    wrong, pair = y != true, torch.ones_like(gram, dtype=torch.bool).triu(1)
    same, of_one_class = y[:, None] == y[None, :], true[:, None] == true[None, :]
    groups = {
        "one label, one class": pair & same & of_one_class,
        "two labels, two classes": pair & ~same & ~of_one_class,
        "two labels, one class": pair & ~same & of_one_class,  # here flipping should make contradictions
        "one label, two classes": pair & same & ~of_one_class,
    }
    cosine, rows = cosines(gram), []
    for by in ("projections", "angle"):
        kinds = relations(gram, threshold, by=by)
        for group, mask in groups.items():
            if mask.any():
                shares = {r.name.lower(): (kinds[mask] == r).float().mean().item() for r in Relation}
                rows.append({"kernel": kernel, "by": by, "pairs": group, "mean_cosine": cosine[mask].mean().item(), **shares})
    if wrong.any():
        rows.append({"part": "detection", "kernel": kernel, "auc": flip_auc(-class_support(gram, y), wrong)})
    return rows


def _copies(x: Tensor, seed: int) -> list[dict]:
    """App. D.1 and its generalisation to K classes: cosine of two copies of one input, and what each costs to learn."""
    rows = []
    both = x[seed : seed + 1].repeat(2, *[1] * (x.dim() - 1))
    for k in (2, 3, 4, 5, 10):
        for labels in ("same", "different"):
            torch.manual_seed(seed)
            model = mlp((x[0].numel(), 256, k)).to(x.device)
            y = torch.tensor([0, 0 if labels == "same" else 1], device=x.device)
            between = {}
            for kernel in KERNELS:
                gram = tangent_kernel(model, both, COTANGENTS[kernel](y))
                between[kernel] = cosines(gram)[0, 1].item()
            history = train(model, both, y, epochs=50, lr=0.1, batch_size=1, seed=seed, per_sample=True, progress=False)
            rows.append(
                {"part": "copies", "classes": k, "labels": labels, "difficulty": history.losses.sum(0).tolist(), **between}
            )
    return rows


def quoted(result: Result) -> list[Quoted]:
    """Set Fig 3, App. C and App. D.1 beside the run: who contradicts whom, and two copies of one input."""
    found = []
    for kernel in ("lpNTK", "loss gradient"):
        for share, pairs in ((0.0, "two labels, two classes"), (result.provenance["config"]["flipped"], "two labels, one class")):
            among = {"state": "trained", "kernel": kernel, "flipped": share, "pairs": pairs, "by": "projections"}
            rows = result.frame(part="relations", **among)
            words = f"pairs of {pairs}, {share:.0%} flipped, {kernel}"
            found.append(Quoted.of("Fig. 3, App. C", f"contradictory {words}", None, rows.contradictory))
            found.append(Quoted.of("Fig. 3, App. C", f"mean cosine of {words}", None, rows.mean_cosine))
    for row in result.frame(part="copies", seed=0).itertuples():
        words = f"cosine of two copies, {row.labels} label, {row.classes} classes"
        found.append(Quoted.of("App. D.1", words, None, [row.lpNTK]))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "copies": ("classes", "labels", "difficulty", "lpNTK", "kappa tilde", "y-th logit", "loss gradient"),
    "relations": (
        "flipped",
        "state",
        "accuracy",
        "kernel",
        "by",
        "pairs",
        "mean_cosine",
        "contradictory",
        "unrelated",
        "interchangeable",
        "neither",
    ),
    "detection": ("flipped", "state", "accuracy", "kernel", "auc"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
