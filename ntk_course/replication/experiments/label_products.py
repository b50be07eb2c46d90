"""LANTK-HR on pairs of classes: does a kernel gain from an estimate of the label products, and what would the estimate need?"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ...analysis.regression import kernel_ridge, leave_one_out, local_elasticity
from ...course.tables import Spread
from ...kernels.infinite import dense as infinite
from ...kernels.label_aware import label_products, regressed_products, with_label_part
from ...training.sgd import device
from ..experiment import Experiment
from ..results import Quoted, Result, mean_and_sd, over_seeds
from ._common import both_splits, some_classes

CIFAR_PAIRS = ((3, 5), (2, 4), (2, 3), (1, 9), (2, 5))
MNIST_PAIRS = ((3, 5), (4, 9), (7, 9))


@dataclass(frozen=True)
class Config:
    """Settings; float64 throughout, images scaled to one norm, ridge 0 where it factorises.

    Attributes:
        data: name of the data set.
        pairs: of classes, or longer lists of them.
        sizes: training samples of a pair, None for all; a size that takes all of them is run for the first seed only.
        test: test samples of a pair at most.
        depths: hidden layers; the first one's NTK is the kernel, NNGP and NTK of all are the features of the regression.
        weights: lambda, in units of mean |K| / mean |Z|; the paper has 0.1.
        accuracies: of the signs whose products stand for a Z of known quality.
        seeds: which samples are drawn, and the signs.
    """

    data: str = "mnist"
    pairs: tuple[tuple[int, int], ...] = MNIST_PAIRS
    sizes: tuple[int | None, ...] = (500, 2000)
    test: int = 2000
    depths: tuple[int, ...] = (1, 2, 3)
    weights: tuple[float, ...] = (0.1, 1.0, 10.0)
    accuracies: tuple[float, ...] = (0.6, 0.8, 1.0)
    seeds: tuple[int, ...] = (0, 1, 2)


# "smoke" (digits), "class" (MNIST) or "paper" (CIFAR-10).
PRESETS = {
    "smoke": Config(data="digits", pairs=((3, 5),), sizes=(40,), test=20, depths=(1, 2), seeds=(0, 1)),
    "class": Config(),
    "paper": Config(data="cifar10", pairs=CIFAR_PAIRS, sizes=(1000, 4000)),
}


def corners(y: Tensor, count: int) -> Tensor:
    """Return the labels 0 to K - 1 as corners of a regular simplex of edges that fit -1 and 1, (N, K): one regression target each."""
    return (count * one_hot(y, count).double() - 1) / (count - 1)


def products(a: Tensor, b: Tensor) -> Tensor:
    """Return the products of two sets of corners, or of predictions of them: 1 within a class, -1/(K - 1) between two."""
    return a @ b.T * (a.shape[1] - 1) / a.shape[1]


def estimates(kernels: Tensor, cross: Tensor, y: Tensor, y_test: Tensor, accuracies, seed: int) -> Iterator[tuple]:
    """Yield (name, Z of the training points, Z of the test points) for every way to estimate label products.

    "constant" is a control: what a kernel gains from a bias alone. "told" is what must not be done: the training points'
    products are made of predictions that saw their own labels.
    """
    gram, other = kernels[1], cross[1]
    yield "constant", torch.ones_like(gram), torch.ones_like(other)
    for version in (1, 2):
        yield f"HR {version}", *(label_products(gram, y, h, version=version, own=h is gram) for h in (gram, other))
    yield "regression", *regressed_products(kernels, y, cross)
    count = int(y.max()) + 1
    fit = kernel_ridge(gram, corners(y, count))
    alone, elsewhere = leave_one_out(gram, corners(y, count)), fit.predict(other)
    yield "predictions", products(alone, alone), products(elsewhere, alone)
    inside = fit.predict(gram)
    yield "predictions, told", products(inside, inside), products(elsewhere, inside)
    right, wrong = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)

    def labels(t: Tensor, p: float) -> Tensor:
        """Keep a share p of the labels, and turn the others into another one."""
        keep = torch.rand(len(t), generator=right).to(t.device) < p
        others = t + torch.randint(1, count, (len(t),), generator=wrong).to(t.device)
        return corners(torch.where(keep, t, others % count), count)

    for p in accuracies:
        known, known_test = labels(y, p), labels(y_test, p)
        yield f"signs {p:.0%} right", products(known, known), products(known_test, known)


def _correlation(a: Tensor, b: Tensor) -> float | None:
    a, b = a - a.mean(), b - b.mean()
    scale = a.norm() * b.norm()
    return (a * b).sum().div(scale).item() if scale > 1e-9 * a.numel() ** 0.5 else None  # a constant has none


def compared(
    config: Config,
    classes: tuple[int, ...],
    y: Tensor,
    y_test: Tensor,
    kernels: Tensor,
    cross: Tensor,
    seed: int,
    controls: Iterable[tuple[str, Tensor, Tensor]] = (),
) -> list[dict]:
    """Regress with the second kernel as it is and with every label part, or control, at every weight; a row for each."""
    targets = corners(y, len(classes))
    truth = products(corners(y_test, len(classes)), targets)

    def row(name: str, weight: float, gram: Tensor, other: Tensor, z: Tensor | None = None) -> dict:
        about = {"pair": list(classes), "train": len(y), "estimate": name, "weight": weight}
        # a label part can make the kernel indefinite; the ridge that it then takes is part of the result
        fit = kernel_ridge(gram, targets, attempts=25)
        found = {
            "accuracy": (fit.predict(other).argmax(1) == y_test).double().mean().item(),
            "ridge": fit.ridge,
            "elasticity": local_elasticity(gram, y).item(),
            "elasticity_test": local_elasticity(other, y_test, y).item(),
        }
        if z is not None:
            found |= {
                "correlation": _correlation(z / z.abs().max(), truth),
                "within": z[truth > 0].mean().item(),
                "between": z[truth < 0].mean().item(),
            }
        return about | found

    rows = [row("none", 0.0, kernels[1], cross[1])]
    for name, z, z_cross in (*estimates(kernels, cross, y, y_test, config.accuracies, seed), *controls):
        for weight in config.weights:
            scale = weight * float(kernels[1].abs().mean() / z.abs().mean())
            mixed = with_label_part(kernels[1], z, cross[1], z_cross, scale)
            rows.append(row(name, weight, mixed.train, mixed.cross, mixed.added_cross))
    return rows


def run(config: Config, preset: str = "class", progress: bool = True, folder=None, name: str = "label_products") -> Result:
    """Compare the kernel with and without label parts; a row for each seed, pair, size, estimate and weight."""
    train, test = both_splits(config.data)

    def one_seed(seed: int, size: int | None, classes: tuple[int, ...]) -> list[dict]:
        x, y = (t.to(device()) for t in some_classes(train, classes, size, seed))
        if seed != config.seeds[0] and len(x) == int(torch.isin(train.y, torch.tensor(classes)).sum()):
            return []
        x_test, y_test = (t.to(device()) for t in some_classes(test, classes, config.test))
        networks = [{"depth": depth, "w_std": 2**0.5} for depth in config.depths]
        kernels = torch.stack([k for how in networks for k in infinite.mlp(x, **how)])
        cross = torch.stack([k for how in networks for k in infinite.mlp(x_test, x, **how)])
        return compared(config, classes, y, y_test, kernels, cross, seed)

    parts = [(size, pair) for size in config.sizes for pair in config.pairs]
    return over_seeds(name, preset, config, train, one_seed, device=device(), parts=parts, folder=folder, progress=progress)


def largest(result: Result) -> Callable[..., Quoted]:
    """Make figures of a run's largest size: from an item, words, an estimate and a value of its row and of the plain kernel's."""
    most, name = max(r["train"] for r in result.rows), result.provenance["data"]["name"]
    rows = [r for r in result.rows if r["train"] == most]
    plain = {(r["seed"], *r["pair"]): r for r in rows if r["estimate"] == "none"}

    def of(item: str, words: str, estimate: str, value) -> Quoted:
        mine = [r for r in rows if r["estimate"] == estimate and r["weight"] in (0.0, 0.1)]
        return Quoted.of(item, f"{words}, {name}, {most} images", None, [value(r, plain[r["seed"], *r["pair"]]) for r in mine])

    return of


def gain(row: dict, plain: dict) -> float:
    """Return by how many points of test accuracy a row is above the plain kernel's."""
    return 100 * (row["accuracy"] - plain["accuracy"])


