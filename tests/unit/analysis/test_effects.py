"""Statistics and the three measures, on tables made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import relation_neurons as rn
from relation_neurons.analysis.contrasts import headline, known_against_others
from relation_neurons.analysis.effects import effect_cells, only_dose, paired_changes
from relation_neurons.analysis.resampling import bootstrap_interval
from relation_neurons.errors import DoseError, UnknownOptionError


def effects_table(changes, doses=(5, 10), prompts=4):
    """Effects where the ranked set of a relation flips a stated share of each relation's prompts."""
    rows = []
    for ablated in ("a", "b"):
        for kind, draws in (("ranked", 1), ("control_contribution", 2), ("control_layer", 1)):
            for draw in range(draws):
                for dose in doses:
                    for number, relation in enumerate(("a", "b")):
                        lost = changes.get((ablated, relation, kind, dose), 0)
                        for i in range(prompts):
                            rows.append(
                                {
                                    "ablated": ablated,
                                    "ablated_language": "en",
                                    "kind": kind,
                                    "score": "specific",
                                    "dose": dose,
                                    "draw": draw,
                                    "prompt_id": number * prompts + i,
                                    "relation": relation,
                                    "language": "en",
                                    "template_held_out": True,
                                    "correct_intact": True,
                                    "correct": i >= lost,
                                    "margin_intact": 1.0,
                                    "margin": 1.0 - lost,
                                    "logprob_intact": -1.0,
                                    "logprob": -1.0 - lost,
                                    "predicted": "x",
                                }
                            )
    return pd.DataFrame(rows)


CHANGES = {
    ("a", "a", "ranked", 5): 1,
    ("a", "a", "ranked", 10): 3,
    ("a", "b", "ranked", 10): 1,
    ("a", "a", "control_contribution", 10): 1,
    ("b", "b", "ranked", 10): 2,
}


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


def test_interference_and_specificity_by_row_and_column():
    """Pitfall 24: a row alone hides a set that breaks another relation more than its own."""
    matrix = rn.interference_matrix(effects_table(CHANGES), dose=10)
    cell = matrix.set_index(["ablated", "relation"])
    assert cell.loc[("a", "a"), "effect"] == -0.75
    assert cell.loc[("a", "a"), "difference"] == -0.5
    assert cell.loc[("a", "b"), "effect"] == -0.25
    assert (matrix["intact"] == 1).all() and (matrix["n"] == 4).all()
    both = rn.specificity(matrix).set_index("ablated")
    assert both.loc["a", "row"] == -0.75 + 0.25
    assert both.loc["a", "column"] == -0.75 - 0.0
    assert both.loc["b", "column"] == -0.5 + 0.25


def test_transfer_is_a_share_of_what_the_own_set_does():
    changes = {key: 5 * value for key, value in CHANGES.items()}
    effects = effects_table(changes, prompts=20)
    cells = rn.transfer_matrix(effects, dose=10).set_index(["ablated", "relation"])
    assert cells.loc[("a", "a"), "transfer"] == 1.0
    assert cells.loc[("a", "b"), "transfer"] == pytest.approx(-0.25 / -0.5)


def test_transfer_is_left_out_where_it_would_be_noise():
    """Where the own set does nothing clear, or where there are few prompts, a share says nothing."""
    few = rn.transfer_matrix(effects_table(CHANGES), dose=10)
    assert few["transfer"].isna().all() and (few["n"] == 4).all()
    one = {("a", "a", "ranked", 10): 1, ("b", "b", "ranked", 10): 10, ("a", "b", "ranked", 10): 5}
    cells = rn.transfer_matrix(effects_table(one, prompts=20), dose=10)
    cells = cells.set_index(["ablated", "relation"])
    assert cells.loc[("a", "a"), "low"] < 0 <= cells.loc[("a", "a"), "high"]
    assert cells.loc[["a", "b"], "transfer"].xs("a", level="relation").isna().all()
    assert cells.loc[("a", "b"), "transfer"] == pytest.approx(0.5)


def test_a_dose_that_was_not_swept_is_an_error():
    paired = paired_changes(effects_table(CHANGES))
    assert only_dose(paired, None)[1] == 10
    with pytest.raises(DoseError, match="there are 5, 10"):
        only_dose(paired, 7)
    with pytest.raises(UnknownOptionError, match="Did you mean specific"):
        paired_changes(effects_table(CHANGES), contrast="specifc")
    with pytest.raises(UnknownOptionError):
        effect_cells(paired, ["ablated"], quantity="accuracy")


def test_the_bootstrap_interval_covers_the_mean():
    """Coverage of nominal 95% intervals over seeded samples of flips."""
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(120):
        sample = rng.choice([-1.0, 0.0, 1.0], size=40, p=[0.35, 0.6, 0.05])
        low, high = bootstrap_interval(sample, seed=trial)
        hits += low <= -0.3 <= high
    assert hits / 120 > 0.88
    assert bootstrap_interval(np.array([0.5, 0.5])) == (0.5, 0.5)
    assert bootstrap_interval(np.arange(9.0), seed=1) == bootstrap_interval(np.arange(9.0), seed=1)


def test_the_headline_keeps_home_elsewhere_and_controls_apart():
    table = headline(effects_table(CHANGES), dose=10).set_index(["relation", "what"])
    assert table.loc[("a", "home"), "effect"] == -0.75
    assert table.loc[("a", "elsewhere"), "effect"] == -0.25
    assert table.loc[("a", "control_contribution"), "effect"] == -0.25
    assert table.loc[("all relations", "home"), "effect"] == pytest.approx(-0.625)
    assert table.loc[("all relations", "home"), "n"] == 8


def test_pitfall_25_the_unknown_ranking_stands_beside_the_known_one():
    known = effects_table(CHANGES)
    unknown = known[(known["kind"] == "ranked") & (known["dose"] == 10)].assign(score="unknown")
    table = known_against_others(pd.concat([known, unknown]), dose=10).set_index(
        ["relation", "score"]
    )
    assert table.loc[("a", "unknown"), "effect"] == table.loc[("a", "specific"), "effect"] == -0.75
    assert np.isnan(table.loc[("a", "unknown"), "control"])
    assert table.loc[("all relations", "unknown"), "n"] == 8
