"""Checks of chapters 5 and 6: learning difficulty and forgetting."""

from collections.abc import Callable

import numpy as np
import torch

from ...analysis.forgetting import event_scores
from ...analysis.one_step import softmax_jacobian
from .core import Outcome, compare, random

__all__ = [
    "number_of_networks",
    "difficulty_from_probabilities",
    "nested_subset",
    "pearson",
    "best_company",
    "count_events",
    "forgotten_by_hand",
    "softmax_to_first_order",
    "f1_of_events",
    "heavy_ball_step",
]


def number_of_networks(answer: Callable) -> Outcome:
    """Check ``answer(n, sizes) -> int``: networks that Algorithm 1 trains for n samples a class and subset sizes."""
    return compare(
        answer,
        [(4096, (4096, 1024, 256, 64, 16, 4, 1)), (64, (64, 16, 4, 1)), (100, (100, 50))],
        lambda n, sizes: sum(n // x for x in sizes),
        {
            "This counts one network a size. Every subset has its own: n / X of them.": lambda n, sizes: len(sizes),
            "This counts ten times too many: a subset holds X samples of every class, so there are n / X subsets.": (
                lambda n, sizes: sum(10 * n // x for x in sizes)
            ),
            "These are the sizes added up; wanted the number of subsets, n / X for each size.": lambda n, sizes: sum(sizes),
        },
    )


def difficulty_from_probabilities(answer: Callable) -> Outcome:
    """Check ``answer(q, y) -> (N,)``: learning difficulty from probabilities (E, N, K) and labels (N,)."""
    cases = [(random(6, 4, 3, seed=1).softmax(2), torch.tensor([0, 2, 1, 1]))]

    def losses(q, y):
        return -q[:, torch.arange(len(y)), y].log()

    return compare(
        answer,
        cases,
        lambda q, y: losses(q, y).sum(0),
        {
            "This is the mean over epochs; difficulty is the sum.": lambda q, y: losses(q, y).mean(0),
            "The sign is turned round: the loss is -ln q_y, and larger is harder.": lambda q, y: -losses(q, y).sum(0),
            "This adds up over samples and leaves epochs; add up over the epochs (axis 0).": lambda q, y: losses(q, y).sum(1),
            "The logarithm is missing: the loss is -ln q_y.": lambda q, y: (1 - q[:, torch.arange(len(y)), y]).sum(0),
            "This is the distance of the public code, ||q - e_y||, not the loss of the paper's definition.": (
                lambda q, y: (q - torch.nn.functional.one_hot(y, q.shape[2])).norm(dim=2).sum(0)
            ),
        },
    )


def nested_subset(answer: Callable) -> Outcome:
    """Check ``answer(order, size, j) -> (classes * size,)``: subset j of nested subsets; order (classes, n) mixed indices."""
    order = torch.stack([torch.arange(16) * 3 + c for c in range(3)])[:, torch.randperm(16, generator=torch.manual_seed(0))]
    cases = [(order, size, j) for size, j in ((8, 0), (4, 0), (4, 3), (2, 5), (1, 7))]
    return compare(
        answer,
        cases,
        lambda o, x, j: o[:, j * x : (j + 1) * x].flatten(),
        {
            "Off by one: subset 0 holds the first `size` of each class.": lambda o, x, j: o.roll(-x, 1)[
                :, j * x : j * x + x
            ].flatten(),
            "Every (n / size)-th sample is a partition too, but not a nested one: take neighbours.": (
                lambda o, x, j: o[:, j :: o.shape[1] // x].flatten()
            ),
            "j does not move the window: subset j starts at j * size.": lambda o, x, j: o[:, :x].flatten(),
            "The samples come sample by sample; wanted class by class.": lambda o, x, j: o[:, j * x : (j + 1) * x].T.flatten(),
        },
    )


def pearson(answer: Callable) -> Outcome:
    """Check ``answer(a, b) -> float``: Pearson's correlation coefficient of two vectors."""
    cases = [(random(20, seed=1) + 2, random(20, seed=2) - random(20, seed=1) + 3)]

    def centred(a, b):
        a, b = np.asarray(a), np.asarray(b)
        return a - a.mean(), b - b.mean()

    def cosine(a, b):
        return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())

    return compare(
        answer,
        cases,
        lambda a, b: cosine(*centred(a, b)),
        {
            "This is the cosine: subtract the means first.": lambda a, b: cosine(np.asarray(a), np.asarray(b)),
            "This is the covariance: divide by both standard deviations.": lambda a, b: np.mean(np.prod(centred(a, b), axis=0)),
            "This is its square: the coefficient has a sign.": lambda a, b: cosine(*centred(a, b)) ** 2,
        },
    )


def best_company(answer: Callable) -> Outcome:
    """Check ``answer(row, target, count) -> (count,)``: most interchangeable first; row (N,) are kernel values with target."""
    row = random(12, seed=3)
    cases = [(row.clone().index_fill_(0, torch.tensor([t]), 9.0), t, n) for t, n in ((4, 3), (0, 5))]

    def ranked(values, target):
        values = values.clone()
        values[target] = -np.inf
        return values.argsort(descending=True)

    return compare(
        answer,
        cases,
        lambda r, t, n: ranked(r, t)[:n],
        {
            "The target itself is in the list: a sample is no company for itself.": lambda r, t, n: r.argsort(descending=True)[
                :n
            ],
            "These are the least interchangeable; sort downwards.": lambda r, t, n: r.argsort()[:n],
            "A large negative value is the opposite of interchangeable: do not take absolute values.": (
                lambda r, t, n: ranked(r.abs(), t)[:n]
            ),
        },
    )


def count_events(answer: Callable) -> Outcome:
    """Check ``answer(right) -> (N,)``: forgetting events of each sample; right (E, N) bool."""
    right = random(9, 6, seed=4) > 0

    return compare(
        answer,
        [(right,)],
        lambda r: (r[:-1] & ~r[1:]).sum(0),
        {
            "This counts learning events too; forgetting is right, then wrong.": lambda r: (r[:-1] ^ r[1:]).sum(0),
            "This counts learning events: wrong, then right. Forgetting is the other way round.": lambda r: (~r[:-1] & r[1:]).sum(
                0
            ),
            "This counts the epochs in which the sample is wrong, whether or not it was right before.": lambda r: (~r).sum(0),
            "This counts events of an epoch; wanted one number a sample (add up over epochs).": lambda r: (r[:-1] & ~r[1:]).sum(
                1
            ),
        },
    )


def _change_cases() -> list[tuple]:
    z, change = 2 * random(40, 3, seed=5), 2 * random(40, 3, seed=6)
    return [(z, change, z.argmax(1).where(random(40, seed=7) > -0.5, torch.zeros(40).long()))]


def forgotten_by_hand(answer: Callable) -> Outcome:
    """Check ``answer(z, change, y) -> (N,) bool``: right before the change of the logits, wrong after it; z, change (N, K)."""
    return compare(
        answer,
        _change_cases(),
        lambda z, d, y: (z.argmax(1) == y) & ((z + d).argmax(1) != y),
        {
            "A sample that was wrong before cannot be forgotten: ask for argmax z = y too.": lambda z, d, y: (
                (z + d).argmax(1) != y
            ),
            "A falling logit is not enough, others may fall more: compare the argmax after the change.": (
                lambda z, d, y: (z.argmax(1) == y) & (d[torch.arange(len(y)), y] < 0)
            ),
            "This marks the samples that are learnt: wrong before and right after.": (
                lambda z, d, y: (z.argmax(1) != y) & ((z + d).argmax(1) == y)
            ),
        },
    )


def softmax_to_first_order(answer: Callable) -> Outcome:
    """Check ``answer(z, change) -> (K,)``: q + A change, the first order of the softmax; z, change (K,)."""
    cases = [(random(3, seed=s), random(3, seed=s + 9)) for s in range(3)]
    return compare(
        answer,
        cases,
        lambda z, d: z.softmax(0) + softmax_jacobian(z.softmax(0)) @ d,
        {
            "This is the true softmax after the change; wanted its first order, which may leave [0, 1].": (
                lambda z, d: (z + d).softmax(0)
            ),
            "The change of the logits is added to the probabilities: multiply by A = diag(q) - q q^T first.": (
                lambda z, d: z.softmax(0) + d
            ),
            "Only the diagonal of A is used: entry (i, j) is -q_i q_j.": (
                lambda z, d: z.softmax(0) + z.softmax(0) * (1 - z.softmax(0)) * d
            ),
            "This is the change alone; add it to q.": lambda z, d: softmax_jacobian(z.softmax(0)) @ d,
        },
    )


def f1_of_events(answer: Callable) -> Outcome:
    """Check ``answer(forgotten, predicted) -> float``: the F1 score of two bool vectors, NaN where there was no event."""
    truth, guess, none = random(30, seed=8) > 0.5, random(30, seed=9) > 0, torch.zeros(30, dtype=torch.bool)

    def right(f, p):
        return event_scores(f, p).f1

    def precision_recall(f, p):
        hits = float((f & p).sum())
        return hits / max(1, int(p.sum())), hits / max(1, int(f.sum()))

    return compare(
        answer,
        [(truth, guess), (guess, truth), (none, none), (none, guess)],
        right,
        {
            "Without an event the score is undefined: return nan, not a perfect 1.": lambda f, p: right(f, p) if f.any() else 1.0,
            "Without an event the score is undefined: return nan, not 0.": lambda f, p: right(f, p) if f.any() else 0.0,
            "This is the plain mean of precision and recall; F1 is their harmonic mean.": (
                lambda f, p: sum(precision_recall(f, p)) / 2 if f.any() else float("nan")
            ),
            "This is the accuracy, which the many samples without an event make look good.": (
                lambda f, p: float((f == p).double().mean())
            ),
        },
    )


def heavy_ball_step(answer: Callable) -> Outcome:
    """Check ``answer(gradients, lr, mu) -> (d,)``: the change of the weights in the last of T steps; gradients (T, d), oldest first."""

    def velocity(gradients, mu):
        v = torch.zeros_like(gradients[0])
        for g in gradients:
            v = mu * v + g
        return v

    return compare(
        answer,
        [(random(t, 3, seed=t), 0.1, 0.9) for t in (1, 2, 5)],
        lambda g, lr, mu: -lr * velocity(g, mu),
        {
            "The sign is turned round: the step goes down the gradient.": lambda g, lr, mu: lr * velocity(g, mu),
            "This is plain SGD: earlier gradients are still in the step, each older one times mu.": lambda g, lr, mu: -lr * g[-1],
            "All gradients count the same here; an older one counts mu times less for each step.": lambda g, lr, mu: (
                -lr * g.sum(0)
            ),
            "This averages (factor 1 - mu); heavy ball as in torch.optim.SGD adds up.": (
                lambda g, lr, mu: -lr * (1 - mu) * velocity(g, mu)
            ),
            "The order is turned round: the last row is the newest gradient and counts fully.": (
                lambda g, lr, mu: -lr * velocity(g.flip(0), mu)
            ),
        },
    )
