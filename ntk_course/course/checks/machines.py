"""Checks of chapter 11: what a path kernel says of a network."""

import math

import torch
from torch import Tensor

from ...kernels import as_matrix
from .core import Check
from .draws import Draw, Formula

__all__ = ["most_to_blame", "gap_without", "is_a_kernel", "growth_and_angle", "posterior_deviation"]


def _contributions(draw: Draw):
    yield torch.tensor([[2.0, 0.0], [1.0, 3.0], [-4.0, 1.0], [0.5, -1.0]], dtype=torch.float64), 0, 1, 2
    for _ in range(4):
        n, k = draw.integer(6, 12), draw.integer(3, 6)
        said, right = draw.order(k)[:2].tolist()
        yield draw.normal(n, k), said, right, draw.integer(2, 4)


def _top(value: Tensor, count: int) -> Tensor:
    return value.argsort(descending=True)[:count]


most_to_blame = Check(
    number="11.1",
    wants="answer(points, said, right, count) -> indices",
    reference=lambda p, s, r, n: _top(p[:, s] - p[:, r], n),
    cases=_contributions,
    mistakes={
        "These raised the wrong class; a mistake is a matter of wrong minus right.": lambda p, s, r, n: _top(p[:, s], n),
        "These lowered the right class; a mistake is a matter of wrong minus right.": lambda p, s, r, n: _top(-p[:, r], n),
        "These pushed towards the right class.": lambda p, s, r, n: _top(p[:, r] - p[:, s], n),
        "These pushed hardest, in either direction; keep the sign.": lambda p, s, r, n: _top((p[:, s] - p[:, r]).abs(), n),
        "The least to blame came first; wanted the most.": lambda p, s, r, n: _top(p[:, s] - p[:, r], n).flip(0),
        "topk returns two things, values and indices: wanted the indices.": lambda p, s, r, n: (p[:, s] - p[:, r]).topk(n),
        "These are the contributions; wanted the points' indices.": lambda p, s, r, n: (
            (p[:, s] - p[:, r]).sort(descending=True).values[:n]
        ),
    },
)


class _Fit:
    """A stand-in for a training path: nearest class means, so that the check takes no time."""

    def __init__(self, x: Tensor, y: Tensor):
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        self.means = torch.stack([x[y == k].mean(0) if (y == k).any() else torch.zeros_like(x[0]) for k in range(3)])

    def log_probs(self, x: Tensor) -> Tensor:
        """Return log-probabilities (M, K)."""
        return (-torch.cdist(torch.as_tensor(x), self.means)).log_softmax(1)


TRAINING = Formula(_Fit, "a training whose log_probs(x) are log_softmax(-|x - mean of class k|)")


def _trainings(draw: Draw):
    x = torch.tensor([[0.0], [2.0], [4.0], [6.0], [9.0], [8.0]], dtype=torch.float64)
    yield TRAINING, x, torch.tensor([0, 1, 0, 1, 2, 2]), torch.tensor([3, 4]), torch.tensor([[3.0]], dtype=torch.float64), 1, 0
    for said in draw.each((0, 1, 2, 0, 1, 2)):
        n = draw.integer(9, 14)
        drop = draw.order(n)[: draw.integer(2, 4)]
        right = (said + draw.integer(1, 2)) % 3
        yield TRAINING, draw.normal(n, 2), draw.labels(n, 3), drop, draw.normal(1, 2), said, right


def _gap(train, x, y, keep, x_test, said, right) -> float:
    z = train(x[keep], y[keep]).log_probs(x_test)[0]
    return float(z[said] - z[right])


def _others(x: Tensor, drop: Tensor) -> Tensor:
    keep = torch.ones(len(x), dtype=torch.bool)
    keep[drop] = False
    return keep


