"""Every kernel of the course on the same splits: accuracy, agreement with the trained network, alignment, elasticity, cost."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...analysis.regression import alignment, kernel_ridge, local_elasticity
from ...kernels.bound import AlongPath, HierarchyKernel, Kernel, LabelAwareKernel, empirical, nngp, ntk
from ...kernels.infinite.convolutional import cntk
from ...kernels.named import lpntk
from ...kernels.paths.kernel import PathKernel, dpk, epk
from ...models.networks import mlp
from ...tangents.cotangents import basis, ones
from ...training.path import TrainingPath
from ...training.record import train_path
from ...training.sgd import device
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
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
        finer: by how much the steps are shortened, and their number raised, for a second discrete path kernel.
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
    finer: int = 5
    nodes: int = 2
    convolutions: int = 3
    few: int = 20
    few_test: int = 40
    width: int = 256
    seeds: tuple[int, ...] = (0, 1, 2)


# "smoke" (digits), "class" or "paper" (1000 images of each pair).
PRESETS = {
    "smoke": Config(pairs=PAIRS[:1], points=24, test=10, hidden=(8,), steps=4, few=4, few_test=4, width=16, seeds=(0, 1)),
    "class": Config(),
    "paper": Config(points=1000, test=500, steps=200),
}


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


class Entry(NamedTuple):
    """A kernel of the table, and how a class is told with it.

    Attributes:
        kernel: of two sets of points.
        scores: from the task, the training and the cross kernel to (M,), positive for class 1; by default by regression.
        of_test_points: whether it is one of them too; a kernel that needs every point's label is not.
        label_aware: whether it is the infinite NTK and a part from the labels.
    """

    kernel: Kernel
    scores: Callable[[Task, Tensor, Tensor | None], Tensor] | None = None
    of_test_points: bool = True
    label_aware: bool = False


def _regressed(task: Task, train: Tensor, cross: Tensor | None) -> Tensor:
    assert cross is not None
    return kernel_ridge(train, task.y.double() * 2 - 1).predict(cross)


def _labelled(task: Task) -> Entry:
    """Ask of each label how much the training points of lpNTK support it: the labels of test points are not known."""

    def support(task: Task, train: Tensor, cross: Tensor | None) -> Tensor:
        zero, one = (lpntk(task.end, task.x_test, torch.full_like(task.y_test, k), task.x, task.y) for k in (0, 1))
        return (one - zero).mean(1)

    return Entry(lambda x1, x2=None: lpntk(task.end, x1, task.y), support, of_test_points=False)


def _along_the_path(how: Callable[..., PathKernel], task: Task) -> Entry:
    """Take the kernel machine's own answer, no regression: its coefficients are those of training."""
    kernel = AlongPath(task.path, how)

    def machine(task: Task, train: Tensor, cross: Tensor | None) -> Tensor:
        answers = kernel.machine(task.x_test)
        return answers[:, 1] - answers[:, 0]

    return Entry(kernel, machine)


# A new kernel of the table is a line here; rows that are stored are kept by name, so run the experiment again.
def kernels(config: Config, task: Task) -> dict[str, Entry]:
    """Return every kernel, by name."""
    wide: dict = {"depth": len(config.hidden), "w_std": 2**0.5}
    conv = ntk(cntk, depth=config.convolutions)
    return {
        "NNGP": Entry(nngp(**wide)),
        "NTK": Entry(ntk(**wide)),
        "CNTK": Entry(lambda *x: conv(*(t.view(-1, *task.images) for t in x))),
        "LANTK-HR": Entry(LabelAwareKernel(ntk(**wide), task.x, task.y * 2 - 1), label_aware=True),
        "eNTK, start": Entry(empirical(task.start, basis)),
        "eNTK, end": Entry(empirical(task.end, basis)),
        # of the outputs that the path kernels are of, which are log-probabilities
        "eNTK, end, log-probabilities": Entry(empirical(nn.Sequential(task.end, nn.LogSoftmax(1)), basis)),
        "pNTK, end": Entry(empirical(task.end, ones)),
        "lpNTK, end": _labelled(task),
        "DPK": _along_the_path(dpk, task),
        "EPK": _along_the_path(partial(epk, quadrature="piecewise", nodes=config.nodes), task),
    }


