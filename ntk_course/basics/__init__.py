"""What every room stands on: errors that name the argument, fingerprints of what a file was made from, processes."""

from . import fingerprints, processes, validate

__all__ = [
    "fingerprints",
    "processes",
    "validate",
]
