"""Path kernels as kernels: the symmetric Gram matrix, the weighted kernel of Chen et al., uncertainty, support vectors."""

from dataclasses import replace

import torch
from scipy.linalg import cho_factor, cho_solve
from sklearn.svm import SVC
from torch import Tensor

from ...basics import validate
from ...tangents.features import Tangents, tangent_product
from ...training.path import TrainingPath
from .features import Features
from .rules import quadrature as rule_of


def symmetric_gram(path: TrainingPath, x: Tensor, training: Tensor, quadrature: str = "gauss", nodes: int = 4) -> Tensor:
    r"""Compute the path kernel between any points of the doubled space (x, training?), symmetric and positive semi-definite.

    :math:`K(x, x') = \frac1N \sum_s \eta_s \int \langle \phi_{s,t}(x), \phi_{s,t}(x')\rangle dt`, where
    :math:`\phi_{s,t}` is the Jacobian at :math:`w_s` for a training point and at :math:`w_s(t)` for any other (Bell et
    al., 2023, eq. 56 and Lemma 3.5). The same input has two features, one in each role.

    Args:
        path: full batches and no momentum, so that one kernel serves all steps; N is the size of its training set.
        x: (M, ...), as the path's training inputs.
        training: (M,) bool, which of them count as training points.
        quadrature: "left", "midpoint" or "gauss", one set of nodes for all points, so that the sum stays a kernel.
        nodes: of the rule.

    Returns:
        (M, M, K, K), entry [n, m, i, j] for output i of n and output j of m.

    Raises:
        TypeError, ValueError: bad inputs, mini-batches or momentum, the rule "piecewise".

    Example:
        >>> points, training = torch.cat([path.x, x_test]), torch.arange(40) < 32
        >>> symmetric_gram(path, points, training).shape
        torch.Size([40, 40, 10, 10])
    """
    if quadrature == "piecewise":
        raise ValueError("quadrature: got 'piecewise', whose nodes differ from point to point; wanted one rule for all")
    if path.momentum or any(len(batch) != len(path.x) for batch in path.batches):
        raise ValueError("path: got mini-batches or momentum; wanted full-batch gradient descent, one kernel for all steps")
    x = path.points(x)
    if training.dtype != torch.bool or training.shape != (len(x),):
        raise ValueError(f"training: got {training.dtype} of shape {tuple(training.shape)}; wanted bool, ({len(x)},)")
    rule, k = rule_of(quadrature, nodes, path.weights.dtype), path.num_outputs
    total = path.weights.new_zeros(len(x), k, len(x), k, device=x.device)
    sides = [(x[mask], mask) for mask in (training, ~training)]
    plan = Features(path, x)
    still, moved = (plan.of(points) if len(points) else None for points, _ in sides)
    order = torch.cat([mask.nonzero()[:, 0] for _, mask in sides]).argsort()
    for s in range(len(path) - 1):
        start, end = path.weights[s], path.weights[s + 1]
        fixed = still(start) if still else None
        for t, w in zip(*rule, strict=True):
            moving = moved(start + t * (end - start)) if moved else None
            both = Tangents.join([f for f in (fixed, moving) if f is not None])
            total += w * path.lrs[s] / len(path.x) * tangent_product(both, both)
    return total.transpose(1, 2)[order][:, order]


def weighted_gram(path: TrainingPath, x: Tensor, y: Tensor) -> Tensor:
    r"""Compute the kernel function of Chen et al. (2021) for finite steps, which is not symmetric (Bell et al., 2023, eq. 18).

    :math:`K(x, x_i) = \sum_s \frac{\eta_s}{N}\, \|\nabla_f L(f_s(x_i), y_i)\|\, \langle J_s(x), J_s(x_i)\rangle`: the
    weight belongs to the second argument alone.

    Args:
        path: from :func:`ntk_course.train_path`, with a loss whose gradient changes ("cross_entropy" or "squared").
        x: (M, ...).
        y: labels (M,), or what the path's loss takes.

    Returns:
        (M, M, K, K), rows for the first argument.

    Raises:
        TypeError, ValueError: bad inputs or labels.

    Example:
        >>> path = train_path(mlp((64, 8, 10)).double(), x, y, steps=3, lr=0.1, loss="cross_entropy", progress=False)
        >>> gram = weighted_gram(path, path.x, path.y)
        >>> bool((gram - gram.permute(1, 0, 3, 2)).norm() > 1e-3 * gram.norm())  # not symmetric
        True
    """
    x = path.points(x)
    points = replace(path, x=x, y=y)
    features, k = Features(path, x), path.num_outputs
    total = path.weights.new_zeros(len(x), k, len(x), k, device=x.device)
    for s in range(len(path) - 1):
        one = features(path.weights[s])
        weight = points.coefficients(s, torch.arange(len(x), device=x.device)).norm(dim=1)
        total += path.lrs[s] / len(path.x) * tangent_product(one, one) * weight[None, None, :, None]
    return total.transpose(1, 2)


