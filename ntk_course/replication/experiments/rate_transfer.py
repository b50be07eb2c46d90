"""Does the best learning rate stay when a network grows? Three parametrisations over widths, the maximal update among them."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from ...models.parametrisations import NAMES, parametrised
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import as_rows, both_splits


@dataclass(frozen=True)
class Config:
    """Settings; SGD without momentum, cross entropy, two hidden layers of ReLUs, on the CPU.

    Attributes:
        data: name of the data set.
        train: samples learnt.
        widths: of the hidden layers; the first is the base, at which all are the same network.
        hows: parametrisations.
        powers: of two, the rates.
        epochs: passes over the samples.
        batch: samples a step.
        seeds: of weights and batches.
    """

    data: str = "mnist"
    train: int = 4000
    widths: tuple[int, ...] = (64, 256, 1024)
    hows: tuple[str, ...] = ("standard", "ntk", "mup")
    powers: tuple[float, ...] = tuple(p / 2 for p in range(-18, 5))
    epochs: int = 2
    batch: int = 100
    seeds: tuple[int, ...] = tuple(range(5))


# "smoke", "class" (digits, three seeds) or "paper" (MNIST).
PRESETS = {
    "smoke": Config(data="digits", train=200, widths=(16, 64), powers=(-4.0, -2.0), batch=50, epochs=1, seeds=(0, 1)),
    "class": Config(data="digits", train=1400, epochs=4, seeds=(0, 1, 2)),
    "paper": Config(),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Train at every rate, width and parametrisation; a row for each seed with the mean loss of the last half epoch."""
    data, _ = both_splits(config.data, config.train)
    x, y = as_rows(data.x), data.y

    def trained(how: str, width: int, rate: float, seed: int) -> float:
        torch.manual_seed(seed)
        net = parametrised((x.shape[1], width, width, data.num_classes), how, base=config.widths[0])
        optimizer = torch.optim.SGD(net.parameters(), lr=rate * net.rate_factor)
        order = torch.Generator().manual_seed(seed)
        batches = torch.cat([torch.randperm(len(x), generator=order) for _ in range(config.epochs)]).split(config.batch)
        losses = []
        for batch in batches:
            optimizer.zero_grad()
            loss = cross_entropy(net(x[batch]), y[batch])
            if not bool(loss < 1e3):
                return math.inf
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        last = max(1, len(batches) // (2 * config.epochs))
        return float(np.mean(losses[-last:]))

    def one_seed(seed: int, how: str, width: int) -> list[dict]:
        return [
            {"how": how, "width": width, "power": power, "loss": trained(how, width, 2.0**power, seed)} for power in config.powers
        ]

    parts = [(how, width) for how in config.hows for width in config.widths]
    where = torch.device("cpu")
    return over_seeds(
        "rate_transfer", preset, config, data, one_seed, device=where, parts=parts, folder=folder, progress=progress
    )


def best_power(powers, losses) -> float:
    """Return the power of two with the least loss: the vertex of the parabola through the lowest point and its neighbours."""
    powers, losses = np.asarray(powers, float), np.asarray(losses, float)
    order = np.argsort(powers)
    powers, losses = powers[order], losses[order]
    i = int(np.nanargmin(losses))
    if i in (0, len(losses) - 1) or not np.isfinite(losses[i - 1 : i + 2]).all():
        return float(powers[i])
    a, b, _ = np.polyfit(powers[i - 1 : i + 2], losses[i - 1 : i + 2], 2)
    return float(-b / (2 * a)) if a > 0 else float(powers[i])


def quoted(result: Result) -> list[Quoted]:
    """Set the change of the best rate over the widths beside the run: 0 under muP, -1 for each doubling under standard rates."""
    found, widths = [], result.provenance["config"]["widths"]
    doublings = math.log2(widths[-1] / widths[0])
    for how, wanted in (("mup", 0.0), ("ntk", None), ("standard", None)):
        moved = []
        for _, rows in result.frame(how=how).groupby("seed"):
            best = [best_power(mine.power, mine.loss) for _, mine in rows.groupby("width")]
            moved.append((best[-1] - best[0]) / doublings)
        found.append(
            Quoted.of("Rate transfer", f"powers of two of the best rate a doubling of the width, {NAMES[how]}", wanted, moved)
        )
    return found


# Columns of the rows; "seed" is added to each.
COLUMNS = {"": ("how", "width", "power", "loss")}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, of_ours=True)
