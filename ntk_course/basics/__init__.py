"""What every room stands on: errors that name the argument, fingerprints of what a file was made from, processes."""

from . import fingerprints, folders, processes, progress, samples, validate

__all__ = [
    "fingerprints",
    "folders",
    "processes",
    "progress",
    "samples",
    "validate",
]
