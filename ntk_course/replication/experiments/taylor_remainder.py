"""How fast the error of eq. (1) shrinks with the learning rate: the measured order of the Taylor remainder."""

from dataclasses import dataclass

import numpy as np
import torch

from ...analysis.one_step import predicted_change, true_change
from ...data.datasets import load
from ...models.networks import lenet5, mlp
from ...training.sgd import device, train
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import slope


@dataclass(frozen=True)
class Config:
    """Settings; float64 throughout, because a remainder of eta squared drowns in float32 rounding.

    Attributes:
        data: name of the data set.
        model: "mlp" (tanh, 64-64-10, for digits) or "lenet5" (ReLU, for MNIST).
        epochs: of training before the step, lr 0.1 and batches of 32.
        observed: samples whose prediction is watched.
        steps: samples stepped on.
        lrs: learning rates of the one step.
        seeds: initialisations.
    """

    data: str = "digits"
    model: str = "mlp"
    epochs: int = 2
    observed: int = 8
    steps: int = 8
    lrs: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4)
    seeds: tuple[int, ...] = (0,)


# "smoke", "class" or "paper".
_LRS = tuple(float(v) for v in np.logspace(0, -5, 11))
PRESETS = {
    "smoke": Config(),
    "class": Config(epochs=3, observed=40, steps=40, lrs=_LRS, seeds=(0, 1, 2)),
    "paper": Config(data="mnist", model="lenet5", epochs=1, observed=100, steps=100, lrs=_LRS, seeds=tuple(range(10))),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Measure the median relative error of the predicted change, and its slope, for each seed and learning rate."""
    where = device()
    data, test = load(config.data), load(config.data, "test")
    x, y = data.x.to(where, torch.float64), data.y.to(where)

    def one_seed(seed: int) -> list[dict]:
        torch.manual_seed(seed)
        model = (mlp((64, 64, 10), "tanh") if config.model == "mlp" else lenet5()).to(where, torch.float64)
        train(model, x, y, epochs=config.epochs, lr=0.1, batch_size=32, seed=seed, progress=False)
        x_o, x_u, y_u = test.x[: config.observed].to(where), x[: config.steps], y[: config.steps]
        per_unit = predicted_change(model, x_o, x_u, y_u)
        rows = []
        for lr in config.lrs:
            truth = true_change(model, x_o, x_u, y_u, lr)
            remainder = (truth - lr * per_unit).norm(dim=-1)
            rows.append(
                {
                    "lr": lr,
                    "change": truth.norm(dim=-1).median().item(),
                    "remainder": remainder.median().item(),
                    "relative": (remainder / truth.norm(dim=-1)).median().item(),
                }
            )
        return rows

    return over_seeds("taylor_remainder", preset, config, data, one_seed, device=where, folder=folder, progress=progress)


def quoted(result: Result) -> list[Quoted]:
    """Set what the paper says of eq. (1) beside the run: the order in eta of what the first term leaves out."""
    slopes = []
    for seed in result.provenance["config"]["seeds"]:
        # below the rate 0.1, where higher orders matter, and above 1e-4, where a change of 1e-4 still has twelve digits
        rows = result.frame(seed=seed).query("1e-4 < lr < 0.1")
        slopes.append(slope(rows.lr, rows.remainder))
    return [Quoted.of("Eq. (1)", "order of the remainder in the learning rate", 2.0, slopes)]


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("lr", "change", "remainder", "relative"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
