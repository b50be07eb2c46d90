r"""The kernels of a PyTorch model's limit of infinite width, whatever its architecture (Yang, 2020), block by block."""

import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from tqdm.auto import tqdm

from ...basics import validate
from ...basics.dtypes import default_dtype
from ...basics.samples import Batch
from ...models.adapted import adapted
from ...tangents.trial import runs
from .covariances import Pair, Sides
from .program import Builder, NeedsPairs, Own, Program, Scales
from .reading import Reader, traced

PARAMETERIZATIONS = ("ntk", "standard")
Samples = Tensor | tuple[Tensor, ...]
# Numbers that reading a group of samples may take at a step, and those of a block's covariances that stay in a CPU's cache.
_READ, _CACHED = 2**23, 2**17


class Kernels(NamedTuple):
    """The kernel of the outputs at initialisation and the tangent kernel, both (N1, N2)."""

    nngp: Tensor
    ntk: Tensor


class _Cross(Sides):
    """Rows and columns of a block: what was kept of each, cut out."""

    def __init__(self, every: bool, left: dict[str, Tensor], right: dict[str, Tensor], rows: slice, cols: slice, same: bool):
        self.every, self.same = every, same
        self._left, self._right, self._rows, self._cols = left, right, rows, cols
        count = len(next(iter(left.values()))[rows]), len(next(iter(right.values()))[cols])
        self.lead = count

    def variances(self, key, own):
        """Return those kept."""
        return self.plain(key)

    def plain(self, key):
        """Return those kept."""
        return self._left[key][self._rows][:, None], self._right[key][self._cols][None]


