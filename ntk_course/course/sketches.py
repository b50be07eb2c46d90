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
    ax.text(16, 26, "$u$, the sample\nof the step", va="center", fontsize=13)
    ax.text(16, 9, "$o$, observed", va="center", fontsize=13)
    # level lines of the loss on u in the space of the weights
    t = np.linspace(0, 2 * np.pi, 200)
    for r in (4, 8, 12):
        ax.plot(52 + 1.5 * r * np.cos(t) * 0.8, 20 + r * np.sin(t), color="0.8", lw=0.9)
    _arrow(ax, (62, 28), (56.5, 24), COLOURS[3], lw=2.4)
    ax.text(63, 29, r"$w$", fontsize=14)
    ax.text(56.5, 27.6, r"$\Delta w$", color=COLOURS[3], fontsize=14, ha="right")
    ax.text(52, 4, "weights, shared by all samples", ha="center", fontsize=13)
    _arrow(ax, (34, 26), (40, 25))
    _arrow(ax, (67, 20), (73, 20))
    for shift, heights, colour in ((0, (2, 9, 3), COLOURS[0]), (2.1, (1.4, 11.4, 1.2), COLOURS[1])):
        for k, h in enumerate(heights):
            ax.bar(77 + 6 * k + shift, h, width=2, bottom=12, color=colour)
    ax.text(84, 26.5, "$q(x_o)$ before and after", ha="center", fontsize=13)
    ax.text(84, 8, "classes", ha="center", fontsize=13)
    return fig


def _grid(ax: Axes, values: np.ndarray, x: float, y: float, cell: float) -> None:
    """Draw a matrix of numbers in [-1, 1] as coloured cells with its lower left corner at (x, y)."""
    shades = plt.get_cmap("RdBu_r")
    for (i, j), v in np.ndenumerate(values):
        at = (x + j * cell, y + (len(values) - 1 - i) * cell)
        ax.add_patch(plt.Rectangle(at, cell, cell, fc=shades(0.5 + 0.45 * v), ec="0.5", lw=0.6))


def outer_products() -> Figure:
    """Chapter 2: two gradients that are outer products, and their inner product by two short ones."""
    fig, ax = _board(7.2, 2.3)
    rng = np.random.default_rng(3)
    for x, beta, a in ((3, rng.uniform(-1, 1, 4), rng.uniform(-1, 1, 6)), (38, rng.uniform(-1, 1, 4), rng.uniform(-1, 1, 6))):
        prime = "'" if x > 10 else ""
        _grid(ax, beta[:, None], x, 6, 3)
        _grid(ax, a[None], x + 5, 20, 3)
        _grid(ax, np.outer(beta, a), x + 5, 6, 3)
        ax.text(x + 1.5, 2.5, rf"$\beta{prime}$", ha="center", fontsize=14)
        ax.text(x + 14, 25, rf"$a{prime}$", ha="center", fontsize=14)
        ax.text(x + 14, 2.5, rf"$\beta{prime} a{prime}^\top$", ha="center", fontsize=14)
    ax.text(31.5, 12, r"$\langle\ ,\ \rangle$", ha="center", va="center", fontsize=17)
    ax.text(64, 12, "$=$", va="center", fontsize=17)
    ax.text(82, 12, r"$(a \cdot a')\,(\beta \cdot \beta')$", ha="center", va="center", fontsize=17)
    return fig


def two_half_circles() -> Figure:
    """Chapter 3: the directions for which a unit is on at both of two inputs."""
    from matplotlib.patches import Wedge

    fig, ax = _board(7.2, 2.6)
    middle, r = (30.0, 17.0), 14
    centre = np.array(middle)
    first, second = 75, 20  # directions of the two inputs, in degrees
    for angle, colour in ((first, COLOURS[0]), (second, COLOURS[1])):
        ax.add_patch(Wedge(middle, r, angle - 90, angle + 90, fc=(*colour, 0.25), ec="none"))
        end = centre + 17 * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
        _arrow(ax, centre, end, colour, lw=2.2)
        ax.text(end[0] + 1.5, end[1] - 0.5, "$x$" if angle == first else "$x'$", color=colour, fontsize=15)
    ax.add_patch(Wedge(middle, 5, second, first, fc="none", ec="0.3", lw=1))
    ax.text(34.3, 21.2, r"$\theta$", fontsize=15)
    ax.text(60, 24, "on at $x$", color=COLOURS[0], fontsize=14)
    ax.text(60, 19, "on at $x'$", color=COLOURS[1], fontsize=14)
    ax.text(60, 14, r"on at both: $\pi - \theta$ of $2\pi$", fontsize=14)
    return fig


