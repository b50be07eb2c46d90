"""Notes to the caller: warnings that point to the line that called the package, however deep they come from."""

import sys
import warnings
from pathlib import Path

_PACKAGE = str(Path(__file__).parent.parent)


def note(message: str) -> None:
    """Warn, once for each place outside the package that leads here."""
    frame, depth = sys._getframe(1), 2
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, stacklevel=depth)
