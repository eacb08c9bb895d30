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
    LARGEST_OVERLAP,
    claim_families,
    false_discovery,
    judge_cells,
)
from relation_neurons.analysis.contrasts import contrasts, known_against_others
from relation_neurons.analysis.draw_tests import draws_needed
from relation_neurons.analysis.effects import fact_keys
from relation_neurons.analysis.interference import home_cells, specificity_intervals
from relation_neurons.analysis.intervals import flip_interval
from relation_neurons.analysis.resampling import by_fact, sign_flip_test
from relation_neurons.plots.claims import claim_sentences

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


def test_pitfall_26_damage_that_any_set_does_is_not_significant():
    """Pitfall 26: McNemar against the intact model calls it so; an empirical p stops at 1/11."""
    effects = make_effects(np.random.default_rng(2), harm=0.4)
    cell = effects[(effects["ablated"] == "a") & (effects["relation"] == "a")]
    ranked = cell[cell["kind"] == "ranked"]
    lost, won = int((~ranked["correct"]).sum()), 0
    table = [[int(ranked["correct"].sum()), lost], [won, 0]]
    assert mcnemar(table, exact=True).pvalue < 0.001
    assert not rn.interference_matrix(effects)["significant"].any()
    real = make_effects(np.random.default_rng(0), harm=0.05, home=0.8, draws=99)
    assert rn.interference_matrix(real)["p_value"].min() == 1 / 100


def test_an_effect_beyond_facts_and_draws_is_found_and_its_neighbours_are_not():
    matrix = rn.interference_matrix(make_effects(np.random.default_rng(4), home=0.6, draws=79))
    assert (matrix["inflation"] == 1).all()
    found = matrix[matrix["significant"]]
    assert (found["family"] == "home").all() and len(found) == 3
    assert (matrix["p_value"] == matrix[["p_sign_flip", "p_draws"]].max(axis=1)).all()
    assert (matrix["q_value"] >= matrix["p_sign_flip"]).all()
    assert (matrix["facts"] == 20).all() and (matrix["n"] == 40).all()
    home = matrix["ablated"] == matrix["relation"]
    assert (matrix["family"] == np.where(home, "home", "away")).all()


@pytest.mark.parametrize("draws", [0, 1, 4, 10])
def test_with_few_draws_nothing_is_significant_and_the_matrix_says_how_many_it_takes(draws):
    effects = make_effects(np.random.default_rng(0), draws=draws, home=0.9)
    matrix = rn.interference_matrix(effects)
    assert not matrix["significant"].any()
    home = matrix[matrix["family"] == "home"]
    said = claim_sentences(claim_families(matrix))
    if draws == 0:
        assert matrix["p_draws"].isna().all() and (matrix["draws_needed"] == 0).all()
        assert "no random sets" in said["home"]
        return
    assert (home["draws"] + home["draws_needed"] >= draws_needed(3)).all()
    assert (home["least_p"] == home["p_draws"]).all(), "no draw does as much"
    assert f"takes {home['draws_needed'].max()} more" in said["home"]
    assert "cannot" not in said["away"] and "no cell can be" in said["away"]


def test_the_stars_come_back_with_the_draws_that_were_said_to_be_missing():
    effects = make_effects(np.random.default_rng(0), draws=10, home=0.9)
    home = rn.interference_matrix(effects).query("family == 'home'")
    more = make_effects(np.random.default_rng(1), draws=10 + int(home["draws_needed"].max()))
    more = more[(more["kind"] != "ranked") & (more["draw"] >= 10)]
    matrix = rn.interference_matrix(effects, more[more["ablated"] == more["relation"]])
    found = matrix.query("family == 'home'")
    assert found["significant"].all() and (found["draws_needed"] == 0).all()
    assert (found["effect"].to_numpy() == home["effect"].to_numpy()).all()
    assert (found["control"].to_numpy() == home["control"].to_numpy()).all()


def test_draws_that_resemble_one_another_give_no_p_value():
    effects = make_effects(np.random.default_rng(1), home=0.5, draws=49)
    shared = rn.interference_matrix(effects.assign(draw_overlap=LARGEST_OVERLAP + 0.01))
    assert shared["p_value"].isna().all() and not shared["significant"].any()
    assert "hardly differ" in claim_sentences(claim_families(shared))["home"]
    some = rn.interference_matrix(effects.assign(draw_overlap=0.2))
    assert (some["inflation"] >= 1.5 - 1e-9).all(), "(1 + o) / (1 - o)"
    assert (some["effective_draws"] < 5).all()


def test_draws_at_home_that_resemble_one_another_give_none_where_one_was_judged_on_all_prompts():
    effects = make_effects(np.random.default_rng(1), home=0.9, draws=100)
    further = effects[(effects["draw"] > 0) & (effects["ablated"] == effects["relation"])]
    base = effects[effects["draw"] == 0].assign(draw_overlap=np.nan)
    alike = rn.interference_matrix(base, further.assign(draw_overlap=0.6)).query("family == 'home'")
    assert alike["p_value"].isna().all() and not alike["significant"].any()
    apart = rn.interference_matrix(base, further.assign(draw_overlap=0.01)).query(
        "family == 'home'"
    )
    assert apart["significant"].all()


