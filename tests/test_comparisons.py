"""Comparing groups of runs, against formulas written out and against simulation."""

import math

import numpy as np
import pytest
from scipy import stats

import ntk_course as ntk

A, B = [99.31, 99.29, 99.33, 99.36], [99.30, 99.25, 99.31, 99.22, 99.29]


def test_welch_by_hand():
    na, nb = len(A), len(B)
    va, vb = np.var(A, ddof=1) / na, np.var(B, ddof=1) / nb
    error, difference = math.sqrt(va + vb), np.mean(A) - np.mean(B)
    free = (va + vb) ** 2 / (va**2 / (na - 1) + vb**2 / (nb - 1))
    found = ntk.analysis.compare_means(A, B)
    assert found.difference == pytest.approx(difference, rel=1e-12)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(difference / error), free), rel=1e-9)
    assert (found.high - found.low) / 2 == pytest.approx(stats.t.ppf(0.975, free) * error, rel=1e-9)
    assert math.isnan(found.p_equivalent)
    assert "TOST" not in str(found)


def test_equivalence_is_the_90_percent_interval_inside_the_margin():
    """Two one-sided tests at 5 % reject just when the 90 % interval lies within the margin."""
    low, high = stats.ttest_ind(A, B, equal_var=False).confidence_interval(0.90)
    edge = max(-low, high)
    assert ntk.analysis.compare_means(A, B, margin=edge).p_equivalent == pytest.approx(0.05, rel=1e-6)
    assert (
        ntk.analysis.compare_means(A, B, margin=1.01 * edge).p_equivalent
        < 0.05
        < ntk.analysis.compare_means(A, B, 0.99 * edge).p_equivalent
    )
    assert ntk.analysis.compare_means(B, A, margin=edge).p_equivalent == pytest.approx(0.05, rel=1e-6)
    assert "p of TOST 0.050" in str(ntk.analysis.compare_means(A, B, margin=edge))


def test_hedges_g_is_unbiased():
    """Its mean over many small samples is the true difference in units of the true spread; Cohen's d is 9 % too large here."""
    rng = np.random.default_rng(0)
    found = [ntk.analysis.compare_means(rng.normal(1.5, 2.0, 6), rng.normal(0.0, 2.0, 5)).g for _ in range(4000)]
    assert np.mean(found) == pytest.approx(0.75, abs=4 * np.std(found) / 4000**0.5)
    assert 4 * np.std(found) / 4000**0.5 < 0.75 * 1.09 - 0.75  # so the factor would be missed


def test_sign_and_mistakes():
    one, other = ntk.analysis.compare_means(A, B), ntk.analysis.compare_means(B, A)
    assert (one.difference, one.g, one.low) == pytest.approx((-other.difference, -other.g, -other.high))
    for arguments, said in (
        (([1.0], B), r"a: got \[1.0\]; wanted at least two"),
        ((A, [1.0, math.nan]), "b: got"),
        ((A, B, 0.0), "margin: got 0.0"),
    ):
        with pytest.raises(ValueError, match=said):
            ntk.analysis.compare_means(*arguments)
