"""Shared helpers of the tests: the brute-force Jacobian that every kernel is compared with."""

import os
import signal
import warnings

import pytest
import torch

os.environ.pop("NTK_COURSE_DATA", None)
# Started in the background by a shell, a process ignores Ctrl-C, and so would those that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def jacobian(model, x, c=None):
    """Per-sample Jacobian (N, R, d) by plain torch.autograd, one sample and one cotangent at a time."""
    params = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for n in range(len(x)):
        z = model(x[n : n + 1])[0]
        basis = torch.eye(len(z), dtype=z.dtype) if c is None else c[n].reshape(-1, len(z)).to(z.dtype)
        grads = [torch.autograd.grad(z, params, v, retain_graph=True, allow_unused=True, materialize_grads=True) for v in basis]
        rows.append(torch.stack([torch.cat([g.flatten() for g in gs]) for gs in grads]))
    return torch.stack(rows)


def relative(got, wanted):
    """Relative Frobenius error."""
    return ((got - wanted).norm() / wanted.norm()).item()


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state and with the warnings filters fresh."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        yield


def pytest_collection_modifyitems(items):
    """Begin with the browser's tests, the longest: what two workers share at the end is then short."""
    items.sort(key=lambda item: "browser" not in item.keywords)


ERRORS: list[tuple[str, float, str]] = []


@pytest.fixture
def note_error():
    """Keep a measured error for the table at the end of the run, and return it."""

    def note(what: str, error: float, promised: str) -> float:
        ERRORS.append((what, error, promised))
        return error

    return note


def pytest_terminal_summary(terminalreporter):
    """Print what was measured, whether or not it passed."""
    if ERRORS:
        terminalreporter.section("largest errors of path kernels")
        for what, error, promised in ERRORS:
            terminalreporter.write_line(f"{what:<66} {error:8.1e}   promised {promised}")
