"""Moments of the positive orthant: known values, scipy's multivariate normal, Monte Carlo, and singular covariances."""

import math

import pytest
import torch
from scipy.stats import multivariate_normal

from ntk_course.kernels.infinite.orthants import positive_moments


def covariance(rows, columns, seed=0):
    a = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.T


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_equal_correlations_of_a_half(k):
    """All of k numbers with correlation 1/2 are positive when a common k + 1st is the least: probability 1/(k + 1)."""
    probability = positive_moments(torch.eye(k, dtype=torch.float64) / 2 + 0.5)[0]
    assert float(probability) == pytest.approx(1 / (k + 1), abs=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_probability_by_scipy(seed):
    cov = covariance(4, 5, seed)
    wanted = multivariate_normal.cdf([0] * 4, cov=cov.numpy(), abseps=1e-8, releps=1e-8, maxpts=10**6)
    assert float(positive_moments(cov)[0]) == pytest.approx(wanted, abs=1e-6)


SINGULAR = {
    "regular": [0, 1, 2, 3],
    "one twice": [0, 0, 1, 2],
    "two twice": [0, 0, 1, 1],
    "thrice": [0, 0, 0, 1],
    "four times": [0, 0, 0, 0],
}


@pytest.mark.parametrize("columns", [4, 3, 2, 1])
@pytest.mark.parametrize("which", SINGULAR)
def test_moments_by_monte_carlo(which, columns):
    a = torch.randn(4, columns, generator=torch.Generator().manual_seed(5), dtype=torch.float64)[SINGULAR[which]]
    a[1] *= 2  # on the same ray, not the same point
    probability, first, second = positive_moments(a @ a.T)
    draws = 400_000
    u = torch.randn(draws, columns, generator=torch.Generator().manual_seed(6), dtype=torch.float64) @ a.T
    on = (u > 0).all(1).double()
    for found, sample in (
        (probability, on),
        (first, u * on[:, None]),
        (second, u[:, :, None] * u[:, None] * on[:, None, None]),
    ):
        allowed = 5 * sample.std(0) / draws**0.5 + 1e-6
        assert ((found - sample.mean(0)).abs() <= allowed).all()


def test_closed_forms_where_points_coincide():
    """One number twice leaves three, whose probability is elementary; the same ray backwards leaves none."""
    three = covariance(3, 3)
    twice = three[[0, 0, 1, 2]][:, [0, 0, 1, 2]]
    assert float(positive_moments(twice)[0]) == pytest.approx(float(positive_moments(three)[0]), abs=1e-13)
    torch.testing.assert_close(positive_moments(twice)[2][1:, 1:], positive_moments(three)[2], rtol=1e-12, atol=1e-12)
    sign = torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64)
    for moment in positive_moments(twice * sign * sign[:, None]):
        assert moment.abs().max() < 1e-8
    one = torch.tensor([[4.0]], dtype=torch.float64)
    found = [float(m) for m in positive_moments(one)]
    assert found == pytest.approx([0.5, 2 / math.sqrt(2 * math.pi), 2.0])
    wide = covariance(2, 2)
    r = float(wide[0, 1] / (wide[0, 0] * wide[1, 1]).sqrt())
    arc = math.sqrt(1 - r * r) + r * (math.pi - math.acos(r))  # Cho and Saul, 2009
    scale = float((wide[0, 0] * wide[1, 1]).sqrt())
    assert float(positive_moments(wide)[2][0, 1]) == pytest.approx(scale * arc / (2 * math.pi), rel=1e-12)


def test_the_scale_of_an_entry_scales_its_moments_and_zero_counts_as_half():
    cov = covariance(4, 6)
    scale = torch.tensor([1.0, 100.0, 0.01, 1.0], dtype=torch.float64)
    found, scaled = positive_moments(cov), positive_moments(cov * scale * scale[:, None])
    torch.testing.assert_close(scaled[0], found[0])
    torch.testing.assert_close(scaled[1], found[1] * scale)
    torch.testing.assert_close(scaled[2], found[2] * scale * scale[:, None])
    cov[0], cov[:, 0] = 0, 0
    zero, rest = positive_moments(cov), positive_moments(cov[1:, 1:])
    torch.testing.assert_close(zero[0], rest[0] / 2)
    torch.testing.assert_close(zero[2][1:, 1:], rest[2] / 2)
    batch = torch.stack([cov, covariance(4, 6)])
    torch.testing.assert_close(positive_moments(batch)[2][1], found[2])


@pytest.mark.parametrize("shape", [(5, 5), (2, 3), (3,), (0, 0)])
def test_bad_input(shape):
    with pytest.raises(ValueError, match="cov: got shape"):
        positive_moments(torch.ones(shape))
