"""Paired changes, their cells and dose curves, on a table made by hand."""

from __future__ import annotations

import pytest

import relation_neurons as rn
from helpers.fake_effects import CHANGES, effects_table
from relation_neurons.analysis.effects import effect_cells, only_dose, paired_changes
from relation_neurons.errors import DoseError, UnknownOptionError


def test_changes_are_paired_with_the_mean_of_the_controls_on_the_same_prompt():
    paired = paired_changes(effects_table(CHANGES))
    cell = paired[(paired["ablated"] == "a") & (paired["relation"] == "a") & (paired["dose"] == 10)]
    assert cell["correct_change"].tolist() == [-1, -1, -1, 0]
    assert cell["correct_control"].tolist() == [-1, 0, 0, 0]
    assert cell["correct_difference"].tolist() == [0, -1, -1, 0]
    assert (cell["margin_difference"] == -2).all()


def test_without_controls_the_difference_is_missing_and_not_zero():
    effects = effects_table(CHANGES)
    cells = effect_cells(
        paired_changes(effects[effects["kind"] == "ranked"]), ["ablated", "relation"]
    )
    assert cells["difference"].isna().all() and cells["low"].isna().all()
    assert cells["effect"].notna().all()


def test_dose_curves_average_draws_per_prompt_first():
    curves = rn.dose_curves(effects_table(CHANGES))
    home = curves[(curves["ablated"] == "a") & (curves["where"] == "home")].set_index(
        ["kind", "dose"]
    )
    assert home.loc[("ranked", 5), "effect"] == -0.25
    assert home.loc[("ranked", 10), "effect"] == -0.75
    assert home.loc[("control_contribution", 10), "effect"] == -0.25
    assert home.loc[("control_contribution", 10), "n"] == 4  # prompts, not prompts times draws
    low, high = home.loc[("ranked", 10), ["low", "high"]]
    assert low <= -0.75 <= high


def test_a_dose_that_was_not_swept_is_an_error():
    paired = paired_changes(effects_table(CHANGES))
    assert only_dose(paired, None)[1] == 10
    with pytest.raises(DoseError, match="there are 5, 10"):
        only_dose(paired, 7)
    with pytest.raises(UnknownOptionError, match="Did you mean specific"):
        paired_changes(effects_table(CHANGES), contrast="specifc")
    with pytest.raises(UnknownOptionError):
        effect_cells(paired, ["ablated"], quantity="accuracy")
