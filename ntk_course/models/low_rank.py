r"""Linear layers with a move of low rank beside weights that stay: LoRA, and what it leaves of the tangent kernel."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..basics import validate


class LowRank(nn.Module):
    """A linear layer that stays, plus ``scale * up(down(x))``, which is trained; made by :func:`low_rank`."""

    def __init__(self, layer: nn.Linear, rank: int, scale: float):
        super().__init__()
        like = {"dtype": layer.weight.dtype, "device": layer.weight.device}
        self.layer, self.scale = layer.requires_grad_(False), scale
        self.down = nn.Linear(layer.in_features, rank, bias=False, **like)
        self.up = nn.Linear(rank, layer.out_features, bias=False, **like)
        nn.init.normal_(self.down.weight, std=rank**-0.5)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Answer for inputs (..., in)."""
        return self.layer(x) + self.scale * self.up(self.down(x))


def low_rank(model: nn.Module, rank: int, *, scale: float = 1.0, layers: Sequence[str] | None = None, seed: int = 0) -> nn.Module:
    r"""Freeze a network and give its linear layers moves of low rank, :math:`W + s\, B A` (Hu et al., 2022, LoRA).

    A (rank, in) is drawn from :math:`\mathcal N(0, 1/\mathrm{rank})` and B (out, rank) is zero, so that the network answers as before. At
    the start only B has a gradient, and a layer's share of the tangent kernel is that of its whole weight, with
    :math:`s^2 (A a)^\top (A a')` in place of :math:`a^\top a'` for layer inputs a: a random projection, which is right on average, with a
    relative deviation of about :math:`\sqrt{2/\mathrm{rank}}` on the diagonal (Malladi et al., 2023). The authors' code draws A otherwise,
    which is a factor.

    Args:
        model: it is copied, and stays as it is.
        rank: of each move, at least 1.
        scale: s; :math:`\alpha/\mathrm{rank}` in the paper's words.
        layers: names of linear layers, as in ``model.named_modules()``; by default all.
        seed: of the draws of A.

    Returns:
        A copy, in the model's dtype, on its device, in whose linear layers A and B are trained and nothing else is.

    Raises:
        TypeError: no module; ValueError: no linear layer, a name that is none, one whose weights are shared, a rank that is not positive.

    Example:
        >>> tuned = low_rank(model, rank=4)
        >>> torch.equal(tuned(x), model(x)), sum(p.numel() for p in tuned.parameters() if p.requires_grad)
        (True, 552)
    """
    rank, model = validate.positive(rank, "rank"), copy.deepcopy(validate.a_module(model)).requires_grad_(False)
    found = {name: m for name, m in model.named_modules(remove_duplicate=False) if type(m) is nn.Linear}
    chosen = list(found) if layers is None else [layers] if isinstance(layers, str) else list(layers)
    if unknown := [name for name in chosen if name not in found]:
        raise ValueError(f"layers: got {unknown}; wanted names of linear layers, among {list(found)}")
    if not chosen:
        raise ValueError("layers: got none; wanted at least one linear layer")
    if len({id(found[name].weight) for name in chosen}) < len(chosen):
        raise ValueError("layers: got two with one weight; wanted layers whose weights are their own")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(validate.seed(seed))
        adapted = {name: LowRank(found[name], rank, float(scale)) for name in chosen}
    for name, layer in adapted.items():
        if not name:
            return layer
        where, _, last = name.rpartition(".")
        setattr(model.get_submodule(where), last, layer)
    return model
