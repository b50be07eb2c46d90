"""Which scores of training images foresee what networks answer that are trained without some of them?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import one_hot

from ...analysis.attribution import datamodelling_score, leave_one_out_effects, trak
from ...analysis.laplace import Laplace
from ...gram.operator import Gram
from ...kernels.bound import empirical
from ...kernels.infinite import mlp as infinite_mlp
from ...kernels.paths import dpk, epk
from ...models.networks import mlp
from ...tangents.cotangents import basis, log_odds, loss_gradient
from ...training.ensemble import train_ensemble
from ...training.path import TrainingPath
from ...training.record import train_path
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import as_rows, both_splits, together

# Shares of the kernel's mean diagonal, or of the mean curvature, that are added to what is inverted.
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
# Log odds are no larger than this: float64 knows no probabilities nearer to 1.
_MOST = 30.0


@dataclass(frozen=True)
class Config:
    """Settings; rows of norm sqrt(d), float64, on the CPU.

    Attributes:
        data: name of the data set.
        lessons: training images, N.
        tested: test images whose answers are attributed.
        width: hidden units of the one layer, of tanh, which has no kinks.
        steps: of gradient descent on all images at once, without momentum, so that an exact path kernel adds up.
        lr: its rate.
        members: networks trained on all images, over which scores are averaged.
        subsets: halves of the images on which networks are trained, and scores judged.
        others: halves beside these, from which a linear regression learns scores.
        repeats: networks trained on each half, whose answers are averaged.
        removed: images that are taken away, those that score highest for one test image.
        asked: test images for which that is done.
        checkpoints: moments of training that TracIn adds up.
        seeds: of the draws of images and halves, and of networks.
    """

    data: str = "mnist"
    lessons: int = 500
    tested: int = 200
    width: int = 64
    steps: int = 300
    lr: float = 0.3
    members: int = 5
    subsets: int = 100
    others: int = 400
    repeats: int = 5
    removed: int = 25
    asked: int = 20
    checkpoints: int = 10
    seeds: tuple[int, ...] = tuple(range(5))


# "smoke" and "class" on the digits, "paper" on MNIST; all on a CPU.
PRESETS = {
    "smoke": Config(
        data="digits",
        lessons=24,
        tested=5,
        width=8,
        steps=12,
        members=2,
        subsets=8,
        others=6,
        repeats=2,
        removed=3,
        asked=2,
        checkpoints=3,
        seeds=(0, 1),
    ),
    "class": Config(data="digits", lessons=200, tested=60, steps=200, members=3, others=200, repeats=3, removed=10),
    "paper": Config(),
}

# From a trained path, images with labels and test images with labels to scores (M, N): what each image adds to the odds of the label.
Method = Callable[[TrainingPath, Tensor, Tensor, Tensor, Tensor], Tensor]


def at_the_end(path: TrainingPath, x: Tensor, y: Tensor, asked: Tensor, labels: Tensor) -> Tensor:
    """One step more on each image, to first order."""
    return Gram(path.model_at(-1), asked, log_odds(labels), x, loss_gradient(y)).dense()


def along(path: TrainingPath, x: Tensor, y: Tensor, asked: Tensor, labels: Tensor, checkpoints: int) -> Tensor:
    """TracIn: the same at several moments of the path, added up (Pruthi et al., 2020)."""
    steps = torch.linspace(0, len(path) - 1, checkpoints + 1).round().long().tolist()[:-1]
    return torch.stack([Gram(path.model_at(s), asked, log_odds(labels), x, loss_gradient(y)).dense() for s in steps]).sum(0)


def path_kernel(path: TrainingPath, x: Tensor, y: Tensor, asked: Tensor, labels: Tensor, exact: bool) -> Tensor:
    """Each image's part of the log probability of the label, along the whole path; exactly, the parts add up to what was learnt."""
    found = epk(path, asked, "gauss", progress=False) if exact else dpk(path, asked, progress=False)
    return found.points[torch.arange(len(asked)), :, labels]


def influences(spread: Laplace, y: Tensor, asked: Tensor, labels: Tensor, ridge: float) -> Tensor:
    """Score by an influence function with the Gauss-Newton Hessian; the damping is a share of its trace over the samples."""
    precision = ridge * float(spread.values.sum()) / len(y)
    return spread.influence(asked, log_odds(labels), loss_gradient(y), precision)


def left_out(kernel: Tensor, x: Tensor, y: Tensor, labels: Tensor, classes: int, ridge: float) -> Tensor:
    """Exact leave-one-out of a kernel regression on labels: what each image adds to the label's output, less the mean of the others."""
    n, targets = len(x), one_hot(y, classes).to(kernel) - 1 / classes
    gram = kernel[:n, :n]
    effects = leave_one_out_effects(gram, kernel[n:, :n], targets, ridge * float(gram.diagonal().mean()))
    own = effects[torch.arange(len(labels)), :, labels]
    return own - (effects.sum(2) - own) / (classes - 1)