def per_class(gram: Tensor) -> Tensor:
    """Take the K kernels of the single outputs out of (N, M, K, K): the diagonal of each block, (K, N, M).

    Example:
        >>> per_class(epk(path, x_test).gram).shape
        torch.Size([10, 8, 32])
    """
    return gram.diagonal(dim1=2, dim2=3).permute(2, 0, 1)


def logit_uncertainty(
    gram: Tensor, targets: Tensor, training: Tensor, noise: float = 1e-3, samples: int = 1000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    r"""Regress outputs by a Gaussian process for each class, and send its uncertainty through the softmax by Monte Carlo.

    For every class, with its own kernel: mean :math:`K_* (K + \sigma^2 I)^{-1} f`, variance
    :math:`k_{**} - K_* (K + \sigma^2 I)^{-1} K_*^\top`; logits are drawn from it and turned into probabilities (Bell et
    al., 2023, sec. 4.2 and App. A.6).

    Args:
        gram: of training and other points together, (M, M, K, K), as :func:`symmetric_gram`.
        targets: outputs at the training points, (N, K).
        training: (M,) bool, N of them true.
        noise: sigma squared, as a share of the mean diagonal of the training block.
        samples: draws.
        seed: of the draws.

    Returns:
        Mean and standard deviation of the probabilities at the other points, both (M - N, K), float64, on the CPU.

    Raises:
        ValueError: shapes that do not fit; numpy.linalg.LinAlgError: a training block that is not positive definite.

    Example:
        >>> points, training = torch.cat([path.x, x_test]).double(), torch.arange(40) < 32
        >>> mean, spread = logit_uncertainty(symmetric_gram(path, points, training), path.outputs(path.x), training)
        >>> mean.shape, spread.shape
        (torch.Size([8, 10]), torch.Size([8, 10]))
    """
    if targets.shape != (int(training.sum()), gram.shape[2]):
        raise ValueError(f"targets: got shape {tuple(targets.shape)}; wanted ({int(training.sum())}, {gram.shape[2]})")
    training = training.cpu()
    means, deviations = [], []
    for k, kernel in enumerate(per_class(gram).double().cpu()):
        own, cross = kernel[training][:, training], kernel[~training][:, training]
        ridge = noise * float(own.diagonal().mean())
        factor = cho_factor((own + ridge * torch.eye(len(own))).numpy(), lower=True)
        means.append(cross @ torch.from_numpy(cho_solve(factor, targets[:, k].double().cpu().numpy())))
        solved = torch.from_numpy(cho_solve(factor, cross.T.numpy()))
        variance = kernel.diagonal()[~training] - (cross.T * solved).sum(0)
        deviations.append(variance.clamp(min=0).sqrt())
    mean, deviation = torch.stack(means, 1), torch.stack(deviations, 1)
    draws = torch.randn(samples, *mean.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    probabilities = (mean + deviation * draws).softmax(-1)
    return probabilities.mean(0), probabilities.std(0)


def support_vectors(gram: Tensor, y: Tensor, **options) -> SVC:
    """Fit a support vector classifier with a path kernel: scikit-learn's, on the sum of the classes' own kernels.

    Args:
        gram: of the training points, (N, N, K, K).
        y: labels (N,).
        **options: of :class:`sklearn.svm.SVC`, such as C.

    Returns:
        The fitted classifier; predict with ``per_class(gram_test).sum(0)``, rows for test points.

    Raises:
        ValueError: a Gram matrix that is not symmetric.

    Example:
        >>> gram = symmetric_gram(path, path.x, torch.ones(32, dtype=torch.bool))
        >>> support_vectors(gram, y).predict(per_class(gram).sum(0)).shape
        (32,)
    """
    kernel = validate.gram(per_class(gram).sum(0))
    return SVC(kernel="precomputed", **options).fit(kernel.cpu().numpy(), y.cpu().numpy())
