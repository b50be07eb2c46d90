"""Every kernel of the course on the same splits: accuracy, agreement with the trained network, alignment, elasticity, cost."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...analysis.regression import alignment, kernel_ridge, local_elasticity
from ...kernels.empirical import entk, lpntk, pntk
from ...kernels.infinite import dense as infinite
from ...kernels.infinite.convolutional import cntk
from ...kernels.label_aware import lantk_hr
from ...kernels.paths.kernel import PathKernel, dpk, epk
from ...kernels.tangent_hierarchy import lantk_nth, two_layer_hierarchy
from ...models.networks import mlp
from ...training.path import TrainingPath, train_path
from ...training.sgd import device
from ..results import Figure, Result, over_seeds
from ._common import both_splits, class_pair, peak_memory, together

PAIRS = (("digits", (1, 8)), ("digits", (3, 9)), ("mnist", (3, 5)), ("mnist", (4, 9)), ("cifar10", (3, 5)), ("cifar10", (1, 9)))


@dataclass(frozen=True)
class Config:
    """Settings; float64, images scaled to one norm. The network has ReLUs and two outputs and is trained by full-batch steps.

    Attributes:
        pairs: (data set, two classes).
        points: training images of a pair.
        test: test images at most.
        hidden: widths of the network.
        steps: S of the training path.
        lr: step size.
        nodes: of each smooth piece of the exact path kernel.
        convolutions: of the CNTK.
        few: training images for LANTK-NTH, whose cost grows with their fourth power, and for its companions.
        few_test: test images there.
        width: of the two-layer network whose hierarchy that is.
        seeds: of the samples and the initial weights.
    """

    pairs: tuple[tuple[str, tuple[int, int]], ...] = PAIRS
    points: int = 300
    test: int = 200
    hidden: tuple[int, ...] = (256,)
    steps: int = 40
    lr: float = 0.1
    nodes: int = 2
    convolutions: int = 3
    few: int = 20
    few_test: int = 40
    width: int = 256
    seeds: tuple[int, ...] = (0, 1, 2)

    @classmethod
    def preset(cls, name: str) -> "Config":
        """Return the settings of "smoke" (digits), "class" or "paper" (1000 images of each pair)."""
        return {
            "smoke": cls(PAIRS[:1], 24, 10, (8,), 4, few=4, few_test=4, width=16, seeds=(0, 1)),
            "class": cls(),
            "paper": cls(points=1000, test=500, steps=200),
        }[name]


class Task(NamedTuple):
    """Two classes, and a network trained on them: x (N, d) and x_test (M, d), y of 0 and 1, the path and its ends."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    images: tuple[int, ...]
    path: TrainingPath
    start: nn.Module
    end: nn.Module


class Answer(NamedTuple):
    """A kernel among the training points, of test with training points (None where it needs their labels), and its scores."""

    train: Tensor
    cross: Tensor | None
    scores: Tensor


def _regressed(train: Tensor, cross: Tensor, y: Tensor) -> Answer:
    return Answer(train, cross, kernel_ridge(train, y.double() * 2 - 1).predict(cross))


def _both(kernel: Callable[..., Tensor], task: Task) -> Answer:
    """Regress with a kernel of one or two sets of inputs."""
    return _regressed(kernel(task.x), kernel(task.x_test, task.x), task.y)


def _label_aware(wide: dict, task: Task) -> Answer:
    kernel = lantk_hr(infinite.mlp(task.x, **wide).ntk, task.y * 2 - 1, infinite.mlp(task.x_test, task.x, **wide).ntk)
    return _regressed(kernel.train, kernel.cross, task.y)


def _trace(blocks: Tensor) -> Tensor:
    return blocks.diagonal(dim1=2, dim2=3).mean(2)


def _labelled(task: Task) -> Answer:
    """Ask of each label how much the training points of lpNTK support it: the labels of test points are not known."""
    train = lpntk(task.end, task.x, task.y)
    zero, one = (lpntk(task.end, task.x_test, torch.full_like(task.y_test, k), task.x, task.y) for k in (0, 1))
    return Answer(train, None, (one - zero).mean(1))


def _along_the_path(kernel: Callable[..., PathKernel], task: Task) -> Answer:
    """Take the kernel machine's own answer, no regression: its coefficients are those of training."""
    found, own = kernel(task.path, task.x_test), kernel(task.path, task.x)
    square = _trace(own.gram)
    answers = found.predict()
    return Answer((square + square.T) / 2, _trace(found.gram), answers[:, 1] - answers[:, 0])


