"""Tangent features of a block of samples: cotangents, what a model's graph tells, a rule for each kind of layer, products."""

from .cotangents import Cotangent, PerSample, basis, centred, fisher, labelled, log_odds, logit, loss_gradient, ones, signs
from .features import Tangents, tangent_features, tangent_product
from .layout import Layout, explicit_is_cheaper
from .lines import shifted
from .positions import masked, per_token, stacked, summed

__all__ = [
    "Cotangent",
    "Layout",
    "PerSample",
    "Tangents",
    "basis",
    "centred",
    "explicit_is_cheaper",
    "fisher",
    "labelled",
    "log_odds",
    "logit",
    "loss_gradient",
    "masked",
    "ones",
    "per_token",
    "shifted",
    "signs",
    "stacked",
    "summed",
    "tangent_features",
    "tangent_product",
]
