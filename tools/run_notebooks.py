"""Run every notebook as somebody does who has the installed package and nothing else: each in an empty folder, its sliders live.

    python tools/run_notebooks.py                    with this Python, as in Colab's image
    python tools/run_notebooks.py --python env/bin/python --only exercises/

Prints a line for each notebook, and the versions that matter; ends with 1 if one of them failed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = """import platform
from importlib.metadata import PackageNotFoundError, version
names = ["torch", "numpy", "scipy", "scikit-learn", "matplotlib", "pandas", "ipywidgets", "ipykernel", "ntk_course"]
def found(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
print("Python", platform.python_version(), *(f"{name} {found(name)}" for name in names), sep=", ")"""


def run(path: Path, python: str, timeout: int) -> str:
    """Run a notebook in an empty folder, and return "" or what went wrong.

    Args:
        path: the notebook.
        python: that runs it; it has ipykernel.
        timeout: seconds for a cell.
    """
    with tempfile.TemporaryDirectory() as folder:
        kernel = Path(folder) / "kernels/theirs"
        kernel.mkdir(parents=True)
        command = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "theirs", "language": "python"}))
        empty = Path(folder) / "empty"
        empty.mkdir()
        client = NotebookClient(
            nbformat.read(path, as_version=4), timeout=timeout, kernel_name="theirs", resources={"metadata": {"path": str(empty)}}
        )
        client.create_kernel_manager()
        client.km.kernel_spec_manager = KernelSpecManager(kernel_dirs=[str(kernel.parent)])
        try:
            client.execute()
        except Exception as error:  # any cell may fail in any way, and the other notebooks are still to be run
            return f"{type(error).__name__}: {str(error)[-2000:]}"
    return ""


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the Python that runs them, with the package and ipykernel")
    parser.add_argument("--only", default="", help="a part of the path of those to run")
    parser.add_argument("--timeout", type=int, default=600, help="seconds for a cell")
    args = parser.parse_args()
    for name in ("NTK_COURSE_STATIC", "NTK_COURSE_DATA", "NTK_COURSE_STRICT"):
        os.environ.pop(name, None)  # what a newcomer has not set
    subprocess.run([args.python, "-c", VERSIONS], check=True)
    failed = 0
    for path in sorted(p for folder in ("book", "exercises", "solutions") for p in (ROOT / folder).glob("[0-9]*.ipynb")):
        name = str(path.relative_to(ROOT))
        if args.only not in name:
            continue
        begun = time.monotonic()
        wrong = run(path, args.python, args.timeout)
        failed += bool(wrong)
        print(f"{'FAILED' if wrong else 'ran'} {name} in {time.monotonic() - begun:.0f} s{wrong and chr(10)}{wrong}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
