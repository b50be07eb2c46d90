"""The box of a claim in its chapter: what the source says, what came out here, and why."""

from typing import NamedTuple

from ..course.tables import Spread, number
from .report import Claim, anchor, claims, evidence, ours, setting
from .results import Quoted

SOURCES = {
    "guo2024lpntk": "The lpNTK paper",
    "bell2023exact": "The EPK paper",
    "chen2020label": "The LANTK paper or its reply",
    "ji2020neural": "The transport paper",
    "chizat2019lazy": "Chizat, Oyallon and Bach's paper",
    "yang2021feature": "Yang and Hu's paper",
    "yang2022tensor": "The muTransfer paper",
    "basri2019convergence": "Basri and others' paper",
    "simon2023eigenlearning": "The eigenlearning paper",
    "canatar2021spectral": "Canatar, Bordelon and Pehlevan's paper",
    "jacot2020kernel": "The paper on the risk estimator",
    "yang2020any": "Yang's paper",
    "arora2019exact": "The CNTK paper",
    "zandieh2021scaling": "Zandieh's paper",
    "wang2022pinns": "Wang, Yu and Perdikaris's paper",
    "lee2019wide": "The paper on wide networks as linear models",
    "he2020bayesian": "He, Lakshminarayanan and Teh's paper",
    "immer2021improving": "Immer, Korzepa and Bauer's paper",
    "zhou2020bandits": "Zhou, Li and Gu's paper",
    "koh2017influence": "The paper on influence functions",
    "pruthi2020estimating": "The TracIn paper",
    "park2023trak": "The TRAK paper",
    "nguyen2021dataset": "The paper on kernel inducing points",
}


class Box(NamedTuple):
    """A claim as a chapter shows it.

    Attributes:
        title: where the claim stands in its source, and the verdict.
        lines: pairs of a lead ("Here.") and what follows it, in plain text.
        anchor: of the claim on the page of all claims.
    """

    title: str
    lines: list[tuple[str, str]]
    anchor: str


def box(item: str) -> Box:
    """Lay one claim out for its chapter, with at most two of the figures that its source has too.

    Raises:
        ValueError: no claim has this item.

    Example:
        >>> box("Eq. (1)").title
        'Eq. (1): holds'
    """
    claim = claim_of(item)
    lines = [(f"{SOURCES[claim.source]} says.", claim.claim), ("Here.", _here(claim)), ("Why.", claim.why)]
    return Box(f"{item}: {claim.verdict}", [line for line in lines if line[1]], anchor(claim))


def boxes(items: str) -> list[Box]:
    """Lay several claims out, whose items are parted by semicolons.

    Example:
        >>> [found.title for found in boxes("Eq. (1); Eq. (3)")]
        ['Eq. (1): holds', 'Eq. (3): holds']
    """
    return [box(item.strip()) for item in items.split(";")]


def heading(found: list[Box]) -> str:
    """Return what stands over boxes: the title of a single one, what they are about where there are several."""
    if len(found) == 1:
        return f"Verdict on {found[0].title}"
    items = [each.title.rpartition(": ")[0] for each in found]
    return f"Verdicts on {', '.join(items[:-1])} and {items[-1]}"


def claim_of(item: str) -> Claim:
    """Find a claim by where it stands in its source.

    Raises:
        ValueError: no claim has this item.
    """
    found = [claim for claim in claims() if claim.item == item]
    if not found:
        raise ValueError(f"item: got {item!r}; wanted one of {[claim.item for claim in claims()]}")
    return found[0]


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _over(figure: Quoted) -> str:
    """Write a figure with its deviation, and say over how many runs."""
    if figure.sd is None or figure.count < 2:
        return ours(figure)
    return f"{Spread(figure.ours, figure.sd, figure.count)} (mean and deviation of {figure.count})"


def _here(claim: Claim) -> str:
    said = []
    both = [(f, f.paper, setting(name, preset)) for f, name, preset in evidence(claim) if f.paper is not None][:2]
    for where in dict.fromkeys(where for *_, where in both):
        numbers = (f"{f.quantity}: {_over(f)}; the source has {number(paper)}." for f, paper, at in both if at == where)
        said.append(f"Run {where}: {' '.join(map(_capital, numbers))}")
    if claim.not_run:
        said.append(f"Not run: {claim.not_run}.")
    return " ".join(said)
