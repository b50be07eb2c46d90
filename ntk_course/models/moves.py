r"""Linear layers with a move of low rank beside weights that stay: LoRA, and what it leaves of the tangent kernel."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..basics import validate


class LowRank(nn.Module):
    """A linear layer that stays, plus ``scale * up(down(x))``, which is trained; made by :func:`low_rank`.

    Attributes:
        layer: what stays.
        down: A, (rank, in).
        up: B, (out, rank).
        scale: s.
    """

    def __init__(self, layer: nn.Linear, rank: int, scale: float):
        super().__init__()
        like = {"dtype": layer.weight.dtype, "device": layer.weight.device}
        self.layer, self.scale = layer.requires_grad_(False), scale
        self.down = nn.Linear(layer.in_features, rank, bias=False, **like)
        self.up = nn.Linear(rank, layer.out_features, bias=False, **like)
        nn.init.normal_(self.down.weight, std=rank**-0.5)
        nn.init.zeros_(self.up.weight)
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """Answer for inputs (..., in)."""
        return self.layer(x) + self.scale * self.up(self.down(x))

    # What surroundings read off a linear layer, such as torch's own attention and transformer blocks.

    @property
    def weight(self) -> Tensor:
        """The weight with its move, (out, in): what to keep when the move is to be merged."""
        return self.layer.weight + self.scale * self.up.weight @ self.down.weight

    @property
    def bias(self) -> Tensor | None:
        """The layer's own, which stays."""
        return self.layer.bias

    @property
    def in_features(self) -> int:
        """Numbers in."""
        return self.layer.in_features

    @property
    def out_features(self) -> int:
        """Numbers out."""
        return self.layer.out_features


def low_rank(
    model: nn.Module, rank: int, *, scale: float = 1.0, layers: str | Sequence[str] | None = None, seed: int = 0
) -> nn.Module:
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
        layers: names of linear layers, as in ``model.named_modules()``; by default all. Linear layers are those whose forward is that of
            ``nn.Linear``; other weights (convolutions, embeddings, an attention's ``in_proj_weight``) are frozen and get no move.
        seed: of the draws of A.

    Returns:
        A copy, in the model's dtype, on its device and in its mode, in whose linear layers A and B are trained and nothing else is.

    Raises:
        TypeError: no module, or a scale that is no number.
        ValueError: no linear layer; a name that is none; a layer, or a weight, that stands in the model under two names, which two moves
            would part; a model that has moves already; a rank that is not positive, a negative scale.

    Example:
        >>> tuned = low_rank(model, rank=4)
        >>> torch.equal(tuned(x), model(x)), sum(p.numel() for p in tuned.parameters() if p.requires_grad)
        (True, 552)
    """
    rank, scale = validate.positive(rank, "rank"), validate.number(scale, "scale")
    model = copy.deepcopy(validate.a_module(model)).requires_grad_(False)
    modules = dict(model.named_modules(remove_duplicate=False))
    if any(isinstance(m, LowRank) for m in modules.values()):
        raise ValueError("model: got one that has moves of low rank already; wanted the network as it was before them")
    found = {name: m for name, m in modules.items() if isinstance(m, nn.Linear) and type(m).forward is nn.Linear.forward}
    if not found:
        raise ValueError(f"model: got a {type(model).__name__} without a linear layer; wanted at least one to give a move")
    chosen = list(found) if layers is None else [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    if unknown := [name for name in chosen if name not in found]:
        raise ValueError(f"layers: got {unknown}; wanted names of linear layers, among {list(found)}")
    if not chosen:
        raise ValueError(f"layers: got none; wanted at least one of {list(found)}")
    for name in chosen:
        same = [other for other, m in found.items() if m is found[name] or (other in chosen and m.weight is found[name].weight)]
        if len(same) > 1:
            raise ValueError(
                f"layers: got {name!r}, whose weight stands in the model as {same}; wanted layers whose weights are their own"
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(validate.seed(seed))
        adapted = {name: LowRank(found[name], rank, scale) for name in chosen}
    for name, layer in adapted.items():
        if not name:
            return layer
        where, _, last = name.rpartition(".")
        setattr(model.get_submodule(where), last, layer)
    return model
