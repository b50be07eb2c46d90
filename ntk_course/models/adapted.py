"""A model seen as a function of one batch that answers with one tensor, whatever it takes and returns."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..basics import fingerprints
from ..basics.samples import Batch

Output = str | int | Callable[[Any], Tensor]


class Adapted(nn.Module):
    """A view of a module: its own parameters, buffers, submodules and their names, called with one argument.

    Args:
        inner: the module.
        output: which part of its answer counts: a name, a number, or a function of the answer; None for all of it.
        eager: run what torch.compile made as it was written: operations can be followed then, and nothing is compiled again for
            every size of a block.
    """

    inner: nn.Module
    output: Output | None
    eager: bool

    def __init__(self, inner: nn.Module, output: Output | None, eager: bool = False):
        """Share the module's tables, so that what is set in one is set in the other."""
        self.__dict__["inner"], self.__dict__["output"], self.__dict__["eager"] = inner, output, eager
        super().__init__()
        for table in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[table] = inner.__dict__[table]

    @property
    def training(self) -> bool:  # type: ignore[override]
        """The module's mode."""
        return self.inner.training

    @training.setter
    def training(self, mode: bool) -> None:
        pass

    def train(self, mode: bool = True) -> "Adapted":
        """Set the module's mode."""
        self.inner.train(mode)
        return self

    def named_modules(self, *args, **kwargs) -> Iterator[tuple[str, nn.Module]]:  # type: ignore[override]
        """Go through the module's own."""
        return self.inner.named_modules(*args, **kwargs)

    def __repr__(self) -> str:
        """Describe the module, and the part that counts."""
        if self.output is None:
            return repr(self.inner)
        part = fingerprints.of_function(self.output) if callable(self.output) else repr(self.output)
        return f"{self.inner!r}, output={part}"

    def forward(self, x: Tensor | Batch):
        """Call the module, and pick the part that counts."""
        with torch.compiler.set_stance("force_eager") if self.eager else nullcontext():
            z = self.inner(*x.args, **x.kwargs) if isinstance(x, Batch) else self.inner(x)
        return z if self.output is None else _picked(z, self.output)


def adapted(model: nn.Module, x=None, output: Output | None = None, eager: bool = True) -> nn.Module:
    """Return the view of a model that takes x as it is and answers with a tensor; where nothing is to adapt, the model.

    What torch.compile made runs as it was written, unless ``eager`` is False.
    """
    if not isinstance(model, nn.Module) or isinstance(model, Adapted) and output is None:
        return model
    if output is not None and not isinstance(output, str | int) and not callable(output):
        raise TypeError(f"output: got {output!r}; wanted a name, a number, or a function of the model's answer")
    # Known by their marks: to import torch._dynamo for the class of compiled modules takes two seconds.
    eager = eager and any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules())
    return model if output is None and isinstance(x, Tensor) and not eager else Adapted(model, output, eager)


def origin(model: nn.Module) -> nn.Module:
    """Return the model behind a view."""
    return model.inner if isinstance(model, Adapted) else model


def _picked(z, output: Output):
    if callable(output):
        try:
            return output(z)
        except (AttributeError, KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"output: got a function that fails on the model's answer, a {type(z).__name__} ({type(error).__name__}: {error}); "
                "wanted one that picks a tensor from it"
            ) from error
    try:
        if isinstance(output, str) and not isinstance(z, Mapping):
            return getattr(z, output)
        return z[output]
    except (KeyError, IndexError, AttributeError, TypeError):
        of = f"{type(z).__name__} of {', '.join(map(str, z))}" if isinstance(z, Mapping) else type(z).__name__
        raise ValueError(f"output: got {output!r}; wanted a part of the model's answer, a {of}") from None
