"""Cumulativity in numbers, on curves made by hand and against scipy and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from relation_neurons.analysis.cumulativity import (
    dose_curves,
    dose_numbers,
    joint_effect,
)
from relation_neurons.errors import RelationFormatError, UnknownOptionError

DOSES = (10, 100, 1000)
HOME = ("a", "home")


def effects_of(margin, *, doses=DOSES, facts=8, templates=1, control=lambda *_: 0.0, languages=1):
    """Effects of relations a and b; `margin(ablated, relation, dose, fact)` is the change in logits."""
    rows = []
    for language, ablated, dose in itertools.product(("en", "de")[:languages], "ab", doses):
        for kind, draw in (("ranked", 0), ("control_contribution", 0), ("control_contribution", 1)):
            for number, (relation, fact, _) in enumerate(
                itertools.product("ab", range(facts), range(templates))
            ):
                rule = margin if kind == "ranked" else control
                change = rule(ablated, relation, dose, fact)
                if change is None:
                    continue
                rows.append(
                    {
                        "ablated": ablated,
                        "ablated_language": language,
                        "kind": kind,
                        "score": "specific",
                        "dose": dose,
                        "draw": draw,
                        "prompt_id": number + 1000 * (language == "de"),
                        "relation": relation,
                        "language": language,
                        "fact": f"place{fact}",
                        "correct_intact": True,
                        "correct": 1.0 + change > 0,
                        "margin_intact": 1.0,
                        "margin": 1.0 + change,
                    }
                )
    return pd.DataFrame(rows)


def at_home(values, doses=DOSES):
    """The same change for every fact at home, none elsewhere."""
    by_dose = dict(zip(doses, values, strict=True))
    return lambda ablated, relation, dose, fact: by_dose[dose] if ablated == relation else 0.0


def numbers(effects, **options):
    table = dose_numbers(effects, quantity="margin", **options)
    return table.set_index(["ablated", "where"])


def test_numbers_of_a_curve_made_by_hand():
    effects = effects_of(at_home((0.0, -1.0, -4.0)), control=at_home((0.0, -0.2, -0.4)))
    row = numbers(effects).loc[HOME]
    assert (row["n"], row["facts"], row["doses"], row["control_doses"]) == (8, 8, 3, 3)
    assert (row["largest_effect"], row["largest_dose"], row["last_effect"]) == (-4.0, 1000, -4.0)
    assert row["half_dose"] == pytest.approx(100 * 10 ** (1 / 3))  # -2 lies a third of the way
    assert np.isnan(row["half_low"]) and np.isnan(row["half_high"])  # every fact is alike
    assert row["half_reason"] == "no interval: fewer than six facts, or all alike"
    assert row["area"] == pytest.approx((0 - 1 - 1 - 4) / 4)  # two decades, a trapezoid each
    assert np.isnan(row["area_low"]) and np.isnan(row["area_high"])
    assert row["control_area"] == pytest.approx((0 - 0.2 - 0.2 - 0.4) / 4)
    assert row["area_difference"] == pytest.approx(row["area"] - row["control_area"])
    away = numbers(effects).loc[("a", "elsewhere")]
    assert away["area"] == 0.0
    assert np.isnan(away["half_dose"]) and away["half_reason"] == "no harm at the largest dose"


def test_the_largest_effect_need_not_be_at_the_largest_dose():
    row = numbers(effects_of(at_home((-0.5, -2.0, -1.5)))).loc[HOME]
    assert (row["largest_effect"], row["largest_dose"], row["last_effect"]) == (-2.0, 100, -1.5)
    gain = numbers(effects_of(at_home((0.5, 2.0, 1.5)))).loc[HOME]
    assert gain["largest_effect"] == 2.0 and gain["half_reason"] == "no harm at the largest dose"


def test_where_there_is_no_dose_at_half_effect_the_reason_is_given():
    early = numbers(effects_of(at_home((-3.0, -3.0, -4.0)))).loc[HOME]
    assert np.isnan(early["half_dose"]) and np.isnan(early["half_high"])
    assert early["half_reason"] == "reached at the smallest dose, 10, or below it"
    noise = np.random.default_rng(0).normal(scale=3, size=8)
    noise -= np.median(noise) + 0.01

    def unclear(ablated, relation, dose, fact):
        return noise[fact] * (dose == 1000)

    row = numbers(effects_of(unclear)).loc[HOME]
    assert row["last_effect"] == pytest.approx(-0.01) and np.isnan(row["half_dose"])
    assert row["half_reason"] == "no clear harm at the largest dose: its interval reaches 0"
    one = numbers(effects_of(at_home((-1.0,), (10,)), doses=(10,))).loc[HOME]
    assert np.isnan(one["half_dose"]) and "smallest dose" in one["half_reason"]
    assert one["area"] == -1.0 and np.isnan(one["p_trend"])


def test_half_is_where_the_curve_first_gets_there():
    doses = (1, 10, 100, 1000)
    row = numbers(effects_of(at_home((0.0, -3.0, -1.0, -4.0), doses), doses=doses)).loc[HOME]
    assert row["half_dose"] == pytest.approx(10 ** (2 / 3))


def test_intervals_of_half_dose_and_area_cover_and_come_from_facts():
    """A fact's prompts in several templates are no more evidence than one of them."""
    sizes = np.random.default_rng(3).uniform(0.5, 1.5, size=12)
    turn = np.random.default_rng(4).uniform(0, 1, size=12)

    def margin(ablated, relation, dose, fact):
        return -sizes[fact] * {10: 0, 100: turn[fact], 1000: 1}[dose] * (ablated == relation)

    once, thrice = (
        numbers(effects_of(margin, facts=12, templates=templates)).loc[HOME] for templates in (1, 3)
    )
    assert once["half_low"] < once["half_dose"] < once["half_high"]
    assert once["area_low"] < once["area"] < once["area_high"]
    columns = ["half_dose", "half_low", "half_high", "area", "area_low", "area_high", "slope"]
    np.testing.assert_allclose(once[columns].astype(float), thrice[columns].astype(float))
    assert (once["n"], thrice["n"], thrice["facts"]) == (12, 36, 12)


