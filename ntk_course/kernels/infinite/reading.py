"""Reading a PyTorch model, by its torch.fx graph, as a program of kernels."""

import copy
import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ...models.networks import activation_module
from . import covariances, places
from .activations import expectations
from .algebra import ALGEBRA, multiply
from .covariances import Pair, Sides, Weights
from .layers import LAYERS, Value, dense, filtered, looked_up, norm
from .program import Builder, Contraction, Field, Program, Unknown, settled

POINTWISE: dict[Any, str] = {
    torch.relu: "relu", F.relu: "relu", "relu": "relu", nn.ReLU: "relu", torch.relu_: "relu", "relu_": "relu",
    torch.tanh: "tanh", F.tanh: "tanh", "tanh": "tanh", nn.Tanh: "tanh", "tanh_": "tanh",
    torch.sigmoid: "sigmoid", F.sigmoid: "sigmoid", "sigmoid": "sigmoid", nn.Sigmoid: "sigmoid", "sigmoid_": "sigmoid",
    torch.abs: "abs", "abs": "abs", torch.erf: "erf", "erf": "erf", torch.sin: "sin", "sin": "sin",
    F.gelu: "gelu", nn.GELU: "gelu", F.silu: "silu", nn.SiLU: "silu", F.softplus: "softplus", nn.Softplus: "softplus",
    F.leaky_relu: "leaky_relu", nn.LeakyReLU: "leaky_relu",
}  # fmt: skip
# Their effect is that of what they do to numbers of positions, and to unit vectors.
MOVING = {
    torch.flatten, torch.transpose, torch.permute, torch.squeeze, torch.unsqueeze, torch.reshape, torch.flip, torch.roll,
    torch.movedim, torch.swapaxes, operator.getitem, "view", "reshape", "flatten", "unflatten", "transpose", "permute", "squeeze", "unsqueeze",
    "contiguous", "clone", "flip", "roll", "swapaxes", "movedim", "select", "narrow", "expand", "mT",
    torch.chunk, torch.split, torch.unbind, torch.tensor_split, "chunk", "split", "unbind", "tensor_split", "swapdims", "T", "t",
    "repeat", "double", "float", torch.index_select, "index_select", torch.narrow, torch.select,
    nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, F.dropout,
}  # fmt: skip
SUMMING = {
    torch.mean, torch.sum, "mean", "sum", F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d, F.pad, F.interpolate, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.ZeroPad1d, nn.ZeroPad2d, nn.Upsample,
}  # fmt: skip
GATED = (nn.GLU, F.glu)
_SHAPES = ("shape", "dtype", "device", "ndim")
# Whether it multiplies, or divides.
_SCALING = {operator.mul: True, torch.mul: True, "mul": True, operator.truediv: False, torch.div: False, "div": False}
_IN_PLACE = ("iadd", "isub", "imul", "itruediv")
# Of a centred Gaussian their values have mean zero.
ODD = ("tanh", "erf", "sin")
_LISTED = "wanted the layers and operations that ntk_course.infinite.limit lists"
_NOT_KNOWN = f"its kernel of infinite width is not known here; {_LISTED}"
_LARGEST = "the largest of correlated Gaussians has no closed form; wanted a mean over positions"
_GATES = "its gates multiply functions of the same weights; wanted nn.RNN"
_HEADS = "it is random in the limit, for scores that are not divided by the width; wanted scores h @ h.mT / width"
WHY: dict[Any, str] = {
    nn.MaxPool1d: _LARGEST, nn.MaxPool2d: _LARGEST, F.max_pool1d: _LARGEST, F.max_pool2d: _LARGEST, torch.max: _LARGEST,
    torch.max_pool2d: _LARGEST, torch.max_pool1d: _LARGEST, "max": _LARGEST, nn.LSTM: _GATES, nn.GRU: _GATES, nn.MultiheadAttention: _HEADS,
    F.softmax: _HEADS, torch.softmax: _HEADS, "softmax": _HEADS, nn.Softmax: _HEADS,
}  # fmt: skip


