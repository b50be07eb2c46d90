"""Lazy and rich training measured: how far kernels, features and weights move by the scale alpha and by the width."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ...analysis.laziness import kernel_derivative, kernel_distance, lazy_move, relative_change
from ...analysis.regression import alignment, gradient_flow
from ...data.datasets import Dataset
from ...kernels.bound import as_matrix
from ...kernels.named import entk, pntk
from ...models.networks import mlp
from ...models.parametrisations import NAMES, parametrised
from ...models.scale import scaled
from ...training.sgd import train
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import as_rows, both_splits, slope, together

POWERS = {"kernel": "change of the kernel", "features": "change of the features", "weights": "change of the weights"}


@dataclass(frozen=True)
class Config:
    """Settings; full-batch gradient descent on half the squared distance to one-hot labels less their mean, on the CPU.

    Attributes:
        data: name of the data set.
        train: samples learnt.
        tested: samples asked about.
        width: of two hidden layers, for the scales.
        activations: of these.
        alphas: scales, with the answer at the start taken away.
        kept: scales at which it is left in.
        steps: of gradient descent, for the scales.
        share: the rate, as a share of the largest stable one at the start.
        few: samples of two classes for the prediction to first order, float64 and tanh, trained to the end.
        few_alphas: scales there.
        widths: of two hidden layers, for the parametrisations; the first is the base.
        hows: parametrisations.
        width_steps: of gradient descent there, at a quarter of the rate, with the answer at the start taken away.
        seeds: of the networks.
    """

    data: str = "mnist"
    train: int = 200
    tested: int = 1000
    width: int = 128
    activations: tuple[str, ...] = ("tanh", "relu")
    alphas: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
    kept: tuple[float, ...] = (0.25, 1.0, 4.0, 16.0)
    steps: int = 2000
    share: float = 0.2
    few: int = 10
    few_alphas: tuple[float, ...] = (4.0, 16.0, 64.0, 256.0)
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    hows: tuple[str, ...] = ("ntk", "mup", "standard")
    width_steps: int = 1000
    seeds: tuple[int, ...] = tuple(range(5))


# "smoke", "class" (digits, three seeds) or "paper" (MNIST).
PRESETS = {
    "smoke": Config(
        data="digits", train=30, tested=50, width=16, alphas=(0.5, 8.0), kept=(1.0,), steps=20, few=4, few_alphas=(16.0, 64.0),
        widths=(16, 64), width_steps=5, seeds=(0, 1),
    ),
    "class": Config(data="digits", tested=500, seeds=(0, 1, 2)),
    "paper": Config(),
}  # fmt: skip


def descend(model: nn.Module, x: Tensor, t: Tensor, rate: float, steps: int) -> float:
    """Take steps of gradient descent on half the mean squared distance; return the loss then, infinite where it diverged."""
    how = {"loss": "squared", "batch_size": None, "each_epoch": False, "progress": False}
    try:
        return float(train(model, x, t, epochs=steps, lr=rate, **how).loss[-1])
    except ArithmeticError:
        return math.inf


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Train at every scale and under every parametrisation; a row for each seed and network."""
    learnt, test = both_splits(config.data)
    data = together([learnt, test])
    (x, y), (x_test, y_test) = (_some(part, count) for part, count in ((learnt, config.train), (test, config.tested)))
    targets = one_hot(y, 10).float()
    targets = targets - targets.mean(1, keepdim=True)

    def changes(net: nn.Sequential, before: tuple) -> dict:
        kernel, features, weights = _state(net, x)
        moved = [(after - first).square().sum() for first, after in zip(before[2], weights, strict=True)]
        return {
            "kernel": float(relative_change(before[0], kernel)),
            "turned": float(kernel_distance(before[0], kernel)),
            "features": float(relative_change(before[1], features)),
            "weights": float((sum(moved) / sum(w.square().sum() for w in before[2])).sqrt()),
            "alignment": float(alignment(kernel, y)),
        }

    def at_scales(seed: int, activation: str, centred: bool) -> list[dict]:
        rows = []
        wanted = linear = None
        for alpha in config.alphas if centred else config.kept:
            torch.manual_seed(seed)
            net = parametrised((x[0].numel(), config.width, config.width, 10), "ntk", base=config.width, activation=activation)
            before = _state(net, x)
            if wanted is None:
                gram = as_matrix(entk(net, x)).double()
                cross = as_matrix(entk(net, x_test, x)).double()
                rate = config.share * 2 * len(x) / float(torch.linalg.eigvalsh(gram)[-1])
                wanted = gradient_flow(gram, cross, targets.flatten().double(), rate * config.steps / len(x)).view(-1, 10)
                linear = float((wanted.argmax(1) == y_test).double().mean())
            h = scaled(net, alpha, centred=centred)
            loss = descend(h, x, targets, rate / alpha**2, config.steps)
            with torch.no_grad():
                answer = h(x_test)
            rows.append(
                {
                    "part": "scale",
                    "activation": activation,
                    "centred": centred,
                    "alpha": alpha,
                    "loss": loss,
                    **changes(net, before),
                    "aligned_before": float(alignment(before[0], y)),
                    "from_linear": float((answer - wanted).norm() / wanted.norm()),
                    "accuracy": float((answer.argmax(1) == y_test).double().mean()),
                    "linear_accuracy": linear,
                }
            )
        return rows

    def predicted(seed: int) -> list[dict]:
        sides = (y % 2 * 2 - 1)[: config.few].double()
        some, rows = x[: config.few].double(), []
        for alpha in config.few_alphas:
            torch.manual_seed(seed)
            net = mlp((x[0].numel(), config.width, 1), "tanh").double()
            before = pntk(net, some)
            coming = kernel_derivative(net, some, lazy_move(net, some, sides))
            values = torch.linalg.eigvalsh(before)
            steps = int(20 * float(values[-1] / values[0]))
            descend(scaled(net, alpha), some, sides[:, None], config.few / float(values[-1]) / alpha**2, steps)
            change = alpha * (pntk(net, some) - before)
            rows.append(
                {
                    "part": "predicted",
                    "alpha": alpha,
                    "kernel": float(change.norm() / before.norm()) / alpha,
                    "missed": float((change - coming).norm() / coming.norm()),
                }
            )
        return rows

    def at_widths(seed: int, how: str) -> list[dict]:
        rows = []
        for width in config.widths:
            torch.manual_seed(seed)
            net = parametrised((x[0].numel(), width, width, 10), how, base=config.widths[0])
            before = _state(net, x)
            if width == config.widths[0]:
                gram = as_matrix(entk(net, x)).double()
                rate = config.share / 4 * 2 * len(x) / float(torch.linalg.eigvalsh(gram)[-1])
            h = scaled(net, 1.0)
            loss = descend(h, x, targets, rate * net.rate_factor, config.width_steps)
            if math.isinf(loss):
                rows.append({"part": "width", "how": how, "width": width, "loss": math.inf})
                continue
            with torch.no_grad():
                accuracy = float((h(x_test).argmax(1) == y_test).double().mean())
            rows.append({"part": "width", "how": how, "width": width, "loss": loss, **changes(net, before), "accuracy": accuracy})
        return rows

    def one_seed(seed: int, part: str, *which) -> list[dict]:
        return {"scale": at_scales, "predicted": predicted, "width": at_widths}[part](seed, *which)

    parts = [
        *(("scale", activation, centred) for activation in config.activations for centred in (True, False)),
        ("predicted",),
        *(("width", how) for how in config.hows),
    ]
    where = torch.device("cpu")
    return over_seeds("laziness", preset, config, data, one_seed, device=where, parts=parts, folder=folder, progress=progress)