def signs_of_a_block() -> Figure:
    """Chapter 4: the entries of a kernel block with the signs of what two samples want."""
    fig, ax = _board(7.2, 2.4)
    rng = np.random.default_rng(1)
    block = 0.35 * rng.uniform(-1, 1, (4, 4)) + 0.6 * np.eye(4)
    left, above = np.array([1, -1, -1, -1]), np.array([-1, -1, 1, -1])
    for x, shown in ((16, block), (66, block * np.outer(left, above))):
        _grid(ax, shown, x, 4, 5)
    for i in range(4):
        ax.text(12.5, 4 + 5 * (3 - i) + 2.5, "+" if left[i] > 0 else "−", ha="center", va="center", fontsize=16)
        ax.text(16 + 5 * i + 2.5, 26.5, "+" if above[i] > 0 else "−", ha="center", va="center", fontsize=16)
    ax.text(5, 14, "$s(y_o)$", ha="center", va="center", fontsize=14)
    ax.text(26, 30.5, "$s(y_u)$", ha="center", va="center", fontsize=14)
    ax.text(26, 1, "$K(x_o, x_u)$", ha="center", va="center", fontsize=14)
    _arrow(ax, (42, 14), (58, 14))
    ax.text(76, 1, r"$s_i\, K_{ij}\, s_j$", ha="center", va="center", fontsize=14)
    return fig


def two_companies() -> Figure:
    """Chapter 5: one sample in two companies, and its loss in each."""
    fig, ax = _board(7.2, 2.4)
    star = np.array([12.0, 10.0])
    for shift, others, colour in ((0, (28, 52, 62), COLOURS[2]), (50, (128, 155, -12), COLOURS[3])):
        at = star + (shift, 0)
        for angle in others:
            end = at + 13 * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
            _arrow(ax, at, end, "0.55", lw=1.4)
        _arrow(ax, at, at + 15 * np.array([np.cos(np.radians(42)), np.sin(np.radians(42))]), colour, lw=2.4)
        ax.plot(*at, "*", color=colour, ms=14)
        x = np.linspace(0, 1, 60)
        loss = np.exp(-7 * x) if shift == 0 else 1 / (1 + np.exp(11 * (x - 0.65)))
        ax.fill_between(28 + shift + 18 * x, 6, 6 + 17 * loss, color=(*colour, 0.25), lw=0)
        ax.plot(28 + shift + 18 * x, 6 + 17 * loss, color=colour, lw=2)
        ax.plot([28 + shift, 28 + shift, 46 + shift], [24, 6, 6], color="0.4", lw=1)
        ax.text(37 + shift, 2, "epochs", ha="center", fontsize=12)
        ax.text(28 + shift, 26, "loss", ha="center", fontsize=12)
    return fig


def learnt_and_lost() -> Figure:
    """Chapter 6: the margin of a sample over its own step and the next one."""
    fig, ax = _board(7.2, 2.3)
    ax.plot([8, 92], [15, 15], color="0.4", lw=1)
    ax.text(7, 15, "0", ha="right", va="center", fontsize=13)
    ax.text(6, 31.5, "margin of the sample", fontsize=13)
    t = np.linspace(0, 1, 50)
    ax.plot(15 + 30 * t, 9 + 16 * t**1.5, color=COLOURS[0], lw=2.4)
    ax.plot(45 + 35 * t, 25 - 17 * t**1.2 - 1.5 * np.sin(np.pi * t), color=COLOURS[3], lw=2.4)
    ax.plot([45, 80], [25, 10.5], ":", color="0.35", lw=1.6)
    for x, y, words in ((15, 9, "before"), (45, 25, "known"), (80, 8, "forgotten")):
        ax.plot(x, y, "o", color="0.2", ms=6)
        ax.text(x, y - 3.6 if words != "known" else y + 2.2, words, ha="center", fontsize=13)
    ax.text(24, 20.5, "step on its\nown batch", ha="center", color=COLOURS[0], fontsize=12)
    ax.text(68, 26, "step on the\nnext batch", ha="center", color=COLOURS[3], fontsize=12)
    ax.text(82, 12, "foretold", fontsize=12, color="0.35")
    return fig