def traced(model: nn.Module, given: int = 1) -> tuple[nn.Module, fx.Graph]:
    """Copy a model in double precision, and trace it for so many arguments; the others have their defaults.

    Raises:
        TypeError: its forward cannot be traced.
        ValueError: it is wrapped, or a layer does more than its type says.
    """
    _as_it_is(model)
    try:
        others = list(inspect.signature(model.forward).parameters.values())[given:]
        defaults = {p.name: p.default for p in others if p.default is not p.empty}
        double = copy.deepcopy(model).double()
        return double, fx.Tracer().trace(double, concrete_args=defaults or None)
    except Exception as error:
        raise TypeError(
            f"model: got {type(model).__name__}, whose operations torch.fx cannot write down ({error}); wanted a forward without "
            "decisions that depend on its input, or on its shape"
        ) from error


def _as_it_is(model: nn.Module) -> None:
    """Refuse wrappers, and hooks on layers and forwards of their own, which are not in the graph."""
    if isinstance(model, nn.DataParallel) or hasattr(model, "_orig_mod"):
        raise Unknown(f"model: got {type(model).__name__}; wanted the module in it, model.module or model._orig_mod")
    for name, module in model.named_modules():
        before_and_behind = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
        backwards = module._backward_hooks or module._backward_pre_hooks
        if backwards or (before_and_behind and fx.Tracer().is_leaf_module(module, name)):
            raise Unknown(
                f"model: got layer '{name}' ({type(module).__name__}) with hooks or a forward of its own, as spectral_norm, weight_norm and "
                "pruning give it; wanted a layer that does what its type says"
            )


@dataclass(frozen=True)
class Weight:
    """A parameter that no module passes."""

    name: str
    value: nn.Parameter
    turned: bool = False
    factor: float = 1.0


