"""Checks of chapters 5 and 6: learning difficulty and forgetting."""

import math

import torch
from scipy import stats
from torch import Tensor
from torch.nn.functional import one_hot

from ...analysis.one_step import softmax_jacobian
from .core import Check
from .draws import Draw

__all__ = [
    "number_of_networks",
    "difficulty_of_logits",
    "wrong_at_most",
    "nested_subset",
    "same_samples_other_order",
    "best_company",
    "count_events",
    "forgotten_by_hand",
    "softmax_misses_it",
    "f1_of_events",
    "largest_share",
    "heavy_ball_step",
]


# ----- chapter 5


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


# ----- chapter 6


def _histories(draw: Draw):
    yield (torch.tensor([[1, 0], [0, 1], [1, 0], [0, 0]]).bool(),)
    for _ in range(4):
        e, n = draw.sizes(2, 3, 9)
        yield (draw.bits(e, n, share=0.6),)


count_events = Check(
    number="6.1",
    wants="answer(right) -> (N,)",
    reference=lambda right: (right[:-1] & ~right[1:]).sum(0),
    cases=_histories,
    mistakes={
        "This counts learning events too; forgetting is right, then wrong.": lambda r: (r[:-1] ^ r[1:]).sum(0),
        "This counts learning events: wrong, then right. Forgetting is the other way round.": lambda r: (~r[:-1] & r[1:]).sum(0),
        "This counts the epochs in which the sample is wrong, whether or not it was right before.": lambda r: (~r).sum(0),
        "This counts events of an epoch; wanted one number a sample (add up over epochs).": lambda r: (r[:-1] & ~r[1:]).sum(1),
        "This says whether there was an event; wanted how many.": lambda r: (r[:-1] & ~r[1:]).any(0),
        "This counts samples that were right at some time and wrong at the end.": lambda r: (r[:-1].any(0) & ~r[-1]).long(),
    },
)


