"""Transport maps: their means against closed forms, the moves and errors of sampled networks against the rates."""

import math

import numpy as np
import pytest
import torch

from ntk_course.analysis.transport import gaussian_bump_transport, hidden_kernel, rkhs_transport, shallow


def points(n, d, seed=0):
    """Draw points of the unit ball."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True) * torch.rand(n, 1, generator=g, dtype=torch.float64)


def mean_and_error(transport, x, count=400_000, seed=0):
    """Average <T(w), x~> over weights with an active unit; an independent route to what a network's moves add up to."""
    w = torch.from_numpy(np.random.default_rng(seed).standard_normal((count, x.shape[1] + 1)))
    lifted = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    values = (w @ lifted.T >= 0) * (transport(w) @ lifted.T)
    return values.mean(0), values.std(0) / count**0.5


def test_hidden_kernel_is_the_mean_of_a_tangent_kernel():
    x, other = points(4, 3), points(5, 3, 1)
    net = shallow(200_000, 3)
    lifted, second = (torch.cat([p, torch.ones(len(p), 1).double()], dim=1) for p in (x, other))
    active = [(net.weights @ p.T > 0).double() for p in (lifted, second)]
    sampled = (active[0].T @ active[1]) / len(net.signs) * (lifted @ second.T)
    torch.testing.assert_close(sampled, hidden_kernel(x, other), rtol=0, atol=0.01)


def test_rkhs_map_has_the_mean_it_says():
    data, x = points(6, 2), points(10, 2, 1)
    alpha = torch.linspace(-2, 3, 6, dtype=torch.float64)
    mean, error = mean_and_error(rkhs_transport(data, alpha), x)
    wanted = hidden_kernel(x, data) @ alpha / 6
    assert ((mean - wanted).abs() < 5 * error).all()
    assert error.max() < 0.01 * wanted.abs().max()


@pytest.mark.parametrize(("dimension", "scale"), [(1, 1.5), (2, 1.2), (2, 2.0), (4, 1.5)])
def test_fourier_map_has_the_mean_it_says(dimension, scale):
    x = points(10, dimension)
    mean, error = mean_and_error(gaussian_bump_transport(scale, dimension), x)
    wanted = (-x.square().sum(1) / 2 / scale**2).exp()
    assert ((mean - wanted).abs() < 5 * error).all()
    assert error.max() < 0.02


def test_a_sampled_network_is_zero_and_its_moves_are_what_they_say():
    net, x = shallow(64, 2, epsilon=0.5), points(7, 2)
    torch.testing.assert_close(net(x), torch.zeros(7, dtype=torch.float64))
    transport = rkhs_transport(points(5, 2, 1), torch.ones(5, dtype=torch.float64))
    moves = net.moves(transport)
    torch.testing.assert_close(moves, net.signs[:, None] * transport(net.weights) / (0.5 * 8))
    # linearised: the derivative of the moved network along the moves
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    lifted = torch.cat([x, torch.ones(7, 1).double()], dim=1)
    outputs = 0.5 / 8 * (lifted @ (net.weights + t * moves).T).relu() @ net.signs
    slopes = torch.stack([torch.autograd.grad(o, t, retain_graph=True)[0] for o in outputs])
    torch.testing.assert_close(net.linearised(x, moves), slopes)
    torch.testing.assert_close(net.moved(moves)(x), 0.5 / 8 * (lifted @ (net.weights + moves).T).relu() @ net.signs)
    before, after = (lifted @ w.T > 0 for w in (net.weights, net.weights + moves))
    assert net.flips(x, moves) == pytest.approx((before ^ after).double().mean().item())


def test_errors_and_moves_shrink_with_the_root_of_the_width():
    data, x = points(6, 2), points(50, 2, 1)
    alpha = torch.linspace(-2, 3, 6, dtype=torch.float64)
    transport, wanted = rkhs_transport(data, alpha), hidden_kernel(x, data) @ alpha / 6
    widths, errors, largest = [2**k for k in range(6, 15, 2)], [], []
    for m in widths:
        some = [shallow(m, 2, seed=seed) for seed in range(10)]
        errors.append(np.mean([(net.moved(net.moves(transport))(x) - wanted).square().mean().sqrt().item() for net in some]))
        largest.append(np.mean([net.moves(transport).norm(dim=1).max().item() for net in some]))
    for values in (errors, largest):
        slope = np.polyfit(np.log(widths), np.log(values), 1)[0]
        assert -0.6 < slope < -0.4


def test_bad_input():
    with pytest.raises(ValueError, match="width: got 3; wanted an even number"):
        shallow(3, 2)
    with pytest.raises(ValueError, match="dimension: got 0"):
        shallow(4, 0)
    with pytest.raises(ValueError, match="alpha: got shape"):
        rkhs_transport(torch.zeros(3, 2), torch.zeros(4))
    with pytest.raises(ValueError, match="scale: got 1.0; wanted more than 1"):
        gaussian_bump_transport(1.0, 2)
    assert math.isfinite(gaussian_bump_transport(1.1, 9)(torch.zeros(1, 10, dtype=torch.float64)).sum().item())