def test_the_row_over_all_relations_pools_facts():
    def margin(ablated, relation, dose, fact):
        return {"a": -1.0, "b": -3.0}[ablated] * (ablated == relation) * np.log10(dose)

    table = numbers(effects_of(margin, templates=2))
    assert list(table.index.get_level_values(0)[-2:]) == ["all relations"] * 2
    total = table.loc[("all relations", "home")]
    assert total["facts"] == 16 and total["n"] == 32
    assert total["area"] == pytest.approx(-2.0 * 2)
    assert table.loc[("all relations", "elsewhere"), "area"] == 0.0
    both = dose_numbers(effects_of(margin, languages=2), quantity="margin")
    assert len(both) == 12 and set(both["ablated_language"]) == {"en", "de"}


def test_doses_without_a_control_are_left_out_of_the_comparison():
    """Where no control can be matched at the largest dose, both areas are over the others."""
    effects = effects_of(
        at_home((0.0, -1.0, -4.0)),
        control=lambda ablated, relation, dose, fact: None if dose == 1000 else -0.2,
    )
    row = numbers(effects).loc[HOME]
    assert row["control_doses"] == 2 and row["control_area"] == pytest.approx(-0.2)
    assert row["area_difference"] == pytest.approx(-0.5 + 0.2)
    assert row["area"] == pytest.approx(-1.5)
    none = numbers(effects[effects["kind"] == "ranked"]).loc[HOME]
    assert none["control_doses"] == 0 and np.isnan(none["control_area"])
    assert np.isnan(none["area_difference"]) and none["area"] == pytest.approx(-1.5)