def agreement(x: Tensor, y: Tensor, asked: Tensor, labels: Tensor) -> Tensor:
    """Without any network: how alike two images are, with a plus for one label and a minus for two."""
    alike = (asked @ x.T / x.shape[1]).clamp(min=0)
    return alike * torch.where(labels[:, None] == y, 1.0, -1.0)


def odds(z: Tensor, labels: Tensor) -> Tensor:
    """Return the log odds of labels (M,) for logits (..., M, K)."""
    own = one_hot(labels, z.shape[-1]).bool()
    return ((z * own).sum(-1) - z.masked_fill(own, -torch.inf).logsumexp(-1)).clamp(-_MOST, _MOST)


def started(config: Config, x: Tensor, classes: int, seed: int) -> nn.Module:
    """Draw a network."""
    torch.manual_seed(seed)
    return mlp((x.shape[1], config.width, classes), "tanh").double()


def trained(config: Config, x: Tensor, y: Tensor, subsets: Tensor, asked: Tensor, classes: int, starts: Sequence[int]) -> Tensor:
    """Return the logits of networks trained on subsets (S, n), each from the weights of its own seed, (S, M, K)."""
    nets = [started(config, x, classes, seed) for seed in starts]
    how = {"epochs": config.steps, "batch_size": subsets.shape[1], "lr": config.lr, "momentum": 0.0, "weight_decay": 0.0}
    state = train_ensemble(nets, x, y, subsets, progress=False, **how).state
    with torch.no_grad():
        return vmap(lambda weights: functional_call(nets[0], weights, (asked,)))(state)


def methods(
    config: Config, x: Tensor, y: Tensor, asked: Tensor, labels: Tensor, classes: int, seed: int
) -> dict[tuple[str, float | None], list[Tensor]]:
    """Return every method's scores (M, N), by name and ridge: of each network trained on all images, where it has one."""
    found: dict[tuple[str, float | None], list[Tensor]] = {}
    paths = []
    for member in range(config.members):
        net = started(config, x, classes, 1000 * seed + member)
        how = {"lr": config.lr, "momentum": 0.0, "zero_output": False, "progress": False}
        paths.append(train_path(net, x, y, steps=config.steps, **how))
    given = (x, y, asked, labels)
    by_path: dict[str, Callable[[TrainingPath], Tensor]] = {
        "gradients at the end": lambda path: at_the_end(path, *given),
        "TracIn": lambda path: along(path, *given, config.checkpoints),
        "discrete path kernel": lambda path: path_kernel(path, *given, exact=False),
        "exact path kernel": lambda path: path_kernel(path, *given, exact=True),
    }
    for name, method in by_path.items():
        found[name, None] = [method(path) for path in paths]
    spreads, both = [Laplace(path.model_at(-1), x) for path in paths], torch.cat([x, asked])
    kernels = {
        "start": [empirical(path.model_at(0), basis)(both) for path in paths],
        "end": [empirical(path.model_at(-1), basis)(both) for path in paths],
        "limit": [infinite_mlp(both, depth=1, activation="erf").ntk],
    }
    for ridge in RIDGES:
        found["influence", ridge] = [influences(spread, *given[1:], ridge) for spread in spreads]
        found["TRAK", ridge] = [trak(path.model_at(-1), *given, ridge=ridge) for path in paths]
        for which, some in kernels.items():
            found[f"leave one out, kernel of the {which}", ridge] = [left_out(k, x, y, labels, classes, ridge) for k in some]
    found["alike and of one label", None] = [agreement(*given)]
    draw = torch.Generator().manual_seed(seed)
    found["drawn at random", None] = [torch.randn(len(asked), len(x), generator=draw, dtype=torch.float64)]
    return found


