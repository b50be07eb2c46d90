"""The networks of the course: plain torch.nn modules that map a batch to logits (N, K)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..basics import validate


class Pointwise(nn.Module):
    """A function of every number, as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function."""
        return self.function(x)

    def extra_repr(self) -> str:
        """Name the function."""
        return self.function.__name__


_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,  # also known as swish
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "erf": partial(Pointwise, torch.erf),
    "abs": partial(Pointwise, torch.abs),
    "sin": partial(Pointwise, torch.sin),
}


def activation_module(name: str) -> nn.Module:
    """Make the module of an activation.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> activation_module("erf")(torch.zeros(1))
        tensor([0.])
    """
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation: got {name!r}; wanted one of {sorted(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]()


def mlp(sizes: Sequence[int], activation: str = "relu", bias: bool = True) -> nn.Sequential:
    r"""Build a fully connected network on flattened inputs.

    .. math:: z = W_L\,\sigma(\cdots\sigma(W_1 x + b_1)\cdots) + b_L

    Args:
        sizes: layer widths from input to output, e.g. ``(64, 128, 10)``.
        activation: "relu", "leaky_relu", "tanh", "gelu", "softplus", "sigmoid", "erf", "abs" or "sin".
        bias: whether the layers have biases.

    Returns:
        A module from ``(N, ...)`` with ``sizes[0]`` numbers a sample to logits ``(N, sizes[-1])``, float32, on the CPU.

    Raises:
        ValueError: fewer than two sizes, a size below 1, or an unknown activation.

    Example:
        >>> mlp((64, 32, 10))(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes: got {tuple(sizes)}; wanted at least an input and an output width")
    for size in sizes:
        validate.positive(size, "sizes")
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(fan_in, fan_out, bias=bias), activation_module(activation)]
    return nn.Sequential(*layers[:-1])


def lenet5(num_classes: int = 10) -> nn.Sequential:
    """Build LeNet-5 for 28 x 28 grey images: 61,706 parameters with ten classes.

    Two 5 x 5 convolutions (6 and 16 channels) with ReLU and 2 x 2 max pooling, then 120, 84 and K units: the network of
    LeCun et al. (1998) with today's activations. The text of the lpNTK paper (Guo et al., 2024, sec. 3) says "LeNet" for
    MNIST; its public code trains :func:`authors_cnn` under that name.

    Args:
        num_classes: K.

    Returns:
        A module from ``(N, 1, 28, 28)`` to logits ``(N, K)``, float32, on the CPU.

    Raises:
        ValueError: num_classes below 1.

    Example:
        >>> lenet5()(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """
    validate.positive(num_classes, "num_classes")
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, num_classes),
    )


def authors_cnn(in_channels: int = 1, image_size: int = 28, num_classes: int = 10) -> nn.Sequential:
    """Build the convolutional network that the lpNTK paper's public code trains on MNIST: 1,199,882 parameters there.

    It is called LeNet in that code (of Guo et al., 2024), and is the network of PyTorch's MNIST example: two 3 x 3 convolutions
    without padding (32 and 64 channels) with ReLU, 2 x 2 max pooling, dropout of 1/4, 128 units with ReLU, dropout of 1/2, K
    units. In train mode two passes of one image give two answers; kernels need ``.eval()``.

    Args:
        in_channels: channels of the input images (1 in that code).
        image_size: their height and width, an even number of at least 6 (28 in that code).
        num_classes: K.

    Returns:
        A module from ``(N, in_channels, image_size, image_size)`` to logits ``(N, K)``, float32, on the CPU, in train mode.

    Raises:
        ValueError: an argument below 1, an image size that is odd or too small.

    Example:
        >>> authors_cnn()(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """
    for name, value in (("in_channels", in_channels), ("image_size", image_size), ("num_classes", num_classes)):
        validate.positive(value, name)
    if image_size < 6 or image_size % 2:
        raise ValueError(f"image_size: got {image_size}; wanted an even number of at least 6")
    side = (image_size - 4) // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64 * side * side, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, num_classes),
    )


def small_cnn(
    in_channels: int = 1,
    image_size: int = 8,
    channels: Sequence[int] = (8, 16),
    num_classes: int = 10,
    activation: str = "relu",
) -> nn.Sequential:
    """Build a small convolutional network: 3 x 3 convolutions, each halved by 2 x 2 max pooling, and one linear layer.

    Args:
        in_channels: channels of the input images.
        image_size: their height and width, divisible by ``2 ** len(channels)``.
        channels: output channels of each convolution.
        num_classes: K.
        activation: as in :func:`mlp`.

    Returns:
        A module from ``(N, in_channels, image_size, image_size)`` to logits ``(N, K)``, float32, on the CPU.

    Raises:
        ValueError: an image size that the poolings do not divide, or an unknown activation.

    Example:
        >>> small_cnn()(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """
    if len(channels) == 0 or image_size % 2 ** len(channels):
        raise ValueError(f"image_size: got {image_size} with {len(channels)} poolings; wanted a multiple of {2 ** len(channels)}")
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip([in_channels, *channels[:-1]], channels, strict=True):
        layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1), activation_module(activation), nn.MaxPool2d(2)]
    side = image_size // 2 ** len(channels)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * side * side, num_classes))


