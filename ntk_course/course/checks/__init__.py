"""Checks of the exercises: each compares an answer with a reference and names the common mistakes.

An unanswered stub (one that returns ``...``) is told apart from a wrong answer. Answers may be tensors, arrays or numbers, of
any floating dtype, on any device, vectorised or looped. A check draws its cases anew at each call, and hands out copies of them,
so that an answer may work in place. A laboratory's check is given what was predicted, measured and concluded.
"""

from . import aware, labels, laboratories, learning, machines, moving, paths, selection, tangents, wide
from .aware import *  # noqa: F403
from .labels import *  # noqa: F403
from .laboratories import *  # noqa: F403
from .learning import *  # noqa: F403
from .machines import *  # noqa: F403
from .moving import *  # noqa: F403
from .paths import *  # noqa: F403
from .selection import *  # noqa: F403
from .tangents import *  # noqa: F403
from .wide import *  # noqa: F403

__all__ = [
    *aware.__all__,
    *laboratories.__all__,
    *labels.__all__,
    *learning.__all__,
    *machines.__all__,
    *moving.__all__,
    *paths.__all__,
    *selection.__all__,
    *tangents.__all__,
    *wide.__all__,
]
