"""Figures of the book, in one style: colour-blind safe, legible in grey, no styling in the chapters."""

from collections.abc import Collection, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from IPython import get_ipython
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from matplotlib_inline.backend_inline import set_matplotlib_formats
from scipy.stats import t as student
from torch import Tensor

from .spoken import in_words

PALETTE = "colorblind"
DIVERGING = "RdBu_r"
SEQUENTIAL = "viridis"
WIDE = 5.2  # inches: at most so wide, a figure shrinks to a telephone's page with letters that can still be read
MANY = 300  # points in a panel from which on they are dots of a picture, and no longer shapes
DOTS = "#2b8fd0"  # of such a picture, which cannot follow the page: seen on white and on black


def style() -> None:
    """Set the look of every figure; chapters call it once."""
    sns.set_theme(context="notebook", style="ticks", palette=PALETTE, font_scale=0.87)
    plt.rcParams.update({"figure.dpi": 110, "figure.constrained_layout.use": True, "axes.spines.top": False})
    plt.rcParams.update({"axes.spines.right": False, "image.cmap": SEQUENTIAL, "savefig.facecolor": "white"})
    plt.rcParams.update(
        {"svg.hashsalt": "ntk", "savefig.dpi": 200}
    )  # the same figure twice is the same file; dots, where rastered
    if get_ipython() is not None:
        set_matplotlib_formats("svg")


