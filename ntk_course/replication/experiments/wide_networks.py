"""What infinite width predicts of finite networks: kernel, constancy, linear dynamics, regression (LANTK reply, R1.5)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ...analysis.regression import kernel_ridge
from ...data.datasets import load
from ...kernels.infinite import dense as infinite
from ...kernels.named import entk
from ...training.sgd import device
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import descent


@dataclass(frozen=True)
class Config:
    """Settings. Digits; networks in the NTK parameterization with one output, targets -1 for even and 1 for odd digits.

    Attributes:
        points: training images, the first ones.
        test: test images.
        widths: m, of every hidden layer.
        depth: hidden layers.
        activations: of the networks.
        rate: step, in units of one over the largest eigenvalue of the infinite kernel.
        times: when the networks are compared, in such steps.
        classes_from: training images of the ten-class regression, with the mean kernel and with single ones.
        seeds: of the networks.
    """

    points: int = 100
    test: int = 200
    widths: tuple[int, ...] = (32, 128, 512, 2048)
    depth: int = 2
    activations: tuple[str, ...] = ("relu", "erf")
    rate: float = 0.2
    times: tuple[int, ...] = (10, 50, 250)
    classes_from: int = 200
    seeds: tuple[int, ...] = tuple(range(5))


# "smoke", "class" or "paper" (wider, more seeds).
PRESETS = {
    "smoke": Config(points=20, test=20, widths=(16, 64), activations=("relu",), times=(2, 5), classes_from=40, seeds=(0, 1)),
    "class": Config(),
    "paper": Config(widths=(32, 128, 512, 2048, 8192), seeds=tuple(range(20))),
}


def linear_descent(
    gram: Tensor, cross: Tensor, residual: Tensor, before: Tensor, rate: float, times: tuple[int, ...]
) -> Iterator[Tensor]:
    """Yield what the linearised network answers elsewhere, (M,), after each number of the very same steps."""
    answers, done = before.clone(), 0
    for time in times:
        for _ in range(time - done):
            answers += rate * cross @ residual
            residual = residual - rate * gram @ residual
        done = time
        yield answers.clone()


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Measure the gap to the infinite network; rows for each seed, activation and width, and for each time."""
    train, test = load("digits"), load("digits", "test")
    x, x_test = (t.x.flatten(1).double().to(device()) for t in (train, test))
    x_test, classes = x_test[: config.test], one_hot(train.y[: config.classes_from], 10).double().to(x)
    y_test = test.y[: config.test].to(x.device)
    fitted, some = x[: config.classes_from], x[: config.points]
    odd = (train.y[: config.points] % 2 * 2 - 1).to(x)

    def accuracy(gram: Tensor, cross: Tensor) -> float:
        return (kernel_ridge(gram, classes).predict(cross).argmax(1) == y_test).double().mean().item()

    def trained(model: nn.Module, rate: float) -> Iterator[dict]:
        first, cross = entk(model, some)[..., 0, 0], entk(model, x_test, some)[..., 0, 0]
        with torch.no_grad():
            start, before = model(some)[:, 0], model(x_test)[:, 0]
        weights = [p.detach().clone() for p in model.parameters()]
        linear = linear_descent(first, cross, odd - start, before, rate, config.times)
        for time, predicted, (after,) in zip(config.times, linear, descent([model], some, odd, rate, config.times), strict=True):
            with torch.no_grad():
                answers, fit = after(x_test)[:, 0], after(some)[:, 0]
            moves = [p.detach() - w for p, w in zip(after.parameters(), weights, strict=True)]
            yield {
                "part": "trained",
                "time": time,
                "loss": (fit - odd).square().mean().item(),
                "linear_error": (answers - predicted).square().mean().sqrt().item(),
                "moved": (answers - before).square().mean().sqrt().item(),
                "kernel_change": ((entk(after, some)[..., 0, 0] - first).norm() / first.norm()).item(),
                "largest_move": max(m.abs().max().item() for m in moves),
                "weights_change": (sum(m.square().sum() for m in moves) / sum(w.square().sum() for w in weights)).sqrt().item(),
            }

    def one_seed(seed: int, activation: str) -> list[dict]:
        rows = []
        settings = {"depth": config.depth, "activation": activation, "w_std": 2**0.5, "b_std": 0.1}
        gram = infinite.mlp(fitted, **settings).ntk
        expected = accuracy(gram, infinite.mlp(x_test, fitted, **settings).ntk)
        wanted = gram[: config.points, : config.points]
        rate = config.rate / torch.linalg.eigvalsh(wanted)[-1].item()
        for width in config.widths:
            torch.manual_seed(seed)
            sizes = (x.shape[1], *[width] * config.depth, 1)
            model = infinite.network(sizes, activation, 2**0.5, 0.1).to(x)
            found, about = entk(model, fitted)[..., 0, 0], {"activation": activation, "width": width}
            gap = found[: config.points, : config.points] - wanted
            regression = {
                "accuracy": accuracy(found, entk(model, x_test, fitted)[..., 0, 0]),
                "accuracy_expected": expected,
            }
            rows.append({"part": "kernel", **about, "error": (gap.norm() / wanted.norm()).item(), **regression})
            rows += [about | row for row in trained(model, rate)]
        return rows

    parts = [(activation,) for activation in config.activations]
    return over_seeds(
        "wide_networks", preset, config, train, one_seed, device=device(), parts=parts, folder=folder, progress=progress
    )


def quoted(result: Result) -> list[Quoted]:
    """Set R1.5 beside the run: regression with the expected kernel against one realised kernel, gains in points."""
    found = []
    for width, rows in result.frame(part="kernel", activation="relu").groupby("width"):
        gains = 100 * (rows.accuracy_expected - rows.accuracy)
        found.append(Quoted.of("R1.5", f"gain of the expected kernel, points, width {width}", None, gains))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "kernel": ("activation", "width", "error", "accuracy", "accuracy_expected"),
    "trained": (
        "activation",
        "width",
        "time",
        "loss",
        "linear_error",
        "moved",
        "kernel_change",
        "largest_move",
        "weights_change",
    ),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
