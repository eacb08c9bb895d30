"""The plan of a run: what its options imply, and that each set is drawn once."""

from __future__ import annotations

import pandas as pd
import pytest

from relation_neurons.errors import DoseError
from relation_neurons.ranking.table import Ranking
from relation_neurons.results.options import make_options
from relation_neurons.results.plan import Plan, next_draws

NEURONS = 400


def make_ranking(depth: int = 40, contrasts: tuple[str, ...] = ("specific", "unknown")) -> Ranking:
    """Two relations in four layers of 100 neurons, ranked layer after layer."""
    neurons = pd.DataFrame({"layer": [i // 100 for i in range(NEURONS)]})
    neurons = neurons.assign(neuron=[i % 100 for i in range(NEURONS)], contribution=1.0)
    parts = [
        pd.DataFrame({"rank": range(1, depth + 1)}).assign(
            score=contrast,
            relation=relation,
            language="en",
            layer=[rank % 4 for rank in range(depth)],
            neuron=[start + rank for rank in range(depth)],
        )
        for contrast in contrasts
        for relation, start in (("a", 0), ("b", 50))
    ]
    return Ranking(pd.concat(parts, ignore_index=True), neurons)


def test_doses_are_resolved_for_the_model_and_the_middle_one_is_judged():
    plan = Plan(make_options(doses=("1%", 10, "5%")), NEURONS)
    assert plan.doses == (4, 10, 20) and plan.middle_dose == 10
    assert plan.judged_dose(pd.DataFrame()) == 10
    assert plan.kept == NEURONS, "no more than there are"
    with pytest.raises(DoseError, match="this model has 400"):
        Plan(make_options(doses=(4, 500)), NEURONS)


def test_dealt_sets_are_deep_enough_for_every_dose_and_for_the_default_one():
    assert Plan(make_options(doses=(4, 10)), NEURONS).dealt == 100
    assert Plan(make_options(doses=(4, 300)), NEURONS).dealt == 300
    assert Plan(make_options(doses=(4, 8)), 50).dealt == 50


def test_a_budget_for_collateral_damage_chooses_the_judged_dose():
    plan = Plan(make_options(doses=(4, 10, 20), max_collateral=0.1), NEURONS)
    damage = pd.DataFrame({"kind": "ranked", "dose": [4, 10, 20], "kl": [0.01, 0.02, 0.05]})
    assert plan.judged_dose(damage) == 20
    assert plan.ablations(make_ranking(), damage).dose == 20


def test_the_sweep_has_more_draws_at_the_judged_dose_and_checks_only_there():
    options = make_options(
        doses=(4, 8), draws=1, judged_draws=3, layer_draws=1, checks=("unknown", "nonsense")
    )
    planned = Plan(options, NEURONS).ablations(make_ranking(), pd.DataFrame())
    counted: dict[tuple[str, str, int], int] = {}
    for one in planned.effects:
        key = (one.contrast, one.kind, one.dose)
        counted[key] = counted.get(key, 0) + 1
    assert counted == {
        ("specific", "ranked", 4): 2,
        ("specific", "control_contribution", 4): 2,
        ("specific", "control_layer", 4): 2,
        ("specific", "ranked", 8): 2,
        ("specific", "control_contribution", 8): 6,
        ("specific", "control_layer", 8): 2,
        ("unknown", "ranked", 8): 2,
    }
    assert planned.sweep is planned.sweep, "drawn once"


@pytest.mark.parametrize(("blocks", "depth", "count"), [(4, 40, 4), (4, 20, 2), (4, 15, 0), (1, 40, 0)])
def test_blocks_are_as_many_as_the_ranking_holds_and_two_at_least(blocks, depth, count):
    options = make_options(doses=(4, 8, 10), blocks=blocks, draws=2)
    planned = Plan(options, NEURONS).ablations(make_ranking(depth), pd.DataFrame())
    assert planned.block_count == count
    assert len(planned.joint_blocks) == (4 if count else 0)


def test_only_average_precision_has_nulls_and_a_stability():
    assert Plan(make_options(), 100_000).evidence == ("null", "stability", "overlap")
    assert Plan(make_options(repeats=0, overlap_deals=0), 100_000).evidence == ("null",)
    assert Plan(make_options(by="auroc"), 100_000).evidence == ()


def test_draws_go_on_where_relations_together_could_be_significant_and_not_where_they_cannot():
    home = pd.DataFrame({"draws": 200, "draws_needed": 1300, "inflation": 1.0}, index=range(60))
    home["p_value"] = home["p_sign_flip"] = 0.5
    home.loc[:0, "p_sign_flip"] = 0.01
    home["draws_needed"] = home["draws_needed"].where(home["p_sign_flip"] < 0.05, 0)
    assert next_draws(home) == [0] * 60, "for one of sixty it takes 1,199"
    home.loc[:3, ["p_sign_flip", "draws_needed"]] = [0.01, 1300]
    assert next_draws(home) == [100] * 4 + [0] * 56
    assert next_draws(home, most=250) == [50] * 4 + [0] * 56
    home["draws"] = 999
    assert next_draws(home) == [0] * 60
