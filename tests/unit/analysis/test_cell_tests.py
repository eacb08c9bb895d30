"""The test of a cell: over facts, over control draws, and corrected over the matrix."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

import relation_neurons as rn
from relation_neurons.analysis.cell_tests import (
    draw_spread,
    false_discovery,
    pooled_draw_test,
    two_sided,
)
from relation_neurons.analysis.contrasts import known_against_others
from relation_neurons.analysis.effects import fact_keys
from relation_neurons.analysis.interference import specificity_intervals
from relation_neurons.analysis.intervals import flip_interval
from relation_neurons.analysis.resampling import by_fact, sign_flip_test

RELATIONS = ("a", "b", "c")


def make_effects(rng, *, facts=20, templates=2, draws=10, harm=0.1, home=0.0, between=0.0):
    """A sweep whose sets, ranked and random alike, each break a share of a relation's facts.

    The share is `harm`, varied by `between` from set to set; the ranked set adds `home` at home. A
    broken fact is broken in all its templates.
    """
    rows = []
    for ablated, relation in product(RELATIONS, RELATIONS):
        for kind, count in (("ranked", 1), ("control_contribution", draws)):
            for draw in range(count):
                share = harm + rng.normal(0, between)
                share += home if kind == "ranked" and ablated == relation else 0.0
                broken = rng.random(facts) < share
                for fact, template in product(range(facts), range(templates)):
                    rows.append((ablated, relation, kind, draw, fact, template, broken[fact]))
    table = pd.DataFrame(
        rows, columns=["ablated", "relation", "kind", "draw", "fact", "template", "broken"]
    )
    number = table["relation"].map(RELATIONS.index) * facts * templates
    return table.assign(
        prompt_id=number + table["fact"] * templates + table["template"],
        fact=table["fact"].astype(str),
        ablated_language="en",
        language="en",
        score="specific",
        dose=10,
        template_held_out=True,
        correct_intact=True,
        correct=~table["broken"],
        margin_intact=1.0,
        margin=1.0 - 2.0 * table["broken"],
    )


def brute_force_flips(values):
    means = [np.mean(values * signs) for signs in product((-1, 1), repeat=len(values))]
    return np.mean(np.abs(means) >= abs(values.mean()) - 1e-12)


def test_the_sign_flip_test_is_the_share_of_sign_patterns_as_extreme():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.choice([-1.0, -0.5, 0.0, 0.5], size=9)
        assert sign_flip_test(values) == pytest.approx(brute_force_flips(values))
    assert sign_flip_test(np.zeros(5)) == 1.0
    assert np.isnan(sign_flip_test(np.array([0.0, np.nan])))
    many = rng.normal(0.2, 1, 60)
    assert sign_flip_test(many, seed=3) == sign_flip_test(many, seed=3)
    assert sign_flip_test(many) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.02)


def test_prompts_of_one_fact_move_together():
    """Facts that are asked twice with the same outcome are no more evidence than asked once."""
    once = np.array([-1.0, 0, 0, -1, 0, 0, 0, -1])
    twice, facts = np.repeat(once, 2), np.repeat(np.arange(8), 2)
    assert by_fact(twice, facts).tolist() == once.tolist()
    uneven = by_fact(np.array([-1.0, -1, 0]), np.array(["x", "x", "y"]))
    assert uneven.mean() == pytest.approx(-2 / 3), "the mean over facts is that over prompts"


def test_a_fact_is_one_in_all_its_languages_and_a_prompt_its_own_where_none_is_named():
    table = pd.DataFrame(
        {"relation": ["r (de)", "r (en)"], "language": ["de", "en"], "fact": ["FR", "FR"]}
    )
    assert fact_keys(table).nunique() == 1
    assert fact_keys(pd.DataFrame({"prompt_id": [3, 4]})).tolist() == ["3", "4"]


def test_the_false_discovery_rate_is_benjamini_and_hochbergs():
    p = np.array([0.001, 0.008, 0.039, 0.041, 0.6])
    by_hand = np.minimum.accumulate((p * 5 / np.arange(1, 6))[::-1])[::-1]
    assert false_discovery(pd.Series(p)) == pytest.approx(by_hand)
    with_gap = false_discovery(pd.Series([0.001, np.nan, 0.04]))
    assert np.isnan(with_gap[1]) and with_gap[0] == pytest.approx(0.002)
    assert np.isnan(false_discovery(pd.Series([np.nan]))).all()


def test_the_spread_of_draws_is_moderated_by_the_other_sets():
    draws = pd.DataFrame(
        {
            "ablated": ["a"] * 3 + ["b"] * 3,
            "relation": "r",
            "draw": [0, 1, 2] * 2,
            "change": [0.0, 0.1, 0.2, 0.0, 0.0, 0.0],
        }
    )
    spread = draw_spread(draws, ["ablated", "relation"], ["relation"]).set_index("ablated")
    pooled = (2 * 0.01 + 2 * 0.0) / 4
    assert spread.loc["a", "variance"] == pytest.approx((2 * pooled + 2 * 0.01) / 4)
    assert spread.loc["b", "variance"] == pytest.approx(2 * pooled / 4)
    assert (spread["freedom"] == 4).all() and (spread["draws"] == 3).all()
    one = draw_spread(draws[draws["draw"] == 0], ["ablated", "relation"], ["relation"])
    assert one["variance"].isna().all(), "one draw has no spread, and 0 would be a lie"


@pytest.mark.parametrize(
    ("sets", "draws", "freedom"), [(1, 2, 1), (1, 3, 2), (1, 10, 9), (2, 2, 2), (8, 10, 13)]
)
def test_the_test_over_draws_holds_its_level_with_few_sets_and_draws(sets, draws, freedom):
    """Counted twice, a single set's two draws would call 14% of nothing significant at 5%."""
    rng = np.random.default_rng(0)
    trials = 4000
    changes = rng.normal(size=(trials, sets, draws))
    index = pd.MultiIndex.from_product(
        [range(trials), range(sets), range(draws)], names=["relation", "ablated", "draw"]
    )
    table = pd.DataFrame({"change": changes.ravel()}, index=index).reset_index()
    spread = draw_spread(table, ["relation", "ablated"], ["relation"])
    first = spread[spread["ablated"] == 0]
    assert (first["freedom"] == freedom).all()
    ranked = rng.normal(size=trials) - changes[:, 0].mean(axis=1)  # one more set of the same kind
    p = two_sided(ranked, np.sqrt(first["variance"] * (1 + 1 / draws)), first["freedom"])
    assert 0.03 < (p <= 0.05).mean() < 0.065