def _steps(draw: Draw):
    yield torch.tensor([[2.0, 1.0]]), torch.tensor([[-0.2, 0.9]]), torch.tensor([0])
    yield torch.tensor([[2.0, 1.0]]), torch.tensor([[-1.5, -3.0]]), torch.tensor([0])
    # three classes near one another: the right one can win with less than one half
    yield torch.tensor([[1.0, 0.8, 0.7]]), torch.tensor([[0.1, 0.1, 0.1]]), torch.tensor([0])
    # wrong before and after in different ways; wrong before, right after; right and forgotten; right though its logit falls
    z = torch.tensor([[0.0, 2.0, 1.0], [0.0, 1.0, 3.0], [3.0, 2.0, 0.0], [2.0, 1.0, 0.0]])
    change = torch.tensor([[0.0, -1.0, 2.0], [4.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [-1.0, -1.0, -1.0]])
    yield z, change, torch.tensor([0, 0, 0, 0])
    # sure, so that the softmax's tangent does not move
    yield torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([[-3.0, 3.0, 0.0]]), torch.tensor([0])
    for _ in range(3):
        n, k = draw.integer(20, 30), draw.integer(3, 6)
        z, change = 1.5 * draw.normal(n, k), 1.5 * draw.normal(n, k)
        yield z, change, torch.where(draw.bits(n, share=0.7), z.argmax(1), draw.integers(0, k - 1, n))


def _tangent(z: Tensor, change: Tensor) -> Tensor:
    q = z.softmax(1)
    return q + q * (change - (q * change).sum(1, keepdim=True))


forgotten_by_hand = Check(
    number="6.2",
    wants="answer(z, change, y) -> (N,) bool",
    reference=lambda z, change, y: (z.argmax(1) == y) & ((z + change).argmax(1) != y),
    cases=_steps,
    mistakes={
        "A sample that was wrong before cannot be forgotten: ask for argmax z = y too.": lambda z, d, y: (z + d).argmax(1) != y,
        "A falling logit is not enough, others may fall more: compare the argmax after the change.": (
            lambda z, d, y: (z.argmax(1) == y) & (d[torch.arange(len(y)), y] < 0)
        ),
        "This marks the samples that are learnt: wrong before and right after.": lambda z, d, y: (
            (z.argmax(1) != y) & ((z + d).argmax(1) == y)
        ),
        "With more than two classes a sample can be right with less than one half.": (
            lambda z, d, y: (z.argmax(1) == y) & ((z + d).softmax(1)[torch.arange(len(y)), y] < 0.5)
        ),
        "This is the tangent of the softmax, which hardly moves where the network is sure; add the change to the logits.": (
            lambda z, d, y: (z.argmax(1) == y) & (_tangent(z, d).argmax(1) != y)
        ),
        "This asks whether the prediction changed, also where it was wrong before and is wrong after.": (
            lambda z, d, y: z.argmax(1) != (z + d).argmax(1)
        ),
        "This looks at the change alone: after the step the logits are z + change.": lambda z, d, y: (
            (z.argmax(1) == y) & (d.argmax(1) != y)
        ),
    },
)


def _sure_and_wrong(got, wanted) -> bool | str:
    if not (isinstance(got, Tensor) and got.shape == (2, 2)):
        return "Return two vectors of two numbers each, `z, change`."
    z, change = got
    if not z[0] > z[1]:
        return "The sample is not right before the step: z[0] has to be the larger."
    if not (z + change)[0] < (z + change)[1]:
        return "The logits do not forget it: after the step z + change has to be larger for class 1."
    q = z.softmax(0)
    tangent = q + softmax_jacobian(q) @ change
    if not tangent[0] > tangent[1]:
        return f"The tangent of the softmax forgets it too: q + A change = ({tangent[0]:.2f}, {tangent[1]:.2f}). When is A small?"
    return True


softmax_misses_it = Check(
    number="6.3",
    wants="answer() -> (z, change)",
    reference=lambda: (torch.tensor([4.0, 0.0]), torch.tensor([-3.0, 3.0])),
    cases=lambda draw: [()],
    judge=_sure_and_wrong,
)


def _guesses(draw: Draw):
    def bits(*values):
        return torch.tensor(values, dtype=torch.bool)

    yield bits(1, 1, 0, 0), bits(1, 0, 1, 1)
    yield bits(0, 0, 0), bits(0, 0, 0)  # nothing happened, nothing foretold
    yield bits(0, 0, 0), bits(0, 1, 1)  # nothing happened
    yield bits(1, 1, 0), bits(0, 0, 1)  # events, no hit
    yield bits(1, 0, 1), bits(0, 0, 0)  # events, none foretold
    for _ in range(3):
        n = draw.integer(15, 30)
        truth, guess = draw.bits(n, share=0.3), draw.bits(n, share=0.5)
        truth[0] = guess[0] = True
        yield truth, guess


def _f1(f: Tensor, p: Tensor) -> float:
    return float(2 * (f & p).sum() / (f.sum() + p.sum())) if f.any() else math.nan


def _ratio(a, b, empty: float) -> float:
    return float(a) / float(b) if b else empty


def _by_parts(empty: float):
    def score(f, p):
        precision, recall = _ratio((f & p).sum(), p.sum(), empty), _ratio((f & p).sum(), f.sum(), empty)
        return _ratio(2 * precision * recall, precision + recall, 0.0)

    return score


f1_of_events = Check(
    number="6.4",
    wants="answer(forgotten, predicted) -> float",
    reference=_f1,
    cases=_guesses,
    mistakes={
        "Without an event the score is undefined: return nan, not a perfect 1.": lambda f, p: _f1(f, p) if f.any() else 1.0,
        "Without an event the score is undefined: return nan, not 0.": lambda f, p: _f1(f, p) if f.any() else 0.0,
        "Without an event the score is undefined, also where something was predicted.": (
            lambda f, p: _f1(f, p) if f.any() or not p.any() else 0.0
        ),
        "Where there were events and none was hit, the score is 0, not undefined.": lambda f, p: (
            _f1(f, p) if (f & p).any() else math.nan
        ),
        "Where there were events and nothing was predicted, the score is 0: recall is 0, and that is defined.": (
            lambda f, p: _f1(f, p) if p.any() else math.nan
        ),
        "This is the plain mean of precision and recall; F1 is their harmonic mean.": (
            lambda f, p: (_ratio((f & p).sum(), p.sum(), 0.0) + _ratio((f & p).sum(), f.sum(), 0.0)) / 2 if f.any() else math.nan
        ),
        "This is the accuracy, which the many samples without an event make look good.": lambda f, p: float(
            (f == p).double().mean()
        ),
        "This is the precision: hits among the predicted. Recall is missing.": (
            lambda f, p: _ratio((f & p).sum(), p.sum(), 0.0) if f.any() else math.nan
        ),
        "This is the recall: hits among the events. Precision is missing.": lambda f, p: _ratio((f & p).sum(), f.sum(), math.nan),
        "This is hits over all that happened or was predicted (Jaccard's index); F1 counts hits twice.": (
            lambda f, p: float((f & p).sum() / (f | p).sum()) if f.any() else math.nan
        ),
    },
)


def _momenta(draw: Draw):
    yield 0.9, 2
    yield 0.0, 4
    yield 0.9, 1
    for _ in range(5):
        yield draw.uniform(0.1, 0.99, 2), draw.integer(2, 30)


largest_share = Check(
    number="6.5",
    wants="answer(mu, T) -> float",
    reference=lambda mu, T: (1 - mu) / (1 - mu**T),
    cases=_momenta,
    mistakes={
        "That is its share after very many steps; here there were T.": lambda mu, T: 1 - mu,
        "That is the share of the oldest gradient.": lambda mu, T: (1 - mu) * mu ** (T - 1) / (1 - mu**T),
        "That counts one gradient too many: T gradients have the weights 1, mu, ..., mu^(T-1).": (
            lambda mu, T: (1 - mu) / (1 - mu ** (T + 1))
        ),
        "That is the sum of the weights; the newest one's share is 1 over it.": lambda mu, T: (1 - mu**T) / (1 - mu),
        "That would be its share if all counted alike.": lambda mu, T: 1 / T,
    },
)


def _gradients(draw: Draw):
    yield torch.tensor([[1.0], [10.0]], dtype=torch.float64), 0.5, 0.1
    for _ in range(4):
        t, d = draw.sizes(2, 1, 6)
        yield draw.normal(t, d), draw.uniform(0.01, 1, 3), draw.uniform(0.1, 0.95, 2)


def _velocity(gradients: Tensor, mu: float) -> Tensor:
    v = torch.zeros_like(gradients[0])
    for g in gradients:
        v = mu * v + g
    return v


heavy_ball_step = Check(
    number="6.6",
    wants="answer(gradients, lr, mu) -> (d,)",
    reference=lambda gradients, lr, mu: -lr * _velocity(gradients, mu),
    cases=_gradients,
    mistakes={
        "The sign is turned round: the step goes down the gradient.": lambda g, lr, mu: lr * _velocity(g, mu),
        "This is plain SGD: earlier gradients are still in the step, each older one times mu.": lambda g, lr, mu: -lr * g[-1],
        "All gradients count the same here; an older one counts mu times less for each step.": lambda g, lr, mu: -lr * g.sum(0),
        "This averages (factor 1 - mu); heavy ball as in torch.optim.SGD adds up.": lambda g, lr, mu: (
            -lr * (1 - mu) * _velocity(g, mu)
        ),
        "The order is turned round: the last row is the newest gradient and counts fully.": lambda g, lr, mu: (
            -lr * _velocity(g.flip(0), mu)
        ),
        "The learning rate is missing: the step is -lr times the velocity.": lambda g, lr, mu: -_velocity(g, mu),
        "This is the velocity; the step is -lr times it.": lambda g, lr, mu: _velocity(g, mu),
        "This is the sum of all steps; wanted the last one.": (
            lambda g, lr, mu: -lr * sum(_velocity(g[: t + 1], mu) for t in range(len(g)))
        ),
    },
)
