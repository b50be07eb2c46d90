"""Label-aware kernels: sums over pairs by loops, the hierarchy by finite differences, its integral by an ODE solver."""

import pytest
import torch
from scipy.integrate import solve_ivp

import ntk_course as ntk
from ntk_course.kernels.infinite.dense import network
from ntk_course.kernels.label_aware import agreement, label_products, lantk_hr, regressed_products, with_label_part
from ntk_course.kernels.tangent_hierarchy import hierarchy, lantk_nth, two_layer_hierarchy


def problem(n=9, m=4):
    g = torch.Generator().manual_seed(0)
    phi = torch.randn(n + m, 15, generator=g, dtype=torch.float64)
    y = torch.tensor([1, -1] * n)[:n]
    return phi[:n] @ phi[:n].T, y, phi[n:] @ phi[:n].T


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("own", [False, True])
def test_label_products_by_loops(version, own):
    gram, y, cross = problem()
    values = gram if own else cross
    sigma, w = gram.max() - gram.min(), torch.ones_like(gram)
    if version == 2:
        w = torch.linalg.matrix_power(torch.linalg.inv(gram), 2)
        w = (w - w.min()) / (w.max() - w.min())
    wanted = torch.zeros_like(values)
    for a in range(values.shape[0]):
        for b in range(values.shape[1]):
            above = below = 0.0
            for i in range(9):
                for j in range(9):
                    if own and {i, j} == {a, b}:
                        continue
                    share = w[i, j] * (sigma**2 - (values[a, b] - gram[i, j]) ** 2)
                    above, below = above + share * y[i] * y[j], below + share
            wanted[a, b] = above / below
    torch.testing.assert_close(label_products(gram, y, values, version=version, own=own), wanted)


