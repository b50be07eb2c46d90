"""Checks of chapter 11: what a path kernel says of a network."""

import math

import torch
from torch import Tensor

from .core import Check
from .draws import Draw

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


def _trainings(draw: Draw):
    for _ in range(4):
        n = draw.integer(9, 14)
        drop = draw.order(n)[: draw.integer(2, 4)]
        said, right = draw.order(3)[:2].tolist()
        yield _Fit, draw.normal(n, 2), draw.labels(n, 3), drop, draw.normal(1, 2), said, right


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
    n, k = draw.sizes(2, 2, 5)
    phi = draw.normal(n, k, n * k + 3)
    good = torch.einsum("nid,mjd->nmij", phi, phi)
    identity = torch.einsum("nm,ij->nmij", torch.eye(n).double(), torch.eye(k).double())
    yield (good,)
    yield (good - 4 * float(torch.linalg.eigvalsh(_matrix(good))[-1]) * identity / 4,)  # indefinite
    yield (good * torch.linspace(1, 2, n).double()[None, :, None, None],)  # not symmetric
    # symmetric points by points, but not with the outputs exchanged too
    yield (60 * identity + draw.normal(k, k),)
    yield (60 * torch.ones(2, 2, 1, 1).double(),)  # an eigenvalue that is 0
    low = draw.normal(n, k, 2)
    yield (torch.einsum("nid,mjd->nmij", low, low),)  # many eigenvalues that are 0, to rounding


def _matrix(g: Tensor) -> Tensor:
    n, _, k, _ = g.shape
    return g.permute(0, 2, 1, 3).reshape(n * k, n * k)


def _symmetric(g: Tensor) -> bool:
    return torch.allclose(g, g.T)


def _definite(g: Tensor) -> bool:
    return float(torch.linalg.eigvalsh((g + g.T) / 2)[0]) > -1e-9 * float(g.abs().max())


is_a_kernel = Check(
    number="11.3",
    wants="answer(gram) -> bool",
    reference=lambda g: _symmetric(_matrix(g)) and _definite(_matrix(g)),
    cases=_grams,
    mistakes={
        "Symmetry is not enough: look at the eigenvalues too.": lambda g: _symmetric(_matrix(g)),
        "Eigenvalues are not enough: eigvalsh reads one triangle and does not notice that the other differs.": lambda g: (
            _definite(_matrix(g))
        ),
        "Exchange the points and the outputs together: the transpose of entry [n, m, i, j] is [m, n, j, i].": (
            lambda g: torch.allclose(g, g.transpose(0, 1)) and _definite(_matrix(g))
        ),
        "Zero is allowed, and rounding makes it a little negative: compare with the size of the largest entry.": (
            lambda g: _symmetric(_matrix(g)) and bool(torch.linalg.eigvalsh(_matrix(g))[0] > 0)
        ),
        "Always true is no test.": lambda g: True,
        "Always false is no test.": lambda g: False,
    },
)


def _weights(draw: Draw):
    yield torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 2.0], dtype=torch.float64)
    yield (
        torch.tensor([3.0, 4.0], dtype=torch.float64),
        torch.tensor([3.0, 4.0], dtype=torch.float64),
    )  # rounding brings the cosine above 1
    yield torch.tensor([0.1, 0.3, 0.7], dtype=torch.float64), torch.tensor([0.3, 0.9, 2.1], dtype=torch.float64)
    while True:  # the same
        first = draw.normal(4)
        if first @ first / first.norm() / first.norm() > 1:
            yield first, first.clone()
            break
    for d in draw.sizes(3, 4, 12):
        first = draw.normal(d)
        yield first, first + draw.uniform(0.2, 1.5, 2) * draw.normal(d)


def _both(a: Tensor, b: Tensor) -> tuple[float, float]:
    cosine = float((a @ b / a.norm() / b.norm()).clamp(-1, 1))
    return float(b.norm() / a.norm()), math.degrees(math.acos(cosine))


def _angle_judged(got, wanted, first: Tensor, last: Tensor) -> bool | str:
    """Allow a hundredth of a degree: the arc cosine near 1 has no more digits in float32."""
    if not isinstance(got, Tensor) or got.shape != (2,):
        return "Return two numbers, growth and degrees."
    if got.isnan().any():
        return "There is a NaN: rounding can bring a cosine above 1, and then there is no angle."
    growth, angle = (got - wanted).abs().tolist()
    return growth < 1e-4 * float(wanted[0]) and angle < 0.02


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