def limit(
    model: nn.Module,
    x1: Samples,
    x2: Samples | None = None,
    *,
    w_std: float | None = None,
    b_std: float | None = None,
    deviations: Mapping[str, float] | None = None,
    parameterization: str = "ntk",
    memory: int | None = None,
    progress: bool = False,
) -> Kernels:
    r"""Compute the NNGP and NTK of any architecture at infinite width, from a finite model of it (Yang, 2020).

    The model is read: every layer of its torch.fx graph takes covariances :math:`\Sigma` and tangent kernels
    :math:`\Theta` of pairs of samples (and of pairs of pixels, tokens, moments or nodes) on, whatever its own width is:

    ================== ==========================================================================================
    a layer of weights :math:`\sigma_w^2 \Sigma + \sigma_b^2` and :math:`\sigma_w^2 \Theta` + the new :math:`\Sigma`
    an activation      :math:`\mathbb E\,\phi\phi` and :math:`\mathbb E\,\phi'\phi'\;\Theta`
    a convolution      first a mean over the filter's offsets, the same at both positions
    pooling, a graph   sums over positions at both sides, :math:`A \Sigma B^\top`
    a residual sum     sums of both, if the two branches have no weights in common, and the products of their means
    maps of one field  :math:`(A + B)\, \Sigma\, (A + B)^\top`, such as h + A h, or h less its mean over positions
    a normalisation    both divided by the two roots of the variances
    scores over width  in the limit plain numbers, so that attention is a graph made of the sample
    ================== ==========================================================================================

    Linear, Conv1d to 3d, Embedding, rows of a parameter by words, RNN (batch first), LayerNorm, RMSNorm, GroupNorm, BatchNorm (eval
    mode, as it starts), average pooling, parameters that are added, sums, products, GLU, concatenation, stacks, matmul, softmax of settled
    scores, attention, what moves axes about, and the activations of :data:`ACTIVATIONS`. Frozen weights count as random, but not as
    trained.

    Args:
        model: in eval mode, without chance, hooks on layers or torch.no_grad; of at least two channels in every hidden layer.
            Its width matters only through the scales that are measured: torch's own biases shrink with it.
        x1: what it takes, (N1, ...): a tensor, or a tuple of them with samples first, such as nodes and adjacency matrices.
        x2: (N2, ...), or None for x1 again; then half of the blocks are computed.
        w_std: sigma_w of all weights, which are :math:`\sigma_w/\sqrt{\text{fan-in}}` times standard normal ones; None for what
            each layer of the model has now, the root of fan-in times mean square. Embeddings and other parameters that
            are no layer's are measured, unless `deviations` names them.
        b_std: sigma_b of all biases that layers have; None for what each has now.
        deviations: sigmas by parameter's name, such as ``{"embed.weight": 1.0}``, before the two.
        parameterization: "ntk", or "standard", where gradients are those of the weights themselves, so that a layer's
            count as much as its fan-in in this model: then the kernel is what :func:`ntk_course.entk` of such a
            model tends to.
        memory: bytes that one block's covariances may take; a few such blocks are in use at a time.
        progress: show a bar over the blocks.

    Returns:
        :class:`Kernels` (N1, N2) of one output unit, in x1's dtype (float64 for words), on its device; computed in float64. Of outputs
        that are not alike it is their mean; behind an activation or a product after the last layer, where one unit's tangent kernel stays
        random at any width, it is the mean over draws.

    Raises:
        TypeError: no module, or one that torch.fx cannot trace.
        ValueError: an operation whose kernel has no closed form, such as the largest of several values, weights that are used twice,
            an activation of what is not Gaussian; the message names it. Answers that depend on chance or on other samples.
        ArithmeticError: variances too large for :func:`ntk_course.infinite.expectations`, or a kernel too large for x1's dtype.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
        >>> found = limit(net, x, w_std=2**0.5, b_std=0.1)
        >>> torch.allclose(found.ntk, infinite.mlp(x, depth=1, w_std=2**0.5, b_std=0.1).ntk)
        True
    """
    validate.per_sample(model)
    if parameterization not in PARAMETERIZATIONS:
        raise ValueError(f"parameterization: got {parameterization!r}; wanted one of {PARAMETERIZATIONS}")
    names = dict(model.named_parameters(remove_duplicate=False))
    for name in deviations or {}:
        if name not in names:
            raise ValueError(f"deviations: got {name!r}; wanted names of the model's parameters, such as {next(iter(names))!r}")
    for given, what in ((w_std, "w_std"), (b_std, "b_std")):
        if given is not None:
            validate.number(given, what)
    named: dict[int, str] = {}
    for name, given in (deviations or {}).items():
        validate.number(given, f"deviations[{name!r}]")
        if (other := named.setdefault(id(names[name]), name)) != name:
            raise ValueError(f"deviations: got {other!r} and {name!r}, which are one parameter; wanted one of them")
    memory = None if memory is None else validate.positive(memory, "memory")
    if names and not any(p.requires_grad for p in names.values()):
        raise ValueError("model: got no weights that are trained: all are frozen; wanted at least one with requires_grad")
    left = _given(x1, "x1")
    right = left if x2 is None else _given(x2, "x2")
    if [t.shape[1:] for t in left] != [t.shape[1:] for t in right]:
        got, wanted = ([tuple(t.shape[1:]) for t in some] for some in (right, left))
        raise ValueError(f"x2: got samples of shapes {got}; wanted {wanted}, as in x1")
    scales = Scales(model, w_std, b_std, deviations or {}, parameterization == "standard")
    every = False
    with default_dtype(torch.float64):  # also of what the forward makes itself
        with torch.inference_mode(False):
            double, graph = traced(model, len(left))
            taken = _sizes(double, graph, left)
        while True:
            try:
                program, kept = _read(double, graph, left, scales, every, taken)
                others = kept if x2 is None else _read(double, graph, right, scales, every, taken)[1]
                break
            except NeedsPairs:
                every = True
        _tried(double, graph, left)
    for name in scales.unused.values():
        raise ValueError(
            f"deviations: got {name!r}, whose deviation plays no part: it is a norm's, which counts as it starts, or not used; wanted weights, "
            "biases or fields that are drawn"
        )
    first = validate.tensor(x1[0] if isinstance(x1, tuple) else x1)
    like = first if first.is_floating_point() else first.new_empty(0, dtype=torch.float64)
    return _blocks(program, kept, others, every, x2 is None, like, memory, progress)


def _sizes(model: nn.Module, graph: fx.Graph, samples: tuple[Tensor, ...]) -> set[int]:
    """Run the graph on a few samples, and return the sizes of all axes there are; what it does not take is said by itself."""
    sizes = {n for p in model.parameters() for n in p.shape}
    if any(p.is_meta for p in model.parameters()):
        return sizes | {n for t in samples for n in t.shape[1:]}
    walk = _Shapes(model, graph)
    try:
        with torch.no_grad():
            walk.run(*(t[:3].clone() for t in samples))
    except Exception as error:
        shapes = [tuple(t.shape[1:]) for t in samples]
        raise ValueError(
            f"x1: got samples of shape {shapes[0] if len(shapes) == 1 else shapes}, which the model does not take ({str(error).splitlines()[0]})"
        ) from error
    return sizes | walk.sizes


def _tried(model: nn.Module, graph: fx.Graph, samples: tuple[Tensor, ...]) -> None:
    """See that answers depend on neither chance nor other samples, and that model and graph have the same answers and gradients.

    Raises:
        TypeError, ValueError: it is not so.
    """
    if any(p.is_meta for p in model.parameters()):
        return
    with torch.inference_mode(False), torch.enable_grad():
        samples = tuple(t.clone() if t.is_inference() else t for t in samples)
        together = samples[0] if len(samples) == 1 else Batch(samples)
        runs(adapted(model, together), together, "x1")
        both = (model, fx.Interpreter(model, graph=graph).run)
        mine, theirs = (_answers_and_slopes(model, run, [t[:3].clone() for t in samples]) for run in both)
    for one, other in zip(mine, theirs, strict=True):
        if not torch.allclose(one, other, rtol=1e-9, atol=1e-12 * float(1 + one.abs().max())):
            raise ValueError(
                "model: got a forward that is not what torch.fx wrote down of it: there is torch.no_grad, or a value that is written over "
                "under another name, in it; wanted frozen weights by requires_grad_(False), and nothing in place"
            )


