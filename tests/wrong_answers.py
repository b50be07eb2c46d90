"""Wrong answers to the exercises as students would write them, without a look at the checks: (check, answer)."""

import numpy as np
import torch
from scipy import stats

import ntk_course as ntk
from ntk_course.course import checks


def jac(q):
    return torch.diag(q) - torch.outer(q, q)


def lpntk_by_loop(kernel, y1, y2):
    k = kernel.shape[-1]
    sign = lambda y: [1.0 if c == y else -1.0 for c in range(k)]
    rows = [
        [sum(sign(a)[i] * b[i][j] * sign(c)[j] for i in range(k) for j in range(k)) / k for b, c in pairs]
        for a, pairs in ((a, zip(r, y2.tolist(), strict=True)) for a, r in zip(y1.tolist(), kernel.tolist(), strict=True))
    ]
    return torch.tensor(rows)


def fpc_from_zero(gram, m):
    centroids, cluster = ([0], [0] * len(gram))
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
    return sum((torch.tensordot(a, b, ([2], [2])).transpose(1, 2) for a, b in zip(test, training, strict=True)))


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
    return ((a * b) ** 0.5 * (np.sin(turn) + (np.pi - turn) * np.cos(turn)) / 2 / np.pi, 0.5 - turn / 2 / np.pi)


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
    a, b = (h @ g @ h, h @ torch.outer(y, y) @ h)
    return float((a * b).sum() / (a.norm() * b.norm()) ** power)


def right_share(predicted, y):
    return (predicted == y).double().mean()


