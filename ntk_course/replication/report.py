"""The replication report: every claim of the sources with our figures for it, read from the stored results."""

import html
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from scipy import stats

from ..analysis.comparisons import compare_means
from ..course.spoken import spoken
from ..course.tables import Spread, number
from . import experiments
from .experiments.pruned_training import METHODS
from .results import Quoted, Result, stored

VERDICTS = ("holds", "holds in part", "does not hold", "inconclusive", "not tested", "not a claim to test")

# What a preset stands for in the report, the nearest to the source first.
WORDS = {
    "cifar10": "the source's setting on CIFAR-10",
    "narrow": "as the public code, on CIFAR-10 with a quarter of the network's width",
    "code": "as the public code",
    "paper": "as the text, as far as a CPU reaches",
    "class": "a smaller setting",
}

# Table 2's t-tests as the paper prints them: (data, accuracies without, accuracies with what is redundant, t), ten seeds each.
PRINTED = (
    ("MNIST, full against lpNTK", (99.31, 0.03), (99.30, 0.03), 0.293),
    ("MNIST, full against pNTK", (99.31, 0.03), (99.27, 0.05), 13.718),
    ("CIFAR-10, full against lpNTK", (93.28, 0.06), (93.17, 0.23), 1.562),
    ("CIFAR-10, full against pNTK", (93.28, 0.06), (90.93, 0.29), 26.252),
    ("MNIST, full against lpNTK, Table 3", (99.31, 0.03), (99.37, 0.04), -3.205),
    ("CIFAR-10, full against lpNTK, Table 3", (93.28, 0.06), (93.55, 0.12), -3.996),
)


@dataclass(frozen=True)
class Claim:
    """One claim of a source and what became of it.

    Attributes:
        source: key of the source in references.bib.
        item: where it stands there.
        claim: in our words.
        verdict: one of :data:`VERDICTS`.
        chapter: the page that shows it.
        why: what makes the difference, or what to add; without numbers, which stand in the quoted numbers.
        experiments: whose quoted numbers are the evidence.
        not_run: why there is no run, where there is none.
    """

    source: str
    item: str
    claim: str
    verdict: str
    chapter: str
    why: str = ""
    experiments: tuple[str, ...] = ()
    not_run: str = ""


@cache
def claims() -> tuple[Claim, ...]:
    """Read the claims of all sources, in the order of the sources.

    Example:
        >>> claims()[0].item
        'Eq. (1)'
    """
    text = resources.files(__package__).joinpath("claims.toml").read_text(encoding="utf-8")
    return tuple(Claim(**{**row, "experiments": tuple(row.get("experiments", ()))}) for row in tomllib.loads(text)["claim"])


def runs(name: str) -> list[Result]:
    """Return the stored runs of an experiment that count: of each data set and network the one nearest to the paper's setting."""
    found: dict[tuple, Result] = {}
    for preset in WORDS:
        if run := stored(name, preset):
            protocol = run.provenance["config"].get("protocol", {"follows": "text"})
            found.setdefault((run.provenance["data"]["name"], protocol["follows"], protocol.get("width", 64)), run)
    return list(found.values())


def setting(name: str, preset: str) -> str:
    """Say in words what a preset of an experiment stands for."""
    found = experiments.find(name) if name in experiments.names() else None
    if found and found.of_ours:
        return f"at a setting of ours, {spoken(found.settings(preset).data)}"
    return WORDS.get(preset, preset)


def evidence(claim: Claim) -> list[tuple[Quoted, str, str]]:
    """Return a claim's figures, each with the experiment and the preset whose artifact it was read from."""
    found = [(f, "cost", "class") for f in _cost()] if "cost" in claim.experiments else []
    for name in claim.experiments:
        for run in runs(name) if name in experiments.names() else ():
            found += [(f, name, run.preset) for f in experiments.find(name).quoted(run) if f.item == claim.item]
    return found


def _cost() -> list[Quoted]:
    cost = stored("cost", "class")
    rows = [row for row in (cost.rows if cost else ()) if row["part"] == "mnist"]
    return [Quoted.of("Sec. 4.3", f"{key} for all {rows[0]['samples']:,} x {rows[0]['samples']:,} values, two cores", None,
                      [row[key] for row in rows]) for key in ("seconds", "gib")]  # fmt: skip


def printed_tests() -> list[dict]:
    """Take the paper's t-tests again from its own means and spreads, which it prints with two digits.

    ``nearest`` is the t nearest to the printed one that any numbers rounding to those can give.
    """
    rows = []
    for words, (a, sd_a), (b, sd_b), t in PRINTED:

        def statistic(shift: float, tighter: float, a=a, b=b, sd_a=sd_a, sd_b=sd_b) -> float:
            return float(stats.ttest_ind_from_stats(a + shift, sd_a - tighter, 10, b - shift, sd_b - tighter, 10).statistic)

        reach = [statistic(shift, tighter) for shift in (-0.005, 0.005) for tighter in (-0.005, 0.005)]
        nearest = min(max(t, min(reach)), max(reach))
        rows.append(
            {"of": words, "t printed": t, "t from its means": statistic(0.0, 0.0), "nearest": nearest, "possible": nearest == t}
        )
    return rows


