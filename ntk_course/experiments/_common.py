"""What several experiments share: the papers' training recipe and the pieces of a class-by-class analysis."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..data import Dataset, load
from ..gram import GramRows
from ..interactions import Clusters, farthest_point_clustering
from ..kernels import signs
from ..models import network_for
from ..training import History, device, step_decay, train


@dataclass(frozen=True)
class Recipe:
    """Training as in the lpNTK paper's own code for LeNet-5: SGD, the rate times ``decay`` every second epoch.

    Attributes:
        epochs: passes over the data (30 there).
        lr: learning rate.
        momentum: heavy ball.
        weight_decay: on all weights.
        batch_size: samples a step.
        decay: factor on the rate every second epoch; 1 keeps it.
    """

    epochs: int = 30
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 128
    decay: float = 0.7


# Six epochs that end as far down the schedule as thirty of the above; at the rate 0.1 some small sets fail to train.
SHORT = Recipe(epochs=6, lr=0.05, decay=0.35)


def fit(x: Tensor, y: Tensor, recipe: Recipe, seed: int, **options) -> tuple[nn.Module, History]:
    """Build the network for x, initialised by the seed, train it by the recipe, and return it with its history."""
    torch.manual_seed(seed)
    model = network_for(x, 10).to(x.device)
    history = train(
        model,
        x,
        y,
        epochs=recipe.epochs,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        batch_size=recipe.batch_size,
        schedule=step_decay(recipe.decay, 2),
        seed=seed,
        progress=False,
        **options,
    )
    return model, history


def on_device(data: Dataset) -> tuple[Tensor, Tensor]:
    """Move a data set to where experiments run."""
    return data.x.to(device()), data.y.to(device())


def both_splits(name: str, limit: int | None = None) -> tuple[Dataset, Dataset]:
    """Load the training split (its first ``limit`` samples) and the whole test split."""
    return load(name, "train", limit), load(name, "test")


def clusters_of_class(model: nn.Module, x: Tensor, y: Tensor, label: int, share: float) -> tuple[Tensor, GramRows, Clusters]:
    """Cluster one class by lpNTK into ``share`` times its size: its indices, the kernel's rows, the clusters."""
    where = (y == label).nonzero()[:, 0]
    rows = GramRows(model, x[where], lambda k: signs(y[where], k) / k**0.5)
    return where, rows, farthest_point_clustering(rows, max(1, round(share * len(where))))
