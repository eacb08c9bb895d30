"""Shared neurons: combinations against brute force, and their figures against the table."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from relation_neurons import plots
from relation_neurons.analysis.versatility import overlap_matrix, set_intersections
from relation_neurons.errors import DoseError, RelationFormatError, UnknownOptionError
from relation_neurons.neurons import neuron_name
from relation_neurons.ranking.table import Ranking

LAYERS, WIDTH, DOSE = 3, 20, 12
EVIL = "<script>x</script>"


def make_ranking(names=("a", "b", "c", "d"), *, language=("en",), seed=0) -> Ranking:
    rng = np.random.default_rng(seed)
    rows = []
    for name in names:
        for code in language:
            chosen = rng.permutation(LAYERS * WIDTH)[:DOSE]
            for rank, neuron in enumerate(chosen, 1):
                rows.append(("background", name, code, rank, neuron // WIDTH, neuron % WIDTH))
    columns = ["score", "relation", "language", "rank", "layer", "neuron"]
    neurons = pd.DataFrame(
        {"layer": np.repeat(range(LAYERS), WIDTH), "neuron": np.tile(range(WIDTH), LAYERS)}
    )
    return Ranking(pd.DataFrame(rows, columns=columns), neurons)


def sets_of(ranking: Ranking) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for pair, name in ranking.labels("background").items():
        top = ranking.top(pair[0], DOSE, contrast="background", language=pair[1])
        found[name] = {neuron_name(r.layer, r.neuron) for r in top.itertuples()}
    return found


@pytest.mark.parametrize("language", [("en",), ("en", "de")])
def test_combinations_are_those_of_brute_force(language) -> None:
    ranking = make_ranking(language=language)
    sets = sets_of(ranking)
    expected = {}
    for degree in range(2, len(sets) + 1):
        for chosen in combinations(sets, degree):
            inside = set.intersection(*(sets[name] for name in chosen))
            outside = set().union(*(sets[name] for name in sets if name not in chosen))
            if inside - outside:
                expected[frozenset(chosen)] = inside - outside
    table = set_intersections(ranking, dose=DOSE)
    found = {frozenset(r.relations): set(r.names) for r in table.itertuples()}
    assert found == expected and len(expected) > 3
    assert (table["shared"] == table["names"].map(len)).all()
    assert table["shared"].is_monotonic_decreasing


def test_nothing_shared_is_an_empty_table_and_what_is_not_there_is_named() -> None:
    alone = set_intersections(make_ranking(("a",)), dose=DOSE)
    assert alone.empty and "relations" in alone
    with pytest.raises(RelationFormatError, match="no row"):
        plots.intersections(alone)
    with pytest.raises(UnknownOptionError, match="'specific'"):
        set_intersections(make_ranking(), dose=DOSE, contrast="specific")
    with pytest.raises(DoseError):
        set_intersections(make_ranking(), dose=DOSE + 1)


def test_the_upset_plot_marks_the_relations_of_each_bar() -> None:
    table = set_intersections(make_ranking((EVIL, "b", "c", "d")), dose=DOSE)
    fig = plots.intersections(table, most=3)
    bars, _, marks, _ = fig.data
    assert list(bars.y) == table["shared"].head(3).tolist()
    rows = fig.layout.yaxis2.ticktext
    for column, relations in enumerate(table["relations"].head(3)):
        marked = {rows[y] for x, y in zip(marks.x, marks.y, strict=True) if x == column}
        assert marked == {
            name.replace(EVIL, "&lt;script&gt;x&lt;/script&gt;") for name in relations
        }
    assert f"3 largest of {len(table)}" in fig.layout.title.subtitle.text
    assert "and of no other relation" in bars.hovertext[0] and "<script" not in fig.to_json()
    with pytest.raises(RelationFormatError, match="'degree'"):
        plots.intersections(table.drop(columns="degree"))


def test_clustering_puts_relations_that_share_next_to_each_other() -> None:
    ranking = make_ranking(("a", "b", "c", "d"))
    frame = ranking.frame
    same = frame["relation"].isin(["a", "d"])
    frame.loc[same & (frame["relation"] == "d"), ["layer", "neuron"]] = frame.loc[
        frame["relation"] == "a", ["layer", "neuron"]
    ].to_numpy()
    matrix = overlap_matrix(ranking, dose=DOSE)
    given = plots.overlap(matrix)
    fig = plots.overlap(matrix, order="clustered", value="jaccard")
    names = list(fig.layout.yaxis.ticktext)
    assert list(given.layout.yaxis.ticktext) == ["a", "b", "c", "d"]
    assert sorted(names) == ["a", "b", "c", "d"] == sorted(fig.layout.xaxis.ticktext)
    assert abs(names.index("a") - names.index("d")) == 1
    assert fig.data[0].z[names.index("a")][names.index("d")] == 1.0
    with pytest.raises(UnknownOptionError, match=r"'cluster'.*clustered"):
        plots.overlap(matrix, order="cluster")


def test_clustering_takes_few_relations() -> None:
    for names in (("a",), ("a", "b")):
        assert plots.overlap(overlap_matrix(make_ranking(names), dose=DOSE), order="clustered")
