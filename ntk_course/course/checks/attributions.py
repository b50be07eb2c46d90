"""Checks of chapter 19: the cotangent of the log odds, TracIn, an influence, leaving one out, the datamodelling score."""

import torch
from scipy.stats import kendalltau, pearsonr, spearmanr
from torch import Tensor

from ...analysis.attribution import leave_one_out_effects
from ...tangents.cotangents import log_odds
from .core import Check
from .draws import Draw

__all__ = [
    "odds_cotangent",
    "traced_gradients",
    "influence_of_samples",
    "effect_of_leaving_out",
    "halves_foreseen",
]


def _logits(draw: Draw):
    yield torch.tensor([0.0, 0.0, 0.0]).double(), 1
    yield torch.tensor([2.0, 0.0]).double(), 0
    yield torch.log(torch.tensor([1.0, 1.0, 3.0])).double(), 0
    yield torch.tensor([40.0, 1.0, 0.0]).double(), 0
    for _ in range(4):
        k = draw.sizes(1, 3, 6)[0]
        yield draw.normal(k), draw.integer(0, k - 1)


def _odds(z: Tensor, y: int) -> Tensor:
    return log_odds(torch.tensor([y]))(z[None])[0]


def _unit(z: Tensor, y: int) -> Tensor:
    return torch.eye(len(z)).to(z)[y]


odds_cotangent = Check(
    number="19.1",
    wants="answer(z, y) -> (K,)",
    reference=_odds,
    cases=_logits,
    mistakes={
        "That is the derivative of log p; the log odds have - log(1 - p) as well.": lambda z, y: _unit(z, y) - z.softmax(0),
        "That is minus the derivative.": lambda z, y: -_odds(z, y),
        "That is the derivative of the cross entropy, which is - log p: wanted that of log p - log(1 - p).": (
            lambda z, y: z.softmax(0) - _unit(z, y)
        ),
        "For a sample that is learnt, 1 - p is zero to rounding: write the odds by the other logits alone.": lambda z, y: (
            (_unit(z, y) - z.softmax(0)) / (1 - z.softmax(0)[y]).clamp(min=1e-2)
        ),
        "The label's own entry is 1: only the others have 1 - p of the label below them.": (
            lambda z, y: _unit(z, y) - z.softmax(0) / (1 - z.softmax(0)[y])
        ),
        "Divide by 1 - p of the label, not by p.": lambda z, y: (_unit(z, y) - z.softmax(0)) / z.softmax(0)[y],
        "The label is y, and not the largest logit.": lambda z, y: _odds(z, int(z.argmax())),
        "The other logits count by their softmax, not alike.": (lambda z, y: _unit(z, y) - (1 - _unit(z, y)) / (len(z) - 1)),
        "The label's own logit is left out of the softmax of the others.": (
            lambda z, y: _unit(z, y) - (1 - _unit(z, y)) * z.softmax(0)
        ),
        "All logits count: raising another one lowers the odds.": lambda z, y: _unit(z, y),
        "The sum of the others' softmax is 1: it is divided by 1 - p of the label.": (
            lambda z, y: _unit(z, y) / (1 - z.softmax(0)[y]) - z.softmax(0) / (1 - z.softmax(0)[y]) ** 2
        ),
        "The odds are compared with all others together, not with the largest other one.": lambda z, y: (
            _unit(z, y) - _unit(z, int(z.masked_fill(_unit(z, y).bool(), -torch.inf).argmax()))
        ),
        "That is the derivative of p itself.": lambda z, y: z.softmax(0)[y] * (_unit(z, y) - z.softmax(0)),
        "That is the derivative of the odds; wanted that of their logarithm.": (
            lambda z, y: (z.softmax(0)[y] / (1 - z.softmax(0)[y])) * _odds(z, y)
        ),
    },
)


