"""The drawing that opens each chapter: its idea without numbers."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .plots import PALETTE

COLOURS = sns.color_palette(PALETTE)


def _board(width: float = 7.2, height: float = 2.6) -> tuple[Figure, Axes]:
    """Return a figure without axes, 100 units wide, as many to the inch upwards as sidewards."""
    fig, ax = plt.subplots(figsize=(width, height))
    ax.set(xlim=(0, 100), ylim=(0, 100 * height / width), aspect="equal")
    ax.axis("off")
    return fig, ax


def _arrow(ax: Axes, start, end, colour="0.3", bend: float = 0.0, style: str = "-|>", lw: float = 1.6, ls: str = "-") -> None:
    how = {"arrowstyle": style, "color": colour, "lw": lw, "ls": ls, "connectionstyle": f"arc3,rad={bend}"}
    ax.annotate("", end, start, arrowprops=how | {"shrinkA": 0, "shrinkB": 0, "mutation_scale": 13})


def _digit(ax: Axes, image: np.ndarray, x: float, y: float, size: float = 12) -> None:
    ax.imshow(image, cmap="gray_r", extent=(x, x + size, y, y + size), interpolation="nearest", zorder=2)
    ax.plot([x, x + size, x + size, x, x], [y, y, y + size, y + size, y], color="0.5", lw=0.8, zorder=3)


def one_step() -> Figure:
    """Chapter 1: a step on one sample moves the weights, and the weights move the prediction on another."""
    from sklearn.datasets import load_digits

    fig, ax = _board()
    digits = load_digits()
    u, o = (digits.images[digits.target == 7][i] for i in (0, 3))
    _digit(ax, u, 2, 20)
    _digit(ax, o, 2, 3)
    ax.text(16, 26, "$u$, the sample\nof the step", va="center", fontsize=10)
    ax.text(16, 9, "$o$, observed", va="center", fontsize=10)
    # level lines of the loss on u in the space of the weights
    t = np.linspace(0, 2 * np.pi, 200)
    for r in (4, 8, 12):
        ax.plot(52 + 1.5 * r * np.cos(t) * 0.8, 20 + r * np.sin(t), color="0.8", lw=0.9)
    _arrow(ax, (62, 28), (56.5, 24), COLOURS[3], lw=2.4)
    ax.text(63, 29, r"$w$", fontsize=11)
    ax.text(56.5, 27.6, r"$\Delta w$", color=COLOURS[3], fontsize=11, ha="right")
    ax.text(52, 4, "weights, shared by all samples", ha="center", fontsize=10)
    _arrow(ax, (34, 26), (40, 25))
    _arrow(ax, (67, 20), (73, 20))
    for shift, heights, colour in ((0, (2, 9, 3), COLOURS[0]), (2.1, (1.4, 11.4, 1.2), COLOURS[1])):
        for k, h in enumerate(heights):
            ax.bar(77 + 6 * k + shift, h, width=2, bottom=12, color=colour)
    ax.text(84, 26.5, "$q(x_o)$ before and after", ha="center", fontsize=10)
    ax.text(84, 8, "classes", ha="center", fontsize=10)
    return fig
