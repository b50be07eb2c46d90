"""A Gram matrix of tangent features, block by block: whole, by rows, reduced, on disk, as an operator, approximated."""

from .approximate import last_layer_kernel, nystrom_features, projected_features
from .engine import gram_blocks
from .implicit import gram_quadratic, gram_times
from .reduce import reduce_gram
from .reducers import Histogram, Partners, Reducer, TopPartners
from .rows import GramRows
from .store import open_gram, write_gram

__all__ = [
    "GramRows",
    "Histogram",
    "Partners",
    "Reducer",
    "TopPartners",
    "gram_blocks",
    "gram_quadratic",
    "gram_times",
    "last_layer_kernel",
    "nystrom_features",
    "open_gram",
    "projected_features",
    "reduce_gram",
    "write_gram",
]
