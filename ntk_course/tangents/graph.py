"""Where parameters meet samples in a model's autograd graph: every use of every parameter, whatever module it is in.

A node is *shared* when it computes from parameters alone, so that its output does not grow with the batch: the transpose
in a linear layer, the norm in a weight norm, the product of two low-rank factors. A *use* is an edge from a node that sees
samples to a parameter, or to a shared node. What arrives at the using node, and what that node has saved, give the
parameter's gradient sample by sample (:mod:`ntk_course.tangents.rules`).
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# A node of the autograd graph, and which of its outputs.
Node = Any
Edge = tuple[Node, int]
# Tells a shared node from others: its name, the shape of its output, the parameters below it.
Key = tuple[str, torch.Size, frozenset[str]]


class Use(NamedTuple):
    """One place where parameters meet samples.

    Attributes:
        node: of the operation.
        slot: which of its inputs leads to the parameters.
        below: the edge there: to a parameter's own node, or to a shared one.
        names: of the parameters below.
    """

    node: Node
    slot: int
    below: Edge
    names: frozenset[str]

    @property
    def shape(self) -> torch.Size:
        """The shape of the operation's output."""
        return output_shape((self.node, 0))

    @property
    def given(self) -> torch.Size:
        """The shape of what it takes from below."""
        return output_shape(self.below)

    @property
    def kind(self) -> str:
        """The name of the operation, such as AddmmBackward0."""
        return self.node.name()


class Graph(NamedTuple):
    """The graph under some logits.

    Attributes:
        uses: in the order of the forward pass.
        shared: the keys of all nodes that may be shared, as far as one batch tells.
        reached: names of the parameters that are in the graph at all.
        counts: how many edges lead to each parameter, by its id.
        moving: the nodes that may bring entries into another order.
        counting: whether some node scales gradients by how often a word is in the batch.
    """

    uses: list[Use]
    shared: frozenset[Key]
    reached: frozenset[str]
    counts: dict[int, int]
    moving: list[Node]
    counting: bool

    def may_reorder(self, n: int) -> bool:
        """Say whether some node could bring n samples into another order, as in a model that sorts them and puts them back."""
        return n > 1 and any(_may_reorder(node, n) for node in self.moving)


# Operations that leave every sample where it is, whatever their settings, by the names of their nodes without "Backward0".
_STILL = frozenset(
    """
    Abs Add Addcdiv Addcmul Addmm Alias AsStrided Baddbmm Bmm Ceil Clamp ClampMin ClampMax Clone Complex ConstantPadNd
    Convolution Cos CudnnBatchNorm CudnnConvolution Cumsum Div Dropout Elu Embedding EmbeddingBag Erf Exp Expand Expm1
    FftC2C FftC2R FftR2C Floor FusedRmsNorm Gelu Glu HardswishBackward Hardsigmoid Hardswish Hardtanh LeakyRelu Lerp
    LinalgVectorNorm Linear Log Log1P LogSigmoid LogSoftmax Logsumexp MaskedFill MaxPool1D MaxPool2DWithIndices
    MaxPool3DWithIndices Maximum Mean Minimum Mish Mm Mul Mv NativeBatchNorm NativeDropout NativeGroupNorm NativeLayerNorm
    Neg Permute PixelShuffle Pow PreluKernel Prod Real Reciprocal ReflectionPad1D ReflectionPad2D ReflectionPad3D Relu
    Repeat ReplicationPad1D ReplicationPad2D ReplicationPad3D ReshapeAlias Rsqrt RsubBackward Rsub RreluWithNoise
    ScaledDotProductFlashAttentionForCpu ScaledDotProductFlashAttention ScaledDotProductEfficientAttention
    ScaledDotProductCudnnAttention Selu Sigmoid Silu Sin Softmax Softplus Sqrt Squeeze Std Sub Sum Tan Tanh TanhBackward
    ThresholdBackward Threshold ToCopy Transpose Tril Trilinear Triu UnfoldBackward Im2Col UnsafeView Unsqueeze
    UpsampleBilinear2D UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D Var View ViewAsComplex ViewAsReal Where
    AdaptiveAvgPool2D AdaptiveAvgPool3D AdaptiveMaxPool2D AvgPool2D AvgPool3D MkldnnRnnLayer WeightNormInterface
    """.split()  # noqa: SIM905
)
# Operations that take apart, or put together, along one axis.
_ALONG = {"Cat", "Flip", "Select", "Slice", "Split", "SplitWithSizes", "Stack", "Unbind", "UnsafeSplit"}
# Products whose right factor, where it is no weight, could be samples that the left one mixes.
_MIXING = {"Addmm": 2, "Baddbmm": 2, "Bmm": 1, "Mm": 1}


