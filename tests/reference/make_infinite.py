"""Write infinite.json: kernels of infinite networks by neural-tangents, an independent implementation.

pip install -r benchmarks/requirements-peers.txt
python tests/reference/make_infinite.py
"""

import json
from pathlib import Path

import jax
import neural_tangents
import numpy as np
from neural_tangents import stax

jax.config.update("jax_enable_x64", True)
HERE = Path(__file__).parent
ACTIVATIONS = {
    "relu": stax.Relu(),
    "leaky_relu": stax.LeakyRelu(0.01),
    "abs": stax.Abs(),
    "erf": stax.Erf(),
    "gelu": stax.Gelu(),
    "sin": stax.Sin(),
    "sigmoid": stax.ElementwiseNumerical(jax.nn.sigmoid, deg=60),
}


def kernels(layers, x1, x2):
    nngp, ntk = stax.serial(*layers)[2](x1, x2, ("nngp", "ntk"))
    return {"nngp": np.asarray(nngp).tolist(), "ntk": np.asarray(ntk).tolist()}


def composed(rng):
    """Networks of several kinds of layers, by name; tests/test_composed.py has the same in torch, and draws the same inputs."""
    how = {"W_std": 1.3, "b_std": 0.4}
    vectors = rng.normal(size=(4, 5)), rng.normal(size=(3, 5))
    images = rng.normal(size=(3, 6, 5, 2)), rng.normal(size=(2, 6, 5, 2))
    tokens = rng.normal(size=(3, 4, 5)), rng.normal(size=(2, 4, 5))
    relu, gelu, erf = stax.Relu(), stax.Gelu(), stax.Erf()
    dense = stax.Dense(1, **how)
    branch = stax.serial(relu, stax.Dense(1, **how))
    residual = stax.serial(stax.FanOut(2), stax.parallel(stax.Identity(), branch), stax.FanInSum())
    gate = stax.serial(stax.FanOut(2), stax.parallel(stax.serial(dense, gelu), stax.Dense(1, **how)), stax.FanInProd())
    beside = stax.serial(stax.FanOut(2), stax.parallel(stax.serial(dense, erf), stax.serial(dense, relu)), stax.FanInConcat(-1))
    norm = stax.LayerNorm(axis=-1, eps=1e-12)
    attention = stax.GlobalSelfAttention(
        1, 1, 1, 1, linear_scaling=True, W_key_std=1.2, W_query_std=1.2, W_value_std=0.9, W_out_std=1.1, b_std=None
    )
    mean = stax.GlobalAvgPool()
    conv = stax.Conv(1, (3, 3), padding="SAME", **how)
    strided = stax.Conv(1, (3, 2), strides=(2, 1), padding="VALID", **how)
    around = stax.Conv(1, (3, 3), padding="CIRCULAR", **how)
    pool = stax.AvgPool((2, 2), strides=(2, 2), padding="VALID")
    line = stax.Conv(1, (3,), padding="SAME", **how)
    layers = {
        "residual": ([dense, residual, residual, erf, dense], vectors),
        "gate": ([dense, relu, gate, dense], vectors),
        "beside": ([beside, dense, relu, dense], vectors),
        "norm": ([dense, norm, relu, dense, norm, gelu, dense], vectors),
        "strided": ([conv, relu, strided, erf, stax.Flatten(), dense], images),
        "circular": ([around, relu, around, relu, mean, dense], images),
        "pooled": ([conv, relu, pool, conv, gelu, mean, dense], images),
        "channels": ([conv, stax.LayerNorm(axis=(1, 2, 3), eps=1e-12), relu, stax.Flatten(), dense], images),
        "line": ([line, relu, line, relu, stax.Flatten(), dense], tokens),
        "attention": ([dense, attention, norm, dense, relu, mean, dense], tokens),
    }
    return {
        name: kernels(some, *inputs) | {f"x{i}": x.tolist() for i, x in enumerate(inputs, 1)}
        for name, (some, inputs) in layers.items()
    }


def main():
    rng = np.random.default_rng(0)
    x1, x2 = rng.normal(size=(4, 5)), rng.normal(size=(3, 5))
    rows = []
    for activation, phi in ACTIVATIONS.items():
        for depth, w_std, b_std in ((1, 1.0, 0.0), (3, 1.3, 0.4)):
            for parameterization in ("ntk", "standard"):
                width = 64 if parameterization == "standard" else None
                how = {"W_std": w_std, "b_std": b_std or None, "parameterization": parameterization}
                layers = []
                for _ in range(depth):
                    layers += [stax.Dense(width or 1, **how), phi]
                about = {"activation": activation, "depth": depth, "w_std": w_std, "b_std": b_std}
                about |= {"parameterization": parameterization, "width": width}
                rows.append(about | kernels([*layers, stax.Dense(1, **how)], x1, x2))
    images = rng.normal(size=(3, 5, 6, 2)), rng.normal(size=(2, 5, 6, 2))
    convolutions = []
    for activation in ("relu", "erf"):
        for pooling, head in (("flatten", stax.Flatten()), ("average", stax.GlobalAvgPool())):
            for depth, w_std, b_std in ((1, 1.0, 0.0), (3, 1.3, 0.4)):
                how = {"W_std": w_std, "b_std": b_std or None}
                layers = []
                for _ in range(depth):
                    layers += [stax.Conv(1, (3, 3), padding="SAME", **how), ACTIVATIONS[activation]]
                about = {"activation": activation, "pooling": pooling, "depth": depth, "w_std": w_std, "b_std": b_std}
                convolutions.append(about | kernels([*layers, head, stax.Dense(1, **how)], *images))
    parts = composed(rng)
    versions = {"neural-tangents": neural_tangents.__version__, "jax": jax.__version__, "numpy": np.__version__}
    stored = {"versions": versions, "x1": x1.tolist(), "x2": x2.tolist(), "mlp": rows}
    stored |= {"images": [np.moveaxis(i, 3, 1).tolist() for i in images], "cntk": convolutions}
    (HERE / "infinite.json").write_text(json.dumps(stored))
    (HERE / "composed.json").write_text(json.dumps({"versions": versions, "kernels": parts}))


if __name__ == "__main__":
    main()
