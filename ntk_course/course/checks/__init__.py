"""Checks of the exercises: each compares an answer with a reference and names the common mistakes.

An unanswered stub (one that returns ``...``) is told apart from a wrong answer. Answers may be tensors, arrays or numbers, of
any floating dtype, on any device, vectorised or looped. A check draws its cases anew at each call, and hands out copies of them,
so that an answer may work in place. A laboratory's check is given what was predicted, measured and concluded.
"""

from . import (
    attributions,
    clusters,
    comparing,
    computing,
    difficulty,
    exactness,
    forgetting,
    label_aware,
    labels,
    laboratories,
    layers,
    lazy,
    machines,
    moving,
    one_step,
    pruning,
    spectra,
    steps,
    sureness,
    wide,
)
from .attributions import *  # noqa: F403
from .clusters import *  # noqa: F403
from .comparing import *  # noqa: F403
from .computing import *  # noqa: F403
from .difficulty import *  # noqa: F403
from .exactness import *  # noqa: F403
from .forgetting import *  # noqa: F403
from .label_aware import *  # noqa: F403
from .labels import *  # noqa: F403
from .laboratories import *  # noqa: F403
from .layers import *  # noqa: F403
from .lazy import *  # noqa: F403
from .machines import *  # noqa: F403
from .moving import *  # noqa: F403
from .one_step import *  # noqa: F403
from .pruning import *  # noqa: F403
from .spectra import *  # noqa: F403
from .steps import *  # noqa: F403
from .sureness import *  # noqa: F403
from .tally import summary
from .wide import *  # noqa: F403

__all__ = [
    *attributions.__all__,
    *clusters.__all__,
    *comparing.__all__,
    *computing.__all__,
    *difficulty.__all__,
    *exactness.__all__,
    *forgetting.__all__,
    *label_aware.__all__,
    *labels.__all__,
    *layers.__all__,
    *laboratories.__all__,
    *lazy.__all__,
    *machines.__all__,
    *moving.__all__,
    *one_step.__all__,
    *pruning.__all__,
    *spectra.__all__,
    *steps.__all__,
    *sureness.__all__,
    *wide.__all__,
    "summary",
]
