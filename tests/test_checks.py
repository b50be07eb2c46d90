"""Every solution passes its check, every stub is unanswered, and typical wrong answers get the hint that names them."""

import re
import sys
from pathlib import Path

import jupytext
import numpy as np
import pytest
import torch

import ntk_course as ntk
from ntk_course import checks

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import notebooks  # noqa: E402

CALL = re.compile(r"^ntk\.checks\.(\w+)\((\w+)\)$", re.MULTILINE)


def exercises():
    """Yield (check name, answer name, set-up code, solved cell, cleared cell) for each exercise of solutions/."""
    for source in sorted((ROOT / "solutions").glob("*.md")):
        cells = [c for c in jupytext.reads(source.read_text(), fmt="md:myst").cells if c.cell_type == "code"]
        for cell in cells:
            if call := CALL.search(cell.source):
                yield pytest.param(*call.groups(), cells[0].source, cell.source, id=f"{source.stem[:2]} {call[1]}")


EXERCISES = list(exercises())


def outcome(check, answer, set_up, code):
    space = {}
    exec(set_up, space)
    exec(code, space)
    return getattr(checks, check)(space[answer])


def test_every_check_has_an_exercise_and_the_other_way_round():
    public = {n for n, f in vars(checks).items() if callable(f) and getattr(f, "__module__", "") == checks.__name__}
    assert {p.values[0] for p in EXERCISES} == {n for n in public if not n.startswith("_")} - {"Outcome", "compare"}
    for stem in {p.id[:2] for p in EXERCISES}:
        assert 3 <= sum(p.id.startswith(stem) for p in EXERCISES) <= 5


@pytest.mark.parametrize(("check", "answer", "set_up", "code"), EXERCISES)
def test_solution_is_right_and_stub_is_unanswered(check, answer, set_up, code, capsys):
    assert outcome(check, answer, set_up, code).status == "right"
    stub = notebooks.clear(code)
    assert "your code here" in stub
    assert "### BEGIN SOLUTION" in stub
    result = outcome(check, answer, set_up, stub)
    assert result.status == "unanswered"
    assert "Not answered yet" in repr(result)


def jac(q):
    return torch.diag(q) - torch.outer(q, q)


# written as a student would write them, not taken from checks.py
WRONG = [
    ("jacobian_of_softmax", lambda q: torch.outer(q, q) - torch.diag(q), "sign is turned"),
    ("jacobian_of_softmax", lambda q: torch.diag(q - q**2), "Only the diagonal"),
    ("jacobian_of_softmax", lambda q: torch.where(torch.eye(len(q)).bool(), q[:, None], -q[:, None] * q), "lacks its -q_i"),
    ("change_of_prediction", lambda eta, q, k, e: eta * jac(q) @ (k @ -e), "sign of the error"),
    ("change_of_prediction", lambda eta, q, k, e: eta * torch.mv(k, e), "softmax is not differentiated"),
    ("change_of_prediction", lambda eta, q, k, e: eta * jac(q) @ (e @ k), "transposed"),
    ("change_of_prediction", lambda eta, q, k, e: eta**2 * jac(q) @ k @ e, "twice"),
    ("change_of_prediction", lambda eta, q, k, e: jac(q) @ k @ e, "learning rate is missing"),
    ("slope_on_log_axes", lambda x, y: np.polyfit(x, y, 1)[0], "linear axes"),
    ("slope_on_log_axes", lambda x, y: np.polyfit(np.log10(y), np.log10(x), 1)[0], "swapped"),
    ("slope_on_log_axes", lambda x, y: np.polyfit(np.log(x), np.log(y), 1)[1], "intercept"),
    ("change_from_a_batch", lambda eta, q, k, e: eta * jac(q) @ sum(a @ b for a, b in zip(k, e, strict=True)), "divide by B"),
    ("change_from_a_batch", lambda eta, q, k, e: eta * jac(q) @ k.mean(0) @ e.mean(0), "mean of a product"),
    ("change_from_a_batch", lambda eta, q, k, e: eta * jac(q) @ k[0] @ e[0], "first sample"),
    ("jacobian_memory", lambda n, k, d, b: n * d * b / 1024**3, "each of the K outputs"),
    ("jacobian_memory", lambda n, k, d, b: n * k * d * b * 1e-9, "10\\^9"),
    ("entk_from_jacobians", lambda m, a, b: ntk.entk(m, b, a).permute(1, 0, 2, 3), "transposed"),
    ("entk_from_jacobians", lambda m, a, b: ntk.pntk(m, a, b) * 3, "single number"),
    ("entk_from_jacobians", lambda m, a, b: ntk.entk(m, a, b) / 3, "1/K too many"),
    ("pseudo_ntk", lambda k: k.flatten(2).sum(-1), "1/K is missing"),
    ("pseudo_ntk", lambda k: torch.einsum("nmii->nm", k) / k.shape[-1], "trace"),
    ("pseudo_ntk", lambda k: k.mean((2, 3)), "1/K\\^2"),
    ("linear_layer_share", lambda a, b, c, d: (a @ c.T) * (b @ d.T), "bias is missing"),
    ("linear_layer_share", lambda a, b, c, d: a @ c.T + b @ d.T, "added"),
    ("form_the_gradient", lambda t, p, q: p * q <= t * (p + q + 1), "T\\^2 of them"),
    ("form_the_gradient", lambda t, p, q: not p * q <= t**2 * (p + q + 1), "turned round"),
]


@pytest.mark.parametrize(("check", "answer", "hint"), WRONG)
def test_typical_mistakes_are_named(check, answer, hint):
    result = getattr(checks, check)(answer)
    assert result.status == "wrong"
    assert re.search(hint, result.message), result.message


def test_two_mistakes_for_every_exercise():
    named = [name for name, _, _ in WRONG]
    assert all(named.count(p.values[0]) >= 2 for p in EXERCISES)


def test_any_kind_of_right_answer_is_accepted():
    as_float32 = lambda q: jac(q.float())  # noqa: E731
    as_numpy = lambda q: np.diag(q.numpy()) - np.outer(q, q)  # noqa: E731

    def looped(q):
        return [[float(q[i] * (float(i == j) - q[j])) for j in range(len(q))] for i in range(len(q))]

    with_grad = lambda q: jac(q.clone().requires_grad_())  # noqa: E731
    for answer in (as_float32, as_numpy, looped, with_grad):
        assert checks.jacobian_of_softmax(answer).status == "right"


def test_answers_that_break_come_back_as_sentences():
    assert "raised ZeroDivisionError" in checks.jacobian_memory(lambda *a: 1 / 0).message
    assert "returned str" in checks.jacobian_memory(lambda *a: "three").message
    assert "shape (2,); wanted (2, 2)" in checks.jacobian_of_softmax(lambda q: q).message
    assert "largest difference" in checks.jacobian_of_softmax(lambda q: jac(q) + 1).message
    assert checks.jacobian_of_softmax(lambda q: ...).status == "unanswered"

    def not_yet(q):
        raise NotImplementedError

    assert checks.jacobian_of_softmax(not_yet).status == "unanswered"