def farthest_points() -> Figure:
    """Chapter 7: three rounds of farthest point clustering."""
    fig, ax = _board(7.2, 2.2)
    rng = np.random.default_rng(5)
    groups = [rng.normal(m, 1.7, (n, 2)) for m, n in (((8, 19), 9), ((21, 8), 6), ((22, 22), 4))]
    points = np.concatenate(groups)
    centroids = [int(np.abs(points - points[:9].mean(0)).sum(1).argmin())]
    for panel in range(3):
        shift = np.array([33.0 * panel, 0])
        near = ((points[:, None] - points[centroids]) ** 2).sum(2)
        mine = near.argmin(1)
        for k, c in enumerate(centroids):
            for p in points[mine == k]:
                ax.plot(*np.transpose([p + shift, points[c] + shift]), color=(*COLOURS[k], 0.45), lw=0.9)
            ax.plot(*(points[mine == k] + shift).T, "o", color=COLOURS[k], ms=4.5)
            ax.plot(*(points[c] + shift), "s", color=COLOURS[k], ms=9, mec="0.2")
        far = int(near.min(1).argmax())
        if panel < 2:
            ax.plot(*(points[far] + shift), "o", ms=12, mfc="none", mec="0.25", mew=1.6)
        centroids.append(far)
    return fig


def path_of_steps() -> Figure:
    """Chapter 9: gradient flow and steps, with what is frozen and what moves."""
    fig, ax = _board(7.2, 2.6)
    t = np.linspace(0, 1, 100)
    flow = np.stack([8 + 82 * t, 6 + 24 * (1 - (1 - t) ** 2.2)], 1)
    ax.plot(*flow.T, color="0.6", lw=2)
    ax.text(62, 31.5, "gradient flow", color="0.4", fontsize=13)
    stops = np.array([[8, 6], [24, 21], [46, 26.5], [68, 27.5], [90, 29]]) + np.array(
        [[0, 0], [2, -6], [2, -6], [1, -5], [0, -4]]
    )
    stops[0] = flow[0]
    for i, (a, b) in enumerate(zip(stops[:-1], stops[1:], strict=True)):
        _arrow(ax, a, b, COLOURS[0], lw=2.2)
        ax.plot(*a, "o", color=COLOURS[0], ms=7)
        for s in (0.1, 0.45, 0.8):
            at = a + s * (b - a)
            angle = np.radians(75 - 30 * i - 34 * s)
            _arrow(ax, at, at + 5.5 * np.array([np.cos(angle), np.sin(angle)]), COLOURS[3], lw=1.3)
    ax.text(34, 9, "steps", color=COLOURS[0], fontsize=13)
    ax.text(70, 13, "the test gradient turns along each", color=COLOURS[3], fontsize=13, ha="center")
    ax.text(6, 2, "$w_0$", fontsize=14)
    ax.text(92, 24, "$w_S$", fontsize=14)
    return fig


