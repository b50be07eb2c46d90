r"""The linearised network, and a network whose start is drawn from its own tangent kernel."""

import copy

import torch
from torch import Tensor, nn
from torch.func import jvp

from ..basics import validate
from .functional import call_with


class Linearised(nn.Module):
    """The first-order expansion of a network in its weights; made by :func:`linearised`.

    Attributes:
        names: the network's parameters that are trained.
        moves: how far each has gone from where the network was expanded, the parameters of this module.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        model = copy.deepcopy(model)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.names = tuple(trained)
        self.moves = nn.ParameterList(nn.Parameter(torch.zeros_like(p)) for p in trained.values())
        self.model = model.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "Linearised":
        """Set the mode of the moves; the network that was expanded stays in eval mode."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, *args: Tensor) -> Tensor:
        """Answer for a batch, at the moves there are."""
        z, moved = self.both(*args)
        return z + moved

    def both(self, *args: Tensor) -> tuple[Tensor, Tensor]:
        """Return the answer where the network was expanded, and how far the moves have taken it."""
        own = dict(self.model.named_parameters())
        at = {name: own[name] for name in self.names}
        along = dict(zip(self.names, self.moves, strict=True))
        z, moved = jvp(lambda w: call_with(self.model, w, *args), (at,), (along,))[:2]
        return z, moved


def linearised(model: nn.Module) -> Linearised:
    r"""Replace a network by its first-order expansion in the weights, about where they are now (Lee et al., 2019, sec. 2.2).

    .. math:: f^{\mathrm{lin}}(x; m) = f(x; w_0) + \frac{\partial f(x; w_0)}{\partial w}\, m

    Its parameters are the moves m, which begin at zero. Its tangent kernel is that of the network at :math:`w_0`, at any m, so that
    :func:`ntk_course.analysis.gradient_flow` says exactly how it is trained.

    Args:
        model: any module with a forward-mode derivative; it is copied, and stays as it is. The copy is in eval mode, always.

    Returns:
        A module, in the model's dtype, on its device.

    Raises:
        TypeError: no module.

    Example:
        >>> flat = linearised(model)
        >>> torch.equal(flat(x), model(x))  # until it moves
        True
        >>> torch.allclose(pntk(flat, x), pntk(model, x), rtol=1e-4)
        True
    """
    return Linearised(validate.a_module(model))


class Restarted(nn.Module):
    """A network less its own start, plus a draw from its tangent kernel; made by :func:`restarted`."""

    def __init__(self, model: nn.Module, drawn: Linearised):
        super().__init__()
        self.model, self.drawn = model, drawn.requires_grad_(False)

    def forward(self, *args: Tensor) -> Tensor:
        """Answer for a batch (N, ...)."""
        start, drawn = self.drawn.both(*args)
        return self.model(*args) - start + drawn


def restarted(model: nn.Module, seed: int = 0) -> Restarted:
    r"""Give a network another function to start from: a draw from the Gaussian process of its own tangent kernel.

    .. math:: h(x; w) = f(x; w) - f(x; w_0) + \frac{\partial f(x; w_0)}{\partial w}\, \xi, \qquad \xi \sim \mathcal N(0, I)

    Only w is trained. Trained to the end on the squared loss, wide networks :math:`h` with different seeds are draws from the posterior of the
    tangent kernel, which networks :math:`f` are not: those start from another kernel, the NNGP. He, Lakshminarayanan & Teh (2020) keep
    :math:`f(x; w_0)` and draw :math:`\xi` for all layers but the last, which is the same law in the limit; here the start has the
    network's own tangent kernel as its covariance, at any width. Scales are those of the network's parameterization: the NTK's for the
    theorem (:func:`ntk_course.infinite.network`, :func:`ntk_course.models.standardised`).

    Args:
        model: as in :func:`linearised`; it is not copied, so that training h trains it.
        seed: of the draw.

    Returns:
        A module whose trainable parameters are those of ``model``.

    Raises:
        TypeError: no module.

    Example:
        >>> h = restarted(infinite.network((64, 32, 1)), seed=1)
        >>> len(list(p for p in h.parameters() if p.requires_grad))
        2
    """
    drawn = linearised(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(validate.seed(seed))
        for p in drawn.moves:
            p.data.copy_(torch.randn(p.shape, dtype=p.dtype))
    return Restarted(model, drawn)