def test_the_curve_and_the_numbers_agree():
    sizes = np.random.default_rng(5).normal(size=(8, 2000))

    def margin(ablated, relation, dose, fact):
        return float(sizes[fact, dose])

    effects = effects_of(margin, templates=2)
    for quantity in ("margin", "correct"):
        curves = dose_curves(effects, quantity=quantity)
        curve = curves[
            (curves["ablated"] == "a") & (curves["where"] == "home") & (curves["kind"] == "ranked")
        ]
        row = dose_numbers(effects, quantity=quantity).set_index(["ablated", "where"]).loc[HOME]
        area = np.trapezoid(curve["effect"], np.log10(curve["dose"])) / 2
        if quantity == "margin":  # the median over facts of each one's area
            area = np.median(np.trapezoid(sizes[:, list(DOSES)], np.log10(DOSES)) / 2)
        assert row["area"] == pytest.approx(area)
        assert row["last_effect"] == pytest.approx(curve["effect"].iloc[-1])
        assert (curve["n"] == 16).all() and (curve["facts"] == 8).all()


def blocks_of(change, *, facts=10, templates=2, blocks=3, kinds=("ranked",)):
    """`change(block, fact)`: logits; block 0 is all at once."""
    rows = [
        {
            "ablated": "a",
            "ablated_language": "en",
            "kind": kind,
            "score": "specific",
            "dose": 5 if block else 5 * blocks,
            "draw": draw,
            "prompt_id": fact * templates + template,
            "relation": "a",
            "language": "en",
            "fact": f"place{fact}",
            "correct_intact": True,
            "correct": 1 + change(block, fact) > 0,
            "margin_intact": 1.0,
            "margin": 1 + change(block, fact),
            "block": block,
        }
        for kind in kinds
        for draw in range(1 if kind == "ranked" else 2)
        for block in range(blocks + 1)
        for fact in range(facts)
        for template in range(templates)
    ]
    return pd.DataFrame(rows)


def test_joint_effect_beside_the_sum_of_blocks():
    wobble = np.linspace(-0.4, 0.4, 10)
    effects = {0: -6.0, 1: -1.0, 2: -0.5, 3: -0.25}
    table = blocks_of(lambda block, fact: effects[block] + (wobble[fact] if block == 0 else 0))
    row = joint_effect(table).iloc[0]
    assert (row["size"], row["blocks"], row["n"], row["facts"]) == (5, 3, 20, 10)
    assert row["joint"] == pytest.approx(-6.0) and row["sum_of_blocks"] == pytest.approx(-1.75)
    assert row[["block_1", "block_2", "block_3"]].tolist() == [-1.0, -0.5, -0.25]
    assert row["difference"] == pytest.approx(-4.25)
    assert row["low"] < -4.25 < row["high"] < 0


def test_effects_that_add_up_show_no_difference_and_what_varies_by_fact_cancels():
    base = np.random.default_rng(0).normal(size=10)
    table = blocks_of(lambda block, fact: base[fact] * (3 if block == 0 else 1))
    row = joint_effect(table).iloc[0]
    assert row["difference"] == pytest.approx(0) and row["high"] - row["low"] < 1e-9  # paired


def test_net_flips_are_bounded_so_their_sum_says_less():
    table = blocks_of(lambda block, fact: -2.0 if block else -6.0)
    flips = joint_effect(table, quantity="correct").iloc[0]
    assert flips["joint"] == -1 and flips["sum_of_blocks"] == -3 and flips["difference"] == 2
    assert joint_effect(table).iloc[0]["difference"] == 0


def test_blocks_of_random_neurons_stand_beside_the_ranked_ones():
    table = blocks_of(lambda block, fact: -1.0, kinds=("ranked", "control_contribution"))
    rows = joint_effect(table)
    assert rows["kind"].tolist() == ["ranked", "control_contribution"]
    assert (rows["n"] == 20).all()  # draws are averaged per prompt


def test_what_cannot_be_read_is_refused():
    with pytest.raises(RelationFormatError, match="what block_sweep returns"):
        joint_effect(effects_of(at_home((0.0, 0.0, 0.0))))
    with pytest.raises(UnknownOptionError, match="Did you mean margin"):
        joint_effect(blocks_of(lambda *_: 0.0), quantity="margins")
    with pytest.raises(UnknownOptionError, match="Did you mean correct"):
        dose_numbers(effects_of(at_home((0.0, 0.0, 0.0))), quantity="corect")
