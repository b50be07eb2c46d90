"""Checks of chapter 5: learning difficulty."""

import math

import torch
from scipy import stats
from torch import Tensor
from torch.nn.functional import one_hot

from .core import Check
from .draws import Draw

__all__ = [
    "number_of_networks",
    "difficulty_of_logits",
    "wrong_at_most",
    "nested_subset",
    "same_samples_other_order",
    "best_company",
]


def _tables(draw: Draw):
    yield 4, (4, 2, 1)
    yield 100, (100, 50)
    for _ in range(4):
        sizes = sorted({2 ** draw.integer(0, 6) for _ in range(draw.integer(2, 5))}, reverse=True)
        yield 64 * draw.integer(1, 9), tuple(sizes)


number_of_networks = Check(
    number="5.1",
    wants="answer(n, sizes) -> int",
    reference=lambda n, sizes: sum(n // x for x in sizes),
    cases=_tables,
    mistakes={
        "This counts one network a size. Every subset has its own: n / X of them.": lambda n, sizes: len(sizes),
        "This counts ten times too many: a subset holds X samples of every class, so there are n / X subsets.": (
            lambda n, sizes: sum(10 * n // x for x in sizes)
        ),
        "These are the sizes added up; wanted the number of subsets, n / X for each size.": lambda n, sizes: sum(sizes),
        "One too many: only the sizes of the list are trained.": lambda n, sizes: 1 + sum(n // x for x in sizes),
        "One too few: the subset that is the whole universe has its network too.": lambda n, sizes: (
            sum(n // x for x in sizes) - 1
        ),
    },
)


def _epochs(draw: Draw):
    yield torch.tensor([[[2.0, 0.0], [1.0, 3.0]], [[0.0, 1.0], [2.0, 0.0]]], dtype=torch.float64), torch.tensor([0, 1])
    for _ in range(3):
        e, n, k = draw.sizes(3)
        yield 2 * draw.normal(e, n, k), draw.labels(n, k)


def _losses(z: Tensor, y: Tensor) -> Tensor:
    return -z.log_softmax(2)[:, torch.arange(len(y)), y]


difficulty_of_logits = Check(
    number="5.2",
    wants="answer(z, y) -> (N,)",
    reference=lambda z, y: _losses(z, y).sum(0),
    cases=_epochs,
    mistakes={
        "Both bugs are still there: the axis of the softmax, and the logarithm of a mean.": (
            lambda z, y: -len(z) * z.softmax(1).mean(0)[torch.arange(len(y)), y].log()
        ),
        "The softmax is still taken over the samples; it belongs to the classes, the last axis.": (
            lambda z, y: -z.log_softmax(1)[:, torch.arange(len(y)), y].sum(0)
        ),
        "This is the logarithm of the mean probability; difficulty adds up the logarithms, epoch by epoch.": (
            lambda z, y: -len(z) * z.softmax(2).mean(0)[torch.arange(len(y)), y].log()
        ),
        "This is the mean over epochs; difficulty is the sum.": lambda z, y: _losses(z, y).mean(0),
        "The sign is turned round: the loss is -ln q_y, and larger is harder.": lambda z, y: -_losses(z, y).sum(0),
        "This adds up over samples and leaves epochs; add up over the epochs (axis 0).": lambda z, y: _losses(z, y).sum(1),
        "The logarithm is missing: the loss is -ln q_y.": lambda z, y: (1 - z.softmax(2)[:, torch.arange(len(y)), y]).sum(0),
        "This is the distance of the public code, ||q - e_y||, not the loss of the paper's definition.": (
            lambda z, y: (z.softmax(2) - one_hot(y, z.shape[2])).norm(dim=2).sum(0)
        ),
        "This is the last epoch alone; difficulty adds up all of them.": lambda z, y: _losses(z, y)[-1],
    },
)


def _difficulties(draw: Draw):
    yield 2.0, 10
    yield math.log(2), 1
    yield 6.91, 20
    yield 0.5, 7
    yield 10.0, 4
    yield 0.0, 5
    for _ in range(6):
        yield draw.uniform(0, 12, 2), draw.integer(1, 20)


def _possible(case) -> bool:
    difficulty, _ = case
    return abs(difficulty / math.log(2) - round(difficulty / math.log(2))) > 1e-6 or difficulty in (0.0, math.log(2))


wrong_at_most = Check(
    number="5.3",
    wants="answer(difficulty, epochs) -> int",
    reference=lambda difficulty, epochs: min(epochs, math.floor(difficulty / math.log(2) + 1e-12)),
    cases=lambda draw: filter(_possible, _difficulties(draw)),
    mistakes={
        "A sample cannot be wrong more often than there are epochs.": lambda d, e: math.floor(d / math.log(2) + 1e-12),
        "Not rounded: a number of epochs is whole.": lambda d, e: min(e, d / math.log(2)),
        "Rounded up: one more wrong epoch would cost another ln 2, which is not there.": (
            lambda d, e: min(e, math.ceil(d / math.log(2) - 1e-12))
        ),
        "A wrong epoch costs at least ln 2, not 1: q_y can be one half, and no more.": lambda d, e: min(e, math.floor(d)),
        "ln 10 is what a network that knows nothing pays. To be wrong with ten classes can cost less: q_y up to one half.": (
            lambda d, e: min(e, math.floor(d / math.log(10) + 1e-12))
        ),
        "Strict or not: with q_y = 1/2 exactly another class can be just as likely, and the sample counts as wrong.": (
            lambda d, e: min(e, max(0, math.ceil(d / math.log(2) - 1e-12) - 1))
        ),
    },
)


def _universes(draw: Draw):
    yield torch.tensor([[0, 2, 4, 6], [1, 3, 5, 7]]), (4, 2, 1)
    for _ in range(3):
        classes, power = draw.integer(2, 4), draw.integer(2, 4)
        n = 2**power
        yield (
            draw.order(classes * n).reshape(classes, n),
            tuple(2**p for p in range(power, -1, -1) if p != 1 or draw.integer(0, 1)),
        )


def _all_subsets(answer, order: Tensor, sizes: tuple[int, ...]):
    n = order.shape[1]
    return [[answer(order.clone(), size, j) for j in range(n // size)] for size in sizes]


def _nests(got, wanted, order: Tensor, sizes: tuple[int, ...]) -> bool | str:
    classes, n = order.shape
    owner = {int(sample): c for c, row in enumerate(order.tolist()) for sample in row}
    levels: list[list[set[int]]] = []
    for size, level in zip(sizes, got, strict=True):
        subsets = [[int(s) for s in torch.as_tensor(part).flatten().tolist()] for part in level]
        for j, subset in enumerate(subsets):
            if len(subset) != classes * size:
                return f"Subset {j} of size {size} has {len(subset)} samples; wanted {size} of each of {classes} classes."
            if any(sample not in owner for sample in subset):
                return f"Subset {j} of size {size} holds a number that is none of the samples'."
            counts = [sum(owner[sample] == c for sample in subset) for c in range(classes)]
            if counts != [size] * classes:
                return f"Subset {j} of size {size} has {counts} samples of the classes; wanted {size} of each."
            turns = [owner[sample] for sample in subset]
            if sum(a != b for a, b in zip(turns, turns[1:], strict=False)) != classes - 1:
                return "The classes come mixed; wanted class by class."
        if sorted(sum(subsets, [])) != sorted(owner):
            return f"The subsets of size {size} do not share out the universe: some samples are in two, others in none."
        levels.append([set(subset) for subset in subsets])
    for large, small, size, below in zip(levels, levels[1:], sizes, sizes[1:], strict=False):
        for j, inner in enumerate(small):
            if not any(inner <= outer for outer in large):
                return f"Subset {j} of size {below}, {sorted(inner)}, lies inside no subset of size {size}: they do not nest."
    return True


nested_subset = Check(
    number="5.4",
    wants="answer(order, size, j) -> (classes * size,)",
    reference=lambda order, size, j: order[:, j * size : (j + 1) * size].flatten(),
    cases=_universes,
    use=_all_subsets,
    judge=_nests,
    names="order, all sizes",
    mistakes={
        "Off by one: the last subset of a size runs out of samples, or the first is left out.": (
            lambda order, size, j: order.roll(-size, 1)[:, (j + 1) * size : (j + 2) * size].flatten()
        ),
        "j does not move the window: all subsets of a size are the same.": lambda order, size, j: order[:, :size].flatten(),
        "The samples come sample by sample; wanted class by class.": lambda order, size, j: order[
            :, j * size : (j + 1) * size
        ].T.flatten(),
        "These are places in the row, not the samples that stand there: index `order`.": (
            lambda order, size, j: torch.arange(j * size, (j + 1) * size).repeat(len(order))
        ),
    },
)


def _correlations(got, wanted) -> bool | str:
    if not (isinstance(got, Tensor) and got.dim() == 2 and len(got) == 2) or got.dtype == torch.bool:
        return "Return two vectors of one length, `a, b`."
    a, b = got
    if len(a) < 6:
        return f"These are {len(a)} samples; wanted six or more."
    if not got.isfinite().all() or (got < 0).any():
        return "A difficulty is a sum of losses: no number below zero, and none infinite."
    if len(a.unique()) < len(a) or len(b.unique()) < len(b):
        return "Two samples have the same difficulty, so their order is not defined; make all of a vector's numbers differ."
    pearson, spearman = float(stats.pearsonr(a, b).statistic), float(stats.spearmanr(a, b).statistic)
    if pearson > 0.9 and spearman < 0:
        return True
    return f"Pearson's coefficient of these is {pearson:.2f}, wanted above 0.9; Spearman's is {spearman:.2f}, wanted below 0."


same_samples_other_order = Check(
    number="5.5",
    wants="answer() -> (a, b)",
    reference=lambda: (torch.tensor([1.0, 2, 3, 4, 5, 100]), torch.tensor([5.0, 4, 3, 2, 1, 100])),
    cases=lambda draw: [()],
    judge=_correlations,
)


def _companies(draw: Draw):
    yield torch.tensor([1.0, 5.0, -2.0, 3.0], dtype=torch.float64), 1, 2
    yield torch.tensor([1.0, 0.5, -6.0, 3.0, 7.0], dtype=torch.float64), 1, 3
    yield torch.tensor([-1.0, 0.5, -6.0, -3.0], dtype=torch.float64), 1, 3
    yield torch.tensor([5.0, 3.0, 4.0, -1.0], dtype=torch.float64), 2, 2  # the target is second in its own row
    yield torch.tensor([5.0, 3.0, 4.0, -1.0], dtype=torch.float64), 3, 2  # and here it is last
    for _ in range(4):
        n = draw.integer(6, 12)
        row = 2 * draw.normal(n) + 0.5
        target = draw.integer(0, n - 1)
        row[target] = draw.choice((9.0, float(row.median()) + 0.01))  # a short sample need not have the largest value with itself
        yield row, target, draw.integer(2, 4)


def _ranked(row: Tensor, target: int) -> Tensor:
    row = row.clone()
    row[target] = -torch.inf
    return row.argsort(descending=True)


best_company = Check(
    number="5.6",
    wants="answer(row, target, count) -> (count,)",
    reference=lambda row, target, count: _ranked(row, target)[:count],
    cases=_companies,
    mistakes={
        "The target itself is in the list: a sample is no company for itself.": lambda r, t, n: r.argsort(descending=True)[:n],
        "This drops the first of the list, whoever it is. The target need not have the largest value in its own row.": (
            lambda r, t, n: r.argsort(descending=True)[1 : n + 1]
        ),
        "These are the least interchangeable; sort downwards.": lambda r, t, n: torch.cat(
            [torch.arange(t), torch.arange(t + 1, len(r))]
        )[r[torch.cat([torch.arange(t), torch.arange(t + 1, len(r))])].argsort()][:n],
        "A large negative value is the opposite of interchangeable: do not take absolute values.": lambda r, t, n: _ranked(
            r.abs(), t
        )[:n],
        "These are places in a row without the target: those after it are one too small.": (
            lambda r, t, n: torch.cat([r[:t], r[t + 1 :]]).argsort(descending=True)[:n]
        ),
        "These are the values; wanted the samples' indices.": lambda r, t, n: r[_ranked(r, t)[:n]],
        "The target's value is set to 0, which is more than a negative one: leave it out altogether.": (
            lambda r, t, n: torch.where(torch.arange(len(r)) == t, torch.zeros(()), r).argsort(descending=True)[:n]
        ),
    },
)
