"""Checks of chapter 15: scales, exponents of the width, a diagonal network, large steps."""

import torch
from torch import Tensor

from .core import Check
from .draws import Draw

__all__ = ["scale_for_a_change", "shifted_exponents", "end_of_the_diagonal", "catapult_step", "fate_of_a_rate"]


def _changes(draw: Draw):
    yield 0.2, 2.0, 0.1, True
    yield 0.2, 2.0, 0.1, False
    for smooth in (True, False, True, False):
        yield draw.uniform(0.1, 0.9, 2), draw.uniform(0.5, 8, 2), draw.uniform(0.005, 0.09, 3), smooth


scale_for_a_change = Check(
    number="15.1",
    wants="answer(change, alpha, wanted, smooth) -> float",
    reference=lambda c, a, w, smooth: a * c / w if smooth else a * (c / w) ** 2,
    cases=_changes,
    mistakes={
        "Upside down: a smaller change takes a larger scale.": lambda c, a, w, smooth: a * w / c if smooth else a * (w / c) ** 2,
        "With kinks the change falls like the root of the scale: half the change takes four times the scale.": (
            lambda c, a, w, smooth: a * c / w
        ),
        "Smooth networks keep to one over the scale; the square is for kinks.": lambda c, a, w, smooth: a * (c / w) ** 2,
        "The exponent is turned round: square the ratio, do not take its root.": lambda c, a, w, smooth: (
            a * c / w if smooth else a * (c / w) ** 0.5
        ),
        "The two cases are exchanged: one over the scale is for smooth networks.": lambda c, a, w, smooth: (
            a * c / w if not smooth else a * (c / w) ** 2
        ),
        "This is the factor; multiply it by the scale at which the change was measured.": lambda c, a, w, smooth: (
            c / w if smooth else (c / w) ** 2
        ),
    },
)


def _exponents(draw: Draw):
    yield torch.tensor([0.0, 0.5], dtype=torch.float64), torch.tensor([0.0, 0.0], dtype=torch.float64), 0.0, 0.5
    yield torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor([0.0, 0.0], dtype=torch.float64), -1.0, -0.5
    for layers in draw.sizes(3, 2, 5):
        yield draw.normal(layers), draw.normal(layers), draw.uniform(-1.5, 1.5, 2), draw.uniform(0.3, 1.7, 2)


def _joined(a: Tensor, b: Tensor, c: float) -> Tensor:
    return torch.cat([a, b, torch.tensor([c], dtype=a.dtype)])


shifted_exponents = Check(
    number="15.2",
    wants="answer(a, b, c, theta) -> (2 L + 1,)",
    reference=lambda a, b, c, t: _joined(a + t, b - t, c - 2 * t),
    cases=_exponents,
    mistakes={
        "The rate is missing: weights that count less need larger steps.": lambda a, b, c, t: _joined(a + t, b - t, c),
        "The multiplier enters twice, in the gradient and in what a step of the weights does: shift c by twice theta.": (
            lambda a, b, c, t: _joined(a + t, b - t, c - t)
        ),
        "The sign of the rate's shift is turned: a smaller multiplier wants a larger rate.": lambda a, b, c, t: _joined(
            a + t, b - t, c + 2 * t
        ),
        "b must give back what a takes, or the network at the start is another one.": lambda a, b, c, t: _joined(
            a + t, b + t, c - 2 * t
        ),
        "b is missing: the network at the start is another one.": lambda a, b, c, t: _joined(a + t, b, c - 2 * t),
        "All signs are turned: that is the shift by minus theta.": lambda a, b, c, t: _joined(a - t, b + t, c + 2 * t),
    },
)


def _ends(draw: Draw):
    yield torch.tensor([[1.0, 2.0]], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64), 1.0
    for _ in range(3):
        n, d = draw.sizes(2, 2, 6)
        yield draw.normal(n, d), 0.5 * draw.normal(n), draw.uniform(0.2, 1.4, 2)


