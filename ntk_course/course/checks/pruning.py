"""Checks of chapter 8: pruning."""

import math
import warnings
from functools import lru_cache

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ...analysis.interactions import redundant
from .core import Check
from .draws import Draw, telling_apart

__all__ = [
    "length_needed",
    "along_one_direction",
    "redundant_among",
    "grand_from_kernel",
    "what_the_runs_say",
    "better_rule",
]


def _angles(draw: Draw):
    yield 0.5, 1.5
    yield 1.0, 3.0
    yield 0.5, 0.2
    yield 0.0, 1.0
    yield -0.4, 2.0
    for _ in range(4):
        yield draw.uniform(0.05, 0.99, 2), draw.uniform(0.2, 5, 2)
    yield draw.uniform(-0.99, -0.05, 2), draw.uniform(0.2, 5, 2)


length_needed = Check(
    number="8.1",
    wants="answer(cosine, length) -> float",
    reference=lambda c, ell: ell / c if c > 0 else math.inf,
    cases=_angles,
    mistakes={
        "The cosine is at the wrong side: cos * |partner| > |own|, so divide by it.": lambda c, ell: (
            ell * c if c > 0 else math.inf
        ),
        "A negative cosine gives a negative length here; nothing can make the vector redundant, so return infinity.": (
            lambda c, ell: ell / c if c else math.inf
        ),
        "At a right angle or more no length will do: return infinity, not 0.": lambda c, ell: ell / c if c > 0 else 0.0,
        "The sign of the cosine matters: a vector that points away never helps.": lambda c, ell: ell / abs(c) if c else math.inf,
        "These are squared lengths; the diagonal of the kernel is the square of the length.": lambda c, ell: (
            (ell / c) ** 2 if c > 0 else math.inf
        ),
    },
)


def _lines(draw: Draw):
    yield (torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64),)
    yield (torch.tensor([2.0, 2.0, 2.0], dtype=torch.float64),)  # copies
    yield (torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64),)
    yield (torch.tensor([5.0, 1.0, 5.0, 4.0], dtype=torch.float64),)
    for _ in range(4):
        yield (draw.integers(1, 6, draw.integer(4, 9)).double(),)


def _alone(lengths: Tensor) -> tuple[int, int]:
    values = lengths.tolist()
    return sum(v < max(values) for v in values), sum(any(w > v for w in values[i + 1 :]) for i, v in enumerate(values))


along_one_direction = Check(
    number="8.2",
    wants="answer(lengths) -> (int, int)",
    reference=_alone,
    cases=_lines,
    mistakes={
        "Copies of the longest are not redundant: their values are equal, and the rule asks for more.": (
            lambda ell: (len(ell) - 1, sum(any(w >= v for w in ell.tolist()[i + 1 :]) for i, v in enumerate(ell.tolist())))
        ),
        "The first number is right. For the second only samples that come later count.": lambda ell: (
            _alone(ell)[0],
            _alone(ell)[0],
        ),
        "The second number is turned round: a sample is compared with those that come after it.": (
            lambda ell: (_alone(ell)[0], _alone(ell.flip(0))[1])
        ),
        "These are the numbers of those that stay; wanted the redundant.": lambda ell: tuple(len(ell) - n for n in _alone(ell)),
        "The two numbers are exchanged: first among all, then among later ones.": lambda ell: _alone(ell)[::-1],
        "All but one would be right if no two had the longest length.": lambda ell: (len(ell) - 1, _alone(ell)[1]),
    },
)


def _among(draw: Draw):
    yield torch.tensor([[1.0, 1.5], [1.5, 4.0]], dtype=torch.float64), False
    yield torch.tensor([[4.0, 1.5], [1.5, 1.0]], dtype=torch.float64), True  # its only longer partner comes before it
    yield torch.tensor([[4.0, 1.5], [1.5, 1.0]], dtype=torch.float64), False  # and here that counts
    yield torch.tensor([[2.0, 2.0], [2.0, 2.0]], dtype=torch.float64), False  # copies
    # who is redundant still makes others so: sample 1 has only sample 0, which has only sample 2
    chain = torch.tensor([[4.84, 1.1, 5.28], [1.1, 1.0, -2.4], [5.28, -2.4, 23.04]], dtype=torch.float64)
    yield chain, False
    yield chain, True
    yield torch.tensor([[1.0, -9.0], [-9.0, 90.0]], dtype=torch.float64), False  # opposite
    for later in (False, True, False, True):
        yield draw.gram(draw.integer(8, 14), rank=3), later


