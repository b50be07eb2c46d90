"""Claim 2.1 and R1.3 of the LANTK paper: one set of inputs, two systems of labels, and the kernels trained on either."""

from dataclasses import dataclass

import torch
from torch import nn

from ...analysis.regression import local_elasticity, spectrum
from ...data.datasets import load
from ...kernels.named import entk
from ...models.networks import mlp
from ...training.record import train_path
from ...training.sgd import device
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds


@dataclass(frozen=True)
class Config:
    """Settings; float64, digits, full-batch steps. The systems are odd or even, and small or large.

    Attributes:
        points: training images.
        hidden: widths of the network.
        steps: of training.
        lr: step size for the mean loss.
        seeds: of the initial weights and the points.
    """

    points: int = 200
    hidden: tuple[int, ...] = (128, 128)
    steps: int = 200
    lr: float = 0.1
    seeds: tuple[int, ...] = (0, 1, 2)


# "smoke", "class" or "paper" (ten seeds).
PRESETS = {
    "smoke": Config(points=40, hidden=(16,), steps=10, seeds=(0, 1)),
    "class": Config(),
    "paper": Config(seeds=tuple(range(10))),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Measure elasticity under both systems, before training and after training on either; and Claim 2.1 on four points."""
    data = load("digits")
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)

    def one_seed(seed: int) -> list[dict]:
        rows = []
        for name, y in (("first sign", corners[:, 0]), ("product", corners.prod(dim=1))):
            values, shares = spectrum(corners @ corners.T, y)
            rows.append({"part": "four points", "labels": name, "share": shares[values > 1e-9].sum().item()})
        some = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[: config.points]
        x, digit = data.x[some].to(device(), torch.float64), data.y[some].to(device())
        systems = {"odd or even": digit % 2, "small or large": (digit >= 5).long()}
        torch.manual_seed(seed)
        start = mlp((x[0].numel(), *config.hidden, 2)).to(x)
        models: dict[str, nn.Module] = {"nothing": start}
        for name, y in systems.items():
            how = {"steps": config.steps, "lr": config.lr, "zero_output": False, "progress": False}
            models[name] = train_path(start, x, y, **how).model_at(-1)
        for trained, model in models.items():
            gram = entk(model, x).diagonal(dim1=2, dim2=3).sum(2)
            for system, y in systems.items():
                about = {"part": "elasticity", "trained_on": trained, "system": system}
                rows.append(about | {"elasticity": local_elasticity(gram, y).item()})
        return rows

    return over_seeds("label_systems", preset, config, data, one_seed, device=device(), folder=folder, progress=progress)


def quoted(result: Result) -> list[Quoted]:
    """Set Claim 2.1 and R1.3 beside the run: shares of labels that a kernel reaches, and elasticity by what it was trained on."""
    item, found = "R1.3, Claim 2.1", []
    for row in result.frame(part="four points", seed=result.rows[0]["seed"]).itertuples():
        words = f'share of the labels "{row.labels}" that a linear kernel of four points reaches'
        found.append(Quoted.of(item, words, None, [row.share]))
    for (trained, system), rows in result.frame(part="elasticity").groupby(["trained_on", "system"], sort=False):
        found.append(Quoted.of(item, f"elasticity under {system}, trained on {trained}", None, rows.elasticity))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "four points": ("labels", "share"),
    "elasticity": ("trained_on", "system", "elasticity"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
