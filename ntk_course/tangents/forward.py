"""Forward mode beside reverse mode: the two differ where a model's gradient is not the derivative of what it computes.

``no_grad`` around a part, a hook that scales a gradient, a straight-through estimator or a weight made outside ``forward`` change
what plain autograd sends back, and say nothing to forward mode. The tangents of this package are those of plain autograd.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import jvp

from ..basics.samples import Batch, Samples
from ..models.functional import call_with
from .culprit import tolerance_of
from .routes import gradients
from .running import Traces, everything, in_rows, plainly, run, untraced


def forward_agrees(model: nn.Module, x: Samples) -> bool:
    """Say whether outputs that move along a random direction of the weights move as plain autograd says, for a few samples.

    False also where an operation has no rule for forward mode.
    """
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    draw = torch.Generator().manual_seed(0)
    u = {name: torch.randn(p.shape, generator=draw).to(p) for name, p in weights.items()}
    some, traces = x[few(len(x))], everything(model)
    try:
        with untraced(model, traces), plainly(model):
            free = {name: p.detach() for name, p in weights.items()}
            moved = jvp(lambda w: call_with(model, w, some.clone()), (free,), (u,))[1].detach()
    except RuntimeError:
        return False
    return agrees(model, some, weights, u, in_rows(moved), traces)


def few(n: int) -> list[int]:
    """Return the numbers of a few of n samples: the first, the last, the one in the middle."""
    return sorted({0, n // 2, n - 1})


def agrees(
    model: nn.Module,
    x: Tensor | Batch,
    weights: Mapping[str, nn.Parameter],
    u: Mapping[str, Tensor],
    moved: Tensor,
    traces: Traces,
) -> bool:
    """Say whether outputs that moved (N, K) along u are what plain autograd says.

    A random number for each output adds them up: one backward pass gives the same sum.

    Args:
        model: as it is.
        x: the samples (N, ...).
        weights: the parameters that moved, by name.
        u: where to, by name.
        moved: the change of the outputs (N, K), all axes of an output in one, by forward mode.
        traces: what the model leaves behind.
    """
    with torch.inference_mode(False), torch.enable_grad():
        z = in_rows(run(model, x, traces))
        s = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).to(z)
        found = gradients(model, z, s, list(weights.values()))
    moved, products = moved.detach(), [g * u[name].detach() for g, name in zip(found, weights, strict=True) if g is not None]
    far = abs(sum(float(p.sum()) for p in products) - float((s * moved).sum()))
    size = sum(float(p.norm()) for p in products) + float((s * moved).abs().sum())
    if not math.isfinite(size):  # what is infinite tells nothing
        return True
    return far <= tolerance_of(moved.dtype) * size
