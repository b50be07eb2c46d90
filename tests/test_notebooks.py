"""Text is the source: notebooks are generated, in step, plain enough for Colab, and complete on their own."""

import ast
import json
import os
import re
import subprocess
import sys
import venv
from collections import Counter
from pathlib import Path

import jupytext
import nbformat
import pytest
from filelock import FileLock
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from ntk_course import results
from ntk_course.replication.experiments import forgetting_prediction

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import edition  # noqa: E402
import notebooks  # noqa: E402
from myst_plain import Plain  # noqa: E402

GENERATED = sorted(p for folder in ("book", "exercises", "solutions") for p in (ROOT / folder).glob("*.ipynb"))


def test_notebooks_are_in_step():
    assert notebooks.out_of_step() == []


def test_a_stale_notebook_is_noticed(tmp_path, monkeypatch):
    for folder in ("book", "solutions", "exercises"):
        (tmp_path / folder).mkdir()
        for path in [*(ROOT / folder).glob("[0-9]*"), *(ROOT / folder).glob("*.bib")]:
            (tmp_path / folder / path.name).write_bytes(path.read_bytes())
    for name in ("_config.yml", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    assert notebooks.out_of_step() == []
    source = tmp_path / "book/01_one_sgd_step.md"
    source.write_text(source.read_text().replace("Train a network", "Train some network"))
    (tmp_path / "exercises/09_stray.ipynb").write_text("{}")
    assert notebooks.out_of_step() == ["book/01_one_sgd_step.ipynb", "exercises/09_stray.ipynb"]


@pytest.mark.parametrize("path", GENERATED, ids=lambda p: str(p.relative_to(ROOT)))
def test_notebook(path):
    book = json.loads(path.read_text())
    first, set_up = book["cells"][0], book["cells"][1]
    where = path.relative_to(ROOT).as_posix()
    address, at = edition.repository(), edition.tag()
    assert f"{address.replace('github.com', 'colab.research.google.com/github')}/blob/{at}/{where}" in "".join(first["source"])
    assert edition.archive(address, at) in "".join(set_up["source"])
    assert 'find_spec("ntk_course") is None' in "".join(set_up["source"])
    for cell in book["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            words = re.sub(r"\$\$.*?\$\$|\$[^$]*\$", "", text, flags=re.DOTALL)  # without the mathematics
            assert not re.search(r"\{[\w:-]+\}|^:::|^\(\w[\w-]*\)=|\(eq-", words, re.MULTILINE), words
        for output in cell.get("outputs", []):
            assert notebooks.CHECKED in cell["metadata"]["tags"]
            assert set(output.get("data", {})) <= {"text/plain"}
            text = "".join(output.get("text", "") or output["data"]["text/plain"])
            assert not re.search(r"\d\.\d{4,}", text), f"a raw float is compared: {text}"
    if where.startswith("exercises"):
        assert "your code here" in path.read_text()
        assert "torch.outer(q" not in path.read_text()
        assert "**Discussion**" not in path.read_text()
    if where.startswith("solutions"):
        assert "your code here" not in path.read_text()
        assert "**Discussion**" in path.read_text()


@pytest.mark.parametrize(
    "source", sorted([*(ROOT / "book").glob("[0-9]*.md"), *(ROOT / "solutions").glob("*.md")]), ids=lambda p: p.name
)
def test_sources_read_well(source):
    text = source.read_text()
    for cell in jupytext.reads(text, fmt="md:myst").cells:
        if cell.cell_type == "code":
            lines = cell.source.splitlines()
            most = (
                25 if source.parent.name == "book" else 42 if "predicted, measured" in cell.source else 28
            )  # a laboratory, folded
            assert len(lines) <= most, f"a wall of code in {source.name}: {lines[0]}"
            assert max(map(len, lines)) <= 92, f"a line too wide for the page in {source.name}: {max(lines, key=len)}"
    if source.parent.name == "book":
        assert "What you will learn" in text
        assert "What to remember" in text
        assert "ntk.widgets.explore(" in text
        drawn = len(re.findall(r"^fig = ntk\.(?:plots|sketches)", text, re.MULTILINE))
        assert drawn == text.count("    alt: ") > 3


@pytest.mark.parametrize("source", sorted((ROOT / "book").glob("[0-9]*.md")), ids=lambda p: p.name)
def test_every_figure_has_a_caption_and_is_spoken_of(source):
    text = source.read_text()
    cells = jupytext.reads(text, fmt="md:myst").cells
    figures = [notebooks.figure(cell) for cell in cells if "image" in cell.metadata.get("mystnb", {})]
    assert all(len(each.get("caption", "").split()) >= 8 for each in figures), [each.get("name") for each in figures]
    drawn = [cell.source for cell in cells if "image" in cell.metadata.get("mystnb", {})]
    assert not any("ntk.table(" in code or "display(" in code for code in drawn), "a figure's cell shows nothing but it"
    names = [each["name"] for each in figures]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"fig-[a-z0-9-]+", name) for name in names)
    spoken = set(re.findall(r"\{numref\}`(fig-[\w-]+)`", text))
    assert spoken == set(names), f"not spoken of: {set(names) - spoken}; not there: {spoken - set(names)}"


