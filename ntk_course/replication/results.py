"""Artifacts: the rows of an experiment with everything needed to believe or repeat them, as small JSON."""

import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from tqdm.auto import tqdm

from ..basics import processes


@dataclass(frozen=True)
class Result:
    """Rows of numbers and where they come from.

    Attributes:
        name: of the experiment.
        preset: "smoke", "class" or "paper".
        rows: one dict of plain numbers and strings for each row of the table.
        provenance: config, seeds, versions, data set, device and seconds; see :func:`provenance`.
    """

    name: str
    preset: str
    rows: list[dict]
    provenance: dict

    def frame(self, **wanted) -> pd.DataFrame:
        """Return the rows as a table: those whose columns have the wanted values, without columns that are empty there.

        Args:
            **wanted: value by column; a column that is no Python name goes in as ``**{"from": 128}``.

        Raises:
            ValueError: a column that no row has, or a value that no row has there beside the others.

        Example:
            >>> run = stored("redundancy", "class")
            >>> run.frame(part="accuracy").groupby("set", sort=False).accuracy.mean().index[0]
            'full'
        """
        rows = self.rows
        for column, value in wanted.items():
            # before the table is made, so that a column of integers in these rows is one
            here, rows = rows, [row for row in rows if column in row and row[column] == value]
            if not rows:
                columns, values = dict.fromkeys(c for r in here for c in r), dict.fromkeys(str(r.get(column)) for r in here)
                got, known = (repr(value), list(values)) if column in columns else ("no such column", list(columns))
                raise ValueError(f"{column}: got {got} in {self.name}; wanted one of {known}")
        return pd.DataFrame(rows).dropna(axis="columns", how="all")


class Quoted(NamedTuple):
    """One number of a source beside ours.

    Attributes:
        item: what it is in the source, as "Table 1".
        quantity: in words, with its unit where it has one.
        paper: the source's number, or None where it gives none.
        ours: mean over our seeds or runs.
        sd: their standard deviation; None for a single value.
        count: how many values.
    """

    item: str
    quantity: str
    paper: float | None
    ours: float
    sd: float | None
    count: int  # type: ignore[assignment]  # a tuple has a method of this name

    @classmethod
    def of(cls, item: str, quantity: str, paper: float | None, values: Iterable[float]) -> "Quoted":
        """Average values, of which there must be one at least."""
        values = list(values)
        if not values:
            raise ValueError(f"values: got none for {item}, {quantity}; wanted at least one")
        mean, sd = mean_and_sd(values)
        return cls(item, quantity, paper, mean, None if math.isnan(sd) else sd, len(values))