def test_relations_without_a_p_value_are_named_in_the_sentence():
    effects = make_effects(np.random.default_rng(1), home=0.9, draws=99)
    overlap = np.where(effects["ablated"] == "a", 0.5, 0.0)
    matrix = rn.interference_matrix(effects.assign(draw_overlap=overlap))
    said = claim_sentences(claim_families(matrix))["home"]
    assert "2 of 2 cells show harm, by rank among 99 random sets" in said
    assert "1 of 3 are not tested: the random sets have 50% of their neurons in common" in said


def test_one_relation_alone_is_judged_by_its_own_cell():
    effects = make_effects(np.random.default_rng(1), home=0.9, draws=30).query(
        "ablated == 'a' and relation == 'a'"
    )
    base, further = effects[effects["draw"] < 10], effects[effects["draw"] >= 10]
    matrix = rn.interference_matrix(base, further)
    table = contrasts(base, further, dose=10, matrix=matrix)
    row = table.query("relation == 'all relations' and against == 'control_contribution'")
    assert row["p_value"].item() == matrix["p_value"].item() == pytest.approx(1 / 31)


def test_sets_whose_own_facts_were_not_asked_have_no_cell_at_home():
    effects = make_effects(np.random.default_rng(1), draws=30)
    asked = effects[effects["ablated"] != effects["relation"]]
    matrix = rn.interference_matrix(asked)
    assert (matrix["family"] == "away").all() and not matrix["significant"].any()
    assert home_cells(asked, dose=10).empty


def test_away_from_home_nothing_is_claimed_where_no_harm_at_home_is_shown():
    effects = make_effects(np.random.default_rng(4), draws=79)
    away = (effects["ablated"] == "a") & (effects["relation"] == "b")
    hit = away & (effects["kind"] == "ranked")
    effects["correct"] &= ~hit
    matrix = rn.interference_matrix(effects).set_index(["ablated", "relation"])
    assert matrix.loc[("a", "b"), "q_value"] <= 0.05
    assert not matrix["significant"].any()
    assert "nothing is claimed" in claim_sentences(claim_families(matrix.reset_index()))["away"]
    at_home = (effects["ablated"] == "c") & (effects["relation"] == "c")
    effects["correct"] &= ~(at_home & (effects["kind"] == "ranked"))
    matrix = rn.interference_matrix(effects).set_index(["ablated", "relation"])
    assert matrix.loc[[("a", "b"), ("c", "c")], "significant"].all()
    assert matrix["significant"].sum() == 2


@pytest.mark.parametrize("tails", ["normal", "t3", "one in 80", "lognormal"])
def test_sets_that_differ_at_random_are_rarely_called_significant(tails):
    """Whatever the tails of random sets: judged by a t-test, half of such runs claim a cell."""
    claims = 0
    for run in range(20):
        rng = np.random.default_rng([run, 7])
        rows, facts = [], np.arange(20)
        for ablated in range(4):
            for draw in range(60):
                harm = {
                    "normal": rng.normal(0, 0.1, 4),
                    "t3": rng.standard_t(3, 4) * 0.06,
                    "one in 80": np.where(rng.random(4) < 1 / 80, 0.5, rng.normal(0, 0.02, 4)),
                    "lognormal": np.exp(rng.normal(0, 1.5, 4)) * 0.02,
                }[tails]
                rows.append((f"r{ablated}", draw, np.clip(harm, 0, 1)))
        paired, drawn = _tables(rows, facts, rng)
        claims += bool(judge_cells(paired, drawn, seed=run)["significant"].any())
    assert claims <= 3, claims  # 5% of 20 and two standard errors


def _tables(rows, facts, rng):
    """The tables of `judge_cells` from the harm of sets (draw 0 is ranked) to each relation."""
    paired, drawn = [], []
    means = {}
    for ablated, draw, harm in rows:
        for relation, share in enumerate(harm):
            lost = rng.random(len(facts)) < share
            if draw:
                drawn.append((ablated, f"r{relation}", draw - 1, -lost.mean()))
                means.setdefault((ablated, relation), []).append(lost)
            else:
                paired.append((ablated, f"r{relation}", relation, lost))
    table = pd.DataFrame(drawn, columns=["ablated", "relation", "draw", "change"])
    found = []
    for ablated, name, relation, lost in paired:
        control = -np.mean(means[ablated, relation], axis=0)
        found += [
            (ablated, name, f"{name}/{fact}", -float(hit), beside)
            for fact, hit, beside in zip(facts, lost, control, strict=True)
        ]
    columns = ["ablated", "relation", "fact", "correct_change", "correct_control"]
    table_of = pd.DataFrame(found, columns=columns)
    difference = table_of["correct_change"] - table_of["correct_control"]
    return table_of.assign(correct_difference=difference), table.assign(draw_overlap=np.nan)


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