def test_figures_have_names_of_their_own_in_the_whole_book():
    named = Counter(
        re.findall(r"^    name: (fig-\S+)$", "".join(p.read_text() for p in (ROOT / "book").glob("*.md")), re.MULTILINE)
    )
    assert max(named.values()) == 1, named.most_common(3)


@pytest.mark.parametrize("source", sorted((ROOT / "book").glob("[0-9]*.md")), ids=lambda p: p.name)
def test_no_output_says_true_or_false_for_a_number(source):
    for cell in jupytext.reads(source.read_text(), fmt="md:myst").cells:
        for call in ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else ():
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "print":
                parts = [
                    v.value for a in call.args if isinstance(a, ast.JoinedStr) for v in a.values if hasattr(v, "format_spec")
                ]
                assert not any(map(is_a_truth_value, [*call.args, *parts])), ast.unparse(call)


def is_a_truth_value(node):
    named = isinstance(node, ast.Call) and (getattr(node.func, "id", "") or getattr(node.func, "attr", ""))
    return isinstance(node, ast.Compare | ast.BoolOp) or named in ("bool", "all", "any", "allclose", "equal")


@pytest.mark.parametrize("path", GENERATED, ids=lambda p: p.name)
def test_links_of_a_notebook_lead_to_pages_that_there_are(path):
    site = edition.pages(edition.repository())
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    for page in re.findall(re.escape(site) + r"([\w/]+)\.html", text):
        assert (ROOT / f"{page}.md").is_file(), page


def test_plain_markdown():
    plain = Plain(2, ROOT / "book/references.bib", keep_solutions=False, folder="book", site="https://x.y/z/")
    got = plain.render(
        "(sec-x)=\n# T\n```{prf:theorem} Name\n:label: thm-a\nSee {cite:t}`guo2024lpntk`.\n\n$$\na\n$$ (eq-a)\n```\n"
        "{eq}`eq-a`, {prf:ref}`thm-a`, {doc}`here <x>`, {doc}`there <../solutions/y>`\n```{admonition} Hint\n:class: hint dropdown\nword\n```\n"
        "```{solution-start} ex\n```\nsecret\n```{solution-end}\n```\nend {cite:p}`jacot2018ntk, mohamadi2022fast`"
    )
    assert "secret" not in got
    assert "> **Theorem 1 (Name).**" in got
    assert "Guo et al. (2024)" in got
    assert "\\tag{2.1}" in got
    assert "(2.1), Theorem 1, [here](https://x.y/z/book/x.html), [there](https://x.y/z/solutions/y.html)" in got
    assert "<details><summary>Hint</summary>" in got
    assert got.endswith("end (Jacot et al., 2018; Mohamadi & Sutherland, 2022)")
    verdicts = plain.render("```{verdict} Table 1; Theorem 1\n```")
    assert verdicts.startswith("> **Verdicts on Table 1 and Theorem 1**") and "> **Theorem 1: holds in part**" in verdicts
    assert "https://x.y/z/book/replication.html#claim-guo2024lpntk-table-1" in verdicts
    for unknown in ("```{nonsense}\n```", "{nonsense}`x`", "```{note}\nnever closed"):
        with pytest.raises(ValueError, match="nonsense|never closed"):
            plain.render(unknown)


def test_the_address_stands_in_one_place():
    """Sources carry no badge and no address of their own, but for the welcome page's clone command and the theme's buttons."""
    for source in [*(ROOT / "book").glob("[0-9]*.md"), *(ROOT / "solutions").glob("*.md"), *(ROOT / "ntk_course").rglob("*.py")]:
        assert "github.com" not in source.read_text(), source
        assert "colab." not in source.read_text(), source


