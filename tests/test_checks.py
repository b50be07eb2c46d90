"""Every solution passes its check, every stub is unanswered, what is wrong is refused and told why, and nothing makes a check raise."""

import ast
import copy
import math
import re
import signal
import sys
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import jupytext
import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import brentq
from sklearn.kernel_ridge import KernelRidge

import ntk_course as ntk
from ntk_course.course import checks
from ntk_course.course.checks import tally
from ntk_course.course.checks.core import SEED, Check
from ntk_course.course.checks.draws import Draw
from ntk_course.course.checks.laboratory import Laboratory
from ntk_course.course.checks.values import first_difference, read, shown

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]
import notebooks  # noqa: E402
from wrong_answers import WRONG  # noqa: E402

CALL = re.compile(r"^ntk\.checks\.(\w+)\(([\w, ]+)\)$", re.MULTILINE)
SEEDS = range(3)


def exercises():
    """Yield (check name, what it is called with, set-up code, solved cell) for each exercise of solutions/."""
    for source in sorted((ROOT / "solutions").glob("*.md")):
        cells = [c for c in jupytext.reads(source.read_text(), fmt="md:myst").cells if c.cell_type == "code"]
        for place, cell in enumerate(cells):
            if call := CALL.search(cell.source):
                scaffold = cells[place - 1].source if "," in call[2] else ""  # a laboratory brings its own
                yield (*call.groups(), f"{cells[0].source}\n{scaffold}", cell.source)


EVERY = list(exercises())
ANSWERS = [pytest.param(*e, id=e[0]) for e in EVERY if isinstance(getattr(checks, e[0]), Check)]
LABORATORIES = [pytest.param(*e, id=e[0]) for e in EVERY if isinstance(getattr(checks, e[0]), Laboratory)]


@pytest.fixture(params=SEEDS)
def seed(request, monkeypatch):
    monkeypatch.setattr(SEED, "fixed", request.param)


def ran(set_up, code):
    space = {}
    exec(set_up, space)
    exec(code, space)
    return space


def test_every_check_has_an_exercise_of_its_number_and_the_other_way_round():
    assert sorted([*(e[0] for e in EVERY), "summary"]) == sorted(checks.__all__)
    # nothing else is offered: what a check is made of stays in its module
    modules = {name for name, thing in vars(checks).items() if isinstance(thing, type(checks))}
    assert {name for name in vars(checks) if not name.startswith("_")} == set(checks.__all__) | modules
    for source in sorted((ROOT / "solutions").glob("*.md")):
        parts = re.split(r"^```\{exercise-start\} ", source.read_text(), flags=re.MULTILINE)[1:]
        for place, part in enumerate(parts, start=1):
            number = f"{int(source.name[:2])}.{place}"
            assert part.startswith(number + " "), part[:60]
            assert getattr(checks, CALL.search(part)[1]).number == number
        assert isinstance(getattr(checks, CALL.search(parts[-1])[1]), Laboratory), f"{source.name} ends without a laboratory"


@pytest.mark.parametrize(("check", "answer", "set_up", "code"), ANSWERS)
def test_solution_is_right_and_stub_is_unanswered(check, answer, set_up, code, seed):
    assert getattr(checks, check)(ran(set_up, code)[answer]).status == "right"
    stub = notebooks.clear(code)
    assert "your code here" in stub
    assert "### BEGIN SOLUTION" in stub
    result = getattr(checks, check)(ran(set_up, stub)[answer])
    assert result.status == "unanswered"
    assert "Not answered yet" in repr(result)


@pytest.mark.slow
@pytest.mark.parametrize(("check", "names", "set_up", "code"), LABORATORIES)
def test_a_laboratorys_solution_is_right(check, names, set_up, code):
    """And our curve is the one that the solution draws."""
    space, laboratory = ran(set_up, code), getattr(checks, check)
    given = [space[name.strip()] for name in names.split(",")]
    assert laboratory(*given).status == "right"
    for ours, found in zip((laboratory.x, laboratory.y), given[3], strict=True):
        np.testing.assert_allclose(np.asarray(found, dtype=float), ours, rtol=0.05, atol=0.1 * max(map(abs, ours)))


@pytest.mark.parametrize(("check", "names", "set_up", "code"), LABORATORIES)
def test_a_laboratory_not_done_is_unanswered(check, names, set_up, code):
    space = ran(set_up, notebooks.clear(code))
    result = getattr(checks, check)(*(space[name.strip()] for name in names.split(",")))
    assert (result.status, result.message) == (
        "unanswered",
        "Not answered yet: predicted, measured, uncertainty, curve, conclusion.",
    )


WORDS = "The slope is one where the whole formula has two, so a factor matters."


def measured_of(lab):
    """Return our own curve, and the number that it holds or else the middle of the range."""
    x, y = np.asarray(lab.x, dtype=float), np.asarray(lab.y, dtype=float)
    held = [each.of(x, y) for each in lab.held if each.wanted is None]
    assert all(lab.low <= number <= lab.high for number in held)
    return (lab.x, lab.y), held[0] if held else (lab.low + lab.high) / 2


