"""What a kernel will have learnt from n samples: predicted from its spectrum and from the samples alone, and measured."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ...analysis.eigenframework import LearningCurve, learning_curve, risk_estimate
from ...analysis.regression import kernel_ridge, leave_one_out, spectrum
from ...kernels.infinite import mlp as infinite_mlp
from ...kernels.named import pntk
from ...models.networks import mlp
from ...training.sgd import train
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import as_rows, both_splits, together

KERNELS = {
    "infinite": "infinite NTK",
    "linear": "linear kernel",
    "start": "network at the start",
    "trained": "network, trained",
}

RIDGE = 1e-2  # of the figures set beside the theory: small, and large enough for a linear kernel


@dataclass(frozen=True)
class Config:
    """Settings; regression on one-hot labels less their mean, inputs of norm sqrt(d), float64, on the CPU.

    Attributes:
        data: name of the data set.
        pool: images of the training split, taken at random, that stand for the distribution: samples are drawn from them, the
            error is over all of them, and their spectrum makes the prediction.
        tested: images of the test split, which the pool's spectrum has not seen.
        kernels: of :data:`KERNELS`.
        depth: hidden layers of ReLUs, of every network.
        width: of the finite network.
        lessons: images of the training split outside the pool that the finite network is trained on.
        epochs: passes over them.
        sizes: samples drawn.
        ridges: what is added to the diagonal, as shares of the kernel's mean diagonal.
        flipped: share of the drawn labels that are replaced by a class at random, beside none.
        seeds: of the draws.
    """

    data: str = "mnist"
    pool: int = 5000
    tested: int = 2000
    kernels: tuple[str, ...] = ("infinite", "linear", "start", "trained")
    depth: int = 2
    width: int = 256
    lessons: int = 4000
    epochs: int = 5
    sizes: tuple[int, ...] = (10, 20, 50, 100, 200, 500)
    ridges: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
    flipped: tuple[float, ...] = (0.0, 0.2)
    seeds: tuple[int, ...] = tuple(range(15))


# "smoke", "class" (digits, ten draws), "paper" (MNIST) or "narrow" (CIFAR-10, on a CPU).
PRESETS = {
    "smoke": Config(
        data="digits", pool=120, tested=50, width=32, lessons=100, epochs=1, sizes=(10, 30), ridges=(1e-2, 1.0), seeds=(0, 1)
    ),
    "class": Config(data="digits", pool=800, tested=300, lessons=600, sizes=(10, 20, 50, 100), seeds=tuple(range(10))),
    "paper": Config(),
    "narrow": Config(data="cifar10"),
}


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Draw, fit and predict; a row for each draw, kernel, number of samples, share of flipped labels and ridge."""
    learnt, test = both_splits(config.data)
    data = together([learnt, test])
    classes = data.num_classes
    order = torch.randperm(len(learnt.x), generator=torch.Generator().manual_seed(0))
    pool, others = order[: config.pool], order[config.pool : config.pool + config.lessons]
    x, y, lessons, answers = (
        as_rows(learnt.x[pool].double()),
        learnt.y[pool],
        as_rows(learnt.x[others].double()),
        learnt.y[others],
    )
    asked, asked_y = as_rows(test.x[: config.tested].double()), test.y[: config.tested]
    wanted, asked_wanted = _centred(y, classes), _centred(asked_y, classes)

    @cache
    def world(name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the kernel of the pool, of the asked with the pool, and the spectrum with the target's coefficients."""
        gram, cross = _kernel(name, config, x, asked, lessons, answers)
        unit = gram.diagonal().mean()
        gram, cross = gram / unit, cross / unit
        values, shares = spectrum(gram, wanted)
        return gram, cross, values.clamp(min=0) / len(gram), (shares * wanted.square().sum() / len(gram)).sqrt()

    @cache
    def theory(name: str, size: int, share: float, ridge: float) -> LearningCurve:
        """Predict for labels of which a share is replaced, whatever is drawn."""
        *_, values, coefficients = world(name)
        return learning_curve(values, (1 - share) * coefficients, size, ridge=ridge, noise=noise(share))

    def noise(share: float) -> float:
        """Return the variance: a replaced label keeps 1 - share of its target on average, the rest of its length is noise."""
        return (1 - 1 / classes) * (1 - (1 - share) ** 2)

    def one_seed(seed: int, name: str) -> list[dict]:
        gram, cross, *_ = world(name)
        rows = []
        for size in config.sizes:
            draw = torch.Generator().manual_seed(1000 * seed + size)
            chosen = torch.randperm(len(gram), generator=draw)[:size]
            columns, asking = gram[chosen].T, cross[:, chosen]
            own = columns[chosen]
            other = torch.randint(classes, (size,), generator=draw)
            luck = torch.rand(size, generator=draw)
            for share in config.flipped:
                targets = _centred(torch.where(luck < share, other, y[chosen]), classes)
                for ridge in config.ridges:
                    fit = kernel_ridge(own, targets, ridge)
                    everywhere, new = fit.predict(columns), fit.predict(asking)
                    curve = theory(name, size, share, ridge)
                    rows.append(
                        {
                            "kernel": name,
                            "samples": size,
                            "flipped": share,
                            "ridge": ridge,
                            "error": _distance(everywhere, (1 - share) * wanted) + noise(share),
                            "predicted": curve.test_error,
                            "training": _distance(everywhere[chosen], targets),
                            "predicted_training": curve.training_error,
                            "estimate": float(risk_estimate(own, targets, ridge).sum()),
                            "left_out": _distance(leave_one_out(own, targets, ridge), targets),
                            "new": _distance(new, (1 - share) * asked_wanted) + noise(share),
                            "accuracy": float((new.argmax(1) == asked_y).double().mean()),
                        }
                    )
        return rows

    parts = [(name,) for name in config.kernels]
    where = torch.device("cpu")
    return over_seeds(
        "learning_curves", preset, config, data, one_seed, device=where, parts=parts, folder=folder, progress=progress
    )


def _centred(y: Tensor, classes: int) -> Tensor:
    """Return one-hot labels less their mean over classes."""
    return one_hot(y, classes).double() - 1 / classes


def _distance(a: Tensor, b: Tensor) -> float:
    """Return the mean over samples of the squared distance, summed over classes."""
    return float((a - b).square().sum(1).mean())


def _kernel(name: str, config: Config, x: Tensor, asked: Tensor, lessons: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    """Return a kernel of the pool, and of the images asked about with the pool."""
    if name == "linear":
        return x @ x.T, asked @ x.T
    if name == "infinite":
        how = {"depth": config.depth, "w_std": 2**0.5}
        return infinite_mlp(x, **how).ntk, infinite_mlp(asked, x, **how).ntk
    torch.manual_seed(0)
    net = mlp((x.shape[1], *[config.width] * config.depth, int(answers.max()) + 1), "relu").double()
    if name == "trained":
        train(net, lessons, answers, epochs=config.epochs, lr=0.1, batch_size=50, each_epoch=False, progress=False)
    return pntk(net, x), pntk(net, asked, x)


def over_draws(result: Result, **where):
    """Return means over draws, a line for each setting."""
    keys = ["kernel", "flipped", "ridge", "samples"]
    return result.frame(**where).groupby(keys, sort=False).mean(numeric_only=True).drop(columns="seed").reset_index()


def undrawn(result: Result):
    """Return the rows with right labels, and in "others" the error on images of the pool that were not drawn."""
    rows = result.frame(flipped=0.0)
    drawn = rows.samples / result.provenance["config"]["pool"]
    return rows.assign(others=(rows.error - drawn * rows.training) / (1 - drawn))


def quoted(result: Result) -> list[Quoted]:
    """Set what the theory says beside the run: measured over predicted, 1 where it is right."""
    found, rows = [], undrawn(result)
    rows = rows[rows.ridge == RIDGE].assign(curve=lambda r: r.error / r.predicted, risk=lambda r: r.estimate / r.others)
    for name, mine in rows.groupby("kernel", sort=False):
        ratios = mine.groupby("seed").curve.mean()
        found.append(Quoted.of("Learning curves", f"error measured over predicted, {KERNELS[name]}", 1, ratios))
    ratios = rows.groupby("seed").risk.mean()
    found.append(Quoted.of("Risk from the samples alone", "estimated over measured error on images not drawn", 1, ratios))
    return found


# Columns of the rows; "seed" is added to each.
COLUMNS = {
    "": (
        "kernel", "samples", "flipped", "ridge", "error", "predicted", "training", "predicted_training", "estimate", "left_out", "new",
        "accuracy",
    ),
}  # fmt: skip

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, of_ours=True)