def _operation(node: Node) -> str:
    return node.name().rstrip("0123456789").removesuffix("Backward")


def _may_reorder(node: Node, n: int) -> bool:
    name = _operation(node)
    if name in _MIXING:
        below = node.next_functions[_MIXING[name]]
        return output_shape(below)[-2] % n == 0
    if name not in _ALONG:
        return True
    shape = output_shape((node, 0)) if name in ("Cat", "Stack") else output_shape(node.next_functions[0])
    axes = getattr(node, "_saved_dims", None) or (node._saved_dim,)
    return any(shape[axis if axis < len(shape) else axis - 2**64] % n == 0 for axis in axes)


def _moves(node: Node, below: dict[Node, frozenset[str]]) -> bool:
    """Say whether a node is to be looked at: not one that is still, and not a product with a weight on the right."""
    name = _operation(node)
    if name in _MIXING:
        right = node.next_functions[_MIXING[name]][0]
        return right is not None and right not in below
    return name == "Embedding" and node.next_functions[0][0] not in below or name not in _STILL


def names_of(model: nn.Module) -> dict[int, str]:
    """Name the trainable parameters by their ids, as the autograd graph knows them; a tied one by its first name."""
    return {id(p): name for name, p in model.named_parameters() if p.requires_grad}


def read(z: Tensor, names: dict[int, str], shared: Iterable[Key] | None = None) -> Graph:
    """Walk through the graph of logits z.

    Args:
        z: logits.
        names: of parameters by id.
        shared: keys of the nodes that are known to be shared; by default every node that could be is taken for one.
    """
    after: dict[Node, list[tuple[Node, int, int]]] = {}
    leaves: dict[Node, str] = {}
    seen, stack = set(), [z.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for slot, (child, number) in enumerate(node.next_functions):
            if child is None:
                continue
            after.setdefault(child, []).append((node, slot, number))
            if (variable := getattr(child, "variable", None)) is None:
                stack.append(child)
            elif id(variable) in names:
                leaves[child] = names[id(variable)]
    known = None if shared is None else frozenset(shared)
    below, keys = {leaf: frozenset([name]) for leaf, name in leaves.items()}, set()
    waiting = list(leaves)
    while waiting:
        for node, _, _ in after.get(waiting.pop(), ()):
            children = [child for child, _ in node.next_functions if child is not None]
            if node in below or not all(child in below for child in children):
                continue
            found = frozenset().union(*(below[child] for child in children))
            key = (node.name(), output_shape((node, 0)), found)
            if known is None or key in known:
                below[node] = found
                keys.add(key)
                waiting.append(node)
    uses = [
        Use(node, slot, (child, number), names_below)
        for child, names_below in below.items()
        for node, slot, number in after.get(child, ())
        if node not in below
    ]
    uses.sort(key=lambda use: (use.node._sequence_nr(), use.slot))
    counts = {id(leaf.variable): len(after[leaf]) for leaf in leaves}
    return Graph(
        uses,
        frozenset(keys),
        frozenset(leaves.values()),
        counts,
        [node for node in seen if node not in below and _moves(node, below)],
        any(getattr(node, "_saved_scale_grad_by_freq", False) for node in seen if node.name().startswith("Embedding")),
    )


def output_shape(edge: Edge) -> torch.Size:
    """Return the shape of what an operation gave, as the graph remembers it."""
    node, number = edge
    return torch.Size(node._input_metadata[number].shape)