class Reader(fx.Interpreter):
    """Walk a graph: plain tensors are computed, fields become rules."""

    def __init__(self, model: nn.Module, graph: fx.Graph, build: Builder):
        super().__init__(model, graph=graph)  # no GraphModule, some of whose names a model may have
        self.build = build
        self.extra_traceback = False
        self.called: set[int] = set()
        self.acted: dict[tuple[str | float, int], tuple[Field, Field]] = {}
        self.order, self.fixed = {node: i for i, node in enumerate(graph.nodes)}, _fixed(model, graph)

    def program(self, *samples: Tensor) -> Program:
        """Read the model on samples, and return its program."""
        result = self.run(*samples)
        if isinstance(result, tuple | list) or not isinstance(result, Field):
            raise Unknown(
                f"model: got an output of type {type(result).__name__}; wanted one tensor that passed a layer of weights"
            )
        places.first_axis(result)
        if result.batch is None:
            raise Unknown("model: got an output that is the same for all samples; wanted one that depends on them")
        if result.positions and max(result.positions) > 1:
            raise Unknown(
                f"model: got an output of shape {('N', *result.shape)}, one for each of the positions {result.positions}; wanted one a sample: "
                "their mean, or a layer over all of them"
            )
        if result.gain:
            result = self.build.add(
                lambda sides, pair: pair, [result], result.shape, result.channels, gaussian=False, sources=result.sources
            )
        return Program(self.build.steps, result.step, self.build.numbers)

    def run_node(self, n: fx.Node) -> Any:
        """Say at which operation something is not known."""
        self.build.key, self.node = n.name, n
        try:
            self._refuse_in_place(n)
            return super().run_node(n)
        except Unknown as error:
            words = str(error)
            raise Unknown(words if words.startswith("model: ") else f"model: got {self._named(n)}; {words}") from None
        except (TypeError, IndexError, AttributeError, RuntimeError) as error:
            raise Unknown(f"model: got {self._named(n)}, which could not be followed ({error}); {_LISTED}") from error

    def _refuse_in_place(self, n: fx.Node) -> None:
        """Refuse what writes over a value that is used again: the graph's later nodes would take what was written."""
        module: Any = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        name = str(getattr(n.target, "__name__", n.target))
        writes = bool(getattr(module, "inplace", False) or n.kwargs.get("inplace", False))
        if n.op in ("call_method", "call_function"):
            writes = writes or name in _IN_PLACE or (name.endswith("_") and not name.startswith("_"))
        if (
            writes
            and n.all_input_nodes
            and any(self.order[user] > self.order[n] for node in self._alike(n) for user in node.users if user is not n)
        ):
            raise Unknown("it writes over a value that is used again later; wanted it not in place")

    def _alike(self, n: fx.Node) -> set[fx.Node]:
        """Return the nodes before n that may share the memory of what it takes: those that moves of positions lead to."""
        moves = lambda node: node.op != "placeholder" and self._what(node) in MOVING
        base = n.all_input_nodes[0]
        while moves(base) and base.all_input_nodes:
            base = base.all_input_nodes[0]
        found, new = {base}, [base]
        while new:
            more = [user for user in new.pop().users if user not in found and self.order[user] < self.order[n] and moves(user)]
            found.update(more)
            new += more
        return found

    def _what(self, n: fx.Node) -> Any:
        return type(self.fetch_attr(str(n.target))) if n.op == "call_module" else n.target

    def _named(self, n: fx.Node) -> str:
        if n.op == "call_module":
            return f"layer '{n.target}' ({type(self.fetch_attr(str(n.target))).__name__})"
        return f"operation '{n.name}' ({getattr(n.target, '__name__', n.target)})"

    def get_attr(self, target, args, kwargs):
        """Return a buffer as it is, and a parameter by its name: what it is depends on its use."""
        value = super().get_attr(target, args, kwargs)
        return Weight(target, value) if isinstance(value, nn.Parameter) else value

    def call_module(self, target, args, kwargs):
        """Pass a layer, or a module that has no weights."""
        module = self.fetch_attr(target)
        trained = any(True for _ in module.parameters())
        if type(module) is nn.Embedding and self.node.all_input_nodes[0].name in self.fixed and _is_a_table(module):
            return self._rows(Weight(f"{target}.weight", module.weight), args[0])
        if type(module) in LAYERS and (trained or _fields(args)):
            self._use(*module.parameters())
            return LAYERS[type(module)](self.build, target, module, *self._of_samples(args), **kwargs)
        if trained:
            raise Unknown(WHY.get(type(module), _NOT_KNOWN))
        return self._apply(type(module), module, args, kwargs, module)

    def call_function(self, target, args, kwargs):
        """Pass a function."""
        if target is getattr and isinstance(args[0], Weight):
            if args[1] in _SHAPES:
                return getattr(args[0].value, args[1])
            return (
                replace(args[0], turned=not args[0].turned) if args[1] in ("T", "mT") else self._apply("mT", target, args, kwargs)
            )
        if (
            target is F.embedding
            and isinstance(args[1], Weight)
            and len(args) == 2
            and set(kwargs.values()) <= {None, False, 2.0}
        ):
            return self._rows(args[1], args[0])
        if target in WEIGHTED:
            given = dict(zip(_WEIGHTED_ARGUMENTS, args, strict=False)) | kwargs
            weight, bias = given.pop("weight", None), given.pop("bias", None)
            if isinstance(weight, Weight):
                if not isinstance(bias, Weight | None):
                    raise Unknown(
                        "its bias is made of plain numbers, or of several parameters; wanted a parameter, or a number times one"
                    )
                self._use(*(w.value for w in (weight, bias) if w is not None))
                (x,) = self._of_samples((self._as_field(given.pop("input")),))
                return WEIGHTED[target](self.build, x, weight, bias, **given)
        if target in NORMS and (_fields(args[:1]) or "input" in kwargs and _fields(kwargs["input"])):
            return self._normed(NORMS[target](*args, **kwargs))
        if target is getattr and isinstance(args[0], Field) and args[1] != "mT":
            return getattr(places.numbered(self.build, args[0])[0], args[1])
        return self._apply("mT" if target is getattr else target, target, args, kwargs)

    def _normed(self, called: "Normed") -> Field:
        """Call a norm as its module would be."""
        (x,), weights = self._of_samples((called.input,)), (called.weight, called.bias)
        if not all(isinstance(w, Weight | None) and (w is None or (w.factor, w.turned) == (1.0, False)) for w in weights):
            raise Unknown("its factors or shifts are no parameters; wanted parameters, as they start, or none")
        module: Any = called.module(x)
        module.weight, module.bias = (None if w is None else w.value for w in weights)
        self._use(*(w.value for w in weights if w is not None))
        return norm(self.build, next((w.name for w in weights if w is not None), self.build.key), module, x)

    def call_method(self, target, args, kwargs):
        """Pass a method of a tensor."""
        if target in ("size", "dim") and isinstance(args[0], Weight):
            return getattr(args[0].value, target)(*args[1:])
        if target == "t" and isinstance(args[0], Weight):
            return replace(args[0], turned=not args[0].turned)
        if target in ("size", "dim") and isinstance(args[0], Field):
            return getattr(places.numbered(self.build, args[0])[0], target)(*args[1:])
        return self._apply(target, lambda x, *rest, **named: getattr(x, target)(*rest, **named), args, kwargs)

    def _apply(self, what, function: Callable, args, kwargs, module: nn.Module | None = None):
        if not args and "input" in kwargs:
            others = {name: value for name, value in kwargs.items() if name != "input"}
            return self._apply(what, function, (kwargs["input"],), others, module)
        if what in (operator.matmul, torch.matmul, "matmul") and isinstance(args[1], Weight) and args[1].value.dim() == 2:
            by, (x,) = args[1], self._of_samples((self._as_field(args[0]),))
            self._use(by.value)
            weights = self.build.scales.weights(by.name, first=not by.turned)
            made = dense(self.build, by.name, weights, by.value.shape[0 if by.turned else 1], x)
            return made if by.factor == 1 else multiply(self.build, made, by.factor)
        if what is operator.getitem and isinstance(args[0], Weight) and isinstance(args[1], Tensor) and self._of_each():
            return self._rows(*args)
        if what in _SCALING and isinstance(args[0], Weight) and isinstance(args[1], int | float):
            return replace(args[0], factor=args[0].factor * (args[1] if _SCALING[what] else 1 / args[1]))
        if what in _SCALING and _SCALING[what] and isinstance(args[0], int | float) and isinstance(args[1], Weight):
            return replace(args[1], factor=args[1].factor * args[0])
        args, kwargs = (fx.node.map_aggregate(some, self._as_field) for some in (args, kwargs))
        fields = _fields((args, kwargs))
        if what in ALGEBRA and (fields or _all((args, kwargs), Contraction)):
            return ALGEBRA[what](self.build, *args, **kwargs)
        if not fields:
            args, kwargs = (fx.node.map_aggregate(some, settled) for some in (args, kwargs))
            return function(*args, **kwargs)
        if what is operator.getitem and isinstance(args[0], tuple | list):  # such as a recurrent network's outputs
            return function(*args, **kwargs)
        if (
            what in ("squeeze", torch.squeeze) and isinstance(args[0], tuple) and len(args[0]) == 1
        ):  # a recurrent network's last state
            return args[0][0]
        if not args or not isinstance(args[0], Field):
            raise Unknown(WHY.get(what, _NOT_KNOWN))
        if self._of_each():
            raise Unknown(
                "what it takes of a sample is chosen by that sample's numbers; wanted the same places of all, or a mask that multiplies: "
                "(h * one_hot(i, T)[..., None]).sum(1)"
            )
        if what is F.dropout and (kwargs.get("training", True) if len(args) < 3 else args[2]):
            raise Unknown("its answer depends on chance; wanted F.dropout(h, p, self.training) in eval mode")
        if what in GATED:
            dim = module.dim if isinstance(module, nn.GLU) else args[1] if len(args) > 1 else kwargs.get("dim", -1)
            opened, gate = places.moved(self.build, torch.chunk, (args[0], 2, dim), {}, args[0])
            return multiply(self.build, opened, self._pointwise("sigmoid", gate))
        if what in POINTWISE:
            name = _variant(what, module, function, args[1:], kwargs)
            if (name, id(args[0])) not in self.acted:  # the same of the same is one field
                self.acted[name, id(args[0])] = args[0], self._pointwise(name, args[0])
            return self.acted[name, id(args[0])][1]
        if what in SUMMING:
            return places.summed(self.build, function, args, kwargs, fields[0])
        if what in MOVING:
            return places.moved(self.build, function, args, kwargs, fields[0])
        raise Unknown(WHY.get(what, _NOT_KNOWN))

    def _of_each(self) -> bool:
        """Say whether numbers of the samples themselves, such as an index, are among what the operation takes."""
        return any(n.name not in self.fixed and isinstance(self.env[n], Tensor) for n in self.node.all_input_nodes)

    def _rows(self, table: Weight, words: Any) -> Field:
        """Take rows of a table: by words of samples, or the same ones for all."""
        if not isinstance(words, Tensor) or words.is_floating_point() or words.dtype is torch.bool or table.value.dim() != 2:
            raise Unknown("it takes rows of a parameter by what are no words; wanted a table (words, channels), and integers")
        if table.turned:
            raise Unknown("its table is turned; wanted a table (words, channels)")
        if not self._of_each():
            field = self._as_field(table)
            return places.moved(self.build, operator.getitem, (field, words.cpu()), {}, field)
        self._use(table.value)
        field = looked_up(self.build, table.name, table.value.shape[1], words)
        return field if table.factor == 1 else multiply(self.build, field, table.factor)

    def _pointwise(self, name: str | float, field: Field) -> Field:
        if field.moved is not None:  # what acts on each number acts before positions become channels as well
            before, *moves = field.moved
            return places.found(self.build, self._pointwise(name, before), *moves)
        if not field.gaussian:
            raise Unknown(
                "its input is not Gaussian and alike at all channels: there is no layer of weights since the last activation, product or "
                "flattening; wanted one before it"
            )
        if field.blended:
            raise Unknown(
                "trained factors of a norm reach it through a sum, where their tangent kernel is not known here; wanted a layer before it"
            )
        key, gain = self.build.key, field.gain

        def rule(sides: Sides, pair: Pair) -> Pair:
            return covariances.activation(name, gain, key, sides, pair)

        made = self.build.add(rule, [field], field.shape, field.channels, gaussian=False, sources=field.sources, gain=0.0)
        mean = None if name in ODD else lambda: _mean(name, self.build.own.diagonal(self.build.pairs[field.step].nngp))
        return replace(made, batch=field.batch, centred=name in ODD, mean=mean, alike=field.alike)

    def _of_samples(self, args) -> list:
        """Return what a layer of weights takes, settled; refuse what is the same for all samples."""
        if self.node.all_input_nodes[0].name in self.fixed:
            raise Unknown("it takes what is the same for all samples; wanted it to take samples")
        return [settled(a) for a in args]

    def _use(self, *parameters: nn.Parameter) -> None:
        """Note that parameters are used, by what they are and not by their names: tied ones have several."""
        if self.called & {id(p) for p in parameters}:
            raise Unknown("its weights are used twice, so that what they make is correlated; wanted a layer for each use")
        self.called |= {id(p) for p in parameters}

    def _as_field(self, value: Any) -> Any:
        """Make a parameter a field whose positions are independent of one another, channels last."""
        if not isinstance(value, Weight):
            return value
        name, p = value.name, value.value
        self._use(p)
        if p.numel() == 1 or value.turned:
            raise Unknown(
                f"parameter '{name}' of shape {tuple(p.shape)} is used as it is; wanted weights, positions or a bias, channels last"
            )
        shape = tuple(p.shape)
        variance, own = self.build.scales.table(name)
        count = p[..., 0].numel()
        one = torch.eye(count) if self.build.own.every else torch.ones(count)
        one = one.to(self.build.device, torch.float64)

        def rule(sides: Sides) -> Pair:
            every = one.expand(*sides.lead, *one.shape)
            return Pair(variance * every, own * every)

        field = self.build.add(rule, [], shape, {len(shape) - 1}, gaussian=True, sources={name})
        field = replace(field, batch=None)
        return field if value.factor == 1 else multiply(self.build, field, value.factor)


