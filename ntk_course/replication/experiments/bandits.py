"""A bandit on images: which label to try, when only a right one is rewarded; by the mean of a kernel, and by how unsure it is."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels.infinite import mlp as infinite_mlp
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import as_rows, both_splits


@dataclass(frozen=True)
class Config:
    """Settings; rows of norm sqrt(d), float64, on the CPU.

    Attributes:
        data: name of the data set.
        rounds: images that come, one after the other.
        depth: hidden layers of the kernel's network.
        w_std: its sigma_w.
        b_std: likewise.
        noise: ridge, as a share of the kernel's diagonal.
        widths: of the bonus, deviations that are added to the mean: 0 is greedy.
        chances: how often a label is drawn at random instead, by the greedy one.
        priors: means of rewards before anything is tried, of the greedy one; of all others 0.
        seeds: of the order of the images, and of draws.
    """

    data: str = "mnist"
    rounds: int = 1000
    depth: int = 2
    w_std: float = 2**0.5
    b_std: float = 0.1
    noise: float = 1e-2
    widths: tuple[float, ...] = (0.0, 0.1, 0.3, 1.0, 3.0)
    chances: tuple[float, ...] = (0.01, 0.05, 0.2, 1.0)
    priors: tuple[float, ...] = (0.1, 0.5, 1.0)
    seeds: tuple[int, ...] = tuple(range(10))


PRESETS = {
    "smoke": Config(data="digits", rounds=30, widths=(0.0, 0.3), chances=(1.0,), priors=(1.0,), seeds=(0, 1)),
    "class": Config(data="digits"),
    "paper": Config(),
}


class Arm:
    """Rewards of one label so far, and the posterior that the kernel makes of them; grown sample by sample.

    Args:
        kernel: of all images, (T, T), of unit diagonal on average.
        noise: added to the diagonal.
        prior: mean of rewards where nothing is known.
    """

    def __init__(self, kernel: Tensor, noise: float, prior: float = 0.0):
        self.kernel, self.noise, self.prior = kernel, noise, prior
        self.seen: list[int] = []
        self.inverse = kernel.new_empty(0, 0)
        self.rewards = kernel.new_empty(0)

    def posterior(self, t: int) -> tuple[float, float]:
        """Return mean and deviation at an image."""
        k = self.kernel[t, self.seen]
        a = self.inverse @ k
        return self.prior + float(a @ (self.rewards - self.prior)), max(0.0, float(self.kernel[t, t] - k @ a)) ** 0.5

    def learn(self, t: int, reward: float) -> None:
        """Add an image with its reward: the inverse by blocks."""
        k = self.kernel[t, self.seen]
        a = self.inverse @ k
        rest = self.kernel[t, t] + self.noise - k @ a
        block = torch.cat([self.inverse + a[:, None] * a / rest, -a[:, None] / rest], 1)
        self.inverse = torch.cat([block, torch.cat([-a / rest, 1 / rest[None]])[None]])
        self.rewards = torch.cat([self.rewards, self.rewards.new_tensor([reward])])
        self.seen.append(t)


def played(
    kernel: Tensor, y: Tensor, labels: int, noise: float, width: float, chance: float, seed: int, prior: float = 0.0
) -> Tensor:
    """Play a bandit and return which rounds were rewarded, (T,): the label of the largest mean + width deviations is tried.

    Args:
        kernel: of the images in their order, (T, T).
        y: their labels.
        labels: how many there are to try.
        noise: of the posteriors.
        width: of the bonus, in deviations.
        chance: how often a label is drawn at random.
        seed: of these draws.
        prior: mean of rewards where nothing is known.
    """
    arms, draw = [Arm(kernel, noise, prior) for _ in range(labels)], torch.Generator().manual_seed(seed)
    won = torch.zeros(len(y), dtype=torch.bool)
    for t in range(len(y)):
        tried = [mean + width * deviation for mean, deviation in (arm.posterior(t) for arm in arms)]
        best = (torch.tensor(tried) + 1e-9 * torch.rand(labels, generator=draw)).argmax()  # equals by lot
        if float(torch.rand(1, generator=draw)) < chance:
            best = torch.randint(labels, (1,), generator=draw)[0]
        won[t] = best == y[t]
        arms[int(best)].learn(t, float(won[t]))
    return won


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Play with every bonus and every chance; a row has the rounds lost so far at ten moments."""
    data, _ = both_splits(config.data)

    def one_seed(seed: int, width: float, chance: float, prior: float) -> list[dict]:
        order = torch.randperm(len(data.x), generator=torch.Generator().manual_seed(seed))[: config.rounds]
        x, y = as_rows(data.x[order].double()), data.y[order]
        kernel = infinite_mlp(x, depth=config.depth, activation="relu", w_std=config.w_std, b_std=config.b_std).ntk
        kernel = kernel / kernel.diagonal().mean()
        won = played(kernel, y, data.num_classes, config.noise, width, chance, seed, prior)
        lost = (~won).cumsum(0)
        at = torch.linspace(len(y) / 10, len(y), 10).round().long() - 1
        return [{"width": width, "chance": chance, "prior": prior, "lost": int(lost[-1]), "curve": lost[at].tolist()}]

    parts = [(width, 0.0, 0.0) for width in config.widths] + [(0.0, chance, 0.0) for chance in config.chances]
    parts += [(0.0, 0.0, prior) for prior in config.priors]
    return over_seeds(
        "bandits", preset, config, data, one_seed, device=torch.device("cpu"), parts=parts, folder=folder, progress=progress
    )


def quoted(result: Result) -> list[Quoted]:
    """Set what the best bonus loses less than being greedy, from either prior, and less than the best chance, beside the run."""
    lost = result.frame().pivot(index="seed", columns=["width", "chance", "prior"], values="lost")
    means = lost.mean()
    bonus, chance, prior = (min((c for c in lost if c[i] > 0), key=means.get) for i in range(3))
    return [
        Quoted.of("Bandit", f"rounds lost, {words} less the best bonus", None, (lost[other] - lost[bonus]).tolist())
        for words, other in (("greedy", (0.0, 0.0, 0.0)), ("best chance", chance), ("greedy with the best prior mean", prior))
    ]


# Columns of the rows; "seed" is added to each.
COLUMNS = {"": ("width", "chance", "prior", "lost", "curve")}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS, of_ours=True)
