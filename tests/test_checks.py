"""Every solution passes its check, every stub is unanswered, and typical wrong answers get the hint that names them."""

import copy
import re
import sys
from pathlib import Path

import jupytext
import numpy as np
import pytest
import torch
from scipy import stats

import ntk_course as ntk
from ntk_course.course import checks

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import notebooks  # noqa: E402

CALL = re.compile(r"^ntk\.checks\.(\w+)\((\w+)\)$", re.MULTILINE)


def exercises():
    """Yield (check name, answer name, set-up code, solved cell, cleared cell) for each exercise of solutions/."""
    for source in sorted((ROOT / "solutions").glob("*.md")):
        cells = [c for c in jupytext.reads(source.read_text(), fmt="md:myst").cells if c.cell_type == "code"]
        for cell in cells:
            if call := CALL.search(cell.source):
                yield pytest.param(*call.groups(), cells[0].source, cell.source, id=f"{source.stem[:2]} {call[1]}")


EXERCISES = list(exercises())


def outcome(check, answer, set_up, code):
    space = {}
    exec(set_up, space)
    exec(code, space)
    return getattr(checks, check)(space[answer])


def test_every_check_has_an_exercise_and_the_other_way_round():
    assert {p.values[0] for p in EXERCISES} == set(checks.__all__)
    # nothing else is offered: what a check is made of stays in its module
    modules = {name for name, thing in vars(checks).items() if isinstance(thing, type(checks))}
    assert {name for name in vars(checks) if not name.startswith("_")} == set(checks.__all__) | modules
    for stem in {p.id[:2] for p in EXERCISES}:
        count = sum(p.id.startswith(stem) for p in EXERCISES)
        assert count >= 4, f"solutions/{stem}_*.md: {count} exercises; wanted at least 4"


@pytest.mark.parametrize(("check", "answer", "set_up", "code"), EXERCISES)
def test_solution_is_right_and_stub_is_unanswered(check, answer, set_up, code, capsys):
    assert outcome(check, answer, set_up, code).status == "right"
    stub = notebooks.clear(code)
    assert "your code here" in stub
    assert "### BEGIN SOLUTION" in stub
    result = outcome(check, answer, set_up, stub)
    assert result.status == "unanswered"
    assert "Not answered yet" in repr(result)


def jac(q):
    return torch.diag(q) - torch.outer(q, q)


def lpntk_by_loop(kernel, y1, y2):
    k = kernel.shape[-1]
    sign = lambda y: [1.0 if c == y else -1.0 for c in range(k)]  # noqa: E731
    rows = [
        [sum(sign(a)[i] * b[i][j] * sign(c)[j] for i in range(k) for j in range(k)) / k for b, c in pairs]
        for a, pairs in ((a, zip(r, y2.tolist(), strict=True)) for a, r in zip(y1.tolist(), kernel.tolist(), strict=True))
    ]
    return torch.tensor(rows)


def fpc_from_zero(gram, m):
    centroids, cluster = [0], [0] * len(gram)
    while len(centroids) < m:
        new = min(set(range(len(gram))) - set(centroids), key=lambda i: float(gram[centroids[cluster[i]], i]))
        for i in set(range(len(gram))) - set(centroids):
            if i == new or gram[new, i] > gram[centroids[cluster[i]], i]:
                cluster[i] = len(centroids)
        centroids.append(new)
    return cluster


def by_inner_products(gram, count):
    """Cover greedily, by kernel values instead of cosines: right for unit vectors, misled by short ones."""
    chosen = [0]
    while len(chosen) < count:
        closest = gram[chosen].max(0).values
        closest[chosen] = torch.inf
        chosen.append(int(closest.argmin()))
    keep = torch.zeros(len(gram), dtype=torch.bool)
    keep[chosen] = True
    return keep


def path_gram(test, training):
    return sum(torch.tensordot(a, b, ([2], [2])).transpose(1, 2) for a, b in zip(test, training, strict=True))


