"""The command ``ntk-course``: what is installed, which experiments there are, and running them."""

import argparse
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from . import data, experiments, processes, results

_LIBRARIES = ("ntk_course", "torch", "numpy", "scipy", "scikit-learn", "matplotlib", "seaborn", "ipywidgets", "tqdm", "pooch")


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 a problem found, 2 wrong usage, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="ntk-course", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="print versions, devices and which data sets are at hand")
    commands.add_parser("list", help="list the experiments and the results stored")
    run = commands.add_parser("run", help="run an experiment and store its result")
    run.add_argument("name")
    run.add_argument("--preset", choices=experiments.PRESETS, default="class")
    for command in commands.choices.values():
        command.add_argument("--results", type=Path, default=Path("book/results"), help="folder of results")
    args = parser.parse_args(argv)
    try:
        return {"doctor": _doctor, "list": _list, "run": _run}[args.command](args)
    except KeyboardInterrupt:
        print("interrupted; nothing half-written was left", file=sys.stderr)
        return 130
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        print(f"ntk-course: {error}", file=sys.stderr)
        return 2


def _doctor(args: argparse.Namespace) -> int:
    print(f"python          {platform.python_version()} on {platform.system()} {platform.machine()}")
    missing = 0
    for name in _LIBRARIES:
        try:
            found = version(name)
        except PackageNotFoundError:
            found, missing = "MISSING", missing + 1
        print(f"{name:<15} {found}")
    print(f"threads         {torch.get_num_threads()} of {os.cpu_count()} cores")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"gpu             {', '.join(gpus) or 'none (every chapter runs without)'}")
    root = os.environ.get("NTK_COURSE_DATA")
    print(f"NTK_COURSE_DATA {root or 'not set'}")
    for name in ("digits", "gaussians", "mnist", "cifar10"):
        print(f"data {name:<10} {data.at_hand(name, root)}")
    return 1 if missing else 0


def _list(args: argparse.Namespace) -> int:
    for name in experiments.names():
        stored = [p for p in experiments.PRESETS if results.read(name, p, args.results)]
        summary = experiments.find(name).__doc__.splitlines()[0]
        print(f"{name:<20} {summary}\n{'':<20} stored: {', '.join(stored) or 'none'}")
    return 0


def _run(args: argparse.Namespace) -> int:
    module = experiments.find(args.name)
    with processes.joined() as here:
        result = module.run(module.Config.preset(args.preset), args.preset, folder=args.results)
        if here.rank == 0:
            print(f"wrote {results.save(result, args.results)}")
    return 0


if __name__ == "__main__":  # torchrun -m ntk_course.cli run NAME
    raise SystemExit(main())