def few_kernels(config: Config, task: Task) -> dict[str, Entry]:
    """Return LANTK-NTH and its companions of one hidden layer."""
    wide: dict = {"depth": 1, "w_std": 2**0.5}
    labels = task.y * 2 - 1
    return {
        "NTK": Entry(ntk(**wide)),
        "LANTK-HR": Entry(LabelAwareKernel(ntk(**wide), task.x, labels), label_aware=True),
        "LANTK-NTH": Entry(HierarchyKernel(task.x, labels, config.width, {"w_std": 2**0.5}), label_aware=True),
    }


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Compute every kernel on every pair; a row for each seed, pair and kernel, and one for the network itself.

    ``label_part`` of a label-aware kernel is the norm of what it adds to the infinite NTK of the training points, relative to that
    NTK; ``as_ntk`` is the share of test images on which a kernel answers as that NTK does. ``another network`` has other initial
    weights and the same images. ``seconds`` are the processor's on a CPU, of all threads, and the clock's on a GPU.
    """
    data = {name: both_splits(name) for name, _ in config.pairs}
    clock = time.process_time if device().type == "cpu" else time.perf_counter  # what else a CPU is busy with does not count

    def answers(task: Task) -> Tensor:
        return (task.path.outputs(task.x_test).argmax(1) == 1).cpu()

    def task_of(seed: int, name: str, classes: tuple[int, int], points: int, test: int) -> Task:
        train, held_out = data[name]
        (x, y), (x_test, y_test) = class_pair(train, classes, points, seed), class_pair(held_out, classes, test)
        x, y, x_test, y_test = (t.to(device()) for t in (x, (y + 1) // 2, x_test, (y_test + 1) // 2))
        torch.manual_seed(seed)
        return trained(x, y, x_test, y_test, tuple(train.x.shape[1:]))

    def trained(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, images: tuple[int, ...], finer: int = 1) -> Task:
        model = mlp((x.shape[1], *config.hidden, 2)).to(x)
        path = train_path(model, x, y, steps=finer * config.steps, lr=config.lr / finer, zero_output=False, progress=False)
        return Task(x, y, x_test, y_test, images, path, path.model_at(0), path.model_at(-1))

    def measured(task: Task, name: str, entry: Entry, plain: Tensor, its_answers: Tensor) -> dict:
        with peak_memory(task.x.device) as peak:
            began = clock()
            train = entry.kernel(task.x)
            cross = entry.kernel(task.x_test, task.x) if entry.of_test_points else None
            scores = (entry.scores or _regressed)(task, train, cross).cpu()  # waits for the GPU
            seconds = clock() - began
        network = answers(task)
        return {
            "kernel": name,
            "points": len(task.x),
            "accuracy": ((scores > 0) == task.y_test.cpu()).double().mean().item(),
            "agreement": ((scores > 0) == network).double().mean().item(),
            "as_ntk": ((scores > 0) == its_answers).double().mean().item(),
            "alignment": alignment(train, task.y).item(),
            "elasticity": local_elasticity(train, task.y).item(),
            "elasticity_test": None if cross is None else local_elasticity(cross, task.y_test, task.y).item(),
            "label_part": ((train - plain).norm() / plain.norm()).item() if entry.label_aware else None,
            "seconds": seconds,
            "MiB": peak(),
        }

    def one_seed(seed: int, name: str, classes: tuple[int, int]) -> list[dict]:
        about = {"data": name, "pair": list(classes)}
        task = task_of(seed, name, classes, config.points, config.test)
        twin = trained(*task[:5])  # torch's generator has moved on: other initial weights, the same images
        rows = [
            {
                **about,
                "kernel": kernel,
                "points": len(task.x),
                "accuracy": (answers(network) == task.y_test.cpu()).double().mean().item(),
                "agreement": (answers(network) == answers(task)).double().mean().item(),
            }
            for kernel, network in (("the network", task), ("another network", twin))
        ]
        torch.manual_seed(seed)
        finer = trained(*task[:5], finer=config.finer)
        few = task_of(seed, name, classes, config.few, config.few_test)
        shorter = {f"DPK, rate / {config.finer}": _along_the_path(dpk, finer)}
        for some, entries in ((task, kernels(config, task)), (finer, shorter), (few, few_kernels(config, few))):
            plain = ntk(depth=1, w_std=2**0.5) if some is few else kernels(config, task)["NTK"].kernel
            train, cross = plain(some.x), plain(some.x_test, some.x)
            its_answers = _regressed(some, train, cross).cpu() > 0
            rows += [about | measured(some, *item, train, its_answers) for item in entries.items()]
        return rows

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


def quoted(result: Result) -> list[Quoted]:
    """Set local elasticity and accuracy of the kernels beside each other, means over pairs and seeds."""
    kernels = result.frame().groupby("kernel", sort=False).accuracy
    return [Quoted.of("One table", f"accuracy in per cent, {kernel}", None, 100 * found) for kernel, found in kernels]


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": (
        "data",
        "pair",
        "kernel",
        "points",
        "accuracy",
        "agreement",
        "as_ntk",
        "alignment",
        "elasticity",
        "elasticity_test",
        "label_part",
        "seconds",
        "MiB",
    ),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
