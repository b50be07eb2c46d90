"""What the site does to text everywhere: punctuation stays with its formula, docstrings of errors are lists, names are words."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes
from pybtex.database import BibliographyData, Entry, Person

import ntk_course as ntk
from ntk_course.course.spoken import in_words, spoken

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import typesetting  # noqa: E402

FORMULA = '<span class="math notranslate nohighlight">\\(x &lt; 1\\)</span>'


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (f"<p>a {FORMULA}, b</p>", f"{FORMULA},"),
        (f"<p>a ({FORMULA}) b</p>", f"({FORMULA})"),
        (f"<p>“{FORMULA}”.</p>", f"“{FORMULA}”."),
        (f"<p>a {FORMULA} b</p>", None),
        (f"<p>{FORMULA} {FORMULA}.</p>", f"{FORMULA}."),
    ],
)
def test_punctuation_stays_with_its_formula(body, kept):
    context = {"body": body}
    typesetting.keep(None, "page", "", context, None)
    assert context["body"] == (body if kept is None else body.replace(kept, f'<span class="ntk-kept">{kept}</span>', 1))


def mended(text):
    lines = text.split("\n")
    typesetting.mend(None, "function", "f", None, None, lines)
    return lines


def test_errors_are_items_however_the_lines_break():
    lines = mended(
        "Do.\n\nRaises:\n    TypeError, ValueError: bad inputs; ArithmeticError: the loss became infinite (the rate\n"
        "    is too large); on a GPU seen later.\n\nExample:\n    >>> 1"
    )
    assert lines[3:5] == [
        "    TypeError, ValueError: bad inputs",
        "    ArithmeticError: the loss became infinite (the rate is too large); on a GPU seen later.",
    ]
    assert lines[-2:] == ["Example:", "    >>> 1"]
    lines = mended("Do.\n\nRaises:\n    As :func:`f`, and ValueError for a cross kernel\n    of another width.")
    assert lines[2:] == ["**Raises** as :func:`f`, and ValueError for a cross kernel of another width.", ""]
    assert mended("Do.\n\nArgs:\n    n: K.\n    m: the size.")[3:] == ["    n: *K*.", "    m: the size."]


def test_every_docstring_of_the_package_has_items_or_one_sentence():
    import inspect

    seen = 0
    for room in ("analysis", "gram", "kernels", "models", "training", "tangents", "data"):
        for name in getattr(ntk, room).__all__:
            text = inspect.getdoc(getattr(getattr(ntk, room), name)) or ""
            if "Raises:" not in text:
                continue
            lines = mended(text)
            if "Raises:" in lines:
                start = lines.index("Raises:")
                end = next((i for i in range(start, len(lines)) if not lines[i].strip()), len(lines))
                assert all(typesetting._RAISES.match(line.strip()) for line in lines[start + 1 : end]), name
            seen += 1
    assert seen > 60


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("mnist, pairs [[3, 5], [4, 9]], seeds [0, 1, 2]", "MNIST, pairs 3/5 and 4/9, seeds 0 to 2"),
        ("digits, seeds (0, 1, 2)", "digits, seeds 0 to 2"),
        ("cifar10, seeds [0]", "CIFAR-10, seeds 0"),
        ("seeds [0, 2, 4]", "seeds 0, 2, 4"),
        ("K^2 and K^3, lambda 0.1", "K² and K³, λ 0.1"),
        ("relu, f1", "ReLU, F1"),
        ("kappa tilde, softmax", "κ̃, softmax"),
        # what only looks like it
        ("events (10)", "events (10)"),
        ("0.61 (24, 32)", "0.61 (24, 32)"),
        ("rkhs_relu, torch.relu(x), lambda_max", "rkhs_relu, torch.relu(x), lambda_max"),
        (r"$\lambda$", r"$\lambda$"),
    ],
)
def test_names_of_the_code_are_said_in_words(code, words):
    assert spoken(code) == words


def test_tables_and_figures_speak():
    shown = ntk.table([{"data": "mnist", "f1": 0.5}], "seeds [0, 1, 2]")
    assert "MNIST" in repr(shown) and "F1" in repr(shown) and "seeds 0 to 2" in shown._repr_html_()
    got = in_words(lambda panels, names, theory=(): (panels, names, theory))({"relu": {"mnist": [1]}}, ["K^2"], theory=("mnist",))
    assert got == ({"ReLU": {"MNIST": [1]}}, ["K²"], ("MNIST",))
    import matplotlib.pyplot as plt

    fig = ntk.plots.curves({"cifar10": {"relu": [1, 2]}}, "x", "y")
    assert fig.axes[0].get_title() == "CIFAR-10" and fig.legends[0].get_texts()[0].get_text() == "ReLU"
    plt.close("all")


def test_a_panel_over_a_hole_has_numbers():
    import matplotlib.pyplot as plt

    fig = ntk.plots.curves({str(i): {"a": [1, 2]} for i in range(3)}, "x", "y")
    fig.draw_without_rendering()
    shown = [any(t.label1.get_visible() for t in ax.xaxis.get_major_ticks()) for ax in fig.axes[:3]]
    assert shown == [False, True, True]
    plt.close("all")


def test_titles_keep_their_capitals():
    fields = {"title": "Exact Kernels of {ReLU} Networks", "journal": "J", "year": "2024"}
    entry = Entry("article", fields, {"author": [Person("Bell, Brian")]})
    (written,) = typesetting.AsWritten().format_bibliography(BibliographyData({"a": entry}))
    assert "Exact Kernels of ReLU Networks." in written.text.render_as("text")


@pytest.mark.parametrize(("html", "counted"), [('<span class="math notranslate">x</span>', True), ("<p>x</p>", False)])
def test_formulas_in_printed_html_are_counted(html, counted):
    found = {}
    domain = SimpleNamespace(data={"has_equations": found})
    env = SimpleNamespace(docname="page", get_domain=lambda name: domain)
    document = nodes.container("", nodes.raw("", html, format="html"))
    typesetting.count(SimpleNamespace(env=env), document)
    assert found == ({"page": True} if counted else {})
