"""Checks of chapter 17: a layer, a filter, a branch, attention and recurrence, each as a rule for two kernels."""

import torch
from torch import Tensor

from ...kernels.infinite import expectations
from .core import Check
from .draws import Draw

__all__ = [
    "tangents_behind_a_layer",
    "mean_over_a_filter",
    "tangents_past_a_branch",
    "covariance_behind_attention",
    "last_moment",
]


def _grams(draw: Draw, n: int, m: int) -> tuple[Tensor, Tensor]:
    """Return covariances and tangent kernels of n samples with m others."""
    a, b, c, d = (draw.normal(k, 5) for k in (n, m, n, m))
    return a @ b.T / 5, a @ b.T / 5 + c @ d.T / 5


def _layers(draw: Draw):
    one = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    yield one, 2 * one, 2.0, 0.0
    yield one, 2 * one, 1.0, 3.0
    yield one, 2 * one, 2.0, 1.0
    for _ in range(4):
        n, m = draw.sizes(2, 2, 6)
        yield *_grams(draw, n, m), draw.uniform(0.5, 2, 2), draw.uniform(0.1, 1, 2)


def _layer(s: Tensor, t: Tensor, w: float, b: float, own: float = 1.0, earlier: float = 1.0) -> Tensor:
    return earlier * w**2 * t + own * (w**2 * s + b**2)


tangents_behind_a_layer = Check(
    number="17.1",
    wants="answer(sigma, theta, w_std, b_std) -> (N, M)",
    reference=_layer,
    cases=_layers,
    mistakes={
        "The layer's own weights and bias have gradients too: the new covariance is to be added.": lambda s, t, w, b: _layer(
            s, t, w, b, own=0
        ),
        "The earlier weights are missing: their share is multiplied by sigma_w squared.": lambda s, t, w, b: _layer(
            s, t, w, b, earlier=0
        ),
        "The own share of the weights is sigma_w squared times the covariance that comes in: their scale is part of the layer.": (
            lambda s, t, w, b: w**2 * t + s + b**2
        ),
        "The standard deviations are squared.": lambda s, t, w, b: w * t + w * s + b,
        "The bias's gradient is missing: sigma_b squared.": lambda s, t, w, b: w**2 * (t + s),
        "A bias counts once, not in the share of the earlier weights.": lambda s, t, w, b: w**2 * t + w**2 * s + 2 * b**2,
    },
)


def _sequences(draw: Draw):
    yield torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]], dtype=torch.float64), 3
    yield torch.eye(4, dtype=torch.float64), 3
    for size in (3, 3, 5):
        yield draw.normal(*draw.sizes(2, 4, 8)), size


def _filtered(k: Tensor, size: int, around: bool = False, inside: bool = False) -> Tensor:
    reach, out, count = size // 2, torch.zeros_like(k), torch.zeros_like(k)
    (rows, cols) = k.shape
    for o in range(-reach, reach + 1):
        for p in range(rows):
            for q in range(cols):
                here, there = p + o, q + o
                if around:
                    here, there = here % rows, there % cols
                if 0 <= here < rows and 0 <= there < cols:
                    out[p, q] += k[here, there]
                    count[p, q] += 1
    return out / (count if inside else size)


