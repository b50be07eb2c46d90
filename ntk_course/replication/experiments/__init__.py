"""Experiments: one module per table or figure, each with ``Config.preset(name)`` and ``run(config)``."""

import importlib
import pkgutil
from types import ModuleType

from .. import results

# "smoke" is for tests, "class" for a laptop, "paper" has the papers' settings as far as a CPU reaches, and "cifar10" is
# what the papers run on CIFAR-10 with a ResNet-18, for a GPU.
PRESETS = ("smoke", "class", "paper", "cifar10")


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


def presets(name: str) -> list[str]:
    """List the presets that an experiment has: all have the first three."""
    return [preset for preset in PRESETS if preset != "cifar10" or hasattr(find(name), "SECONDS_ON_A_GPU")]


def config(name: str, preset: str):
    """Return the settings of an experiment's preset.

    Raises:
        ValueError: there is no such experiment, or it has no such preset.
    """
    if preset not in presets(name):
        raise ValueError(f"preset: got {preset!r} for {name}; wanted one of {presets(name)}")
    return find(name).Config.preset(preset)


def seconds_a_seed(name: str, preset: str) -> float | None:
    """Return how long a seed took in the run that came with the course; without one, on a GPU, what we reckon; else None."""
    if run := results.stored(name, preset):
        return run.provenance["seconds"] / len(run.provenance["config"]["seeds"])
    return getattr(find(name), "SECONDS_ON_A_GPU", None) if preset == "cifar10" else None
