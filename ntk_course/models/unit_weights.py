"""A network in the NTK parameterization: the same function of inputs, another of its weights."""

import copy

from torch import Tensor, nn

from ..basics import validate
from .functional import call_with

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


class Standardised(nn.Module):
    """A network whose parameters are numbers of mean square one, times scales that are not trained; made by :func:`standardised`.

    Attributes:
        names: the network's parameters that are trained.
        scales: of each.
        numbers: what is trained instead.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        model = copy.deepcopy(model)
        owners = {
            f"{name}.{own}".lstrip("."): m for name, m in model.named_modules() for own, _ in m.named_parameters(recurse=False)
        }
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.names, self.scales = tuple(trained), tuple(_scale(p, owners[name]) for name, p in trained.items())
        self.numbers = nn.ParameterList(
            nn.Parameter(p.detach() / (s or 1.0)) for p, s in zip(trained.values(), self.scales, strict=True)
        )
        self.model = model.requires_grad_(False)

    def forward(self, *args: Tensor) -> Tensor:
        """Answer as the network does, with scales times numbers for weights."""
        weights = {name: s * p for name, s, p in zip(self.names, self.scales, self.numbers, strict=True)}
        return call_with(self.model, weights, *args)


def _scale(p: Tensor, owner: nn.Module) -> float:
    if isinstance(owner, NORMS):
        return 1.0
    count = p.numel() - (p.shape[1] if isinstance(owner, nn.Embedding) and owner.padding_idx is not None else 0)
    return float((p.detach().double().square().sum() / count).sqrt())


def standardised(model: nn.Module) -> Standardised:
    r"""Put a network in the NTK parameterization: each parameter is its root mean square, fixed, times trained numbers of size one.

    A layer whose weights were drawn with deviation :math:`\sigma_w/\sqrt n` becomes :math:`\frac{\sigma_w}{\sqrt n} \omega` with
    :math:`\omega` of mean square one, whatever the initialisation was; the network computes what it did. Factors and shifts of norms
    stay as they are. Its tangent kernel is what :func:`ntk_course.kernels.infinite.limit` of the model tends to, with nothing else given.

    Args:
        model: any module; it is copied, and stays as it is.

    Returns:
        A module whose parameters are the numbers, in the model's dtype, on its device.

    Raises:
        TypeError: no module.

    Example:
        >>> net = mlp((64, 256, 10))
        >>> before = net(x)
        >>> torch.allclose(standardised(net)(x), before, atol=1e-6)
        True
    """
    return Standardised(validate.a_module(model))
