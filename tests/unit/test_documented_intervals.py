"""What the pages say of the intervals is what the table of their simulations holds."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

from helpers.paths import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import interval_calibration as calibration


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(calibration.TABLE)


def test_the_page_has_the_section_that_follows_from_the_table(table):
    assert calibration.PAGE.read_text(encoding="utf-8").endswith(calibration.section(table))


def test_the_table_has_every_scenario_and_each_reaches_the_goal(table):
    named = [(one.group, one.what) for one in calibration.scenarios()]
    assert list(zip(table["group"], table["what"], strict=True)) == named
    assert len(set(named)) == len(named) and (table["trials"] == 2000).all()
    assert (table["holds"] >= calibration.GOAL).all() and (table["least_width"] > 0).all()


def test_other_pages_name_the_same_range(table):
    low, high = (f"{100 * share:.0f}%" for share in (table["holds"].min(), table["holds"].max()))
    for page in ("README.md", "docs/method.md"):
        said = " ".join((ROOT / page).read_text(encoding="utf-8").split())
        assert f"in {low} to {high}" in said, page


def test_a_trial_is_drawn_again_from_its_seed():
    one = calibration.scenarios()[4]
    assert calibration.measure(one, 20, 4) == calibration.measure(one, 20, 4)
