"""Random features of infinite tangent kernels: no bias where there can be none, and an error that falls with the root of their number."""

import math

import pytest
import torch
from conftest import relative

from ntk_course.kernels.infinite import mlp, random_features


@pytest.mark.parametrize("activation", ["relu", "erf", "gelu", "tanh"])
def test_of_one_layer_they_have_no_bias(activation):
    x = torch.randn(5, 8, dtype=torch.float64)
    how = {"depth": 1, "activation": activation, "w_std": 1.3, "b_std": 0.4}
    features = [random_features(x, count=256, seed=s, **how) for s in range(80)]
    draws = torch.stack([f @ f.T for f in features])
    error = draws.std(0) / len(draws) ** 0.5
    wanted = mlp(x, **how).ntk
    assert ((draws.mean(0) - wanted).abs() < 5 * error).all()
    assert error.norm() < 0.02 * wanted.norm()


@pytest.mark.parametrize("depth", [1, 3])
def test_error_falls_with_the_root_of_their_number(depth):
    x = torch.randn(20, 8, dtype=torch.float64)
    how = {"depth": depth, "w_std": 2**0.5, "b_std": 0.3}
    wanted, errors = mlp(x, **how).ntk, []
    for count in (64, 512, 4096):
        found = (random_features(x, count=count, seed=s, **how) for s in range(6))
        errors.append(math.sqrt(sum(relative(f @ f.T, wanted) ** 2 for f in found)))
    assert -0.62 < math.log(errors[2] / errors[0]) / math.log(4096 / 64) < -0.38
    assert errors[2] / 6**0.5 < 0.1


def test_form():
    x = torch.randn(6, 2, 3)
    assert random_features(x, depth=2, count=50).shape == (6, 100)
    assert random_features(x, depth=2, count=50, b_std=0.1).shape == (6, 101)
    assert random_features(x, depth=1, count=9).dtype == torch.float32
    torch.testing.assert_close(random_features(x, depth=2, count=50)[:3], random_features(x[:3], depth=2, count=50))
    for wrong, words in (
        ({"depth": 0}, "depth: got 0"),
        ({"count": 0}, "count: got 0"),
        ({"activation": "swish"}, "activation: got 'swish'"),
    ):
        with pytest.raises(ValueError, match=words):
            random_features(x, **{"depth": 1, "count": 9} | wrong)