def _off(gram: Tensor, later: bool) -> Tensor:
    out = torch.ones_like(gram).triu(1).bool() if later else ~torch.eye(len(gram)).bool()
    return gram.masked_fill(~out, -math.inf)


redundant_among = Check(
    number="8.3",
    wants="answer(gram, later) -> (N,) bool",
    reference=lambda gram, later: redundant(gram, among="later" if later else "all"),
    cases=_among,
    mistakes={
        "Every sample is called redundant: leave the sample itself out, and ask for more, not as much.": (
            lambda g, later: torch.ones(len(g), dtype=torch.bool)
        ),
        "Nothing is called redundant: the largest entry of the row should be compared with the diagonal.": (
            lambda g, later: torch.zeros(len(g), dtype=torch.bool)
        ),
        "This compares with the partner's own value. Sample i goes where kappa_ij exceeds kappa_ii, not kappa_jj.": (
            lambda g, later: (_off(g, later) > g.diagonal()[None, :]).any(1)
        ),
        "Absolute values make opposite samples partners; take the values as they are.": (
            lambda g, later: _off(g, later).masked_fill(_off(g, later).isinf(), 0).abs().max(1).values > g.diagonal()
        ),
        "`later` makes no difference here: then a sample is compared with those of a larger index only.": (
            lambda g, later: redundant(g, among="all")
        ),
        "These are compared with earlier samples; later ones have the larger index.": (
            lambda g, later: (
                (g.masked_fill(~torch.ones_like(g).tril(-1).bool(), -math.inf).max(1).values > g.diagonal())
                if later
                else redundant(g)
            )
        ),
        "Equal is not more: a copy of a sample does not make it redundant.": lambda g, later: (
            _off(g, later).max(1).values >= g.diagonal()
        ),
    },
)


def _own_blocks(draw: Draw):
    yield torch.tensor([[[4.0, 1.0], [1.0, 3.0]]], dtype=torch.float64), torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    for _ in range(3):
        n, k = draw.sizes(2, 2, 7)
        j = draw.jacobians(n, k, k + 3)
        yield j @ j.mT, draw.normal(n, k)


def _squared(k: Tensor, e: Tensor) -> Tensor:
    return torch.einsum("ni,nij,nj->n", e, k, e)


grand_from_kernel = Check(
    number="8.4",
    wants="answer(blocks, error) -> (N,)",
    reference=lambda k, e: _squared(k, e).sqrt(),
    cases=_own_blocks,
    mistakes={
        "This is the square of the gradient's length; take the root.": _squared,
        "This is EL2N, the length of the error; the gradient is J^T e, with squared length e^T K e.": lambda k, e: e.norm(dim=1),
        "This adds up the diagonal of K; the error says how the outputs are combined: e^T K e.": lambda k, e: torch.einsum(
            "nii->n", k
        ).sqrt(),
        "Only the diagonal of K is used; outputs share weights, so the entries off it belong to e^T K e too.": (
            lambda k, e: torch.einsum("ni,nii->n", e**2, k).sqrt()
        ),
        "This is the length of K e; the gradient has the squared length e^T K e.": lambda k, e: torch.einsum(
            "nij,nj->ni", k, e
        ).norm(dim=1),
        "The signs of the error are lost: e has entries of both signs, and they matter off the diagonal.": lambda k, e: _squared(
            k, e.abs()
        ).sqrt(),
    },
)


@lru_cache(maxsize=64)  # a dozen rules look at the same test of the same runs
def _tested(a: tuple, b: tuple, equal_var: bool):
    with warnings.catch_warnings():  # of runs that are all alike
        warnings.simplefilter("ignore")
        return stats.ttest_ind(a, b, equal_var=equal_var)


@lru_cache(maxsize=64)
def _interval(a: tuple, b: tuple, equal_var: bool, inside: float):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _tested(a, b, equal_var).confidence_interval(inside)


