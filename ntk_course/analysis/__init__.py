"""What kernels and runs say: interactions, difficulty, forgetting, pruning, regression, transport, laziness, attribution, comparisons."""

from .attribution import datamodelling_score, leave_one_out_effects, trak
from .calibration import calibration_error
from .catapults import Catapult, catapult
from .comparisons import Comparison, compare_means
from .curvature import sharpness
from .diagonal_bias import bias_penalty, implicit_bias
from .difficulty import difficulty_correlation, learning_difficulty, nested_subsets, visits_by_size
from .distillation import Distilled, distil
from .eigenframework import LearningCurve, learning_curve, risk_estimate
from .estimator import KernelClassifier, KernelRidge
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
from .laplace import Laplace, averaged
from .laws import Law, trained_law
from .laziness import kernel_derivative, kernel_distance, lazy_move, relative_change
from .one_step import first_order_change, predicted_change, prediction_error, sgd_step, softmax_jacobian, true_change
from .pruning import class_support, el2n, flip_auc, flip_labels, forgetting_score, grand, influence_score, prune_head
from .regression import Fit, alignment, gradient_flow, kernel_ridge, leave_one_out, local_elasticity, spectrum
from .selection import Selected, forward_selection
from .spheres import SphereSpectrum, sphere_spectrum
from .transport import gaussian_bump_transport, hidden_kernel, rkhs_transport, shallow

__all__ = [
    "Catapult",
    "Clusters",
    "Comparison",
    "Distilled",
    "Fit",
    "ForgettingRun",
    "KernelClassifier",
    "KernelRidge",
    "Laplace",
    "Law",
    "LearningCurve",
    "PREDICTORS",
    "Predictor",
    "Relation",
    "Scores",
    "Selected",
    "SphereSpectrum",
    "alignment",
    "averaged",
    "bias_penalty",
    "calibration_error",
    "catapult",
    "class_support",
    "closest_partners",
    "compare_means",
    "cosines",
    "datamodelling_score",
    "difficulty_correlation",
    "distil",
    "el2n",
    "event_scores",
    "farthest_point_clustering",
    "first_order_change",
    "flip_auc",
    "flip_labels",
    "forgetting_run",
    "forgetting_score",
    "forward_selection",
    "gaussian_bump_transport",
    "gradient_flow",
    "grand",
    "hidden_kernel",
    "implicit_bias",
    "influence_score",
    "interchangeable",
    "kernel_derivative",
    "kernel_distance",
    "kernel_ridge",
    "lazy_move",
    "learning_curve",
    "learning_difficulty",
    "leave_one_out",
    "leave_one_out_effects",
    "local_elasticity",
    "nested_subsets",
    "predict_forgetting",
    "predicted_change",
    "prediction_error",
    "prune_head",
    "redundant",
    "relations",
    "relative_change",
    "risk_estimate",
    "rkhs_transport",
    "scores_per_iteration",
    "sgd_step",
    "shallow",
    "sharpness",
    "softmax_jacobian",
    "spectrum",
    "sphere_spectrum",
    "trained_law",
    "trak",
    "true_change",
    "visits_by_size",
]
