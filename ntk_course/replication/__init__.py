"""The papers' experiments done again: presets, stored results, claims, the report, and the command that runs them."""

from . import results

__all__ = [
    "results",
]
