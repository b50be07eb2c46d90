"""Start the process of a student's notebook, with as much between it and the machine as the machine offers."""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from . import wire

TOOLS = Path(__file__).resolve().parent.parent
GRACE = 5.0  # seconds that an interrupted cell has to end


def walls() -> str:
    """Say what stands between submissions and this machine, for whoever starts a grading."""
    if shutil.which("bwrap"):
        return "bwrap: no network, this machine's files read only, the course's solutions out of sight"
    return "no bwrap on this machine: submissions run with limits on memory, files and time, and can read what you can read"


class Died(Exception):
    """The process ended, or had to be ended, while something ran in it."""


class Student:
    """A process that runs one student's cells.

    Args:
        folder: where it works, and may write.
        timeout: seconds for a cell, or for one call of an answer.
        memory: GiB that it may use.
    """

    def __init__(self, folder: Path, timeout: float = 60.0, memory: float = 8.0):
        self.folder, self.timeout, self.memory = folder, timeout, memory
        self.process: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        """Start the process anew; what ran in an earlier one is gone.

        Raises:
            Died: it did not start.
        """
        self.close()
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
        """Send a request, and return the answer, ``{"error": ...}`` for one that was interrupted.

        Raises:
            Died: the process ended, or did not end what it did after an interrupt.
        """
        if self.process is None:
            raise Died("the process ended before")
        try:
            wire.write(self._out, wire.trusted(message))
            return self._answer(self.timeout)
        except wire.Gone:
            self.close()
            raise Died("the process ended (killed, out of memory, or it left by itself)") from None
        except wire.Late:
            return self._interrupted()

    def _interrupted(self) -> dict:
        assert self.process is not None
        words = f"it ran longer than {self.timeout:g} s and was interrupted"
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            self._answer(GRACE)
        except (wire.Gone, wire.Late, Died):
            self.close()
            raise Died(f"it ran longer than {self.timeout:g} s, did not stop when interrupted, and was ended") from None
        return {"error": {"type": "TimeoutError", "words": words, "line": ""}, "late": True}

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
        for end in (self._out, self._in):
            with suppress(OSError):
                os.close(end)


def _walled(folder: Path) -> list[str]:
    """Return the command that puts a process behind bubblewrap, where there is one."""
    if not shutil.which("bwrap"):
        return []
    spec = find_spec("ntk_course")
    solutions = Path(next(iter(spec.submodule_search_locations))) / "course" / "checks" if spec else None  # type: ignore[union-attr, arg-type]
    hidden = ["--tmpfs", str(solutions)] if solutions and solutions.is_dir() else []
    return ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--bind", str(folder), str(folder),
            *hidden, "--unshare-net", "--unshare-pid", "--die-with-parent", "--chdir", str(folder)]  # fmt: skip