class _ResidualBlock(nn.Module):
    def __init__(self, fan_in: int, fan_out: int, stride: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=False)
        self.bn1 = norm(fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.bn2 = norm(fan_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or fan_in != fan_out:
            self.shortcut = nn.Sequential(nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), norm(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(h)) + self.shortcut(x))


def resnet18(num_classes: int = 10, in_channels: int = 3, width: int = 64, batch_norm: bool = True) -> nn.Sequential:
    """Build ResNet-18 with the CIFAR stem (one 3 x 3 convolution, no max pooling): 11,173,962 parameters by default.

    He et al. (2016) adapted to 32 x 32 images. The text of the lpNTK paper says that it trains a ResNet-18 on CIFAR-10; its
    public code has this one with every BatchNorm commented out: ``batch_norm=False``, 11,164,362 parameters. BatchNorm
    layers need ``.eval()`` before any kernel is computed.

    Args:
        num_classes: K.
        in_channels: channels of the input images.
        width: channels of the first stage (64 in the paper); the later stages have 2, 4 and 8 times as many.
        batch_norm: normalise after each convolution; without, the convolutions have no biases either, as in that code.

    Returns:
        A module from ``(N, in_channels, H, W)`` to logits ``(N, K)``, float32, on the CPU, in train mode.

    Raises:
        ValueError: an argument below 1.

    Example:
        >>> resnet18(width=4)(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 10])
    """
    for name, value in (("num_classes", num_classes), ("in_channels", in_channels), ("width", width)):
        validate.positive(value, name)
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d if batch_norm else nn.Identity
    blocks: list[nn.Module] = []
    fan_in = width
    for stage in range(4):
        fan_out = width * 2**stage
        blocks += [_ResidualBlock(fan_in, fan_out, 1 if stage == 0 else 2, norm), _ResidualBlock(fan_out, fan_out, 1, norm)]
        fan_in = fan_out
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
        norm(width),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(fan_in, num_classes),
    )


def network_for(x: Tensor, num_classes: int = 10) -> nn.Sequential:
    """Build the network that this course trains on images of a size: the papers' choice where they have one.

    LeNet-5 for 28 x 28 grey images (MNIST), ResNet-18 for 32 x 32 colour images (CIFAR-10), a small convolutional
    network for any other square image whose side is a multiple of 4 (the digits).

    Args:
        x: images (N, C, H, H); only the shape is looked at.
        num_classes: K.

    Returns:
        A module from images to logits (N, K), float32, on the CPU.

    Raises:
        ValueError: x is not a batch of square images.

    Example:
        >>> network_for(load("digits").x)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    if x.dim() != 4 or x.shape[2] != x.shape[3]:
        raise ValueError(f"x: got shape {tuple(x.shape)}; wanted square images (N, C, H, H)")
    if x.shape[1:] == (1, 28, 28):
        return lenet5(num_classes)
    if x.shape[1:] == (3, 32, 32):
        return resnet18(num_classes)
    return small_cnn(x.shape[1], x.shape[2], num_classes=num_classes)


def zero_output_layer(model: nn.Module, x: Any = None) -> nn.Module:
    """Set the last linear layer of a model to zero in place, so that every logit is 0 and every class equally likely.

    The exact path kernel needs an initial output that does not depend on x (Bell et al., 2023, Thm 3.7).

    Args:
        model: any module with at least one ``nn.Linear``.
        x: a few samples that it takes; the last linear layer that they pass is the output layer. Without them it is the last in
            registration order.

    Returns:
        The same model.

    Raises:
        ValueError: the model has no linear layer, it is frozen, or with it at zero samples still get different outputs.

    Example:
        >>> zero_output_layer(mlp((4, 8, 3)))(torch.ones(1, 4)).abs().max().item()
        0.0
    """
    linear = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ValueError(f"model: got {type(model).__name__} without any nn.Linear; wanted a linear output layer")
    passed = [] if x is None else _passed(model, x, linear)
    name, last = (passed or linear)[-1]
    if not all(p.requires_grad for p in last.parameters()):
        raise ValueError(
            f"model: got a frozen output layer {name}, which at zero would keep all weights where they are; wanted it free"
        )
    with torch.no_grad():
        for p in last.parameters():
            p.zero_()
    if x is not None and _moved_by_others(model, x, last):
        raise ValueError(
            f"model: got outputs that its last linear layer, {name}, at zero does not make the same for every sample and weight; wanted "
            "an nn.Linear as output layer, or zero_output=False"
        )
    return model


def _moved_by_others(model: nn.Module, x: Any, last: nn.Linear) -> bool:
    """Say whether outputs differ from sample to sample, or have a gradient with respect to a weight outside a layer."""
    own = {id(p) for p in last.parameters()}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
    with torch.enable_grad():
        z = model(x)
        found = torch.autograd.grad(z, others, torch.randn_like(z), allow_unused=True) if others and z.requires_grad else ()
    return not bool(z.eq(z[:1]).all()) or any(g is not None and bool(g.to_dense().any()) for g in found)


def _passed(model: nn.Module, x: Any, layers: list[tuple[str, nn.Linear]]) -> list[tuple[str, nn.Linear]]:
    """List the layers that samples pass, in the order of the passes."""
    found: list[tuple[str, nn.Linear]] = []
    hooks = [m.register_forward_hook(lambda *_, one=one: found.append(one)) for one in layers for m in one[1:]]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found