@pytest.mark.parametrize("name", [e.id for e in LABORATORIES])
def test_a_laboratory_judges_the_number_and_its_spread(name):
    lab = getattr(checks, name)
    curve, value = measured_of(lab)
    right = lab("so", value, lab.widest / 2, curve, WORDS)
    assert right.status == "right", right
    assert right.picture.startswith(b"\x89PNG")
    assert "<img alt=" in right._repr_html_()
    assert lab.low < lab.high and len(lab.x) == len(lab.y) >= 3
    for low, high, hint in lab.readings:
        middle = (low + high) / 2
        assert not lab.low <= middle <= lab.high, hint
        assert hint in lab("so", middle, lab.widest / 2, curve, WORDS).message
    for given in (
        ("so", value, 0.0, curve, WORDS),
        *([("so", value, lab.least / 2, curve, WORDS)] if lab.least else []),
        ("so", value, 2 * lab.widest, curve, WORDS),
        ("so", "many", 0.1, curve, WORDS),
        ("so", {"a": value}, 0.1, curve, WORDS),
        ("so", value, lab.widest / 2, lab.x, WORDS),
        ("so", value, lab.widest / 2, (lab.x[:2], lab.y), WORDS),
        ("so", value, lab.widest / 2, curve, "It is one."),
        ("so", lab.high + 1e9, lab.widest / 2, curve, WORDS),
    ):
        assert lab(*given).status == "wrong", given
    points = sum(int(line[0]) for line in lab.rubric)
    assert points == 4 and [int(line[0]) for line in lab.answers] == [4, 2]


@pytest.mark.parametrize("name", [e.id for e in LABORATORIES])
def test_a_laboratorys_curve_is_of_the_same_experiment(name):
    """Axes exchanged, another level, the line turned round, logarithms where the axes take them."""
    lab = getattr(checks, name)
    assert lab.held
    (x, y), value = measured_of(lab)
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    wrong = [(y, x), (x, y + 3 * max(1, np.ptp(y))) if not lab.logs else (x, y[::-1])]
    wrong += [(np.log(x), np.log(y)), (x, 0 * y + y[0]), (x, np.log10(y))] if lab.logs else []
    for curve in wrong:
        assert lab("so", value, lab.widest / 2, curve, WORDS).status == "wrong", curve


@pytest.mark.parametrize("name", [e.id for e in LABORATORIES if getattr(checks, e.id).logs])
def test_a_curve_far_from_ours_is_remarked_upon(name):
    """The power of another quantity may be the right one; the height of its curve tells."""
    lab = getattr(checks, name)
    at, measured = np.asarray(lab.x[1:][::-1]) * 0.9, (measured_of(lab)[1], lab.widest / 2)
    between = np.exp(np.interp(np.log(at), *np.log([lab.x, lab.y])[:, np.argsort(lab.x)]))
    for times, remarked in ((1, False), (3, False), (1 / 3, False), (5, True), (0.2, True)):
        report = lab("so", *measured, (at, times * between), WORDS)
        if "Of your curve" in report.message:  # a number that the curve holds depends on its height
            continue
        assert report.status == "right"
        assert ("times the height of ours" in report.message) == remarked, (times, report.message)


@pytest.mark.parametrize("name", [e.id for e in ANSWERS])
def test_a_case_can_be_read(name, seed):
    """No address of an object, no argument without its name."""
    check = getattr(checks, name)
    for case in check.cases(Draw(SEED())):
        lines = check._arguments(case)
        assert len(lines) == len(case), (check.wants, check.names)
        assert not re.search(r"0x[0-9a-f]{6}|<function|<lambda", "".join(lines)), lines


@pytest.mark.parametrize("name", [e.id for e in ANSWERS])
def test_a_case_can_be_followed_by_hand(name, seed):
    """One at least is shown in full, and what is wanted too."""
    check = getattr(checks, name)
    fit = []
    for case in check.cases(Draw(SEED())):
        words = [*check._arguments(case), shown(read(check._used(check.reference, case)))]
        whole = not any(re.search(r"tensor of shape|= (?!True|False)[A-Z]\w+$", line) for line in words)
        fit += [case] if whole else []
    assert fit, check.wants


@pytest.mark.parametrize("name", [e.id for e in ANSWERS])
def test_no_argument_can_be_written_down(name):
    """The reference with one of its numbers fixed, at any value that occurs or at 1, is refused at every one of twelve seeds."""
    check = getattr(checks, name)
    first = list(check.cases(Draw(0)))
    for place in range(len(first[0])):
        values = {case[place] for case in first if type(case[place]) in (int, float)}
        for value in [*values, 1] if values else []:
            for each in range(12):
                with fixed(each):
                    outcome = check(with_fixed(check, place, value))
                assert outcome.status == "wrong", (check._names()[place], value, each)


def with_fixed(check, place, value):
    def answer(*case):
        return check.reference(*case[:place], type(case[place])(value), *case[place + 1 :])

    return answer


@pytest.mark.parametrize(
    ("name", "answer", "said"),
    [
        ("jacobian_memory", lambda n, k, d, b: n * k * d * 4 / 2**30, "4 is written down where `bytes_each` belongs"),
        ("step_of_the_output", lambda m, t, a, lr: torch.einsum("kd,bjd,bj->k", m, t, a) * 0.5 / len(t), "where `lr` belongs"),
        ("relation_of_a_pair", lambda uo, uu, oo, t: 0, "It is 0 in every case"),
        ("posterior_deviation", lambda k, c, t, s: (t - c @ torch.linalg.solve(k + torch.eye(len(k)), c)).sqrt(), "`noise` does"),
        ("pseudo_ntk", lambda k: k.sum((2, 3)) / 10, "as if 10 stood where the length of axis 2 of `kernel` belongs"),
        ("pseudo_ntk", lambda k: k.sum((2, 3)) / k.shape[2] ** 0.5, "the square root of the length of axis 2 of `kernel`"),
    ],
)
def test_what_was_written_down_or_left_out_is_named(name, answer, said, seed):
    assert said in getattr(checks, name)(answer).message