gap_without = Check(
    number="11.2",
    wants="answer(train, x, y, drop, x_test, said, right) -> float",
    reference=lambda train, x, y, drop, x_test, s, r: _gap(train, x, y, _others(x, drop), x_test, s, r),
    cases=_trainings,
    mistakes={
        "This trains on the dropped points only; train on all others.": lambda train, x, y, drop, x_test, s, r: _gap(
            train, x, y, drop, x_test, s, r
        ),
        "Nothing was dropped.": lambda train, x, y, drop, x_test, s, r: _gap(train, x, y, slice(None), x_test, s, r),
        "An index of zeros and ones picks rows 0 and 1: the mask must be of truth values.": (
            lambda train, x, y, drop, x_test, s, r: _gap(train, x, y, _others(x, drop).long(), x_test, s, r)
        ),
        "Samples are cut, labels are not: `y[keep]` as well.": lambda train, x, y, drop, x_test, s, r: float(
            (lambda z: z[s] - z[r])(train(x[_others(x, drop)], y[: len(x) - len(drop)]).log_probs(x_test)[0])
        ),
        "Only the first of `drop` was left out; all of them are.": lambda train, x, y, drop, x_test, s, r: _gap(
            train, x, y, _others(x, drop[:1]), x_test, s, r
        ),
        "The first samples were left out, as many as `drop` has; wanted those that `drop` names.": (
            lambda train, x, y, drop, x_test, s, r: _gap(train, x, y, slice(len(drop), None), x_test, s, r)
        ),
        "The sign is turned: log-probability of the class said minus that of the right one.": (
            lambda train, x, y, drop, x_test, s, r: -_gap(train, x, y, _others(x, drop), x_test, s, r)
        ),
        "This is the change of the gap; wanted the gap itself after the new training.": (
            lambda train, x, y, drop, x_test, s, r: (
                _gap(train, x, y, _others(x, drop), x_test, s, r) - _gap(train, x, y, slice(None), x_test, s, r)
            )
        ),
        "This is the gap of probabilities; wanted that of log-probabilities.": (
            lambda train, x, y, drop, x_test, s, r: float(
                (lambda p: p[s] - p[r])(train(x[_others(x, drop)], y[_others(x, drop)]).log_probs(x_test)[0].exp())
            )
        ),
    },
)


def _grams(draw: Draw):
    yield (torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)[:, :, None, None],)
    yield (torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)[:, :, None, None],)
    yield (torch.tensor([[[[1.0, 2.0], [2.0, 1.0]]]], dtype=torch.float64),)  # one point; indefinite over its outputs
    parts = torch.tensor([[[1.0, 2.0], [2.0, 1.0]], [[5.0, 0.0], [0.0, 5.0]]], dtype=torch.float64)
    yield (torch.einsum("inm,ij->nmij", parts, torch.eye(2).double()),)  # one output is indefinite, their sum is not
    for low in (2, 3):
        n, k = (2, 2) if low == 2 else draw.sizes(2, 3, 5)
        phi = draw.integers(-2, 2, n, k, n * k + 3).double() if low == 2 else draw.normal(n, k, n * k + 3)
        good = torch.einsum("nid,mjd->nmij", phi, phi)
        top = float(good.abs().max())
        yield (good,)
        odd = draw.normal(n, n, k, k)
        yield (good + 1e-12 * top * (odd - odd.permute(1, 0, 3, 2)),)  # symmetric, to rounding
        yield (good + 0.02 * top * (odd - odd.permute(1, 0, 3, 2)),)  # not symmetric
        identity = torch.einsum("nm,ij->nmij", torch.eye(n).double(), torch.eye(k).double())
        yield (good - 1.01 * float(torch.linalg.eigvalsh(as_matrix(good))[0] + 0.01 * top) * identity,)  # just indefinite
        # every point's own outputs, and every output over the points, have no negative eigenvalue; all together have one
        yield (identity * top + 3 * top * (1 - torch.eye(n).double())[:, :, None, None] * (1 - torch.eye(k).double()),)
        # symmetric points by points, but not with the outputs exchanged too
        yield (60 * top * identity + draw.normal(k, k) * top,)
    yield (60 * torch.ones(2, 2, 1, 1).double(),)  # an eigenvalue that is 0
    few = draw.normal(*draw.sizes(2, 2, 5), 2)
    yield (torch.einsum("nid,mjd->nmij", few, few),)  # many eigenvalues that are 0, to rounding


