"""Figures of the book, in one style: colour-blind safe, legible in grey, no styling in the chapters."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

PALETTE = "colorblind"
DIVERGING = "RdBu_r"
SEQUENTIAL = "viridis"


def style() -> None:
    """Set the look of every figure; chapters call it once."""
    sns.set_theme(context="notebook", style="ticks", palette=PALETTE)
    plt.rcParams.update({"figure.dpi": 110, "figure.constrained_layout.use": True, "axes.spines.top": False})
    plt.rcParams.update({"axes.spines.right": False, "image.cmap": SEQUENTIAL, "savefig.facecolor": "white"})


def matrices(named: Mapping[str, Tensor], row_label: str = "", col_label: str = "") -> Figure:
    """Draw signed matrices (and vectors, as columns) side by side, white at zero, one colour scale each."""
    widths = [3.0 if m.dim() == 2 else 1.0 for m in named.values()]
    fig, axes = plt.subplots(1, len(named), figsize=(sum(widths) + 1.5, 3.2), width_ratios=widths, squeeze=False)
    for ax, (title, m) in zip(axes[0], named.items(), strict=True):
        square = m.dim() == 2
        m = _array(m if square else m[:, None])
        top = max(np.abs(m).max(), 1e-30)
        drawn = ax.imshow(m, cmap=DIVERGING, vmin=-top, vmax=top, aspect="auto")
        fig.colorbar(drawn, ax=ax, fraction=0.06 if square else 0.25, format="%.2g")
        ax.set(title=title, xlabel=col_label if square else "", ylabel=row_label)
        ax.set_yticks(range(len(m)))
        ax.set_xticks(range(m.shape[1]) if square else [])
    return fig


def predicted_against_true(predicted: Mapping[str, Tensor], true: Mapping[str, Tensor]) -> Figure:
    """Scatter predicted against true changes, a panel for each key, with the diagonal on which they agree.

    The frame holds all true changes; the title says which share of the predictions falls outside.
    """
    columns = min(2, len(true))
    rows = -(-len(true) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(3.6 * columns, 3.3 * rows), squeeze=False)
    for ax, name in zip(axes.flat, true, strict=False):
        t, p = _array(true[name]).ravel(), _array(predicted[name]).ravel()
        top = np.abs(t).max() * 1.05
        outside = (np.abs(p) > top).mean()
        ax.plot([-top, top], [-top, top], color="0.6", lw=1, zorder=0)
        ax.scatter(t, p, s=6, alpha=0.5, linewidths=0)
        ax.set(title=name if outside < 5e-4 else f"{name} ({outside:.1%} outside)", xlim=(-top, top), ylim=(-top, top))
        ax.set(xlabel="true change of softmax", ylabel="predicted change")
        ax.ticklabel_format(style="sci", scilimits=(-3, 3))
    return fig


def orders(steps: Sequence[float], curves: Mapping[str, Sequence[float]], guides: Sequence[int] = (1, 2)) -> Figure:
    """Draw curves against the step size on log axes, with guide lines of whole-number slopes."""
    fig, ax = plt.subplots(figsize=(5.6, 3.8))
    for (name, values), marker in zip(curves.items(), "osD^v", strict=False):
        ax.loglog(steps, values, marker=marker, ms=4, label=name)
    first = np.asarray(next(iter(curves.values())), dtype=float)
    middle = len(steps) // 2
    for power in guides:
        guide = first[middle] * (np.asarray(steps) / steps[middle]) ** power
        ax.loglog(steps, guide, ls=":", color="0.5", lw=1)
        ax.annotate(f"slope {power}", (steps[1], guide[1]), (8, -8), textcoords="offset points", color="0.3", fontsize=10)
    ax.set(xlabel=r"learning rate $\eta$", ylabel="median norm over pairs")
    ax.legend()
    return fig


def gram_heatmap(gram: Tensor, y: Tensor, classes: Sequence[str], title: str = "") -> Figure:
    """Draw a Gram matrix with samples ordered by class and lines between the classes."""
    order = torch.argsort(y.cpu(), stable=True)
    g = _array(gram.cpu()[order][:, order])
    top = np.percentile(np.abs(g), 99)
    signed = g.min() < 0
    fig, ax = plt.subplots(figsize=(5.4, 4.6))
    drawn = ax.imshow(g, cmap=DIVERGING if signed else SEQUENTIAL, vmin=-top if signed else 0, vmax=top)
    counts = torch.bincount(y.cpu(), minlength=len(classes)).numpy()
    ends = np.cumsum(counts)
    for end in ends[:-1]:
        ax.axhline(end - 0.5, color="k", lw=0.4)
        ax.axvline(end - 0.5, color="k", lw=0.4)
    ax.set_xticks(ends - counts / 2 - 0.5, classes)
    ax.set_yticks(ends - counts / 2 - 0.5, classes)
    ax.set(title=title, xlabel="class", ylabel="class")
    fig.colorbar(drawn, ax=ax, fraction=0.046)
    return fig


def bars(values: Mapping[str, float], xlabel: str, log: bool = True) -> Figure:
    """Draw one labelled horizontal bar for each value."""
    fig, ax = plt.subplots(figsize=(6, 0.5 * len(values) + 1.1))
    drawn = ax.barh(list(values), list(values.values()), color=sns.color_palette(PALETTE)[0])
    ax.bar_label(drawn, fmt=lambda v: f" {v:.3g}")
    ax.set_xscale("log" if log else "linear")
    ax.set(xlabel=xlabel)
    ax.margins(x=0.2)
    ax.invert_yaxis()
    return fig


def lines(x: Sequence[float], curves: Mapping[str, Sequence[float]], xlabel: str, ylabel: str) -> Figure:
    """Draw curves on log axes, with markers so that they read in grey."""
    fig, ax = plt.subplots(figsize=(5.6, 3.6))
    for (name, values), marker in zip(curves.items(), "osD^v", strict=False):
        ax.loglog(x, values, marker=marker, ms=4, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return fig


def _array(t) -> np.ndarray:
    return t.detach().cpu().numpy() if isinstance(t, Tensor) else np.asarray(t)
