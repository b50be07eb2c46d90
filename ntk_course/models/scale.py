r"""The scale of lazy training: a network whose output is multiplied by alpha (Chizat, Oyallon & Bach, 2019)."""

import copy

from torch import Tensor, nn

from ..basics import validate


class Scaled(nn.Module):
    """A network, times a number, less its own answer at the start; made by :func:`scaled`."""

    def __init__(self, model: nn.Module, alpha: float, centred: bool):
        super().__init__()
        self.model, self.alpha = model, alpha
        self.start = copy.deepcopy(model).eval().requires_grad_(False) if centred else None

    def train(self, mode: bool = True) -> "Scaled":
        """Set the mode of the network; its answer at the start stays that of eval mode."""
        super().train(mode)
        if self.start is not None:
            self.start.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Answer for a batch (N, ...)."""
        z = self.model(x)
        return self.alpha * (z if self.start is None else z - self.start(x))

    def extra_repr(self) -> str:
        """Name the scale."""
        return f"alpha={self.alpha:g}"


def scaled(model: nn.Module, alpha: float, *, centred: bool = True) -> Scaled:
    r"""Multiply a network's output by alpha, and take its answer at the start away (Chizat, Oyallon & Bach, 2019, sec. 2).

    .. math:: h(x; w) = \alpha\,\big(f(x; w) - f(x; w_0)\big)

    Train it with the learning rate :math:`\eta/\alpha^2`. The outputs then move, to first order, by :math:`-\eta` times the
    tangent kernel of f whatever alpha is, and the weights by :math:`1/\alpha`: for large alpha training is *lazy*, for small
    alpha *rich*. The tangent kernel of h itself is :math:`\alpha^2` times that of f.

    Args:
        model: any module; it is not copied, so that training h trains it.
        alpha: a positive number.
        centred: take the answer at the start away. Without it h begins at alpha times what the network happens to say.

    Returns:
        A module whose trainable parameters are those of ``model``.

    Raises:
        TypeError, ValueError: no module, or a scale that is not positive and finite.

    Example:
        >>> h = scaled(mlp((64, 32, 10)), 10.0)
        >>> float(h(x).abs().max())
        0.0
        >>> history = train(h, x, y, epochs=2, lr=0.1 / 10.0**2, progress=False)
    """
    validate.a_module(model)
    return Scaled(model, validate.above_zero(alpha, "alpha"), centred)
