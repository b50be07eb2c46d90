"""The process of one student's notebook: it runs cells, and answers calls of what they defined. Started by :mod:`grading.sandbox`.

    python -m grading.worker READ_FD WRITE_FD

It knows no solutions: the checks of the course are replaced by a stand-in that does nothing.
"""

import builtins
import os
import pickle
import signal
import sys
import traceback
import types

from . import wire


class _NoCheck:
    """Stands for every check in a student's notebook: verdicts are made elsewhere."""

    def __call__(self, *args, **kwargs) -> "_NoCheck":
        return self

    def __repr__(self) -> str:
        return "checked when it is graded"

    def __getattr__(self, name: str) -> "_NoCheck":
        if name.startswith("__"):
            raise AttributeError(name)
        return self


def no_checks() -> None:
    """Put stand-ins in the place of the checks, before the package is imported."""
    name = "ntk_course.course.checks"
    module = types.ModuleType(name)
    stand_in = _NoCheck()
    module.__getattr__ = lambda attribute: getattr(stand_in, attribute)  # type: ignore[method-assign]
    module.__path__ = []  # type: ignore[attr-defined]
    sys.modules[name] = module


def told(error: BaseException, source: str = "") -> dict:
    """Describe an exception by its type, its words, and the student's line that raised it."""
    line = ""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if "ipython-input" in frame.filename or "ipykernel" in frame.filename or frame.filename.startswith("<cell"):
            line = f"in line {frame.lineno} of the cell: {(frame.line or '').strip()[:200]}"
            break
    if isinstance(error, SyntaxError):
        line = f"in line {error.lineno} of the cell: {(error.text or '').strip()[:200]}"
    return {"type": type(error).__name__, "words": str(error)[:2000], "line": line}


class Notebook:
    """One notebook's names, and the cells run so far."""

    def __init__(self):
        from IPython.core.interactiveshell import InteractiveShell

        self.shell = InteractiveShell.instance(colors="nocolor")
        self.shell.history_manager.enabled = False
        self.shell.enable_gui = lambda gui=None: None  # what %matplotlib asks for; nobody looks here
        self.shell.showtraceback = lambda *args, **kwargs: None  # type: ignore[method-assign]

    def cell(self, source: str) -> dict:
        """Run one cell, and say how it failed if it did."""
        result = self.shell.run_cell(source, store_history=False, silent=True)
        error = result.error_before_exec or result.error_in_exec
        return {"error": told(error, source)} if error else {}

    def value(self, name: str) -> dict:
        """Return what a name stands for; of a function that it is one."""
        if name not in self.shell.user_ns:
            return {"missing": True}
        return {"value": self.shell.user_ns[name]}

    def call(self, name: str, arguments: bytes) -> dict:
        """Call what a name stands for."""
        try:
            args, kwargs = pickle.loads(arguments)
            return {"value": self.shell.user_ns[name](*args, **kwargs)}
        except (Exception, SystemExit) as error:
            return {"error": told(error)}


def main() -> int:
    """Serve one grader until it closes its end."""
    inward, outward = int(sys.argv[1]), int(sys.argv[2])
    os.environ["NTK_COURSE_STATIC"] = "1"
    os.environ.setdefault("MPLBACKEND", "agg")
    no_checks()
    builtins.input = lambda *args: ""  # nobody is there to type
    import matplotlib.pyplot  # noqa: F401

    import ntk_course  # noqa: F401  # now, so that no cell's time is spent on it

    notebook = Notebook()
    wire.write(outward, wire.plain({"ready": True}))
    signal.signal(signal.SIGALRM, _late)
    while True:
        try:
            seconds, what, *rest = pickle.loads(wire.read(inward))
        except wire.Gone:
            return 0
        _Late.come = False
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            answer = getattr(notebook, what)(*rest)
        except KeyboardInterrupt as error:
            answer = {"error": told(error)}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if _Late.come:
            words = f"it ran longer than {seconds:g} s and was interrupted"
            answer = {"error": {"type": "TimeoutError", "words": words, "line": ""}, "late": True}
        wire.write(outward, wire.plain(answer))


class _Late:
    come = False


def _late(*args) -> None:
    """End what runs, as a key of the student's would; the grader ends the process where this does not help."""
    _Late.come = True
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