def _end(x: Tensor, nu: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    beta = 2 * alpha**2 * (nu @ x).sinh()
    return beta, beta.square() + 4 * alpha**4


end_of_the_diagonal = Check(
    number="15.3",
    wants="answer(x, nu, alpha) -> (N, N)",
    reference=lambda x, nu, a: 4 * (x * _end(x, nu, a)[1].sqrt()) @ x.T,
    cases=_ends,
    mistakes={
        "That is the kernel of the start, 8 alpha^2 X X^T; wanted the one at the end.": lambda x, nu, a: 8 * a**2 * x @ x.T,
        "These are the squares of the sum: take the root of beta^2 + 4 alpha^4.": lambda x, nu, a: (
            4 * (x * _end(x, nu, a)[1]) @ x.T
        ),
        "The factor 4 is missing: each weight enters as a square, so its derivative has a 2.": lambda x, nu, a: (
            (x * _end(x, nu, a)[1].sqrt()) @ x.T
        ),
        "The weights of the start stay in the kernel: beta^2 + 4 alpha^4, not beta^2 alone.": lambda x, nu, a: (
            4 * (x * _end(x, nu, a)[0].abs()) @ x.T
        ),
        "4 alpha^4, not 4 alpha^2: u v stays at alpha^2.": lambda x, nu, a: (
            4 * (x * (_end(x, nu, a)[0].square() + 4 * a**2).sqrt()) @ x.T
        ),
        "beta is 2 alpha^2 sinh(X^T nu); the 2 is missing.": lambda x, nu, a: (
            4 * (x * ((_end(x, nu, a)[0] / 2).square() + 4 * a**4).sqrt()) @ x.T
        ),
    },
)


def _thrown(draw: Draw):
    yield 1.0, 1.0, 1.0, 4
    yield 2.0, 1.5, 2.0, 16
    yield -1.0, 1.0, 3.0, 10
    for _ in range(4):  # |f| is at most half of the root of m times the kernel, or no weights have these two
        m, kernel = draw.integer(12, 90), draw.uniform(0.9, 3, 2)
        yield (
            round(draw.choice((-1, 1)) * draw.uniform(0.3, 0.9, 2) * m**0.5 * kernel / 2, 2),
            kernel,
            draw.uniform(0.2, 3.5, 2),
            m,
        )


def _step(f: float, k: float, r: float, n: int, four: float = 4.0, width: float = 1.0) -> Tensor:
    share = r * f * f / n**width
    return torch.tensor([(1 - r * k + r * share) * f, k + share * (r * k - four)], dtype=torch.float64)


catapult_step = Check(
    number="15.4",
    wants="answer(f, kernel, rate, width) -> (2,)",
    reference=_step,
    cases=_thrown,
    mistakes={
        "That is the linear step: at finite width both numbers have a term in f^2 / m.": lambda f, k, r, n: torch.tensor(
            [(1 - r * k) * f, k], dtype=torch.float64
        ),
        "The kernel moves as well.": lambda f, k, r, n: torch.stack([_step(f, k, r, n)[0], torch.tensor(k, dtype=torch.float64)]),
        "The kernel's step uses the output before the step, not after it.": lambda f, k, r, n: torch.stack(
            [_step(f, k, r, n)[0], _step(float(_step(f, k, r, n)[0]), k, r, n)[1]]
        ),
        "eta K - 4, not eta K - 2: each of u and v brings two.": lambda f, k, r, n: _step(f, k, r, n, four=2.0),
        "The terms of finite width are divided by the width m, not by its root.": lambda f, k, r, n: _step(f, k, r, n, width=0.5),
        "The output's new term has the rate squared.": lambda f, k, r, n: torch.stack(
            [
                torch.tensor((1 - r * k + r * f * f / n) * f, dtype=torch.float64),
                _step(f, k, r, n)[1],
            ]
        ),
        "The kernel's term is turned: below eta K = 4 the kernel falls.": lambda f, k, r, n: torch.stack(
            [_step(f, k, r, n)[0], 2 * k - _step(f, k, r, n)[1]]
        ),
    },
)


def _rates(draw: Draw):
    one = torch.ones(1, 1, dtype=torch.float64)
    yield one, 1.0
    yield one, 3.0
    yield one, 4.5
    yield one, 2.0
    yield one, 4.0
    yield torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64), 1.0
    for small, large in draw.each(((1.0, 2.0), (2.0, 1.0), (1.0, 3.0))):  # the largest stands first, or last
        yield torch.diag(torch.tensor([small, large], dtype=torch.float64)), draw.uniform(1.2, 1.3, 2)
    for aim in (0.97, 1.03, 1.96, 2.04, 0.4, 0.8, 0.98, 1.02, 1.3, 1.6, 2.6, 3.1):
        n = draw.integer(2, 6)
        phi = draw.normal(n, n + 2)
        gram = phi @ phi.T
        top = float(torch.linalg.eigvalsh(gram)[-1])
        yield gram, aim * 2 * n / top


def _fate(gram: Tensor, rate: float, low: float = 2.0, mean: bool = True, top: int = -1) -> str:
    curvature = rate * float(torch.linalg.eigvalsh(gram)[top]) / (len(gram) if mean else 1)
    return "lazy" if curvature < low else "catapult" if curvature < 2 * low else "diverges"


fate_of_a_rate = Check(
    number="15.5",
    wants="answer(gram, rate) -> 'lazy', 'catapult' or 'diverges'",
    reference=_fate,
    cases=_rates,
    mistakes={
        "The mean over N samples divides the kernel by N.": lambda g, r: _fate(g, r, mean=False),
        "The bound is 2 over the rate, not 1.": lambda g, r: _fate(g, r, low=1.0),
        "The largest eigenvalue decides, not the mean of the diagonal.": lambda g, r: _fate(
            torch.eye(len(g), dtype=g.dtype) * float(g.diagonal().mean()), r
        ),
        "The largest eigenvalue decides, not the smallest.": lambda g, r: _fate(g, r, top=0),
        "Between 2 and 4 it is thrown, and comes down; above 4 it diverges.": lambda g, r: (
            "lazy" if _fate(g, r) == "lazy" else "diverges"
        ),
    },
)
