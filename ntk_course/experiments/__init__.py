"""Experiments: one module per table or figure, each with ``Config.preset(name)`` and ``run(config)``."""

import importlib
import pkgutil
from types import ModuleType

PRESETS = ("smoke", "class", "paper")


def names() -> list[str]:
    """List the experiments there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def find(name: str) -> ModuleType:
    """Import an experiment by name.

    Raises:
        ValueError: there is no such experiment.
    """
    if name not in names():
        raise ValueError(f"name: got {name!r}; wanted one of {names()}")
    return importlib.import_module(f"{__name__}.{name}")
