r"""Path kernels: a network trained by steps is, exactly, a sum over its training points (Bell et al., 2023).

Along a step from :math:`w_s` to :math:`w_{s+1}` a test output changes by
:math:`f_{s+1}(x) - f_s(x) = \int_0^1 J_{w_s(t)}(x)\,dt \cdot (w_{s+1} - w_s)`, and the step is a sum of training
gradients at :math:`w_s`. The integral on the test side is what makes the kernel exact; how it is evaluated is a
:class:`ntk_course.kernels.paths.Quadrature`.
"""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.func import jacrev, jvp, vmap
from torch.utils.flop_counter import FlopCounterMode

from ...basics import validate
from ...basics.dtypes import own_dtype
from ...basics.notes import note
from ...basics.progress import after_a_moment
from ...basics.samples import Batch, leaves, of_leaves
from ...gram.plan import free_on
from ...tangents.features import tangent_product
from ...tangents.forward import forward_agrees
from ...tangents.running import plainly
from ...training.path import TrainingPath
from .effort import NEARLY, PARTS, Effort, Left, integrated
from .features import Features
from .rules import Quadrature, pieces
from .rules import quadrature as rule_of
from .turning import breakpoints

# Bytes of one layer's activations in a forward-mode pass over several directions.
_CACHE = 2**24


@dataclass(frozen=True, eq=False)
class PathKernel:
    r"""A path kernel between test and training points, and what the network is made of.

    Attributes:
        gram: :math:`\sum_s \frac{\eta_s}{B} \int \langle J_{s,t}(x_n), J_s(x_m)\rangle dt`, step sizes inside and nowhere
            else, (N_test, N_train, K, K).
        initial: b, the output before training, (N_test, K).
        points: each training point's contribution to each output, (N_test, N_train, K).
        first: coefficients :math:`a_{m,0} = -\partial L/\partial f` before training, (N_train, K).
        network: the network's own output after training, (N_test, K).
        steps: each step's contribution, (S, N_test, K), or None where not asked for.
    """

    gram: Tensor = field(repr=False)
    initial: Tensor = field(repr=False)
    points: Tensor = field(repr=False)
    first: Tensor = field(repr=False)
    network: Tensor = field(repr=False)
    steps: Tensor | None = field(default=None, repr=False)

    @property
    def error(self) -> float:
        """Return the largest difference between the ensemble's output and the network's; more nodes make it rounding."""
        return (self.predict() - self.network).abs().max().item()

    def predict(self, initial: Tensor | None = None) -> Tensor:
        r"""Return the kernel ensemble's output, :math:`b + \sum_s \sum_i K_s(x, x_i)\,a_{i,s}`, (N_test, K) (Thm 3.6).

        Args:
            initial: another b, (K,) or (N_test, K), for Remark 1; by default the network's own.
        """
        return (self.initial if initial is None else initial) + self.points.sum(1)

    def machine(self) -> Tensor:
        r"""Return the single kernel machine's output, :math:`b + \sum_i K(x, x_i)\,a_{i,0}`, (N_test, K) (Thm 3.7).

        It equals :meth:`predict` where the coefficients are constant along the path, so for the loss "log_softmax".
        """
        return self.initial + torch.einsum("nmij,mj->ni", self.gram, self.first)


def dpk(path: TrainingPath, x_test: Any, **options) -> PathKernel:
    """Compute the discrete path kernel: test gradients at the start of each step (Domingos, 2020; Fig 2 of Bell et al.).

    Args:
        path: from :func:`ntk_course.train_path`.
        x_test: (N_test, ...).
        **options: per_step, memory and progress of :func:`epk`.

    Returns:
        A :class:`PathKernel`; its prediction misses the network by a term of first order in the step size.

    Example:
        >>> dpk(path, x_test).gram.shape
        torch.Size([8, 32, 10, 10])
    """
    return epk(path, x_test, "left", 1, **options)


