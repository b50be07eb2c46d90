"""Comparing two groups of runs: a test, an interval, an effect size, and a test that they are as good as equal."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Comparison(NamedTuple):
    """How the mean of group a differs from that of group b, in the units of the values.

    Attributes:
        difference: mean of a minus mean of b.
        low: lower end of the confidence interval of the difference.
        high: its upper end.
        p: of Welch's t-test that the means are equal.
        g: Hedges' g, the difference over the pooled standard deviation, without its bias in small samples.
        p_equivalent: of two one-sided tests (TOST) that the means differ by ``margin`` or more; NaN without a margin.
    """

    difference: float
    low: float
    high: float
    p: float
    g: float
    p_equivalent: float

    def __str__(self) -> str:
        text = f"{self.difference:+.4f}, 95 % interval [{self.low:+.4f}, {self.high:+.4f}], p = {self.p:.3f}, g = {self.g:+.2f}"
        return text if math.isnan(self.p_equivalent) else f"{text}, p of TOST {self.p_equivalent:.3f}"


def compare_means(a: Sequence[float], b: Sequence[float], margin: float | None = None) -> Comparison:
    r"""Compare the means of two independent groups of runs without assuming equal spreads.

    Welch's test and its 95 % interval; :math:`g = \frac{\bar a - \bar b}{s}\, \frac{\Gamma(\nu/2)}{\sqrt{\nu/2}\,
    \Gamma((\nu-1)/2)}` with the pooled :math:`s` and :math:`\nu = n_a + n_b - 2` (Hedges, 1981). A large p does not say
    that means are equal; the equivalence test does, where its p is small: two one-sided Welch tests against
    :math:`\pm` margin, the larger p of the two (Schuirmann, 1987).

    Args:
        a: one value a run, at least two.
        b: the same for the other group.
        margin: a difference that would not matter, above 0, in the units of the values.

    Returns:
        A :class:`Comparison`, plain floats.

    Raises:
        ValueError: fewer than two values in a group, a value that is not finite, or a margin that is not above 0.

    Example:
        >>> print(compare_means([99.31, 99.29, 99.33], [99.30, 99.25, 99.31], margin=0.1))
        +0.0233, 95 % interval [-0.0423, +0.0890], p = 0.357, g = +0.70, p of TOST 0.017
    """
    groups = [np.asarray(values, dtype=np.float64) for values in (a, b)]
    for name, values in zip("ab", groups, strict=True):
        if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
            raise ValueError(f"{name}: got {values.tolist()}; wanted at least two finite values, one a run")
    if margin is not None and not 0 < margin < math.inf:
        raise ValueError(f"margin: got {margin}; wanted a difference above 0")
    a, b = groups
    test = stats.ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(0.95)
    difference, free = float(a.mean() - b.mean()), len(a) + len(b) - 2
    pooled = math.sqrt((a.var(ddof=1) * (len(a) - 1) + b.var(ddof=1) * (len(b) - 1)) / free)
    unbiased = math.exp(math.lgamma(free / 2) - math.lgamma((free - 1) / 2)) / math.sqrt(free / 2)
    g = difference / pooled * unbiased if pooled else math.nan
    equivalent = math.nan
    if margin is not None:
        above = stats.ttest_ind(a, b - margin, equal_var=False, alternative="greater").pvalue
        below = stats.ttest_ind(a, b + margin, equal_var=False, alternative="less").pvalue
        equivalent = float(max(above, below))
    return Comparison(difference, float(low), float(high), float(test.pvalue), g, equivalent)
