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
    versions = {"neural-tangents": neural_tangents.__version__, "jax": jax.__version__, "numpy": np.__version__}
    stored = {"versions": versions, "x1": x1.tolist(), "x2": x2.tolist(), "mlp": rows}
    stored |= {"images": [np.moveaxis(i, 3, 1).tolist() for i in images], "cntk": convolutions}
    (HERE / "infinite.json").write_text(json.dumps(stored))


if __name__ == "__main__":
    main()