@torch.inference_mode(False)
@own_dtype()
def epk(
    path: TrainingPath,
    x_test: Any,
    quadrature: str = "piecewise",
    nodes: int | str = "auto",
    *,
    per_step: bool = False,
    memory: int = 2**30,
    progress: bool = True,
) -> PathKernel:
    r"""Compute the exact path kernel between test points and the training points of a path (Bell et al., 2023, Def. 3.4).

    Step s moves the weights by :math:`-\eta_s \sum_{r \le s} \mu^{s-r} g_r`, so the gradient of step r meets the test
    Jacobians of all later steps: :math:`T_r = \eta_r \bar J_r + \mu T_{r+1}`, found backwards; without momentum it is
    :math:`\eta_r \bar J_r`. The kernel of step r is :math:`\frac1B T_r(x)\,J_r(x_i)^\top`. The training Jacobian is never
    formed: either both sides stay in layer factors, where the average over the nodes is one feature with more positions, or
    each row of :math:`T_r` takes one forward-mode pass; the cheaper is chosen by counting.

    Whether a step was integrated well enough is seen from the network itself: :math:`\bar J_s\,(w_{s+1} - w_s)` is the change of
    its outputs. With ``nodes="auto"`` each step gets as many nodes, and each search for its kinks as many parts, as bring
    that difference down to rounding; where none do, a warning says so, and how much is left.

    Args:
        path: from :func:`ntk_course.train_path`.
        x_test: (N_test, ...), as the path's training inputs.
        quadrature: "piecewise" (Gauss on every smooth piece, so on the whole step where nothing has kinks), "gauss", "left" or
            "midpoint".
        nodes: of the rule, or of each smooth piece; "auto" for the first two: as many as it takes.
        per_step: keep each step's contribution too.
        memory: bytes for one block of test points: its rows of the kernel, and its Jacobians where they are formed.
        progress: show a bar, where it takes longer than a moment.

    Returns:
        A :class:`PathKernel` in the path's dtype, on the model's device.

    Raises:
        TypeError, ValueError: bad inputs, an unknown rule, nodes below 1, a path whose steps are not those it describes;
        ArithmeticError: non-finite weights on the path, with the step.

    Example:
        >>> epk(path, x_test).error < 1e-12
        True
    """
    if not isinstance(path, TrainingPath):
        raise TypeError(f"path: got {type(path).__name__}; wanted a TrainingPath, from train_path or load_path")
    effort = Effort.first(quadrature, nodes)
    x_test = path.points(x_test, "x_test")
    path.verify()
    initial = path.outputs(x_test, 0)
    k, byte = path.num_outputs, path.weights.element_size()
    by_factors = not path.momentum and factors_are_cheaper(path, x_test[:1], effort.nodes)
    # the kernel of one test point, its Jacobians where they are formed, and as much again in flight
    row = 4 * byte * k * (k * len(path.x) + (0 if by_factors else path.weights.shape[1]))
    size = max(1, validate.positive(memory, "memory") // row)
    gram = _room(path, len(x_test), x_test.device)
    points: list[Tensor] = []
    steps: list[Tensor] = []
    left: list[Left] = []
    starts = range(0, len(x_test), size)
    for i in after_a_moment(starts, "test points", len(starts), shown=progress):
        some = slice(i, i + size)
        gram[some], shares, each, worst = _block(path, x_test[some], effort, by_factors, per_step, progress and len(starts) == 1)
        points.append(shares)
        steps += [] if each is None else [each]
        left.append(worst)
    if effort.raised and (worst := max(left, key=lambda one: one.excess)).excess > NEARLY:
        note(
            f"epk: what step {worst.step} adds up to misses the change of the outputs by {worst.error:.1e}, and more nodes do not "
            "help: a unit that turns twice in a small part of the step, a kink that is not seen (smaller steps help), or an output "
            "that jumps (nothing does)"
        )
    first = path.coefficients(0, torch.arange(len(path.x), device=x_test.device))
    kept = torch.cat(steps, dim=1) if per_step else None
    return PathKernel(gram, initial, torch.cat(points), first, path.outputs(x_test), kept)


def _room(path: TrainingPath, n: int, device: torch.device) -> Tensor:
    k, like = path.num_outputs, path.weights
    needed, free = n * len(path.x) * k * k * like.element_size(), free_on(device)
    if needed > free:
        raise MemoryError(
            f"x_test: got a kernel of {n} x {len(path.x)} x {k} x {k}, {needed / 2**30:.1f} GiB, with {free / 2**30:.1f} GiB free; wanted "
            "fewer test points at a time"
        )
    return torch.empty(n, len(path.x), k, k, dtype=like.dtype, device=device)


def _block(
    path: TrainingPath, x: Tensor | Batch, effort: Effort, by_factors: bool, per_step: bool, progress: bool
) -> tuple[Tensor, Tensor, Tensor | None, Left]:
    k, like = path.num_outputs, path.weights[0].to(x.device)
    everything = torch.arange(len(path.x), device=x.device)
    gram = like.new_zeros(len(x), k, k, len(path.x))  # training points innermost, as products come
    points = like.new_zeros(len(x), k, len(path.x))
    steps = like.new_zeros(len(path) - 1, len(x), k) if per_step else None
    pairs = len(x) * len(path.x) / (len(x) + len(path.x))  # one plan for both sides of every product
    test = Features(path, x, pairs) if by_factors else None
    carried: Tensor | None = None
    worst, after = Left(0, 0.0, 0.0), path.outputs(x)
    for s in after_a_moment(range(len(path) - 2, -1, -1), "steps", len(path) - 1, "step", progress):
        batch = path.batches[s].to(x.device).sort().values
        before = path.outputs(x, s)
        integrate = partial(_by_factors, path, s, batch, x, test) if test is not None else partial(_averaged, path, s, x)
        departs = 0.0 if test is None else 10 * path.departures[s]  # these add up the step described, not the one recorded
        found, effort, left = integrated(integrate, effort, s, after - before, float(after.abs().max()), departs)
        worst, after = max(worst, left, key=lambda one: one.excess), before
        if test is not None:
            kernel, shares = found
        else:
            mean = path.lrs[s] * found[0]
            carried = mean if carried is None else mean.add_(carried, alpha=path.momentum)
            kernel = _against_training(path, s, batch, carried / len(batch))
            shares = _shares(path, s, batch, kernel)
        if torch.equal(batch, everything):
            gram, points = gram.add_(kernel), points.add_(shares)
        else:  # a sample may be in a batch more than once
            gram, points = gram.index_add_(3, batch, kernel), points.index_add_(2, batch, shares)
        if steps is not None:
            steps[s] = shares.sum(2)
    return gram.permute(0, 3, 1, 2), points.transpose(1, 2), steps, worst


def _shares(path: TrainingPath, step: int, batch: Tensor, kernel: Tensor) -> Tensor:
    """Return what each training point of a batch adds to each output, (N, K, B)."""
    a = path.coefficients(step, batch).T
    shares = kernel[:, :, 0] * a[0]
    for j in range(1, kernel.shape[2]):
        shares.addcmul_(kernel[:, :, j], a[j])
    return shares


def factors_are_cheaper(path: TrainingPath, one: Tensor | Batch, nodes: int) -> bool:
    r"""Decide by counting multiply-adds a pair of points whether to stay with layer factors at every node.

    Factors cost :math:`\sum_\ell Q_\ell T_\ell^2 (p_\ell + K^2 q_\ell + K^2) + K^2 D`. The average over the nodes has Q times the
    T positions of a layer; the first layer's inputs do not move, so there :math:`Q_\ell = 1`, and the D numbers of formed
    gradients are averaged themselves. Averaging the test Jacobian first costs K forward-mode passes, each about one
    forward pass.

    Args:
        path: as in :func:`epk`.
        one: any sample, (1, ...).
        nodes: Q.

    Returns:
        True when the factors take no more operations.

    Example:
        >>> factors_are_cheaper(path, x[:1].double(), nodes=4)
        True
    """
    features = Features(path, one)
    if not features.covered:
        return False
    start, end = path.weights[0].to(one.device), path.weights[1].to(one.device)
    fixed, ends = features(start), Quadrature(*torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]]]).to(start))
    k, each = path.num_outputs, 0
    for (a, b), (a2, _) in zip(features.averaged(start, end - start, ends).factors, fixed.factors, strict=True):
        states = nodes if a.shape[1] > a2.shape[1] else 1  # the inputs of the first layer do not move
        each += states * a2.shape[1] ** 2 * (a[0, 0].numel() + k * k * (b.shape[3] + 1))
    try:
        with FlopCounterMode(display=False) as counter:
            path.outputs(one, 0)
    except RuntimeError:  # a model that differentiates in its forward cannot be watched
        return True
    return each + k * k * fixed.width <= k * counter.get_total_flops() / 2


