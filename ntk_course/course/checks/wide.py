"""Checks of chapter 3: infinitely wide networks."""

import math

import torch
from torch import Tensor

from .core import Check
from .draws import Draw

__all__ = ["first_covariance", "leaky_expectations", "layers_share", "answer_after_steps", "easiest_labels", "width_for"]


def _inputs(draw: Draw):
    yield torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([3.0, -1.0], dtype=torch.float64), 2.0, 0.5
    for d in draw.sizes(4, 2, 12):
        yield draw.normal(d), draw.normal(d), draw.uniform(0.3, 2, 2), draw.uniform(0.1, 1, 2)


first_covariance = Check(
    number="3.1",
    wants="answer(x1, x2, w_std, b_std) -> float",
    reference=lambda a, b, w, s: w**2 * (a @ b) / len(a) + s**2,
    cases=_inputs,
    mistakes={
        "The weights carry the factor 1/sqrt(d), so the inner product is divided by d.": lambda a, b, w, s: w**2 * (a @ b) + s**2,
        "This is a covariance: sigma_w and sigma_b enter squared.": lambda a, b, w, s: w * (a @ b) / len(a) + s,
        "sigma_w enters squared too.": lambda a, b, w, s: w * (a @ b) / len(a) + s**2,
        "sigma_b enters squared too.": lambda a, b, w, s: w**2 * (a @ b) / len(a) + s,
        "The bias is the same at both inputs, so it is correlated with itself: add sigma_b squared.": (
            lambda a, b, w, s: w**2 * (a @ b) / len(a)
        ),
        "Divide by d once: the factor 1/sqrt(d) comes once from each input.": lambda a, b, w, s: (
            w**2 * (a @ b) / len(a) ** 0.5 + s**2
        ),
        "This is the correlation; wanted the covariance.": (
            lambda a, b, w, s: (
                (w**2 * (a @ b) / len(a) + s**2) / math.sqrt((w**2 * (a @ a) / len(a) + s**2) * (w**2 * (b @ b) / len(b) + s**2))
            )
        ),
    },
)


def _relu(k12: float, k11: float, k22: float) -> tuple[float, float]:
    angle = math.acos(max(-1.0, min(1.0, k12 / math.sqrt(k11 * k22))))
    value = math.sqrt(k11 * k22) / (2 * math.pi) * (math.sin(angle) + (math.pi - angle) * math.cos(angle))
    return value, (math.pi - angle) / (2 * math.pi)


def _covariances(draw: Draw):
    yield 0.5, 1.0, 1.0, 0.0  # the ReLU itself
    yield 0.5, 1.0, 1.0, 1.0  # the identity
    yield 0.0, 1.0, 4.0, 0.5  # independent
    k = draw.uniform(0.3, 2)
    yield k, k, k, 0.1  # equal inputs
    yield 0.1 * 3, 0.1 * 3, 0.3, 0.2
    yield -1.0, 1.0, 1.0, 0.3  # opposite ones
    for _ in range(4):
        a, b = draw.uniform(0.2, 3, 2), draw.uniform(0.2, 3, 2)
        yield draw.uniform(-0.95, 0.95) * math.sqrt(a * b), a, b, draw.uniform(0, 0.9, 2)


def _leaky(k12: float, k11: float, k22: float, slope: float) -> tuple[float, float]:
    value, both = _relu(k12, k11, k22)
    return (1 - slope) ** 2 * value + slope * k12, (1 - slope) ** 2 * both + slope


leaky_expectations = Check(
    number="3.2",
    wants="answer(k12, k11, k22, slope) -> (float, float)",
    reference=_leaky,
    cases=_covariances,
    mistakes={
        "This is the ReLU's: the negative side has the slope a here.": lambda a, b, c, s: _relu(a, b, c),
        "The products of one part on and the other off are missing: phi(u) = (1 - a) max(u, 0) + a u has two parts, a product has four.": (
            lambda a, b, c, s: ((1 - s) ** 2 * _relu(a, b, c)[0] + s**2 * a, (1 - s) ** 2 * _relu(a, b, c)[1] + s**2)
        ),
        "The two parts are phi(u) = (1 - a) max(u, 0) + a u; with max(u, 0) + a u the slope above zero would be 1 + a.": (
            lambda a, b, c, s: (_relu(a, b, c)[0] + s * a + s**2 * a, _relu(a, b, c)[1] + s + s**2)
        ),
        "Only one of the two expectations is right: the second is that of the slopes, phi'(u) phi'(v).": (
            lambda a, b, c, s: (_leaky(a, b, c, s)[0], _relu(a, b, c)[1])
        ),
        "Only the second is right; in the first, E max(u, 0) v = k12 / 2.": lambda a, b, c, s: (
            (1 - s) ** 2 * _relu(a, b, c)[0],
            _leaky(a, b, c, s)[1],
        ),
    },
)


