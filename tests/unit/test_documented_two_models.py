"""What docs/two_models.md says is what its table holds."""

from __future__ import annotations

import importlib.util

import pandas as pd
import pytest

from helpers.paths import ROOT

PAGE = ROOT / "docs" / "two_models.md"
TABLE = ROOT / "docs" / "two_models.csv"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(
        "two_models_page", ROOT / "scripts" / "two_models_page.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_tables_that_follow_from_the_numbers(script):
    page = PAGE.read_text(encoding="utf-8")
    for table in script.tables(TABLE):
        assert table in page


def test_both_models_were_measured_alike(script):
    table = script.read(TABLE)
    assert list(dict.fromkeys(table["model"])) == ["SmolLM2-135M", "Gemma 3 270M"]
    for name, one in script.models(table).items():
        assert len(one.doses()) == 3, name
    asked = table[(table["property"] == "knowledge") & table["what"].str.startswith("sets, ")]
    assert asked.groupby("what")["n"].nunique().eq(1).all()


def test_a_verdict_follows_its_rule(script):
    table = script.read(TABLE)
    for name, one in script.models(table).items():
        verdict = script.holds(one)
        area = one.row("cumulativity", "area minus control", quantity="correct")
        assert verdict["cumulativity"] == bool(area["high"] < 0 and area["p"] <= 0.05), name
        assert verdict["interference"] is None, "three draws are too few for any star"


def test_shares_of_depth_add_up(script):
    table = script.read(TABLE)
    fifths = table[(table["property"] == "depth") & table["what"].str.fullmatch(r"fifth \d")]
    total = fifths.groupby(["model", "score"])["value"].sum()
    pd.testing.assert_series_equal(
        total, pd.Series(1.0, index=total.index, name="value"), atol=1e-3, rtol=0
    )
