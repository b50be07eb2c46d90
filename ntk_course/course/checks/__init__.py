"""Checks of the exercises: each compares an answer with a reference and names the common mistakes.

An unanswered stub (one that returns None or ``...``, or raises NotImplementedError) is told apart from a wrong answer.
Answers may be tensors, arrays or numbers, of any floating dtype, on any device, vectorised or looped.
"""

from .aware import *  # noqa: F403
from .core import *  # noqa: F403
from .labels import *  # noqa: F403
from .learning import *  # noqa: F403
from .machines import *  # noqa: F403
from .moving import *  # noqa: F403
from .paths import *  # noqa: F403
from .selection import *  # noqa: F403
from .tangents import *  # noqa: F403
from .wide import *  # noqa: F403