def _is_a_table(words: nn.Embedding) -> bool:
    """Say whether its rows are taken as they are, all of them trained."""
    return words.padding_idx is None and words.max_norm is None and not words.scale_grad_by_freq


def _mean(name: str | float, variance: Tensor) -> Tensor:
    """Return an activation's mean over a Gaussian: the root of what two independent ones have, for those that are no odd functions."""
    both = expectations(name, torch.zeros_like(variance), variance, variance)[0]
    return both.sqrt() * (-1 if isinstance(name, float) and name > 1 else 1)


def _scales(build: Builder, weight: Weight, bias: Weight | None) -> Weights:
    """Return the scales of a layer's weights and bias, each times a number."""
    found = build.scales.weights(weight.name, bias.name if bias else None, first=weight.turned)
    by, more = weight.factor**2, bias.factor**2 if bias else 1.0
    return Weights(found.variance * by, found.bias * more, found.own * by, found.own_bias * more)


def _linear(build: Builder, x: Value, weight: Weight, bias: Weight | None) -> Field:
    return dense(build, weight.name, _scales(build, weight, bias), weight.value.shape[1 if weight.turned else 0], x)


def _convolution(
    build: Builder, x: Value, weight: Weight, bias: Weight | None, stride=1, padding=0, dilation=1, groups=1
) -> Field:
    """Call it as its module would be."""
    if weight.turned:
        raise Unknown("its filter is turned; wanted it as it is")
    sizes = tuple(weight.value.shape[2:])
    each = lambda n: tuple(n) if isinstance(n, tuple | list) else (n,) * len(sizes)
    how = SimpleNamespace(kernel_size=sizes, groups=groups, padding_mode="zeros", stride=each(stride), dilation=each(dilation))
    how.padding = padding if isinstance(padding, str) else each(padding)
    how.out_channels, how.in_channels = len(weight.value), weight.value.shape[1] * groups
    return filtered(build, weight.name, _scales(build, weight, bias), how, x)


