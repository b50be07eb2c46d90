"""The examples of the docstrings run, with a small network, digits and a recorded path at hand, as a reader has them."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest
import torch
from torch import nn

import ntk_course as ntk

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
ROOMS = (
    ntk.data,
    ntk.models,
    ntk.training,
    ntk.tangents,
    ntk.gram,
    ntk.kernels,
    ntk.kernels.infinite,
    ntk.kernels.paths,
    ntk.analysis,
)


def examples():
    """Yield every docstring of the package that holds an example, with the module it stands in."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for info in pkgutil.walk_packages(ntk.__path__, "ntk_course."):
        if info.name.endswith("__main__") or ".stored" in info.name:
            continue
        module = importlib.import_module(info.name)
        for test in finder.find(module, info.name, module=module):
            if test.examples:
                yield pytest.param(test, module, id=test.name.removeprefix("ntk_course."))


@pytest.fixture
def at_hand(tmp_path):
    """What the examples take for granted: the package's names, 300 digits, 32 of them x, under a small network, and a short path."""
    torch.manual_seed(0)
    names = {name: getattr(room, name) for room in ROOMS for name in room.__all__}
    digits = ntk.load("digits", limit=300)
    model = ntk.mlp((64, 32, 10))
    x, y, x_test, y_test = digits.x[:32], digits.y[:32], digits.x[32:40], digits.y[32:40]
    return names | {
        "torch": torch,
        "nn": nn,
        "np": np,
        "ntk": ntk,
        "mlp": ntk.mlp,
        "data": digits,
        "model": model,
        "models": [model, ntk.mlp((64, 16, 10))],
        "x": x,
        "y": y,
        "x_test": x_test,
        "y_test": y_test,
        "x_o": x[:4],
        "x_u": x[4:6],
        "y_u": y[4:6],
        "gram": ntk.lpntk(model, x, y),
        "path": ntk.train_path(ntk.mlp((64, 8, 10)).double(), x.double(), y, steps=3, lr=0.1, progress=False),
        "eta": 0.1,
        "folder": tmp_path,
    }


@pytest.mark.parametrize(("test", "module"), list(examples()))
def test_example(test, module, at_hand, monkeypatch):
    own = dict(vars(module))
    test.globs = (
        own | at_hand | {name: thing for name, thing in own.items() if getattr(thing, "__module__", "") == module.__name__}
    )
    said = []
    monkeypatch.chdir(at_hand["folder"])
    results = doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test, out=said.append)
    assert results.failed == 0, "".join(said)