def _answers_and_slopes(model: nn.Module, run: Callable, samples: list[Tensor]) -> list[Tensor]:
    """Return what a run answers, and the gradients of a sum of its answers, each with a weight of its own, in the model's weights."""
    z = run(*samples)
    total = (z * torch.linspace(1, 2, z.numel()).to(z).view_as(z)).sum()
    weights = [p for p in model.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(total, weights, allow_unused=True) if total.requires_grad else [None] * len(weights)
    return [z.detach(), *(torch.zeros_like(p) if g is None else g for p, g in zip(weights, slopes, strict=True))]


class _Shapes(fx.Interpreter):
    """Run a graph, and note the sizes of all axes."""

    def __init__(self, model: nn.Module, graph: fx.Graph):
        super().__init__(model, graph=graph)
        self.sizes: set[int] = set()

    def run_node(self, n: fx.Node):
        """Run a node, and note the sizes of what it makes."""
        made = super().run_node(n)
        fx.node.map_aggregate(made, lambda t: self.sizes.update(t.shape) if isinstance(t, Tensor) else None)
        return made


def _given(x: Samples, name: str) -> tuple[Tensor, ...]:
    """Return the samples as a tuple of tensors, real ones in float64."""
    parts = x if isinstance(x, tuple) else (x,)
    found = []
    for i, part in enumerate(parts):
        words = name if len(parts) == 1 else f"{name}[{i}]"
        part = validate.tensor(part, words)
        found.append(validate.double(part, words) if not isinstance(part, Tensor) or part.is_floating_point() else part)
    if len({len(part) for part in found}) != 1 or len(found[0]) == 0:
        raise ValueError(f"{name}: got parts of {[len(p) for p in found]} samples; wanted the same number, at least one")
    return tuple(found)


def _read(
    model: nn.Module, graph: fx.Graph, samples: tuple[Tensor, ...], scales: Scales, every: bool, taken: set[int]
) -> tuple[Program, dict[str, Tensor]]:
    """Read the model on groups of samples: its program, and what each sample brings to a pair.

    The axis of samples is told by their number, which no other axis may have: groups are filled up by a sample's copies.
    """
    count, start, group, program = len(samples[0]), 0, 2, None
    kept: list[dict[str, Tensor]] = []
    while start < count:
        size = min(group, count - start)
        filled = next(n for n in itertools.count(max(2, size)) if n not in taken)
        rows = torch.arange(start, start + filled).clamp(max=start + size - 1)
        some = tuple(t[rows.to(t.device)] for t in samples)
        build = Builder(Own(filled, every), scales, some[0].device)
        program = Reader(model, graph, build).program(*some)
        kept.append({key: value[:size] for key, value in build.own.kept.items()})
        start += size
        group = max(2, _READ // program.numbers)
    assert program is not None
    return program, {key: torch.cat([some[key] for some in kept]) for key in kept[0]}


def _blocks(program: Program, left, right, every: bool, same: bool, like: Tensor, memory: int | None, progress: bool) -> Kernels:
    """Run the program on all pairs, block by block."""
    n, m = (len(next(iter(kept.values()))) for kept in (left, right))
    numbers = memory // 8 if memory is not None else _CACHED if like.device.type == "cpu" else 2**25
    side = max(1, int((numbers / program.numbers) ** 0.5))
    found = Pair(*(like.new_empty(n, m) for _ in range(2)))
    blocks = [(i, j) for i in range(0, n, side) for j in range(i if same else 0, m, side)]
    for i, j in tqdm(blocks, desc="limit", unit="block", disable=not progress):
        rows, cols = slice(i, i + side), slice(j, j + side)
        pair = program.run(_Cross(every, left, right, rows, cols, same and i == j))
        for whole, part in zip(found, pair, strict=True):
            part = part.reshape(part.shape[:2])
            if same and i == j:
                part = part.triu() + part.triu(1).T  # vector and scalar code may round an entry and its mirror image apart
            whole[rows, cols] = part
            if not whole[rows, cols].isfinite().all():
                raise ArithmeticError(
                    f"x1: got samples whose kernel is no finite number in {whole.dtype}; wanted smaller ones, or a wider dtype"
                )
            if same and i != j:
                whole[cols, rows] = part.T
    return Kernels(*found)