def _some(data: Dataset, count: int) -> tuple[Tensor, Tensor]:
    """Return the first samples as rows of norm sqrt(d)."""
    return as_rows(data.x[:count]), data.y[:count]


def _state(net: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the pseudo kernel, what enters the last layer, and the weights."""
    with torch.no_grad():
        return pntk(net, x), net[:-1](x), [p.detach().clone() for p in net.parameters()]


def quoted(result: Result) -> list[Quoted]:
    """Set the rates of the theory beside the run: powers of the scale and of the width."""
    found = []

    def slopes(rows, along: str, key: str) -> list[float]:
        return [slope(mine[along], mine[key]) for _, mine in rows.groupby("seed")]

    high = max(result.provenance["config"]["alphas"])
    for activation in result.provenance["config"]["activations"]:
        rows = result.frame(part="scale", activation=activation, centred=True)
        rows = rows[rows.alpha >= high / 16]
        for key, words in POWERS.items():
            said = -1 if key == "weights" else None  # of features and kernel the theorem says nothing
            found.append(Quoted.of("Lazy training", f"power of alpha, {words}, {activation}", said, slopes(rows, "alpha", key)))
    rows = result.frame(part="predicted", alpha=max(result.provenance["config"]["few_alphas"]))
    found.append(Quoted.of("Lazy training", "share of the kernel's change not predicted", 0, rows.missed))
    for how in ("ntk", "mup"):
        rows = result.frame(part="width", how=how)
        for key, words in POWERS.items():
            found.append(
                Quoted.of(
                    "Limits of wide networks", f"power of the width, {words}, {NAMES[how]}", None, slopes(rows, "width", key)
                )
            )
    return found


# Columns of the rows, by their part; "seed" is added to each.
_CHANGES = ("kernel", "turned", "features", "weights", "alignment")
COLUMNS = {
    "scale": (
        "activation", "centred", "alpha", "loss", *_CHANGES, "aligned_before", "from_linear", "accuracy", "linear_accuracy",
    ),
    "predicted": ("alpha", "kernel", "missed"),
    "width": ("how", "width", "loss", *_CHANGES, "accuracy"),
}  # fmt: skip

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, of_ours=True)
