"""Overlap beside its null: counted by hand from the deals, and NaN with a reason where there are none."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from relation_neurons import plots
from relation_neurons.analysis.dealt_overlap import NO_DEALS
from relation_neurons.analysis.versatility import (
    overlap_matrix,
    overlap_total,
    set_intersections,
)
from relation_neurons.ranking.table import Ranking

LAYERS, WIDTH, DEPTH, DEALS = 3, 20, 12, 25
SETS = [(name, language) for name in ("a", "b", "c") for language in ("en", "de")]
NEURONS = pd.DataFrame(
    {"layer": np.repeat(range(LAYERS), WIDTH), "neuron": np.tile(range(WIDTH), LAYERS)}
)


def ranked(rng, sets=SETS) -> pd.DataFrame:
    """Top sets that lean to the first neurons, so that they share some."""
    rows = []
    for name, language in sets:
        chosen = rng.permutation(LAYERS * WIDTH)
        chosen = chosen[np.argsort(chosen + rng.normal(0, 15, len(chosen)))][:DEPTH]
        rows += [
            (name, language, int(n // WIDTH), int(n % WIDTH), rank)
            for rank, n in enumerate(chosen, 1)
        ]
    columns = ["relation", "language", "layer", "neuron", "rank"]
    return pd.DataFrame(rows, columns=columns).assign(score="background")


@pytest.fixture(scope="module")
def whole():
    """Every top set of every deal."""
    frames = [
        ranked(np.random.default_rng([deal, 1])).assign(deal=deal) for deal in range(1, DEALS + 1)
    ]
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def null(whole):
    """What `overlap_null` keeps of them."""
    often = whole.groupby(["deal", "layer", "neuron"])["rank"].transform("size") > 1
    return whole[often | (whole["rank"] == DEPTH)].reset_index(drop=True)


@pytest.fixture(scope="module")
def ranking():
    return Ranking(ranked(np.random.default_rng(0)), NEURONS)


def sets_at(frame, dose) -> dict[tuple[str, str], set[tuple[int, int]]]:
    top = frame[frame["rank"] <= dose]
    return {
        pair: set(
            top[(top["relation"] == pair[0]) & (top["language"] == pair[1])][
                ["layer", "neuron"]
            ].itertuples(index=False, name=None)
        )
        for pair in SETS
    }


@pytest.mark.parametrize("dose", [3, 7, DEPTH])
def test_a_pair_is_compared_with_what_it_shares_in_each_deal(ranking, whole, null, dose):
    cells = overlap_matrix(ranking, dose=dose, null=null)
    cells = cells.set_index(["relation", "language", "other", "other_language"])
    here = sets_at(ranking.frame, dose)
    dealt = [sets_at(part, dose) for _, part in whole.groupby("deal")]
    for one, other in combinations(SETS, 2):
        shared = len(here[one] & here[other])
        found = np.array([len(sets[one] & sets[other]) for sets in dealt])
        for row in (cells.loc[(*one, *other)], cells.loc[(*other, *one)]):
            assert row["shared"] == shared and row["expected"] == pytest.approx(found.mean())
            assert row["p_value"] == (1 + (found >= shared).sum()) / (1 + DEALS)
            assert row["ratio"] == pytest.approx(shared / found.mean(), nan_ok=True)
            assert row["jaccard"] == shared / len(here[one] | here[other])
    pairs = [cells.loc[(*one, *other)] for one, other in combinations(SETS, 2)]
    q = stats.false_discovery_control([row["p_value"] for row in pairs])
    assert [row["q_value"] for row in pairs] == pytest.approx(q.tolist())
    own = cells.loc[("a", "en", "a", "en")]
    assert own["shared"] == dose and own[["expected", "ratio", "p_value", "q_value"]].isna().all()
    assert cells.attrs["deals"] == DEALS and cells.attrs["no_null"] == ""


def test_all_pairs_together_and_each_kind_are_one_test(ranking, whole, null):
    total = overlap_total(ranking, dose=7, null=null).set_index("pairs")
    here = sets_at(ranking.frame, 7)
    dealt = [sets_at(part, 7) for _, part in whole.groupby("deal")]
    kinds = {
        "all": lambda one, other: True,
        "relation": lambda one, other: one[0] != other[0] and one[1] == other[1],
        "language": lambda one, other: one[0] == other[0],
        "both": lambda one, other: one[0] != other[0] and one[1] != other[1],
    }
    assert set(total.index) == set(kinds)
    for kind, belongs in kinds.items():
        pairs = [(one, other) for one, other in combinations(SETS, 2) if belongs(one, other)]
        shared = sum(len(here[one] & here[other]) for one, other in pairs)
        found = np.array(
            [sum(len(sets[one] & sets[other]) for one, other in pairs) for sets in dealt]
        )
        row = total.loc[kind]
        assert (row["n"], row["shared"], row["deals"]) == (len(pairs), shared, DEALS)
        assert row["expected"] == pytest.approx(found.mean())
        assert row["p_value"] == (1 + (found >= shared).sum()) / (1 + DEALS)
    attrs = overlap_matrix(ranking, dose=7, null=null).attrs
    row = total.loc["all"]
    assert [attrs[f"{name}_total"] for name in ("shared", "expected", "p")] == [
        row["shared"],
        row["expected"],
        row["p_value"],
    ]


def test_a_combination_is_compared_with_exactly_that_one_in_each_deal(ranking, whole, null):
    table = set_intersections(ranking, dose=DEPTH, null=null, smallest=1)
    labels = {f"{name} ({language})": (name, language) for name, language in SETS}
    dealt = [sets_at(part, DEPTH) for _, part in whole.groupby("deal")]
    assert (table["degree"] > 2).any()
    for row in table.itertuples():
        named = [labels[name] for name in row.relations]
        if row.degree == 1:
            assert np.isnan(row.expected) and np.isnan(row.p_value)
            continue
        found = np.array(
            [
                len(
                    set.intersection(*(sets[one] for one in named))
                    - set().union(*(sets[one] for one in SETS if one not in named))
                )
                for sets in dealt
            ]
        )
        assert row.expected == pytest.approx(found.mean())
        assert row.p_value == (1 + (found >= row.shared).sum()) / (1 + DEALS)


def test_a_ranking_that_carries_its_deals_needs_no_more(ranking, null):
    carrying = replace(ranking, overlap_null=null)
    for function in (overlap_matrix, overlap_total, set_intersections):
        pd.testing.assert_frame_equal(
            function(carrying, dose=7), function(ranking, dose=7, null=null)
        )


@pytest.mark.parametrize(
    ("change", "dose", "reason"),
    [
        ({}, 7, NO_DEALS),
        ({"null": pd.DataFrame()}, 7, NO_DEALS),
        ({"shallow": True}, DEPTH, r"hold 5 neurons a set, not 12"),
        ({"contrast": "specific"}, 7, "no contrast 'background'"),
        ({"without": "b"}, 7, r"lack b \(en\)"),
        ({"bottom": True}, 7, "top neurons by average precision"),
        ({"by": "auroc"}, 7, "top neurons by average precision"),
    ],
)
def test_without_a_null_there_is_no_chance_and_the_figures_say_why(
    ranking, null, change, dose, reason
):
    given = change.get("null", null if change else None)
    if "shallow" in change:
        given = null[null["rank"] <= 5]
    if "contrast" in change:
        given = null.assign(score="specific")
    if "without" in change:
        given = null[null["relation"] != "b"]
    of = replace(ranking, bottom="bottom" in change, by=change.get("by", ranking.by))
    matrix = overlap_matrix(of, dose=dose, null=given)
    total = overlap_total(of, dose=dose, null=given)
    combined = set_intersections(of, dose=dose, null=given)
    for table in (matrix, total, combined):
        columns = [name for name in ("expected", "ratio", "p_value", "q_value") if name in table]
        assert table[columns].isna().all(axis=None) and (table["shared"] >= 0).all()
        assert pd.Series([table.attrs["no_null"]]).str.contains(reason).all()
        assert table.attrs["deals"] == 0
    assert np.isnan(matrix.attrs["p_total"])
    for figure in (plots.overlap(matrix), plots.overlap(matrix, value="ratio")):
        assert "<b>No null</b>: " in figure.layout.title.subtitle.text
        assert "(no null)" in figure.data[0].hovertext[0][1]
    figure = plots.intersections(combined)
    assert "<b>No null</b>: " in figure.layout.title.subtitle.text


def test_where_chance_shares_nothing_there_is_no_ratio(ranking, null):
    apart = null[null["rank"] == DEPTH]  # no set of a deal shares anything
    apart = apart.assign(neuron=range(len(apart)))
    matrix = overlap_matrix(ranking, dose=DEPTH, null=apart)
    pairs = matrix[matrix["relation"] != matrix["other"]]
    assert (pairs["expected"] == 0).all() and pairs["ratio"].isna().all()
    least = pairs["p_value"] == 1 / (1 + DEALS)
    assert (least == (pairs["shared"] > 0)).all() and least.any()
    assert plots.overlap(matrix, value="ratio")


def test_one_set_alone_has_nothing_to_compare():
    alone = Ranking(ranked(np.random.default_rng(0), SETS[:1]), NEURONS)
    assert overlap_total(alone, dose=7).empty
    matrix = overlap_matrix(alone, dose=7)
    assert len(matrix) == 1 and np.isnan(matrix.attrs["shared_total"])
    assert plots.overlap(matrix)
