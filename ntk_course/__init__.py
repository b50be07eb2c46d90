"""Neural tangent kernels, exactly and fast: the package under the course.

For a network z(x; w) every empirical kernel here is an inner product of tangent features c^T dz(x; w)/dw; the
cotangent c chooses the kernel, and one engine computes them all.
"""

from . import checks, infinite, plots, processes, results, transport, widgets
from .approximate import last_layer_kernel, nystrom_features, projected_features
from .comparisons import Comparison, compare_means
from .data import Dataset, load
from .difficulty import difficulty_correlation, learning_difficulty, nested_subsets, visits_by_size
from .ensemble import Ensemble, train_ensemble
from .forgetting import (
    PREDICTORS,
    ForgettingRun,
    Predictor,
    Scores,
    event_scores,
    forgetting_run,
    predict_forgetting,
    scores_per_iteration,
)
from .gram import gram_blocks
from .gram_rows import GramRows
from .implicit import gram_quadratic, gram_times
from .infinite_conv import cntk
from .interactions import (
    Clusters,
    Relation,
    closest_partners,
    cosines,
    farthest_point_clustering,
    interchangeable,
    redundant,
    relations,
)
from .kernels import entk, lpntk, pntk, signs, tangent_kernel
from .label_aware import LabelAware, label_products, lantk_hr, regressed_products, with_label_part
from .models import lenet5, mlp, network_for, resnet18, small_cnn, zero_output_layer
from .one_step import (
    first_order_change,
    predicted_change,
    prediction_error,
    sgd_step,
    softmax_jacobian,
    true_change,
)
from .path import PathKernel, dpk, epk
from .path_machines import logit_uncertainty, per_class, support_vectors, symmetric_gram, weighted_gram
from .pruning import (
    class_support,
    el2n,
    flip_auc,
    flip_labels,
    forgetting_score,
    grand,
    influence_score,
    prune_head,
)
from .reduce import reduce_gram
from .reducers import Histogram, Partners, TopPartners
from .regression import Fit, alignment, gradient_flow, kernel_ridge, leave_one_out, local_elasticity, spectrum
from .store import open_gram, write_gram
from .tangent_hierarchy import hierarchy, lantk_nth, two_layer_hierarchy
from .tangents import explicit_is_cheaper
from .training import History, cosine, crop_and_flip, device, evaluate, step_decay, train
from .training_path import TrainingPath, load_path, train_path

__version__ = "0.1.0"

__all__ = [
    "Clusters",
    "Comparison",
    "Dataset",
    "Ensemble",
    "Fit",
    "ForgettingRun",
    "GramRows",
    "Histogram",
    "History",
    "LabelAware",
    "PREDICTORS",
    "Partners",
    "PathKernel",
    "Predictor",
    "Relation",
    "Scores",
    "TopPartners",
    "TrainingPath",
    "alignment",
    "checks",
    "class_support",
    "closest_partners",
    "compare_means",
    "cntk",
    "cosine",
    "cosines",
    "crop_and_flip",
    "device",
    "difficulty_correlation",
    "dpk",
    "el2n",
    "entk",
    "epk",
    "evaluate",
    "event_scores",
    "explicit_is_cheaper",
    "farthest_point_clustering",
    "first_order_change",
    "flip_auc",
    "flip_labels",
    "forgetting_run",
    "forgetting_score",
    "gradient_flow",
    "gram_blocks",
    "gram_quadratic",
    "gram_times",
    "grand",
    "hierarchy",
    "infinite",
    "influence_score",
    "interchangeable",
    "kernel_ridge",
    "label_products",
    "lantk_hr",
    "lantk_nth",
    "last_layer_kernel",
    "learning_difficulty",
    "leave_one_out",
    "lenet5",
    "load",
    "load_path",
    "local_elasticity",
    "logit_uncertainty",
    "lpntk",
    "mlp",
    "nested_subsets",
    "network_for",
    "nystrom_features",
    "open_gram",
    "per_class",
    "plots",
    "pntk",
    "predict_forgetting",
    "predicted_change",
    "prediction_error",
    "processes",
    "projected_features",
    "prune_head",
    "reduce_gram",
    "redundant",
    "regressed_products",
    "relations",
    "resnet18",
    "results",
    "scores_per_iteration",
    "sgd_step",
    "signs",
    "small_cnn",
    "softmax_jacobian",
    "spectrum",
    "step_decay",
    "support_vectors",
    "symmetric_gram",
    "tangent_kernel",
    "train",
    "train_ensemble",
    "train_path",
    "transport",
    "true_change",
    "two_layer_hierarchy",
    "visits_by_size",
    "weighted_gram",
    "widgets",
    "with_label_part",
    "write_gram",
    "zero_output_layer",
]