_WEIGHTED_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
WEIGHTED = {F.linear: _linear, F.conv1d: _convolution, F.conv2d: _convolution, F.conv3d: _convolution}


@dataclass(frozen=True)
class Normed:
    """A norm that is called as a function.

    Attributes:
        input: what it takes.
        weight: its factors, or None.
        bias: its shifts, or None.
        module: makes the module without factors, for a field.
    """

    input: Any
    weight: Any
    bias: Any
    module: Callable[[Field], nn.Module]


def _layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5) -> Normed:
    return Normed(input, weight, bias, lambda x: nn.LayerNorm(normalized_shape, eps, elementwise_affine=False))


def _rms_norm(input, normalized_shape, weight=None, eps=None) -> Normed:
    return Normed(input, weight, None, lambda x: nn.RMSNorm(normalized_shape, eps, elementwise_affine=False))


def _group_norm(input, num_groups, weight=None, bias=None, eps=1e-5) -> Normed:
    return Normed(input, weight, bias, lambda x: nn.GroupNorm(num_groups, x.shape[0], eps, affine=False))


NORMS: dict[Any, Callable[..., Normed]] = {F.layer_norm: _layer_norm, F.rms_norm: _rms_norm, F.group_norm: _group_norm}


def _fields(arguments) -> list[Field]:
    return _all(arguments, Field)


