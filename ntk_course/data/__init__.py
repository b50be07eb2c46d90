"""Data sets: digits, MNIST, CIFAR-10 and Gaussian classes, each with its checksum."""

from .datasets import Dataset, load

__all__ = [
    "Dataset",
    "load",
]