def _runs(draw: Draw):
    one = torch.ones(1, 1, 1).double()
    yield one, 2 * one, torch.tensor([0.5]).double()
    yield (
        torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).double(),
        torch.tensor([[[3.0, 1.0]], [[1.0, 5.0]]]).double(),
        torch.tensor([1.0, 0.1]).double(),
    )
    yield torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]).double(), torch.tensor([[[1.0, 1.0]]]).double(), torch.tensor([1.0]).double()
    for _ in range(4):
        s, n, m, d = draw.sizes(4, 2, 6)
        yield draw.normal(s, n, d), draw.normal(s, m, d), draw.normal(s).abs()


def _traced(train: Tensor, asked: Tensor, rates: Tensor) -> Tensor:
    return torch.einsum("s,smd,snd->mn", rates, asked, train)


traced_gradients = Check(
    number="19.2",
    wants="answer(train, asked, rates) -> (M, N)",
    reference=_traced,
    cases=_runs,
    mistakes={
        "Rows are the points asked about, columns the training samples.": lambda t, a, r: _traced(t, a, r).T,
        "Each step counts with its own rate.": lambda t, a, r: _traced(t, a, torch.ones_like(r)),
        "Each step counts with its own rate, not with the mean one.": lambda t, a, r: _traced(t, a, torch.full_like(r, r.mean())),
        "A sum over the steps, not a mean.": lambda t, a, r: _traced(t, a, r) / len(r),
        "Both gradients are those of one step: sum the products, not the gradients first.": (
            lambda t, a, r: (r[:, None, None] * a).sum(0) @ t.sum(0).T
        ),
        "Both gradients are those of one step: sum the products, and do not take the last test gradient for all.": (
            lambda t, a, r: a[-1] @ (r[:, None, None] * t).sum(0).T
        ),
        "Both gradients are those before one step: the other sample's are one step late.": (
            lambda t, a, r: torch.einsum("s,smd,snd->mn", r[:-1], a[1:], t[:-1]) if len(r) > 1 else _traced(t, a, r)
        ),
        "Each step counts with its own rate; the rates are in another order.": lambda t, a, r: _traced(t, a, r.flip(0)),
        "Sum the products of each step, and not the two gradients first.": lambda t, a, r: (
            (r[:, None, None] * a).sum(0) @ (r[:, None, None] * t).sum(0).T / r.sum()
        ),
        "Each step counts with its own rate: not all with the sum of the rates.": lambda t, a, r: (
            r.sum() * _traced(t, a, torch.ones_like(r))
        ),
        "The products of gradients that were summed over the steps have terms of two different steps.": lambda t, a, r: (
            a.sum(0) @ (r[:, None, None] * t).sum(0).T
        ),
        "All steps count, and not the last alone.": lambda t, a, r: r[-1] * a[-1] @ t[-1].T,
        "All steps count, and not the first alone.": lambda t, a, r: r[0] * a[0] @ t[0].T,
        "A step along minus the sample's gradient lowers the other's loss where the product is positive: no minus.": (
            lambda t, a, r: -_traced(t, a, r)
        ),
        "Inner products, not cosines: a large gradient moves the weights farther.": lambda t, a, r: _traced(
            t / t.norm(dim=2, keepdim=True), a / a.norm(dim=2, keepdim=True), r
        ),
    },
)


def _kernel(draw: Draw, n: int, m: int) -> tuple[Tensor, Tensor]:
    features = draw.normal(n + m, n + m + 2)
    whole = features @ features.T / features.shape[1]
    return whole[:n, :n], whole[n:, :n]


def _regressions(draw: Draw):
    one = torch.ones(1, 1).double()
    yield 2 * one, one, torch.tensor([3.0]).double(), 1.0
    yield (
        torch.diag(torch.tensor([1.0, 3.0])).double(),
        torch.tensor([[1.0, 2.0]]).double(),
        torch.tensor([4.0, 8.0]).double(),
        1.0,
    )
    two = torch.tensor([[2.0, 1.0], [1.0, 2.0]]).double()
    yield two, torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]).double(), torch.tensor([3.0, 6.0]).double(), 2.0
    for _ in range(4):
        n, m = draw.sizes(2, 2, 6)
        yield *_kernel(draw, n, m), draw.normal(n), draw.uniform(0.2, 3, 2)


