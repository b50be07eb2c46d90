"""Rates of Ji, Telgarsky and Xian (2020): errors, moves and flips of sampled networks over widths, and the cost of dimension."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from ...analysis import transport
from ...data.datasets import Dataset
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds
from ._common import slope


@dataclass(frozen=True)
class Config:
    """Settings; float64, on the CPU.

    Attributes:
        widths: m, even.
        dimension: d of the points, for the widths.
        centres: points that carry the target of the kernel's own space, with random coefficients.
        scale: s of the Gaussian bump.
        dimensions: d, for the cost of dimension, each at ``wide`` units.
        wide: m there.
        points: of the unit ball, to measure errors on.
        seeds: of the networks, the same for every width.
    """

    widths: tuple[int, ...] = (64, 256, 1024, 4096, 16384)
    dimension: int = 2
    centres: int = 8
    scale: float = 1.5
    dimensions: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    wide: int = 4096
    points: int = 200
    seeds: tuple[int, ...] = tuple(range(20))


# "smoke", "class" or "paper" (more seeds and widths).
PRESETS = {
    "smoke": Config(widths=(64, 256), dimensions=(1, 2), wide=256, points=20, seeds=(0, 1)),
    "class": Config(),
    "paper": Config(widths=(64, 256, 1024, 4096, 16384, 65536), seeds=tuple(range(100))),
}


def ball(count: int, dimension: int, seed: int) -> Tensor:
    """Draw points of the unit ball, uniform in direction and in radius."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, dimension, generator=g, dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True) * torch.rand(count, 1, generator=g, dtype=torch.float64)


def targets(config: Config, dimension: int) -> dict[str, tuple[transport.Transport, Tensor, Tensor]]:
    """Return (map, points, target's values there) by name: "kernel", a function of the kernel's space, and "bump"."""
    x, centres = ball(config.points, dimension, 1), ball(config.centres, dimension, 2)
    alpha = torch.randn(config.centres, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    in_space = transport.hidden_kernel(x, centres) @ alpha / len(alpha)
    bump = (-x.square().sum(1) / 2 / config.scale**2).exp()
    return {
        "kernel": (transport.rkhs_transport(centres, alpha), x, in_space),
        "bump": (transport.gaussian_bump_transport(config.scale, dimension), x, bump),
    }


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Measure root mean square errors, the largest move, and flips; a row for each seed, target and width or dimension."""
    fixed = ball(config.points, config.dimension, 1)
    checksum = hashlib.sha256(fixed.numpy().tobytes()).hexdigest()
    labels = torch.zeros(len(fixed), dtype=torch.long)
    about = Dataset(fixed.float(), labels, 1, "points of the unit ball", "test", ("",), checksum=checksum)

    def one_seed(seed: int) -> list[dict]:
        rows = []
        for part, dimension, widths in (
            ("width", config.dimension, config.widths),
            *(("dimension", d, (config.wide,)) for d in config.dimensions),
        ):
            for name, (transport_map, x, wanted) in targets(config, dimension).items():
                for width in widths:
                    net = transport.shallow(width, dimension, seed=seed)
                    moves = net.moves(transport_map)
                    size = wanted.square().mean().sqrt()
                    rows.append(
                        {
                            "part": part,
                            "target": name,
                            "dimension": dimension,
                            "width": width,
                            "linear": ((net.linearised(x, moves) - wanted).square().mean().sqrt() / size).item(),
                            "moved": ((net.moved(moves)(x) - wanted).square().mean().sqrt() / size).item(),
                            "largest_move": moves.norm(dim=1).max().item(),
                            "flips": net.flips(x, moves),
                        }
                    )
        return rows

    where = torch.device("cpu")
    return over_seeds("transport", preset, config, about, one_seed, device=where, folder=folder, progress=progress)


def quoted(result: Result) -> list[Quoted]:
    """Set the rates beside the run: slopes over the width, and the cost of dimension."""
    found = []
    for target in ("kernel", "bump"):
        for key, words in (("moved", "error"), ("largest_move", "largest move"), ("flips", "share of flips")):
            rows = result.frame(part="width", target=target).groupby("seed")
            slopes = [slope(mine.width, mine[key]) for _, mine in rows]
            found.append(Quoted.of("Rates in m", f"slope of the {words}, {target}", -0.5, slopes))
    for d, errors in result.frame(part="dimension", target="bump").groupby("dimension").moved:
        found.append(Quoted.of("Rates in d", f"relative error of the bump, d = {d}", None, errors))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "width": ("target", "dimension", "width", "linear", "moved", "largest_move", "flips"),
    "dimension": ("target", "dimension", "width", "linear", "moved", "largest_move", "flips"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
