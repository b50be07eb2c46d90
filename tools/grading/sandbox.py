"""Start the process of a student's notebook, with as much between it and the machine as the machine offers."""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from . import wire

TOOLS = Path(__file__).resolve().parent.parent
GRACE = 5.0  # seconds that what was interrupted has to end


def walls() -> str:
    """Say what stands between submissions and this machine, for whoever starts a grading."""
    if shutil.which("bwrap"):
        return "bwrap: submissions have no network, one folder to write to, and see Python and the package without its answers"
    return (
        "no bwrap on this machine: submissions run with limits on memory, files and time, and can read and change what you can, "
        "the answers in the package among it"
    )


class Died(Exception):
    """The process ended, or had to be ended, while something ran in it."""


class Overran(Died):
    """It was ended because its time was up."""


class Student:
    """A process that runs one student's cells.

    Args:
        folder: where it works, and may write.
        timeout: seconds for a cell, or for one call of an answer.
        memory: GiB that it may use.
        whole: seconds for all cells and calls together.
    """

    def __init__(self, folder: Path, timeout: float = 60.0, memory: float = 8.0, whole: float = 900.0):
        self.folder, self.timeout, self.memory, self.whole = folder, timeout, memory, whole
        self.spent = 0.0
        self.process: subprocess.Popen | None = None
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans of a student's process come to this one
        self.start()

    def start(self) -> None:
        """Start the process anew; what ran in an earlier one is gone.

        Raises:
            Died: it did not start.
        """
        self.close()
        self._before = _children()
        to_student, self._out = os.pipe()
        self._in, from_student = os.pipe()
        command = [*_walled(self.folder), sys.executable, "-m", "grading.worker", str(to_student), str(from_student)]
        path = os.pathsep.join([str(TOOLS), *filter(None, [os.environ.get("PYTHONPATH")])])
        # no more of the environment than Python needs: there may be secrets in it
        env = {
            name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV") if name in os.environ
        }
        env |= {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HOME": str(self.folder)}
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=env,
            pass_fds=(to_student, from_student),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=self._limits,
        )
        os.close(to_student)
        os.close(from_student)
        self._answer(timeout=120)

    def _limits(self) -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it ends with the grader, whatever ends that
        most = int(self.memory * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def ask(self, *message) -> dict:
        """Send a request, and return the answer; its own clock interrupts it, with ``{"error": ..., "late": True}``.

        Raises:
            Died: the process ended, or did not end what it did when it was interrupted.
        """
        if self.process is None:
            raise Died("the process ended before")
        if self.spent > self.whole:
            raise Overran(f"the whole submission ran longer than {self.whole:g} s")
        begun = time.monotonic()
        try:
            wire.write(self._out, wire.trusted((self.timeout, *message)), GRACE)
            return self._answer(self.timeout + GRACE)
        except wire.Gone:
            self.close()
            raise Died("the process ended (killed, out of memory, or it left by itself)") from None
        except wire.Late:
            self.close()
            raise Overran(f"it ran longer than {self.timeout:g} s and could not be interrupted") from None
        finally:
            self.spent += time.monotonic() - begun

    def _answer(self, timeout: float) -> dict:
        try:
            answer = wire.unpacked(wire.read(self._in, timeout))
        except wire.Gone:
            self.close()
            raise Died("the process ended (killed, out of memory, or it left by itself)") from None
        if not isinstance(answer, dict):
            self.close()
            raise Died("the process wrote something else than an answer where answers go")
        return answer

    def close(self) -> None:
        """End the process and everything it started."""
        if self.process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        for pid in _children() - self._before:  # what it started and put out of reach came to this process
            with suppress(ProcessLookupError, PermissionError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        for end in (self._out, self._in):
            with suppress(OSError):
                os.close(end)


def _children() -> set[int]:
    """Return the processes that this one has to bury."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found |= set(map(int, path.read_text().split()))
    return found


def _walled(folder: Path) -> list[str]:
    """Return the command that puts a process behind bubblewrap, where there is one.

    What is bound is what Python needs, the package, and this one: no home, no repository with solutions in it, no other submission.
    """
    if not shutil.which("bwrap"):
        return []
    seen = [Path(name) for name in ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives", "/etc/fonts",
                                    "/etc/localtime", "/opt/conda")]  # fmt: skip
    seen += [Path(name) for name in (sys.prefix, sys.base_prefix, *filter(None, sys.path)) if Path(name) != TOOLS]
    hidden = []
    for name in ("ntk_course", "ntk_course.stored"):
        spec = find_spec(name)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            seen.append(Path(place))
            hidden += ["--tmpfs", str(Path(place) / "course/checks")] if (Path(place) / "course/checks").is_dir() else []
    # a checkout on the path has solutions beside the package, which is bound by itself
    seen = [
        path for path in seen if path.exists() and ("site-packages" in path.parts or not (path / "ntk_course/course").is_dir())
    ]
    bound = [part for path in [*seen, TOOLS / "grading"] for part in ("--ro-bind", str(path), str(path))]
    return ["bwrap", "--unshare-all", "--die-with-parent", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", *bound, *hidden,
            "--bind", str(folder), str(folder), "--chdir", str(folder)]  # fmt: skip
