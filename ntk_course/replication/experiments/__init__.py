"""Experiments: one module per table or figure, which holds one value, ``EXPERIMENT``."""

import importlib
import pkgutil

from .. import results
from ..experiment import Experiment

# "smoke" is for tests, "class" for a laptop, "paper" has the papers' settings as far as a CPU reaches, "code" follows the lpNTK
# paper's public code where that differs from the text, "narrow" is CIFAR-10 as far as a CPU reaches (there a quarter of the width),
# and "cifar10" is what the papers run on CIFAR-10, for a GPU.
PRESETS = ("smoke", "class", "paper", "code", "narrow", "cifar10")


def names() -> list[str]:
    """List the experiments there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def find(name: str) -> Experiment:
    """Return an experiment by name.

    Raises:
        ValueError: there is no such experiment.
    """
    if name not in names():
        raise ValueError(f"name: got {name!r}; wanted one of {names()}")
    module = importlib.import_module(f"{__name__}.{name}")
    found: Experiment = module.EXPERIMENT
    found.name, found.summary = name, (module.__doc__ or "").splitlines()[0]
    return found


def seconds_a_seed(name: str, preset: str) -> float | None:
    """Return how long a seed took in the run that came with the course; without one, on a GPU, what we reckon; else None."""
    if run := results.stored(name, preset):
        return run.provenance["seconds"] / len(run.provenance["config"]["seeds"])
    return find(name).seconds_on_a_gpu if preset == "cifar10" else None