def _apart(k: Tensor, size: int) -> Tensor:
    near = lambda n: ((torch.arange(n)[:, None] - torch.arange(n)).abs() <= size // 2).double() / size
    return near(len(k)) @ k @ near(k.shape[1])


mean_over_a_filter = Check(
    number="17.2",
    wants="answer(k, size) -> (L, M)",
    reference=_filtered,
    cases=_sequences,
    mistakes={
        "The offset is the same at both positions: one weight of the filter, not two. Both sides by themselves is pooling.": _apart,
        "Outside of a sequence there are zeros, not the other end of it.": lambda k, n: _filtered(k, n, around=True),
        "The mean is over all places of the filter, those outside included.": lambda k, n: _filtered(k, n, inside=True),
        "A mean, not a sum: the fan-in counts the filter's places.": lambda k, n: n * _filtered(k, n),
        "Both positions move: this has moved one of them.": lambda k, n: (
            ((torch.arange(len(k))[:, None] - torch.arange(len(k))).abs() <= n // 2).double() @ k / n
        ),
    },
)


def _branches(draw: Draw):
    one = torch.ones(1, 1, dtype=torch.float64)
    yield one, 3 * one, one / 2, one / 2, 2.0
    yield one, 3 * one, one / 2, one / 2, 1.0
    yield (
        torch.ones(2, 3, dtype=torch.float64),
        3 * one.expand(2, 3),
        one.expand(2, 3) / 2,
        torch.tensor([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0]]).double(),
        2.0,
    )
    for _ in range(4):
        n, m = draw.sizes(2, 2, 6)
        sigma, theta = _grams(draw, n, m)
        own = sigma.abs().max() + 0.1
        value, slope = expectations("relu", sigma, own.expand(n, 1), own.expand(1, m))
        yield sigma, theta, value, slope, draw.uniform(0.5, 2, 2)


def _branch(
    s: Tensor, t: Tensor, value: Tensor, slope: Tensor, w: float, past: float = 1, own: float = 1, inner: float = 1
) -> Tensor:
    return past * t + w**2 * (inner * slope * t + own * value)


tangents_past_a_branch = Check(
    number="17.3",
    wants="answer(sigma, theta, value, slope, w_std) -> (N, M)",
    reference=_branch,
    cases=_branches,
    mistakes={
        "That is the branch alone: the way past it adds theta itself.": lambda s, t, v, p, w: _branch(s, t, v, p, w, past=0),
        "The branch's own weights have gradients: their share is value, what comes into its layer.": (
            lambda s, t, v, p, w: _branch(s, t, v, p, w, own=0)
        ),
        "The earlier weights act through the branch too: slope times theta.": lambda s, t, v, p, w: _branch(
            s, t, v, p, w, inner=0
        ),
        "The slope multiplies theta, not sigma.": lambda s, t, v, p, w: t + w**2 * (p * s + v),
        "Into the branch's layer comes the activation, whose covariance is value, and not sigma.": (
            lambda s, t, v, p, w: t + w**2 * (p * t + s)
        ),
        "sigma_w is squared.": lambda s, t, v, p, w: t + w * (p * t + v),
        "The own share is multiplied by sigma_w squared as well.": lambda s, t, v, p, w: t + w**2 * p * t + v,
    },
)


def _tokens(draw: Draw):
    two = torch.eye(2, dtype=torch.float64)
    yield torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64), torch.zeros_like(two), 2 * two
    steps = torch.tensor([[0.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    yield torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64), steps, torch.zeros_like(two)
    yield torch.tensor([[1.0, 2.0], [0.0, 3.0]], dtype=torch.float64), steps, 2 * two + steps
    for _ in range(4):
        t, s = draw.sizes(2, 2, 5)
        a, b = draw.normal(t, 4), draw.normal(s, 4)
        yield a @ b.T / 2, a @ a.T / 2, b @ b.T / 2


def _attended(k: Tensor, a: Tensor, b: Tensor, axis: int = 1) -> Tensor:
    return torch.softmax(a, axis) @ k @ torch.softmax(b, axis).T


covariance_behind_attention = Check(
    number="17.4",
    wants="answer(k, own, other) -> (T, S)",
    reference=_attended,
    cases=_tokens,
    mistakes={
        "The softmax runs over the tokens that are looked at, along each row of scores: a row of weights adds up to one, and the other's "
        "weights stand transposed on the right.": (lambda k, a, b: _attended(k, a, b, axis=0)),
        "The weights on the left: softmax along the rows, and not transposed.": lambda k, a, b: (
            torch.softmax(a, 0) @ k @ torch.softmax(b, 1).T
        ),
        "Each sample's scores come from that sample alone, not from the pair.": lambda k, a, b: (
            torch.softmax(k @ k.T, 1) @ k @ torch.softmax(k.T @ k, 1).T
        ),
        "Scores pass a softmax before they weigh anything.": lambda k, a, b: a @ k @ b.T,
        "Both samples attend: the other's weights are missing on the right.": lambda k, a, b: torch.softmax(a, 1) @ k,
        "Both samples attend: the first one's weights are missing on the left.": lambda k, a, b: k @ torch.softmax(b, 1).T,
        "The mean over all tokens: that is what scores of zero would give.": lambda k, a, b: torch.full_like(k, float(k.mean())),
        "The weights on the right: softmax along the rows, and the transpose of that.": lambda k, a, b: (
            torch.softmax(a, 1) @ k @ torch.softmax(b, 1)
        ),
    },
)


def _moments(draw: Draw):
    yield torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64), 1.0
    yield torch.ones(2, 2, dtype=torch.float64), 2.0
    yield torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float64), 1.0
    yield torch.tensor([[1.0, 5.0], [2.0, 3.0], [4.0, 7.0]], dtype=torch.float64), 2.0
    yield torch.tensor([[1.0, 0.0, 2.0], [3.0, 1.0, 1.0], [1.0, 2.0, 1.0]], dtype=torch.float64), 2.0
    for _ in range(4):
        yield draw.normal(*draw.sizes(2, 3, 6)), draw.uniform(0.4, 1.5, 2)


def _last(k: Tensor, w: float, carried: float = 1, own: float = 1, power: int = 2, what: int = 1) -> float:
    back = min(k.shape)
    sigma = theta = 0.0
    for i in reversed(range(back)):
        sigma = float(k[len(k) - 1 - i, k.shape[1] - 1 - i]) + w**power * sigma
        theta = own * sigma + carried * w**power * theta
    return (sigma, theta)[what]


def _from_the_start(k: Tensor, w: float) -> float:
    return _last(k[: min(k.shape), : min(k.shape)], w)


last_moment = Check(
    number="17.5",
    wants="answer(k, w_std) -> float",
    reference=_last,
    cases=_moments,
    mistakes={
        "That is the covariance of the last states; the tangent kernel has a share of every step's weights.": (
            lambda k, w: _last(k, w, what=0)
        ),
        "A step's own share is the new covariance once, and what is carried on is multiplied by sigma_w squared once.": (
            lambda k, w: _last(k, w, own=2)
        ),
        "sigma_w is squared.": lambda k, w: _last(k, w, power=1),
        "Both end at their last moments: count back from there, not on from the first ones.": _from_the_start,
        "The pair at (t, t') is made of the one at (t - 1, t' - 1), and not of all earlier ones.": lambda k, w: float(
            sum(w ** (2 * i) * k.flip(0, 1)[i:, i:].sum() for i in range(min(k.shape)))
        ),
    },
)