def test_a_set_up_that_fails_stops_the_notebook_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_PROXY", "http://127.0.0.1:9")  # pip can fetch nothing
    monkeypatch.setenv("PIP_RETRIES", "0")
    hidden = "import importlib.util\nimportlib.util.find_spec = lambda name: None"
    cells = [hidden, notebooks.set_up("https://github.com/a/b", "v1"), "print('below')"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    with pytest.raises(CellExecutionError, match="could not be installed from https://github.com/a/b"):
        NotebookClient(book, timeout=120).execute()
    assert [o.ename for o in book.cells[1].outputs if o.output_type == "error"] == ["SystemExit"]
    assert book.cells[2].execution_count is None


def run(*command, cwd=None):
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """A clean environment that has what Colab has (borrowed from this one), and the wheel of the package."""
    folder = tmp_path_factory.mktemp("colab")
    # setuptools works in the folder build/ of the sources, and every process of a test run comes here
    with FileLock(tmp_path_factory.getbasetemp().parent / "wheel.lock"):
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", ROOT)
    (wheel,) = (folder / "dist").glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env/bin/python"
    subprocess.run([str(python), "-m", "pip", "uninstall", "-qy", "setuptools"], check=True)  # Python 3.11 puts an old one there
    site = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])").strip())
    # everything of this environment but the course's package itself, which is linked in by its editable install
    borrowed = site / "borrowed"
    borrowed.mkdir()
    for entry in Path(pytest.__file__).resolve().parent.parent.iterdir():
        if not re.match(r"(__editable__|ntk_course|_distutils|distutils|pip)", entry.name) and entry.suffix != ".pth":
            (borrowed / entry.name).symlink_to(entry)
    (site / "borrowed.pth").write_text(str(borrowed) + "\n")
    return python, wheel


def installed(python):
    return set(run(python, "-m", "pip", "list", "--format=freeze").split())


def test_the_wheel_changes_no_installed_version(colab):
    python, wheel = colab
    before = installed(python)
    assert not any(line.lower().startswith("ntk") for line in before)
    dry = run(python, "-m", "pip", "install", "--dry-run", "--no-index", wheel)
    assert re.search(r"Would install ntk[_-]course-[\d.]+\s*$", dry), dry
    run(python, "-m", "pip", "install", "--no-index", wheel)
    added = installed(python) - before
    assert [line.split("==")[0].replace("-", "_") for line in added if not line.startswith("[")] == ["ntk_course"]


def test_dependencies_are_lower_bounds_of_what_colab_has():
    import tomllib

    names = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+", name) for name in names)
    has = {"torch", "numpy", "scipy", "scikit-learn", "matplotlib", "seaborn", "ipywidgets", "tqdm", "pooch", "pandas"}
    assert {name.split(">")[0] for name in names} == has


EVERY = [str(path.relative_to(ROOT)) for path in GENERATED]
FEW = ["book/01_one_sgd_step.ipynb", "book/06_forgetting.ipynb", "exercises/02_computing_the_tangent_kernel.ipynb"]


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY if os.environ.get("NTK_COURSE_EVERY_NOTEBOOK") else FEW)
def test_runs_from_an_empty_folder(colab, tmp_path, name):
    python, wheel = colab
    run(python, "-m", "pip", "install", "--no-index", "--quiet", wheel)
    target = tmp_path / Path(name).name
    target.write_bytes((ROOT / name).read_bytes())
    kernel = tmp_path / "kernels/kernels/colab"
    kernel.mkdir(parents=True)
    spec = {
        "argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "colab",
        "language": "python",
    }
    (kernel / "kernel.json").write_text(json.dumps(spec))
    code = (
        "import nbformat, nbclient, sys; nb = nbformat.read(sys.argv[1], 4);"
        "nb.cells.insert(1, nbformat.v4.new_code_cell('import ntk_course; print(ntk_course.__file__)'));"
        "nbclient.NotebookClient(nb, timeout=300, kernel_name='colab', resources={'metadata': {'path': sys.argv[2]}}).execute();"
        "print(*(o.get('text') or o.get('data', {}).get('text/plain', '') for c in nb.cells if c.cell_type == 'code' for o in c.outputs))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(target), str(tmp_path)],
        capture_output=True,
        text=True,
        env={
            "JUPYTER_PATH": str(tmp_path / "kernels"),
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "NTK_COURSE_STATIC": "1",
            "OMP_NUM_THREADS": "1",  # other tests run beside it: two threads for each core are ten times slower
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert str(python.parent.parent) in done.stdout
    assert str(ROOT) not in done.stdout
    if name == "book/06_forgetting.ipynb":  # the wheel brings the stored results along
        rows = forgetting_prediction.pooled(results.stored("forgetting_prediction", "paper"))
        events = [f"{row['events']:,.0f}" for row in rows]
        assert len(events) > 10 and not Counter(events) - Counter(done.stdout.split())
        assert "no stored run yet" not in done.stdout