def test_exchanged_arguments_are_named():
    check = Check("0.0", "answer(a, b)", lambda a, b: a - 2 * b, lambda draw: [(3.0, 1.0), (2.0, 5.0), (7.0, 4.0)])
    assert check(lambda a, b: b - 2 * a).message == "`a` and `b` are exchanged."


@pytest.mark.parametrize("wanted", [torch.zeros(7, 8), torch.full((7, 8), torch.inf)])
def test_a_value_too_large_to_be_shown_shows_where_it_is_wrong(wanted):
    wanted[3, 4] = 1.0
    got = wanted.clone()
    got[2, 5], got[6, 0] = 9.0, 8.0
    (line,) = first_difference(got, wanted)
    assert line.startswith("2 of 56 entries differ; [2, 5]: yours 9, wanted ")
    assert first_difference(wanted, wanted) == [] == first_difference(got[:2, :2], wanted[:2, :2])


@contextmanager
def fixed(seed):
    SEED.fixed = seed
    try:
        yield
    finally:
        SEED.fixed = None


@pytest.mark.parametrize("name", [e.id for e in ANSWERS])
def test_named_mistakes_are_refused_by_their_name(name, seed):
    check = getattr(checks, name)
    for hint, mistake in check.mistakes.items():
        result = check(mistake)
        assert (result.status, result.message) == ("wrong", hint)


@pytest.mark.parametrize(("name", "answer"), WRONG)
def test_wrong_answers_are_refused_and_told_why(name, answer, seed):
    result = getattr(checks, name)(answer)
    assert result.status == "wrong"
    assert result.message in getattr(checks, name).mistakes or result.case or "{" not in repr(result)


def test_most_wrong_answers_are_named():
    """By a hint of the exercise, or by a sentence that says how the numbers differ; the rest shows a case that fails."""
    vague = ("The shape is right, the numbers are not", "Not all of what", "Wrong. A case")
    SEED.fixed = 0
    try:
        said = [getattr(checks, name)(answer) for name, answer in WRONG]
    finally:
        SEED.fixed = None
    assert sum(not o.message.startswith(vague) for o in said) >= 0.85 * len(said)
    assert all(o.case or not o.message.startswith(vague) for o in said)


def test_two_wrong_answers_for_every_exercise():
    named = [name for name, _ in WRONG]
    few = [e.id for e in ANSWERS if named.count(e.id) < 2 and e.id not in ("better_rule",)]
    assert few == [], "each wants at least two in tests/wrong_answers.py"


def test_the_orders_of_the_remainder_are_those_of_a_network():
    """By Jacobians from autograd, at rates so small that the smallest first order shows and so large that rounding does not."""
    torch.manual_seed(0)
    model = ntk.mlp((64, 12, 12, 10), "tanh").double()
    data = ntk.load("digits", limit=3)
    (x_o, x_u, _), (_, y_u, y_v) = data.x.double(), data.y
    w = {name: p.detach() for name, p in model.named_parameters()}

    def logits(w, x):
        return torch.func.functional_call(model, w, (x[None],))[0]

    def jacobian(w, x):
        parts = torch.func.jacrev(logits)(w, x)
        return torch.cat([parts[name].flatten(1) for name in w], dim=1)

    def moved(eta, decay=0.0):
        loss = lambda w: torch.nn.functional.cross_entropy(logits(w, x_u)[None], y_u[None])  # noqa: E731
        gradient = torch.func.grad(loss)(w)
        return {name: w[name] - eta * (gradient[name] + decay * w[name]) for name in w}

    def a_of(q):
        return torch.diag(q) - torch.outer(q, q)

    q, error = logits(w, x_o).softmax(0), torch.eye(10).double() - logits(w, x_u).softmax(0)
    j_o, j_u = jacobian(w, x_o), jacobian(w, x_u)

    def remainders(eta):
        after = moved(eta)
        q_after, j_after = logits(after, x_o).softmax(0), jacobian(after, x_o)
        true, step = q_after - q, eta * j_u.T @ error[y_u]
        exact = a_of(q) @ j_o
        return {
            "nothing": true - exact @ step,
            "A is left out": true - j_o @ step,
            "A and K at the weights after the step": true - a_of(q_after) @ j_after @ step,
            "K(x_u, x_o) for K(x_o, x_u)": true - eta * a_of(q) @ j_u @ j_o.T @ error[y_u],
            "the error p - q of another sample": true - eta * exact @ j_u.T @ error[y_v],
            "q of x_o rounded to three digits in A": true - a_of((q * 1000).round() / 1000) @ j_o @ step,
            "weight decay in the step, not in the formula": logits(moved(eta, 0.01), x_o).softmax(0) - q - exact @ step,
            "A and the Jacobian of x_o: the mean of before and after the step": true
            - (exact + a_of(q_after) @ j_after) / 2 @ step,
        }

    for name, order in checks.order_of_the_remainder.reference().items():
        rates = (1e-6, 1e-5) if order == 1 else (1e-3, 1e-2)
        sizes = [float(remainders(rate)[name].norm()) for rate in rates]
        assert np.log10(sizes[1] / sizes[0]) == pytest.approx(order, abs=0.1), name


