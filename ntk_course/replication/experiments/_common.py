"""What several experiments share: the papers' training recipe and the pieces of a class-by-class analysis."""

import ctypes
import gc
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import stack_module_state, vmap

from ...analysis.interactions import Clusters, farthest_point_clustering
from ...basics.fingerprints import of_tensor
from ...data.datasets import Dataset, load
from ...gram.operator import Gram
from ...models.functional import assign, call_with
from ...tangents.cotangents import labelled
from ...training.recipe import Recipe
from ...training.sgd import History, cosine, crop_and_flip, device, step_decay, train
from ..protocols import TEXT, Protocol


@dataclass(frozen=True)
class PaperRecipe:
    """Training as in the lpNTK paper's public code on MNIST: SGD, the rate times ``decay`` every second epoch.

    The text states no recipe; the code's serves for the text's LeNet-5 too.

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

    def recipe(self) -> Recipe:
        """Return it as what train and train_ensemble take."""
        settings = {name: value for name, value in asdict(self).items() if name != "decay"}
        return Recipe(schedule=step_decay(self.decay, 2), **settings)


@dataclass(frozen=True)
class ResNetRecipe(PaperRecipe):
    """Training of the ResNet-18 on CIFAR-10: a cosine to zero, crops and mirror images, half precision on a GPU.

    Attributes:
        epochs: passes over the data (200 in the paper's own code; 20 are the shortest that we expect to reach 93 %).
        decay: of no use here.
    """

    epochs: int = 20

    def recipe(self) -> Recipe:
        """Return it as what train takes."""
        half = torch.bfloat16 if device().type == "cuda" else None
        return replace(super().recipe(), schedule=cosine(self.epochs), augment=crop_and_flip, autocast=half)


# Ten epochs that end as far down the schedule as thirty of the above.
TEN = PaperRecipe(epochs=10, decay=0.343)
# Six epochs that end as far down the schedule as thirty of the above; at the rate 0.1 some small sets fail to train.
SHORT = PaperRecipe(epochs=6, lr=0.05, decay=0.35)


def initial(x: Tensor, seed: int, protocol: Protocol = TEXT) -> nn.Module:
    """Build the protocol's network for x, initialised by the seed."""
    torch.manual_seed(seed)
    return protocol.network(x).to(x.device).eval()


def fit(
    x: Tensor,
    y: Tensor,
    recipe: PaperRecipe,
    seed: int,
    protocol: Protocol = TEXT,
    *,
    per_sample: bool = False,
    validation: tuple[Tensor, Tensor] | None = None,
    keep_best: bool = False,
    folder: str | Path | None = None,
) -> tuple[nn.Module, History | None]:
    """Train the initial network by the recipe, and return it with its history; no epochs leave it as it is, without one.

    The training samples are scored after every epoch where each one's scores are asked for, else after the last.
    Images are trained on with the channels last in memory: a fifth less time for LeNet-5 on a CPU.

    A network of the folder of results is kept there, and trained once for all experiments that ask for the same.
    """
    model = initial(x, seed, protocol)
    if not recipe.epochs:
        return model, None
    how = {"per_sample": per_sample, "keep_best": keep_best, "seed": seed}

    def make() -> dict:
        images = x.dim() == 4
        net = model.to(memory_format=torch.channels_last) if images else model
        inputs = x.contiguous(memory_format=torch.channels_last) if images else x
        history = train(net, inputs, y, recipe.recipe(), validation=validation, each_epoch=per_sample, progress=False, **how)
        return {"state": net.to(memory_format=torch.contiguous_format).state_dict(), "history": vars(history)}

    about = ("network", recipe, protocol, how, of_tensor(x, y, *(validation or ())) if folder else "")
    found = kept(folder, about, make, x.device)
    model.load_state_dict(found["state"])
    return model, History(**found["history"])


def kept(folder: str | Path | None, about: tuple, make: Callable[[], dict], where: torch.device) -> dict:
    """Make tensors once for all experiments that ask for the same, and keep them beside the results."""
    if folder is None:
        return make()
    path = Path(folder) / ".kept" / f"{hashlib.sha256(repr(about).encode()).hexdigest()[:16]}.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.part")
        try:
            torch.save(make(), beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    return torch.load(path, map_location=where, weights_only=True)


def kernel_network(
    x: Tensor, y: Tensor, recipe: PaperRecipe, seed: int, protocol: Protocol, validation: int, folder: str | Path | None
) -> tuple[nn.Module, History | None]:
    """Train the network whose kernel is taken: on all samples, or, with some held out at random, to the epoch best on those."""
    if not validation:
        return fit(x, y, recipe, seed, protocol, folder=folder)
    held = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    out, rest = held[:validation], held[validation:]
    return fit(x[rest], y[rest], recipe, seed, protocol, validation=(x[out], y[out]), keep_best=True, folder=folder)


def on_device(data: Dataset) -> tuple[Tensor, Tensor]:
    """Move a data set to where experiments run."""
    return data.x.to(device()), data.y.to(device())


def both_splits(name: str, limit: int | None = None) -> tuple[Dataset, Dataset]:
    """Load the training split (its first ``limit`` samples) and the whole test split."""
    return load(name, "train", limit), load(name, "test")


def clusters_of_class(model: nn.Module, x: Tensor, y: Tensor, label: int, share: float) -> tuple[Tensor, Gram, Clusters]:
    """Cluster one class by lpNTK into ``share`` times its size: its indices, the kernel's rows, the clusters."""
    where = (y == label).nonzero()[:, 0]
    rows = Gram(model, x[where], labelled(y[where]))
    return where, rows, farthest_point_clustering(rows, max(1, round(share * len(where))))


def as_rows(x: Tensor) -> Tensor:
    """Lay samples (N, ...) out as rows of norm sqrt(d), (N, d), in their dtype."""
    x = x.flatten(1)
    return x / x.square().mean(1, keepdim=True).sqrt()


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the power of x that y goes with, by least squares on logarithms."""
    return float(np.polyfit(np.log(np.asarray(x)), np.log(np.asarray(y)), 1)[0])


def together(sets: Sequence[Dataset]) -> Dataset:
    """Join data sets into one for provenance: all names, checksums and notes."""
    checksum = hashlib.sha256("".join(data.checksum for data in sets).encode()).hexdigest()
    name, note = " + ".join(data.name for data in sets), "; ".join(data.note for data in sets if data.note)
    y = torch.cat([data.y for data in sets])
    return Dataset(y, y, max(data.num_classes for data in sets), name, sets[0].split, (), checksum=checksum, note=note)


def some_classes(data: Dataset, classes: Sequence[int], count: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw ``count`` samples of some classes, as float64 rows of norm sqrt(d), and the places of their labels among the classes."""
    where = torch.isin(data.y, torch.tensor(classes)).nonzero()[:, 0]
    some = where[torch.randperm(len(where), generator=torch.Generator().manual_seed(seed))[:count]]
    x = data.x[some].flatten(1).double()
    y = (data.y[some][:, None] == torch.tensor(classes)).int().argmax(1)
    return x / x.square().mean(1, keepdim=True).sqrt(), y


def class_pair(data: Dataset, classes: tuple[int, int], count: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw ``count`` samples of two classes as :func:`some_classes` does, with labels -1 (the first class) and 1."""
    x, y = some_classes(data, classes, count, seed)
    return x, 2 * y - 1


def descent(
    models: list[nn.Module], x: Tensor, y: Tensor, rate: float, times: Sequence[int], centred: bool = False
) -> Iterator[list[nn.Module]]:
    """Train networks of one output together on half the summed squared error, and yield them after each number of steps.

    Args:
        models: of one architecture; they are changed.
        x: (N, ...).
        y: targets (N,).
        rate: step size; small ones follow the gradient flow.
        times: numbers of steps, increasing.
        centred: train f - f_0 instead of f, which starts from 0.
    """
    params = {name: p.detach().requires_grad_() for name, p in stack_module_state(models)[0].items()}
    outputs = vmap(lambda p: call_with(models[0], p, x)[:, 0])
    with torch.no_grad():
        targets = y + outputs(params) if centred else y
    done = 0
    for time in times:
        for _ in range(time - done):
            loss = (targets - outputs(params)).square().sum() / 2
            for p, g in zip(params.values(), torch.autograd.grad(loss, list(params.values())), strict=True):
                p.data.sub_(g, alpha=rate)
        done = time
        yield [assign(model, {name: p.detach()[i] for name, p in params.items()}) for i, model in enumerate(models)]


@contextmanager
def peak_memory(where: torch.device) -> Iterator[Callable[[], float | None]]:
    """Measure by how much the memory held grows inside the context at most, in MiB; None where nobody keeps the mark.

    On a GPU torch's allocator keeps it; on Linux the kernel does, for the resident memory of the process: nothing has
    to look at the right moment, and the work is not slowed.
    """
    gc.collect()
    before = most = _restarted_mark(where)
    yield lambda: None if before is None else (most - before) / 2**20
    most = _mark(where)


def _mark(where: torch.device) -> int | None:
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where)
    try:
        told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    except OSError:
        return None
    return int(told["VmHWM"].split()[0]) * 2**10


def _restarted_mark(where: torch.device) -> int | None:
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
        return _mark(where)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # or what is allocated next may be what was freed before
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the mark starts again from what is resident now (man 5 proc)
    except OSError:
        return None
    return _mark(where)