def minus_gradient(f, y, loss):
    hot = torch.eye(f.shape[1], dtype=f.dtype)[y]
    return -hot if loss == "log_softmax" else ((-f).softmax(1) if loss == "cross_entropy" else -f) - hot


def line_roots(x, w0, b0, w1, b1):
    return [float((w @ x + b) / ((w - v) @ x + b - c)) for w, b, v, c in zip(w0, b0, w1, b1, strict=True)]


def by_gauss(f, a, b, n):
    t, w = np.polynomial.legendre.leggauss(n)
    return float((b - a) / 2 * (w * f(a + (b - a) * (t + 1) / 2)).sum())


def angle_with_bias(a, b):
    return np.arccos(float((a @ b + 1) / (a @ a + 1) ** 0.5 / (b @ b + 1) ** 0.5))


def arc(k, a, b):
    turn = np.arccos(k / (a * b) ** 0.5)
    return (a * b) ** 0.5 * (np.sin(turn) + (np.pi - turn) * np.cos(turn)) / 2 / np.pi, 0.5 - turn / 2 / np.pi


def z_of(g, y, h, weight, but=None):
    w = weight(g.max() - g.min(), h - g)
    if but:
        w[but] = 0
    return float(torch.einsum("ij,i,j->", w, y, y) / w.sum())


def cos_of(g):
    return torch.nn.functional.normalize(torch.linalg.cholesky(g)) @ torch.nn.functional.normalize(torch.linalg.cholesky(g)).T


def share_within(g, y, own=False):
    within = [float(g[i, j]) for i in range(len(y)) for j in range(len(y)) if y[i] == y[j] and (own or i != j)]
    between = [float(g[i, j]) for i in range(len(y)) for j in range(len(y)) if y[i] != y[j]]
    return np.mean(within) / (np.mean(within) + np.mean(between))


def aligned_of(g, y, power=1):
    h = torch.eye(len(y), dtype=g.dtype) - 1 / len(y)
    a, b = h @ g @ h, h @ torch.outer(y, y) @ h
    return float((a * b).sum() / (a.norm() * b.norm()) ** power)


# written as a student would write them, not taken from checks.py
def right_share(predicted, y):
    return (predicted == y).double().mean()