# ----- mutants of the solutions


SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.NotEq: ast.Eq,
    ast.FloorDiv: ast.Mod,
}
NAMES = {
    "argmax": "argmin",
    "argmin": "argmax",
    "max": "min",
    "min": "max",
    "mean": "sum",
    "sum": "mean",
    "log": "exp",
    "sqrt": "square",
}


def mutants(code):
    """Yield (what was done, code) for every single change of an operator, a number, a reduction or a sign in the solution."""
    tree = ast.parse(code)
    places = len(list(ast.walk(tree)))
    for place in range(places):
        for kind in range(3):
            mutant = copy.deepcopy(tree)
            node = list(ast.walk(mutant))[place]
            before = ast.unparse(node) if isinstance(node, ast.expr) else ""
            if not changed(node, kind):
                continue
            yield f"{before} -> {ast.unparse(node)}", ast.unparse(ast.fix_missing_locations(mutant))


def changed(node, kind):
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPS and kind == 0:
        node.op = SWAPS[type(node.op)]()
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS and kind == 0:
        node.ops[0] = SWAPS[type(node.ops[0])]()
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float) and kind < 2:
        node.value += (1, -1)[kind]
    elif isinstance(node, ast.Attribute) and node.attr in NAMES and kind == 0:
        node.attr = NAMES[node.attr]
    elif isinstance(node, ast.Name) and node.id in NAMES and kind == 0:
        node.id = NAMES[node.id]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult) and kind == 0:
        node.left, node.right = node.right, node.left
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and kind == 0:
        node.op = ast.UAdd()
    else:
        return False
    return True


# Mutants that answer the same: why they are no mistake.
EQUIVALENT = {
    "shares_of_the_budget": "any bracket that holds the level is right",
    "nothing_in_common": "any block that is blind is right",
    "same_samples_other_order": "any two vectors with these coefficients are right",
    "softmax_misses_it": "any such case is right",
    "lengths_decide": "any such set of vectors is right",
    "better_rule": "any start covers the directions",
    "is_a_kernel": "the tolerance is for rounding; a tenth or ten times of it is as good",
    "nodes_for_a_linear_network": "several ways of rounding up agree for whole numbers",
}


class Endless(BaseException):
    """Not an Exception: a check would take it for the answer's own."""


@contextmanager
def at_most(seconds):
    def stop(*_):
        raise Endless

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# By check, single mutations that leave the answer what it is: the last element of one, one axis more from the end, a square of signs,
# a mean of products with something whose mean is zero, a boundary that has measure zero, a strict comparison with oneself, nodes that
# are symmetric, bounds on what cannot reach them, and inner products of vectors turned round.
HARMLESS: dict[str, tuple[str, ...]] = {
    "entk_from_gradients": ("0 -> -1",),
    "root_of_the_hessian": ("0 -> -1",),
    "odds_cotangent": ("0 -> -1",),
    "influence_of_samples": ("ridge * inverse @ y -> y @ (ridge * inverse)",),
    "effect_of_leaving_out": ("inverse @ y -> y @ inverse",),
    "likeliest_scale": ("y @ torch.linalg.solve(shifted, y) -> torch.linalg.solve(shifted, y) @ y",),
    "pseudo_ntk": ("1 -> 2",),
    "positions_to_form": ("1 -> 0",),
    "leaky_expectations": ("1.0 -> 2.0",),
    "layers_share": ("0 -> -1",),
    "width_for": ("x - x.mean() -> x + x.mean()", "y - y.mean() -> y + y.mean()", "x.mean -> x.sum", "y.mean -> y.sum"),
    "labelled_pseudo_ntk": ("1 -> 2",),
    "contradictory_label": ("0 -> -1",),
    "heavy_ball_step": ("0 -> -1",),
    "farthest_points": ("0 -> -1",),
    "edge_of_the_head": ("0 -> -1",),
    "along_one_direction": ("1 -> 0",),
    "redundant_among": ("1 -> 0",),
    "what_the_runs_say": (
        "found.pvalue < 0.05 -> found.pvalue <= 0.05",
        "-margin < interval.low -> -margin <= interval.low",
        "interval.high < margin -> interval.high <= margin",
        "found.statistic > 0 -> found.statistic >= 0",
        "0 -> 1",
        "0 -> -1",
    ),
    "integral_by_pieces": ("(a + b) / 2 + (b - a) / 2 * t -> (a + b) / 2 - (b - a) / 2 * t",),
    "kinks_you_missed": ("at < 0.5 -> at <= 0.5",),
    "carried_jacobians": ("0 -> 1", "0 -> -1"),
    "gap_without": ("0 -> -1",),
    "growth_and_angle": ("first @ last -> last @ first", "1 -> 0", "1 -> 2"),
    "posterior_deviation": (
        "k_cross @ solved -> solved @ k_cross",
        "0 -> -1",
    ),
    "leaving_share": (
        "a @ b -> b @ a",
        "1 -> 2",
    ),
    "label_product_at": ("y[:, None] * y -> y[:, None] / y", "weights * products -> weights / products"),
    "label_product_without_itself": (
        "weights * y[:, None] * y -> weights * y[:, None] / y",
        "weights * y[:, None] -> weights / y[:, None]",
    ),
    "centred_alignment": ("y[:, None] * y -> y[:, None] / y", "0 -> 1", "0 -> -1"),
    "change_from_a_batch": (
        "eta * A @ torch.einsum('bij,bj->i', K_o, errors) -> torch.einsum('bij,bj->i', K_o, errors) @ (eta * A)",
    ),
    "first_covariance": ("x1 @ x2 -> x2 @ x1",),
    "answer_after_steps": ("left @ targets -> targets @ left",),
    "error_of_freezing": (
        "0.5 * step @ h @ step -> step @ (0.5 * step @ h)",
        "0.5 * step @ h -> h @ (0.5 * step)",
    ),
    "change_by_midpoints": ("gradient((a + b) / 2) @ (b - a) -> (b - a) @ gradient((a + b) / 2)",),
    "supported_labels": ("kernels.mean -> kernels.sum",),
}