def regressed(subsets: Tensor, outputs: Tensor, n: int) -> Tensor:
    """Learn scores (M, N) from what networks on other halves (S, n) answer, (S, M): a linear datamodel (Ilyas et al., 2022)."""
    inside = torch.zeros(len(subsets), n, dtype=torch.float64).scatter_(1, subsets, 1.0)
    fits = [RidgeCV(alphas=torch.logspace(-1, 4, 11).tolist()).fit(inside, row) for row in outputs.T]
    return torch.stack([torch.as_tensor(fit.coef_) for fit in fits])


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Score training images by every method, and train networks without some of them; rows by part, method and seed."""
    learnt, test = both_splits(config.data)
    data, classes = together([learnt, test]), learnt.num_classes

    def one_seed(seed: int) -> list[dict]:
        draw = torch.Generator().manual_seed(seed)
        drawn = []
        for of, n in ((learnt, config.lessons), (test, config.tested)):
            some = torch.randperm(len(of.x), generator=draw)[:n]
            drawn += [as_rows(of.x[some].double()), of.y[some]]
        x, y, asked, labels = drawn
        n = len(x)

        def answers(subsets: Tensor, of: Tensor, first: int, repeats: int = config.repeats, own: bool = True) -> Tensor:
            """Train networks on subsets (S, n), each time from other weights, or all from the same, (repeats, S, M, K)."""
            found = []
            for repeat in range(repeats):
                starts = [first + 1000 * repeat + (member if own else 0) for member in range(len(subsets))]
                found.append(trained(config, x, y, subsets, of, classes, starts))
            return torch.stack(found)

        halves = torch.stack([torch.randperm(n, generator=draw)[: n // 2] for _ in range(config.subsets + config.others)])
        judged, others = halves.split([config.subsets, config.others])
        first = 1_000_000 * (seed + 1)
        outputs, again, taught = (
            odds(answers(some, asked, start), labels).mean(0)
            for some, start in ((judged, first), (judged, first + 100_000), (others, first + 200_000))
        )
        inside, inside_others = (torch.zeros(len(some), n).scatter_(1, some, 1.0).bool() for some in (judged, others))
        scores = methods(config, x, y, asked, labels, classes, seed)
        scores["linear regression on other halves", None] = [regressed(others, taught, n)]
        rows = []
        for (name, ridge), found in scores.items():
            kinds = {"one": found[0]} if len(found) > 1 else {}
            for kind, values in (kinds | {"all": torch.stack(found).mean(0)}).items():
                by = datamodelling_score(values, inside, outputs)
                row = {"part": "halves", "method": name, "ridge": ridge, "networks": kind, "score": float(by.nanmean())}
                if ridge is not None:  # on halves that judge nothing: a ridge may be chosen by it
                    row["on_others"] = float(datamodelling_score(values, inside_others, taught).nanmean())
                rows.append(row)
        ceiling = [spearmanr(again[:, m], outputs[:, m]).statistic for m in range(len(asked))]
        rows.append(
            {"part": "halves", "method": "other networks on the same halves", "networks": "all", "score": float(np.mean(ceiling))}
        )

        few = asked[: config.asked], labels[: config.asked]
        start = first + 300_000
        before = answers(torch.arange(n)[None], few[0], start, own=False)[:, 0]  # (repeats, M, K)
        right = before.mean(0).argmax(1) == few[1]
        for (name, ridge), found in scores.items():
            order = torch.stack(found).mean(0)[: config.asked].argsort(1, descending=True)
            after = answers(order[:, config.removed :].sort(1).values, few[0], start, own=False)  # (repeats, M, M, K)
            after = after.diagonal(dim1=1, dim2=2).movedim(-1, 1)
            fall = (odds(before, few[1]) - odds(after, few[1])).mean()
            wrong = after.mean(0).argmax(1) != few[1]
            rows.append(
                {
                    "part": "removed",
                    "method": name,
                    "ridge": ridge,
                    "fall": float(fall),
                    "flipped": float((wrong & right).sum() / right.sum().clamp(min=1)),
                }
            )
        accuracy = (answers(torch.arange(n)[None], asked, start, own=False)[:, 0].argmax(2) == labels).double().mean()
        return [*rows, {"part": "networks", "accuracy": float(accuracy), "scatter": float(outputs.std(0).mean())}]

    return over_seeds("attribution", preset, config, data, one_seed, device=torch.device("cpu"), folder=folder, progress=progress)


def chosen(result: Result) -> pd.DataFrame:
    """Return the rows of halves and of removals with, for each method and seed, the one ridge that foresees the other halves best."""
    rows, halves = result.frame(), result.frame(part="halves", networks="all")
    best = halves[halves.ridge.notna()].sort_values("on_others").groupby(["seed", "method"]).ridge.last()
    wanted = pd.MultiIndex.from_frame(rows[["seed", "method"]]).map(best.to_dict())
    return rows[rows.ridge.isna() | (rows.ridge == wanted)]


def quoted(result: Result) -> list[Quoted]:
    """Set what a method foresees more than another one, each with the ridge that other halves choose, beside the run."""
    rows = chosen(result)
    halves = rows[(rows.part == "halves") & (rows.networks == "all")].pivot(index="seed", columns="method", values="score")
    return [
        Quoted.of(item, f"datamodelling score, {one} less {other}", None, (halves[one] - halves[other]).tolist())
        for item, one, other in (
            ("TRAK", "TRAK", "linear regression on other halves"),
            ("TRAK", "TRAK", "influence"),
            ("Influence function", "influence", "gradients at the end"),
            ("Influence function", "influence", "alike and of one label"),
            ("TracIn", "TracIn", "gradients at the end"),
            ("TracIn", "TracIn", "exact path kernel"),
        )
    ]


# Columns of the rows, by part; "seed" is added to each.
COLUMNS = {
    "halves": ("method", "ridge", "networks", "score", "on_others"),
    "removed": ("method", "ridge", "fall", "flipped"),
    "networks": ("accuracy", "scatter"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, of_ours=True)