def _symmetric(g: Tensor) -> bool:
    return float((g - g.T).abs().max()) <= 1e-6 * float(g.abs().max())


def _definite(g: Tensor) -> bool:
    return float(torch.linalg.eigvalsh((g + g.T) / 2)[0]) > -1e-6 * float(g.abs().max())


def _kernel(g: Tensor) -> bool:
    return _symmetric(g) and _definite(g)


is_a_kernel = Check(
    number="11.3",
    wants="answer(gram) -> bool",
    reference=lambda g: _kernel(as_matrix(g)),
    cases=_grams,
    mistakes={
        "Symmetry is not enough: look at the eigenvalues too.": lambda g: _symmetric(as_matrix(g)),
        "Eigenvalues are not enough: eigvalsh reads one triangle and does not notice that the other differs.": lambda g: (
            _definite(as_matrix(g))
        ),
        "Exchange the points and the outputs together: the transpose of entry [n, m, i, j] is [m, n, j, i].": (
            lambda g: torch.allclose(g, g.transpose(0, 1)) and _definite(as_matrix(g))
        ),
        "Zero is allowed, and rounding makes it a little negative: compare with the size of the largest entry.": (
            lambda g: _symmetric(as_matrix(g)) and bool(torch.linalg.eigvalsh(as_matrix(g))[0] > 0)
        ),
        "Rows and columns are pairs (point, output): bring the axes into the order n, i, m, j before you reshape.": (
            lambda g: _kernel(g.reshape(g.shape[0] * g.shape[2], -1))
        ),
        "The outputs are added up first; a matrix over pairs (point, output) has more ways to be negative.": (
            lambda g: _symmetric(as_matrix(g)) and _definite(g.sum((2, 3)))
        ),
        "This looks at the trace over the outputs; their products with one another count too.": (
            lambda g: _symmetric(as_matrix(g)) and _definite(torch.einsum("nmii->nm", g))
        ),
        "Each output is looked at by itself; pairs of different outputs can make an eigenvalue negative.": (
            lambda g: _symmetric(as_matrix(g)) and all(_definite(g[:, :, i, i]) for i in range(g.shape[2]))
        ),
        "Each pair of points is looked at by itself; wanted the one matrix of all.": (
            lambda g: _symmetric(as_matrix(g)) and all(_definite(g[n, n]) for n in range(len(g)))
        ),
        "No matrix is symmetric to the last digit: allow for rounding there too.": (
            lambda g: torch.equal(as_matrix(g), as_matrix(g).T) and _definite(as_matrix(g))
        ),
        "Always true is no test.": lambda g: True,
        "Always false is no test.": lambda g: False,
    },
)


def _weights(draw: Draw):
    for first, last in (((1, 0), (0, 2)), ((3, 4), (3, 4)), ((1, 0), (-3, 3)), ((1, 2), (-2, -4))):
        yield torch.tensor(first, dtype=torch.float64), torch.tensor(last, dtype=torch.float64)
    for sign in (1, -1):  # rounding brings the cosine out of [-1, 1], in whichever order it is computed
        while True:
            first = draw.normal(4)
            if all(cosine > 1 for cosine in _cosines(first, 3 * first)):
                yield first, 3 * sign * first
                break
    for d in draw.sizes(3, 4, 12):
        first = draw.normal(d)
        yield first, first + draw.uniform(0.2, 1.5, 2) * draw.normal(d)


def _cosines(a: Tensor, b: Tensor) -> list[float]:
    return [
        float(a @ b / a.norm() / b.norm()),
        float(a @ b / (a.norm() * b.norm())),
        float((a / a.norm()) @ (b / b.norm())),
        float(torch.cosine_similarity(a, b, 0)),
    ]