def _inverse(gram: Tensor, ridge: float) -> Tensor:
    return torch.linalg.inv(gram + ridge * torch.eye(len(gram)).to(gram))


def _influences(gram: Tensor, cross: Tensor, y: Tensor, ridge: float) -> Tensor:
    wrong = ridge * _inverse(gram, ridge) @ y  # y less the fit
    return cross @ _inverse(gram, ridge) * wrong


influence_of_samples = Check(
    number="19.3",
    wants="answer(gram, cross, y, ridge) -> (M, N)",
    reference=_influences,
    cases=_regressions,
    mistakes={
        "Each sample pushes with what the fit leaves of its label, not with the label.": (
            lambda g, c, y, r: c @ _inverse(g, r) * y
        ),
        "Each sample pushes with what the fit leaves of its label, not with the fit.": (
            lambda g, c, y, r: c @ _inverse(g, r) * (g @ _inverse(g, r) @ y)
        ),
        "Half the squared errors are summed, not averaged: the ridge stands as it is, without N.": lambda g, c, y, r: _influences(
            g, c, y, len(y) * r
        ),
        "That is the change when the sample counts twice: wanted the slope at once.": lambda g, c, y, r: (
            _influences(g, c, y, r) / (1 + (g @ _inverse(g, r)).diagonal())
        ),
        "Each sample pushes with what the fit leaves of its label, not with its coefficient: the two differ by the ridge.": (
            lambda g, c, y, r: c @ _inverse(g, r) * (_inverse(g, r) @ y)
        ),
        "That is each sample's part of the sum k(x, x_i) alpha_i: when a sample weighs more, the other coefficients change too.": (
            lambda g, c, y, r: c * (_inverse(g, r) @ y)
        ),
        "That is what one step of gradient descent on the sample would add: the Hessian is missing.": (
            lambda g, c, y, r: c * (r * _inverse(g, r) @ y)
        ),
        "That is leaving the sample out exactly; an influence is its first order, without the division by one less the leverage.": (
            lambda g, c, y, r: leave_one_out_effects(g, c, y, r)
        ),
        "Label less fit: the sign is turned round.": lambda g, c, y, r: -_influences(g, c, y, r),
        "Rows are the points asked about, columns the training samples.": lambda g, c, y, r: _influences(g, c, y, r).T,
        "The ridge is on the diagonal of what is inverted.": lambda g, c, y, r: (
            c @ torch.linalg.pinv(g) * (r * _inverse(g, r) @ y)
        ),
        "Wanted each sample's share by itself, not their sum.": lambda g, c, y, r: _influences(g, c, y, r).sum(1),
    },
)


def _left(gram: Tensor, cross: Tensor, y: Tensor, ridge: float) -> Tensor:
    return leave_one_out_effects(gram, cross, y, ridge)


effect_of_leaving_out = Check(
    number="19.4",
    wants="answer(gram, cross, y, ridge) -> (M, N)",
    reference=_left,
    cases=lambda draw: (case for case in _regressions(draw) if len(case[0]) > 1),
    mistakes={
        "That is the influence, first order only: a sample that is left out is not there to hold its own fit.": _influences,
        "That is each sample's part of the sum k(x, x_i) alpha_i: without the sample the other coefficients are others.": (
            lambda g, c, y, r: c * (_inverse(g, r) @ y)
        ),
        "With the sample, less without it: the sign is turned round.": lambda g, c, y, r: -_left(g, c, y, r),
        "That is the prediction without the sample: wanted how far it is from the one with it.": (
            lambda g, c, y, r: (c @ (_inverse(g, r) @ y))[:, None] - _left(g, c, y, r)
        ),
        "The ridge is on the diagonal.": lambda g, c, y, r: _left(g, c, y, 0.0),
        "Rows are the points asked about, columns the training samples.": lambda g, c, y, r: _left(g, c, y, r).T,
        "The coefficient is divided by the inverse's diagonal entry, which is missing.": (
            lambda g, c, y, r: c @ _inverse(g, r) * (_inverse(g, r) @ y)
        ),
        "The coefficient is divided by the diagonal entry of the inverse, not by that of the kernel.": (
            lambda g, c, y, r: c @ _inverse(g, r) * (_inverse(g, r) @ y) / (g.diagonal() + r)
        ),
        "Times (K + ridge)^-1 on the side of the point asked about: one more row of the inverse.": (
            lambda g, c, y, r: c * (_inverse(g, r) @ y) / _inverse(g, r).diagonal()
        ),
        "Without the sample the others fit as before, with the same ridge: no N in it.": lambda g, c, y, r: _left(
            g, c, y, len(y) * r
        ),
        "The leverage is divided out as one less it, not as itself.": lambda g, c, y, r: (
            _influences(g, c, y, r) / (g @ _inverse(g, r)).diagonal()
        ),
        "The factor is how wrong the others are about the label. The label itself is the change when it is set to zero.": lambda g, c, y, r: (
            c @ _inverse(g, r) * y
        ),
    },
)