def over_seeds(
    name: str,
    preset: str,
    config,
    data,
    one_seed: Callable[..., list[dict]],
    *,
    device: torch.device,
    parts: Sequence[tuple] = ((),),
    folder: str | Path | None = None,
    progress: bool = True,
) -> Result:
    """Run an experiment seed by seed, and keep every finished seed on disk until all of them are done.

    A run that was killed goes on where it stopped, and one with more seeds takes those of the stored result. Seeds kept by
    another config, data set or preset are not taken: their folder's name holds a fingerprint of all three, the seeds left
    out. :func:`save` clears the folder away. Under torchrun, inside :func:`ntk_course.basics.processes.joined`, the processes deal
    the seeds out, and each gets the rows of all.

    Args:
        name: of the experiment.
        preset: of the config.
        config: a dataclass with a field ``seeds``.
        data: the data set, for its checksum.
        one_seed: from a seed (and a part) to its rows, dicts of plain numbers, strings and lists; "seed" is added to each.
        device: what the seeds run on.
        parts: further arguments of ``one_seed``, where a seed takes long: each seed is then kept part by part.
        folder: of the results; None keeps nothing.
        progress: show a bar.

    Returns:
        A :class:`Result` with the rows of all seeds; ``seconds`` is the sum over the seeds, whenever and wherever they ran,
        and ``commit`` names every version that ran them. A stored result that has all these seeds is returned as it is.
    """
    kept = None if folder is None else Path(folder) / name / f".{preset}-{_fingerprint(config, data)}"
    before = earlier(name, preset, config, data, folder)
    have = before.provenance["config"]["seeds"] if before else []
    if before and set(config.seeds) <= set(have):
        return before
    units = [(seed, *part) for seed in config.seeds if seed not in have for part in parts]
    rank, size = processes.world()

    def run(seed: int, *part) -> dict:
        path = None if kept is None else kept / f"{'-'.join(map(str, (seed, *part)))}.json"
        if path is not None and path.exists():
            return json.loads(path.read_text())
        start = time.perf_counter()
        found = [{"seed": seed, **_plain(row)} for row in one_seed(seed, *part)]
        done = {"rows": found, "seconds": time.perf_counter() - start, "commit": _commit()}
        if path is not None:
            _write(path, done)
        return done

    def mine() -> list[dict]:
        return [run(*unit) for unit in tqdm(units[rank::size], desc=f"{name}, seeds", disable=not progress or rank > 0)]

    parts_of_all = processes.gathered(mine, name)
    everything = [parts_of_all[i % size][i // size] for i in range(len(units))]
    if before:
        everything.append({"rows": before.rows, **{key: before.provenance[key] for key in ("seconds", "commit")}})
    rows = sorted((row for done in everything for row in done["rows"]), key=lambda row: config.seeds.index(row["seed"]))
    about = provenance(config, data, device, sum(done["seconds"] for done in everything))
    about["commit"] = ", ".join(sorted({commit for done in everything for commit in done["commit"].split(", ")}))
    return Result(name, preset, rows, about)


def earlier(name: str, preset: str, config, data, folder: str | Path | None) -> Result | None:
    """Read the stored result of a config whose seeds are some of this one's, or more, on the same data set; else None."""
    found = None if folder is None else read(name, preset, folder)
    if found is None or found.provenance["data"]["sha256"] != data.checksum:
        return None
    new = json.loads(json.dumps(asdict(config)))
    # what a run did before a setting was there is what its default does
    old = {**json.loads(json.dumps(asdict(type(config)()))), **found.provenance["config"]}
    nested = set(old["seeds"]) <= set(new["seeds"]) or set(new["seeds"]) <= set(old["seeds"])
    return found if nested and {**old, "seeds": new["seeds"]} == new else None


def _plain(row: dict) -> dict:
    """Round floats to five digits, and write NaN, which JSON lacks, as null."""

    def value(v):
        if isinstance(v, float):
            return float(f"{v:.5g}") if math.isfinite(v) else None
        return [value(w) for w in v] if isinstance(v, (list, tuple)) else v

    return {k: value(v) for k, v in row.items()}


def _fingerprint(config, data) -> str:
    settings = {key: value for key, value in asdict(config).items() if key != "seeds"}
    return hashlib.sha256(json.dumps([settings, data.checksum], sort_keys=True).encode()).hexdigest()[:12]


def provenance(config, data, device: torch.device, seconds: float) -> dict:
    """Describe a run: its config (a dataclass), data set, package version, git commit, machine and wall time."""
    return {
        "config": asdict(config),
        "data": {"name": data.name, "split": data.split, "samples": len(data), "sha256": data.checksum, "note": data.note},
        "ntk_course": _version(),
        "commit": _commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": processes.world().size,
        "seconds": round(seconds, 2),
    }


def save(result: Result, folder: str | Path) -> Path:
    """Write a result to folder/NAME/PRESET.json, whole or not at all, and clear away the seeds kept for it."""
    path = Path(folder) / result.name / f"{result.preset}.json"
    _write(path, asdict(result))
    for kept in path.parent.glob(f".{result.preset}-*"):
        shutil.rmtree(kept)
    return path


def _write(path: Path, content: dict) -> None:
    """Write JSON beside its place and rename it, so that no half file looks whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.part")
    try:
        rows = ",\n".join(json.dumps(row, allow_nan=False) for row in content["rows"])
        rest = json.dumps({**content, "rows": []}, indent=1, allow_nan=False)
        beside.write_text(rest.replace('"rows": []', f'"rows": [\n{rows}\n ]') + "\n")  # a line for each row
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read(name: str, preset: str, folder: str | Path) -> Result | None:
    """Read a result from a folder, or return None where no such run exists yet.

    Args:
        name: of the experiment.
        preset: "smoke", "class", "paper" or "cifar10".
        folder: as given to ``ntk-course run --results``, by default book/results in the working directory.

    Raises:
        ValueError: the file exists but does not hold a result.

    Example:
        >>> read("theorem_1", "smoke", folder) is None
        True
    """
    path = Path(folder) / name / f"{preset}.json"
    if not path.is_file():
        return None
    try:
        return Result(**json.loads(path.read_text()))
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: got something that is not a result ({error}); run the experiment again") from error


def stored(name: str, preset: str = "class") -> Result | None:
    """Read a result that came with the course, or return None where no such run exists yet.

    They are the files of book/results/, which the installed package carries too, so that a notebook has them anywhere. For
    runs of your own there is :func:`read`.

    Raises:
        ValueError: an unknown experiment; the file exists but does not hold a result.

    Example:
        >>> stored("forgetting_prediction", "paper").name
        'forgetting_prediction'
    """
    here = Path(__file__).parent.parent  # the package
    # an installed package carries the files inside it; a checkout has them beside it
    folder = here / "stored" if (here / "stored").is_dir() else here.parent / "book/results"
    if not (folder / name).is_dir() and find_spec(f"{__package__}.experiments.{name}") is None:
        raise ValueError(f"name: got {name!r}; wanted an experiment, see ntk-course list")
    return read(name, preset, folder)


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation (n - 1; NaN for one value), of the values that are not None."""
    v = torch.tensor([value for value in values if value is not None], dtype=torch.float64)
    return v.mean().item(), v.std().item() if len(v) > 1 else math.nan


def _version() -> str:
    try:
        return version("ntk_course")
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    try:
        # Stored results are what runs write, not what they run; a result stored by the run before leaves the code clean.
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)book/results")
        return _git("describe", "--always") + "-dirty" * bool(changed)
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*words: str) -> str:
    where = Path(__file__).parent
    answer = subprocess.run(["git", *words], cwd=where, capture_output=True, text=True, timeout=10, check=True)
    return answer.stdout.strip()