def _all(arguments, kind: type) -> list:
    found: list = []
    fx.node.map_aggregate(arguments, lambda a: found.append(a) if isinstance(a, kind) else None)
    return found


def _fixed(model: nn.Module, graph: fx.Graph) -> set[str]:
    """Name what does not depend on the samples' numbers, though it may on their shape."""
    fixed: set[str] = set()
    for node in graph.nodes:
        shape_only = node.target in ("size", "dim") or (
            node.target is getattr and node.args[1] in ("shape", "device", "dtype", "ndim")
        )
        if node.op == "get_attr" and isinstance(operator.attrgetter(node.target)(model), nn.Parameter):
            continue
        if node.op != "placeholder" and (shape_only or all(n.name in fixed for n in node.all_input_nodes)):
            fixed.add(node.name)
    return fixed


def _variant(what, module: nn.Module | None, function: Callable, args, kwargs) -> str | float:
    """Return an activation's name, or the slope of a leaky ReLU; refuse what, by its settings, is another function."""
    name: str | float = POINTWISE[what]
    if name == "leaky_relu":
        name = float(
            module.negative_slope if isinstance(module, nn.LeakyReLU) else args[0] if args else kwargs.get("negative_slope", 0.01)
        )
    t = torch.linspace(-30, 30, 1201, dtype=torch.float64)
    wanted = F.leaky_relu(t, name) if isinstance(name, float) else activation_module(name)(t)
    if (function(t.clone(), *args, **kwargs) - wanted).abs().max() > 1e-8:
        raise Unknown(f"by its settings it is another function than {name}; wanted the plain one, such as GELU() or Softplus()")
    return name
