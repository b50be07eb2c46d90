"""Theorem 1 of the lpNTK paper: the gap between lpNTK times the identity and the eNTK, over widths, with its bound."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...data.datasets import load
from ...kernels.named import entk
from ...models.networks import mlp
from ...tangents.cotangents import signs
from ..experiment import Experiment
from ..results import Quoted, Result, over_seeds


@dataclass(frozen=True)
class Config:
    """Settings; LeCun initialisation N(0, 1/fan_in), no biases, as in the paper's proof.

    Attributes:
        data: name of the data set the pairs come from.
        widths: of every hidden layer.
        hidden: numbers of hidden layers.
        pairs: pairs of different samples with one label, and as many with two labels.
        delta: the bound (20) holds with probability 1 - delta.
        seeds: initialisations.
    """

    data: str = "mnist"
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048, 4096)
    hidden: tuple[int, ...] = (1, 2)
    pairs: int = 10
    delta: float = 0.05
    seeds: tuple[int, ...] = tuple(range(10))


# "smoke", "class" (digits, widths to 1024) or "paper" (MNIST, widths to 4096).
PRESETS = {
    "smoke": Config(data="digits", widths=(256, 1024), hidden=(1, 2), pairs=3, seeds=(0,)),
    "class": Config(data="digits", widths=(64, 128, 256, 512, 1024), seeds=(0, 1, 2)),
    "paper": Config(),
}


def lecun(sizes: tuple[int, ...], seed: int) -> nn.Sequential:
    """Build an mlp without biases, in float64, its weights drawn from N(0, 1/fan_in)."""
    generator = torch.Generator().manual_seed(seed)
    model = mlp(sizes, bias=False).double()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, p.shape[1] ** -0.5, generator=generator)
    return model


def largest_hidden_kernel_entry(model: nn.Sequential, x1: Tensor, x2: Tensor) -> float:
    r"""Return :math:`\alpha = \max_{ab} |K^g_{ab}(x, x')|` of the last hidden layer g of a bias-free ReLU mlp, one pair.

    :math:`K^g` gains at each layer the inner product of its inputs on the diagonal, and is carried through the next layer
    by its weights on both sides. Units that are not active have zero rows and columns, which are left out.
    """
    linear = [m for m in model if isinstance(m, nn.Linear)][:-1]
    h1, h2, on1, on2, kernel = x1.flatten(), x2.flatten(), slice(None), slice(None), None
    for layer in linear:
        w = layer.weight.detach()
        inner, z1, z2 = h1 @ h2, w @ h1, w @ h2
        new1, new2 = (z1 > 0).nonzero()[:, 0], (z2 > 0).nonzero()[:, 0]
        own = inner * (new1[:, None] == new2[None, :])
        kernel = own if kernel is None else own + w[new1][:, on1] @ kernel @ w[new2][:, on2].T
        h1, h2, on1, on2 = z1.relu(), z2.relu(), new1, new2
    return kernel.abs().max().item() if kernel.numel() else 0.0


def bound(alpha: float, width: int, num_classes: int, delta: float) -> float:
    r"""Return the right side of (20), :math:`\frac{8K\alpha}{\sqrt w}\max(2\sqrt{2\ln(8K^2/\delta)}, \sqrt2\ln(8K^2/\delta))`."""
    log = math.log(8 * num_classes**2 / delta)
    return 8 * num_classes * alpha / width**0.5 * max(2 * (2 * log) ** 0.5, 2**0.5 * log)


def run(config: Config, preset: str = "class", progress: bool = True, folder=None) -> Result:
    """Measure the gap for pairs with one label and with two; one row for each seed, depth, width and kind of pair."""
    data = load(config.data, limit=2000)
    x, y, k = data.x.double(), data.y, data.num_classes
    x = x / x.flatten(1).norm(dim=1).mean()  # inputs of about unit length, so that only the width grows

    def one_seed(seed: int) -> list[dict]:
        rows = []
        generator = torch.Generator().manual_seed(seed)
        draws = torch.randint(0, len(x), (200 * config.pairs, 2), generator=generator)
        draws = draws[draws[:, 0] != draws[:, 1]]
        same = y[draws[:, 0]] == y[draws[:, 1]]
        for depth in config.hidden:
            for width in config.widths:
                model = lecun((x[0].numel(), *[width] * depth, k), seed)
                for labels, pairs in (("same", draws[same]), ("different", draws[~same])):
                    found = []
                    for i, j in pairs[: config.pairs].tolist():
                        full = entk(model, x[i : i + 1], x[j : j + 1])[0, 0]
                        s1, s2 = signs(y[i : i + 1], k)[0].double(), signs(y[j : j + 1], k)[0].double()
                        gap = (torch.eye(k) * (s1 @ full @ s2 / k) - full).norm()
                        alpha = largest_hidden_kernel_entry(model, x[i], x[j])
                        found.append((gap.item(), (gap / full.norm()).item(), bound(alpha, width, k, config.delta)))
                    gap, relative, limit = torch.tensor(found).median(dim=0).values.tolist()
                    scaled = [g / width**0.5 for g, _, _ in found]
                    rows.append(
                        {
                            "hidden": depth,
                            "width": width,
                            "labels": labels,
                            "gap": gap,
                            "gap_over_sqrt_width": gap / width**0.5,
                            "relative_gap": relative,
                            "bound": limit,
                            "within_bound": sum(s <= b for s, (_, _, b) in zip(scaled, found, strict=True)) / len(found),
                        }
                    )
        return rows

    return over_seeds("theorem_1", preset, config, data, one_seed, device=torch.device("cpu"), folder=folder, progress=progress)


def quoted(result: Result) -> list[Quoted]:
    """Set what Theorem 1 says beside the run: the bound (20) holds, and the gap does or does not close with the width."""
    widest = result.frame().width.max()
    found = []
    for labels in ("same", "different"):
        for hidden, ends in result.frame(labels=labels, width=widest).groupby("hidden").relative_gap:
            about = f"{labels} label, {hidden} hidden, width {widest}"
            found.append(Quoted.of("Theorem 1", f"gap over the eNTK, {about}", None, ends))
        within = result.frame(labels=labels).within_bound
        found.append(Quoted.of("Theorem 1", f"pairs within the bound (20), {labels} label", 1.0, within))
    return found


# Columns of the rows, by their part; "seed" is added to each.
COLUMNS = {
    "": ("hidden", "width", "labels", "gap", "gap_over_sqrt_width", "relative_gap", "bound", "within_bound"),
}

EXPERIMENT = Experiment(PRESETS, run, quoted, COLUMNS)
