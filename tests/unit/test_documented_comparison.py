"""What the documents say of the comparison of criteria is what its tables hold."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers.paths import ROOT
from relation_neurons.analysis.standings import comparison_standings

FOLDER = ROOT / "results" / "comparison"


def number(value: float) -> str:
    return "0.00" if round(value, 2) == 0 else f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def interval(effect: float, low: float, high: float) -> str:
    if low != low:  # the first contender beside itself
        return "\N{EN DASH}"
    return f"{number(effect)} ({number(low)} to {number(high)})"


@pytest.fixture(scope="module")
def standings():
    return pd.read_parquet(FOLDER / "comparison_standings.parquet")


def test_the_page_has_a_row_for_every_contender(standings):
    page = (ROOT / "docs" / "comparison.md").read_text()
    effects = pd.read_parquet(FOLDER / "comparison_effects.parquet")
    logits = comparison_standings(effects, quantity="margin", contrast="specific")
    logits = logits.set_index(["by", "site", "end"])
    assert page.count("\n| ") == len(standings) + 2  # the head and its line
    for row in standings.itertuples():
        other = logits.loc[(row.by, row.site, row.end)]
        cells = [
            str(row.place),
            row.by,
            row.site,
            row.end,
            number(row.home),
            number(row.home - row.specificity),
            number(row.control),
            interval(row.specificity, row.low, row.high),
            interval(row.against_first, row.against_first_low, row.against_first_high),
            interval(other["specificity"], other["low"], other["high"]),
        ]
        assert f"| {' | '.join(cells)} |" in page


def test_the_tables_follow_from_the_outcomes(standings):
    effects = pd.read_parquet(FOLDER / "comparison_effects.parquet")
    again = comparison_standings(effects, quantity="correct", contrast="specific")
    again = again.set_index(["by", "site", "end"])
    then = standings.set_index(["by", "site", "end"])
    assert list(again.index) == list(then.index)
    for column in ("specificity", "low", "high", "against_first", "against_first_high"):
        assert (again[column] - then[column]).abs().max() < 1e-12


def test_the_readme_names_the_winner(standings):
    said = (ROOT / "README.md").read_text()
    first = standings.set_index(["by", "site", "end"])["specificity"]
    assert standings["by"].iloc[0] == "probe" and "an L1 probe wins" in said
    best, second, paper = (
        number(first[by, "post", "top"]) for by in ("probe", "d_prime", "average_precision")
    )
    assert f"({best} and {second} against {paper} net flips" in " ".join(said.split())


def test_the_order_without_opposites_is_told():
    effects = pd.read_parquet(FOLDER / "comparison_effects.parquet")
    rest = effects[
        (effects["ablated"] != "word_opposite") & (effects["relation"] != "word_opposite")
    ]
    found = comparison_standings(rest, quantity="correct", contrast="specific")
    found = found.set_index(["by", "site", "end"])
    assert found.index[0] == ("attribution", "post", "top")
    page = " ".join((ROOT / "docs" / "comparison.md").read_text().split())
    said = page[page.index("Without them") : page.index("another order")]
    for name in found.index[:7]:
        assert number(found.loc[name, "specificity"]) in said, name
    first = found.iloc[0]
    assert interval(first["specificity"], first["low"], first["high"]) in said
