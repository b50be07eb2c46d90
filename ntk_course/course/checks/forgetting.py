"""Checks of chapter 6: forgetting."""

import math

import torch
from torch import Tensor

from ...analysis.one_step import softmax_jacobian
from .core import Check
from .draws import Draw

__all__ = [
    "count_events",
    "forgotten_by_hand",
    "softmax_misses_it",
    "f1_of_events",
    "largest_share",
    "heavy_ball_step",
]


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