def nodes_of_a_step() -> Figure:
    """Chapter 10: a smooth integrand and one with a jump, with the nodes of rules."""
    fig, ax = _board(7.2, 2.4)
    t = np.linspace(0, 1, 200)
    rate = lambda s: 9 + 14 * s**1.6 * np.exp(-0.5 * s) * 1.4
    ax.bar(
        6 + 36 * np.arange(6) / 6,
        rate(np.arange(6) / 6) - 0.6,
        6,
        bottom=0.6,
        align="edge",
        color=(*COLOURS[1], 0.35),
        ec="0.6",
        lw=0.6,
    )
    ax.plot(6 + 36 * t, rate(t), color=COLOURS[0], lw=2.4)
    nodes = (np.polynomial.legendre.leggauss(3)[0] + 1) / 2
    ax.plot(6 + 36 * nodes, rate(nodes), "o", color="0.15", ms=7)
    jump = 0.58
    left, right = t[t < jump], t[t > jump]
    first, second = (lambda s: 8 + 9 * s), (lambda s: 21 - 8 * (s - jump))
    ax.plot(58 + 36 * left, first(left), color=COLOURS[0], lw=2.4)
    ax.plot(58 + 36 * right, second(right), color=COLOURS[0], lw=2.4)
    ax.plot([58 + 36 * jump] * 2, [1, 27], ":", color="0.4", lw=1.4)
    two = (np.polynomial.legendre.leggauss(2)[0] + 1) / 2
    ax.plot(58 + 36 * jump * two, first(jump * two), "o", color="0.15", ms=7)
    rest = jump + (1 - jump) * two
    ax.plot(58 + 36 * rest, second(rest), "o", color="0.15", ms=7)
    for x, words in ((6, "a smooth step"), (58, "a unit turns")):
        ax.plot([x, x + 36], [0.6, 0.6], color="0.4", lw=1)
        ax.text(x + 18, 30, words, ha="center", fontsize=13)
    return fig


def sum_of_contributions() -> Figure:
    """Chapter 11: training points that add to a prediction or take from it."""
    fig, ax = _board(7.2, 2.4)
    rng = np.random.default_rng(2)
    star = np.array([24.0, 17.0])
    own, other = rng.normal((16, 20), (5, 4.5), (7, 2)), rng.normal((37, 11), (4.5, 4), (6, 2))
    for points, colour in ((own, COLOURS[3]), (other, COLOURS[0])):
        for p in points:
            ax.plot(*np.transpose([p, star]), color=(*colour, 0.4), lw=1)
        ax.plot(*points.T, "o", color=colour, ms=6)
    ax.plot(*star, "*", color="0.1", ms=15)
    heights = [4, 3, 5.5, 2, 3.5, -3, -4.5, -1.5, -2.5]
    for i, h in enumerate(heights):
        ax.bar(58 + 3.3 * i, h, width=2.6, bottom=14, color=COLOURS[3] if h > 0 else COLOURS[0])
    ax.bar(93, sum(heights), width=4, bottom=14, color="0.35")
    ax.plot([55, 97], [14, 14], color="0.4", lw=1)
    ax.text(88.5, 14.8, "=", fontsize=16, ha="center")
    ax.text(71, 25, "contributions", ha="center", fontsize=13)
    ax.text(93, 25, "answer", ha="center", fontsize=13)
    return fig


def small_moves() -> Figure:
    """Chapter 12: few units that move far, many that move little."""
    fig, ax = _board(7.2, 2.5)
    rng = np.random.default_rng(4)
    for x, count, length in ((24, 9, 9.0), (76, 70, 2.6)):
        units = np.clip(rng.normal((x, 17), (9, 6.5), (count, 2)), (x - 18, 8), (x + 14, 27))
        for u in units:
            turn = 0.09 * (u[0] - x) + 0.12 * (u[1] - 17)
            _arrow(ax, u, u + length * np.array([np.cos(turn), np.sin(turn)]), COLOURS[0], lw=2 if count < 20 else 1.1)
            ax.plot(*u, "o", color="0.35", ms=5 if count < 20 else 2.5)
        ax.text(x, 0.5, f"{'few' if count < 20 else 'many'} units", ha="center", fontsize=13)
    return fig


def label_products() -> Figure:
    """Chapter 13: a kernel, a part made of label products, and their sum."""
    fig, ax = _board(7.2, 2.2)
    rng = np.random.default_rng(0)
    plain = 0.25 + 0.1 * rng.uniform(-1, 1, (6, 6))
    plain = (plain + plain.T) / 2
    y = np.array([1, 1, 1, -1, -1, -1])
    part = 0.45 * np.outer(y, y)
    for x, shown, words in (
        (6, plain, "before training"),
        (41, part, r"label products $y_i y_j$"),
        (76, plain + part, "label-aware"),
    ):
        _grid(ax, shown, x, 5, 3.2)
        ax.text(x + 9.6, 1, words, ha="center", fontsize=13)
    ax.text(33, 14.5, "+", ha="center", va="center", fontsize=17)
    ax.text(68, 14.5, "=", ha="center", va="center", fontsize=17)
    return fig


