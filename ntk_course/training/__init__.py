"""Training by steps of SGD: one network, many at once, or with its path through weight space recorded."""

from .ensemble import Ensemble, train_ensemble
from .path import TrainingPath, load_path, train_path
from .recipe import Recipe
from .sgd import History, cosine, crop_and_flip, device, evaluate, step_decay, train

__all__ = [
    "Recipe",
    "Ensemble",
    "History",
    "TrainingPath",
    "cosine",
    "crop_and_flip",
    "device",
    "evaluate",
    "load_path",
    "step_decay",
    "train",
    "train_ensemble",
    "train_path",
]