def our_tests(margin: float = 0.1) -> list[dict]:
    """Compare our runs for Tables 2 and 3: Welch's test, interval, effect size and equivalence within a margin, in points.

    A run of one seed has no spread to test by, and is left out.
    """
    rows = []
    for table, name, key, pairs in (
        ("Table 2", "redundancy", "set", (("full", "de-redundant by lpNTK"), ("full", "most redundant tenth by lpNTK"),
                                          ("de-redundant by lpNTK", "random, as many as de-redundant by lpNTK"),
                                          ("most redundant tenth by lpNTK", "random, as many as most redundant tenth by lpNTK"))),
        ("Table 3", "pruned_training", "method", (("full", "lpNTK"), *(("lpNTK", other) for other in METHODS[2:]), ("EL2N", "random"))),
    ):  # fmt: skip
        for run in runs(name):
            ends: dict[str, list[float]] = {}
            for row in run.rows:
                if "accuracy" in row:
                    ends.setdefault(row[key], []).append(100 * row["accuracy"])
            for a, b in (pair for pair in pairs if all(len(ends.get(side, ())) > 1 for side in pair)):
                found = compare_means(ends[a], ends[b], margin)
                about = {"table": table, "a": a, "b": b, "seeds": len(ends[a]), "preset": run.preset}
                numbers = {"a - b": found.difference, "95 %": f"{found.low:+.2f} to {found.high:+.2f}", "p": found.p}
                rows.append({**about, **numbers, "g": found.g, "p of TOST": found.p_equivalent})
    return rows


def report_html(source: str) -> str:
    """Lay a source's claims out as HTML: verdict, claim, why, links to chapter and artifacts, and a table of its figures.

    Figures that the paper has too stand open; the others open with a click.
    """
    parts = []
    for claim in (c for c in claims() if c.source == source):
        found = evidence(claim)
        links = [f'<a href="{claim.chapter}.html">{page(claim)}</a>']
        for name, preset in dict.fromkeys((name, preset) for _, name, preset in found):
            links.append(f'<a href="../_static/{name}/{preset}.json">{name}, {preset}</a>')
        missing = f" <i>Not run:</i> {html.escape(claim.not_run)}." * bool(claim.not_run)
        parts.append(
            f'<section class="claim" id="{anchor(claim)}"><p><b>{html.escape(claim.item)}</b> <span class="verdict">{claim.verdict}</span> '
            f"{html.escape(claim.claim)}</p><p>{html.escape(claim.why)}{missing} ({', '.join(links)})</p>"
            f"{_figures(found)}</section>"
        )
    return "\n".join(parts)


def _figures(found: list[tuple[Quoted, str, str]]) -> str:
    if not found:
        return ""
    lines, groups = [], dict.fromkeys((name, preset) for _, name, preset in found)
    for group in groups:
        if len(groups) > 1:
            words = f"{group[0].replace('_', ' ')}: {setting(*group)}"
            lines.append(f'<tr><th colspan="4" scope="rowgroup">{html.escape(words)}</th></tr>')
        for f in (f for f, *of in found if tuple(of) == group):
            paper, difference = ("", "") if f.paper is None else (number(f.paper), number(f.ours - f.paper, 2, sign=True))
            cells = "".join(f"<td>{cell}</td>" for cell in (html.escape(f.quantity), paper, ours(f), difference))
            lines.append(f"<tr>{cells}</tr>")
    both = sum(f.paper is not None for f, _, _ in found)
    words = f"{len(found)} number{'s' * (len(found) > 1)}, " + (f"{both} beside the paper's" if both else "none in the paper")
    names = "".join(f'<th scope="col">{name}</th>' for name in ("quantity", "paper", "ours", "difference"))
    return (
        f"<details{' open' * bool(both)}><summary>{words}</summary>"
        f'<table class="table"><thead><tr>{names}</tr></thead><tbody>{"".join(lines)}</tbody></table></details>'
    )


def page(claim: Claim) -> str:
    """Name the page that shows a claim.

    Example:
        >>> page(claims()[0])
        'chapter 1'
    """
    return f"chapter {int(claim.chapter[:2])}" if claim.chapter[:2].isdigit() else claim.chapter.replace("_", " ")


def anchor(claim: Claim) -> str:
    """Return the name of a claim's place on the page of all claims.

    Example:
        >>> anchor(claims()[0])
        'claim-guo2024lpntk-eq-1'
    """
    return "claim-" + "-".join(re.findall(r"[a-z0-9]+", f"{claim.source} {claim.item}".lower()))


def ours(figure: Quoted) -> str:
    """Write our value of a figure with its deviation, to the digits that this leaves, and over how many it was taken.

    Example:
        >>> ours(Quoted.of("Table 1", "a share", None, [0.2, 0.21, 0.25]))
        '0.22 ± 0.03 (3)'
    """
    if figure.sd is None:
        return number(figure.ours)
    return f"{Spread(figure.ours, figure.sd, figure.count)} ({figure.count})"