def two_scales() -> Figure:
    """Chapter 15: a large scale ends near the start, a small one walks far, and the features turn on the way."""
    fig, ax = _board(7.2, 2.5)
    t = np.linspace(0, 1, 60)
    for x, colour, words, reach, bend in (
        (8, COLOURS[0], r"large $\alpha$: lazy", 9, 0.0),
        (52, COLOURS[1], r"small $\alpha$: rich", 36, 9.0),
    ):
        for k, level in enumerate((5.5, 9.5, 13.5)):
            ax.plot(x + 3 + 37 * t, 22 - level + 3.2 * np.cos(1.8 * t + k / 4), color="0.8", lw=1)
        path = np.stack([x + 4 + reach * t, 12 + 0.25 * reach * t + bend * np.sin(np.pi * t)], 1)
        ax.plot(*path.T, color=colour, lw=2.4)
        for place in (0, 30, 59):
            turn = 0.4 + bend / 7 * t[place]
            _arrow(ax, path[place], path[place] + 6.5 * np.array([np.cos(turn), -np.sin(turn)]), "0.35", lw=1.3)
        ax.plot(*path[0], "o", color="0.25", ms=8)
        ax.plot(*path[-1], "o", color=colour, ms=8)
        ax.text(x + 18, 1, words, ha="center", fontsize=13)
    return fig


def budget_of_samples() -> Figure:
    """Chapter 16: samples are spent on the largest eigenvalues; at the level kappa an eigenfunction is learnt by half."""
    fig, ax = _board(7.2, 2.6)
    heights = 21 - 0.78 * np.arange(26)  # of the logarithm
    level = heights[10]
    for i, value in enumerate(heights):
        share = 1 / (1 + np.exp(0.45 * (i - 10)))
        ax.add_patch(plt.Rectangle((9 + 3.2 * i, 3), 2.4, value, fill=False, ec="0.55", lw=1))
        ax.add_patch(plt.Rectangle((9 + 3.2 * i, 3), 2.4, share * value, color=COLOURS[0], lw=0))
    ax.plot([7, 93], [3 + level, 3 + level], ls="--", color="0.3", lw=1.4)
    ax.text(94, 3 + level, r"$\kappa$", va="center", fontsize=15)
    ax.text(50, 21, "filled: learnt. The fillings add up to the samples", ha="left", fontsize=12, color=COLOURS[0])
    ax.text(8, 0.5, "large eigenvalues", ha="left", fontsize=12, color="0.3")
    ax.text(92, 0.5, "small ones", ha="right", fontsize=12, color="0.3")
    return fig


def parts_of_a_network() -> Figure:
    """Chapter 17: two kernels run through a network's parts, and past a branch."""
    fig, ax = _board(7.2, 2.4)
    boxes = {"layer": 16, r"$\phi$": 38, "layer ": 60, "+": 82}
    for (name, x), colour in zip(boxes.items(), (0, 1, 0, 2), strict=True):
        ax.add_patch(plt.Rectangle((x - 6, 8), 12, 9, fill=False, ec=COLOURS[colour], lw=2))
        ax.text(x, 12.5, name.strip(), ha="center", va="center", fontsize=14, color=COLOURS[colour])
    for start, end in ((1, 10), (22, 32), (44, 54), (66, 76), (88, 98)):
        _arrow(ax, (start, 12.5), (end, 12.5))
        ax.text((start + end) / 2 - 0.8, 8.6, r"$\Sigma, \Theta$", ha="center", va="center", fontsize=12, color="0.3")
    ax.plot([27, 27, 82], [12.5, 25, 25], color="0.3", lw=1.6)
    _arrow(ax, (82, 25), (82, 17))
    ax.text(54, 26.5, "past the branch", ha="center", fontsize=12, color="0.3")
    ax.text(50, 2, "a rule for every part; the width appears in none", ha="center", fontsize=12, color="0.3")
    return fig