@pytest.mark.parametrize(("check", "answer", "set_up", "code"), ANSWERS)
def test_mutants_of_the_solution_are_refused(check, answer, set_up, code, monkeypatch):
    solution = code.partition("### BEGIN SOLUTION")[0] + code.partition("### BEGIN SOLUTION")[2]
    function = solution.partition("\nntk.checks.")[0]
    alive, refused = [], 0
    for what, mutant in mutants(function):
        outcomes = []
        for monkeypatch_seed in SEEDS:
            monkeypatch.setattr(SEED, "fixed", monkeypatch_seed)
            try:
                with at_most(seconds=10):
                    outcomes.append(getattr(checks, check)(ran(set_up, mutant)[answer]).status)
            except (Exception, Endless):  # it broke outside of the check, or it never ends
                outcomes.append("wrong")
            if outcomes[-1] == "wrong":
                break
        refused += "wrong" in outcomes
        alive += [what] if "wrong" not in outcomes else []
    left = [what for what in alive if what not in HARMLESS.get(check, ())]
    assert not left or check in EQUIVALENT, left
    assert refused or check in EQUIVALENT


# ----- what is right is accepted


def looped_softmax(q):
    return [[float(q[i] * (float(i == j) - q[j])) for j in range(len(q))] for i in range(len(q))]


def rotated(answer):
    def features(*arguments):
        found = answer(*arguments)
        turn = torch.linalg.qr(torch.randn(found.shape[1], found.shape[1], dtype=found.dtype))[0]
        return -found @ turn

    return features


FATE = lambda gram, rate: rate * float(torch.linalg.eigvalsh(gram)[-1]) / len(gram)  # noqa: E731


def regularised(gram, y, ridge):
    """Generalised cross-validation by its textbook form: residuals of scikit-learn's fit, over a hat matrix's trace."""
    hat = KernelRidge(alpha=ridge, kernel="precomputed").fit(gram.numpy(), np.eye(len(gram))).predict(gram.numpy())
    return np.mean((y.numpy() - hat @ y.numpy()) ** 2) / (1 - hat.trace() / len(gram)) ** 2


def at(k, p, q):
    """Return an entry, and zero outside."""
    return k[p, q] if 0 <= p < len(k) and 0 <= q < k.shape[1] else 0.0


