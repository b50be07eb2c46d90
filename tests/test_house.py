"""The house: layout, direction of imports, docstrings, the command line, artifacts, and nothing that should not be said."""

import importlib
import json
import pkgutil
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import torch

import ntk_course as ntk
from ntk_course.replication import cli, results
from ntk_course.replication.experiments import find, names

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ntk_course"
MODULES = sorted(PACKAGE.rglob("*.py"))

ROOMS = sorted(path.parent for path in MODULES if path.name == "__init__.py")


@pytest.mark.parametrize("room", ROOMS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_room_says_what_it_is_for(room):
    module = importlib.import_module(".".join(room.relative_to(ROOT).parts))
    assert module.__doc__ and module.__doc__.splitlines()[0].endswith((".", ","))
    for name in getattr(module, "__all__", []):
        assert hasattr(module, name), name


def public():
    """Yield (name, thing) for everything that the front page and the rooms offer."""
    seen = set()
    for room in ROOMS:
        module = importlib.import_module(".".join(room.relative_to(ROOT).parts))
        for name in getattr(module, "__all__", []):
            thing = getattr(module, name)
            if callable(thing) and id(thing) not in seen and thing.__module__.startswith("ntk_course"):
                if ".checks." in thing.__module__:
                    continue  # an exercise is its example
                seen.add(id(thing))
                yield pytest.param(thing, id=f"{module.__name__}.{name}".removeprefix("ntk_course."))


def test_the_api_page_lists_everything_public():
    """By the object, wherever it is listed: a name that two rooms use counts for one of them only."""
    listed = re.findall(r"^\.\. auto\w+:: (ntk_course[\w.]*)$", (ROOT / "book/api.md").read_text(), re.MULTILINE)
    found = {id(pkgutil.resolve_name(name)) for name in listed}
    missing = [p.id for p in public() if id(p.values[0]) not in found]
    assert missing == [], "add them to book/api.md"


def test_the_front_page_is_short():
    assert len([name for name in ntk.__all__ if not isinstance(getattr(ntk, name), type(ntk))]) <= 32


@pytest.mark.parametrize("thing", list(public()))
def test_public_docstrings(thing):
    doc = thing.__doc__
    assert doc
    first = doc.splitlines()[0]
    assert first.endswith((".", ").", "):"))
    assert "$" not in doc, "the pages of the package set :math:, not dollars"
    if not isinstance(thing, type):
        assert "Example:" in doc
        assert ">>>" in doc


def test_public_names_of_the_design():
    wanted = ["load", "lenet5", "mlp", "resnet18", "small_cnn", "entk", "pntk", "lpntk", "tangent_kernel", "Gram", "train"]
    assert set(wanted) <= set(ntk.__all__)


def test_repository_says_nothing_it_should_not():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.split():
        path = ROOT / name
        if not path.is_file():
            continue
        assert path.stat().st_size < 1_000_000, name
        text = path.read_text(errors="ignore")
        assert (
            not re.search(r"/(home|root|Users)/\w|/tmp/\w+/|pypi\.org/simple|index-url", text) or name == "tests/test_house.py"
        ), name


def test_doctor(capsys):
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for word in ("python", "torch", "gpu", "NTK_COURSE_DATA", "digits", "yes (offline)", "cifar10"):
        assert word in printed


def test_doctor_sees_a_data_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/train-images-idx3-ubyte.gz").touch()
    monkeypatch.setenv("NTK_COURSE_DATA", str(tmp_path))
    cli.main(["doctor"])
    printed = capsys.readouterr().out
    assert f"yes ({tmp_path}/mnist)" in printed
    assert re.search(r"cifar10 +no", printed)


def test_run_and_list(tmp_path, capsys):
    assert cli.main(["list", "--results", str(tmp_path)]) == 0
    assert "stored: none; came with the course: class" in capsys.readouterr().out
    assert cli.main(["run", "taylor_remainder", "--preset", "smoke", "--results", str(tmp_path)]) == 0
    capsys.readouterr()
    cli.main(["list", "--results", str(tmp_path)])
    assert "stored: smoke" in capsys.readouterr().out
    stored = json.loads((tmp_path / "taylor_remainder/smoke.json").read_text())
    assert {"config", "data", "commit", "torch", "device", "seconds"} <= set(stored["provenance"])
    by_rate = {row["lr"]: row["remainder"] for row in stored["rows"]}
    assert 90 < by_rate[1e-3] / by_rate[1e-4] < 110
    assert list(tmp_path.rglob("*.part")) == []


def test_command_line_names_mistakes(capsys):
    assert cli.main(["run", "no_such"]) == 2
    assert f"name: got 'no_such'; wanted one of {names()}" in capsys.readouterr().err


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(find("taylor_remainder"), "run", interrupted)
    assert cli.main(["run", "taylor_remainder", "--results", str(tmp_path)]) == 130
    assert list(tmp_path.rglob("*")) == []


def test_results_round_trip_and_faults(tmp_path):
    result = results.Result("name", "smoke", [{"a": 1.5}], {"seed": 0})
    path = results.save(result, tmp_path)
    assert results.read("name", "smoke", tmp_path) == result
    assert results.read("name", "paper", tmp_path) is None
    with pytest.raises(ValueError, match="Out of range"):
        results.save(results.Result("name", "smoke", [{"a": float("nan")}], {}), tmp_path)
    assert results.read("name", "smoke", tmp_path) == result
    assert [p.name for p in path.parent.iterdir()] == ["smoke.json"]
    path.write_text("{")
    with pytest.raises(ValueError, match="not a result"):
        results.read("name", "smoke", tmp_path)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(self, target):
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        results.save(results.Result("name", "smoke", [], {}), tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_explorer_is_alive_and_static(monkeypatch):
    import ipywidgets
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr("ntk_course.course.widgets.display", shown.append)
    drawn = []

    def draw(value):
        drawn.append(value)
        return plt.figure()

    ntk.widgets.explore(draw, [1, 2, 3], "value", "an empty figure", start=1)
    slider = next(w for box in shown if isinstance(box, ipywidgets.VBox) for w in box.children[:1])
    slider.value = 3
    assert drawn == [2, 3]
    live = slider.comm and next(w for box in shown if isinstance(box, ipywidgets.VBox) for w in box.children[1:])
    said = [*shown, *(out for out in getattr(live, "outputs", ()))]
    assert any("an empty figure (value 3)" in str(getattr(each, "data", each)) for each in said)
    monkeypatch.setenv("NTK_COURSE_STATIC", "1")
    ntk.widgets.explore(draw, [1, 2, 3], "value", "an <empty> figure", start=1)
    page = shown[-1].data
    assert page.count('<svg role="img"') == 3
    assert page.count("hidden>") == 2
    assert "an &lt;empty&gt; figure (value 2)" in page
    assert "<figcaption>an &lt;empty&gt; figure.</figcaption>" in page
    with pytest.raises(ValueError, match="start: got 3 with 3 values; wanted"):
        ntk.widgets.explore(draw, [1, 2, 3], "value", "alt", start=3)
    plt.close("all")


def test_no_bar_on_a_page_that_is_built_to_be_read(monkeypatch):
    from ntk_course.basics.progress import after_a_moment

    monkeypatch.delenv("NTK_COURSE_STATIC", raising=False)
    assert not after_a_moment([1, 2], "adding").disable
    assert after_a_moment([1, 2], "adding", shown=False).disable
    monkeypatch.setenv("NTK_COURSE_STATIC", "1")
    assert after_a_moment([1, 2], "adding").disable


def test_figures_draw():
    import matplotlib.pyplot as plt

    ntk.plots.style()
    g = torch.randn(6, 6)
    figures = [
        ntk.plots.matrices({"a": g, "b": g[0]}),
        ntk.plots.predicted_against_true({"x": g, "y": g}, {"x": g, "y": g / 2}),
        ntk.plots.orders([1, 2, 3], {"a": [1, 2, 3]}),
        ntk.plots.gram_heatmap(g @ g.T, torch.tensor([0, 1, 2, 0, 1, 2]), "abc"),
        ntk.plots.bars({"a": 1.0, "b": 2.0}, "seconds"),
        ntk.plots.lines([1, 2], {"a": [1, 2]}, "x", "y"),
    ]
    rows = {"x": {"p": 0.25, "q": 0.75}, "y": {"p": 1.0, "q": 0.0}}
    figures += [
        ntk.plots.curves({"": {"a": g, "b": g[0]}}, "x", "y"),
        ntk.plots.curves({str(i): {"a": [1, 2]} for i in range(7)}, "x", "y", x=[1, 10], log="xy"),
        ntk.plots.scatters({"a": (g[0], g[1]), "b": (g[0], -g[0])}, "x", "y"),
        ntk.plots.histograms({"a": {"p": g, "q": g + 1}}, "x", log=True),
        ntk.plots.shares(rows),
        ntk.plots.arrows({"a": {"u": (1.0, 0.5), "v": (-1.0, 0.0)}}, dashed=["v"]),
        ntk.plots.gallery(torch.rand(2, 3, 1, 8, 8), "ab", "xyz"),
        ntk.plots.gallery(torch.rand(1, 2, 3, 8, 8)),
        ntk.plots.groups({"a": [1.0, 2.0, 4.0], "b": [3.0]}, "x"),
    ]
    plane, labels = torch.randn(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    figures += [
        ntk.plots.maps({"a": torch.arange(9.0), "b": torch.zeros(9)}, [0, 1, 2], plane, labels),
        ntk.plots.clouds({"r": {"a": plane[:, 0], "b": plane[:, 1]}}, plane, labels, {"r": [0, 0]}),
    ]
    assert figures[-2].axes[0].images[0].get_array()[0].tolist() == [0, 3, 6]  # the first coordinate runs to the right
    assert [ax.get_title() for ax in figures[-1].axes[:2]] == ["a", "b"]
    mean, spread = figures[6].axes[0].lines[0].get_ydata(), figures[6].axes[0].collections
    assert torch.allclose(torch.tensor(mean), g.mean(0))
    assert len(spread) == 1  # one row has no spread
    assert figures[8].axes[1].get_title() == "b: correlation −1.00"
    assert [round(bar.get_width(), 2) for bar in figures[10].axes[0].patches] == [0.25, 1.0, 0.75, 0.0]
    low, high = figures[14].axes[0].lines[1].get_xdata()[0], figures[14].axes[0].collections[0].get_segments()[0][:, 0]
    half = 4.302653 * torch.tensor([1.0, 2.0, 4.0]).std().item() / 3**0.5  # Student's t, two degrees of freedom
    assert low == pytest.approx(7 / 3)
    assert list(high) == pytest.approx([7 / 3 - half, 7 / 3 + half])
    panels = figures[1].axes
    assert panels[1].get_title().endswith("outside)")
    assert figures[3].axes[0].images[0].get_array().shape == (6, 6)
    compared = ntk.plots.scatters({"a": (g[0], g[1]), "b": (g[0], 9 * g[1])}, "x", "y", diagonal=True, correlation=False)
    across, upwards = compared.axes[0].lines[0].get_data()
    assert list(across) == list(upwards) == list(compared.axes[1].get_xlim()) == list(compared.axes[1].get_ylim())
    assert [ax.get_title() for ax in compared.axes] == ["a", "b"]
    shared = ntk.plots.histograms({"a": {"p": g}, "b": {"p": 9 * g}}, "x", shared=True).axes
    assert shared[0].get_xlim() == shared[1].get_xlim()
    for figure in [*figures, compared]:
        assert figure.get_size_inches()[0] <= ntk.plots.WIDE  # what a telephone can show
        figure.canvas.draw()
    plt.close("all")


def test_panels_of_other_names_have_legends_of_their_own():
    legends = lambda fig: [[text.get_text() for text in ax.get_legend().get_texts()] for ax in fig.axes if ax.get_legend()]
    assert legends(ntk.plots.curves({"p": {"0": [1, 2], "1": [2, 3]}, "q": {"0.1": [1, 2]}}, "x", "y")) == [["0", "1"], ["0.1"]]
    alike = ntk.plots.curves({"p": {"a": [1, 2]}, "q": {"a": [2, 1]}}, "x", "y")
    assert legends(alike) == [] and [text.get_text() for text in alike.legends[0].get_texts()] == ["a"]


def test_the_wheel_gets_every_folder():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in MODULES}
    assert set(listed) == folders | {"ntk_course.stored"}