def test_controls_that_do_nothing_leave_the_other_cells_their_tests():
    """Their spread is 0, so t is infinite; the median of such cells would be no inflation at all."""
    effects = make_effects(np.random.default_rng(0), harm=0.0, draws=3)
    broken = (effects["kind"] == "ranked") & effects["fact"].isin(["0", "1", "2", "3", "4", "5"])
    matrix = rn.interference_matrix(effects.assign(correct=~broken))
    assert (matrix["inflation"] == 1.0).all() and (matrix["draw_error"] == 0).all()
    assert (matrix["p_draws"] == 0).all() and matrix["q_value"].notna().all()
    still = rn.interference_matrix(effects)
    assert (still["p_draws"] == 1).all(), "neither a difference nor a spread"


def test_rounding_is_no_difference():
    rest = 0.1 + 0.2 - 0.3
    assert rest != 0 and two_sided(rest, 0.0, 9) == 1.0
    home = pd.DataFrame({"n": [1], "difference": [rest], "draw_error": [0.0], "freedom": [9]})
    assert pooled_draw_test(home) == 1.0


def test_the_checks_control_over_all_relations_counts_prompts_as_their_effect_does():
    effects = make_effects(np.random.default_rng(4), harm=0.3, between=0.2, draws=2)
    few = (effects["relation"] == "a") & (effects["fact"].astype(int) >= 4)
    effects = effects[~few]
    table = known_against_others(effects, dose=10)
    overall = table[table["relation"] == "all relations"].iloc[0]
    home = effects[effects["ablated"] == effects["relation"]]
    change = home["correct"].astype(float) - 1.0
    assert overall["n"] == 8 + 40 + 40
    for kind, found in (("ranked", "effect"), ("control_contribution", "control")):
        assert overall[found] == pytest.approx(change[home["kind"] == kind].mean())


def test_with_one_draw_nothing_is_significant():
    rng = np.random.default_rng(0)
    matrix = rn.interference_matrix(make_effects(rng, draws=1, home=0.9))
    assert matrix["p_draws"].isna().all() and not matrix["significant"].any()
    none = make_effects(rng, draws=1, home=0.9)
    matrix = rn.interference_matrix(none[none["kind"] == "ranked"])
    assert (matrix["draws"] == 0).all() and not matrix["significant"].any()