def _both(a: Tensor, b: Tensor) -> tuple[float, float]:
    cosine = float((a @ b / a.norm() / b.norm()).clamp(-1, 1))
    return float(b.norm() / a.norm()), math.degrees(math.acos(cosine))


def _angle_judged(got, wanted, first: Tensor, last: Tensor) -> bool | str:
    """Allow a tenth of a degree: the arc cosine near 1 has no more digits in float32."""
    if not isinstance(got, Tensor) or got.shape != (2,):
        return "Return two numbers, growth and degrees."
    if got.isnan().any():
        return "There is a NaN: a cosine that rounding brought out of [-1, 1], or 0 divided by 0."
    growth, angle = (got - wanted).abs().tolist()
    return growth < 1e-4 * float(wanted[0]) and angle < 0.1


growth_and_angle = Check(
    number="11.4",
    wants="answer(first, last) -> (growth, degrees)",
    reference=_both,
    cases=_weights,
    judge=_angle_judged,
    mistakes={
        "The angle is in radians.": lambda a, b: (_both(a, b)[0], math.radians(_both(a, b)[1])),
        "This is how far the weights moved, not how much their norm grew.": lambda a, b: (
            float((b - a).norm() / a.norm()),
            _both(a, b)[1],
        ),
        "This is the cosine; wanted the angle.": lambda a, b: (_both(a, b)[0], math.cos(math.radians(_both(a, b)[1]))),
        "Angles go to 180 degrees: a cosine may be negative.": lambda a, b: (
            _both(a, b)[0],
            min(_both(a, b)[1], 180 - _both(a, b)[1]),
        ),
        "A cosine below 0 is cut off; clamp to [-1, 1].": lambda a, b: (_both(a, b)[0], min(_both(a, b)[1], 90.0)),
        "The growth is the ratio of the norms, 1 for none.": lambda a, b: (_both(a, b)[0] - 1, _both(a, b)[1]),
        "The ratio is upside down: last over first.": lambda a, b: (1 / _both(a, b)[0], _both(a, b)[1]),
        "The pair is in the other order: growth first.": lambda a, b: _both(a, b)[::-1],
    },
)


def _processes(draw: Draw):
    yield (
        torch.tensor([[1.0]], dtype=torch.float64),
        torch.tensor([0.5], dtype=torch.float64),
        torch.tensor(1.0, dtype=torch.float64),
        0.25,
    )
    for _ in range(4):
        n = draw.integer(3, 7)
        gram = draw.gram(n + 1) + 0.1 * torch.eye(n + 1, dtype=torch.float64)
        yield gram[:n, :n], gram[n, :n], gram[n, n], draw.uniform(0.05, 0.8, 2)


def _variance(k: Tensor, c: Tensor, t: Tensor, noise: float) -> Tensor:
    return t - c @ torch.linalg.solve(k + noise * torch.eye(len(k), dtype=k.dtype), c)


posterior_deviation = Check(
    number="11.5",
    wants="answer(k_train, k_cross, k_test, noise) -> float",
    reference=lambda *a: _variance(*a).sqrt(),
    cases=_processes,
    mistakes={
        "This is the variance; take its root.": _variance,
        "The noise is missing, it is added to the diagonal of the training block.": lambda k, c, t, noise: (
            _variance(k, c, t, 0.0).clamp(min=0).sqrt()
        ),
        "noise is a variance already, not to be squared.": lambda k, c, t, noise: _variance(k, c, t, noise**2).sqrt(),
        "This is the prior's deviation; take away what the training points explain.": lambda k, c, t, noise: t.sqrt(),
        "This is what the training points explain; take it from the prior's variance.": lambda k, c, t, noise: (
            t - _variance(k, c, t, noise)
        ).sqrt(),
        "The noise of an observation is added; wanted the deviation of the function.": lambda k, c, t, noise: (
            _variance(k, c, t, noise) + noise
        ).sqrt(),
        "The noise is added to every entry; it belongs to the diagonal.": lambda k, c, t, noise: (
            (t - c @ torch.linalg.solve(k + noise, c)).clamp(min=0).sqrt()
        ),
    },
)
