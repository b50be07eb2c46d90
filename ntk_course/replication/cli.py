"""The command ``ntk-course``: what is installed, which experiments there are, and running them."""

import argparse
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ..basics import processes, validate
from ..data import datasets as data
from . import experiments, results

_LIBRARIES = (
    "ntk_course",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "matplotlib",
    "seaborn",
    "ipywidgets",
    "tqdm",
    "pooch",
    "pandas",
)


def _above_zero(text: str) -> float:
    if not (value := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"got {text}; wanted a number above 0")
    return value


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 a problem found, 2 wrong usage, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="ntk-course", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="print versions, devices and which data sets are at hand")
    commands.add_parser("list", help="list the experiments and the results stored")
    run = commands.add_parser("run", help="run an experiment, or all of them, and store the results")
    run.add_argument("name", nargs="?", help="of the experiment; see list")
    run.add_argument("--all", action="store_true", help="every experiment that has the preset, the shortest first")
    run.add_argument("--preset", choices=experiments.PRESETS, default="class")
    run.add_argument("--where", choices=("cpu", "device"), help="device: a GPU, or an error; by default a GPU where there is one")
    run.add_argument("--seeds", type=int, help="run only the first so many seeds of the preset; later calls add the others")
    run.add_argument("--minutes", type=_above_zero, help="stop after so long, as Ctrl-C does; the next call goes on from there")
    for command in commands.choices.values():
        command.add_argument("--results", type=Path, default=Path("book/results"), help="folder of results")
    args = parser.parse_args(argv)
    try:
        return {"doctor": _doctor, "list": _list, "run": _run}[args.command](args)
    except KeyboardInterrupt:
        print("interrupted; nothing half-written was left, and finished seeds are kept for the next run", file=sys.stderr)
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
        found = experiments.find(name)
        here = [p for p in found.presets if results.read(name, p, args.results)]
        shipped = [p for p in found.presets if p not in here and results.stored(name, p)]
        words = f"stored: {', '.join(here) or 'none'}" + (f"; came with the course: {', '.join(shipped)}" if shipped else "")
        print(f"{name:<20} {found.summary}\n{'':<20} {words}")
    return 0


def _run(args: argparse.Namespace) -> int:
    if (args.name is None) != args.all:
        raise ValueError(f"name: got {args.name!r}{' with --all' * args.all}; wanted an experiment, or --all without one")
    if args.where == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif args.where == "device" and not torch.cuda.is_available():
        raise ValueError("--where: got 'device'; wanted 'cpu', as torch sees no GPU here")
    if args.seeds is not None:
        validate.positive(args.seeds, "--seeds")
    names = [args.name] if args.name else [n for n in experiments.names() if args.preset in experiments.find(n).presets]
    configs = {name: experiments.find(name).settings(args.preset) for name in names}
    if args.seeds:
        configs = {name: replace(config, seeds=config.seeds[: args.seeds]) for name, config in configs.items()}
    failed = []
    with processes.joined() as here, _stopped_after(args.minutes):
        for name, told in _in_order(configs, args.preset, args.results):
            if here.rank == 0 and args.all:
                print(told, flush=True)
            try:
                it = experiments.find(name)
                result = it.checked(it.run(configs[name], args.preset, folder=args.results))
            except (ValueError, FileNotFoundError, RuntimeError, ArithmeticError) as error:
                if not args.all:
                    raise
                failed.append(f"{name}: {error}")
                print(f"ntk-course: {failed[-1]}; the others go on", file=sys.stderr)
                continue
            if result == results.read(name, args.preset, args.results):
                print(f"{args.results / name / args.preset}.json has these seeds; remove it to run them again")
            elif here.rank == 0:
                print(f"wrote {results.save(result, args.results)}", flush=True)
    if failed:
        print(f"{len(failed)} of {len(names)} failed:", *failed, sep="\n  ", file=sys.stderr)
    return 2 if failed else 0


def _in_order(configs: dict, preset: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield names, the shortest first, each with a line that says how long it and the rest will take here.

    The time is what a stored run took, a seed at a time, corrected by what the runs before took on this machine.
    """
    wanted = {}
    for name, config in configs.items():
        found = results.read(name, preset, folder)
        have = found.provenance["config"]["seeds"] if found else ()
        wanted[name] = len(set(config.seeds) - set(have)), experiments.seconds_a_seed(name, preset)
    order = sorted(wanted, key=lambda name: (wanted[name][1] is None, wanted[name][0] * (wanted[name][1] or 0)))
    spent = expected = 0.0
    for i, name in enumerate(order):
        slower = spent / expected if expected else 1.0
        left = [slower * seeds * seconds for seeds, seconds in (wanted[n] for n in order[i:]) if seconds is not None]
        unknown = sum(seconds is None for _, seconds in (wanted[n] for n in order[i:]))
        seeds, seconds = wanted[name]
        now = "no estimate" if seconds is None else f"about {_duration(slower * seeds * seconds)}"
        rest = f"about {_duration(sum(left))} left in all" + f", and {unknown} without an estimate" * bool(unknown)
        start = time.perf_counter()
        yield name, f"{i + 1} of {len(order)}: {name}, {seeds} seeds to run, {now}; {rest}"
        if seeds and seconds:
            spent, expected = spent + time.perf_counter() - start, expected + seeds * seconds


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return (
        f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
    )


@contextmanager
def _stopped_after(minutes: float | None) -> Iterator[None]:
    """Interrupt what runs inside after so many minutes, as Ctrl-C would."""
    if minutes is None:
        yield
        return

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
