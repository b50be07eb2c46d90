"""What only the book needs: checks of the exercises, claims, figures, tables, explorers and self-checks."""

from . import checks, plots, sketches, widgets
from .claims import claim
from .tables import Spread, table

__all__ = [
    "Spread",
    "checks",
    "claim",
    "plots",
    "sketches",
    "table",
    "widgets",
]
