"""Pack a class without a network: a folder for students, one for those who teach, and wheels for the machines of both.

    python tools/pack.py dist/pack                                    after make book
    python tools/pack.py dist/pack --python 3.12 --system windows     fewer wheels: one Python, one system

    students/   the site without its solutions, notebooks, wheels, data, and how to begin
    teachers/   the whole site, solutions, tools/grade.py with the released sheets

Wheels are downloaded for Linux, macOS and Windows and Python 3.11 to 3.13, about 2 GB; the set for this machine is then installed
into an empty environment and a notebook is run with it, or the pack is not finished.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from edition import ROOT, repository, version

# by system: what uv calls it, and the tags of its wheels, newest first
SYSTEMS = {
    "linux": ("x86_64-manylinux_2_28", ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64",
                                        "manylinux_2_12_x86_64", "manylinux2010_x86_64", "manylinux_2_5_x86_64", "manylinux1_x86_64"]),
    "macos": ("aarch64-apple-darwin", [f"macosx_{n}_0_{kind}" for n in (14, 13, 12, 11) for kind in ("arm64", "universal2")]
              + ["macosx_10_9_universal2", "macosx_10_13_universal2"]),
    "windows": ("x86_64-pc-windows-msvc", ["win_amd64"]),
}  # fmt: skip
PYTHONS = ("3.11", "3.12", "3.13")
GPU = ("nvidia-", "cuda-", "triton")  # what PyTorch for a GPU brings on Linux, and no class needs
NEEDED = ("notebook", "ipywidgets", "ipykernel")

KEYS = ("answer_key", "rubrics")  # pages that are for those who teach

STUDENTS = """# Neural tangent kernels, edition {version}, without a network

Open `site/index.html`: the whole course. To run the notebooks and do the exercises, once:

Linux and macOS (a Mac with an Apple processor), in a terminal in this folder:

    python3 -m venv ntk
    ntk/bin/pip install --no-index --find-links wheels ntk_course notebook
    ntk/bin/ntk-course doctor
    ntk/bin/jupyter notebook

Windows, in PowerShell in this folder:

    py -m venv ntk
    ntk\\Scripts\\pip install --no-index --find-links wheels ntk_course notebook
    ntk\\Scripts\\ntk-course doctor
    ntk\\Scripts\\jupyter notebook

Python {pythons} is needed. `exercises/` has the sheets, `book/` the chapters. {data}

Code: MIT. Text: CC BY 4.0. {url}
"""
TEACHERS = """# For those who teach: edition {version}

- `site/book/instructors.html`: plans, what breaks and how to recover. `site/book/answer_key.html` and `site/book/rubrics.html`: answers,
  the mistakes that checks name, and points for laboratories. The students' site has none of the last two.
- `site/slides/`: open one in a browser; S opens the speaker's window, which some browsers open only from a server
  (`python3 -m http.server`). `site/figures.zip` has every figure of the book, drawn ones as SVG.
- `solutions/`: worked solutions as notebooks.
- `tools/grade.py`: grades a folder of submissions, one folder in it for each student, by the sheets in `exercises/`; here in the
  environment of the students' README:

      ../students/ntk/bin/python tools/grade.py submitted/ --csv grades.csv --pages feedback/
"""
WITHOUT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Exercises</title>
<p>This copy of the course comes without its solutions. The sheets are in the folder <code>exercises</code>, beside the folder
<code>site</code>. <a href="../book/exercises.html">All exercises</a></p></html>
"""


def students(site: Path, target: Path, data: Path | None) -> None:
    """Write the students' folder, but for its wheels.

    Args:
        site: the built site.
        target: a folder that is not there yet.
        data: a folder with MNIST and CIFAR-10 to take along, or none.
    """
    shutil.copytree(site, target / "site", ignore=shutil.ignore_patterns(".buildinfo", "notebooks.zip", "*.pdf"))
    for answer in (target / "site/_sources/solutions", target / "site/notebooks/solutions"):
        shutil.rmtree(answer, ignore_errors=True)
    for page in [*(target / "site/solutions").glob("*.html"), *(target / f"site/book/{name}.html" for name in KEYS)]:
        page.write_text(WITHOUT, encoding="utf-8")
    for source in (target / f"site/_sources/book/{name}.md" for name in KEYS):
        source.unlink(missing_ok=True)
    for page in (target / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        kept = re.sub(r"<a [^>]*href=\"[^\"]*(?:notebooks/solutions/[^\"]*|notebooks\.zip)\"[^>]*>(.*?)</a>", r"\1", text)
        if kept != text:
            page.write_text(kept, encoding="utf-8")
    for folder in ("book", "exercises"):
        (target / folder).mkdir()
        for path in sorted((ROOT / folder).glob("[0-9]*.ipynb")):
            shutil.copy(path, target / folder)
    said = "Every chapter runs on the digits that come with scikit-learn."
    if data:
        shutil.copytree(data, target / "data")
        said += " MNIST and CIFAR-10 are in `data/`: set the variable NTK_COURSE_DATA to that folder before the last command."
    pythons = f"{PYTHONS[0]} to {PYTHONS[-1]} (not one of their first releases: x.y.9 or newer)"
    text = STUDENTS.format(version=version(), pythons=pythons, data=said, url=repository())
    (target / "README.md").write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "LICENSE", target)