def kernels(config: Config) -> dict[str, Callable[[Task], Answer]]:
    """Return what computes each kernel, by name."""
    wide = {"depth": len(config.hidden), "w_std": 2**0.5}

    def conv(task: Task) -> Answer:
        return _both(lambda *x: cntk(*(t.view(-1, *task.images) for t in x), depth=config.convolutions).ntk, task)

    return {
        "NNGP": partial(_both, lambda *x: infinite.mlp(*x, **wide).nngp),
        "NTK": partial(_both, lambda *x: infinite.mlp(*x, **wide).ntk),
        "CNTK": conv,
        "LANTK-HR": partial(_label_aware, wide),
        "eNTK, start": lambda task: _both(lambda *x: _trace(entk(task.start, *x)), task),
        "eNTK, end": lambda task: _both(lambda *x: _trace(entk(task.end, *x)), task),
        "pNTK, end": lambda task: _both(lambda *x: pntk(task.end, *x), task),
        "lpNTK, end": _labelled,
        "DPK": partial(_along_the_path, dpk),
        "EPK": partial(_along_the_path, partial(epk, quadrature="piecewise", nodes=config.nodes)),
    }


def few_kernels(config: Config) -> dict[str, Callable[[Task], Answer]]:
    """Return LANTK-NTH and its companions of one hidden layer."""
    wide = {"depth": 1, "w_std": 2**0.5}

    def nth(task: Task) -> Answer:
        n = len(task.x)
        k2, k4 = two_layer_hierarchy(torch.cat([task.x, task.x_test]), n, config.width, w_std=2**0.5)
        kernel = lantk_nth(k2, k4, task.y * 2 - 1)
        return _regressed(kernel[:n, :n], kernel[n:, :n], task.y)

    return {
        "NTK": partial(_both, lambda *x: infinite.mlp(*x, **wide).ntk),
        "LANTK-HR": partial(_label_aware, wide),
        "LANTK-NTH": nth,
    }


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Compute every kernel on every pair; a row for each seed, pair and kernel, and one for the network itself."""
    data = {name: both_splits(name) for name, _ in config.pairs}

    def task_of(seed: int, name: str, classes: tuple[int, int], points: int, test: int) -> Task:
        train, held_out = data[name]
        (x, y), (x_test, y_test) = class_pair(train, classes, points, seed), class_pair(held_out, classes, test)
        x, y, x_test, y_test = (t.to(device()) for t in (x, (y + 1) // 2, x_test, (y_test + 1) // 2))
        torch.manual_seed(seed)
        model = mlp((x.shape[1], *config.hidden, 2)).to(x)
        path = train_path(model, x, y, steps=config.steps, lr=config.lr, zero_output=False, progress=False)
        return Task(x, y, x_test, y_test, tuple(train.x.shape[1:]), path, path.model_at(0), path.model_at(-1))

    def measured(task: Task, name: str, kernel: Callable[[Task], Answer]) -> dict:
        with peak_memory(task.x.device) as peak:
            began = time.perf_counter()
            found = kernel(task)
            scores = found.scores.cpu()  # waits for the GPU
            seconds = time.perf_counter() - began
        network = task.path.outputs(task.x_test).argmax(1).cpu()
        return {
            "kernel": name,
            "points": len(task.x),
            "accuracy": ((scores > 0) == task.y_test.cpu()).double().mean().item(),
            "agreement": ((scores > 0) == network).double().mean().item(),
            "alignment": alignment(found.train, task.y).item(),
            "elasticity": local_elasticity(found.train, task.y).item(),
            "elasticity_test": None if found.cross is None else local_elasticity(found.cross, task.y_test, task.y).item(),
            "seconds": seconds,
            "MiB": peak(),
        }

    def one_seed(seed: int, name: str, classes: tuple[int, int]) -> list[dict]:
        about = {"data": name, "pair": list(classes)}
        task = task_of(seed, name, classes, config.points, config.test)
        right = (task.path.outputs(task.x_test).argmax(1) == task.y_test).double().mean().item()
        rows = [{**about, "kernel": "the network", "points": len(task.x), "accuracy": right, "agreement": 1.0}]
        rows += [about | measured(task, *item) for item in kernels(config).items()]
        few = task_of(seed, name, classes, config.few, config.few_test)
        return rows + [about | measured(few, *item) for item in few_kernels(config).items()]

    everything = together([train for train, _ in data.values()])
    return over_seeds(
        "kernel_table",
        preset,
        config,
        everything,
        one_seed,
        device=device(),
        parts=config.pairs,
        folder=folder,
        progress=progress,
    )


def figures(result: Result) -> list[Figure]:
    """Set local elasticity and accuracy of the kernels beside each other, means over pairs and seeds."""
    found = []
    for kernel in dict.fromkeys(r["kernel"] for r in result.rows):
        rows = [r for r in result.rows if r["kernel"] == kernel]
        found.append(Figure.of("One table", f"accuracy in per cent, {kernel}", None, [100 * r["accuracy"] for r in rows]))
    return found
