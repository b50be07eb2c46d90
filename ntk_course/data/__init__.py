"""Data sets: digits, MNIST, CIFAR-10 and Gaussian classes, each with its checksum."""

from .datasets import Dataset, at_hand, load

__all__ = [
    "Dataset",
    "at_hand",
    "load",
]