def quoted(result: Result) -> list[Quoted]:
    """Set LANTK-HR beside the run: gains in points over the kernel, elasticity, and the mean of Z within and between classes."""
    of = largest(result)
    return [
        of("LANTK-HR", "gain of version 1, points", "HR 1", gain),
        of("LANTK-HR", "gain of version 2, points", "HR 2", gain),
        of("LANTK-HR", "gain with the true products, points", "signs 100% right", gain),
        of("R1.2, better Z", "gain by regression on pair features, points", "regression", gain),
        of("R1.2, better Z", "gain by predictions left out, points", "predictions", gain),
        of("R1.4", "mean of HR's Z within classes", "HR 1", lambda r, _: r["within"]),
        of("R1.4", "mean of HR's Z between classes", "HR 1", lambda r, _: r["between"]),
        of("Local elasticity", "rise on test samples", "HR 1", lambda r, p: r["elasticity_test"] - p["elasticity_test"]),
    ]


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": (
        "pair",
        "train",
        "estimate",
        "weight",
        "accuracy",
        "ridge",
        "elasticity",
        "elasticity_test",
        "correlation",
        "within",
        "between",
    ),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)


def gains(run: Result, names: Iterable[str] | None = None) -> list[dict]:
    """Set every kernel with something added beside the plain one: the gain in points, pair by pair and seed by seed.

    Args:
        run: of this experiment, or of one like it, whose rows name what was added "estimate" or "added".
        names: which of them to show, in this order; by default all.

    Returns:
        A row for each name and weight, at the largest number of training images.
    """
    key = "estimate" if "estimate" in run.rows[0] else "added"
    most = max(r.get("train", 0) for r in run.rows)
    rows = [r for r in run.rows if r.get("train", 0) == most]
    plain = {(r["seed"], *r["pair"]): r["accuracy"] for r in rows if r[key] == "none"}
    out = []
    for name in names or dict.fromkeys(r[key] for r in rows):
        for weight in sorted({r["weight"] for r in rows if r[key] == name}):
            mine = [r for r in rows if (r[key], r["weight"]) == (name, weight)]
            gain = [100 * (r["accuracy"] - plain[r["seed"], *r["pair"]]) for r in mine]
            row = {"Z" if key == "estimate" else key: name, "lambda": weight}
            if key == "estimate":
                row["accuracy, %"] = 100 * mean_and_sd([r["accuracy"] for r in mine])[0]
                row["elasticity"] = mean_and_sd([r["elasticity_test"] for r in mine])[0]
            row |= {"gain, points": Spread.of(gain), "ahead": f"{sum(g > 0 for g in gain)} of {len(gain)}"}
            out.append(row | ({"indefinite": f"{sum(r['ridge'] > 0 for r in mine)} of {len(mine)}"} if key == "estimate" else {}))
    return out
