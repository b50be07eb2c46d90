"""What a page shows: tables with the digits that the uncertainty leaves, claims with their bounds, figures that take a page's colours."""

import io
import math
import re
from decimal import Decimal
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

import ntk_course as ntk
from ntk_course.course import tables
from ntk_course.course.tables import number
from ntk_course.course.vector import NAMES, inline, svg_of
from ntk_course.course.widgets import _set


@pytest.mark.parametrize("seed", range(40))
def test_digits_are_those_that_the_uncertainty_leaves(seed):
    """By decimal arithmetic: the uncertainty keeps one digit, or two where the first is a one, and the mean ends there."""
    rng = np.random.default_rng(seed)
    sd, mean = float(10 ** rng.uniform(-5, 3)), float(rng.normal() * 10 ** rng.uniform(-2, 3))
    text = repr(ntk.course.Spread(mean, sd, 5)).replace("−", "-").replace(",", "")
    left, right = text.split(" ± ")
    first = Decimal(repr(sd)).adjusted()
    leading = sd / 10.0**first
    kept = first - (leading < 1.95)
    quantum = Decimal(1).scaleb(min(kept, 0))
    assert Decimal(right) == Decimal(repr(sd)).quantize(quantum) or abs(float(right) - sd) <= 0.5 * float(quantum)
    assert abs(float(left) - mean) <= 0.5000001 * float(quantum)
    assert left.partition(".")[2].__len__() == right.partition(".")[2].__len__() == max(0, -kept)


def test_spread_of_values():
    values = torch.tensor([0.2, 0.4, 0.9])
    found = ntk.course.Spread.of(values, scale=100)
    assert (found.mean, found.sd, found.count) == pytest.approx((50.0, float(np.std([20, 40, 90], ddof=1)), 3))
    assert repr(ntk.course.Spread.of([None, 0.5])) == "0.5" and math.isnan(ntk.course.Spread.of([0.5]).sd)
    with pytest.raises(ValueError, match="values: got none"):
        ntk.course.Spread.of([None, math.nan])


def test_numbers_are_written_to_be_read():
    written = {3e-16: "3·10⁻¹⁶", 0.0: "0", 12345.678: "12,346", -0.5: "−0.5", 1e-3: "0.001", 2 / 3: "0.6667", math.nan: "–"}
    assert {value: tables.number(value) for value in written if value == value} == {k: v for k, v in written.items() if k == k}
    assert tables.number(math.nan) == "–"


class Cells(HTMLParser):
    """Collects the rows of a table, and how each cell is aligned."""

    def __init__(self):
        super().__init__()
        self.rows, self.sides, self.scopes, self.open = [], [], [], False

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
            self.sides.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.sides[-1].append(dict(attrs)["style"])
            self.scopes.append(dict(attrs).get("scope"))
            self.open = True

    def handle_endtag(self, tag):
        self.open = self.open and tag not in ("td", "th")

    def handle_data(self, data):
        if self.open:
            self.rows[-1][-1] += data


def test_a_table_on_a_page_has_the_text_of_the_one_in_a_terminal():
    rows = [
        {
            "kernel <x>": "lpNTK & co",
            "images": 60_000,
            "share, %": ntk.course.Spread.of([15.2, 15.9]),
            "error": 1.5e-13,
            "holds": True,
        },
        {"kernel <x>": "pNTK", "images": 10, "share, %": ntk.course.Spread.of([90.8]), "error": None, "holds": False},
    ]
    table = ntk.table(rows, "A caption")
    page = Cells()
    page.feed(table._repr_html_())
    assert page.rows == [
        ["kernel <x>", "images", "share, %", "error", "holds"],
        ["lpNTK & co", "60,000", "15.6 ± 0.5", "1.5·10⁻¹³", "yes"],
        ["pNTK", "10", "90.8", "–", "no"],
    ]
    assert page.sides[0] == [f"text-align:{side}" for side in ("left", "right", "right", "right", "left")]
    assert page.scopes.count("col") == 5 and page.scopes.count("row") == 2
    lines = repr(table).splitlines()
    assert lines[0] == "A caption" and [re.split(r" {2,}", line.strip()) for line in lines[1:]] == page.rows
    assert "<caption>A caption</caption>" in table._repr_html_()


def test_a_column_of_floats_has_one_number_of_decimals():
    table = ntk.table(pd.DataFrame({"a": [99.312, 0.5], "b": [0.0123, 0.4]}))
    assert [line.split() for line in repr(table).splitlines()[1:]] == [["99.31", "0.0123"], ["0.50", "0.4000"]]
    assert repr(ntk.table([{"a": 99.312}], a=1)).splitlines()[1] == "99.3"
    with pytest.raises(ValueError, match="digits: got b; wanted columns among"):
        ntk.table([{"a": 1.0}], b=1)
    with pytest.raises(ValueError, match="rows: got none"):
        ntk.table([])


def test_whole_numbers_are_written_whole():
    assert [number(v) for v in (63.0, 1.0, 0.0, -220.0, 1e4, 2.5)] == ["63", "1", "0", "−220", "10,000", "2.5"]
    assert [number(v, 2, sign=True) for v in (0.031, -0.031, 0.0, 5.0)] == ["+0.031", "−0.031", "0", "+5"]
    assert repr(ntk.course.Spread.of([1.0, 1.0])) == "1 ± 0"
    assert repr(ntk.course.Spread.of([4e-15, 5e-15, 6e-15])) == "5·10⁻¹⁵ ± 1·10⁻¹⁵"


