"""Whether a classifier is as often right as it says."""

import torch
from torch import Tensor

from ..basics import validate


def calibration_error(probabilities: Tensor, y: Tensor, bins: int = 15) -> float:
    r"""Return the expected calibration error, :math:`\sum_b \frac{|b|}{N} |\mathrm{accuracy}_b - \mathrm{confidence}_b|` (Guo et al., 2017).

    Samples are put into bins of equal width by their confidence, the largest probability; 0 for a classifier that is right in c of 100
    cases where it says c per cent. Few samples make it larger: it is a mean of absolute values.

    Args:
        probabilities: (N, K), that add up to one.
        y: labels (N,).
        bins: of equal width, from 0 to 1; a confidence on a border belongs to the lower one.

    Returns:
        A number in [0, 1].

    Raises:
        TypeError, ValueError: numbers that are no probabilities, labels that do not fit.

    Example:
        >>> calibration_error(torch.tensor([[0.75, 0.25], [0.75, 0.25]]), torch.tensor([0, 1]))  # says 0.75, is right in half
        0.25
    """
    validate.finite(probabilities, "probabilities")
    if probabilities.dim() != 2 or (probabilities < 0).any() or ((probabilities.sum(1) - 1).abs() > 1e-3).any():
        raise ValueError(
            "probabilities: got numbers that are no distributions; wanted (N, K), not negative, with rows that add up to 1"
        )
    y = validate.labels(y, len(probabilities), probabilities.shape[1], probabilities)
    confidence, said = probabilities.double().max(1)
    borders = torch.linspace(0, 1, validate.positive(bins, "bins") + 1, dtype=torch.float64, device=y.device)[1:-1]
    which = torch.bucketize(confidence, borders)
    over = torch.zeros(bins, dtype=torch.float64, device=y.device).index_add_(0, which, confidence - (said == y).double())
    return float(over.abs().sum() / len(y))