def starts_and_ends() -> Figure:
    """Chapter 18: functions from random starts are pulled through the same samples."""
    fig, ax = _board(7.2, 2.4)
    x = np.linspace(0, 1, 200)
    samples = np.array([0.25, 0.45, 0.6])
    height = np.array([13.0, 20.0, 15.0])
    draw = np.random.default_rng(3)
    near = np.exp(-((samples[:, None] - samples) ** 2) / 0.02)
    for colour in COLOURS[:5]:
        start = 16 + sum(draw.normal(0, 4.2 / k) * np.sin(2 * np.pi * k * (x * 0.9 + draw.uniform())) for k in (1, 2, 3))
        at = np.interp(samples, x, start)
        moved = np.exp(-((x[:, None] - samples) ** 2) / 0.02) @ np.linalg.solve(near, height - at)
        ax.plot(3 + 40 * x, start, color=colour, lw=1.6)
        ax.plot(57 + 40 * x, start + moved, color=colour, lw=1.6)
    ax.plot(57 + 40 * samples, height, "o", color="0.15", ms=8, zorder=4)
    _arrow(ax, (46, 16), (54, 16), lw=2.2)
    ax.text(23, 0.5, "random starts", ha="center", fontsize=12, color="0.3")
    ax.text(77, 0.5, "trained on three samples", ha="center", fontsize=12, color="0.3")
    return fig


def three_questions() -> Figure:
    """Chapter 19: training samples, one prediction, and three things to ask of each sample."""
    fig, ax = _board(7.2, 2.6)
    for y, width, colour in ((26, 4.5, COLOURS[0]), (18, 2.0, COLOURS[0]), (10, 2.5, COLOURS[3])):
        ax.add_patch(plt.Circle((8, y), 2.6, fc=(*colour, 0.25), ec=colour, lw=2))
        _arrow(ax, (12, y), (39, 18 + (y - 18) * 0.3), colour, lw=width)
    ax.add_patch(plt.Circle((44, 18), 4, fc="none", ec="0.3", lw=2))
    ax.text(44, 18, "$f(x)$", ha="center", va="center", fontsize=14)
    ax.text(8, 3, "samples", ha="center", fontsize=12, color="0.3")
    ax.text(44, 3, "a prediction", ha="center", fontsize=12, color="0.3")
    asked = ("What was learnt from it?", "What if it weighed more?", "What if it were gone?")
    for y, words in zip((26, 18, 10), asked, strict=True):
        ax.text(57, y, words, va="center", fontsize=14)
    return fig


def when_a_kernel_looks() -> Figure:
    """Chapter 14: the moments of training that each kernel sees."""
    fig, ax = _board(7.2, 2.4)
    x = np.linspace(10, 88, 9)
    y = 8 + 9 * (1 - np.exp(-(x - 10) / 26))
    ax.plot(x, y, color="0.55", lw=2)
    ax.plot(x[1:-1], y[1:-1], "o", color=COLOURS[2], ms=6)
    for a, b in zip(range(8), range(1, 9), strict=True):
        mid = np.linspace(0.25, 0.75, 3)
        ax.plot(x[a] + mid * (x[b] - x[a]), y[a] + mid * (y[b] - y[a]), ".", color=COLOURS[2], ms=3)
    ax.plot(x[0], y[0], "o", color=COLOURS[0], ms=10)
    ax.plot(x[-1], y[-1], "o", color=COLOURS[3], ms=10)
    ax.text(10, 2.4, "start: eNTK", color=COLOURS[0], ha="center", fontsize=13)
    ax.text(89, 21, "end: eNTK, pNTK, lpNTK", color=COLOURS[3], ha="right", fontsize=13)
    ax.text(52, 8, "every step: DPK; and in between: EPK", color=COLOURS[2], ha="center", fontsize=13)
    ax.text(4, 27, "no network at all: NNGP, NTK, CNTK, LANTK", color="0.3", ha="left", fontsize=13)
    return fig
