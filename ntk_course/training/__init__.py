"""Training by steps of SGD: one network, many at once, or with its path through weight space recorded."""

from .ensemble import Ensemble, train_ensemble
from .path import TrainingPath
from .path_files import load_path
from .recipe import Recipe
from .record import train_path
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