def teachers(site: Path, target: Path) -> None:
    """Write the folder of those who teach."""
    for folder in ("exercises", "solutions"):
        (target / folder).mkdir(parents=True)
        for path in sorted((ROOT / folder).glob("[0-9]*.ipynb")):
            shutil.copy(path, target / folder)
    shutil.copytree(site, target / "site")
    shutil.copytree(ROOT / "tools/grading", target / "tools/grading", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tools/grade.py", target / "tools")
    (target / "README.md").write_text(TEACHERS.format(version=version()), encoding="utf-8")


def wheels(target: Path, pythons: Sequence[str], systems: Sequence[str]) -> None:
    """Download the package's and the notebook's wheels for the systems and Pythons that are asked for, at our versions.

    Raises:
        RuntimeError: a PyTorch that would need CUDA.
    """
    target.mkdir(parents=True, exist_ok=True)
    _run("pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(target), str(ROOT))
    project = ROOT / "pyproject.toml"
    with tempfile.TemporaryDirectory() as folder:
        for system in systems:
            name, tags = SYSTEMS[system]
            for python in pythons:
                print(f"wheels for {system}, Python {python}", flush=True)
                needed, pinned = Path(folder) / "needed.txt", Path(folder) / "pinned.txt"
                needed.write_text("\n".join([*_dependencies(project), *NEEDED]))
                _run("uv", "pip", "compile", "--quiet", "--python-platform", name, "--python-version", f"{python}.9", "--no-header",
                     "--no-annotate", "--constraint", str(ROOT / "requirements.txt"), "--output-file", str(pinned), str(needed))  # fmt: skip
                kept = [line for line in pinned.read_text().splitlines() if not line.startswith(GPU)]
                pinned.write_text("\n".join(kept))
                _run("pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", f"{python}.9",
                     *(part for tag in tags for part in ("--platform", tag)), "--dest", str(target), "--requirement", str(pinned))  # fmt: skip
    large = [path.name for path in target.glob("torch-*linux*.whl") if path.stat().st_size > 350 * 2**20]
    if large:
        raise RuntimeError(
            f"wheels: got {', '.join(large)}, which wants 3 GB of CUDA; wanted PyTorch for the processor: put the address of its CPU index "
            "into PIP_EXTRA_INDEX_URL"
        )


def _dependencies(project: Path) -> list[str]:
    import tomllib

    return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]


def tried(folder: Path) -> str:
    """Install the pack into an empty environment, without an index, and run a sheet with it; what the notebook's check said."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        venv.create(home / "ntk", with_pip=True)
        python = home / ("ntk/Scripts/python.exe" if os.name == "nt" else "ntk/bin/python")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "NTK_", "PYTHON"))} | {
            "PIP_CONFIG_FILE": os.devnull
        }
        for command in (
            ["-m", "pip", "install", "--quiet", "--no-index", "--find-links", str(folder / "wheels"), "ntk_course", "notebook"],
            ["-m", "ntk_course", "doctor"],
        ):
            subprocess.run([str(python), *command], check=True, cwd=home, env=environment)
        sheet = sorted((folder / "exercises").glob("*.ipynb"))[0]
        code = (
            "import nbformat, nbclient, sys; nb = nbformat.read(sys.argv[1], 4); nbclient.NotebookClient(nb, timeout=300).execute();"
            "print(nb.cells[-1].outputs[0]['data']['text/plain'])"
        )
        done = subprocess.run(
            [str(python), "-c", code, str(sheet)], check=True, cwd=home, env=environment, capture_output=True, text=True
        )
        return done.stdout.strip()


def zipped(folder: Path, target: Path) -> Path:
    """Put a folder into an archive beside it, which appears when it is whole."""
    beside = target.with_suffix(".part")
    with ZipFile(beside, "w", ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, Path(f"ntk-course-{version()}") / folder.name / path.relative_to(folder))
    beside.replace(target)
    return target


def _run(tool: str, *arguments: str) -> None:
    # PyTorch for a Mac asks for macOS 14, where uv would take an older one for granted
    subprocess.run([sys.executable, "-m", tool, *arguments], check=True, env=os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"})


def main() -> int:
    """Make the pack that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("--python", action="append", choices=PYTHONS, help="may be given more than once; all three by default")
    parser.add_argument("--system", action="append", choices=list(SYSTEMS), help="may be given more than once; all by default")
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("NTK_COURSE_DATA") or None, help="a folder with MNIST and CIFAR-10"
    )
    parser.add_argument(
        "--zip", action="store_true", help="archives of both folders as well, without the wheels, and of the wheels"
    )
    args = parser.parse_args()
    site = ROOT / "_build/html"
    if not (site / "slides").is_dir():
        print(f"site: got {site}, which is not built; wanted what make book builds", file=sys.stderr)
        return 2
    shutil.rmtree(args.target, ignore_errors=True)
    students(site, args.target / "students", args.data)
    teachers(site, args.target / "teachers")
    if args.zip:
        for part in ("students", "teachers"):
            zipped(args.target / part, args.target / f"ntk-course-{version()}-{part}.zip")
    try:
        wheels(args.target / "students/wheels", args.python or PYTHONS, args.system or list(SYSTEMS))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    mine = {"linux": "linux", "darwin": "macos", "win32": "windows"}.get(sys.platform)
    if here in (args.python or PYTHONS) and mine in (args.system or list(SYSTEMS)):
        print(f"tried on this machine, without an index: {tried(args.target / 'students')}")
    else:
        print(f"not tried: no wheels for Python {here} on {mine}, which this machine has")
    if args.zip:
        zipped(args.target / "students/wheels", args.target / f"ntk-course-{version()}-wheels.zip")
    size = sum(path.stat().st_size for path in args.target.rglob("*") if path.is_file())
    print(f"{args.target}: {size / 2**20:,.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
