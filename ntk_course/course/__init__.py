"""What only the book needs: checks of the exercises, figures, explorers and self-checks."""

from . import checks, plots, widgets

__all__ = [
    "checks",
    "plots",
    "widgets",
]