WRONG = [
    ("jacobian_of_softmax", lambda q: torch.outer(q, q) - torch.diag(q), "sign is turned"),
    ("jacobian_of_softmax", lambda q: torch.diag(q - q**2), "Only the diagonal"),
    ("jacobian_of_softmax", lambda q: torch.where(torch.eye(len(q)).bool(), q[:, None], -q[:, None] * q), "lacks its -q_i"),
    ("change_of_prediction", lambda eta, q, k, e: eta * jac(q) @ (k @ -e), "sign of the error"),
    ("change_of_prediction", lambda eta, q, k, e: eta * torch.mv(k, e), "softmax is not differentiated"),
    ("change_of_prediction", lambda eta, q, k, e: eta * jac(q) @ (e @ k), "transposed"),
    ("change_of_prediction", lambda eta, q, k, e: eta**2 * jac(q) @ k @ e, "twice"),
    ("change_of_prediction", lambda eta, q, k, e: jac(q) @ k @ e, "learning rate is missing"),
    ("slope_on_log_axes", lambda x, y: np.polyfit(x, y, 1)[0], "linear axes"),
    ("slope_on_log_axes", lambda x, y: np.polyfit(np.log10(y), np.log10(x), 1)[0], "swapped"),
    ("slope_on_log_axes", lambda x, y: np.polyfit(np.log(x), np.log(y), 1)[1], "intercept"),
    ("change_from_a_batch", lambda eta, q, k, e: eta * jac(q) @ sum(a @ b for a, b in zip(k, e, strict=True)), "divide by B"),
    ("change_from_a_batch", lambda eta, q, k, e: eta * jac(q) @ k.mean(0) @ e.mean(0), "mean of a product"),
    ("change_from_a_batch", lambda eta, q, k, e: eta * jac(q) @ k[0] @ e[0], "first sample"),
    ("jacobian_memory", lambda n, k, d, b: n * d * b / 1024**3, "each of the K outputs"),
    ("jacobian_memory", lambda n, k, d, b: n * k * d * b * 1e-9, "10\\^9"),
    ("entk_from_jacobians", lambda m, a, b: ntk.entk(m, b, a).permute(1, 0, 2, 3), "transposed"),
    ("entk_from_jacobians", lambda m, a, b: ntk.pntk(m, a, b) * 3, "single number"),
    ("entk_from_jacobians", lambda m, a, b: ntk.entk(m, a, b) / 3, "1/K too many"),
    ("pseudo_ntk", lambda k: k.flatten(2).sum(-1), "1/K is missing"),
    ("pseudo_ntk", lambda k: torch.einsum("nmii->nm", k) / k.shape[-1], "trace"),
    ("pseudo_ntk", lambda k: k.mean((2, 3)), "1/K\\^2"),
    ("linear_layer_share", lambda a, b, c, d: (a @ c.T) * (b @ d.T), "bias is missing"),
    ("linear_layer_share", lambda a, b, c, d: a @ c.T + b @ d.T, "added"),
    ("form_the_gradient", lambda t, p, q: p * q <= t * (p + q + 1), "T\\^2 of them"),
    ("form_the_gradient", lambda t, p, q: not p * q <= t**2 * (p + q + 1), "turned round"),
    ("signs_of_the_error", lambda q, y: torch.eye(len(q))[y], "one-hot target"),
    ("signs_of_the_error", lambda q, y: torch.sign(q - torch.eye(len(q))[y]), "turned round"),
    ("labelled_pseudo_ntk", lambda k, a, b: torch.einsum("nmij,ni->nm", k, ntk.signs(a, 3).double()) / 3, "Only one side"),
    ("labelled_pseudo_ntk", lambda k, a, b: lpntk_by_loop(k, a, b) * 3, "1/K is missing"),
    ("labelled_pseudo_ntk", lambda k, a, b: lpntk_by_loop(k.transpose(2, 3), a, b), "wrong sides"),
    ("labelled_features", lambda j, y: torch.stack([j[n, c] for n, c in enumerate(y)]), "App. C"),
    ("labelled_features", lambda j, y: (ntk.signs(y, 3).double()[:, :, None] * j).mean(1), "each of its two sides"),
    ("contradictory_label", lambda b, y: int((ntk.signs(torch.tensor([y]), 5)[0].double() @ b).argmax()), "most interchangeable"),
    ("contradictory_label", lambda b, y: int(b[y].argmin()), "row y"),
    ("relation_of_a_pair", lambda uo, uu, oo, t: int(uo / uu >= t) - int(uo / uu <= -t), "projection on u only"),
    ("relation_of_a_pair", lambda uo, uu, oo, t: int(uo >= t * (uu * oo) ** 0.5) - int(-uo >= t * (uu * oo) ** 0.5), "cosine"),
    ("number_of_networks", lambda n, sizes: len(sizes), "one network a size"),
    ("number_of_networks", lambda n, sizes: sum(10 * n // s for s in sizes), "ten times"),
    ("difficulty_from_probabilities", lambda q, y: -torch.log(torch.stack([e[range(4), y] for e in q])).mean(0), "mean over"),
    ("difficulty_from_probabilities", lambda q, y: (q - torch.eye(3)[y]).norm(dim=2).sum(0), "public code"),
    ("nested_subset", lambda o, x, j: o[:, j :: o.shape[1] // x].flatten(), "not a nested one"),
    ("nested_subset", lambda o, x, j: o[:, j * x : (j + 1) * x].T.flatten(), "class by class"),
    ("pearson", lambda a, b: a @ b / (a.norm() * b.norm()), "cosine"),
    ("pearson", lambda a, b: ((a - a.mean()) * (b - b.mean())).mean(), "covariance"),
    ("best_company", lambda r, t, n: r.topk(n).indices, "itself is in the list"),
    ("best_company", lambda r, t, n: r.sort().indices[:n], "least"),
    ("count_events", lambda r: (r[1:] != r[:-1]).sum(0), "learning events too"),
    ("count_events", lambda r: (r[1:] & ~r[:-1]).sum(0), "other way round"),
    ("forgotten_by_hand", lambda z, d, y: (z + d).argmax(1) != y, "wrong before"),
    ("forgotten_by_hand", lambda z, d, y: (z.argmax(1) == y) & (d.gather(1, y[:, None])[:, 0] < 0), "falling logit"),
    ("softmax_to_first_order", lambda z, d: torch.softmax(z + d, 0), "true softmax"),
    ("softmax_to_first_order", lambda z, d: z.softmax(0) + d, "added to the probabilities"),
    ("f1_of_events", lambda f, p: 2 * float((f & p).sum()) / int(f.sum() + p.sum()) if f.any() else 1.0, "not a perfect 1"),
    ("f1_of_events", lambda f, p: float((f == p).float().mean()), "accuracy"),
    ("heavy_ball_step", lambda g, lr, mu: -lr * g[-1], "plain SGD"),
    ("heavy_ball_step", lambda g, lr, mu: -lr * sum(mu**t * v for t, v in enumerate(g)), "order is turned"),
    ("next_centroid", lambda g, c, a: min(range(len(g)), key=lambda i: float(g[c[a[i]], i])), "chosen again"),
    ("next_centroid", lambda g, c, a: max(set(range(len(g))) - set(c), key=lambda i: float(g[c[a[i]], i])), "most similar"),
    ("who_moves", lambda new, own, c: new > own, "that is the bug"),
    ("who_moves", lambda new, own, c: (new >= own) & ~c, "tie"),
    ("farthest_points", lambda g, m: fpc_from_zero(g, m), "first centroid is sample 0"),
    (
        "farthest_points",
        lambda g, m: ntk.analysis.Clusters(*(f := ntk.farthest_point_clustering(g, m))).centroids[f[1]],
        "indices of",
    ),
    ("farthest_points", lambda g, m: ntk.farthest_point_clustering(g, m + 1).assignment, "One cluster too many"),
    ("farthest_points", lambda g, m: ntk.farthest_point_clustering(g, max(1, m - 1)).assignment, "One cluster too few"),
    ("head_share", lambda a: max(a.tolist().count(c) for c in set(a.tolist())), "count"),
    ("head_share", lambda a: a.tolist().count(0) / len(a), "cluster 0"),
    (
        "edge_of_the_head",
        lambda r, a, h, c, n: [i for i in r.argsort(descending=True).tolist() if a[i] == h and i != c][:n],
        "most",
    ),
    ("edge_of_the_head", lambda r, a, h, c, n: r.argsort()[:n], "all clusters"),
    ("is_redundant", lambda g: (g >= g.diagonal()[:, None]).any(1), "Every sample"),
    ("is_redundant", lambda g: ((g > g.diagonal()) & ~torch.eye(len(g)).bool()).any(1), "partner's own value"),
    ("length_needed", lambda c, length: length * c if c > 0 else float("inf"), "divide by it"),
    ("length_needed", lambda c, length: length / c if c else float("inf"), "return infinity"),
    ("grand_from_kernel", lambda k, e: e.pow(2).sum(1).sqrt(), "EL2N"),
    ("grand_from_kernel", lambda k, e: (e[:, None] @ k @ e[:, :, None]).flatten(), "take the root"),
    (
        "welch_t",
        lambda a, b: (a.mean() - b.mean()) / (a.var(correction=0) / len(a) + b.var(correction=0) / len(b)) ** 0.5,
        "n - 1",
    ),
    ("welch_t", lambda a, b: stats.ttest_ind(a, b).statistic, "pooled"),
    ("better_rule", lambda g, n: torch.arange(len(g)) < n, "copy while a direction"),
    ("better_rule", lambda g, n: by_inner_products(g, n), "look at lengths"),
    ("better_rule", lambda g, n: ~ntk.redundant(g), "keeps .* samples; wanted"),
    ("step_of_the_output", lambda m, t, a, lr: m @ (lr * sum(j.T @ v for j, v in zip(t, a, strict=True))), "divide by B"),
    ("step_of_the_output", lambda m, t, a, lr: lr * sum(j @ m.T @ v for j, v in zip(t, a, strict=True)) / len(a), "transposed"),
    ("step_of_the_output", lambda m, t, a, lr: -m @ (lr * sum(j.T @ v for j, v in zip(t, a, strict=True))) / len(a), "sign"),
    ("prediction_of_a_machine", lambda b, k, g, e: b + e * (e * g[None, :, None] * k).sum(-1).mean(1), "from .8. and once from"),
    ("prediction_of_a_machine", lambda b, k, g, e: b - e * (g[None, :, None] * k).sum((1, 3)), "mean"),
    ("prediction_of_a_machine", lambda b, k, g, e: -e * (g[None, :, None] * k).sum(-1).mean(1), "bias b is missing"),
    ("discrete_path_kernel", lambda te, tr, lr: path_gram(te, tr) * lr / tr.shape[1], "last weight state"),
    ("discrete_path_kernel", lambda te, tr, lr: path_gram(te[:-1], tr[:-1]) * lr, "Divide by the number"),
    ("discrete_path_kernel", lambda te, tr, lr: path_gram(te[:-1], tr[:-1]) / tr.shape[1], "step size is missing"),
    ("error_of_freezing", lambda h, w, d: ((w + d) @ h @ (w + d) - w @ h @ w) / 2 - w @ h @ d + d @ h @ d / 2, "factor 1/2"),
    ("error_of_freezing", lambda h, w, d: ((w + d) @ h @ (w + d) - w @ h @ w) / 2, "take away"),
    ("finer_steps", lambda e, lr, s, t: (lr / (e / t), s), "more of them"),
    ("finer_steps", lambda e, lr, s, t: (lr * (t / e) ** 0.5, round(s / (t / e) ** 0.5)), "second order"),
    (
        "coefficients_of_a_loss",
        lambda f, y, loss: torch.eye(3)[y] - (f if loss == "squared" else f.exp() / f.exp().sum(1, True)),
        "inside",
    ),
    ("coefficients_of_a_loss", lambda f, y, loss: minus_gradient(-f, y, loss), "minus the gradient"),
    ("nodes_for_a_linear_network", lambda n: n, "about half"),
    ("nodes_for_a_linear_network", lambda n: n // 2 + 1, "output, of degree L"),
    ("turning_times", lambda x, w0, b0, w1, b1: sorted(t for t in line_roots(x, w0, b0, w1, b1)), "outside the step"),
    ("turning_times", lambda x, w0, b0, w1, b1: [t for t in line_roots(x, w0, b0, w1, b1) if 0 < t < 1], "not in order"),
    ("turning_times", lambda x, *w: sorted(1 - t for t in line_roots(x, *w) if 0 < t < 1), "from the end"),
    ("integral_by_pieces", lambda f, b, n: by_gauss(f, 0, 1, n), "does not see the kinks"),
    (
        "integral_by_pieces",
        lambda f, b, n: sum(by_gauss(f, *e, n) / (e[1] - e[0]) for e in zip([0, *b], [*b, 1], strict=True)),
        "length",
    ),
    ("integral_by_pieces", lambda f, b, n: sum(by_gauss(f, *e, n) for e in zip(b[:-1], b[1:], strict=True)), "before the first"),
    (
        "carried_jacobians",
        lambda m, lrs, mu: torch.stack([sum(mu ** (r - s) * lrs[s] * m[s] for s in range(r + 1)) for r in range(len(m))]),
        "not in earlier",
    ),
    ("carried_jacobians", lambda m, lrs, mu: torch.stack([v * lr for v, lr in zip(m, lrs, strict=True)]), "without momentum"),
    ("most_to_blame", lambda p, said, right, n: p[:, said].topk(n).indices, "wrong minus right"),
    ("most_to_blame", lambda p, said, right, n: (p[:, said] - p[:, right]).sort().indices[:n], "towards the right"),
    (
        "gap_without",
        lambda train, x, y, drop, one, s, r: (lambda z: z[0, s] - z[0, r])(train(x[drop], y[drop]).log_probs(one)),
        "dropped points only",
    ),
    (
        "gap_without",
        lambda train, x, y, drop, one, s, r: (lambda z: z[0, s] - z[0, r])(train(x, y).log_probs(one)),
        "Nothing was dropped",
    ),
    ("is_a_kernel", lambda g: bool(torch.allclose(g, g.permute(1, 0, 3, 2))), "eigenvalues too"),
    (
        "is_a_kernel",
        lambda g: bool(torch.linalg.eigvalsh(g.transpose(1, 2).reshape(len(g) * g.shape[2], -1))[0] > -1e-6),
        "one triangle",
    ),
    ("growth_and_angle", lambda a, b: (b.norm() / a.norm(), torch.arccos((a / a.norm()) @ (b / b.norm()))), "radians"),
    ("growth_and_angle", lambda a, b: (b.norm() / a.norm(), (a / a.norm()) @ (b / b.norm())), "cosine"),
    ("posterior_deviation", lambda k, c, t, noise: t - c @ torch.inverse(k + noise * torch.eye(len(k))) @ c, "variance; take"),
    ("posterior_deviation", lambda k, c, t, noise: t**0.5, "prior"),
    ("moves_of_units", lambda s, t, e: t / e / len(t) ** 0.5, "signs are missing"),
    ("moves_of_units", lambda s, t, e: torch.stack([a * b / (e * len(s)) for a, b in zip(s, t, strict=True)]), "root of m"),
    ("moves_of_units", lambda s, t, e: e * s[:, None] * t / len(t) ** 0.5, "wrong side"),
    (
        "kernel_of_hidden_units",
        lambda a, b: float(a @ b) * (0.5 - np.arccos(float(a @ b / a.norm() / b.norm())) / 2 / np.pi),
        "bias",
    ),
    ("kernel_of_hidden_units", lambda a, b: float(a @ b + 1) * (1 - float(angle_with_bias(a, b)) / np.pi), "2 pi"),
    ("units_needed", lambda e, m, w: int(round(e * m / w)), "four times"),
    ("units_needed", lambda e, m, w: int(round(m / (e / w) ** 2)), "upside down"),
    (
        "share_of_flips",
        lambda w, t, x: int(((x @ w[:, :-1].T + w[:, -1] > 0) ^ (x @ (w + t)[:, :-1].T + (w + t)[:, -1] > 0)).sum()),
        "number",
    ),
    ("share_of_flips", lambda w, t, x: ((x @ w[:, :-1].T > 0) ^ (x @ (w + t)[:, :-1].T > 0)).double().mean(), "bias"),
    ("relu_expectations", lambda k, a, b: tuple(2 * v for v in arc(k, a, b)), "Divide by 2 pi"),
    ("relu_expectations", lambda k, a, b: (arc(k, a, b)[0] / (a * b) ** 0.5, arc(k, a, b)[1]), "root of both variances"),
    ("relu_expectations", lambda k, a, b: (arc(k, a, b)[0], 0.5 - arc(k, a, b)[1]), "exactly one"),
    ("tangent_recursion", lambda f, v, s: 2 * (f[0] + sum(v)), "factor is missing"),
    ("tangent_recursion", lambda f, v, s: 2 * v[-1], "NNGP"),
    ("flow_answer", lambda h, k, y, t: k @ torch.inverse(h) @ (y - torch.matrix_exp(h * t) @ y), "minus the kernel"),
    ("flow_answer", lambda h, k, y, t: k @ torch.inverse(h) @ y, "end of training"),
    ("flow_answer", lambda h, k, y, t: k @ (y - torch.matrix_exp(-h * t) @ y), "inverse of the kernel"),
    (
        "share_along_first",
        lambda h, y, c: float((torch.linalg.eigh(h)[1][:, :c].T @ y).norm() ** 2 / y.norm() ** 2),
        "last columns",
    ),
    ("share_along_first", lambda h, y, c: float((torch.linalg.eigh(h)[1][:, -c:].T @ y).norm() ** 2), "squared norm"),
    ("label_product_at", lambda g, y, h: z_of(g, y, h, lambda w, d: w**2 + d**2), "is subtracted"),
    ("label_product_at", lambda g, y, h: z_of(g, y, h, lambda w, d: w - d**2), "sigma is squared"),
    ("label_product_without_itself", lambda g, y, i, j: z_of(g, y, g[i, j], lambda w, d: w**2 - d**2), "sees itself"),
    ("label_product_without_itself", lambda g, y, i, j: z_of(g, y, g[i, j], lambda w, d: w**2 - d**2, (i, j)), "leave both out"),
    ("elasticity_of", lambda g, y: share_within(g, y), "unit diagonal"),
    ("elasticity_of", lambda g, y: share_within(cos_of(g), y, True), "diagonal out"),
    ("kernel_after_one_point", lambda h, k, y: h + k * (y / h) ** 2, "factor one half"),
    ("kernel_after_one_point", lambda h, k, y: k * (y / h) ** 2 / 2, "add the kernel"),
    ("centred_alignment", lambda g, y: float(y @ g @ y / g.norm() / len(y)), "Centre both"),
    ("centred_alignment", lambda g, y: aligned_of(g, y, 2), "not by their squares"),
    ("supported_labels", lambda k: torch.stack([m.max(1).values for m in k]).argmax(0), "one neighbour"),
    ("supported_labels", lambda k: k.sum(-1).argmin(0), "not the smallest"),
    ("paired_difference", lambda a, b: (np.mean(a - b), 1.96 * np.std(a - b, ddof=1) / len(a) ** 0.5), "not 1.96"),
    ("paired_difference", lambda a, b: (np.mean(a - b), stats.t.ppf(0.95, 4) * stats.sem(a - b)), "One-sided"),
    ("cost_exponent", lambda n, s: float(np.polyfit(n, s, 1)[0]), "logarithms"),
    (
        "cost_exponent",
        lambda n, s: 1 / stats.linregress(np.log(n), np.log(s)).slope * stats.pearsonr(np.log(n), np.log(s))[0] ** 2,
        "turned round",
    ),
    ("first_covariance", lambda a, b, w, s: w**2 * float(a @ b) + s**2, "divided by d"),
    ("first_covariance", lambda a, b, w, s: w * float(a @ b) / len(a) + s, "enter squared"),
    ("first_covariance", lambda a, b, w, s: w**2 * float((a * b).mean()), "same at both inputs"),
    ("width_for", lambda w, d, t: (t - np.polyfit(w, d, 1)[1]) / np.polyfit(w, d, 1)[0], "fit the logarithms"),
    (
        "width_for",
        lambda w, d, t: float(((d.log() + w.log() / 2).mean() - np.log(t)).mul(2).exp()),
        "slope -1/2 for granted",
    ),
    ("width_for", lambda w, d, t: float(w[-1]) * float(d[-1] / t) ** 2, "fit a line to all"),
    ("cotangents_that_oppose", lambda y, k: torch.eye(k)[y] - 1 / k, "length one"),
    ("cotangents_that_oppose", lambda y, k: torch.eye(k)[y], "right angles"),
    ("cotangents_that_oppose", lambda y, k: (2 * torch.eye(k)[y] - 1) / k**0.5, "lpNTK's signs"),
    ("change_by_midpoints", lambda g, w: sum(g(w[s]) @ (w[s + 1] - w[s]) for s in range(len(w) - 1)), "at the start"),
    ("change_by_midpoints", lambda g, w: g((w[0] + w[-1]) / 2) @ (w[-1] - w[0]), "every step"),
    (
        "change_by_midpoints",
        lambda g, w: sum((g(w[s]) + g(w[s + 1])) @ (w[s + 1] - w[s]) / 2 for s in range(len(w) - 1)),
        "trapezoidal",
    ),
    ("smallest_move", lambda phi, r: r @ phi, "one gradient step"),
    ("smallest_move", lambda phi, r: torch.inverse(phi @ phi.T) @ r, "kernel machine"),
    ("label_agreement", lambda y: torch.outer(2.0 * y - 1, 2.0 * y - 1), "no evidence"),
    ("label_agreement", lambda y: torch.outer(1.0 * y, 1.0 * y).fill_diagonal_(0), "make them -1 and 1"),
    ("agreement_beyond_chance", lambda f, s, y, k: (f == s).double().mean(), "plain agreement"),
    (
        "agreement_beyond_chance",
        lambda f, s, y, k: (
            ((f == s).double().mean() - right_share(f, y) * right_share(s, y)) / (1 - right_share(f, y) * right_share(s, y))
        ),
        "Two wrong answers",
    ),
]


@pytest.mark.parametrize(("check", "answer", "hint"), WRONG)
def test_typical_mistakes_are_named(check, answer, hint):
    result = getattr(checks, check)(answer)
    assert result.status == "wrong"
    assert re.search(hint, result.message), result.message


def test_two_mistakes_for_every_exercise():
    named = [name for name, _, _ in WRONG]
    few = [p.values[0] for p in EXERCISES if named.count(p.values[0]) < 2]
    assert few == [], "each wants at least two wrong answers in WRONG, with what the check says of them"


def test_any_kind_of_right_answer_is_accepted():
    as_float32 = lambda q: jac(q.float())  # noqa: E731
    as_numpy = lambda q: np.diag(q.numpy()) - np.outer(q, q)  # noqa: E731

    def looped(q):
        return [[float(q[i] * (float(i == j) - q[j])) for j in range(len(q))] for i in range(len(q))]

    with_grad = lambda q: jac(q.clone().requires_grad_())  # noqa: E731
    for answer in (as_float32, as_numpy, looped, with_grad):
        assert checks.jacobian_of_softmax(answer).status == "right"


def spoil(value):
    """Overwrite whatever an answer was handed, as far as it can be."""
    if isinstance(value, torch.Tensor | np.ndarray):
        value[...] = 1
    elif isinstance(value, list | tuple):
        for item in value:
            spoil(item)
        if isinstance(value, list):
            value.clear()
    elif isinstance(value, dict):
        value.clear()
    elif isinstance(value, torch.nn.Module):
        with torch.no_grad():
            for p in value.parameters():
                p.fill_(1.0)


@pytest.mark.parametrize(("check", "answer", "set_up", "code"), EXERCISES)
def test_a_right_answer_may_spoil_its_arguments(check, answer, set_up, code):
    space = {}
    exec(set_up, space)
    exec(code, space)

    def in_place(*args):
        value = space[answer](*args)
        value = value.clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
        for arg in args:
            spoil(arg)
        return value

    for _ in range(2):  # nor is anything left for the next call
        assert getattr(checks, check)(in_place).status == "right"


def test_answers_that_break_come_back_as_sentences():
    assert "raised ZeroDivisionError" in checks.jacobian_memory(lambda *a: 1 / 0).message
    assert "returned str" in checks.jacobian_memory(lambda *a: "three").message
    assert "shape (2,); wanted (2, 2)" in checks.jacobian_of_softmax(lambda q: q).message
    assert "largest difference" in checks.jacobian_of_softmax(lambda q: jac(q) + 1).message
    assert checks.jacobian_of_softmax(lambda q: ...).status == "unanswered"

    def not_yet(q):
        raise NotImplementedError

    assert checks.jacobian_of_softmax(not_yet).status == "unanswered"
