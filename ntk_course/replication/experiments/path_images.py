"""Fig 7 of the EPK paper: how many integration steps the path kernel of a convolutional network needs on images."""

import time
from dataclasses import dataclass

import torch

from ...data.datasets import load
from ...kernels.paths.kernel import epk, step_breakpoints
from ...models.networks import small_cnn
from ...training.record import train_path
from ...training.sgd import device
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds


@dataclass(frozen=True)
class Config:
    """Settings; float64 throughout, full batches as in the paper, which gives no numbers for the rest.

    Attributes:
        data: name of the data set.
        points: training images.
        test: test images.
        channels: of the two convolutions, each with ReLU and 2 x 2 max pooling.
        steps: S.
        lr: step size for the mean loss.
        rules: (rule, nodes); 1, 10 and 200 left Riemann steps are the paper's.
        seeds: of the initial weights.
    """

    data: str = "mnist"
    points: int = 1000
    test: int = 40
    channels: tuple[int, int] = (4, 8)
    steps: int = 40
    lr: float = 0.1
    rules: tuple[tuple[str, int], ...] = (
        ("left", 1),
        ("left", 10),
        ("left", 200),
        ("gauss", 10),
        ("piecewise", 2),
        ("piecewise", 8),
    )
    seeds: tuple[int, ...] = (0,)


# "smoke" or "class" (both digits) or "paper" (MNIST).
PRESETS = {
    "smoke": Config(data="digits", points=60, test=4, channels=(2, 3), steps=3, rules=(("left", 1), ("piecewise", 4))),
    "class": Config(data="digits", points=300, test=40, steps=100),
    "paper": Config(),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Compare the kernel's log-probabilities with the network's; a row for each rule, with the right classes' values."""
    data, test = load(config.data, limit=config.points), load(config.data, "test", limit=config.test)
    x, y, x_test = data.x.to(device(), torch.float64), data.y.to(device()), test.x.to(device(), torch.float64)

    def trained(seed: int):
        torch.manual_seed(seed)
        model = small_cnn(x.shape[1], x.shape[2], config.channels, data.num_classes).to(x)
        return train_path(model, x, y, steps=config.steps, lr=config.lr, progress=False)

    def one_seed(seed: int, rule: str, nodes: int) -> list[dict]:
        path = trained(seed)
        start = time.perf_counter()
        kernel = epk(path, x_test, rule, nodes)
        row = {"rule": rule, "nodes": nodes, "seconds": time.perf_counter() - start}
        wanted, found = path.log_probs(x_test), kernel.predict()
        right = torch.arange(len(x_test)), test.y
        row |= {"error": (found - wanted).abs().max().item(), "changed": int((found.argmax(1) != wanted.argmax(1)).sum())}
        row |= {"network": wanted[right].tolist(), "kernel": found[right].tolist()}
        row["accuracy"] = (wanted.argmax(1).cpu() == test.y).double().mean().item()
        if rule == "piecewise" and nodes == min(n for r, n in config.rules if r == rule):  # once is enough, it takes long
            kinks = [len(b) for s in range(config.steps) for b in step_breakpoints(path, s, x_test)]
            row["breakpoints"] = sum(kinks) / len(kinks)
        return [row]

    how = {"device": device(), "parts": config.rules, "folder": folder, "progress": progress}
    return over_seeds("path_images", preset, config, data, one_seed, **how)


def quoted(result: Result) -> list[Quoted]:
    """Set Fig 7 beside the run: largest error of a log-probability, and test images that change class, by rule."""
    found = []
    for r in result.rows:
        rule = f"{r['rule']} {r['nodes']}"
        found.append(Quoted.of("Fig. 7", f"largest error, {rule}", None, [r["error"]]))
        found.append(Quoted.of("Fig. 7", f"classes changed, {rule}", None, [float(r["changed"])]))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("rule", "nodes", "seconds", "error", "changed", "network", "kernel", "accuracy", "breakpoints"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
