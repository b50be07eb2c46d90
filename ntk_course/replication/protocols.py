"""The lpNTK paper's text and its public code differ in what they do; an experiment names the one it follows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from ..models.networks import authors_cnn, network_for, resnet18


@dataclass(frozen=True)
class Protocol:
    """One way to read Guo et al. (2024), where its text and its public code differ.

    Attributes:
        follows: "text" or "code".
        train_mode: forgetting is counted in train mode, so with dropout on: the passes before and after have two masks.
        compared: for redundancy a sample is compared with "all" others, or with those stored "later" only.
        accuracy: a run's accuracy is that of its "last" epoch, or the best over its epochs on the "test" set.
        exchanged: of Fig. 2's sets those named medium and least are exchanged.
        width: channels of the first stage of the ResNet-18 (64 in both).
    """

    follows: str
    train_mode: bool
    compared: str
    accuracy: str
    exchanged: bool
    width: int = 64

    def network(self, x: Tensor, num_classes: int = 10) -> nn.Module:
        """Build the network for images: LeNet-5 and ResNet-18, or what the code has under these names.

        Raises:
            ValueError: x is not a batch of square images.
        """
        if self.follows == "code":
            if x.shape[1:] == (3, 32, 32):
                return resnet18(num_classes, width=self.width, batch_norm=False)
            return authors_cnn(x.shape[1], x.shape[2], num_classes)
        return network_for(x, num_classes)

    def reported(self, curve: Sequence[float]) -> float:
        """Choose a run's accuracy out of its test accuracies by epoch."""
        return curve[-1] if self.accuracy == "last" else max(curve)


TEXT = Protocol("text", train_mode=False, compared="all", accuracy="last", exchanged=False)
CODE = Protocol("code", train_mode=True, compared="later", accuracy="test", exchanged=True)
# A ResNet-18 of the code's kind that two cores can train: a quarter of the width.
CODE_NARROW = replace(CODE, width=16)
