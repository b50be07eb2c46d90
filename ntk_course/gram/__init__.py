"""A Gram matrix of tangent features as one lazy object: whole, by rows, streamed, on disk, as an operator, approximated."""

from .operator import Gram
from .reducers import Histogram, Partners, Reducer, Several, TopPartners
from .store import open_gram

__all__ = [
    "Gram",
    "Histogram",
    "Partners",
    "Reducer",
    "Several",
    "TopPartners",
    "open_gram",
]