WRONG = [
    ("jacobian_of_softmax", lambda q: torch.outer(q, q) - torch.diag(q)),
    ("jacobian_of_softmax", lambda q: torch.diag(q - q**2)),
    ("jacobian_of_softmax", lambda q: torch.where(torch.eye(len(q)).bool(), q[:, None], -q[:, None] * q)),
    ("change_of_prediction", lambda eta, q, k, e: eta * jac(q) @ (k @ -e)),
    ("change_of_prediction", lambda eta, q, k, e: eta * torch.mv(k, e)),
    ("change_of_prediction", lambda eta, q, k, e: eta * jac(q) @ (e @ k)),
    ("change_of_prediction", lambda eta, q, k, e: eta**2 * jac(q) @ k @ e),
    ("change_of_prediction", lambda eta, q, k, e: jac(q) @ k @ e),
    ("slope_on_log_axes", lambda x, y: np.polyfit(x, y, 1)[0]),
    ("slope_on_log_axes", lambda x, y: np.polyfit(np.log10(y), np.log10(x), 1)[0]),
    ("slope_on_log_axes", lambda x, y: np.polyfit(np.log(x), np.log(y), 1)[1]),
    ("change_from_a_batch", lambda eta, q, k, e: eta * jac(q) @ sum((a @ b for a, b in zip(k, e, strict=True)))),
    ("change_from_a_batch", lambda eta, q, k, e: eta * jac(q) @ k.mean(0) @ e.mean(0)),
    ("change_from_a_batch", lambda eta, q, k, e: eta * jac(q) @ k[0] @ e[0]),
    ("jacobian_memory", lambda n, k, d, b: n * d * b / 1024**3),
    ("jacobian_memory", lambda n, k, d, b: n * k * d * b * 1e-09),
    ("pseudo_ntk", lambda k: k.flatten(2).sum(-1)),
    ("pseudo_ntk", lambda k: torch.einsum("nmii->nm", k) / k.shape[-1]),
    ("pseudo_ntk", lambda k: k.mean((2, 3))),
    ("signs_of_the_error", lambda q, y: torch.eye(len(q))[y]),
    ("signs_of_the_error", lambda q, y: torch.sign(q - torch.eye(len(q))[y])),
    ("labelled_pseudo_ntk", lambda k, a, b: lpntk_by_loop(k, a, b) * 3),
    ("labelled_pseudo_ntk", lambda k, a, b: lpntk_by_loop(k.transpose(2, 3), a, b)),
    ("labelled_features", lambda j, y: torch.stack([j[n, c] for n, c in enumerate(y)])),
    ("contradictory_label", lambda b, y: int(b[y].argmin())),
    ("relation_of_a_pair", lambda uo, uu, oo, t: int(uo / uu >= t) - int(uo / uu <= -t)),
    ("relation_of_a_pair", lambda uo, uu, oo, t: int(uo >= t * (uu * oo) ** 0.5) - int(-uo >= t * (uu * oo) ** 0.5)),
    ("number_of_networks", lambda n, sizes: len(sizes)),
    ("number_of_networks", lambda n, sizes: sum(10 * n // s for s in sizes)),
    ("nested_subset", lambda o, x, j: o[:, j * x : (j + 1) * x].T.flatten()),
    ("best_company", lambda r, t, n: r.topk(n).indices),
    ("best_company", lambda r, t, n: r.sort().indices[:n]),
    ("count_events", lambda r: (r[1:] != r[:-1]).sum(0)),
    ("count_events", lambda r: (r[1:] & ~r[:-1]).sum(0)),
    ("forgotten_by_hand", lambda z, d, y: (z + d).argmax(1) != y),
    ("forgotten_by_hand", lambda z, d, y: (z.argmax(1) == y) & (d.gather(1, y[:, None])[:, 0] < 0)),
    ("f1_of_events", lambda f, p: 2 * float((f & p).sum()) / int(f.sum() + p.sum()) if f.any() else 1.0),
    ("f1_of_events", lambda f, p: float((f == p).float().mean())),
    ("heavy_ball_step", lambda g, lr, mu: -lr * g[-1]),
    ("heavy_ball_step", lambda g, lr, mu: -lr * sum((mu**t * v for t, v in enumerate(g)))),
    ("next_centroid", lambda g, c, a: min(range(len(g)), key=lambda i: float(g[c[a[i]], i]))),
    ("next_centroid", lambda g, c, a: max(set(range(len(g))) - set(c), key=lambda i: float(g[c[a[i]], i]))),
    ("farthest_points", lambda g, m: fpc_from_zero(g, m)),
    ("farthest_points", lambda g, m: ntk.analysis.Clusters(*(f := ntk.farthest_point_clustering(g, m))).centroids[f[1]]),
    ("farthest_points", lambda g, m: ntk.farthest_point_clustering(g, max(1, m - 1)).assignment),
    ("head_share", lambda a: max(a.tolist().count(c) for c in set(a.tolist()))),
    ("head_share", lambda a: a.tolist().count(0) / len(a)),
    ("edge_of_the_head", lambda r, a, h, c, n: [i for i in r.argsort(descending=True).tolist() if a[i] == h and i != c][:n]),
    ("edge_of_the_head", lambda r, a, h, c, n: r.argsort()[:n]),
    ("length_needed", lambda c, length: length * c if c > 0 else float("inf")),
    ("length_needed", lambda c, length: length / c if c else float("inf")),
    ("grand_from_kernel", lambda k, e: e.pow(2).sum(1).sqrt()),
    ("grand_from_kernel", lambda k, e: (e[:, None] @ k @ e[:, :, None]).flatten()),
    ("better_rule", lambda g, n: torch.arange(len(g)) < n),
    ("better_rule", lambda g, n: by_inner_products(g, n)),
    ("better_rule", lambda g, n: ~ntk.redundant(g)),
    ("step_of_the_output", lambda m, t, a, lr: m @ (lr * sum((j.T @ v for j, v in zip(t, a, strict=True))))),
    ("step_of_the_output", lambda m, t, a, lr: lr * sum((j @ m.T @ v for j, v in zip(t, a, strict=True))) / len(a)),
    ("step_of_the_output", lambda m, t, a, lr: -m @ (lr * sum((j.T @ v for j, v in zip(t, a, strict=True)))) / len(a)),
    ("prediction_of_a_machine", lambda b, k, g, e: b + e * (e * g[None, :, None] * k).sum(-1).mean(1)),
    ("prediction_of_a_machine", lambda b, k, g, e: b - e * (g[None, :, None] * k).sum((1, 3))),
    ("prediction_of_a_machine", lambda b, k, g, e: -e * (g[None, :, None] * k).sum(-1).mean(1)),
    ("discrete_path_kernel", lambda te, tr, lr: path_gram(te, tr) * lr / tr.shape[1]),
    ("discrete_path_kernel", lambda te, tr, lr: path_gram(te[:-1], tr[:-1]) * lr),
    ("discrete_path_kernel", lambda te, tr, lr: path_gram(te[:-1], tr[:-1]) / tr.shape[1]),
    ("error_of_freezing", lambda h, w, d: ((w + d) @ h @ (w + d) - w @ h @ w) / 2 - w @ h @ d + d @ h @ d / 2),
    ("error_of_freezing", lambda h, w, d: ((w + d) @ h @ (w + d) - w @ h @ w) / 2),
    ("finer_steps", lambda e, lr, s, t: (lr / (e / t), s)),
    ("finer_steps", lambda e, lr, s, t: (lr * (t / e) ** 0.5, round(s / (t / e) ** 0.5))),
    ("coefficients_of_a_loss", lambda f, y, loss: minus_gradient(-f, y, loss)),
    ("nodes_for_a_linear_network", lambda n: n),
    ("nodes_for_a_linear_network", lambda n: n // 2 + 1),
    ("turning_times", lambda x, w0, b0, w1, b1: sorted(t for t in line_roots(x, w0, b0, w1, b1))),
    ("turning_times", lambda x, w0, b0, w1, b1: [t for t in line_roots(x, w0, b0, w1, b1) if 0 < t < 1]),
    ("turning_times", lambda x, *w: sorted(1 - t for t in line_roots(x, *w) if 0 < t < 1)),
    ("integral_by_pieces", lambda f, b, n: by_gauss(f, 0, 1, n)),
    ("integral_by_pieces", lambda f, b, n: sum(by_gauss(f, *e, n) / (e[1] - e[0]) for e in zip([0, *b], [*b, 1], strict=True))),
    ("integral_by_pieces", lambda f, b, n: sum(by_gauss(f, *e, n) for e in zip(b[:-1], b[1:], strict=True))),
    (
        "carried_jacobians",
        lambda m, lrs, mu: torch.stack([sum(mu ** (r - s) * lrs[s] * m[s] for s in range(r + 1)) for r in range(len(m))]),
    ),
    ("carried_jacobians", lambda m, lrs, mu: torch.stack([v * lr for v, lr in zip(m, lrs, strict=True)])),
    ("most_to_blame", lambda p, said, right, n: (p[:, said] - p[:, right]).sort().indices[:n]),
    ("gap_without", lambda train, x, y, drop, one, s, r: (lambda z: z[0, s] - z[0, r])(train(x[drop], y[drop]).log_probs(one))),
    ("gap_without", lambda train, x, y, drop, one, s, r: (lambda z: z[0, s] - z[0, r])(train(x, y).log_probs(one))),
    ("is_a_kernel", lambda g: bool(torch.allclose(g, g.permute(1, 0, 3, 2)))),
    ("is_a_kernel", lambda g: bool(torch.linalg.eigvalsh(g.transpose(1, 2).reshape(len(g) * g.shape[2], -1))[0] > -1e-06)),
    ("growth_and_angle", lambda a, b: (b.norm() / a.norm(), torch.arccos(a / a.norm() @ (b / b.norm())))),
    ("growth_and_angle", lambda a, b: (b.norm() / a.norm(), a / a.norm() @ (b / b.norm()))),
    ("posterior_deviation", lambda k, c, t, noise: t - c @ torch.inverse(k + noise * torch.eye(len(k))) @ c),
    ("posterior_deviation", lambda k, c, t, noise: t**0.5),
    ("moves_of_units", lambda s, t, e: t / e / len(t) ** 0.5),
    ("moves_of_units", lambda s, t, e: torch.stack([a * b / (e * len(s)) for a, b in zip(s, t, strict=True)])),
    ("moves_of_units", lambda s, t, e: e * s[:, None] * t / len(t) ** 0.5),
    ("units_needed", lambda e, m, w: int(round(e * m / w))),
    ("units_needed", lambda e, m, w: int(round(m / (e / w) ** 2))),
    (
        "share_of_flips",
        lambda w, t, x: int(((x @ w[:, :-1].T + w[:, -1] > 0) ^ (x @ (w + t)[:, :-1].T + (w + t)[:, -1] > 0)).sum()),
    ),
    ("share_of_flips", lambda w, t, x: ((x @ w[:, :-1].T > 0) ^ (x @ (w + t)[:, :-1].T > 0)).double().mean()),
    ("label_product_at", lambda g, y, h: z_of(g, y, h, lambda w, d: w**2 + d**2)),
    ("label_product_at", lambda g, y, h: z_of(g, y, h, lambda w, d: w - d**2)),
    ("label_product_without_itself", lambda g, y, i, j: z_of(g, y, g[i, j], lambda w, d: w**2 - d**2)),
    ("label_product_without_itself", lambda g, y, i, j: z_of(g, y, g[i, j], lambda w, d: w**2 - d**2, (i, j))),
    ("elasticity_of", lambda g, y: share_within(g, y)),
    ("elasticity_of", lambda g, y: share_within(cos_of(g), y, True)),
    ("kernel_after_one_point", lambda h, k, y: h + k * (y / h) ** 2),
    ("kernel_after_one_point", lambda h, k, y: k * (y / h) ** 2 / 2),
    ("centred_alignment", lambda g, y: float(y @ g @ y / g.norm() / len(y))),
    ("centred_alignment", lambda g, y: aligned_of(g, y, 2)),
    ("supported_labels", lambda k: torch.stack([m.max(1).values for m in k]).argmax(0)),
    ("supported_labels", lambda k: k.sum(-1).argmin(0)),
    ("paired_difference", lambda a, b: (np.mean(a - b), 1.96 * np.std(a - b, ddof=1) / len(a) ** 0.5)),
    ("paired_difference", lambda a, b: (np.mean(a - b), stats.t.ppf(0.95, 4) * stats.sem(a - b))),
    ("cost_exponent", lambda n, s: float(np.polyfit(n, s, 1)[0])),
    (
        "cost_exponent",
        lambda n, s: 1 / stats.linregress(np.log(n), np.log(s)).slope * stats.pearsonr(np.log(n), np.log(s))[0] ** 2,
    ),
    ("first_covariance", lambda a, b, w, s: w**2 * float(a @ b) + s**2),
    ("first_covariance", lambda a, b, w, s: w * float(a @ b) / len(a) + s),
    ("first_covariance", lambda a, b, w, s: w**2 * float((a * b).mean())),
    ("width_for", lambda w, d, t: (t - np.polyfit(w, d, 1)[1]) / np.polyfit(w, d, 1)[0]),
    ("width_for", lambda w, d, t: float(((d.log() + w.log() / 2).mean() - np.log(t)).mul(2).exp())),
    ("width_for", lambda w, d, t: float(w[-1]) * float(d[-1] / t) ** 2),
    ("cotangents_that_oppose", lambda y, k: torch.eye(k)[y] - 1 / k),
    ("cotangents_that_oppose", lambda y, k: torch.eye(k)[y]),
    ("cotangents_that_oppose", lambda y, k: (2 * torch.eye(k)[y] - 1) / k**0.5),
    ("change_by_midpoints", lambda g, w: sum(g(w[s]) @ (w[s + 1] - w[s]) for s in range(len(w) - 1))),
    ("change_by_midpoints", lambda g, w: g((w[0] + w[-1]) / 2) @ (w[-1] - w[0])),
    ("change_by_midpoints", lambda g, w: sum((g(w[s]) + g(w[s + 1])) @ (w[s + 1] - w[s]) / 2 for s in range(len(w) - 1))),
    ("smallest_move", lambda phi, r: r @ phi),
    ("smallest_move", lambda phi, r: torch.inverse(phi @ phi.T) @ r),
    ("label_agreement", lambda y: torch.outer(2.0 * y - 1, 2.0 * y - 1)),
    ("label_agreement", lambda y: torch.outer(1.0 * y, 1.0 * y).fill_diagonal_(0)),
    ("agreement_beyond_chance", lambda f, s, y, k: (f == s).double().mean()),
    (
        "agreement_beyond_chance",
        lambda f, s, y, k: (
            ((f == s).double().mean() - right_share(f, y) * right_share(s, y)) / (1 - right_share(f, y) * right_share(s, y))
        ),
    ),
    # exercises that came later
    ("change_of_prediction", lambda eta, q, k, e: -eta * k.T @ e),
    ("largest_change", lambda eta, norm: eta * norm * 2**0.5),
    ("largest_change", lambda eta, norm: 0.5 * eta * norm),
    ("order_of_the_remainder", lambda: dict.fromkeys(checks.order_of_the_remainder.reference(), 2)),
    ("order_of_the_remainder", lambda: dict.fromkeys(checks.order_of_the_remainder.reference(), 1)),
    ("entk_from_gradients", lambda m, a, b: ntk.entk(m, b, a).permute(1, 0, 2, 3)),
    ("entk_from_gradients", lambda m, a, b: torch.einsum("nmii->nm", ntk.entk(m, a, b))),
    ("nothing_in_common", lambda: torch.tensor([[1.0, 2.0], [-2.0, -1.0]])),
    ("nothing_in_common", lambda: torch.eye(3)),
    ("linear_layer_share", lambda a, b, c, d: torch.einsum("ntp,mup->nm", a, c) * torch.einsum("ntq,muq->nm", b, d)),
    ("linear_layer_share", lambda a, b, c, d: torch.einsum("ntp,ntq,mup,muq->nm", a, b, c, d)),
    ("positions_to_form", lambda p, q: -(-p * q // (p + q + 1))),
    ("positions_to_form", lambda p, q: max(1, int((p * q / (p + q + 1)) ** 0.5))),
    ("leaky_expectations", lambda k, a, b, s: arc(min(k, (a * b) ** 0.5), a, b)),
    ("leaky_expectations", lambda k, a, b, s: ((1 - s) * arc(k, a, b)[0] + s * k, (1 - s) * arc(k, a, b)[1] + s)),
    ("layers_share", lambda f, v, s: [2 * x for x in (*f, *v)]),
    ("layers_share", lambda f, v, s: [2 * x * np.prod(s[i:]) for i, x in enumerate((*f, *v))]),
    ("answer_after_steps", lambda h, k, y, r, t: k @ torch.inverse(h) @ (y - torch.matrix_exp(-r * t * h) @ y)),
    ("answer_after_steps", lambda h, k, y, r, t: k @ torch.inverse(h) @ y),
    ("easiest_labels", lambda h: torch.linalg.eigh(h)[1][:, 0].sign()),
    ("easiest_labels", lambda h: torch.linalg.eigh(h)[1][:, -1]),
    ("difficulty_of_logits", lambda z, y: -(z.softmax(1).mean(0))[range(len(y)), y].log() * len(z)),
    ("difficulty_of_logits", lambda z, y: -(z.softmax(2).mean(0))[range(len(y)), y].log() * len(z)),
    ("wrong_at_most", lambda d, e: int(d / np.log(2))),
    ("wrong_at_most", lambda d, e: min(e, int(d))),
    ("same_samples_other_order", lambda: ([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1])),
    ("same_samples_other_order", lambda: ([1, 1, 1, 1, 1, 9], [1, 1, 1, 1, 1, 9])),
    ("nested_subset", lambda o, size, j: o[:, torch.randperm(o.shape[1])[:size]].flatten()),
    ("nested_subset", lambda o, size, j: o[:, j : j + size].flatten()),
    ("most_to_blame", lambda p, said, right, n: (p[:, said] - p[:, right]).abs().topk(n).indices),
    ("best_company", lambda r, t, n: [i for i in r.argsort().tolist() if i != t][:n]),
    ("softmax_misses_it", lambda: ([1.0, 0.0], [-3.0, 3.0])),
    ("softmax_misses_it", lambda: ([0.0, 1.0], [0.0, 1.0])),
    ("largest_share", lambda mu, T: 1 - mu),
    ("largest_share", lambda mu, T: (1 - mu) / (1 - mu ** (T + 1))),
    ("who_moves", lambda new, own, c, f: new >= own),
    ("who_moves", lambda new, own, c, f: (new > own) & ~c),
    ("lengths_decide", lambda: torch.eye(2).repeat(3, 1)),
    ("lengths_decide", lambda: torch.ones(13, 2)),
    ("along_one_direction", lambda v: (len(v) - 1, int((v[:-1] < v[1:]).sum()))),
    ("along_one_direction", lambda v: (int((v < v.max()).sum()),) * 2),
    ("redundant_among", lambda g, later: ntk.redundant(g)),
    ("redundant_among", lambda g, later: (g.triu(1) if later else g - g.diagonal().diag()).amax(1) >= g.diagonal()),
    ("what_the_runs_say", lambda a, b, m: "as good" if stats.ttest_ind(a, b).pvalue > 0.05 else "better"),
    ("what_the_runs_say", lambda a, b, m: "better" if np.mean(a) > np.mean(b) else "worse"),
    ("kinks_you_missed", lambda at, jump: jump * (1 - at)),
    ("kinks_you_missed", lambda at, jump: jump * ((at < 0.5) - (1 - at))),
    ("leaving_share", lambda a, b: float(angle_with_bias(a, b)) / 2 / np.pi),
    ("leaving_share", lambda a, b: float(np.arccos(float(a @ b / a.norm() / b.norm())) / np.pi)),
    ("is_a_kernel", lambda g: True),
    ("coefficients_of_a_loss", lambda f, y, loss: torch.eye(f.shape[1])[y] - f.exp() / f.exp().sum(1, True)),
    ("paired_difference", lambda a, b: (np.mean(a - b), stats.t.ppf(0.95, len(a) - 1) * stats.sem(a - b))),
    ("contradictory_label", lambda b, y: int((ntk.signs(torch.tensor([y]), len(b))[0].double() @ b).argmax())),
    ("labelled_features", lambda j, y: (ntk.signs(y, j.shape[1]).double()[:, :, None] * j).mean(1)),
    ("scale_for_a_change", lambda c, a, w, s: a * w / c),
    ("scale_for_a_change", lambda c, a, w, s: a * (c / w) ** (1 if s else 0.5)),
    ("shifted_exponents", lambda a, b, c, t: torch.cat([a + t, b - t, torch.tensor([c - t]).double()])),
    ("shifted_exponents", lambda a, b, c, t: torch.cat([a + t, b - t, torch.tensor([c]).double()])),
    ("end_of_the_diagonal", lambda x, nu, a: 4 * x @ torch.diag((2 * a**2 * torch.sinh(x.T @ nu)).abs()) @ x.T),
    ("end_of_the_diagonal", lambda x, nu, a: 8 * a**2 * x @ x.T),
    ("catapult_step", lambda f, k, r, n: torch.tensor([(1 - r * k) * f, k])),
    ("catapult_step", lambda f, k, r, n: torch.tensor([(1 - r * k + r**2 * f**2 / n) * f, k + r * f**2 / n * (r * k - 2)])),
    ("fate_of_a_rate", lambda g, r: "lazy" if r * torch.linalg.eigvalsh(g)[-1] < 2 else "catapult"),
    ("fate_of_a_rate", lambda g, r: "lazy" if r * g.trace() / len(g) ** 2 < 2 else "diverges"),
    ("eigenvalue_on_the_circle", lambda k, ell: (k * np.cos(ell * np.arange(len(k)) * 2 * np.pi / len(k))).sum()),
    ("eigenvalue_on_the_circle", lambda k, ell: 2 * (k * np.cos(ell * np.arange(len(k)) * 2 * np.pi / len(k))).mean()),
    ("steps_to_learn", lambda lam, rate, share: -np.log(1 - share) / (rate * lam)),
    ("steps_to_learn", lambda lam, rate, share: np.log(share) / np.log(1 - rate * lam)),
    ("shares_of_the_budget", lambda lam, n, ridge: lam / (lam + ridge / n)),
    ("shares_of_the_budget", lambda lam, n, ridge: n * lam / lam.sum()),
    ("predicted_error", lambda s, v, n, noise: ((1 - s) * v).square().sum() + noise),
    ("predicted_error", lambda s, v, n, noise: n / (n - (s**2).sum()) * ((1 - s) ** 2 * v**2).sum() + noise),
    ("error_from_the_samples", lambda g, y, r: r**2 * (torch.linalg.solve(g + r * torch.eye(len(g)), y) ** 2).mean()),
    ("tangents_behind_a_layer", lambda s, t, w, b: w**2 * t),
    ("tangents_behind_a_layer", lambda s, t, w, b: np.asarray(w * (t + s) + b)),
    ("mean_over_a_filter", lambda k, n: sum(torch.roll(k, (o, o), (0, 1)) for o in range(-(n // 2), n // 2 + 1)) / n),
    ("mean_over_a_filter", lambda k, n: torch.nn.functional.avg_pool2d(k[None, None], n, 1, n // 2)[0, 0]),
    ("tangents_past_a_branch", lambda s, t, v, p, w: w**2 * (p * t + v)),
    ("tangents_past_a_branch", lambda s, t, v, p, w: t + w**2 * p * t),
    ("covariance_behind_attention", lambda k, a, b: a.softmax(0) @ k @ b.softmax(0).T),
    ("covariance_behind_attention", lambda k, a, b: a @ k @ b.T),
    ("last_moment", lambda k, w: sum(k.diagonal()[i] * w ** (2 * (min(k.shape) - 1 - i)) for i in range(min(k.shape)))),
    ("last_moment", lambda k, w: sum((i + 1) * w**i * k[-1 - i, -1 - i] for i in range(min(k.shape)))),
    ("last_moment", lambda k, w: sum((i + 1) * w ** (2 * i) * k[len(k) - 1 - i, k.shape[1] - 1 - i] for i in range(len(k)))),
    ("last_moment", lambda k, w: sum((1 + (i > 0)) * w ** (2 * i) * k[-1 - i, -1 - i] for i in range(min(k.shape)))),
    ("tangents_behind_a_layer", lambda s, t, w, b: w**2 * (t + s + b**2)),
    ("tangents_past_a_branch", lambda s, t, v, p, w: t + w**2 / len(t) * (p * t + v)),
    ("covariance_behind_attention", lambda k, a, b: a.softmax(0) @ k @ b.softmax(1).T),
    ("covariance_behind_attention", lambda k, a, b: a.softmax(1).T @ k @ b.softmax(1).T),
    ("covariance_behind_attention", lambda k, a, b: a.softmax(1) @ k @ b.softmax(0).T),
    ("error_from_the_samples", lambda g, y, r: len(y) * (torch.linalg.solve(g + r * torch.eye(len(g)), y) ** 2).mean()),
    ("posterior_variance", lambda g, c, o, n: o - (c @ torch.linalg.inv(g) @ c.T).diagonal()),
    ("posterior_variance", lambda g, c, o, n: o - (c @ torch.linalg.inv(g + n * torch.eye(len(g)))).sum(1)),
    ("posterior_variance", lambda g, c, o, n: o + n - (c @ torch.linalg.inv(g + n * torch.eye(len(g))) @ c.T).diagonal()),
    ("posterior_variance", lambda g, c, o, n: o - (c @ torch.linalg.inv(g + n**2 * torch.eye(len(g))) @ c.T).diagonal()),
    ("posterior_variance", lambda g, c, o, n: o - (c @ torch.linalg.pinv(g + n) @ c.T).diagonal()),
    ("posterior_variance", lambda g, c, o, n: (c @ torch.linalg.inv(g + n * torch.eye(len(g))) @ c.T).diagonal()),
    ("ensemble_covariance", lambda t, tc, s, sc, own: own - 2 * (a := tc @ t.inverse()) @ sc.T + a @ s @ a.T),
    ("ensemble_covariance", lambda t, tc, s, sc, own: own - 2 * sc @ (a := tc @ t.inverse()).T + a @ s @ a.T),
    ("ensemble_covariance", lambda t, tc, s, sc, own: own - (a := tc @ t.inverse()) @ sc.T + a @ s @ a.T),
    ("ensemble_covariance", lambda t, tc, s, sc, own: own - tc @ torch.linalg.inv(t) @ tc.T),
    ("ensemble_covariance", lambda t, tc, s, sc, own: own - tc @ torch.linalg.inv(t) @ sc.T),
    ("ensemble_covariance", lambda t, tc, s, sc, own: own - sc @ torch.linalg.inv(s) @ sc.T),
    ("likeliest_scale", lambda g, y, n: y @ torch.linalg.inv(g + n * torch.eye(len(y))).to(y) @ y),
    ("likeliest_scale", lambda g, y, n: y @ torch.linalg.inv(g + n**2 * torch.eye(len(y))).to(y) @ y / len(y)),
    ("likeliest_scale", lambda g, y, n: y @ torch.linalg.inv(g).to(y) @ y / len(y) - n),
    ("likeliest_scale", lambda g, y, n: (y**2).mean() / g.diagonal().mean()),
    ("likeliest_scale", lambda g, y, n: (y**2 / (g.diagonal() + n)).mean()),
    ("votes_of_the_first", lambda m, c: torch.special.ndtr((m[0] - m[1]) / (c[0, 0] + c[1, 1]).sqrt())),
    ("votes_of_the_first", lambda m, c: torch.sigmoid(m[0] - m[1])),
    ("votes_of_the_first", lambda m, c: torch.special.ndtr((m[1] - m[0]) / (c[0, 0] + c[1, 1] - 2 * c[0, 1]).sqrt())),
    ("root_of_the_hessian", lambda z: 2**0.5 * (z.softmax(0).sqrt()[:, None] * (torch.eye(len(z)) - z.softmax(0)))),
    ("root_of_the_hessian", lambda z: (z.softmax(0).sqrt()[:, None] * (torch.eye(len(z)) - z.softmax(0))).T),
    ("root_of_the_hessian", lambda z: torch.eye(len(z)) - z.softmax(0)),
    ("root_of_the_hessian", lambda z: z.softmax(0).sqrt() * (torch.eye(len(z)) - z.softmax(0))),
    ("root_of_the_hessian", lambda z: torch.diag(z.softmax(0)) - torch.outer(z.softmax(0), z.softmax(0))),
    ("odds_cotangent", lambda z, y: torch.eye(len(z))[y] - z.softmax(0)),
    ("odds_cotangent", lambda z, y: torch.func.grad(lambda v: v.softmax(0)[y])(z)),
    ("odds_cotangent", lambda z, y: torch.func.grad(lambda v: v.softmax(0)[y] / (1 - v.softmax(0)[y]))(z)),
    ("odds_cotangent", lambda z, y: z.softmax(0) - torch.eye(len(z))[y]),
    ("traced_gradients", lambda t, a, r: torch.einsum("s,snd,smd->nm", r, t, a)),
    ("traced_gradients", lambda t, a, r: torch.einsum("smd,snd->mn", a, t)),
    ("traced_gradients", lambda t, a, r: a.sum(0) @ t.sum(0).T * r.sum()),
    ("traced_gradients", lambda t, a, r: -torch.einsum("s,smd,snd->mn", r, a, t)),
    ("influence_of_samples", lambda g, c, y, r: c * torch.linalg.solve(g + r * torch.eye(len(y)), y)),
    ("influence_of_samples", lambda g, c, y, r: c @ torch.linalg.inv(g + r * torch.eye(len(y))) * y),
    (
        "influence_of_samples",
        lambda g, c, y, r: (
            -(c @ torch.linalg.inv(g + r * torch.eye(len(y)))) * (r * torch.linalg.solve(g + r * torch.eye(len(y)), y))
        ),
    ),
    ("effect_of_leaving_out", lambda g, c, y, r: c * torch.linalg.solve(g + r * torch.eye(len(y)), y)),
    ("effect_of_leaving_out", lambda g, c, y, r: c @ (i := torch.linalg.inv(g + r * torch.eye(len(y)))) * (i @ y) / g.diagonal()),
    (
        "effect_of_leaving_out",
        lambda g, c, y, r: -(c @ (i := torch.linalg.inv(g + r * torch.eye(len(y)))) * (i @ y) / i.diagonal()),
    ),
    ("halves_foreseen", lambda s, i, o: torch.corrcoef(torch.stack([i.double() @ s, o]))[0, 1]),
    ("halves_foreseen", lambda s, i, o: stats.kendalltau(i.double() @ s, o).statistic),
    ("halves_foreseen", lambda s, i, o: stats.spearmanr((~i).double() @ s, o).statistic),
    ("halves_foreseen", lambda s, i, o: stats.spearmanr((i.double() * s).sum(1) / i.sum(1), o).statistic),
]
