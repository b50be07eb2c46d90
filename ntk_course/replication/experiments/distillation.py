"""How much of a data set do a few points carry that are made for a kernel, and for whom else?"""

from dataclasses import dataclass

import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ...analysis.distillation import distil
from ...analysis.regression import kernel_ridge
from ...analysis.selection import forward_selection
from ...kernels.infinite import expectations, network
from ...kernels.infinite import mlp as infinite_mlp
from ...models.scale import scaled
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import as_rows, both_splits, together


@dataclass(frozen=True)
class Config:
    """Settings; rows of norm sqrt(d), float64, on the CPU.

    Attributes:
        data: name of the data set.
        lessons: training images.
        counts: points for each class; of those selected one after another, on average.
        ridge: of all regressions, a share of the kernel's mean diagonal.
        w_std: sigma_w of the kernel for which points are made, of one hidden layer of erf units.
        b_std: likewise.
        steps: of Adam on the points.
        lr: its rate.
        width: hidden units of finite networks that start at zero and are trained on the points.
        epochs: steps of Adam of these, on the squared errors of all points.
        rate: of these steps.
        seeds: of the draws of images, and of networks.
    """

    data: str = "mnist"
    lessons: int = 5000
    counts: tuple[int, ...] = (1, 10)
    ridge: float = 1e-3
    w_std: float = 2**0.5
    b_std: float = 0.1
    steps: int = 1000
    lr: float = 0.02
    width: int = 512
    epochs: int = 500
    rate: float = 0.01
    seeds: tuple[int, ...] = tuple(range(5))


# "smoke" and "class" on the digits, "paper" on MNIST; all on a CPU.
PRESETS = {
    "smoke": Config(data="digits", lessons=60, counts=(1,), steps=5, width=16, epochs=5, seeds=(0, 1)),
    "class": Config(data="digits", lessons=1000, counts=(1, 2, 5, 10), steps=300, width=256),
    "paper": Config(),
}


def erf_kernel(a: Tensor, b: Tensor, w_std: float, b_std: float) -> Tensor:
    """Return the NTK of one hidden layer of erf units, with its derivative in the points; the limit's own keeps none."""
    cross, own, other = (w_std**2 * k / a.shape[1] + b_std**2 for k in (a @ b.T, a.square().sum(1)[:, None], b.square().sum(1)))
    values, slopes = expectations("erf", cross, own, other)
    return w_std**2 * values + b_std**2 + w_std**2 * slopes * cross


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Choose or make points, and learn from them by four learners; a row has the test accuracies of one set of points."""
    learnt, test = both_splits(config.data)
    data, classes = together([learnt, test]), learnt.num_classes
    asked, wanted = as_rows(test.x.double()), test.y

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return erf_kernel(a, b, config.w_std, config.b_std)

    def accuracies(x: Tensor, targets: Tensor, seed: int) -> dict[str, float]:
        """Return how often learners are right on the test images that see these points alone."""

        def right(z: Tensor) -> float:
            return float((z.argmax(1) == wanted).double().mean())

        found = {}
        how = {"w_std": config.w_std, "b_std": config.b_std}
        for name, of in (
            ("same kernel", kernel),
            ("deeper kernel", lambda a, b: infinite_mlp(a, b, depth=3, **how).ntk),
        ):
            gram = of(x, x)
            gram = (gram + gram.T) / 2
            fit = kernel_ridge(gram, targets, config.ridge * float(gram.diagonal().mean()))
            found[name] = right(fit.predict(of(asked, x)))
        for name, activation in (("network of the kernel", "erf"), ("network of ReLUs", "relu")):
            torch.manual_seed(seed)
            net = scaled(network((x.shape[1], config.width, classes), activation, **how).double(), 1.0)  # starts at zero
            _adam(net, x, targets, config.epochs, config.rate)
            with torch.no_grad():
                found[name] = right(net(asked))
        return found

    def one_seed(seed: int) -> list[dict]:
        draw = torch.Generator().manual_seed(seed)
        some = torch.randperm(len(learnt.x), generator=draw)[: config.lessons]
        x, y = as_rows(learnt.x[some].double()), learnt.y[some]
        targets = one_hot(y, classes).double() - 1 / classes
        rows = [{"points": "all", "count": len(x), "loss": 0.0} | accuracies(x, targets, seed)]
        order = forward_selection(kernel(x, x), targets, classes * max(config.counts), config.ridge).indices
        for count in config.counts:
            best = order[: classes * count]
            chosen = torch.cat([(y == k).nonzero()[:count, 0] for k in range(classes)])
            means = torch.cat([_means(x[y == k], count, seed) for k in range(classes)])
            labels = targets[chosen]
            how = {"ridge": config.ridge, "steps": config.steps, "lr": config.lr, "progress": False}
            made = distil(kernel, x, targets, x[chosen], labels, **how)
            both = distil(kernel, x, targets, x[chosen], labels, learn_targets=True, **how)
            for name, points, values in (
                ("drawn", x[chosen], labels),
                ("selected", x[best], targets[best]),
                ("means of clusters", means, labels),
                ("made", made.x, labels),
                ("made, with targets", both.x, both.targets),
            ):
                gram = kernel(points, points)
                fit = kernel_ridge((gram + gram.T) / 2, values, config.ridge * float(gram.diagonal().mean()))
                loss = float((targets - fit.predict(kernel(x, points))).square().mean())
                rows.append({"points": name, "count": count, "loss": loss} | accuracies(points, values, seed))
        return rows

    return over_seeds(
        "distillation", preset, config, data, one_seed, device=torch.device("cpu"), folder=folder, progress=progress
    )


def _adam(net: nn.Module, x: Tensor, targets: Tensor, steps: int, lr: float) -> None:
    """Train a network to answer with the targets."""
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (net(x) - targets).square().mean().backward()
        optimizer.step()


def _means(x: Tensor, count: int, seed: int) -> Tensor:
    """Return the means of a class's clusters, scaled as images are."""
    found = KMeans(min(count, len(x)), n_init=3, random_state=seed).fit(x.numpy()).cluster_centers_
    return as_rows(torch.as_tensor(found, dtype=x.dtype))


def quoted(result: Result) -> list[Quoted]:
    """Set what made points are worth more than drawn ones and than means of clusters, for two learners, beside the run."""
    found = []
    for count, rows in result.frame().groupby("count"):
        for learner in ("same kernel", "network of ReLUs"):
            by = rows.pivot(index="seed", columns="points", values=learner)
            if "made" in by:
                for other in ("drawn", "selected", "means of clusters"):
                    words = f"accuracy of the {learner}, {count} made points a class less {other}"
                    found.append(Quoted.of("Kernel inducing points", words, None, (100 * (by["made"] - by[other])).tolist()))
    return found


# Columns of the rows; "seed" is added to each.
COLUMNS = {
    "": ("points", "count", "loss", "same kernel", "deeper kernel", "network of the kernel", "network of ReLUs"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, of_ours=True)