def _verdict(a, b, margin: float, level: float = 0.05, inside: float = 0.9, equal_var: bool = False, ends: str = "both") -> str:
    runs = tuple(a), tuple(b)
    found, interval = _tested(*runs, equal_var), _interval(*runs, equal_var, inside)
    if found.pvalue < level:
        return "better" if found.statistic > 0 else "worse"
    low, high = -margin < interval.low or ends == "high", interval.high < margin or ends == "low"
    return "as good" if low and high else "undecided"


def _by_normal(a, b, margin: float) -> str:
    """Decide as with the normal distribution in the place of Student's."""
    se = math.sqrt(np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b))
    difference = float(np.mean(a) - np.mean(b))
    if abs(difference) > 1.96 * se:
        return "better" if difference > 0 else "worse"
    return "as good" if abs(difference) + 1.645 * se < margin else "undecided"


def _near(a, b, margin: float) -> str:
    """Call two methods as good where the means alone are near."""
    found = _verdict(a, b, margin)
    return found if found in ("better", "worse") else "as good" if abs(np.mean(a) - np.mean(b)) < margin else "undecided"


# What else one might do; a check has a case at which each of them fails.
_RIVALS = {
    "The variances differ: Welch's test, equal_var=False.": lambda a, b, margin: _verdict(a, b, margin, equal_var=True),
    "For the claim of equality the interval is the 90 % one: two one-sided tests at 0.05 each.": lambda a, b, margin: _verdict(
        a, b, margin, inside=0.95
    ),
    "Both ends of the interval have to lie inside the margin: this looks at the lower one.": lambda a, b, margin: _verdict(
        a, b, margin, ends="low"
    ),
    "Both ends of the interval have to lie inside the margin: this looks at the upper one.": lambda a, b, margin: _verdict(
        a, b, margin, ends="high"
    ),
    "The margin is an argument; this takes 0.1 for it.": lambda a, b, margin: _verdict(a, b, 0.1),
    "Few runs: Student's t, not the normal distribution's 1.96.": _by_normal,
    'Near means show nothing without their spread: "as good" takes the interval inside the margin.': _near,
}


def _runs(draw: Draw):
    same = [99.30, 99.28, 99.31, 99.29, 99.30]
    yield same, [99.29, 99.31, 99.30, 99.28, 99.30], 0.08
    yield [99.9, 99.8, 99.85, 99.95, 99.9], same, 0.2
    yield [98.0, 99.9, 99.0], [99.2, 98.7, 99.5], 0.1
    yield same, [99.9, 99.8, 99.85, 99.95, 99.9], 0.3
    yield [99.36, 99.37, 99.38, 99.36, 99.37], same, 0.1  # better, though by less than the margin
    rules = [_verdict, *_RIVALS.values(), *(lambda a, b, _, m=m: _verdict(a, b, m) for m in (0.05, 0.2, 0.3, 0.5, 1.0))]

    def make() -> tuple | None:
        n, m = draw.sizes(2, 3, 9)
        shift, spread, other = draw.uniform(-0.4, 0.4), draw.choice((0.03, 0.1, 0.4)), draw.choice((0.03, 0.1, 0.4))
        case = (
            (96 + shift + spread * draw.normal(n)).round(decimals=2).tolist(),
            (96 + other * draw.normal(m)).round(decimals=2).tolist(),
            draw.choice((0.05, 0.2, 0.3, 0.5)),
        )
        return case if _confident(case) else None

    yield from telling_apart(make, rules)


def _confident(case) -> bool:
    """Leave out cases where a p is so near 0.05 that rounding or another test decides."""
    a, b, margin = case
    found = _tested(tuple(a), tuple(b), False)
    difference, se = np.mean(a) - np.mean(b), abs(np.mean(a) - np.mean(b)) / max(abs(found.statistic), 1e-12)
    one_sided = max(stats.t.sf((margin - abs(difference)) / max(float(se), 1e-12), found.df), 0.0)
    return all(abs(p - 0.05) > 0.01 for p in (found.pvalue, one_sided))