def _depths(draw: Draw):
    yield [0.5], [0.4], [0.3]
    yield [0.5], [], []
    for depth in draw.sizes(3, 2, 5):
        yield (
            [draw.uniform(-0.9, 1, 2)],
            [draw.uniform(0.1, 0.6, 2) for _ in range(depth)],
            [draw.uniform(0.1, 0.5, 2) for _ in range(depth)],
        )


def _shares(first: list, values: list, slopes: list, scale: float = 2.0, damp: int = 0) -> Tensor:
    """Return the summands of each layer's weights; ``damp`` shifts the slopes that damp them."""
    own = [2 * first[0], *(2 * v for v in values)]
    return torch.tensor(
        [a * math.prod(scale * s for s in slopes[layer + damp :]) for layer, a in enumerate(own)], dtype=torch.float64
    )


layers_share = Check(
    number="3.3",
    wants="answer(products, values, slopes) -> (L + 1,)",
    reference=_shares,
    cases=_depths,
    mistakes={
        "Each layer's share is damped by the slopes of all layers above it; these are not damped.": (
            lambda f, v, s: torch.tensor([2 * f[0], *(2 * x for x in v)])
        ),
        "The weights of a layer scale the gradient too: sigma_w squared belongs before the slopes.": lambda f, v, s: _shares(
            f, v, s, scale=1.0
        ),
        "One slope too few: the first layer's share passes the first hidden layer's slopes too.": lambda f, v, s: _shares(
            f, v, s, damp=1
        ),
        "These are the running sums, Theta layer by layer; wanted each layer's own summand in the last one.": (
            lambda f, v, s: torch.tensor([float(_shares(f, v[:n], s[:n]).sum()) for n in range(len(v) + 1)])
        ),
        "In the other order: the first layer comes first.": lambda f, v, s: _shares(f, v, s).flip(0),
        "The first layer has weights of its own: its share is missing.": lambda f, v, s: _shares(f, v, s)[1:],
        "sigma_w squared is missing before the values: Sigma is 2 times them.": lambda f, v, s: _shares(f, v, s) / 2,
    },
)


def _flows(draw: Draw):
    yield (
        torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64)),
        torch.tensor([[1.0, 1.0]], dtype=torch.float64),
        torch.tensor([2.0, 1.0], dtype=torch.float64),
        0.1,
        2,
    )
    yield (
        torch.tensor([[2.0]], dtype=torch.float64),
        torch.tensor([[1.0]], dtype=torch.float64),
        torch.tensor([3.0], dtype=torch.float64),
        0.25,
        0,
    )
    yield (
        torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64),
        torch.tensor([[1.0, 0.0], [1.0, 2.0], [0.0, -1.0]], dtype=torch.float64),
        torch.tensor([1.0, -2.0], dtype=torch.float64),
        0.1,
        3,
    )
    for _ in range(3):
        n, m = draw.sizes(2, 2, 6)
        gram = draw.gram(n) / n + torch.eye(n, dtype=torch.float64)  # so that float32 solves it to four digits
        yield gram, draw.normal(m, n), draw.normal(n), 0.8 / float(torch.linalg.eigvalsh(gram)[-1]), draw.integer(2, 6)


def _after(h: Tensor, k: Tensor, y: Tensor, rate: float, steps: int, kind: str = "steps") -> Tensor:
    values, vectors = torch.linalg.eigh(h)
    left = (1 - rate * values) ** steps if kind == "steps" else (-rate * steps * values).exp()
    return k @ vectors @ ((1 - left) / values * (vectors.T @ y))


answer_after_steps = Check(
    number="3.4",
    wants="answer(gram, cross, targets, rate, steps) -> (M,)",
    reference=_after,
    cases=_flows,
    mistakes={
        "This is the gradient flow's answer; steps multiply the residual by 1 - rate * lambda each.": lambda h, k, y, r, s: (
            _after(h, k, y, r, s, kind="flow")
        ),
        "This is the end of training; after a few steps not everything is learnt.": lambda h, k, y, r, s: (
            k @ torch.linalg.solve(h, y)
        ),
        "This is what is left to learn, not what has been learnt: 1 minus the power.": (
            lambda h, k, y, r, s: k @ torch.linalg.solve(h, y) - _after(h, k, y, r, s)
        ),
        "The inverse of the kernel is missing: what is learnt of an eigenvector is (1 - (1 - rate lambda)^steps) / lambda.": (
            lambda h, k, y, r, s: _after(h, k, h @ y, r, s)
        ),
        "One step too many.": lambda h, k, y, r, s: _after(h, k, y, r, s + 1),
        "One step too few.": lambda h, k, y, r, s: _after(h, k, y, r, max(0, s - 1)),
        "Only the first step is made: the residual changes after it.": lambda h, k, y, r, s: r * s * (k @ y),
        "These are the answers on the training points; the test points come in by `cross`.": lambda h, k, y, r, s: _after(
            h, h, y, r, s
        ),
        "The gradient of half the summed squared error has no factor 2.": lambda h, k, y, r, s: _after(h, k, y, 2 * r, s),
    },
)