def test_products_of_several_classes_by_a_simplex():
    """Labels as corners of a regular simplex: of norm 1, all apart alike; classes 0 and 1 are the signs."""
    gram, y, cross = problem()
    classes = torch.tensor([0, 1, 2, 3, 2, 1, 0, 3, 0])
    corners = torch.linalg.svd(torch.eye(4, dtype=torch.float64) - 0.25).U[:, :3] * (4 / 3) ** 0.5
    torch.testing.assert_close(agreement(classes, gram), (corners @ corners.T)[classes][:, classes])
    torch.testing.assert_close(agreement((y + 1) // 2, gram), (y[:, None] * y).double())
    torch.testing.assert_close(lantk_hr(gram, (y + 1) // 2, cross).cross, lantk_hr(gram, y, cross).cross)
    # Z is linear in the products: as many estimates of one coordinate each, added up
    sigma, parts = gram.max() - gram.min(), torch.zeros_like(cross)
    for column in corners[classes].T:
        share = sigma**2 - (cross[..., None, None] - gram) ** 2
        parts += (share * column[:, None] * column).sum((2, 3)) / share.sum((2, 3))
    torch.testing.assert_close(label_products(gram, classes, cross), parts)


def test_hr_is_the_sum_it_says():
    gram, y, cross = problem()
    kernel = lantk_hr(gram, y, cross)
    z = label_products(gram, y, gram, own=True)
    assert kernel.weight == pytest.approx(float(0.1 * gram.abs().mean() / z.abs().mean()))
    torch.testing.assert_close(kernel.train, gram + kernel.weight * z)
    torch.testing.assert_close(kernel.cross, cross + kernel.weight * label_products(gram, y, cross))
    torch.testing.assert_close(kernel.train, kernel.train.T)
    assert lantk_hr(gram, y, weight=2.0).cross is None
    told = lantk_hr(gram, y, leave_out=False)
    same = (y[:, None] == y) & ~torch.eye(9, dtype=torch.bool)
    gap = lambda k: k.added_train[same].mean() - k.added_train[y[:, None] != y].mean()  # noqa: E731
    assert gap(told) / told.weight > gap(kernel) / kernel.weight  # seeing its own label helps a training pair, and nobody else


def test_labels_that_follow_the_kernel_are_found():
    """Where one class has large kernel values among its own, Z is larger within a class than between two."""
    g = torch.Generator().manual_seed(1)
    y = torch.tensor([1, -1] * 40)
    phi = y[:, None] * torch.ones(80, 5).double() + torch.randn(80, 5, generator=g, dtype=torch.float64)
    z = label_products(phi @ phi.T, y, phi @ phi.T, own=True)
    same = (y[:, None] == y) & ~torch.eye(80, dtype=torch.bool)
    assert z[same].mean() > 0.005
    assert z[y[:, None] != y].mean() < -0.005


def several(n=9, m=4, count=3):
    phi = torch.randn(count, n + m, 15, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    kernels = phi @ phi.mT
    return kernels[:, :n, :n], torch.tensor([1, -1] * n)[:n], kernels[:, n:, :n]


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("ridge", [1e-6, 0.1])
def test_regressed_products_by_scikit_learn(degree, ridge, monkeypatch):
    """Ridge on standardised monomials of all pairs; a training pair by a regression that lacks it."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import PolynomialFeatures

    monkeypatch.setattr("ntk_course.kernels.label_aware._TOGETHER", 20)  # several stripes
    kernels, y, cross = several()
    i, j = torch.triu_indices(9, 9, 1)
    mean, deviation = (getattr(torch.stack([torch.cat([k[i, j], k[j, i]]) for k in kernels]), how)(1) for how in ("mean", "std"))
    lift = PolynomialFeatures(degree, include_bias=False).fit_transform
    features = lambda pairs: lift(((pairs - mean[:, None]) / deviation[:, None]).T.numpy())  # noqa: E731
    train, target = features(kernels[:, i, j]), (y[i] * y[j]).double().numpy()
    fit = lambda keep: Ridge(ridge * 36).fit(train[keep], target[keep])  # noqa: E731
    z, z_cross = regressed_products(kernels, y, cross, degree=degree, ridge=ridge)
    everything = fit(slice(None))
    wanted = everything.predict(features(cross.flatten(1))).reshape(4, 9)
    torch.testing.assert_close(z_cross, torch.from_numpy(wanted))
    told, _ = regressed_products(kernels, y, degree=degree, ridge=ridge, leave_out=False)
    torch.testing.assert_close(told[i, j], torch.from_numpy(everything.predict(train)))
    for p in range(36):
        kept = Ridge(ridge * 36).fit(train[[q for q in range(36) if q != p]], target[[q for q in range(36) if q != p]])
        assert float(z[i[p], j[p]]) == pytest.approx(kept.predict(train[[p]])[0], rel=1e-6, abs=1e-8)
    torch.testing.assert_close(z, z.T)
    assert (z.diagonal() == 1).all()
    assert (told.diagonal() == 1).all()


def test_a_label_part_is_added_as_given():
    gram, y, cross = problem()
    z, z_cross = (y[:, None] * y).double(), torch.ones_like(cross)
    kernel = with_label_part(gram, z, cross, z_cross, 0.5)
    torch.testing.assert_close(kernel.train, gram + z / 2)
    torch.testing.assert_close(kernel.cross, cross + 0.5)
    assert with_label_part(gram, z).weight == pytest.approx(0.1 * float(gram.abs().mean()))


def net(activation="tanh", sizes=(3, 5, 1)):
    torch.manual_seed(0)
    return network(sizes, activation, 1.3).double()


def test_hierarchy_by_finite_differences():
    """K3 and K4 as changes of K2 and K3 along a gradient."""
    model, x = net(), torch.randn(4, 3, dtype=torch.float64)
    k2, k3, k4 = hierarchy(model, x, 2)
    torch.testing.assert_close(k2, ntk.entk(model, x)[..., 0, 0])
    params = list(model.parameters())
    for a in range(2):
        direction = torch.autograd.grad(model(x[a : a + 1])[0, 0], params)
        for which, order, wanted in ((0, 2, k3[..., a]), (1, 3, k4[..., a])):
            ends = []
            for step in (-1e-5, 1e-5):
                with torch.no_grad():
                    for p, v in zip(params, direction, strict=True):
                        p += step * v
                ends.append(hierarchy(model, x, 2)[which])
                with torch.no_grad():
                    for p, v in zip(params, direction, strict=True):
                        p -= step * v
            found = (ends[1] - ends[0]) / 2e-5
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6, msg=f"order {order + 1}")


def test_nth_by_integration_of_its_equations():
    g = torch.Generator().manual_seed(0)
    n, m = 3, 4
    phi = torch.randn(m, 6, generator=g, dtype=torch.float64)
    k2, y = phi @ phi.T, torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    k4 = torch.randn(m, m, n, n, generator=g, dtype=torch.float64)
    h = k2[:n, :n]

    def speed(_, state):
        state = torch.from_numpy(state)
        f, k3 = state[:n], state[n : n + m * m * n].view(m, m, n)
        return torch.cat([h @ (y - f), (k4 @ (y - f)).flatten(), (k3 @ (y - f)).flatten()]).numpy()

    start = torch.cat([torch.zeros(n + m * m * n, dtype=torch.float64), k2.flatten()])
    late = 60 / torch.linalg.eigvalsh(h)[0].item()
    wanted = torch.from_numpy(solve_ivp(speed, (0, late), start.numpy(), rtol=1e-9, atol=1e-10).y[-m * m :, -1]).view(m, m)
    torch.testing.assert_close(lantk_nth(k2, k4, y), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("b_std", [0.0, 0.3])
def test_two_layer_closed_form_is_the_mean_of_the_hierarchy(b_std):
    """Units do not mix in K4: one wide network holds many draws; its error is that of a mean over its units."""
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    k2, k4 = two_layer_hierarchy(x, 2, 50, w_std=1.3, b_std=b_std)
    draws = []
    for seed in range(300):
        torch.manual_seed(seed)
        found2, _, found4 = hierarchy(network((3, 50, 1), "relu", 1.3, b_std).double(), x, 2)
        draws.append(torch.cat([found2.flatten(), found4.flatten()]))
    draws, wanted = torch.stack(draws), torch.cat([k2.flatten(), k4.flatten()])
    z = (draws.mean(0) - wanted) / (draws.std(0) / len(draws) ** 0.5)
    assert z.abs().max() < 5
    assert (draws.mean(0) - wanted).abs().max() < 0.05 * wanted.abs().max()  # the error bars are narrow enough to tell


def test_two_layer_closed_form_scales_and_treats_points_by_their_value():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x[3], x[4] = x[0], 0.0
    k2, k4 = two_layer_hierarchy(x, 2, 100)
    assert torch.isfinite(k4).all()
    torch.testing.assert_close(two_layer_hierarchy(x, 2, 400)[1], k4 / 4)
    torch.testing.assert_close(k4[3], k4[0])
    torch.testing.assert_close(k4, k4.transpose(0, 1))
    torch.testing.assert_close(k2, ntk.infinite.mlp(x, depth=1).ntk)
    torch.testing.assert_close(
        two_layer_hierarchy(x[[2, 0, 1]], 1, 100)[1][1, 2, 0, 0], two_layer_hierarchy(x[[2, 1, 0]], 1, 100)[1][2, 1, 0, 0]
    )


def test_bad_input():
    gram, y, cross = problem()
    for call, words in (
        (lambda: lantk_hr(gram, torch.arange(1, 10)), "y: got .* wanted -1 and 1, or all of 0 to K - 1"),
        (lambda: lantk_hr(gram, torch.tensor([-1, 0, 1] * 3)), "y: got .* wanted -1 and 1"),
        (lambda: lantk_hr(gram, torch.ones(9)), "y: got .1.0. of shape"),
        (lambda: lantk_hr(gram, y[:5]), "with K > 1, .9,"),
        (lambda: lantk_hr(gram, y, cross.T), "cross: got shape"),
        (lambda: lantk_hr(gram, y, version=3), "version: got 3"),
        (lambda: lantk_hr(gram[:, :5], y), "gram: got"),
        (lambda: with_label_part(gram, gram[:5, :5]), "z: got shape .5, 5.; wanted .9, 9."),
        (lambda: with_label_part(gram, gram, cross), "z_cross: got one of cross and z_cross"),
        (lambda: with_label_part(gram, gram, cross, cross[:2]), "z_cross: got shape .2, 9.; wanted .4, 9."),
        (lambda: with_label_part(gram, gram, cross.T, cross.T), "cross: got shape .9, 4.; wanted .9, 9."),
        (lambda: regressed_products(gram, y), "kernels: got .* wanted .L, N, N."),
        (lambda: regressed_products(gram[None], y, cross), "values: got shape .4, 9.; wanted .1, M, 9."),
        (lambda: regressed_products(gram[None], y, degree=3), "degree: got 3"),
        (lambda: hierarchy(net(), torch.randn(60, 3), 60), "3,600 derivatives of a Gram matrix of 60 points"),
        (lambda: hierarchy(net(), torch.randn(3, 3), 4), "num_training: got 4; wanted 1 to 3"),
        (lambda: hierarchy(net(sizes=(3, 5, 2)), torch.randn(3, 3), 2), "several outputs"),
        (lambda: two_layer_hierarchy(torch.randn(3, 3), 4, 10), "num_training: got 4; wanted 1 to 3"),
        (lambda: two_layer_hierarchy(torch.randn(200, 3), 100, 10), "has 400,000,000 numbers, 3.0 GiB; wanted at most"),
        (lambda: two_layer_hierarchy(torch.randn(3, 3), 2, 0), "width: got 0"),
        (lambda: lantk_nth(gram, torch.zeros(9, 9, 2, 2), y), "k4: got shape"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(torch.linalg.LinAlgError):
        lantk_hr(torch.ones(2, 2), torch.tensor([1, -1]), version=2)
    with pytest.raises(torch.linalg.LinAlgError, match="wanted positive definite"):
        lantk_nth(torch.ones(2, 2), torch.zeros(2, 2, 2, 2), torch.tensor([1.0, -1.0]))
