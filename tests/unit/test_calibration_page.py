"""The tables of docs/calibration.md are those that its scripts kept."""

from __future__ import annotations

import re
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import relation_neurons as rn
from helpers.paths import ROOT
from relation_neurons.formatting import number

sys.path.insert(0, str(ROOT / "scripts"))

import calibration_tables
import draw_calibration


@pytest.mark.parametrize("name", ["runs", "draws"])
def test_the_page_shows_the_numbers_that_the_script_kept(name):
    page = calibration_tables.PAGE.read_text(encoding="utf-8")
    shown = re.findall(rf"<!-- {name}: (\w+) -->\n\n(.*?)\n\n<!-- end -->", page, re.DOTALL)
    assert dict(shown) == calibration_tables.markdown(name)


def test_the_tails_that_the_page_speaks_of_are_those_of_the_reference_run():
    page = " ".join(calibration_tables.PAGE.read_text(encoding="utf-8").split())
    pool = draw_calibration.reference_pool()
    place = pool.names.index("word_opposite")
    drawn = pool.means(pool.changes)[:, place]
    results = rn.load_results(draw_calibration.REFERENCE)
    matrix = rn.interference_matrix(results.effects, results.home_draws)
    own = matrix.query("ablated == 'word_opposite' and relation == 'word_opposite'")[
        "effect"
    ].item()
    (worse,) = drawn[drawn < own]
    assert f"Of the reference run's {len(drawn)} random sets one does more harm" in page
    assert (
        f"opposites ({number(worse)}) than the set that is ranked for them ({number(own)})" in page
    )
    assert f"what the {len(drawn)} do to them is {stats.kurtosis(drawn):.0f}." in page
    facts = [len(np.unique(pool.facts[pool.home == i])) for i in range(len(pool.names))]
    prompts = np.bincount(pool.home)
    assert f"({min(facts)} to {max(facts)} facts, each with all its prompts)" in page
    assert f"{prompts.min()} to {prompts.max()} per relation" in page


def test_nothing_is_claimed_where_there_is_nothing():
    """A share of so many runs may be off by two standard errors; t-tests claim what is not there."""
    table = pd.read_csv(calibration_tables.kept("draws"))
    nothing = table[table["table"] == "nothing"]
    dealt = nothing[nothing["what"].str.contains("dealt anew")]
    assert set(dealt["relations"]) == {2, 4, 8} and (dealt["runs"] >= 300).all()
    assert (dealt["any cell claimed"] <= 0.05).all()
    tails = nothing.drop(dealt.index)
    error = (0.05 * 0.95 / tails["runs"]) ** 0.5
    for name in ("any cell claimed", "harm claimed over all relations"):
        assert (tails[name] <= 0.05 + 2 * error).all(), name
    assert (nothing["any cell claimed by t-test"] > 0.2).any()


def test_planted_harm_is_found():
    table = pd.read_csv(calibration_tables.kept("draws"))
    harm = table[table["table"] == "harm"].set_index("what")
    assert harm.loc["half of the facts of one relation", "cells found"] >= 0.8
    assert harm.loc["a tenth of the facts of every relation", "found over all relations"] >= 0.9


def test_the_readme_states_these_shares():
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    table = pd.read_csv(calibration_tables.kept("draws"))
    of = dict(list(table.groupby("table")))
    nothing, harm = of["nothing"], of["harm"].set_index("what")
    dealt = nothing["what"].str.contains("dealt anew")
    low, high = (
        f"{share:.0%}" for share in nothing.loc[dealt, "any cell claimed"].agg(["min", "max"])
    )
    assert f"claim a cell in {low} to {high} of the runs, by a t-test" in readme
    by_t = nothing.loc[dealt, "any cell claimed by t-test"]
    assert f"in {by_t.min():.0%} to {by_t.max():.0%}. Other tails" in readme
    assert (
        f"Other tails do so in {nothing.loc[~dealt, 'any cell claimed'].max():.0%} at most"
        in readme
    )
    one = harm.loc["half of the facts of one relation"]
    assert f"it has its star in {one['cells found']:.0%} of the runs" in readme
    prompts = len(draw_calibration.reference_pool().home)
    swept = (
        of["cost"]["rows"].iloc[0] * prompts / (8 * 40)
    )  # the table's run has 40 prompts a relation
    assert f"costs {one['rows'] / swept:.0%} more rows than a run's sweep" in readme