def _grams(draw: Draw):
    yield (torch.tensor([[2.0, -1.0], [-1.0, 2.0]], dtype=torch.float64),)
    yield (torch.tensor([[1.0, 0.5], [0.5, 4.0]], dtype=torch.float64),)
    while True:  # the labels with the largest y^T G y are others here
        gram = draw.gram(4)
        signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)
        heaviest = signs[((signs @ gram) * signs).sum(1).argmax()]
        if abs(float(heaviest @ torch.linalg.eigh(gram)[1][:, -1].sign())) < 4:
            yield (gram,)
            break
    for n in draw.sizes(3, 3, 6):
        yield (draw.gram(n),)


def _is_easiest(got, wanted, gram: Tensor) -> bool | str:
    if not isinstance(got, Tensor) or got.shape != (len(gram),):
        return f"Return one label for each of the {len(gram)} samples."
    if got.dtype == torch.bool or not bool((got.abs() == 1).all()):
        return "Labels are -1 and 1."
    first = torch.linalg.eigh(gram)[1][:, -1]
    share, best = (float((first @ y) ** 2 / len(y)) for y in (got.double(), first.sign()))
    if abs(share - best) < 1e-9:
        return True
    return f"The share {share:.5f} of these labels lies along the first eigenvector; {best:.5f} is possible."


easiest_labels = Check(
    number="3.5",
    wants="answer(gram) -> (N,)",
    reference=lambda gram: torch.linalg.eigh(gram)[1][:, -1].sign(),
    cases=_grams,
    judge=_is_easiest,
    mistakes={
        "torch.linalg.eigh puts the smallest eigenvalue first; take the last column.": lambda gram: torch.linalg.eigh(gram)[1][
            :, 0
        ].sign(),
        "The eigenvectors are the columns of what torch.linalg.eigh returns, not its rows.": lambda gram: torch.linalg.eigh(gram)[
            1
        ][-1].sign(),
    },
)


def _powers(draw: Draw):
    widths = torch.tensor([64.0, 256.0], dtype=torch.float64)
    yield widths, 4 / widths.sqrt(), 0.05
    for _ in range(3):
        n = draw.integer(3, 6)
        widths = (2.0 ** draw.order(8)[:n].double()) * 16
        noise = (0.1 * draw.normal(n)).exp()
        yield widths, draw.uniform(0.5, 4, 2) * widths ** -draw.uniform(0.3, 1.2, 2) * noise, draw.uniform(0.001, 0.05, 3)


def _fitted(widths: Tensor, deviations: Tensor, target: float, power: float | None = None, logs: bool = True) -> float:
    x, y = (widths.log(), deviations.log()) if logs else (widths, deviations)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum() if power is None else power
    start = y.mean() - slope * x.mean()
    wanted = ((math.log(target) if logs else target) - start) / slope
    return float(wanted.exp() if logs else wanted)


width_for = Check(
    number="3.6",
    wants="answer(widths, deviations, target) -> float",
    reference=_fitted,
    cases=_powers,
    mistakes={
        "A power law is a line on logarithmic axes: fit the logarithms.": lambda w, d, t: _fitted(w, d, t, logs=False),
        "You took the slope -1/2 for granted: fit it.": lambda w, d, t: _fitted(w, d, t, power=-0.5),
        "This scales the last point with slope -1/2; fit a line to all of them.": lambda w, d, t: float(w[-1] * (d[-1] / t) ** 2),
        "This is the logarithm of the width.": lambda w, d, t: math.log(_fitted(w, d, t)),
        "This is the deviation at the width `target`; wanted the width at which the deviation is `target`.": (
            lambda w, d, t: math.exp(
                float(d.log().mean())
                + float(((w.log() - w.log().mean()) * (d.log() - d.log().mean())).sum() / ((w.log() - w.log().mean()) ** 2).sum())
                * (math.log(t) - float(w.log().mean()))
            )
        ),
        "This fits the inverse relation, log width as a function of log deviation; least squares of the deviations was asked for.": (
            lambda w, d, t: float(
                torch.exp(
                    w.log().mean()
                    + ((w.log() - w.log().mean()) * (d.log() - d.log().mean())).sum()
                    / ((d.log() - d.log().mean()) ** 2).sum()
                    * (math.log(t) - d.log().mean())
                )
            )
        ),
    },
)
