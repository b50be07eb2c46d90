"""Checks of chapter 18: laws of trained networks, the scale of a kernel, votes, and the root of a Hessian."""

import math

import torch
from torch import Tensor

from ...tangents.cotangents import fisher
from .core import Check
from .draws import Draw
from .values import same, shown

__all__ = [
    "posterior_variance",
    "ensemble_covariance",
    "likeliest_scale",
    "votes_of_the_first",
    "root_of_the_hessian",
]


def _kernel(draw: Draw, n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a kernel of n points, of m others with them, and of the others."""
    features = draw.normal(n + m, n + m + 2)
    whole = features @ features.T / features.shape[1]
    return whole[:n, :n], whole[n:, :n], whole[n:, n:]


def _variances(draw: Draw):
    one = torch.ones(1, 1, dtype=torch.float64)
    yield 2 * one, one, torch.tensor([2.0], dtype=torch.float64), 0.0
    yield one, one, torch.tensor([1.0], dtype=torch.float64), 3.0
    yield torch.eye(2).double(), torch.tensor([[1.0, 0.0]]).double(), torch.tensor([1.0], dtype=torch.float64), 3.0
    yield 2 * torch.eye(2).double(), torch.tensor([[1.0, 0.0], [1.0, 1.0]]).double(), torch.tensor([2.0, 3.0]).double(), 0.0
    for _ in range(4):
        gram, cross, own = _kernel(draw, *draw.sizes(2, 3, 6))
        yield gram, cross, own.diagonal().clone(), draw.uniform(0.1, 1, 2)


def _variance(gram: Tensor, cross: Tensor, own: Tensor, noise: float, inverse: float = -1, sign: float = -1) -> Tensor:
    shifted = gram + noise * torch.eye(len(gram)).to(gram)
    values, vectors = torch.linalg.eigh(shifted)
    along = cross @ vectors
    return own + sign * (along**2 * values**inverse).sum(1)


posterior_variance = Check(
    number="18.1",
    wants="answer(gram, cross, own, noise) -> (M,)",
    reference=_variance,
    cases=_variances,
    mistakes={
        "What the samples tell is taken away from the prior variance.": lambda g, c, o, n: _variance(g, c, o, n, sign=1),
        "The noise is added to the diagonal of the training points' kernel.": lambda g, c, o, n: _variance(g, c, o, 0.0),
        "The inverse of the kernel stands between the two, not the kernel.": lambda g, c, o, n: _variance(g, c, o, n, inverse=1),
        "Samples tell of one another: the inverse of the whole matrix, not of its diagonal.": (
            lambda g, c, o, n: o - (c**2 / (g.diagonal() + n)).sum(1)
        ),
        "The noise stands on the diagonal only: noise times the identity.": (
            lambda g, c, o, n: o - (c @ torch.linalg.pinv(g + n) * c).sum(1)
        ),
        "noise is a variance already: it is not squared.": lambda g, c, o, n: _variance(g, c, o, n**2),
        "noise is a variance, not a deviation: no root of it.": lambda g, c, o, n: _variance(g, c, o, n**0.5),
        "That is what the samples explain; wanted what is left of the prior variance.": (
            lambda g, c, o, n: o - _variance(g, c, o, n)
        ),
        "A variance, not a deviation.": lambda g, c, o, n: _variance(g, c, o, n).clamp(min=0).sqrt(),
        "The noise of a new label is not part of it: the spread of the function is asked for.": (
            lambda g, c, o, n: _variance(g, c, o, n) + n
        ),
    },
)


def _ensembles(draw: Draw):
    one = torch.ones(1, 1, dtype=torch.float64)
    yield 2 * one, one, one, torch.zeros(1, 1).double(), one
    yield 2 * one, one, one, one / 2, one
    yield 2 * one, one, 3 * one, one / 2, one
    two = torch.eye(2).double()
    yield two, torch.tensor([[1.0, 0.0], [1.0, 1.0]]).double(), two, torch.tensor([[0.0, 1.0], [0.0, 0.0]]).double(), 3 * two
    for _ in range(4):
        n, m = draw.sizes(2, 2, 5)
        tangent, start = _kernel(draw, n, m), _kernel(draw, n, m)
        yield tangent[0] + start[0], tangent[1] + start[1], *start


def _ensemble(t: Tensor, tc: Tensor, s: Tensor, sc: Tensor, own: Tensor, crossed: float = 1.0, last: float = 1.0) -> Tensor:
    a = torch.linalg.solve(t, tc.T).T
    return own - crossed * (a @ sc.T + sc @ a.T) + last * a @ s @ a.T


def _one_sided(t: Tensor, tc: Tensor, s: Tensor, sc: Tensor, own: Tensor, times: float) -> Tensor:
    a = torch.linalg.solve(t, tc.T).T
    return own - times * a @ sc.T + a @ s @ a.T


ensemble_covariance = Check(
    number="18.2",
    wants="answer(tangent, tangent_cross, start, start_cross, start_own) -> (M, M)",
    reference=_ensemble,
    cases=_ensembles,
    mistakes={
        "That is a posterior of the start's kernel; networks are trained by the tangent kernel.": (
            lambda t, tc, s, sc, own: own - sc @ torch.linalg.solve(s, sc.T)
        ),
        "The last term is missing: the starts at the training points have a covariance of their own.": (
            lambda t, tc, s, sc, own: _ensemble(t, tc, s, sc, own, last=0)
        ),
        "Both mixed terms are to be taken away: the function's start meets those at the training points from either side.": (
            lambda t, tc, s, sc, own: _one_sided(t, tc, s, sc, own, 1)
        ),
        "The two mixed terms are each other's transpose, and not the same: twice one of them is no symmetric matrix.": (
            lambda t, tc, s, sc, own: _one_sided(t, tc, s, sc, own, 2)
        ),
        "The two mixed terms are each other's transpose: the second one as well.": (
            lambda t, tc, s, sc, own: _one_sided(t, tc, s, sc, own, 2).T
        ),
        "The mixed terms are missing: a start far away and those at the training points are correlated.": (
            lambda t, tc, s, sc, own: _ensemble(t, tc, s, sc, own, crossed=0)
        ),
        "The mixed terms are taken away.": lambda t, tc, s, sc, own: _ensemble(t, tc, s, sc, own, crossed=-1),
        "Between the two A stands the start's covariance, not the tangent kernel.": (
            lambda t, tc, s, sc, own: _ensemble(t, tc, s, sc, own, last=0) + tc @ torch.linalg.solve(t, tc.T)
        ),
    },
)


def _scales(draw: Draw):
    yield torch.eye(2).double(), torch.tensor([3.0, 1.0]).double(), 0.0
    yield torch.diag(torch.tensor([1.0, 4.0])).double(), torch.tensor([1.0, 2.0]).double(), 0.0
    yield torch.eye(2).double(), torch.tensor([4.0, 0.0]).double(), 3.0
    yield torch.tensor([[2.0, 1.0], [1.0, 2.0]]).double(), torch.tensor([3.0, 0.0]).double(), 3.0
    for _ in range(4):
        n = draw.sizes(1, 3, 7)[0]
        yield _kernel(draw, n, 1)[0], draw.normal(n), draw.uniform(0.1, 1, 2)


def _scale(gram: Tensor, y: Tensor, noise: float) -> float:
    return float(y @ torch.linalg.solve(gram + noise * torch.eye(len(y)).to(gram), y)) / len(y)


likeliest_scale = Check(
    number="18.3",
    wants="answer(gram, y, noise) -> float",
    reference=_scale,
    cases=_scales,
    mistakes={
        "A mean over the samples: divide by N.": lambda g, y, n: _scale(g, y, n) * len(y),
        "The noise is scaled with the kernel, and stands in the matrix.": lambda g, y, n: _scale(g, y, 0.0),
        "noise is a variance already: it is not squared.": lambda g, y, n: _scale(g, y, n**2),
        "noise is a variance, not a deviation: no root of it.": lambda g, y, n: _scale(g, y, n**0.5),
        "The scale multiplies kernel and noise: the noise stands in the matrix, and is not taken away behind it.": (
            lambda g, y, n: _scale(g, y, 0.0) - n
        ),
        "The inverse of the kernel stands between the labels, not the kernel.": lambda g, y, n: (
            float(y @ (g + n * torch.eye(len(y)).to(g)) @ y) / len(y)
        ),
        "That is its root: a variance is asked for.": lambda g, y, n: _scale(g, y, n) ** 0.5,
        "Labels have mean zero under the kernel: their own mean is not taken away.": lambda g, y, n: _scale(g, y - y.mean(), n),
        "Set the derivative to zero: N log s / 2 has the slope N / 2s, the other term minus the square of s in its denominator.": (
            lambda g, y, n: 1 / _scale(g, y, n)
        ),
    },
)


def _pairs(draw: Draw):
    yield torch.tensor([1.0, 0.0]).double(), torch.diag(torch.tensor([1.0, 0.0])).double()
    yield torch.tensor([0.0, 2.0]).double(), 2 * torch.eye(2).double()
    yield torch.tensor([1.0, 0.0]).double(), torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double()
    for _ in range(4):
        root = draw.normal(2, 3)
        yield draw.normal(2), root @ root.T / 3 + 0.1 * torch.eye(2).double()


def _vote(mean: Tensor, covariance: Tensor, shared: float = 2.0, squared: bool = False) -> float:
    variance = float(covariance[0, 0] + covariance[1, 1] - shared * covariance[0, 1])
    apart = float(mean[0] - mean[1])
    return 0.5 * (1 + math.erf(apart / (variance if squared else variance**0.5) / 2**0.5))


votes_of_the_first = Check(
    number="18.4",
    wants="answer(mean, covariance) -> float",
    reference=_vote,
    cases=_pairs,
    mistakes={
        "What both outputs share does not decide between them: their covariance is taken away, twice.": (
            lambda m, c: _vote(m, c, shared=0)
        ),
        "The covariance counts twice in the variance of a difference.": lambda m, c: _vote(m, c, shared=1),
        "The variance of a difference has minus the covariance.": lambda m, c: _vote(m, c, shared=-2),
        "The share of the first, not of the second.": lambda m, c: 1 - _vote(m, c),
        "Divide by the deviation, not by the variance.": lambda m, c: _vote(m, c, squared=True),
        "A Gaussian's distribution function, not a logistic one.": lambda m, c: (
            1 / (1 + math.exp(-float(m[0] - m[1]) / float(c[0, 0] + c[1, 1] - 2 * c[0, 1]) ** 0.5))
        ),
        "The spread of the first alone: the second has one as well.": lambda m, c: (
            0.5 * (1 + math.erf(float(m[0] - m[1]) / max(float(c[0, 0]), 1e-12) ** 0.5 / 2**0.5))
        ),
    },
)


def _logits(draw: Draw):
    yield (torch.zeros(2, dtype=torch.float64),)
    yield (torch.tensor([math.log(3.0), 0.0], dtype=torch.float64),)
    yield (torch.tensor([math.log(2.0), 0.0, 0.0], dtype=torch.float64),)
    for _ in range(4):
        yield (draw.normal(draw.sizes(1, 3, 6)[0]),)


def _root(z: Tensor) -> Tensor:
    return fisher(z[None])[0]


def _hessian_judged(got, wanted, z: Tensor) -> bool | str:
    """Take any matrix whose transpose times itself is the Hessian, and speak of the products, not of one root."""
    if not isinstance(got, Tensor) or got.dim() != 2 or got.shape[1] != len(z):
        return f"Return a matrix with {len(z)} columns, one for each logit, and any number of rows."
    product, hessian = got.double().T @ got.double(), wanted.T @ wanted
    if same(product, hessian):
        return True
    if len(got) == len(z) and same(got.double() @ got.double().T, hessian):
        return "C C^T is the Hessian; wanted C^T C, so the transpose of your matrix."
    return f"C^T C of your answer is {shown(product)}; wanted diag(p) - p p^T = {shown(hessian)}."


root_of_the_hessian = Check(
    number="18.5",
    wants="answer(z) -> (R, K)",
    reference=_root,
    cases=_logits,
    judge=_hessian_judged,
    mistakes={
        "Each row is weighed by the root of its label's probability.": lambda z: torch.eye(len(z)).to(z) - z.softmax(0),
        "That is the Hessian itself. In C rows are weighed by the root of the probability, which C^T C squares.": lambda z: (
            z.softmax(0).diag() - z.softmax(0).outer(z.softmax(0))
        ),
        "Without p p^T: logits that all grow alike change no probability.": lambda z: z.softmax(0).sqrt().diag(),
        "C^T C adds over rows: the labels are rows, the logits columns.": lambda z: _root(z).T,
    },
)
