"""Eq. (1): each factor against autograd, and the remainder's order."""

import numpy as np
import pytest
import torch
from conftest import relative

import ntk_course as ntk


@pytest.fixture
def setting():
    model = ntk.mlp((6, 9, 7, 4), "tanh").double()
    x = torch.randn(7, 6, dtype=torch.float64)
    return model, x[:4], x[4:], torch.tensor([0, 3, 1])


def test_softmax_jacobian_is_the_derivative():
    z = torch.randn(5, dtype=torch.float64)
    wanted = torch.autograd.functional.jacobian(lambda v: v.softmax(0), z)
    assert relative(ntk.analysis.softmax_jacobian(z.softmax(0)), wanted) < 1e-14


def test_prediction_error_is_minus_the_loss_gradient(setting):
    model, _, x, y = setting
    z = model(x).detach().requires_grad_()
    (g,) = torch.autograd.grad(torch.nn.functional.cross_entropy(z, y, reduction="sum"), z)
    assert relative(ntk.analysis.prediction_error(model, x, y), -g) < 1e-14


def test_predicted_change_is_the_derivative_in_the_learning_rate(setting):
    """Central differences in eta: an independent route to the first-order term."""
    model, x_o, x_u, y_u = setting
    h = 1e-4
    slope = (ntk.analysis.true_change(model, x_o, x_u, y_u, h) - ntk.analysis.true_change(model, x_o, x_u, y_u, -h)) / (2 * h)
    assert relative(ntk.analysis.predicted_change(model, x_o, x_u, y_u), slope) < 1e-6


def test_true_change_is_what_an_optimizer_does(setting):
    import copy

    model, x_o, x_u, y_u = setting
    got = ntk.analysis.true_change(model, x_o, x_u, y_u, 0.3)
    before = [p.clone() for p in model.parameters()]
    for m in range(3):
        stepped = copy.deepcopy(model)
        optimizer = torch.optim.SGD(stepped.parameters(), lr=0.3)
        torch.nn.functional.cross_entropy(stepped(x_u[m : m + 1]), y_u[m : m + 1]).backward()
        optimizer.step()
        assert relative(got[:, m], (stepped(x_o).softmax(1) - model(x_o).softmax(1)).detach()) < 1e-12
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_remainder_is_second_order(setting):
    model, x_o, x_u, y_u = setting
    etas = np.logspace(-4, -2, 5)
    first = ntk.analysis.predicted_change(model, x_o, x_u, y_u)
    rest = [float((ntk.analysis.true_change(model, x_o, x_u, y_u, eta) - eta * first).norm()) for eta in etas]
    assert abs(np.polyfit(np.log(etas), np.log(rest), 1)[0] - 2) < 0.02


def test_bad_labels_are_named(setting):
    model, x_o, x_u, _ = setting
    with pytest.raises(ValueError, match="y_u: got labels from 4 to 4; wanted 0 to 3"):
        ntk.analysis.true_change(model, x_o, x_u, torch.full((3,), 4), 0.1)
