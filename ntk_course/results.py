"""Artifacts: the rows of an experiment with everything needed to believe or repeat them, as small JSON."""

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


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
        "seconds": round(seconds, 2),
    }


def save(result: Result, folder: str | Path) -> Path:
    """Write a result to folder/NAME/PRESET.json: beside first, then renamed, so that no half file looks whole."""
    path = Path(folder) / result.name / f"{result.preset}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.part")
    try:
        beside.write_text(json.dumps(asdict(result), indent=1, allow_nan=False) + "\n")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def read(name: str, preset: str, folder: str | Path) -> Result | None:
    """Read a stored result, or return None where no such run exists yet.

    Raises:
        ValueError: the file exists but does not hold a result.
    """
    path = Path(folder) / name / f"{preset}.json"
    if not path.exists():
        return None
    try:
        return Result(**json.loads(path.read_text()))
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: got something that is not a result ({error}); run the experiment again") from error


def _version() -> str:
    try:
        return version("ntk_course")
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return answer.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