def test_an_effect_beyond_facts_and_draws_is_found_and_its_neighbours_are_not():
    matrix = rn.interference_matrix(make_effects(np.random.default_rng(1), home=0.5))
    found = matrix[matrix["significant"]]
    assert (found["ablated"] == found["relation"]).all() and len(found) == 3
    assert (matrix["p_value"] == matrix[["p_sign_flip", "p_draws"]].max(axis=1)).all()
    assert (matrix["q_value"] >= matrix["p_value"]).all()
    assert (matrix["facts"] == 20).all() and (matrix["n"] == 40).all()


def test_pitfall_26_damage_that_any_set_does_is_not_significant():
    """Pitfall 26: McNemar against the intact model calls it so; an empirical p stops at 1/11."""
    effects = make_effects(np.random.default_rng(2), harm=0.4)
    cell = effects[(effects["ablated"] == "a") & (effects["relation"] == "a")]
    ranked = cell[cell["kind"] == "ranked"]
    lost, won = int((~ranked["correct"]).sum()), 0
    table = [[int(ranked["correct"].sum()), lost], [won, 0]]
    assert mcnemar(table, exact=True).pvalue < 0.001
    assert not rn.interference_matrix(effects)["significant"].any()
    real = rn.interference_matrix(make_effects(np.random.default_rng(2), harm=0.05, home=0.8))
    assert real["p_value"].min() < 1 / 11 / 20


def test_sets_that_differ_at_random_are_rarely_called_significant():
    """Pitfall 26: the sign-flip test alone takes what tells one random set from others for an effect."""
    flips = draws = both = cells = 0
    for seed in range(20):
        effects = make_effects(np.random.default_rng(seed), harm=0.3, between=0.12)
        matrix = rn.interference_matrix(effects, seed=seed)
        flips += int((matrix["p_sign_flip"] <= 0.05).sum())
        draws += int((matrix["p_draws"] <= 0.05).sum())
        both += int((matrix["p_value"] <= 0.05).sum())
        cells += len(matrix)
    assert both <= 0.05 * cells, both / cells
    assert draws <= 0.075 * cells, draws / cells
    assert flips > 0.1 * cells, "a spread between sets that only the draws can show"


def test_the_pooled_test_weighs_relations_by_their_prompts():
    home = pd.DataFrame(
        {"n": [30, 10], "difference": [-0.2, 0.0], "draw_error": [0.05, 0.1], "freedom": [9, 9]}
    )
    error = np.hypot(0.75 * 0.05, 0.25 * 0.1)
    parts = np.array([0.75 * 0.05, 0.25 * 0.1]) ** 2
    freedom = parts.sum() ** 2 / (parts**2 / 9).sum()
    assert pooled_draw_test(home) == pytest.approx(2 * stats.t.sf(0.15 / error, freedom))
    assert two_sided(0.0, 0.0, 5) == 1.0 and two_sided(0.1, 0.0, 5) == 0.0


def test_specificity_has_the_plain_numbers_and_intervals_around_them():
    effects = make_effects(np.random.default_rng(3), home=0.4)
    plain = rn.specificity(rn.interference_matrix(effects)).set_index("ablated")
    found = specificity_intervals(effects).set_index("ablated")
    columns = ["home", "elsewhere", "others_here", "row", "column"]
    assert found.loc[list(RELATIONS), columns].to_numpy() == pytest.approx(
        plain[columns].to_numpy()
    )
    assert found.loc["all relations", "row"] == pytest.approx(plain["row"].mean())
    for name in ("home", "row", "column"):
        assert (found[f"{name}_low"] < found[name]).all()
        assert (found[name] < found[f"{name}_high"]).all()


def test_specificity_gives_home_the_interval_that_it_has_elsewhere():
    effects = make_effects(np.random.default_rng(8), harm=0.06, templates=1, facts=20)
    found = specificity_intervals(effects).set_index("ablated")
    for name in RELATIONS:
        cell = effects[(effects["ablated"] == name) & (effects["relation"] == name)]
        ranked = cell[cell["kind"] == "ranked"]
        expected = flip_interval(ranked["correct"].to_numpy(float) - 1, ranked["fact"].to_numpy())
        assert tuple(found.loc[name, ["home_low", "home_high"]]) == pytest.approx(expected)


def test_row_intervals_widen_with_the_noise_of_both_sides():
    """The interval of a difference of independent means is about as wide as theory says."""
    effects = make_effects(np.random.default_rng(5), facts=200, templates=1, harm=0.5)
    found = specificity_intervals(effects).set_index("ablated").loc["a"]
    width = found["row_high"] - found["row_low"]
    expected = 2 * 1.96 * np.sqrt(0.25 / 200 * (1 + 1 / 2))
    assert width == pytest.approx(expected, rel=0.1)
