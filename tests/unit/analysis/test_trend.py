"""The trend over doses, read against random sets of the same doses."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

import relation_neurons as rn
from relation_neurons.analysis.trend import trends

DOSES = (10, 100, 1000)


def swept(slopes, *, draws=19, doses=DOSES, relations=("a", "b"), seed=0, noise=0.02):
    """A sweep in which the ranked set of each relation has one slope at home, and each draw another."""
    rng = np.random.default_rng(seed)
    rows = []
    for ablated, relation in product(relations, relations):
        for kind, count in (("ranked", 1), ("control_contribution", draws)):
            for draw in range(count):
                home = kind == "ranked" and ablated == relation
                slope = slopes[ablated] if home else rng.normal(-0.1, noise)
                for dose, fact in product(doses, range(8)):
                    number = relations.index(relation) * 8 + fact
                    rows.append(
                        (
                            ablated,
                            relation,
                            kind,
                            draw,
                            dose,
                            str(fact),
                            number,
                            slope * np.log(dose),
                        )
                    )
    columns = ["ablated", "relation", "kind", "draw", "dose", "fact", "prompt_id", "margin"]
    return pd.DataFrame(rows, columns=columns).assign(
        ablated_language="en",
        language="en",
        score="specific",
        template_held_out=True,
        margin_intact=0.0,
        correct_intact=True,
        correct=True,
    )


def found(effects, **options):
    table = trends(effects, quantity="margin", **options)
    return table.set_index(["ablated", "where"])


def test_the_slope_is_that_of_least_squares_over_log_dose():
    effects = swept({"a": -0.5, "b": -0.1})
    table = found(effects)
    assert table.loc[("a", "home"), "slope"] == pytest.approx(-0.5)
    home = effects[(effects["ablated"] == "a") & (effects["relation"] == "a")]
    drawn = home[home["kind"] != "ranked"]
    slopes = [
        np.polyfit(np.log(part["dose"]), part["margin"], 1)[0] for _, part in drawn.groupby("draw")
    ]
    assert table.loc[("a", "home"), "control_slope"] == pytest.approx(np.mean(slopes))
    assert (table["trend_draws"] == 19).all()


def test_harm_that_grows_as_it_does_under_random_sets_is_no_trend():
    """Against no change at all, the trend of every random set here would be significant."""
    table = found(swept({"a": -0.5, "b": -0.1}))
    assert table.loc[("a", "home"), "p_trend"] == pytest.approx(1 / 20)
    assert table.loc[("b", "home"), "p_trend"] > 0.05
    away = table.xs("elsewhere", level="where")
    assert (away["p_trend"] > 0.05).all()


def test_over_all_relations_fewer_draws_suffice():
    few = found(swept({"a": -0.5, "b": -0.5}, draws=4))
    assert np.isnan(few.loc[("a", "home"), "p_trend"]), "four draws reach 0.2"
    assert few.loc[("all relations", "home"), "p_trend"] == pytest.approx(1 / 25)
    none = found(swept({"a": -0.5, "b": -0.5}, draws=1))
    assert np.isnan(none.loc[("all relations", "home"), "p_trend"])


def test_it_needs_three_doses_with_a_control():
    effects = swept({"a": -0.5, "b": -0.5})
    assert found(effects[effects["dose"] < 1000])["p_trend"].isna().all()
    bare = (effects["dose"] == 1000) & (effects["kind"] != "ranked")
    table = found(effects[~bare])
    assert table["p_trend"].isna().all() and table["slope"].isna().all()
    four = swept({"a": -0.5, "b": -0.5}, doses=(1, *DOSES))
    bare = (four["dose"] == 1000) & (four["kind"] != "ranked")
    assert found(four[~bare]).loc[("a", "home"), "p_trend"] == pytest.approx(1 / 20)


def test_draws_that_resemble_one_another_show_no_trend():
    effects = swept({"a": -0.5, "b": -0.5}).assign(draw_overlap=0.5)
    assert found(effects)["p_trend"].isna().all()


def test_the_numbers_of_a_curve_hold_it():
    effects = swept({"a": -0.5, "b": -0.1})
    table = rn.dose_numbers(effects, quantity="margin").set_index(["ablated", "where"])
    expected = found(effects).loc[table.index]
    columns = ["slope", "control_slope", "trend_draws", "p_trend"]
    pd.testing.assert_frame_equal(table[columns], expected[columns])
