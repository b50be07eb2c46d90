"""Neural tangent kernels, exactly and fast: the package under the course.

For a network z(x; w) every empirical kernel here is an inner product of tangent features c^T dz(x; w)/dw; the
cotangent c chooses the kernel, and one engine computes them all.

The rooms, each of which imports only from those before it:

    basics       errors, fingerprints, processes
    data         data sets
    models       networks, and any model as a function of its weights
    training     SGD: one network, many at once, or with its path recorded
    tangents     features of a block of samples
    gram         Gram matrices of features
    kernels      kernels by name: empirical, infinite, along paths, label-aware
    analysis     what kernels say: interactions, difficulty, forgetting, pruning, regression
    course       checks, figures and explorers of the book
    replication  the papers' experiments, their results, the command line
"""

from . import analysis, basics, course, data, gram, kernels, models, replication, tangents, training
from .analysis import KernelRidge, farthest_point_clustering, redundant
from .basics import processes
from .course import checks, claim, plots, sketches, table, widgets
from .data import load
from .gram import Gram, TopPartners, open_gram
from .kernels import entk, infinite, lantk_hr, lantk_nth, lpntk, pntk, tangent_kernel
from .kernels.infinite import cntk
from .kernels.paths import dpk, epk
from .models import lenet5, mlp, resnet18, small_cnn
from .replication import results
from .tangents import basis, centred, labelled, logit, loss_gradient, ones, signs
from .training import device, train, train_path

__version__ = "0.1.0"

# What chapters and an afternoon's research need; the rest is reached through its room, as ntk.analysis.spectrum.
__all__ = [
    # data, networks, training
    "load",
    "mlp",
    "lenet5",
    "small_cnn",
    "resnet18",
    "train",
    "device",
    "train_path",
    # cotangents, which choose the kernel
    "basis",
    "ones",
    "labelled",
    "centred",
    "logit",
    "loss_gradient",
    "signs",
    # Gram matrices
    "Gram",
    "TopPartners",
    "open_gram",
    # kernels
    "tangent_kernel",
    "entk",
    "pntk",
    "lpntk",
    "epk",
    "dpk",
    "infinite",
    "cntk",
    "lantk_hr",
    "lantk_nth",
    # what they say
    "farthest_point_clustering",
    "redundant",
    "KernelRidge",
    # around them
    "checks",
    "plots",
    "sketches",
    "claim",
    "table",
    "widgets",
    "results",
    "processes",
    # rooms
    "basics",
    "data",
    "models",
    "training",
    "tangents",
    "gram",
    "kernels",
    "analysis",
    "course",
    "replication",
]
