"""Tests among random sets many times over, on tables (`make test-all`; docs/calibration.md)."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

import relation_neurons as rn
from helpers.paths import ROOT
from relation_neurons.ablation.sweep import ablate_sets
from relation_neurons.analysis.cell_tests import judge_all
from relation_neurons.analysis.effects import paired_changes
from relation_neurons.analysis.interference import draws_at
from relation_neurons.results.options import make_options
from relation_neurons.results.plan import AblationPlan, Plan

sys.path.insert(0, str(ROOT / "scripts"))

import calibration
import draw_calibration as drawn

pytestmark = pytest.mark.slow
RUNS = 400


def beyond(level: float, runs: int) -> float:
    """Two standard errors of a share above its level."""
    return level + 2 * (level * (1 - level) / runs) ** 0.5


@pytest.mark.parametrize("tail", drawn.TAILS)
@pytest.mark.parametrize(("relations", "draws"), [(8, 10), (4, 19), (2, 4), (8, 2), (1, 10)])
def test_what_stands_for_the_matrix_says_what_it_says(tail, relations, draws):
    """Away from home `judge_ranks` leaves the test over facts out, which can but take claims away."""
    names, home = [f"r{i}" for i in range(relations)], np.repeat(range(relations), drawn.FACTS)
    for run in range(1 if relations == 8 else 3):
        ranked, base, more = drawn.constructed(tail, relations, draws, run)
        sets = np.concatenate([ranked[:, None], base], axis=1)[:, :, home]
        effects = drawn.effects_table(sets, names, home)

        def judge(home_draws, effects=effects, run=run):
            return rn.interference_matrix(effects, home_draws, quantity="margin", seed=run)

        def draw(name, numbers, more=more):
            values = more(names.index(name), numbers.stop - draws)[numbers.start - draws :]
            return drawn.home_table(name, numbers, values, names, home)

        matrix, _ = drawn.drawn_until_clear(judge, draw)
        own = matrix[matrix["family"] == "home"].set_index("ablated").loc[names]
        flips = own["p_sign_flip"].to_numpy()
        claims = drawn.judge_ranks(ranked, base, more, run, flips=flips)
        assert matrix["inflation"].to_numpy() == pytest.approx(claims.inflation)
        assert own["p_draws"].to_numpy() == pytest.approx(claims.p_home)
        assert own["draws"].tolist() == claims.draws.tolist()
        assert own["significant"].tolist() == claims.home.tolist()
        together = judge_all(
            paired_changes(effects),
            draws_at(effects, None, 1, quantity="margin")[0],
            matrix,
            quantity="margin",
            seed=run,
        )
        assert together.p_draws == pytest.approx(claims.p_all)
        away = matrix[matrix["family"] == "away"]
        said = {(names[i], names[j]) for i, j in np.argwhere(claims.away)}
        found = away[away["significant"]]
        assert set(zip(found["ablated"], found["relation"], strict=True)) <= said


def test_dealt_sets_are_judged_as_the_matrix_judges_them():
    pool = drawn.reference_pool()
    for run in range(2):
        dealt = drawn._dealt(pool, run, 7)
        dealt.shift[:] = 0.0  # the table below has changes of prompts alone
        lost = np.unique(pool.facts[pool.home == run])[::2]
        dealt.changes[run, 0, np.isin(pool.facts, lost)] = -1.0
        found = drawn.judge_dealt(pool, dealt, run, whole=True)
        effects = drawn.effects_table(dealt.changes, pool.names, pool.home)
        effects["fact"] = np.char.partition(pool.facts, "/")[effects["prompt_id"], 2]

        def judge(home_draws, effects=effects, run=run):
            return rn.interference_matrix(effects, home_draws, quantity="margin", seed=run)

        def draw(name, numbers, more=dealt.more):
            values = more(pool.names.index(name), numbers.stop - drawn.DRAWS)
            values = values[numbers.start - drawn.DRAWS :]
            return drawn.home_table(name, numbers, values, pool.names, pool.home)

        matrix, home_draws = drawn.drawn_until_clear(judge, draw)
        shared = ["ablated", "relation", "mean_difference", "p_sign_flip", "draws", "inflation"]
        shared += ["p_draws", "p_value", "q_value", "least_p", "draws_needed", "significant"]
        pd.testing.assert_frame_equal(
            matrix[shared].sort_values(["ablated", "relation"]).reset_index(drop=True),
            found.cells[shared].sort_values(["ablated", "relation"]).reset_index(drop=True),
        )
        assert len(home_draws) == found.rows


def test_draws_go_on_as_the_plan_lets_them():
    source, prompts, recall, table = calibration.measured("planted", 0, 0)
    ranking = rn.rank_neurons(table, recall)
    dose, draws = calibration.DOSE, calibration.DRAWS
    options = make_options(doses=(dose,), draws=draws, judged_draws=draws, layer_draws=0, checks=())
    planned = AblationPlan(Plan(options, len(ranking.neurons)), ranking, dose)
    effects, home_draws, matrix = calibration.judge(source, prompts, ranking, 0)
    expected = ablate_sets(source.model, prompts.held_out, ranking, planned.effects)
    kept = ["ablated", "kind", "draw", "prompt_id"]
    pd.testing.assert_frame_equal(
        effects.sort_values(kept, ignore_index=True), expected.sort_values(kept, ignore_index=True)
    )
    first = planned.next_home_draws(effects, None)
    assert len(home_draws) and first
    for one in first:
        at = (home_draws["ablated"] == one.ablated) & (home_draws["draw"] == one.draw)
        assert at.any()
    assert planned.next_home_draws(effects, home_draws) == []
    assert (matrix.loc[matrix["family"] == "home", "draws_needed"] == 0).all()


@pytest.mark.parametrize("relations", [2, 4, 8])
def test_random_sets_of_the_reference_run_dealt_anew_claim_in_at_most_5_of_100_runs(relations):
    found = pd.DataFrame(drawn.dealt_runs(300, relations))
    assert len(found) == 300 and found["any cell"].mean() <= 0.05
    assert found["over all relations"].mean() <= beyond(0.05, 300)


@pytest.mark.parametrize("tail", drawn.TAILS)
def test_harm_at_home_makes_no_claims_elsewhere(tail):
    found = pd.DataFrame(drawn.tail_runs(tail, 8, 59, 100, False, True))
    assert found["any cell away"].mean() <= beyond(0.05, 100)


@pytest.mark.parametrize("tail", drawn.TAILS)
@pytest.mark.parametrize(("relations", "draws"), drawn.TAIL_SIZES)
def test_no_tail_of_random_sets_makes_a_claim_in_more_than_5_of_100_runs(tail, relations, draws):
    found = pd.DataFrame(drawn.tail_runs(tail, relations, draws, RUNS))
    assert len(found) == RUNS and found["any cell"].mean() <= beyond(0.05, RUNS)
    assert found["over all relations"].mean() <= beyond(0.05, RUNS)


def test_the_t_test_claims_in_more_than_that():
    """What the rank is for: with one set in 80 that breaks half of the facts, and with other skewed tails."""
    for tail in list(drawn.TAILS)[2:]:
        found = pd.DataFrame(drawn.tail_runs(tail, 8, drawn.DRAWS, RUNS // 4))
        assert found["any cell by t-test"].mean() > 0.2


def test_without_draws_at_home_no_cell_is_claimed():
    for tail in drawn.TAILS:
        found = pd.DataFrame(drawn.tail_runs(tail, 8, drawn.DRAWS, RUNS // 4, False))
        assert not found["any cell"].any()


def test_half_of_a_relations_facts_are_found_in_8_of_10_runs():
    """Of opposites, one random set in twenty breaks half; no rank can find that."""
    found = pd.DataFrame(drawn.harm_runs(48, 0.5, 1))
    calm = found[found["planted"] != "word_opposite"]
    assert len(calm) == 42 and calm["cells"].mean() >= 0.8
    assert found["any other cell"].mean() <= beyond(0.05, len(found))


def test_a_tenth_of_every_relations_facts_is_found_over_all_relations_in_9_of_10_runs():
    found = pd.DataFrame(drawn.harm_runs(30, 0.1, 8))
    assert found["over all relations"].mean() >= 0.9


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.15, 0.2])
def test_p_values_of_sets_that_take_much_of_a_layer_hold_their_level(share, heavy):
    """Nearly so where single neurons do most of what a set does (docs/calibration.md has the shares)."""
    found = drawn.overlap_runs(share, 1000, heavy)
    level, strict = (0.065, 0.01) if heavy else (0.05, 0.005)
    assert found["p to 5%"] <= beyond(level, 1000) and found["p to 0.5%"] <= beyond(strict, 1000)


@pytest.mark.parametrize("share", [0.4, 0.48])
def test_sets_that_take_nearly_half_of_a_layer_have_no_p_value(share):
    found = drawn.overlap_runs(share, 100, False)
    assert found["p to 5%, as ranked"] > 0.1 and np.isnan(found["p to 5%"])


def test_random_sets_have_a_trend_in_at_most_5_of_100_runs():
    found = pd.DataFrame(drawn.trend_runs(100))
    assert found["tested"].all()
    assert found["home"].mean() <= beyond(0.05, 100)
