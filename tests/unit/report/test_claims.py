"""What may be claimed: recall only where known facts beat both checks, and a dose only within a budget."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers.fake_results import make_results
from relation_neurons.ablation.sets import largest_matched, plan_sweep
from relation_neurons.analysis.contrasts import contrasts
from relation_neurons.analysis.interference import interference_matrix
from relation_neurons.ranking.table import Ranking
from relation_neurons.report.summary import collateral_at, recall_shown


def compared(control=(-0.3, 0.001), unknown=(-0.2, 0.01), nonsense=(-0.2, 0.01)) -> pd.DataFrame:
    rows = []
    for against, told in (
        ("control_contribution", control),
        ("unknown", unknown),
        ("nonsense", nonsense),
    ):
        if told is not None:
            p = "p_value" if against == "control_contribution" else "p_sign_flip"
            row = {"relation": "r", "against": against, "difference": told[0]}
            rows.append(row | {"p_sign_flip": 0.0001, "p_value": float("nan")} | {p: told[1]})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "recall"),
        ({"unknown": (-0.01, 0.6)}, "question"),
        ({"nonsense": (0.2, 0.001)}, "question"),
        ({"nonsense": None}, "open"),
        ({"unknown": (-0.01, 0.6), "nonsense": None}, "question"),
        ({"control": (-0.3, 0.2)}, "no effect"),
        ({"control": (0.3, 0.001)}, "no effect"),
        ({"control": (-0.3, float("nan"))}, "no effect"),
        ({"control": None}, "open"),
    ],
)
def test_pitfall_25_recall_is_said_only_where_known_facts_beat_both_checks(changes, verdict):
    assert recall_shown(compared(**changes), "r") == verdict


def test_contrasts_in_several_languages_rest_on_the_matrix_of_these():
    """A relation is named with its language once, so its draws are found."""
    one = make_results().effects
    columns = ["language", "ablated_language"]
    two = one.assign(prompt_id=one["prompt_id"] + 10_000, **dict.fromkeys(columns, "de"))
    effects = pd.concat([one.assign(**dict.fromkeys(columns, "en")), two], ignore_index=True)
    dose = int(effects["dose"].max())
    anew = contrasts(effects, dose=dose)
    given = contrasts(effects, dose=dose, matrix=interference_matrix(effects, dose=dose))
    pd.testing.assert_frame_equal(anew, given)
    control = anew[anew["against"] == "control_contribution"]
    assert control["relation"].str.endswith(" (de)").any() and control["p_draws"].notna().all()


def test_collateral_damage_is_averaged_over_relations_with_the_worst_named():
    table = pd.DataFrame(
        {
            "ablated": ["a", "b", "a", "b"],
            "kind": ["ranked"] * 2 + ["control_contribution"] * 2,
            "dose": 10,
            "tokens": 500,
            "kl": [0.1, 0.3, 0.0, 0.02],
            "logloss_change": [0.0, 0.1, 0.0, 0.0],
        }
    )
    found = collateral_at(table).set_index("kind")
    assert found.loc["ranked", "kl"] == pytest.approx(0.2)
    assert found.loc["ranked", "worst"] == "b" and found.loc["ranked", "worst_kl"] == 0.3
    assert found.loc["control_contribution", "kl"] == pytest.approx(0.01)


def crowded_ranking() -> Ranking:
    """Eight neurons in each of two layers; the first five ranked all lie in layer 0."""
    neurons = pd.DataFrame(
        {
            "layer": [0] * 8 + [1] * 8,
            "neuron": [*range(8)] * 2,
            "mean": 0.0,
            "contribution": [1.0 + i for i in range(16)],
            "is_sink": False,
        }
    )
    frame = pd.DataFrame(
        {
            "score": "specific",
            "relation": "r",
            "language": "en",
            "rank": range(1, 7),
            "layer": [0, 0, 0, 0, 0, 1],
            "neuron": [0, 1, 2, 3, 4, 0],
            "ap": 1.0,
            "d_prime": 1.0,
            "is_sink": False,
        }
    )
    return Ranking(frame, neurons)


def test_a_layer_that_is_more_than_half_ranked_has_no_control_and_stops_nothing():
    ranking = crowded_ranking()
    assert largest_matched(ranking.frame, 8) == 4
    planned = plan_sweep(ranking, (2, 4, 6), control_draws=3)
    told = {(c.kind, c.dose) for c in planned}
    assert ("ranked", 6) in told and ("control_contribution", 6) not in told
    assert {dose for kind, dose in told if kind == "control_layer"} == {2, 4}
    draws = [c for c in planned if c.kind == "control_layer" and c.draw == 1]
    small, large = (set(map(tuple, c.neurons.to_numpy())) for c in draws)
    assert len(small) == 2 and len(large) == 4


def test_draws_can_differ_by_kind_and_be_more_at_one_dose():
    planned = plan_sweep(
        crowded_ranking(),
        (2, 4),
        control_draws={"control_contribution": 1, "control_layer": 2},
        draws_at={4: 3},
    )
    count = pd.Series([(c.kind, c.dose) for c in planned]).value_counts()
    assert count[("control_contribution", 2)] == 1 and count[("control_contribution", 4)] == 3
    assert count[("control_layer", 2)] == count[("control_layer", 4)] == 2
