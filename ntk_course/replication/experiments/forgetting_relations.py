"""Section 3.1 of the lpNTK paper: is a sample forgotten where the next batch opposes it, by any kernel with labels?"""

from dataclasses import dataclass
from itertools import islice

import torch
from torch.nn.functional import cross_entropy

from ...analysis.pruning import flip_auc
from ...data.datasets import load
from ...gram.operator import Gram
from ...tangents.cotangents import centred, labelled, loss_gradient
from ...training.sgd import device, whole_batches
from ..experiment import Experiment
from ..protocols import CODE, TEXT, Protocol
from ..results import Quoted, Result, over_seeds
from ._common import initial, on_device

KERNELS = {"lpNTK": labelled, "kappa tilde": centred, "loss": loss_gradient}


@dataclass(frozen=True)
class Config:
    """Settings; plain SGD from the initial weights, in eval mode throughout.

    Attributes:
        data: name of the data set.
        protocol: whose network.
        limit: training samples, or None for all.
        iterations: steps that are watched.
        batch_size: samples a step.
        lr: learning rate.
        seeds: of the initial weights and the batches.
    """

    data: str = "mnist"
    protocol: Protocol = TEXT
    limit: int | None = None
    iterations: int = 60
    batch_size: int = 128
    lr: float = 0.1
    seeds: tuple[int, ...] = tuple(range(6))


# "smoke", "class" (digits), "paper" (MNIST, the text's network) or "code" (MNIST, the public code's, with dropout off).
PRESETS = {
    "smoke": Config(data="digits", iterations=8, batch_size=32, lr=0.5, seeds=(0,)),
    "class": Config(data="digits", batch_size=64, lr=0.3),
    "paper": Config(),
    "code": Config(protocol=CODE, seeds=(0, 1, 2)),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Set each sample's mean kernel with the next batch beside its fate; a row for each seed and kernel.

    Watched are the samples of a batch that are right after its step. A sample is ``opposed`` where its mean over the next batch
    is negative, and forgotten where it is wrong after that batch's step. ``area`` is the chance that of a forgotten sample and a
    kept one the forgotten has the lower mean.
    """
    data = load(config.data, limit=config.limit)
    x, y = on_device(data)

    def one_seed(seed: int) -> list[dict]:
        model = initial(x, seed, config.protocol)
        optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
        batches = (batch.to(x.device) for batch in whole_batches(len(x), config.batch_size, seed))
        means: dict[str, list] = {kernel: [] for kernel in KERNELS}
        gone = []

        def right(samples: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return model(x[samples]).argmax(1) == y[samples]

        def step(samples: torch.Tensor) -> None:
            optimizer.zero_grad()
            cross_entropy(model(x[samples]), y[samples]).backward()
            optimizer.step()

        previous = next(batches)
        step(previous)
        for now in islice(batches, config.iterations):
            known = previous[right(previous)]
            for kernel, c in KERNELS.items() if len(known) else ():
                gram = Gram(model, x[known], c(y[known]), x[now], c(y[now]))
                means[kernel].append(gram.dense().mean(1))
            step(now)
            gone.append(~right(known))
            previous = now
        forgotten, rows = torch.cat(gone), []
        for kernel, parts in means.items():
            mean = torch.cat(parts)
            opposed, both = mean < 0, forgotten.any() and not forgotten.all()
            rows.append(
                {
                    "kernel": kernel,
                    "area": flip_auc(-mean, forgotten) if both else None,
                    "forgotten": int(forgotten.sum()),
                    "kept": int((~forgotten).sum()),
                    "opposed_forgotten": int((opposed & forgotten).sum()),
                    "opposed_kept": int((opposed & ~forgotten).sum()),
                }
            )
        return rows

    return over_seeds("forgetting_relations", preset, config, data, one_seed, device=device(), folder=folder, progress=progress)


def shares(result: Result) -> list[dict]:
    """Add a run's seeds up, a line for each kernel: the mean area and its range, and how many of whom are forgotten."""
    lines = []
    for kernel, rows in result.frame().groupby("kernel", sort=False):
        count = rows[["forgotten", "kept", "opposed_forgotten", "opposed_kept"]].sum()
        opposed = count.opposed_forgotten + count.opposed_kept
        others = count.forgotten + count.kept - opposed
        lines.append(
            {
                "kernel": kernel,
                "area": rows.area.mean(),
                "lowest": rows.area.min(),
                "highest": rows.area.max(),
                "opposed": int(opposed),
                "of them forgotten, %": 100 * count.opposed_forgotten / opposed if opposed else None,
                "of the others, %": 100 * (count.forgotten - count.opposed_forgotten) / others if others else None,
            }
        )
    return lines


def quoted(result: Result) -> list[Quoted]:
    """Give the area of every kernel, and which share of the opposed and of the other samples is forgotten."""
    found, item = [], "Sec. 3.1, forgetting"
    for kernel, rows in result.frame().groupby("kernel", sort=False):
        found.append(Quoted.of(item, f"area under the curve, {kernel}", None, rows.area.dropna()))
    for line in shares(result):
        for key, words in (("of them forgotten, %", "the opposed"), ("of the others, %", "the others")):
            if line[key] is not None:
                found.append(Quoted.of(item, f"forgotten of {words}, {line['kernel']}, per cent, all seeds", None, [line[key]]))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {"": ("kernel", "area", "forgotten", "kept", "opposed_forgotten", "opposed_kept")}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
