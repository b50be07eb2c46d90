"""Ways to the same Gram matrix: this package, the usual recipe, and the libraries of the field where they are installed.

Each builder takes a model, samples, labels and cotangents c (N, K), and returns a call that gives the (N, N) matrix.
"""

import importlib.util
import logging

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

import ntk_course as ntk
from ntk_course.models.networks import _ResidualBlock

# Per-sample gradients are formed so many bytes at a time, and are kept whole.
_CHUNK = 2**29


def ours(model, x, c):
    """Build the timed call of this package."""
    return lambda: ntk.tangent_kernel(model, x, c)


def recipe(model, x, c):
    """Build the torch.func recipe: per-sample gradients with vmap over grad, then one matrix product."""
    params = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())
    size = sum(p.numel() for p in params.values())

    def scalar(params, x_n, c_n):
        return functional_call(model, params | buffers, (x_n[None],))[0] @ c_n

    chunk = max(1, _CHUNK // (8 * size)) if size > 10**6 else None
    gradients = vmap(grad(scalar), (None, 0, 0), chunk_size=chunk)

    def run():
        phi = torch.cat([g.flatten(1) for g in gradients(params, x, c).values()], dim=1)
        return phi @ phi.T

    return run


def nngeometry(model, x, c):
    """Build nngeometry's dense Gram matrix of a scalar-output function, one batch."""
    from nngeometry.backend import TorchHooksJacobianBackend
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(x, c), batch_size=len(x))

    def function(x_b, c_b):
        return (model(x_b) * c_b).sum(1, keepdim=True)

    backend = TorchHooksJacobianBackend(model=model, function=function)
    return lambda: backend.get_gram_matrix(loader).view(len(x), len(x)).detach()


def neural_tangents(model, x, c):
    """Build neural-tangents' structured derivatives of the same function, jitted, with the same weights."""
    import jax
    import jax.numpy as jnp
    import neural_tangents as nt

    apply, weights = in_jax(model)
    kernel = nt.empirical_ntk_fn(
        lambda weights, inputs: (apply(weights, inputs[0]) * inputs[1]).sum(1, keepdims=True),
        trace_axes=(),
        vmap_axes=((0, 0), 0, {}),
        implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES,
    )
    jitted = jax.jit(lambda inputs: kernel(inputs, None, weights))
    inputs = (jnp.asarray(x.numpy()), jnp.asarray(c.numpy()))
    return lambda: torch.tensor(np.asarray(jitted(inputs).block_until_ready())).view(len(x), len(x))


def in_jax(model):
    """Write a network of the course in jax: (apply, weights)."""
    import jax
    import jax.numpy as jnp

    def array(t):
        return jnp.asarray(t.detach().numpy())

    def layer(m):
        if isinstance(m, nn.Sequential):
            parts = [layer(inner) for inner in m]

            def through(w, h):
                for (f, _), w_i in zip(parts, w, strict=True):
                    h = f(w_i, h)
                return h

            return through, tuple(w for _, w in parts)
        if isinstance(m, nn.Conv2d):
            numbers = ("NCHW", "OIHW", "NCHW")
            pads = [(p, p) for p in m.padding]

            def convolve(w, h):
                h = jax.lax.conv_general_dilated(h, w[0], m.stride, pads, dimension_numbers=numbers)
                return h + w[1][None, :, None, None] if len(w) > 1 else h

            return convolve, tuple(array(p) for p in m.parameters())
        if isinstance(m, nn.Linear):
            return (lambda w, h: h @ w[0].T + w[1]), tuple(array(p) for p in m.parameters())
        if isinstance(m, nn.BatchNorm2d):
            mean, scale = array(m.running_mean)[:, None, None], array(torch.rsqrt(m.running_var + m.eps))[:, None, None]
            return (lambda w, h: (h - mean) * scale * w[0][:, None, None] + w[1][:, None, None]), (
                array(m.weight),
                array(m.bias),
            )
        if isinstance(m, nn.ReLU):
            return (lambda w, h: jax.nn.relu(h)), ()
        if isinstance(m, nn.MaxPool2d):
            window = (1, 1, m.kernel_size, m.kernel_size)
            return (lambda w, h: jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, window, window, "VALID")), ()
        if isinstance(m, nn.AdaptiveAvgPool2d):
            return (lambda w, h: h.mean((2, 3), keepdims=True)), ()
        if isinstance(m, nn.Flatten):
            return (lambda w, h: h.reshape(h.shape[0], -1)), ()
        if isinstance(m, _ResidualBlock):
            parts = [layer(inner) for inner in (m.conv1, m.bn1, m.conv2, m.bn2, m.shortcut)]

            def block(w, h):
                (conv1, bn1, conv2, bn2, shortcut) = (
                    lambda x, f=f, w_i=w_i: f(w_i, x) for (f, _), w_i in zip(parts, w, strict=True)
                )
                return jax.nn.relu(bn2(conv2(jax.nn.relu(bn1(conv1(h))))) + shortcut(h))

            return block, tuple(w for _, w in parts)
        raise TypeError(f"no jax version of {type(m).__name__}")

    return layer(model)


def trak(model, x, c, dim=2048):
    """Build TRAK's features of the same scalar, 2048 random projections: an approximation, by the library's own parts."""
    from trak.gradient_computers import FunctionalGradientComputer
    from trak.modelout_functions import AbstractModelOutput
    from trak.projectors import BasicProjector, ProjectionType

    logging.getLogger("GradientComputer").setLevel(logging.ERROR)

    class Scalar(AbstractModelOutput):
        def __init__(self):
            super().__init__()

        @staticmethod
        def get_output(model, weights, buffers, x_n, c_n):
            return functional_call(model, (weights, buffers), (x_n[None],))[0] @ c_n

        def get_out_to_loss_grad(self, *args):
            raise NotImplementedError

    size = sum(p.numel() for p in model.parameters())
    computer = FunctionalGradientComputer(model, Scalar(), size, torch.float32, "cpu")
    projector = BasicProjector(size, dim, 0, ProjectionType.normal, "cpu")

    def run():
        features = torch.cat([projector.project(computer.compute_per_sample_grad((x, c)), 0)]) / dim**0.5
        return (features @ features.T).detach()

    return run


ROUTES = {
    "ntk_course": (ours, None),
    "torch.func recipe": (recipe, None),
    "nngeometry": (nngeometry, "nngeometry"),
    "neural-tangents": (neural_tangents, "neural_tangents"),
    "traker": (trak, "trak"),
}
EXACT = [name for name in ROUTES if name != "traker"]


def installed(name):
    """Tell whether a route's library is here."""
    return ROUTES[name][1] is None or importlib.util.find_spec(ROUTES[name][1]) is not None
