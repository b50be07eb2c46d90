"""LANTK-NTH against the kernel after training: two-layer networks, by width, with kinks and without."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...data.datasets import load
from ...kernels.infinite.dense import network
from ...kernels.label_aware import lantk_hr
from ...kernels.named import entk
from ...kernels.tangent_hierarchy import hierarchy, lantk_nth, two_layer_hierarchy
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import class_pair, descent


@dataclass(frozen=True)
class Config:
    """Settings; float64, on the CPU. Points are drawn from two of the three Gaussian classes of the EPK paper.

    Attributes:
        points: n, training points.
        widths: m, of the networks that are trained.
        activations: "relu" takes the closed form, others the mean of ``hierarchy`` over draws.
        networks: trained for each seed and width.
        draws: networks whose K4 is averaged, for activations without closed form, and their width.
        few: points for the agreement of closed form and autodiff.
        wide: widths there.
        rate: step, in units of one over the largest eigenvalue.
        halflife: training time, in units of one over the smallest eigenvalue.
        seeds: of data and networks.
    """

    points: int = 20
    widths: tuple[int, ...] = (64, 256, 1024)
    activations: tuple[str, ...] = ("relu", "erf")
    networks: int = 100
    draws: tuple[int, int] = (4, 512)
    few: int = 4
    wide: tuple[int, ...] = (64, 256, 1024, 4096)
    rate: float = 0.3
    halflife: float = 6.0
    seeds: tuple[int, ...] = (0, 1, 2)


# "smoke", "class" or "paper" (more seeds).
PRESETS = {
    "smoke": Config(points=6, widths=(16, 64), networks=10, draws=(2, 32), few=2, wide=(16, 64), seeds=(0, 1)),
    "class": Config(),
    "paper": Config(seeds=tuple(range(10))),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Compare K4 of single networks with its mean, and the kernel's change in training with what LANTK-NTH adds."""
    data = load("gaussians")

    def mean_kernel(models: list, x: Tensor) -> Tensor:
        return torch.stack([entk(model, x)[..., 0, 0] for model in models])

    def trained(seed: int, activation: str, x: Tensor, y: Tensor) -> list[dict]:
        sizes = lambda width: (x.shape[1], width, 1)  # noqa: E731
        same = y[:, None] == y
        same_pairs, other = same & ~torch.eye(len(y), dtype=torch.bool), ~same
        count, wide = config.draws
        torch.manual_seed(1000 + seed)
        per_unit = 0.0
        if activation != "relu":
            drawn = (hierarchy(network(sizes(wide), activation, 2**0.5).double(), x, len(x))[2] for _ in range(count))
            per_unit = sum(drawn) * (wide / count)
        rows = []
        for width in config.widths:
            torch.manual_seed(seed)
            models = [network(sizes(width), activation, 2**0.5).double() for _ in range(config.networks)]
            before = mean_kernel(models, x)
            k4 = two_layer_hierarchy(x, len(x), width, w_std=2**0.5)[1] if activation == "relu" else per_unit / width
            values = torch.linalg.eigvalsh(before.mean(0))
            rate = config.rate / float(values[-1])
            steps = int(config.halflife / float(values[0]) / rate)
            after = mean_kernel(next(descent(models, x, y.double(), rate, (steps,), centred=True)), x)
            change, predicted = (after - before).mean(0), lantk_nth(before.mean(0), k4, y) - before.mean(0)
            spread = (after - before).std(0) / len(models) ** 0.5
            added = {
                "NTH": predicted,
                "change": change,
                "HR": lantk_hr(before.mean(0), y, leave_out=False).added_train,
                "HR, own left out": lantk_hr(before.mean(0), y).added_train,
            }
            rows.append(
                {
                    "part": "trained",
                    "activation": activation,
                    "width": width,
                    "change": (change.norm() / before.mean(0).norm()).item(),
                    "missed": ((change - predicted).norm() / before.mean(0).norm()).item(),
                    "error_bar": (spread.norm() / before.mean(0).norm()).item(),
                    "correlation": torch.corrcoef(torch.stack([change.flatten(), predicted.flatten()]))[0, 1].item(),
                    **{f"{name}, within": k[same_pairs].mean().item() for name, k in added.items()},
                    **{f"{name}, between": k[other].mean().item() for name, k in added.items()},
                }
            )
        return rows

    def one_seed(seed: int, activation: str | None) -> list[dict]:
        x, y = class_pair(data, (0, 1), config.points, seed)
        if activation is not None:
            return trained(seed, activation, x, y)
        x, rows = x[: config.few], []
        for width in config.wide:
            torch.manual_seed(seed)
            k4 = hierarchy(network((x.shape[1], width, 1), "relu", 2**0.5).double(), x, len(x))[2]
            wanted = two_layer_hierarchy(x, len(x), width, w_std=2**0.5)[1]
            rows.append({"part": "agreement", "width": width, "error": ((k4 - wanted).norm() / wanted.norm()).item()})
        return rows

    parts = [(None,), *((activation,) for activation in config.activations)]
    where = torch.device("cpu")
    return over_seeds(
        "kernel_change", preset, config, data, one_seed, device=where, parts=parts, folder=folder, progress=progress
    )


def quoted(result: Result) -> list[Quoted]:
    """Set LANTK-NTH beside the run: how it follows the kernel's change in training, and R1.4's two numbers."""
    width = int(result.frame(part="trained").width.min())  # the widest move no more than their error bar
    rows = result.frame(part="trained", width=width, activation="relu")
    keys = {
        "correlation with the kernel's change": "correlation",
        "share of the kernel missed": "missed",
        "share moved": "change",
    }
    added = [
        (f"{kernel}, {where}", f"added by {kernel} {where} a class")
        for kernel in ("NTH", "HR", "HR, own left out")
        for where in ("within", "between")
    ]
    return [
        *(Quoted.of("LANTK-NTH", f"{words}, width {width}", None, rows[key]) for words, key in keys.items()),
        *(Quoted.of("R1.4", f"{words}, width {width}", None, rows[key]) for key, words in added),
    ]


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "agreement": ("width", "error"),
    "trained": (
        "activation",
        "width",
        "change",
        "missed",
        "error_bar",
        "correlation",
        *(f"{name}, {where}" for where in ("within", "between") for name in ("NTH", "change", "HR", "HR, own left out")),
    ),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