def _halves(draw: Draw):
    three = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]).bool()
    yield torch.tensor([1.0, 2.0, 4.0]).double(), three, torch.tensor([0.0, 1.0, 5.0, 2.0]).double()
    yield torch.tensor([1.0, -2.0, 4.0]).double(), three, torch.tensor([9.0, 7.0, 1.0, 3.0]).double()
    yield torch.tensor([1.0, 2.0, 3.5]).double(), three, torch.tensor([0.0, 100.0, 2.0, 1.0]).double()
    for _ in range(5):
        n, s = draw.sizes(2, 5, 9)
        scores, inside = draw.normal(n), draw.bits(s, n).bool()
        if len({tuple(row) for row in inside.tolist()}) < s:
            inside = torch.eye(n).bool()
        foreseen = inside.double() @ scores
        yield scores, inside, foreseen.sign() * foreseen.abs() ** 3 + 2 * draw.normal(len(inside))


def _score(scores: Tensor, inside: Tensor, outputs: Tensor) -> float:
    return float(spearmanr(inside.double() @ scores, outputs).statistic)


halves_foreseen = Check(
    number="19.5",
    wants="answer(scores, inside, outputs) -> float",
    reference=_score,
    cases=_halves,
    mistakes={
        "Correlate the ranks, not the values.": lambda s, i, o: float(pearsonr(i.double() @ s, o).statistic),
        "Ranks on both sides: one side is still in its own units.": lambda s, i, o: float(
            pearsonr((i.double() @ s).argsort().argsort().double(), o).statistic
        ),
        "A rank of an entry is argsort twice; on one side it was once.": lambda s, i, o: float(
            pearsonr((i.double() @ s).argsort().double(), o.argsort().argsort().double()).statistic
        ),
        "Sum the scores of a subset's samples, and then rank the sums: ranks of single scores do not add up.": lambda s, i, o: (
            _score(s.argsort().argsort().double(), i, o)
        ),
        "A correlation from -1 to 1; not shifted to 0 to 1.": lambda s, i, o: (_score(s, i, o) + 1) / 2,
        "The sign is turned round, or scores of samples are added that a subset has not.": (lambda s, i, o: _score(s, ~i, o)),
        "Spearman's correlation, not Kendall's: Pearson's of the ranks.": (
            lambda s, i, o: float(kendalltau(i.double() @ s, o).statistic)
        ),
        "Ranks, not the indices that sort: rank of an entry, argsort twice.": lambda s, i, o: float(
            pearsonr((i.double() @ s).argsort().double(), o.argsort().double()).statistic
        ),
        "A subset's answer is foreseen by the sum of its scores, not by their mean.": lambda s, i, o: float(
            spearmanr((i.double() @ s) / i.sum(1).clamp(min=1), o).statistic
        ),
        "With its sign: a rank correlation below zero says that subsets are ordered the wrong way.": (
            lambda s, i, o: abs(_score(s, i, o))
        ),
        "The correlation itself, not its square.": lambda s, i, o: _score(s, i, o) ** 2,
        "Scores as they are, with their signs.": lambda s, i, o: _score(s.abs(), i, o),
    },
)
