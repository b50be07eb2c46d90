"""Which scores of training images foresee what a network answers that is trained without one of them, from the same weights?"""

from dataclasses import dataclass

import torch
from scipy.stats import rankdata
from torch import Tensor

from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from . import attribution
from ._common import both_splits, together

# Pearson's correlation in Section 4.2 of Koh and Liang (2017), of a convolutional network on MNIST that was not at a minimum.
PRINTED = 0.86
# What the experiment on halves chooses in every draw of its preset "class".
CHOSEN = 0.1


@dataclass(frozen=True)
class Config:
    """Settings; images, networks and scores are those of :mod:`ntk_course.replication.experiments.attribution`.

    Attributes:
        data: name of the data set.
        lessons: training images, N.
        tested: test images whose answers are attributed.
        width: hidden units.
        steps: of gradient descent on all images at once.
        lr: its rate.
        members: networks that are scored, and as many others that judge the mean of their scores.
        checkpoints: moments of training that TracIn adds up.
        largest: of the images that score highest or lowest for a test image, so many are looked at by themselves.
        seeds: of the draws of images, and of networks.
    """

    data: str = "mnist"
    lessons: int = 500
    tested: int = 200
    width: int = 64
    steps: int = 300
    lr: float = 0.3
    members: int = 5
    checkpoints: int = 10
    largest: int = 100
    seeds: tuple[int, ...] = tuple(range(5))

    def drawn(self, seed: int) -> attribution.Trial:
        """Draw the images and networks of the experiment on halves; the halves stay unused."""
        shared = {name: value for name, value in vars(self).items() if name not in ("largest", "seeds")}
        return attribution.drawn(attribution.Config(**shared, subsets=1, others=(1,)), seed)


# "smoke" and "class" on the digits, "paper" on MNIST, the images and networks of the presets of the experiment on halves.
PRESETS = {
    "smoke": Config(
        data="digits", lessons=24, tested=5, width=8, steps=12, members=2, checkpoints=3, largest=6, seeds=(0, 1)
    ),
    "class": Config(data="digits", lessons=200, tested=60, steps=200, members=3, largest=40),
    "paper": Config(),
}  # fmt: skip


def changes(trial: attribution.Trial, number: int) -> Tensor:
    """Return what each training image adds to each test image's log odds for one member, (M, N), by training it again without.

    Both networks start from the same weights and see whole batches, so nothing else differs.
    """
    n = len(trial.x)
    without = torch.stack([torch.cat([torch.arange(i), torch.arange(i + 1, n)]) for i in range(n)])
    start = trial.member(number)
    full = trial.trained([start], trial.everything)[0]
    left = trial.trained([start] * n, without)
    return (attribution.odds(full, trial.labels) - attribution.odds(left, trial.labels)).T


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Pearson's correlation of each row of a with the same row of b, both (M, N); nan where one is constant.

    Example:
        >>> correlation(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 4.0, 6.0]])).round(decimals=4)
        tensor([1.])
    """
    a, b = (v - v.mean(1, keepdim=True) for v in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


def _ranks(values: Tensor) -> Tensor:
    """Rank each row, those that are equal by the mean of their ranks: some scores are zero for most images."""
    return torch.as_tensor(rankdata(values.numpy(), axis=1))


def largest(scores: Tensor, count: int) -> Tensor:
    """Return the indices (M, count) of the entries of scores (M, N) that are largest in size."""
    return scores.abs().topk(count, dim=1).indices


def judged(scores: Tensor, truth: Tensor, count: int) -> dict[str, float]:
    """Return means over test images of three correlations: Pearson's and of the ranks, over all images and over the ``count`` largest."""
    some = largest(scores, count)
    return {
        "pearson": float(correlation(scores, truth).nanmean()),
        "spearman": float(correlation(_ranks(scores), _ranks(truth)).nanmean()),
        "of_the_largest": float(correlation(scores.gather(1, some), truth.gather(1, some)).nanmean()),
    }


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Leave every training image out by itself; rows by method and ridge, judged by each own network and by others' mean."""
    data = together(list(both_splits(config.data)))

    def one_seed(seed: int) -> list[dict]:
        trial, m = config.drawn(seed), config.members
        own, others = (torch.stack([changes(trial, number) for number in range(first, first + m)]) for first in (0, m))
        found, rows = attribution.methods(trial), []
        found["the other networks' mean change", None] = [others.mean(0)]
        for (method, ridge), scores in found.items():
            by_network = [judged(scores[k % len(scores)], own[k], config.largest) for k in range(m)]
            rows.append(
                {"method": method, "ridge": ridge, "judge": "own network"}
                | {key: sum(one[key] for one in by_network) / m for key in by_network[0]}
            )
            if method != "the other networks' mean change":
                of_others = judged(torch.stack(scores).mean(0), others.mean(0), config.largest)
                rows.append({"method": method, "ridge": ridge, "judge": "other networks"} | of_others)
        own_to_others = judged(own.mean(0), others.mean(0), config.largest)
        rows.append({"method": "the own networks' mean change", "ridge": None, "judge": "other networks"} | own_to_others)
        typical = {"method": "the change itself", "judge": "own network", "size": float(own.abs().mean())}
        return [*rows, typical | {"share_below_zero": float((own < 0).double().mean())}]

    return over_seeds(
        "leaving_one_out", preset, config, data, one_seed, device=torch.device("cpu"), folder=folder, progress=progress
    )


def quoted(result: Result) -> list[Quoted]:
    """Set the correlation that the influence paper reports of a convolutional network beside the run, for every damping."""
    rows = result.frame(method="influence", judge="own network")
    order = sorted(rows.groupby("ridge"), key=lambda one: (one[0] != CHOSEN, one[0]))
    words = {ridge: f"damping {ridge:g}{' (other halves choose it)' * (ridge == CHOSEN)}" for ridge, _ in order}
    return [
        Quoted.of("Influence function", f"correlation with leaving one out, {words[ridge]}", PRINTED, some.of_the_largest)
        for ridge, some in order
    ]


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("method", "ridge", "judge", "pearson", "spearman", "of_the_largest", "size", "share_below_zero"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, of_ours=True)
