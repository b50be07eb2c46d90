"""Samples in any form: one tensor, several with samples first, or a data set that is read piece by piece."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler, Subset, default_collate

from . import validate


class Batch:
    """Several tensors with samples first, as a model takes them: ``model(*args, **kwargs)``.

    What is no tensor (None, a flag) is the same for all samples.

    Args:
        args: by position.
        kwargs: by name.
    """

    def __init__(self, args: Sequence = (), kwargs: Mapping | None = None):
        """Keep them."""
        self.args, self.kwargs = tuple(args), dict(kwargs or {})

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Return it with every tensor changed."""
        both = [self.args, self.kwargs.values()]
        args, values = ([change(v) if isinstance(v, Tensor) else v for v in some] for some in both)
        return Batch(args, dict(zip(self.kwargs, values, strict=True)))

    @property
    def named(self) -> dict[str, Tensor]:
        """The tensors, by name or place."""
        both = {str(i): v for i, v in enumerate(self.args)} | self.kwargs
        return {name: v for name, v in both.items() if isinstance(v, Tensor)}

    @property
    def device(self) -> torch.device:
        """Of the tensors."""
        return next(iter(self.named.values())).device

    def __len__(self) -> int:
        """Return N."""
        return len(next(iter(self.named.values())))

    def __getitem__(self, rows) -> "Batch":
        """Return some of the samples."""
        return self.map(lambda t: t[rows])

    def clone(self) -> "Batch":
        """Copy it."""
        return self.map(torch.clone)

    def detach(self) -> "Batch":
        """Return it without the tensors' graphs."""
        return self.map(torch.detach)

    def is_inference(self) -> bool:
        """Say whether a tensor was made in inference mode."""
        return any(t.is_inference() for t in self.named.values())


class Stored:
    """A data set whose samples are read when they are asked for, through a :class:`torch.utils.data.DataLoader`.

    Args:
        dataset: with a length and items by number.
        collate: makes a batch of several items.
        like: a weight, whose device and dtype they get.
        arrange: makes a tensor or a :class:`Batch` of what `collate` returns.
        name: of the argument, for messages.
    """

    def __init__(self, dataset: Dataset, collate: Callable, like: Tensor, arrange: Callable, name: str):
        """Keep them."""
        self.dataset, self._collate, self._like, self._arrange, self._name = dataset, collate, like, arrange, name

    @property
    def device(self) -> torch.device:
        """Of the samples once read: the model's."""
        return self._like.device

    def __len__(self) -> int:
        """Return N."""
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, rows) -> "Tensor | Batch":
        """Read some of the samples."""
        chosen = torch.arange(len(self))[rows.cpu() if isinstance(rows, Tensor) else rows].tolist()
        loader = DataLoader(Subset(self.dataset, chosen), max(1, len(chosen)), collate_fn=self._collate)
        try:
            items = next(iter(loader))
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"{self._name}: got items that make no batch ({error}); wanted all of one shape, or a collate_fn"
            ) from error
        found = given(_moved(self._arrange(items), self._like.device), self._like, self._name)
        assert not isinstance(found, Stored)
        return found

    def is_inference(self) -> bool:
        """Say that what is read is fresh."""
        return False


Samples = Tensor | Batch | Stored


def given(x, like: Tensor, name: str = "x", model: Callable | None = None) -> Samples:
    """Check samples in any form and return them in the dtype of a weight; float32 ones as they are, where a model in half precision takes
    them so.

    Args:
        x: a tensor or NumPy array (N, ...), a tuple or mapping of tensors with samples first, or a data set or loader. An item
            of a data set is what the model takes: a tensor, a tuple or a mapping; of a pair (input, target) the first, where
            the model takes one argument.
        like: a weight of the model.
        name: of the argument, for messages.
        model: the model, which tells a pair of inputs from an input and its target.

    Raises:
        TypeError, ValueError: nothing of that kind, no samples, different numbers of them, other devices, or not finite.
    """
    if isinstance(x, DataLoader | Dataset):
        return _stored(x, like, name, model)
    if like.element_size() == 2 and isinstance(x, Tensor) and x.dtype == torch.float32 and _as_it_is(model, x):
        like = like.new_empty(0, dtype=x.dtype)
    if isinstance(x, Batch):
        return _several(x, like, name)
    if isinstance(x, Mapping):
        return _several(Batch(kwargs={str(k): v for k, v in x.items()}), like, name)
    if isinstance(x, tuple):
        return _several(Batch(x), like, name)
    return validate.inputs(x, like, name)


def _as_it_is(model: Callable | None, x: Tensor) -> bool:
    """Say whether a model in half precision takes samples in single: it computes with them before it rounds."""
    if model is None or len(x) == 0 or x.device != next(model.parameters()).device:  # type: ignore[attr-defined]
        return False
    with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []), torch.no_grad():
        try:
            model(x[:1].clone())
        except Exception:  # of two dtypes, as a rule
            return False
    return True


