"""What docs/calibration.md says of overlap is what its table holds, and meets the goals."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

from helpers.paths import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import overlap_calibration as calibration

TABLE = ROOT / "docs" / "overlap_calibration.csv"


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(TABLE)


def test_the_page_has_the_section_that_follows_from_the_numbers():
    page = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
    assert calibration.section(TABLE) in page


def test_every_noise_was_measured_under_both_contrasts(table):
    found = set(zip(table["contrast"], table["noise"], strict=True))
    assert found == {(c, n) for c in calibration.CONTRASTS for n in calibration.NOISES}
    assert table["runs"].nunique() == 1


def test_few_pairs_have_a_small_p_and_few_runs(table):
    """A share of runs may be off by three standard errors; pairs of a run are not independent."""
    error = (0.05 * 0.95 / table["runs"]) ** 0.5
    assert (table["share"] <= 0.05 + 3 * error).all() and table["share"].mean() <= 0.05
    assert (table["total"] <= 0.05 + 3 * error).all()


def test_as_many_neurons_are_expected_as_are_shared(table):
    """Within 10%, and where runs are too few to say that, within two standard errors more."""
    gap = (table["shared"] - table["expected"]).abs()
    assert (gap <= 0.1 * table["shared"] + 2 * table["error"]).all()
    overall = table.groupby("contrast")[["shared", "expected"]].sum()
    assert ((overall["shared"] - overall["expected"]).abs() <= 0.1 * overall["shared"]).all()


def test_the_method_states_numbers_of_the_table(table):
    rows = table[(table["pairs"] == "two relations") & (table["noise"] == "correlated")]
    row = rows.set_index("contrast").loc["background"]
    said = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    assert f"({row['shared']:.1f} where that is {row['formula']:.1f})" in said
    assert f"{row['formula_share']:.0%} of such" in said
