"""Time the Gram matrix of LeNet-5's lpNTK against the usual recipe and, where installed, its peers.

    python benchmarks/gram.py [--sizes 512 2048] [--threads 2] [--repeats 5]

Prints seconds and ratios, and exits with 1 when a ratio is below what the project promises.
"""

import argparse
import importlib.util
import os
import statistics
import time

import numpy as np
import torch
from torch.func import functional_call, grad, vmap

import ntk_course as ntk

OVER_RECIPE, OVER_PEERS = 8.0, 2.0


def ours(model, x, y):
    """Build the timed call of this package."""
    return lambda: ntk.lpntk(model, x, y)


def recipe(model, x, y):
    """Build the torch.func recipe: per-sample gradients with vmap over grad, then one matrix product."""
    params = {name: p.detach() for name, p in model.named_parameters()}
    c = ntk.signs(y, 10) / 10**0.5

    def scalar(params, x_n, c_n):
        return functional_call(model, params, (x_n[None],))[0] @ c_n

    def run():
        gradients = vmap(grad(scalar), (None, 0, 0))(params, x, c)
        phi = torch.cat([g.flatten(1) for g in gradients.values()], dim=1)
        return phi @ phi.T

    return run


def nngeometry(model, x, y):
    """Build nngeometry's dense Gram matrix of a scalar-output function, one batch."""
    from nngeometry.backend import TorchHooksJacobianBackend
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(x, ntk.signs(y, 10) / 10**0.5), batch_size=len(x))

    def function(x_b, c_b):
        return (model(x_b) * c_b).sum(1, keepdim=True)

    backend = TorchHooksJacobianBackend(model=model, function=function)
    return lambda: backend.get_gram_matrix(loader).view(len(x), len(x)).detach()


def neural_tangents(model, x, y):
    """Build neural-tangents' structured derivatives of the same function, jitted, with the same weights."""
    import jax
    import jax.numpy as jnp
    import neural_tangents as nt

    conv1, conv2, *dense = [[jnp.asarray(p.detach().numpy()) for p in m.parameters()] for m in model if list(m.parameters())]
    weights = (conv1, conv2, dense)
    signs = jnp.asarray((ntk.signs(y, 10) / 10**0.5).numpy())

    def conv(h, layer, padding):
        w, b = layer
        h = jax.lax.conv_general_dilated(h, w, (1, 1), padding, dimension_numbers=("NCHW", "OIHW", "NCHW"))
        h = jax.nn.relu(h + b[None, :, None, None])
        return jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

    def apply(weights, inputs):
        x, c = inputs
        conv1, conv2, dense = weights
        h = conv(conv(x, conv1, [(2, 2), (2, 2)]), conv2, "VALID").reshape(x.shape[0], -1)
        for i, (w, b) in enumerate(dense):
            h = h @ w.T + b
            h = jax.nn.relu(h) if i < 2 else h
        return (h * c).sum(1, keepdims=True)

    kernel = nt.empirical_ntk_fn(
        apply, trace_axes=(), vmap_axes=((0, 0), 0, {}), implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES
    )
    jitted = jax.jit(lambda inputs: kernel(inputs, None, weights))
    inputs = (jnp.asarray(x.numpy()), signs)
    return lambda: torch.tensor(np.asarray(jitted(inputs).block_until_ready())).view(len(x), len(x))


ROUTES = {"ntk_course": ours, "torch.func recipe": recipe, "nngeometry": nngeometry, "neural-tangents": neural_tangents}
NEEDS = {"nngeometry": "nngeometry", "neural-tangents": "neural_tangents"}


def interleaved(calls, repeats):
    """Time several calls in turn, so that a slow moment of the machine hits all of them; return best and median of each."""
    times = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: (min(values), statistics.median(values)) for name, values in times.items()}


def main() -> int:
    """Run the comparison and return 0 when every promised ratio holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = ntk.lenet5()
    print(f"torch {torch.__version__}, {args.threads} threads; LeNet-5, float32, {args.repeats} runs each, seconds")
    missed = False
    for n in args.sizes:
        x, y = torch.randn(n, 1, 28, 28), torch.randint(0, 10, (n,))
        calls = {}
        for name, build in ROUTES.items():
            if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
                print(f"  {name}: not installed (see benchmarks/README.md)")
                continue
            calls[name] = build(model, x, y)
        wanted = calls["torch.func recipe"]()
        for name, call in calls.items():
            off = float((call() - wanted).norm() / wanted.norm())
            if off > 1e-4:
                raise SystemExit(f"{name} computes another matrix: relative difference {off:.1e}")
        seconds = interleaved(calls, args.repeats)
        ratios = {name: [s / o for s, o in zip(pair, seconds["ntk_course"], strict=True)] for name, pair in seconds.items()}
        for name, (best, median) in seconds.items():
            times = f"best {best:8.4f} ({ratios[name][0]:5.1f} x ours)   median {median:8.4f} ({ratios[name][1]:5.1f} x ours)"
            print(f"  N = {n:>5}  {name:<18} {times}")
        peers = [ratio for name, (ratio, _) in ratios.items() if name in NEEDS]
        missed |= ratios["torch.func recipe"][0] < OVER_RECIPE or (bool(peers) and min(peers) < OVER_PEERS)
    print(f"promised: {OVER_RECIPE:g} x the recipe, {OVER_PEERS:g} x the faster peer: {'MISSED' if missed else 'reached'}")
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