def _by_factors(
    path: TrainingPath, step: int, batch: Tensor, x: Tensor | Batch, test: Features, effort: Effort
) -> tuple[tuple[Tensor, Tensor], Tensor, float]:
    """Multiply layer factors, samples with about as many smooth pieces at a time: the kernel (N, K, K, B), and what it adds."""
    rule, inside = rule_of(effort.rule, effort.nodes, path.weights.dtype), _inside(path, step, x, effort)
    start, change = (w.to(x.device) for w in (path.weights[step], path.weights[step + 1] - path.weights[step]))
    training = test.of(path.x[batch])(start)
    kernel = start.new_empty(len(x), path.num_outputs, path.num_outputs, len(batch))
    # a group is padded to its largest number of pieces, a quarter more at most: few large passes instead of many small ones
    level = (torch.tensor([len(b) + 1.0 for b in inside], device=x.device).log() / math.log(1.25)).floor()
    for one in level.unique():
        alike = (level == one).nonzero()[:, 0]
        most = max(len(inside[n]) + 1 for n in alike) * len(rule.nodes)
        for some in alike.split(max(1, test.room // most)):
            t, w = pieces([inside[n] for n in some], rule)
            moving = test.of(x[some]).averaged(start, change, Quadrature(t, w * (path.lrs[step] / len(batch))))
            kernel[some] = tangent_product(moving, training).transpose(2, 3).to(kernel.dtype)
    shares = _shares(path, step, batch, kernel)
    return (kernel, shares), shares.sum(2), float(shares.abs().sum(2).max()) * _kinks(inside)


def _averaged(path: TrainingPath, step: int, x: Tensor | Batch, effort: Effort) -> tuple[tuple[Tensor], Tensor, float]:
    """Average the Jacobian (N, K, d), and say by how much it changes the outputs."""
    inside = _inside(path, step, x, effort)
    mean = mean_jacobian(path, step, x, pieces(inside, rule_of(effort.rule, effort.nodes, path.weights.dtype)))
    change = (path.weights[step + 1] - path.weights[step]).to(x.device)
    return (mean,), mean @ change, float((mean.abs() @ change.abs()).max()) * _kinks(inside)


def _kinks(inside: list[Tensor]) -> int:
    """Count the pieces of a step: each of their ends is known to rounding, and what it leaves out adds up."""
    return 1 + max(len(b) for b in inside)


def _inside(path: TrainingPath, step: int, x: Tensor | Batch, effort: Effort) -> list[Tensor]:
    if effort.rule == "piecewise":
        return step_breakpoints(path, step, x, effort.scan)
    return [path.weights.new_empty(0, device=x.device)] * len(x)


def step_breakpoints(path: TrainingPath, step: int, x: Tensor | Batch, scan: int = PARTS) -> list[Tensor]:
    """Find the kinks of each sample along one step of a path, see :func:`ntk_course.kernels.paths.breakpoints`.

    Example:
        >>> len(step_breakpoints(path, 0, x.double()))
        32
    """
    start, end = path.weights[step].to(x.device), path.weights[step + 1].to(x.device)
    return breakpoints(path.model, path.unflatten(start), path.unflatten(end - start), x, scan)


def mean_jacobian(path: TrainingPath, step: int, x: Tensor | Batch, rule: Quadrature) -> Tensor:
    r"""Average the Jacobian over a step, :math:`\int_0^1 J_{w_s(t)}(x)\,dt`, (N, K, d).

    Args:
        path: as in :func:`epk`.
        step: s.
        x: (N, ...).
        rule: nodes and weights, (Q,) for all samples or (N, Q) for each its own, as from :func:`pieces`.

    Example:
        >>> average = mean_jacobian(path, 0, x.double(), quadrature("gauss", 4))
        >>> (average @ (path.weights[1] - path.weights[0])).shape
        torch.Size([32, 10])
    """
    start = path.weights[step].to(x.device)
    change = path.weights[step + 1].to(x.device) - start
    times, weights = (t.to(start).expand(len(x), -1) for t in rule)

    def of_one(flat: Tensor, one: list[Tensor]) -> Tensor:
        return path.output(path.unflatten(flat), of_leaves(x, [t[None] for t in one]))[0]

    jacobian, total = vmap(jacrev(of_one)), start.new_zeros(len(x), path.num_outputs, len(start))
    sample, node = weights.nonzero(as_tuple=True)  # a sample with fewer pieces has fewer nodes
    together = max(1, 2 * _CACHE // (start.numel() * start.element_size()))
    try:
        with plainly(path.model):
            for some, at in zip(sample.split(together), node.split(together), strict=True):
                part = jacobian(start + times[some, at, None] * change, [t[some] for t in leaves(x)])
                total.index_add_(0, some, part * weights[some, at, None, None])
    except RuntimeError:  # an operation that torch.func does not go through: one sample and node after the other
        total.zero_()
        features = Features(path, x)
        for n, q in zip(sample.tolist(), node.tolist(), strict=True):
            one = features.of(x[n : n + 1]).jacobian(start + times[n, q] * change)
            total[n] += weights[n, q] * one[0]
    return total


def _against_training(path: TrainingPath, step: int, batch: Tensor, rows: Tensor) -> Tensor:
    """Multiply rows (N, K, d) with the training Jacobians of a batch, (N, K, K, B), by forward-mode passes."""
    if not _goes_forward(path):
        return _against_formed(path, step, batch, rows)
    params, x = path.unflatten(path.weights[step].to(rows.device)), path.x[batch]

    def along(row: Tensor) -> Tensor:
        return jvp(lambda p: path.output(p, x), (params,), (path.unflatten(row),))[1]

    # as many directions at a time as leave a layer's activations in the cache
    widest = max(*(t[0].numel() for t in leaves(x)), *(p.shape[0] if p.dim() else 1 for p in params.values()))
    together = max(1, _CACHE // (len(batch) * widest * rows.element_size()))
    try:
        with plainly(path.model):
            out = vmap(along, chunk_size=together)(rows.flatten(0, 1))
    except RuntimeError:  # an operation without a forward-mode rule: the training Jacobian is formed
        return _against_formed(path, step, batch, rows)
    return out.view(*rows.shape[:2], *out.shape[1:]).transpose(2, 3)


# Whether forward mode gives what plain autograd does, for each path that was asked.
_FORWARD: WeakKeyDictionary[TrainingPath, bool] = WeakKeyDictionary()


def _goes_forward(path: TrainingPath) -> bool:
    """Try forward mode at the last state, on a few of the training samples."""
    if path not in _FORWARD:
        _FORWARD[path] = forward_agrees(path.model_at(-1), path.x)
    return _FORWARD[path]


def _against_formed(path: TrainingPath, step: int, batch: Tensor, rows: Tensor) -> Tensor:
    features, n = Features(path, path.x[batch[:1]]), max(1, 16 * _CACHE // (rows[0].numel() * rows.element_size()))
    parts = [features.of(path.x[some]).jacobian(path.weights[step]) for some in batch.split(n)]
    return torch.cat([torch.einsum("nkd,bjd->nkjb", rows, part) for part in parts], dim=3)
