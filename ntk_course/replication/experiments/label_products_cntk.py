"""LANTK-HR as its authors ran it: on the CNTK of seven convolutions, beside a CNN of that architecture."""

from dataclasses import dataclass

import torch
from torch import nn

from ...kernels.infinite.convolutional import cntk
from ...training.sgd import device, train
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from . import label_products
from ._common import both_splits, some_classes
from .label_free import controls
from .label_products import compared, gain, largest


@dataclass(frozen=True)
class Config(label_products.Config):
    """Settings of :mod:`label_products`, and of the networks.

    Attributes:
        data: name of the data set.
        pairs: of classes.
        sizes: training samples of a pair, None for all.
        test: test samples of a pair at most.
        depths: convolutions, one number; the NNGP and the NTK of that network are the features of the regression.
        weights: lambda, in units of mean |K| / mean |Z|; the paper has 0.1.
        accuracies: of the signs whose products stand for a Z of known quality.
        seeds: which samples are drawn, the signs, and the CNN's initial weights.
        powers: of the kernel, controls without labels.
        width: channels of every convolution of the CNN.
        epochs: of its training.
        lr: its learning rate, with momentum 0.9; at 0.01 no network of the class preset learns.
    """

    data: str = "cifar10"
    pairs: tuple[tuple[int, int], ...] = ((3, 5), (2, 4), (1, 9))
    sizes: tuple[int | None, ...] = (400,)
    test: int = 400
    depths: tuple[int, ...] = (7,)
    seeds: tuple[int, ...] = (0, 1, 2)
    powers: tuple[int, ...] = (2, 3)
    width: int = 32
    epochs: int = 30
    lr: float = 0.003


# "smoke" (digits), "class" (one pair, 200 images), "paper" (three pairs, 400) or "cifar10" (all 10,000 of a pair).
PRESETS = {
    "smoke": Config(data="digits", pairs=((3, 5),), sizes=(30,), test=20, depths=(2,), seeds=(0,), width=4, epochs=3),
    "class": Config(pairs=((3, 5),), sizes=(200,), test=200, seeds=(0,)),
    "paper": Config(),
    "cifar10": Config(pairs=((3, 5),), sizes=(None,), test=2000, seeds=(0,), width=128),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Compare the CNTK with and without label parts, and train the CNN; a row for each, as in :mod:`label_products`.

    The CNN's ``accuracy`` is that of its last epoch, ``best`` that of the epoch best on the test samples (R4.1).
    Head "flatten" for both: the CNTK of global average pooling is a thousand times the work.
    """
    data, test = both_splits(config.data)
    shape, (depth,) = data.x.shape[1:], config.depths

    def one_seed(seed: int, size: int | None, classes: tuple[int, int]) -> list[dict]:
        (x, y), (a, b) = some_classes(data, classes, size, seed), some_classes(test, classes, config.test)
        x, y, a, b = (t.to(device()) for t in (x.unflatten(1, shape), y, a.unflatten(1, shape), b))
        kernels, cross = (torch.stack([*cntk(u, v, depth=depth, progress=progress)]) for u, v in ((x, None), (a, x)))
        torch.manual_seed(seed)
        net = cnn(shape, config.width, depth).to(x.device)
        how = {"epochs": config.epochs, "lr": config.lr, "momentum": 0.9, "batch_size": 128, "seed": seed, "progress": False}
        history = train(net, x.float(), y, validation=(a.float(), b), **how)
        curve, about = history.validation.double(), {"pair": list(classes), "train": len(x), "estimate": "CNN", "weight": 0.0}
        scores = {"accuracy": curve[-1].item(), "best": curve.max().item(), "fitted": history.accuracy[-1].item()}
        bent = controls(kernels[1], cross[1], y, config.powers, seed)
        return [about | scores, *compared(config, classes, y, b, kernels, cross, seed, bent)]

    how = {"device": device(), "folder": folder, "progress": progress}
    how["parts"] = [(size, pair) for size in config.sizes for pair in config.pairs]
    return over_seeds("label_products_cntk", preset, config, data, one_seed, **how)


def cnn(shape: torch.Size, width: int, depth: int) -> nn.Sequential:
    """Build the network whose infinitely wide kernel is cntk's with the head "flatten"; two outputs.

    Its initial weights have cntk's variance, 2 over the inputs of a neuron, and no layer has a bias. With torch's own
    weights, a sixth of that variance, the image is lost on the way through seven layers, and SGD stays at chance.
    """
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Conv2d(width if i else shape[0], width, 3, padding=1, bias=False), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * shape[1] * shape[2], 2, bias=False))
    for weight in net.parameters():
        nn.init.kaiming_normal_(weight)
    return net


def quoted(result: Result) -> list[Quoted]:
    """Give test accuracies of the CNN and the CNTK in per cent, and LANTK-HR's gains over the CNTK in points."""
    of = largest(result)

    def accuracy(row: dict, _) -> float:
        return 100 * row["accuracy"]

    def best_less_last(row: dict, _) -> float:
        return 100 * (row["best"] - row["accuracy"])

    return [
        of("R2.3, R3.1", "test accuracy of the CNN", "CNN", accuracy),
        of("R4.1", "test accuracy of the CNN at its best epoch less that of its last, points", "CNN", best_less_last),
        of("R2.3, R3.1", "training accuracy of the CNN", "CNN", lambda row, _: 100 * row["fitted"]),
        of("R2.3, R3.1", "test accuracy of its CNTK", "none", accuracy),
        of("R2.3, R3.1", "gain of version 1 over the CNTK, points", "HR 1", gain),
        of("R2.3, R3.1", "gain of version 2 over the CNTK, points", "HR 2", gain),
        of("R2.3, R3.1", "gain with the true products over the CNTK, points", "signs 100% right", gain),
        of("R2.3, R3.1", "gain of version 1 with shuffled labels over the CNTK, points, control", "HR 1, shuffled", gain),
        of("R2.3, R3.1", "gain of the CNTK's square, points, control", "K^2", gain),
        of("R2.3, R3.1", "gain of the CNTK's cube, points, control", "K^3", gain),
    ]


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": (
        "pair",
        "train",
        "estimate",
        "weight",
        "accuracy",
        "best",
        "fitted",
        "ridge",
        "elasticity",
        "elasticity_test",
        "correlation",
        "within",
        "between",
    ),
}

# Of the preset "cifar10", a seed on an H100; reckoned from operations, not measured.
EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, seconds_on_a_gpu=200)