def _grid(
    count: int, height: float, columns: int = 2, extra: float = 0.0, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, np.ndarray]:
    """Return a figure with a panel for each of ``count`` things, row by row, and the panels; those left over are off."""
    columns = min(columns, count)
    rows = -(-count // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(WIDE, height * rows + extra), squeeze=False, sharex=sharex, sharey=sharey)
    for place, ax in enumerate(axes.flat):
        if place >= count:
            ax.axis("off")
            axes[rows - 2, place % columns].tick_params(labelbottom=True)  # over the hole nobody else has the numbers
    return fig, axes


@in_words
def matrices(named: Mapping[str, Tensor], row_label: str = "", col_label: str = "", names: Sequence[str] = ()) -> Figure:
    """Draw signed matrices (and vectors, as columns), two matrices a row, white at zero, one colour scale each.

    ``names`` are of the rows and columns, where they are not to be numbered.
    """
    rows: list[list[str]] = [[]]
    for title, m in named.items():
        units = sum(2 if named[t].dim() == 2 else 1 for t in rows[-1])
        if units + (2 if m.dim() == 2 else 1) > 4:
            rows.append([])
        rows[-1].append(title)
    fig = plt.figure(figsize=(WIDE, 2.3 * len(rows) if len(named) > 1 else 3.2))
    for part, titles in zip(fig.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        axes = part.subplots(1, len(titles), width_ratios=[2 if named[t].dim() == 2 else 1 for t in titles], squeeze=False)
        for ax, title in zip(axes[0], titles, strict=True):
            m = named[title]
            square = m.dim() == 2
            m = _array(m if square else m[:, None])
            top = max(np.abs(m).max(), 1e-30)
            drawn = ax.imshow(m, cmap=DIVERGING, vmin=-top, vmax=top, aspect="auto")
            part.colorbar(drawn, ax=ax, fraction=0.06 if square else 0.25, format=_number)
            ax.set(title=title, xlabel=col_label if square else "", ylabel=row_label)
            ax.set_yticks(range(len(m)), names or None)
            ax.set_xticks(range(m.shape[1]) if square else [], (names or None) if square else None)
            ax.tick_params(labelsize=9 if names else 8)
            ax.tick_params(axis="x", rotation=25 if names else 0)
    return fig


@in_words
def predicted_against_true(predicted: Mapping[str, Tensor], true: Mapping[str, Tensor]) -> Figure:
    """Scatter predicted against true changes, a panel for each key, with the diagonal on which they agree.

    The frame holds all true changes; the title says which share of the predictions falls outside.
    """
    fig, axes = _grid(len(true), 2.6 if len(true) > 1 else 4.0)
    for ax, name in zip(axes.flat, true, strict=False):
        t, p = _array(true[name]).ravel(), _array(predicted[name]).ravel()
        top = np.abs(t).max() * 1.05
        outside = (np.abs(p) > top).mean()
        ax.plot([-top, top], [-top, top], color="0.6", lw=1, zorder=0)
        ax.scatter(t, p, s=6, alpha=0.5, linewidths=0, **_dots(len(t)))
        ax.set(title=name if outside < 5e-4 else f"{name} ({outside:.1%} outside)", xlim=(-top, top), ylim=(-top, top))
        ax.ticklabel_format(style="sci", scilimits=(-3, 3))
    fig.supxlabel("true change of softmax", fontsize="medium")
    fig.supylabel("predicted change", fontsize="medium")
    return fig


@in_words
def orders(
    steps: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    guides: Sequence[int] = (1, 2),
    ylabel: str = "median norm over pairs",
) -> Figure:
    """Draw curves against the step size on log axes, with guide lines of whole-number slopes beside them."""
    fig, ax = plt.subplots(figsize=(WIDE, 3.6))
    for (name, values), marker in zip(curves.items(), "osD^v", strict=False):
        ax.loglog(steps, values, marker=marker, ms=4, label=name)
    first = np.asarray(next(iter(curves.values())), dtype=float)
    middle = len(steps) // 2
    for power in guides:
        # a third of the first curve, so that it is seen beside a curve of its own slope
        guide = first[middle] / 3 * (np.asarray(steps) / steps[middle]) ** power
        ax.loglog(steps, guide, ls=":", color="0.3", lw=1.2)
        where = (steps[-2], guide[-2]) if steps[-1] > steps[0] else (steps[1], guide[1])
        ax.annotate(f"slope {power}", where, (4, -10), textcoords="offset points", color="0.3", fontsize=10)
    ax.set(xlabel=r"learning rate $\eta$", ylabel=ylabel)
    _name_values(ax, steps)
    fig.legend(loc="outside upper center", ncols=2)
    return fig


@in_words
def gram_heatmap(gram: Tensor, y: Tensor, classes: Sequence[str], title: str = "") -> Figure:
    """Draw a Gram matrix with samples ordered by class and lines between the classes."""
    order = torch.argsort(y.cpu(), stable=True)
    g = _array(gram.cpu()[order][:, order])
    top = np.percentile(np.abs(g), 99)
    signed = np.percentile(g, 1) < 0  # a few entries below zero are no second colour
    fig, ax = plt.subplots(figsize=(WIDE, 4.4))
    drawn = ax.imshow(g, cmap=DIVERGING if signed else SEQUENTIAL, vmin=-top if signed else 0, vmax=top)
    counts = torch.bincount(y.cpu(), minlength=len(classes)).numpy()
    ends = np.cumsum(counts)
    for end in ends[:-1]:
        ax.axhline(end - 0.5, color="k", lw=0.4)
        ax.axvline(end - 0.5, color="k", lw=0.4)
    ax.set_xticks(ends - counts / 2 - 0.5, classes)
    ax.set_yticks(ends - counts / 2 - 0.5, classes)
    ax.set(title=title, xlabel="class", ylabel="class")
    fig.colorbar(drawn, ax=ax, fraction=0.046, label="kernel value")
    return fig


@in_words
def bars(values: Mapping[str, float], xlabel: str, log: bool = True) -> Figure:
    """Draw one labelled value a row: a bar from zero, or on a logarithmic axis, which has no zero, a dot."""
    fig, ax = plt.subplots(figsize=(WIDE, 0.45 * len(values) + 1.0))
    names, numbers, colour = list(values), list(values.values()), sns.color_palette(PALETTE)[0]
    if log:
        ax.plot(numbers, names, "o", ms=8, color=colour)
        for name, value in values.items():
            ax.annotate(f"{value:.3g}", (value, name), (8, 0), textcoords="offset points", va="center")
        ax.grid(axis="y", color="0.85", lw=0.8)
        ax.set_xscale("log")
    else:
        ax.bar_label(ax.barh(names, numbers, color=colour), fmt=lambda v: f" {v:.3g}")
    ax.set(xlabel=xlabel)
    ax.margins(x=0.2)
    ax.invert_yaxis()
    return fig


@in_words
def lines(x: Sequence[float], curves: Mapping[str, Sequence[float]], xlabel: str, ylabel: str) -> Figure:
    """Draw curves on log axes, with markers so that they read in grey."""
    fig, ax = plt.subplots(figsize=(WIDE, 3.4))
    for (name, values), marker in zip(curves.items(), "osD^v", strict=False):
        ax.loglog(x, values, marker=marker, ms=4, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    _name_values(ax, x)
    fig.legend(loc="outside upper center", ncols=2)
    return fig


@in_words
def curves(
    panels: Mapping[str, Mapping[str, Sequence]],
    xlabel: str,
    ylabel: str,
    x: Sequence[float] | None = None,
    log: str = "",
    theory: Collection[str] = (),
    apart: bool = False,
) -> Figure:
    """Draw named curves in a panel for each key, with one legend where names are the same; a curve of (R, T) shows its mean and spread.

    Args:
        panels: curves by name, by the panel's title.
        xlabel: what is across.
        ylabel: what is upwards.
        x: where the values of a curve lie; 1, 2, ... unless it is given.
        log: the axes that are logarithmic: "", "x", "y" or "xy".
        theory: names of curves that are to be held against the others: thin, dark, and drawn over them.
        apart: whether each panel has a scale of its own upwards.
    """
    height, columns = (3.4, 1) if len(panels) == 1 else (2.4, 2) if len(panels) < 5 else (1.7, 3)
    fig, axes = _grid(len(panels), height, columns, extra=0.5 * (len(panels) > 1), sharex=True, sharey=not apart)
    for ax, (title, named) in zip(axes.flat, panels.items(), strict=False):
        styles = zip("osD^vPX*", ("-", "--", "-.", ":") * 2, strict=True)
        for (name, values), (marker, dash) in zip(named.items(), styles, strict=False):
            v = np.atleast_2d(_array(values))
            at = np.arange(1, v.shape[1] + 1) if x is None else np.asarray(x)
            few = len(at) < 15
            look = {"marker": marker if few else None, "ls": "-" if few else dash, "ms": 4}
            if name in theory:
                look = {"color": "0.15", "ls": dash if dash != "-" else ":", "lw": 1.1, "zorder": 3}
            (line,) = ax.plot(at, v.mean(0), label=name, **look)
            if len(v) > 1:
                ax.fill_between(at, *(v.mean(0) + s * v.std(0, ddof=1) for s in (-1, 1)), color=line.get_color(), alpha=0.2, lw=0)
        ax.set(title=title, xscale="log" if "x" in log else "linear", yscale="log" if "y" in log else "linear")
        if "x" in log and x is not None:
            _name_values(ax, x, at_most=7 if len(panels) == 1 else 4)
    if "y" in log:  # one scale for all panels, known when all are drawn
        low, high = axes[0, 0].get_ylim()
        first = "123456789" if high < 10 * low else "25" if high < 100 * low else ""  # of values that are named
        few = FuncFormatter(lambda value, place: f"{value:g}" if f"{value:e}"[0] in first else "")
        for ax in axes.flat:
            ax.yaxis.set_minor_formatter(few)
    fig.supxlabel(xlabel, fontsize="medium")
    fig.supylabel(ylabel, fontsize="medium")
    if len({tuple(named) for named in panels.values()}) == 1:
        fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)  # never over what is drawn
    else:  # the same look stands for other names there
        for ax in axes.flat[: len(panels)]:
            ax.legend(fontsize="small")
    return fig


@in_words
def scatters(
    panels: Mapping[str, tuple[Sequence, Sequence]], xlabel: str, ylabel: str, diagonal: bool = False, correlation: bool = True
) -> Figure:
    """Scatter pairs of numbers, a panel for each key.

    Args:
        panels: (values across, values upwards) by title.
        xlabel: what is across.
        ylabel: what is upwards.
        diagonal: the two are to be compared: both axes, the same in all panels, and the line on which they are equal.
        correlation: put Pearson's correlation behind the title.
    """
    fig, axes = _grid(len(panels), 2.5 if len(panels) > 1 else 3.6, sharex=diagonal, sharey=diagonal)
    if diagonal:
        every = np.concatenate([_array(side).ravel() for pair in panels.values() for side in pair])
        margin = 0.04 * np.ptp(every)
        ends = (every.min() - margin, every.max() + margin)
    for ax, (title, (a, b)) in zip(axes.flat, panels.items(), strict=False):
        a, b = _array(a), _array(b)
        few = len(a) < 200
        ax.scatter(a, b, s=20 if few else 6, alpha=0.7 if few else 0.4, linewidths=0, **_dots(len(a)))
        if diagonal:
            ax.plot(ends, ends, color="0.6", lw=1, zorder=0)
            ax.set(xlim=ends, ylim=ends)
        correlated = f"{np.corrcoef(a, b)[0, 1]:.2f}".replace("-", "−")
        ax.set(title=f"{title}: correlation {correlated}" if correlation else title)
    fig.supxlabel(xlabel, fontsize="medium")
    fig.supylabel(ylabel, fontsize="medium")
    return fig


@in_words
def histograms(panels: Mapping[str, Mapping[str, Sequence]], xlabel: str, log: bool = False, shared: bool = False) -> Figure:
    """Draw the densities of several groups of numbers, a panel for each key; with ``log`` of their decimal logarithms.

    With ``shared`` all panels have one axis, so that they can be compared.
    """
    fig, axes = _grid(len(panels), 2.2 if len(panels) > 1 else 3.2, extra=0.4, sharex=shared)
    for ax, (title, groups) in zip(axes.flat, panels.items(), strict=False):
        data = {name: _array(v).ravel() for name, v in groups.items()}
        data = {name: np.log10(v[v > 0]) if log else v for name, v in data.items()}
        edges = np.histogram_bin_edges(np.concatenate(list(data.values())), 50)
        for (name, v), style in zip(data.items(), ("-", "--", ":", "-."), strict=False):
            ax.hist(v, edges, density=True, histtype="step", ls=style, lw=1.6, label=name)
        ax.set(title=title, yticks=[])
    fig.supxlabel(f"log10 of {xlabel}" if log else xlabel, fontsize="medium")
    fig.supylabel("density", fontsize="medium")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig


@in_words
def shares(rows: Mapping[str, Mapping[str, float]], xlabel: str = "share of pairs") -> Figure:
    """Draw shares that add up to one as stacked bars, one bar for each key."""
    fig, ax = plt.subplots(figsize=(WIDE, 0.45 * len(rows) + 1.5))
    left = np.zeros(len(rows))
    parts = list(next(iter(rows.values())))
    colours = sns.color_palette(PALETTE, len(parts))
    for part, colour, hatch in zip(parts, colours, ("", "//", "..", "xx"), strict=False):
        width = np.array([row[part] for row in rows.values()])
        ax.barh(list(rows), width, left=left, label=part, color=colour, hatch=hatch, edgecolor="white", lw=0.5)
        left += width
    ax.set(xlabel=xlabel, xlim=(0, 1))
    ax.invert_yaxis()
    fig.legend(loc="outside upper center", ncols=2)
    return fig


@in_words
def arrows(panels: Mapping[str, Mapping[str, tuple[float, float]]], dashed: Sequence[str] = ()) -> Figure:
    """Draw named vectors from one origin, a panel for each key; those named in ``dashed`` are parts of another vector."""
    fig, axes = _grid(len(panels), 2.0 if len(panels) > 1 else 2.6, columns=3)
    for ax, (title, vectors) in zip(axes.flat, panels.items(), strict=False):
        for (name, end), colour in zip(vectors.items(), sns.color_palette(PALETTE), strict=False):
            style = {"arrowstyle": "-|>", "color": colour, "lw": 2, "ls": "--" if name in dashed else "-", "shrinkA": 0}
            ax.annotate("", end, (0, 0), arrowprops=style)
            # on the left of an arrow, or on the right of one that is a part, so that neither lies on the other
            aside = np.array([-end[1], end[0]]) / np.hypot(*end) * (-11 if name in dashed else 11)
            ax.annotate(name, end, aside, textcoords="offset points", ha="center", va="center", color=colour)
        ends = np.array([(0, 0), *vectors.values()], dtype=float)
        low, high, margin = ends.min(0), ends.max(0), 0.25 * np.abs(ends).max()
        ax.set(title=title, xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin), aspect="equal")
        ax.axhline(0, color="0.85", lw=0.8, zorder=0)
        ax.axvline(0, color="0.85", lw=0.8, zorder=0)
        ax.axis("off")
    return fig


@in_words
def gallery(images: Tensor, rows: Sequence[str] = (), columns: Sequence[str] = ()) -> Figure:
    """Show a table of images (R, C, channels, H, W), pixel values stretched over each image's own range."""
    pixels = _array(images)
    side = min(0.85, (WIDE - 0.6) / pixels.shape[1])
    size = (side * pixels.shape[1] + 0.6, side * pixels.shape[0] + 0.4)
    fig, axes = plt.subplots(*pixels.shape[:2], figsize=size, squeeze=False)
    for (r, c), ax in np.ndenumerate(axes):
        image = pixels[r, c].transpose(1, 2, 0)
        image = (image - image.min()) / max(np.ptp(image), 1e-9)
        ax.imshow(image, cmap="gray_r" if image.shape[2] == 1 else None)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if r == 0 and len(columns):
            ax.set_title(columns[c], fontsize=9)
        if c == 0 and len(rows):
            ax.set_ylabel(rows[r], rotation=0, ha="right", va="center", fontsize=9)
    return fig


@in_words
def groups(values: Mapping[str, Sequence[float]], xlabel: str) -> Figure:
    """Show every value of several groups as a dot, with the mean and the 95 % confidence interval of the mean beside it."""
    fig, ax = plt.subplots(figsize=(WIDE, 0.4 * len(values) + 1.0))
    for i, v in enumerate(values.values()):
        v = np.asarray(v, dtype=float)
        ax.plot(v, np.full(len(v), i - 0.15), "o", ms=4, alpha=0.5, color=sns.color_palette(PALETTE)[0])
        half = student.ppf(0.975, len(v) - 1) * v.std(ddof=1) / len(v) ** 0.5 if len(v) > 1 else 0
        ax.errorbar(v.mean(), i + 0.15, xerr=half, fmt="D", ms=5, capsize=4, color=sns.color_palette(PALETTE)[1])
    ax.set_yticks(range(len(values)), list(values))
    ax.set(xlabel=xlabel)
    ax.invert_yaxis()
    return fig


@in_words
def maps(panels: Mapping[str, Tensor], side: Sequence[float], points: Tensor, labels: Tensor) -> Figure:
    """Draw functions of the plane, each (G * G,) over the grid side x side with the first coordinate outermost, and points."""
    fig, axes = _grid(len(panels), 2.5, sharex=True, sharey=True)
    at, xy = _array(side), _array(points)
    for ax, (title, values) in zip(axes.flat, panels.items(), strict=False):
        drawn = ax.imshow(_array(values).reshape(len(at), len(at)).T, extent=(at[0], at[-1], at[0], at[-1]), origin="lower")
        for k, marker in zip(np.unique(_array(labels)), "os^Dv", strict=False):
            ax.plot(*xy[_array(labels) == k].T, marker, ms=2.5, mfc="white", mec="black", mew=0.4)
        fig.colorbar(drawn, ax=ax, fraction=0.046, format=_number)
        ax.set(title=title)
    fig.supxlabel("first coordinate", fontsize="medium")
    fig.supylabel("second coordinate", fontsize="medium")
    return fig


@in_words
def clouds(
    rows: Mapping[str, Mapping[str, Tensor]], points: Tensor, labels: Tensor, stars: Mapping[str, Sequence[float]]
) -> Figure:
    """Colour points of the plane by a value, a panel for each row and column; a star marks the row's own point."""
    shape = (len(rows), len(next(iter(rows.values()))))
    size = (WIDE, 1.6 * shape[0] + 0.4)
    fig, axes = plt.subplots(*shape, figsize=size, squeeze=False, sharex=True, sharey=True)
    xy, panels = _array(points), ((row, *item) for row, named in rows.items() for item in named.items())
    for i, (ax, (row, column, values)) in enumerate(zip(axes.flat, panels, strict=True)):
        values = _array(values)
        top = np.abs(values).max()
        for k, marker in zip(np.unique(_array(labels)), "os^Dv", strict=False):
            mine, style = _array(labels) == k, {"cmap": DIVERGING, "vmin": -top, "vmax": top, "lw": 0.3, "edgecolors": "0.3"}
            drawn = ax.scatter(*xy[mine].T, c=values[mine], s=16, marker=marker, **style)
        ax.plot(*stars[row], "*", color="black", ms=11, mec="white")
        ax.set(title=column if i < shape[1] else "", ylabel="" if i % shape[1] else row)
        ax.tick_params(labelsize=8)
        fig.colorbar(drawn, ax=ax, fraction=0.08, format=_number).ax.tick_params(labelsize=8)
    fig.supxlabel("first coordinate", fontsize="medium")
    fig.supylabel("second coordinate", fontsize="medium")
    return fig


def _dots(count: int) -> dict:
    """Return how points are drawn, of which there may be many."""
    return {"rasterized": True, "color": DOTS} if count > MANY else {}


def _name_values(ax, values: Sequence[float], at_most: int = 7) -> None:
    """Put ticks on values themselves, evenly chosen, where a logarithmic axis spans too little for powers of ten."""
    if max(values) < 100 * min(values):
        wanted = np.geomspace(min(values), max(values), min(at_most, len(values)))
        given = np.asarray(values, dtype=float)
        some = sorted({float(given[np.abs(np.log(given / at)).argmin()]) for at in wanted})
        ax.set_xticks(some, [f"{v:g}" for v in some], minor=False)
        ax.set_xticks([], minor=True)


def _number(value: float, place=None) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _array(t) -> np.ndarray:
    return t.detach().cpu().numpy() if isinstance(t, Tensor) else np.asarray(t)
