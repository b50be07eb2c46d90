"""Neural tangent kernels, exactly and fast: the package under the course.

For a network z(x; w) every empirical kernel here is an inner product of tangent features c^T dz(x; w)/dw; the
cotangent c chooses the kernel, and one engine computes them all.
"""

from . import checks, plots, widgets
from .data import Dataset, load
from .gram import gram_blocks
from .kernels import entk, lpntk, pntk, signs, tangent_kernel
from .models import lenet5, mlp, resnet18, small_cnn, zero_output_layer
from .one_step import predicted_change, prediction_error, softmax_jacobian, true_change
from .tangents import explicit_is_cheaper
from .training import History, cosine, device, evaluate, step_decay, train

__version__ = "0.1.0"

__all__ = [
    "Dataset",
    "History",
    "checks",
    "cosine",
    "device",
    "entk",
    "evaluate",
    "explicit_is_cheaper",
    "gram_blocks",
    "lenet5",
    "load",
    "lpntk",
    "mlp",
    "plots",
    "pntk",
    "predicted_change",
    "prediction_error",
    "resnet18",
    "signs",
    "small_cnn",
    "softmax_jacobian",
    "step_decay",
    "tangent_kernel",
    "train",
    "true_change",
    "widgets",
    "zero_output_layer",
]