what_the_runs_say = Check(
    number="8.5",
    wants='answer(a, b, margin) -> "better", "worse", "as good" or "undecided"',
    reference=_verdict,
    cases=lambda draw: filter(_confident, _runs(draw)),
    mistakes={
        'A large p alone shows nothing: without a test against the margin it is "undecided", not "as good".': lambda a, b, m: (
            "as good" if _verdict(a, b, m) == "undecided" else _verdict(a, b, m)
        ),
        "No interval, no test: the larger mean alone does not make a method better.": lambda a, b, m: (
            "better" if np.mean(a) > np.mean(b) else "worse"
        ),
        "Better and worse are exchanged: the question is about a, beside b.": lambda a, b, m: {
            "better": "worse",
            "worse": "better",
        }.get(_verdict(a, b, m), _verdict(a, b, m)),
        'The margin is for "as good". A difference can be smaller than the margin and still be there.': (
            lambda a, b, m: (
                _verdict(a, b, m) if abs(np.mean(a) - np.mean(b)) > m or _verdict(a, b, m) == "undecided" else "as good"
            )
        ),
        '"As good" is never said here: test whether the difference lies inside the margin.': (
            lambda a, b, m: "undecided" if _verdict(a, b, m) == "as good" else _verdict(a, b, m)
        ),
        **_RIVALS,
    },
)


_GROUPS = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 5])


def _copies(draw: Draw):
    directions = torch.linalg.qr(draw.normal(7, 7))[0]
    directions = 0.8 * directions[:6] + 0.6 * directions[6]  # unit vectors with cosine 0.36
    while True:  # in space, some of them opposite, none near another
        crowded = draw.normal(6, 3)
        crowded = crowded / crowded.norm(dim=1, keepdim=True)
        crowded[5] = -crowded[0]
        if float((crowded @ crowded.T).fill_diagonal_(0).max()) < 0.95:
            break
    # three copies of one direction, of different lengths, and one of another
    few = torch.tensor([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    yield few @ few.T, 2
    order = draw.order(len(_GROUPS))
    lengths = 0.5 + draw.normal(len(_GROUPS), 1).abs()
    phi = directions[_GROUPS]
    for features in (phi, phi * lengths, phi / lengths, crowded[_GROUPS] * lengths):
        for count in (3, 6, 8):
            mixed = features[order]
            yield mixed @ mixed.T, count


def _spread(got, wanted, gram: Tensor, count: int) -> bool | str:
    if not isinstance(got, Tensor) or got.shape != (len(gram),):
        return f"Wanted one truth value for each of the {len(gram)} samples, True where it is kept."
    keep = got != 0
    if int(keep.sum()) != count:
        return f"Your rule keeps {int(keep.sum())} samples; wanted {count}."
    length = gram.diagonal().sqrt()
    cosines = gram / length[:, None] / length[None, :]
    groups, left = [], list(range(len(gram)))
    while left:
        groups.append([i for i in left if cosines[left[0], i] > 0.99])
        left = [i for i in left if i not in groups[-1]]
    covered = sum(any(bool(keep[i]) for i in group) for group in groups)
    if covered == min(count, len(groups)):
        return True
    if float(length.max() / length.min()) > 1.001:
        hint = "Does your rule look at lengths? Compare cosines, kappa_ij / sqrt(kappa_ii kappa_jj)."
        return f"With vectors of different lengths, {_covered(keep, groups, covered)} {hint}"
    hint = "It keeps a copy while a direction is still without a sample."
    return f"With unit vectors, {_covered(keep, groups, covered)} {hint}"


def _covered(keep: Tensor, groups: list, covered: int) -> str:
    kept = keep.nonzero()[:, 0].tolist()
    return f"the kept samples {kept} cover {covered} of {len(groups)} directions; the samples of one direction are {groups}."


def _by_cosines(gram: Tensor, count: int) -> Tensor:
    length = gram.diagonal().sqrt()
    cosines = gram / length[:, None] / length[None, :]
    chosen = [0]
    while len(chosen) < count:
        closest = cosines[chosen].max(0).values
        closest[chosen] = math.inf
        chosen.append(int(closest.argmin()))
    keep = torch.zeros(len(gram), dtype=torch.bool)
    keep[chosen] = True
    return keep


better_rule = Check(
    number="8.6",
    wants="answer(gram, count) -> (N,) bool",
    reference=_by_cosines,
    cases=_copies,
    judge=_spread,
)
