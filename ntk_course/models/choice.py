"""Some of a model's trainable parameters, chosen by name, pattern, module or as they are."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

Choice = str | nn.Module | nn.Parameter | Iterable[str | nn.Module | nn.Parameter]


def chosen_from(model: nn.Module, parameters: Choice) -> frozenset[str]:
    """Return the names of the trainable parameters that were chosen; a tied one by its first name.

    Args:
        model: any module.
        parameters: names, patterns of :mod:`fnmatch` (``"blocks.*.weight"``), modules by name or as they are, parameters, or a
            list of these.

    Raises:
        TypeError: something else; ValueError: something that no trainable parameter belongs to, with those there are.

    Example:
        >>> sorted(chosen_from(model, "*.bias")), sorted(chosen_from(model, model[3]))
        (['1.bias', '3.bias'], ['3.bias', '3.weight'])
    """
    first = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    every = {name: first[id(p)] for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    found: set[str] = set()
    some = [parameters] if isinstance(parameters, str | nn.Module | nn.Parameter) else parameters
    if not isinstance(some, Iterable):
        raise TypeError(f"parameters: got {parameters!r}; wanted names, patterns, modules or parameters")
    for one in some:
        if isinstance(one, nn.Module | nn.Parameter):
            owned = [one] if isinstance(one, nn.Parameter) else one.parameters()
            names = {first[id(p)] for p in owned if id(p) in first}
        elif isinstance(one, str):
            names = {every[n] for n in every if n == one or n.startswith(f"{one}.") or fnmatchcase(n, one)}
        else:
            raise TypeError(f"parameters: got {one!r}; wanted names, patterns, modules or parameters")
        if not names:
            kind = f"{type(one).__name__}" if not isinstance(one, str) else repr(one)
            raise ValueError(f"parameters: got {kind}; wanted some of the trainable parameters, {', '.join(first.values())}")
        found |= names
    if not found:
        raise ValueError(f"parameters: got none; wanted some of the trainable parameters, {', '.join(first.values())}")
    return frozenset(found)
