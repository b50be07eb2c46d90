"""The repository: its address stands in one place and can move, its licences and workflows say what the README says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import edition  # noqa: E402
import new_edition  # noqa: E402
import notebooks  # noqa: E402
import release  # noqa: E402
import repository  # noqa: E402

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.fixture
def copied(tmp_path, monkeypatch):
    for path in [
        ROOT / "pyproject.toml",
        *repository.files(),
        *(ROOT / "solutions").glob("*.md"),
        *(ROOT / "book").glob("*.bib"),
    ]:
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    return tmp_path


def test_moving_to_another_address(copied):
    old = edition.repository(copied)
    changed = repository.move("https://github.com/someone/another-place.git/", copied)
    assert edition.repository(copied) == "https://github.com/someone/another-place"
    assert notebooks.out_of_step() == []
    assert len(changed) >= 42 + 3  # the notebooks, _config.yml, CITATION.cff, the welcome page
    name = old.removeprefix("https://github.com/")
    strays = [path for path in copied.rglob("*.*") if path.is_file() and name in path.read_text()]
    assert strays == []
    repository.move(old, copied)
    assert all((copied / path.relative_to(ROOT)).read_text() == path.read_text() for path in repository.files())


@pytest.mark.parametrize(
    "url", ["", "github.com/a/b", "https://github.com/a", "https://example.org/a/b", "https://github.com/a/b c"]
)
def test_an_address_of_another_form_is_refused(copied, url):
    with pytest.raises(ValueError, match="wanted https://github.com/OWNER/NAME"):
        repository.move(url, copied)
    assert repository.files(copied)[0].read_text() == (ROOT / "_config.yml").read_text()


def test_no_other_file_holds_the_address():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    name = edition.repository().removeprefix("https://github.com/")
    holders = {ROOT / f for f in listed.stdout.split() if name in (ROOT / f).read_text(errors="ignore")}
    assert holders <= set(repository.files())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_workflows_run_the_targets_of_the_makefile(path):
    heads = re.findall(r"^([\w -]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {name for head in heads for name in head.split()}
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    commands = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    made = [command.split()[1] for command in commands if command.startswith("make ")]
    assert made
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    tabled = {row["target"] for job in jobs for row in job.get("strategy", {}).get("matrix", {}).get("include", ())}
    assert {*made, *tabled} - {"${{"} <= targets
    assert all(command.startswith(("make ", "sudo apt-get ", "sudo rm ")) for command in commands)


def test_the_site_is_published_from_what_make_book_builds():
    steps = yaml.safe_load((ROOT / ".github/workflows/site.yml").read_text())["jobs"]["build"]["steps"]
    runs = [step.get("run") for step in steps]
    assert runs.index("make book") < runs.index("make test")  # the browser tests open the built pages
    assert any(step.get("with", {}).get("path") == "_build/html" for step in steps)


def test_licences_agree():
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["license"] == "MIT"
    assert 'text = "MIT"' in (ROOT / "pyproject.toml").read_text()
    for name in ("README.md", "LICENSE", "_config.yml", "CITATION.cff"):
        assert "CC BY 4.0" in (ROOT / name).read_text()


def test_versions_agree():
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version


def test_the_edition_is_one_number_everywhere():
    number = edition.version()
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == number
    assert (ROOT / "CHANGELOG.md").read_text().split("## ")[1].split()[0] == number
    assert f"Edition {number}" in yaml.safe_load((ROOT / "_config.yml").read_text())["html"]["extra_footer"]
    assert edition.tag() in ("main", f"v{number}")


def test_whoever_is_told_to_install_gets_the_edition():
    pages = "".join(p.read_text() for p in [*ROOT.glob("*.md"), *(ROOT / "book").glob("*.md")])
    told = re.findall(r"ntk_course @ ([^\s\"]+)", pages)
    assert len(told) >= 4
    assert set(told) == {edition.archive(edition.repository(), edition.tag())}
    links = re.findall(r"https://colab\.research\.google\.com/github/\S+?/blob/(\S+?)/", pages)
    assert set(links) == {edition.tag()}


def test_a_version_in_the_making_follows_the_branch(tmp_path):
    for number, tag in (("0.3.0", "v0.3.0"), ("0.3.0.dev0", "main")):
        (tmp_path / "pyproject.toml").write_text(f'[project]\nversion = "{number}"\n')
        assert edition.tag(tmp_path) == tag


def test_another_edition_is_written_everywhere_and_back(copied):
    old = edition.version()
    changed = new_edition.rename("7.8.9", copied)
    assert len(changed) >= 42 + 5  # the notebooks, pyproject.toml, _config.yml, CITATION.cff, CHANGELOG.md, pages
    assert edition.tag(copied) == "v7.8.9" and notebooks.out_of_step() == []
    strays = [path for path in changed if f"v{old}" in path.read_text() or f"Edition {old}" in path.read_text()]
    assert strays == []
    new_edition.rename("7.9.0.dev0", copied)
    assert edition.tag(copied) == "main" and notebooks.out_of_step() == []
    new_edition.rename(old, copied)
    assert all((copied / path.relative_to(ROOT)).read_text() == path.read_text() for path in repository.files())
    with pytest.raises(ValueError, match="version: got '1'; wanted one like 0.2.0"):
        new_edition.rename("1", copied)


@pytest.mark.parametrize(
    ("name", "at", "code", "made"),
    [("main", "", 0, 0), ("v1.2.3", "", 0, 1), ("v1.2.3", "HEAD", 0, 0), ("v1.2.3", "f" * 40, 1, 0)],
    ids=["worked on", "new", "published here", "published elsewhere"],
)
def test_an_edition_is_published_once(name, at, code, made, monkeypatch):
    ran = []
    monkeypatch.setattr(release, "tag", lambda: name)
    monkeypatch.setattr(
        release, "_said", lambda *command: "a" * 40 if "rev-parse" in command else at.replace("HEAD", "a" * 40) + "\tref"
    )
    monkeypatch.setattr(release.subprocess, "run", lambda command, **settings: ran.append(command[:4]))
    assert release.main() == code
    assert ran == [["make", "pack"], ["gh", "release", "create", name]] * made
