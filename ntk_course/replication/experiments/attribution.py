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
        repeats: networks trained on each of these, whose answers are averaged.
        again: other networks on each of these, whose answers' mean says how much can be foreseen.
        others: numbers of halves beside these, with one network each, from which a linear regression learns scores.
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
    repeats: int = 5
    again: int = 10
    others: tuple[int, ...] = (100, 200, 400, 800)
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
        repeats=2,
        again=2,
        others=(4, 8),
        removed=3,
        asked=2,
        checkpoints=3,
        seeds=(0, 1),
    ),
    "class": Config(data="digits", lessons=200, tested=60, steps=200, members=3, repeats=3, again=9, removed=10),
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
    own = labels[..., None] == torch.arange(z.shape[-1], device=z.device)
    return ((z * own).sum(-1) - z.masked_fill(own, -torch.inf).logsumexp(-1)).clamp(-_MOST, _MOST)


@dataclass(frozen=True)
class Trial:
    """One draw of images, and the networks that are trained on some of them.

    Attributes:
        config: the experiment's settings.
        seed: of the draw.
        x: training images (N, d).
        y: their labels (N,).
        asked: test images (M, d).
        labels: their labels (M,).
        classes: K.
        judged: halves on which scores are judged, (S, N // 2).
        others: halves that judge nothing.
    """

    config: Config
    seed: int
    x: Tensor
    y: Tensor
    asked: Tensor
    labels: Tensor
    classes: int
    judged: Tensor
    others: Tensor

    @property
    def given(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return training images with labels, test images with labels."""
        return self.x, self.y, self.asked, self.labels

    @property
    def everything(self) -> Tensor:
        """Return all training images as the one subset, (1, N)."""
        return torch.arange(len(self.x))[None]

    def started(self, seed: int) -> nn.Module:
        """Draw a network."""
        torch.manual_seed(seed)
        return mlp((self.x.shape[1], self.config.width, self.classes), "tanh").double()

    def member(self, number: int) -> nn.Module:
        """Draw the network from which a member of those starts whose scores are averaged."""
        return self.started(1000 * self.seed + number)

    def path(self, number: int) -> TrainingPath:
        """Train one member on all images, and keep every step."""
        how = {"lr": self.config.lr, "momentum": 0.0, "zero_output": False, "progress": False}
        return train_path(self.member(number), self.x, self.y, steps=self.config.steps, **how)

    def answers(self, subsets: Tensor, stream: int, repeats: int = 1, of: Tensor | None = None, own: bool = True) -> Tensor:
        """Train networks on subsets (S, n) and return their logits of the test images, (repeats, S, M, K).

        Each starts from other weights, or with ``own=False`` all of a repetition from the same; each ``stream`` of them from others.
        """
        first, found = 1_000_000 * (self.seed + 1) + 100_000 * stream, []
        for repeat in range(repeats):
            nets = [self.started(first + 1000 * repeat + (member if own else 0)) for member in range(len(subsets))]
            found.append(self.trained(nets, subsets, of))
        return torch.stack(found)

    def trained(self, nets: Sequence[nn.Module], subsets: Tensor, of: Tensor | None = None) -> Tensor:
        """Train each network on its subset, of (S, n), as :meth:`path` trains; return logits (S, M, K) of the test images or ``of``."""
        config, of = self.config, self.asked if of is None else of
        how = {"epochs": config.steps, "batch_size": subsets.shape[1], "lr": config.lr, "momentum": 0.0, "weight_decay": 0.0}
        state = train_ensemble(nets, self.x, self.y, subsets, progress=False, **how).state
        with torch.no_grad():
            return vmap(lambda weights: functional_call(nets[0], weights, (of,)))(state)

    def inside(self, subsets: Tensor) -> Tensor:
        """Return which images subsets (S, n) have, (S, N), bool."""
        return torch.zeros(len(subsets), len(self.x)).scatter_(1, subsets, 1.0).bool()

    def outcomes(self) -> Tensor:
        """Return the log odds that the networks on the halves that judge answer with, averaged over repetitions, (S, M)."""
        return odds(self.answers(self.judged, 0, self.config.repeats), self.labels).mean(0)


def drawn(config: Config, seed: int) -> Trial:
    """Draw images, and halves of them."""
    learnt, test = both_splits(config.data)
    draw = torch.Generator().manual_seed(seed)
    given = []
    for of, n in ((learnt, config.lessons), (test, config.tested)):
        some = torch.randperm(len(of.x), generator=draw)[:n]
        given += [as_rows(of.x[some].double()), of.y[some]]
    n = len(given[0])
    halves = torch.stack([torch.randperm(n, generator=draw)[: n // 2] for _ in range(config.subsets + max(config.others))])
    return Trial(config, seed, *given, learnt.num_classes, *halves.split([config.subsets, max(config.others)]))


def methods(trial: Trial) -> dict[tuple[str, float | None], list[Tensor]]:
    """Return every method's scores (M, N), by name and ridge: of each network trained on all images, where it has one."""
    found: dict[tuple[str, float | None], list[Tensor]] = {}
    given = x, y, asked, labels = trial.given
    paths = [trial.path(member) for member in range(trial.config.members)]
    by_path: dict[str, Callable[[TrainingPath], Tensor]] = {
        "gradients at the end": lambda path: at_the_end(path, *given),
        "TracIn": lambda path: along(path, *given, trial.config.checkpoints),
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
            found[f"leave one out, kernel of the {which}", ridge] = [
                left_out(k, x, y, labels, trial.classes, ridge) for k in some
            ]
    found["alike and of one label", None] = [agreement(*given)]
    draw = torch.Generator().manual_seed(trial.seed)
    noise = torch.rand(len(asked), len(x), generator=draw, dtype=torch.float64)
    found["drawn at random", None] = [noise]
    found["drawn at random, of the label", None] = [noise * (y == labels[:, None])]
    return found


def regressed(inside: Tensor, outputs: Tensor) -> Tensor:
    """Learn scores (M, N) from what networks on other halves, (S, N), answer, (S, M): a linear datamodel (Ilyas et al., 2022)."""
    fits = [RidgeCV(alphas=torch.logspace(-1, 4, 11).tolist()).fit(inside.double(), row) for row in outputs.T]
    return torch.stack([torch.as_tensor(fit.coef_) for fit in fits])


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Score training images by every method, and train networks without some of them; rows by part, method and seed."""
    data = together(list(both_splits(config.data)))

    def one_seed(seed: int) -> list[dict]:
        trial = drawn(config, seed)
        outcomes, again, taught = (
            trial.outcomes(),
            odds(trial.answers(trial.judged, 1, config.again), trial.labels).mean(0),
            odds(trial.answers(trial.others, 2), trial.labels).mean(0),
        )
        scores = methods(trial)
        for count in config.others:
            found = regressed(trial.inside(trial.others[:count]), taught[:count])
            scores[f"linear regression, {count} halves", None] = [found]
        rows = judged_by_halves(trial, scores, outcomes, taught)
        ceiling = [spearmanr(again[:, m], outcomes[:, m]).statistic for m in range(len(trial.asked))]
        most = {
            "part": "halves",
            "method": "other networks on the same halves",
            "networks": "all",
            "score": float(np.mean(ceiling)),
        }
        accuracy = (trial.answers(trial.everything, 3, config.repeats)[:, 0].argmax(2) == trial.labels).double().mean()
        all_of_them = {"part": "networks", "accuracy": float(accuracy), "scatter": float(outcomes.std(0).mean())}
        return [*rows, most, *judged_by_removal(trial, scores), all_of_them]

    return over_seeds("attribution", preset, config, data, one_seed, device=torch.device("cpu"), folder=folder, progress=progress)


def judged_by_halves(
    trial: Trial, scores: dict[tuple[str, float | None], list[Tensor]], outcomes: Tensor, taught: Tensor | None = None
) -> list[dict]:
    """Return rows with the datamodelling score of each method: of its first network's scores, and of their mean over networks.

    Where ``taught``, the log odds of networks on the other halves, is given, methods with a ridge are judged by these too: one may be
    chosen by it, for they judge nothing else.
    """
    rows, inside = [], trial.inside(trial.judged)
    for (name, ridge), found in scores.items():
        kinds = {"one": found[0]} if len(found) > 1 else {}
        for kind, values in (kinds | {"all": torch.stack(found).mean(0)}).items():
            by = datamodelling_score(values, inside, outcomes)
            row = {"part": "halves", "method": name, "ridge": ridge, "networks": kind, "score": float(by.nanmean())}
            if ridge is not None and taught is not None:
                row["on_others"] = float(datamodelling_score(values, trial.inside(trial.others), taught).nanmean())
            rows.append(row)
    return rows


def judged_by_removal(trial: Trial, scores: dict[tuple[str, float | None], list[Tensor]]) -> list[dict]:
    """Return rows with what happens to some test images' log odds without the training images that score highest for each."""
    config, labels = trial.config, trial.labels[: trial.config.asked]
    how = {"stream": 3, "repeats": config.repeats, "of": trial.asked[: config.asked], "own": False}
    before = trial.answers(trial.everything, **how)[:, 0]  # (repeats, M, K)
    right = before.mean(0).argmax(1) == labels
    rows = []
    for (name, ridge), found in scores.items():
        order = torch.stack(found).mean(0)[: config.asked].argsort(1, descending=True)
        after = trial.answers(order[:, config.removed :].sort(1).values, **how)  # (repeats, M, M, K)
        after = after.diagonal(dim1=1, dim2=2).movedim(-1, 1)
        fall = (odds(before, labels) - odds(after, labels)).mean()
        wrong = after.mean(0).argmax(1) != labels
        flipped = (wrong & right).sum() / right.sum().clamp(min=1)
        rows.append({"part": "removed", "method": name, "ridge": ridge, "fall": float(fall), "flipped": float(flipped)})
    return rows


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
    regressions = [method for method in halves if method.startswith("linear regression")]
    return [
        Quoted.of(item, f"datamodelling score, {one} less {other}", None, (halves[one] - halves[other]).tolist())
        for item, one, other in (
            *(("TRAK", "TRAK", regression) for regression in regressions),
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
