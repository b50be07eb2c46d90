"""Claim 2.1, R1.3 and R2.2 of the LANTK reply: one set of inputs, two label systems; kernels trained on either, and LANTK-HR."""

from dataclasses import dataclass

import torch
from sklearn.preprocessing import KernelCenterer
from torch import Tensor, nn

from ...analysis.regression import kernel_ridge, local_elasticity, spectrum
from ...data.datasets import load
from ...kernels.label_aware import lantk_hr
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
        points: training images, and as many others to predict.
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


def kernels_alike(grams: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]) -> float:
    """Return the alignment of two kernels, each a Gram matrix (N, N) and its block (M, N) of other points: the block's centred cosine."""
    a, b = (
        torch.from_numpy(KernelCenterer().fit(gram.numpy(force=True)).transform(cross.numpy(force=True)))
        for gram, cross in (grams, others)
    )
    return ((a * b).sum() / (a.norm() * b.norm())).item()


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Compare the initial kernel, LANTK-HR made of it, and the trained networks' kernels under both systems; and four points.

    Part "four points" is Claim 2.1. Part "elasticity" has every kernel under both systems. Part "network" has the initial
    kernel and HR with the system's labels beside the network trained on them, all on held-out images: how much their kernels
    with the training images are ``alike``, for how many a regression ``agrees`` with the network, and how many either has right.
    """
    data = load("digits")
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)

    def one_seed(seed: int) -> list[dict]:
        rows = []
        for name, y in (("first sign", corners[:, 0]), ("product", corners.prod(dim=1))):
            values, shares = spectrum(corners @ corners.T, y)
            rows.append({"part": "four points", "labels": name, "share": shares[values > 1e-9].sum().item()})
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
        both = order[: 2 * config.points]
        images, digit = data.x[both].to(device(), torch.float64), data.y[both].to(device())
        x, x_test = images[: config.points], images[config.points :]
        systems = {"odd or even": digit % 2, "small or large": (digit >= 5).long()}
        torch.manual_seed(seed)
        start = mlp((x[0].numel(), *config.hidden, 2)).to(x)

        def kernels(net: nn.Module) -> list[Tensor]:
            return [entk(net, *pair).diagonal(dim1=2, dim2=3).sum(2) for pair in ((x,), (x_test, x))]

        def trained(y: Tensor) -> nn.Module:
            return train_path(start, x, y, steps=config.steps, lr=config.lr, zero_output=False, progress=False).model_at(-1)

        plain, cross = kernels(start)
        grams = {"nothing": plain}
        for name, labels in systems.items():
            y, y_test = labels[: config.points], labels[config.points :]
            net = trained(y)
            grams[name], trained_cross = kernels(net)
            hr = lantk_hr(plain, y, cross)
            grams[f"HR, {name}"] = hr.train
            answers = net(x_test).argmax(1)
            for kernel, gram, other in (("NTK", plain, cross), ("HR", hr.train, hr.cross)):
                fit = kernel_ridge(gram, 2.0 * y - 1, attempts=25)
                found = (fit.predict(other) > 0).long()
                about = {"part": "network", "system": name, "kernel": kernel, "ridge": fit.ridge}
                about["alike"] = kernels_alike((gram, other), (grams[name], trained_cross))
                shares = {"agrees": found == answers, "accuracy": found == y_test, "network_accuracy": answers == y_test}
                rows.append(about | {key: hits.double().mean().item() for key, hits in shares.items()})
        # a control: half of the images, drawn at random, are one class
        grams["random labels"] = kernels(trained((order[: config.points].argsort() % 2).to(x.device)))[0]
        for name, gram in grams.items():
            for system, labels in systems.items():
                about = {"part": "elasticity", "trained_on": name, "system": system}
                rows.append(about | {"elasticity": local_elasticity(gram, labels[: config.points]).item()})
        return rows

    return over_seeds("label_systems", preset, config, data, one_seed, device=device(), folder=folder, progress=progress)


def quoted(result: Result) -> list[Quoted]:
    """Set Claim 2.1, R1.3 and R2.2 beside the run: shares of labels that a kernel reaches, elasticity, and who is near the network."""
    item, found = "R1.3, Claim 2.1", []
    for row in result.frame(part="four points", seed=result.rows[0]["seed"]).itertuples():
        words = f'share of the labels "{row.labels}" that a linear kernel of four points reaches'
        found.append(Quoted.of(item, words, None, [row.share]))
    for (trained, system), rows in result.frame(part="elasticity").groupby(["trained_on", "system"], sort=False):
        found.append(Quoted.of(item, f"elasticity under {system}, trained on {trained}", None, rows.elasticity))
    for (system, kernel), rows in result.frame(part="network").groupby(["system", "kernel"], sort=False):
        for item, key, words in (
            ("R2.2", "alike", f"alignment of {kernel} with the trained kernel"),
            ("R2.2", "agrees", f"share of answers of {kernel} that are the network's"),
            ("R1.3, Claim 2.1", "accuracy", f"test accuracy of {kernel}"),
        ):
            found.append(Quoted.of(item, f"{words}, {system}", None, rows[key]))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "four points": ("labels", "share"),
    "elasticity": ("trained_on", "system", "elasticity"),
    "network": ("system", "kernel", "ridge", "alike", "agrees", "accuracy", "network_accuracy"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