RIGHT = [
    (
        "posterior_variance",
        lambda g, c, o, n: [
            float(o[m]) - float(c[m] @ np.linalg.inv(g.numpy() + n * np.eye(len(g))) @ c[m].numpy()) for m in range(len(o))
        ],
    ),
    (
        "ensemble_covariance",
        lambda t, tc, s, sc, own: (
            torch.cat([-tc @ t.inverse(), torch.eye(len(own)).double()], 1)
            @ torch.cat([torch.cat([s, sc.T], 1), torch.cat([sc, own], 1)])
            @ torch.cat([-tc @ t.inverse(), torch.eye(len(own)).double()], 1).T
        ),
    ),
    (
        "likeliest_scale",
        lambda g, y, n: (
            torch.linalg.solve_triangular(torch.linalg.cholesky(g + n * torch.eye(len(y))), y[:, None], upper=False)
            .square()
            .mean()
        ),
    ),
    (
        "votes_of_the_first",
        lambda m, c: 0.5 * math.erfc(float(m[1] - m[0]) / math.sqrt(2 * float(c[0, 0] - c[0, 1] - c[1, 0] + c[1, 1]))),
    ),
    (
        "root_of_the_hessian",
        lambda z: torch.linalg.cholesky(z.softmax(0).diag() - z.softmax(0).outer(z.softmax(0)) + 1e-12 * torch.eye(len(z))).T,
    ),
    (
        "odds_cotangent",
        lambda z, y: np.array(
            [1.0 if k == y else -float(z[k].exp() / sum(z[j].exp() for j in range(len(z)) if j != y)) for k in range(len(z))]
        ),
    ),
    ("odds_cotangent", lambda z, y: torch.func.grad(lambda v: v[y] - torch.cat([v[:y], v[y + 1 :]]).logsumexp(0))(z)),
    ("traced_gradients", lambda t, a, r: torch.stack([r[s] * a[s] @ t[s].T for s in range(len(r))]).sum(0)),
    (
        "traced_gradients",
        lambda t, a, r: [
            [sum(float(r[s] * (a[s, m] * t[s, i]).sum()) for s in range(len(r))) for i in range(t.shape[1])]
            for m in range(a.shape[1])
        ],
    ),
    (
        "influence_of_samples",
        lambda g, c, y, r: (
            torch.linalg.solve(g + r * torch.eye(len(y)), c.T).T * (y - g @ torch.linalg.solve(g + r * torch.eye(len(y)), y))
        ),
    ),
    (
        "influence_of_samples",
        lambda g, c, y, r: torch.func.jacfwd(
            lambda e: c @ torch.linalg.solve((1 + e)[:, None] * g + r * torch.eye(len(y)), (1 + e) * y)
        )(torch.zeros(len(y)).double()),
    ),
    (
        "effect_of_leaving_out",
        lambda g, c, y, r: np.stack(
            [
                (
                    c @ torch.linalg.solve(g + r * torch.eye(len(y)), y)
                    - c[:, keep] @ torch.linalg.solve(g[keep][:, keep] + r * torch.eye(len(keep)), y[keep])
                ).numpy()
                for keep in ([j for j in range(len(y)) if j != i] for i in range(len(y)))
            ],
            1,
        ),
    ),
    (
        "effect_of_leaving_out",
        lambda g, c, y, r: (
            torch.linalg.solve(g + r * torch.eye(len(y)), c.T).T
            * (y - g @ torch.linalg.solve(g + r * torch.eye(len(y)), y))
            / (1 - (g @ torch.linalg.inv(g + r * torch.eye(len(y)))).diagonal())
        ),
    ),
    ("halves_foreseen", lambda s, i, o: stats.spearmanr(i.numpy() @ s.numpy(), o.numpy())[0]),
    (
        "halves_foreseen",
        lambda s, i, o: (
            1 - 6 * ((i.double() @ s).argsort().argsort() - o.argsort().argsort()).square().sum() / (len(o) * (len(o) ** 2 - 1))
        ),
    ),
    ("root_of_the_hessian", lambda z: torch.cat([ntk.tangents.fisher(z[None])[0].flip(0), torch.zeros(2, len(z))])),
    ("tangents_behind_a_layer", lambda s, t, w, b: np.einsum("nm->nm", (w**2 * (t + s) + b**2).numpy())),
    (
        "mean_over_a_filter",
        lambda k, n: [
            [sum(at(k, p + o, q + o) for o in range(-(n // 2), n // 2 + 1)) / n for q in range(k.shape[1])] for p in range(len(k))
        ],
    ),
    ("tangents_past_a_branch", lambda s, t, v, p, w: torch.stack([t, w**2 * p * t, w**2 * v]).sum(0)),
    ("covariance_behind_attention", lambda k, a, b: torch.einsum("tu,uv,sv->ts", a.softmax(1), k, b.softmax(1))),
    ("last_moment", lambda k, w: sum((i + 1) * w ** (2 * i) * k[-1 - i, -1 - i] for i in range(min(k.shape)))),
    ("eigenvalue_on_the_circle", lambda k, ell: np.fft.fft(k.numpy())[ell].real / len(k)),
    ("eigenvalue_on_the_circle", lambda k, ell: torch.fft.fft(k)[ell].real / len(k)),
    ("steps_to_learn", lambda lam, rate, share: np.float64(np.log1p(-share) / np.log1p(-rate * lam))),
    ("shares_of_the_budget", lambda lam, n, r: lam / (lam + brentq(lambda c: (lam / (lam + c)).sum() + r / c - n, 1e-9, 1e3))),
    ("predicted_error", lambda s, v, n, z: float(((1 - s) ** 2 @ v**2 + z) / (1 - s @ s / n))),
    ("error_from_the_samples", lambda g, y, r: regularised(g, y, r)),
    ("fate_of_a_rate", lambda g, r: np.select([FATE(g, r) < 2, FATE(g, r) < 4], ["lazy", "catapult"], "diverges")),
    ("scale_for_a_change", lambda c, a, w, s: np.longdouble(a) * c / w if s else Fraction(a) * (Fraction(c) / Fraction(w)) ** 2),
    ("catapult_step", lambda f, k, r, n: [v[-1] for v in ntk.analysis.catapult(f, k, r, width=n, steps=1)]),
    ("shifted_exponents", lambda a, b, c, t: np.array([*(a + t).tolist(), *(b - t).tolist(), c - 2 * t], dtype=object)),
    ("scale_for_a_change", lambda c, a, w, s: np.float32(a * c / w) if s else a * c * c / w / w),
    ("shifted_exponents", lambda a, b, c, t: np.concatenate([a + t, b - t, [c - 2 * t]])),
    ("end_of_the_diagonal", lambda x, nu, a: 8 * a * a * (x * torch.cosh(x.T @ nu)) @ x.T),
    ("catapult_step", lambda f, k, r, n: ((1 - r * k + r * r * f * f / n) * f, k + r * f * f * (r * k - 4) / n)),
    ("fate_of_a_rate", lambda g, r: ["lazy", "catapult", "diverges"][min(2, int(r * torch.linalg.norm(g, 2) / len(g) // 2))]),
    ("jacobian_of_softmax", lambda q: looped_softmax(q)),
    ("jacobian_of_softmax", lambda q: np.diag(q.numpy()) - np.outer(q, q)),
    ("jacobian_of_softmax", lambda q: (torch.diag(q) - torch.outer(q, q)).float().requires_grad_()),
    ("change_of_prediction", lambda eta, q, k, e: eta * q * (k @ e - q @ (k @ e))),
    ("slope_on_log_axes", lambda x, y: np.polyfit(np.log10(x), np.log10(y), 1)[0]),
    ("change_from_a_batch", lambda eta, q, k, e: eta * np.array(looped_softmax(q)) @ (k @ e[:, :, None]).mean(0).numpy()[:, 0]),
    ("entk_from_gradients", lambda m, a, b: ntk.entk(m, a, b).float()),
    ("entk_from_gradients", lambda m, a, b: ntk.entk(m, b, a).permute(1, 0, 3, 2)),
    ("pseudo_ntk", lambda k: k.mean((2, 3)) * k.shape[2]),
    ("nothing_in_common", lambda: [[2.0, -2.0, 0.0], [-2.0, 2.0, 0.0], [0.0, 0.0, 0.0]]),
    ("linear_layer_share", lambda a, b, c, d: torch.einsum("ntp,ntq,mup,muq->nm", *map(with_one, (a,)), b, with_one(c), d)),
    ("positions_to_form", lambda p, q: next(t for t in range(1, 10**6) if p * q <= t * t * (p + q + 1))),
    ("easiest_labels", lambda h: -torch.linalg.eigh(h)[1][:, -1].sign()),
    ("answer_after_steps", lambda h, k, y, r, t: k @ stepped(h, y, r, t)),
    ("width_for", lambda w, d, t: float(np.exp((np.log(t) - (f := np.polyfit(w.log(), d.log(), 1))[1]) / f[0]))),
    ("signs_of_the_error", lambda q, y: [1 if k == y else -1 for k in range(len(q))]),
    ("labelled_pseudo_ntk", lambda k, a, b: in_float32(k, a, b)),
    ("labelled_features", rotated(checks.labelled_features.reference)),
    ("labelled_features", lambda j, y: torch.nn.functional.pad(-checks.labelled_features.reference(j, y), (0, 3))),
    ("contradictory_label", lambda b, y: torch.tensor(checks.contradictory_label.reference(b, y))),
    ("cotangents_that_oppose", lambda y, k: checks.cotangents_that_oppose.reference(y, k).float()),
    ("nested_subset", lambda o, size, j: o[:, j :: o.shape[1] // size].flatten()),
    ("nested_subset", lambda o, size, j: [int(i) for row in o for i in row[j * size : (j + 1) * size]][::1]),
    ("best_company", lambda r, t, n: sorted((i for i in range(len(r)) if i != t), key=lambda i: -r[i])[:n]),
    ("count_events", lambda r: (r[:-1].int() - r[1:].int() == 1).sum(0).numpy()),
    ("f1_of_events", lambda f, p: np.float64(checks.f1_of_events.reference(f, p))),
    ("heavy_ball_step", lambda g, lr, mu: -lr * sum(mu**k * v for k, v in enumerate(g.flip(0)))),
    ("head_share", lambda a: max(a.tolist().count(c) for c in set(a.tolist())) / len(a)),
    ("who_moves", lambda f, s, c, new: [(a > b and not k) or i == new for i, (a, b, k) in enumerate(zip(f, s, c, strict=True))]),
    ("lengths_decide", lambda: checks.lengths_decide.reference() * 7 @ torch.tensor([[0.6, -0.8], [0.8, 0.6]])),
    ("redundant_among", lambda g, later: checks.redundant_among.reference(g, later).numpy()),
    ("grand_from_kernel", lambda k, e: (e[:, None] @ k @ e[:, :, None]).flatten().sqrt()),
    ("finer_steps", lambda e, lr, s, t: (torch.tensor(lr * t / e), round(s * e / t))),
    ("turning_times", lambda *a: checks.turning_times.reference(*a).tolist()),
    ("is_a_kernel", lambda g: np.bool_(checks.is_a_kernel.reference(g))),
    ("smallest_move", lambda phi, r: torch.linalg.pinv(phi) @ r),
    ("label_agreement", lambda y: [[0 if i == j else (1 if y[i] == y[j] else -1) for j in range(len(y))] for i in range(len(y))]),
    ("supported_labels", lambda k: k.sum(2).argmax(0).numpy()),
    ("centred_alignment", lambda g, y: float(np.corrcoef(*map(flat_centred, (g, torch.outer(y, y))))[0, 1])),
]


def with_one(a):
    return torch.cat([a, torch.ones(*a.shape[:2], 1, dtype=a.dtype)], 2)


def stepped(h, y, rate, steps):
    coefficients = torch.zeros_like(y)
    for _ in range(steps):
        coefficients = coefficients + rate * (y - h @ coefficients)
    return coefficients


def in_float32(k, a, b):
    s, t = ntk.signs(a, k.shape[-1]), ntk.signs(b, k.shape[-1])
    return torch.einsum("nmij,ni,mj->nm", k.float(), s.float(), t.float()) / k.shape[-1]


def flat_centred(m):
    h = torch.eye(len(m), dtype=m.dtype) - 1 / len(m)
    return (h @ m @ h).flatten().numpy()


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_any_kind_of_right_answer_is_accepted(name, answer, seed):
    result = getattr(checks, name)(answer)
    assert result.status == "right", result


# ----- nothing breaks a check


def spoil(value):
    """Overwrite whatever an answer was handed, as far as it can be."""
    if isinstance(value, torch.Tensor | np.ndarray):
        value[...] = 1
    elif isinstance(value, list | tuple):
        for item in value:
            spoil(item)
        if isinstance(value, list):
            value.clear()
    elif isinstance(value, dict):
        value.clear()
    elif isinstance(value, torch.nn.Module):
        with torch.no_grad():
            for p in value.parameters():
                p.fill_(1.0)


@pytest.mark.parametrize(("check", "answer", "set_up", "code"), ANSWERS)
def test_a_right_answer_may_spoil_its_arguments(check, answer, set_up, code):
    space = ran(set_up, code)

    def in_place(*args):
        value = space[answer](*args)
        value = value.clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
        for arg in args:
            spoil(arg)
        return value

    for _ in range(2):  # nor is anything left for the next call
        assert getattr(checks, check)(in_place).status == "right"


class Odd:
    """A value that lies about itself."""

    shape = (2, 2)

    def __array__(self, *args, **kwargs):
        raise RuntimeError("no")


def raising(error):
    def answer(*arguments):
        raise error

    return answer


ODD = [
    None, float("nan"), "three", [[1], [2, 3]], {}, object(), Odd(), 1j, torch.zeros(0), [None], [torch.ones(2), "a"],
    np.array(["a"]), torch.zeros(1, 1, 1, 1, 1), -1, 10**400, True, iter([1]), lambda: 1, torch.tensor(float("inf")),
]  # fmt: skip


@pytest.mark.parametrize("name", [e.id for e in ANSWERS])
def test_no_value_and_no_error_makes_a_check_raise(name):
    check = getattr(checks, name)
    for value in ODD:
        assert check(lambda *arguments, value=value: value).status == "wrong", value
    for error in (ValueError("x"), KeyError("x"), NotImplementedError("x"), RecursionError(), AssertionError(), StopIteration()):
        result = check(raising(error))
        assert result.status == "wrong"
        assert type(error).__name__ in result.message
    for answer in (3, "no function", torch.ones(2), Odd()):
        assert check(answer).status == "wrong"
    assert check(lambda *arguments: ...).status == check(raising(NotImplementedError())).status == "unanswered"
    assert check(lambda *arguments: torch.eye(3).to_sparse()).status == "wrong"
    assert "return" in check(lambda *arguments: None).message


def test_what_a_check_says_helps():
    assert "raised ZeroDivisionError" in checks.jacobian_memory(lambda *a: 1 / 0).message
    assert "returned" in checks.jacobian_memory(lambda *a: object()).message
    assert re.search(r"shape \((\d),\); wanted \(\1, \1\)", checks.jacobian_of_softmax(lambda q: q).message)
    shown = checks.label_product_at(lambda gram, y, h: h)
    assert shown.case[0].startswith("gram = [[2, 1], [1, 4]]")
    assert shown.case[-1].startswith("wanted: ")
    assert "It is 0 in every case" in checks.relation_of_a_pair(lambda uo, uu, oo, t: 0).message
    assert "Right for" in checks.relation_of_a_pair(lambda uo, uu, oo, t: 1 if uo > 0 else 0).message


def test_a_summary_counts_the_last_check_of_each_exercise(monkeypatch):
    monkeypatch.setattr(tally, "_LAST", {})
    numbers = sorted((getattr(checks, e[0]).number for e in EVERY), key=lambda n: tuple(map(int, n.split("."))))
    chapters = {int(n.partition(".")[0]) for n in numbers}
    assert chapters == set(range(1, max(chapters) + 1))
    for chapter in chapters:
        summed = checks.summary(chapter)
        assert summed.open == tuple(n for n in numbers if n.startswith(f"{chapter}.")) and not summed.right + summed.wrong
    checks.jacobian_of_softmax(lambda q: q)
    checks.change_of_prediction(lambda *arguments: ...)
    assert repr(checks.summary(1)) == "Chapter 1: 0 of 7 right, 1 wrong (1.1), 6 open (1.2, 1.3, 1.4, 1.5, 1.6, 1.7)"
    checks.jacobian_of_softmax(lambda q: torch.diag(q) - torch.outer(q, q))
    checks.break_a_factor("?", float("nan"), 1, None, "")
    assert checks.summary(1) == tally.Summary(1, ("1.1",), (), ("1.2", "1.3", "1.4", "1.5", "1.6", "1.7"))
    with pytest.raises(ValueError, match="chapter: got 99; wanted one of .*1, 2"):
        checks.summary(99)


def test_a_check_raises_only_where_it_is_asked_to():
    checks.jacobian_of_softmax(lambda q: torch.diag(q) - torch.outer(q, q)).demand()
    for answer in (lambda q: q, lambda q: ...):
        with pytest.raises(AssertionError, match=r"1\.1"):
            checks.jacobian_of_softmax(answer).demand()


def test_the_readers_line_is_shown(tmp_path):
    source = tmp_path / "answer.py"
    source.write_text("def answer(n, k, d, bytes_each):\n    half = n / 0\n    return half\n")
    space = {}
    exec(compile(source.read_text(), str(source), "exec"), space)
    assert checks.jacobian_memory(space["answer"]).case[0] == "in line 2 of the cell: half = n / 0"


def test_cases_are_drawn_anew():
    seen = []
    for _ in range(2):
        checks.change_of_prediction(lambda eta, *rest: seen.append(eta) or 0.0)
    assert len(set(seen)) > 0.7 * len(seen)