def _several(batch: Batch, like: Tensor, name: str) -> Batch:
    for key, value in [*enumerate(batch.args), *batch.kwargs.items()]:
        if not isinstance(value, Tensor | np.ndarray | bool | int | float | str | None):
            raise TypeError(f"{name}[{key!r}]: got {type(value).__name__}; wanted a tensor with samples first, or a setting")
    args = [validate.tensor(v, f"{name}[{i}]") for i, v in enumerate(batch.args)]
    arrays = Batch(args, {k: validate.tensor(v, f"{name}[{k!r}]") for k, v in batch.kwargs.items()})
    sizes = {key: len(t) if t.dim() else None for key, t in arrays.named.items()}
    if not sizes:
        raise TypeError(f"{name}: got no tensor in it; wanted at least one, with samples first")
    if len(set(sizes.values())) > 1:
        got = ", ".join(f"{key} {tuple(t.shape)}" for key, t in arrays.named.items())
        raise ValueError(f"{name}: got {got}; wanted the same number of samples first in all")
    named = iter(arrays.named)
    return arrays.map(lambda t: validate.inputs(t, like, f"{name}[{next(named)!r}]", least=1))


def _stored(x: Any, like: Tensor, name: str, model: Callable | None) -> Stored:
    collate: Callable = default_collate
    if isinstance(x, DataLoader):
        batches = x.batch_sampler
        order = batches.sampler if type(batches) is BatchSampler else x.sampler if batches is None else batches
        if type(order) is not SequentialSampler:
            raise ValueError(f"{name}: got a DataLoader in another order ({type(order).__name__}); wanted shuffle=False")
        if x.drop_last and len(x.dataset) % (x.batch_size or 1):  # type: ignore[arg-type]
            raise ValueError(f"{name}: got a DataLoader that leaves out its last samples; wanted drop_last=False")
        collate, x = x.collate_fn, x.dataset
    if isinstance(x, IterableDataset) or not hasattr(x, "__len__"):
        raise TypeError(f"{name}: got {type(x).__name__}; wanted a data set with a length and items by number")
    if len(x) == 0:  # type: ignore[arg-type]
        raise ValueError(f"{name}: got N = 0 samples; wanted at least one")
    return Stored(x, collate, like, lambda found: _arranged(found, model, name), name)


def _arranged(found, model: Callable | None, name: str):
    """Tell a pair of inputs from an input and its target, by how many arguments the model cannot do without."""
    if not isinstance(found, tuple | list):
        return found
    needed, most = _arguments(model)
    if len(found) == 1 or len(found) == needed:
        return tuple(found) if len(found) > 1 else found[0]
    if most == 1 and len(found) == 2:
        first = found[0]
        return tuple(first) if isinstance(first, list) else first
    raise TypeError(
        f"{name}: got items of {len(found)} parts for a model that needs {needed} argument(s)"
        f"{'' if most == needed else ' and takes more, so that the rest may be inputs or targets'}; wanted a dict of its arguments by "
        "name, one part for each argument, or, for a model of one argument, a pair (input, target)"
    )


def _arguments(model: Callable | None) -> tuple[int, float]:
    """Count the arguments that a model needs, and those it takes by position."""
    if model is None:
        return 1, 1
    parameters = inspect.signature(getattr(model, "forward", model)).parameters.values()
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    more = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return sum(p.default is p.empty for p in places), float("inf") if more else len(places)


def _moved(found, device: torch.device):
    if isinstance(found, Tensor):
        return found.to(device)
    if isinstance(found, Mapping):
        return {name: _moved(value, device) for name, value in found.items()}
    return tuple(_moved(value, device) for value in found) if isinstance(found, tuple) else found


def read(x: Samples) -> "Tensor | Batch":
    """Return samples that are at hand; of a data set, all of them."""
    return x[:] if isinstance(x, Stored) else x


def joined(parts: "Sequence[Tensor | Batch]") -> "Tensor | Batch":
    """Put batches one after the other."""
    first = parts[0]
    return of_leaves(first, [torch.cat(column) for column in zip(*map(leaves, parts), strict=True)])


def leaves(x: "Tensor | Batch") -> list[Tensor]:
    """List the tensors."""
    return [x] if isinstance(x, Tensor) else list(x.named.values())


def of_leaves(x: "Tensor | Batch", tensors: Sequence[Tensor]) -> "Tensor | Batch":
    """Return samples of the same form as x with other tensors."""
    if isinstance(x, Tensor):
        return tensors[0]
    some = iter(tensors)
    return x.map(lambda _: next(some))


def form(x: "Tensor | Batch") -> tuple:
    """Return what samples that a model takes alike have in common: names, shapes and dtypes."""
    names = [""] if isinstance(x, Tensor) else list(x.named)
    settings = () if isinstance(x, Tensor) else tuple((k, repr(v)) for k, v in x.kwargs.items() if not isinstance(v, Tensor))
    return (*((name, t.shape[1:], t.dtype) for name, t in zip(names, leaves(x), strict=True)), *settings)


def described(x: "Tensor | Batch") -> str:
    """Say the shapes of one sample."""
    if isinstance(x, Tensor):
        return str(tuple(x.shape[1:]))
    return ", ".join(f"{name} {tuple(t.shape[1:])}" for name, t in x.named.items())