def test_no_digit_is_invented_behind_a_rounded_number():
    assert [number(v) for v in (0.7, 0.13, 0.717, 1 / 3, 12.5)] == ["0.7", "0.13", "0.717", "0.3333", "12.5"]
    lines = repr(ntk.table([{"a": 0.7}, {"a": 0.13}, {"a": None}])).splitlines()[1:]
    assert [line.strip() for line in lines] == ["0.70", "0.13", "–"]


def test_a_long_table_can_be_sorted_and_a_short_one_needs_not():
    short, long = (ntk.table([{"a": i} for i in range(rows)])._repr_html_() for rows in (11, 12))
    assert ("ntk-long" in short, "ntk-long" in long) == (False, True)


def test_questions_are_escaped():
    assert _set("is a < b & $x < 1$?") == 'is a &lt; b &amp; <span class="math notranslate nohighlight">\\(x &lt; 1\\)</span>?'


def test_a_claim_prints_its_number_and_bounds(capsys, monkeypatch):
    monkeypatch.delenv("NTK_COURSE_STRICT", raising=False)
    ntk.claim("slope", torch.tensor(1.993), 1.9, 2.1)
    ntk.claim("error", 3e-16, at_most=1e-12)
    ntk.claim("share", 0.3, at_least=0.5)
    ntk.claim("slope down", -0.4963, -0.6, -0.4)
    assert capsys.readouterr().out.splitlines() == [
        "slope: 1.993 (1.9 to 2.1)",
        "error: 3·10⁻¹⁶ (at most 1·10⁻¹²)",
        "share: 0.3 (at least 0.5; NOT SO HERE)",
        "slope down: −0.4963 (−0.6 to −0.4)",
    ]
    monkeypatch.setenv("NTK_COURSE_STRICT", "1")
    ntk.claim("slope", 2.1, 1.9, 2.1)
    for value in (1.8999, 2.1001, math.nan):
        with pytest.raises(AssertionError, match="slope: .*NOT SO HERE"):
            ntk.claim("slope", value, 1.9, 2.1)
    with pytest.raises(ValueError, match="got neither; wanted a bound"):
        ntk.claim("slope", 2.0)


def drawn():
    ntk.plots.style()
    return svg_of(ntk.plots.curves({"": {"a": [1, 2, 3], "b": [2, 3, 5]}}, "x", "y"))


def test_a_figure_takes_the_colours_of_its_page():
    svg = drawn()
    assert "#262626" in svg and "#0173b2" in svg
    markup = inline(svg, "one", 'says "what" it shows')
    assert 'aria-label="says &quot;what&quot; it shows"' in markup and 'role="img"' in markup
    bare = re.sub(r"var\(--ntk-[\w-]+, #[0-9a-f]{6}\)", "", markup)
    assert not re.findall("|".join(NAMES), bare)
    assert "var(--ntk-ink, #262626)" in markup and "var(--ntk-series-0, #0173b2)" in markup
    assert 'fill="var(--ntk-ink, #000)"' in markup  # of what matplotlib draws black, and gives no fill
    assert "<metadata" not in markup and "<!--" not in markup


def test_every_grey_of_a_figure_takes_a_colour_of_its_page():
    greys = {"#000000": "ink", "#333333": "ink", "#4c4c4c": "ink-2", "#999999": "ink-2", "#b0b0b0": "line", "#eeeeee": "line"}
    svg = "<svg width='9pt'".replace("'", '"') + ' height="9pt">' + "".join(f'<g style="stroke: {c}"/>' for c in greys) + "</svg>"
    assert re.findall(r"var\(--ntk-([\w-]+), (#\w{6})\)", inline(svg, "a", "b")) == [(name, c) for c, name in greys.items()]


def test_two_figures_of_a_page_share_no_name():
    first, second = (inline(drawn(), name, "a") for name in ("one", "two"))
    names = [set(re.findall(r' id="([^"]+)"', markup)) for markup in (first, second)]
    assert names[0] and not names[0] & names[1]
    for markup, own in zip((first, second), names, strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', markup)) <= own
    with pytest.raises(ValueError, match="svg: got 'nothing'; wanted an SVG file"):
        inline("nothing", "a", "b")


def test_the_same_figure_is_the_same_file():
    """Or every build of the site would differ from the one before."""
    clean = [re.sub(r"<dc:date>.*?</dc:date>", "", drawn()) for _ in range(2)]
    assert clean[0] == clean[1]


@pytest.mark.parametrize(
    "name", [n for n in vars(ntk.sketches) if n.islower() and not n.startswith("_") and n not in ("plt", "np", "sns")]
)
def test_sketches_draw(name):
    sketch = getattr(ntk.sketches, name)
    figure = sketch()
    held = io.BytesIO()
    figure.savefig(held, format="png")
    assert len(held.getvalue()) > 3000 and sketch.__doc__.startswith("Chapter ")
    plt.close(figure)
