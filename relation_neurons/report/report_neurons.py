"""The report's neurons: the top of each ranking, each with a card of what the run's tables say of it.

A card here needs no model: where the neuron ranks and how well it detects (`ranking.parquet`), how
loud it is (`neurons.parquet`), and what the smallest ablated set that holds it does. One neuron alone
was not ablated by a run; `neuron_card` does that, with the model at hand.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pandas as pd

from relation_neurons.analysis.effects import within_language
from relation_neurons.neurons import neuron_name
from relation_neurons.relations.relation import relation_label
from relation_neurons.results.results import Results

__all__ = ["neuron_rows"]

_MOST_ROWS, _MOST, _FEWEST = 800, 50, 10
"""Rows of the table at most, and neurons of a relation at most and at least."""

Rows = list[dict[str, Any]]
Neuron = tuple[int, int]


def neuron_rows(results: Results, score: str, dose: int) -> Rows:
    """Gives the top neurons of each relation, as rows with a card each.

    Args:
        results: a finished run.
        score: whose rankings are listed; a card tells of every score.
        dose: neurons of a set that count as shared.

    Returns:
        Rows of the ranking with label (of the relation), name (of the neuron) and card: contribution,
        mean, found (its places in every kept ranking), shared (the relations, by score, that hold it
        among their top `dose`) and sets (the smallest ablated set of each relation that holds it:
        label, dose, effect at home, n prompts).
    """
    frame = results.ranking.frame
    of_score = frame[frame["score"] == score]
    relations = len(of_score[["relation", "language"]].drop_duplicates())
    count = max(_FEWEST, min(_MOST, _MOST_ROWS // max(relations, 1)))
    top = of_score[of_score["rank"] <= count]
    several = frame["language"].nunique() > 1
    wanted = top[["layer", "neuron"]].drop_duplicates()
    places = _places(frame.merge(wanted, on=["layer", "neuron"]), several)
    typical = results.ranking.neurons.merge(wanted, on=["layer", "neuron"])
    loudness = {(row["layer"], row["neuron"]): row for row in typical.to_dict("records")}
    effects = _home_effects(results, score)
    rows: Rows = []
    for row in top.to_dict("records"):
        neuron = (row["layer"], row["neuron"])
        found = places[neuron]
        rows.append(
            row
            | {
                "name": neuron_name(*neuron),
                "label": relation_label(row["relation"], row["language"], several=several),
                "card": {
                    "contribution": loudness[neuron].get("contribution"),
                    "mean": loudness[neuron].get("mean"),
                    "found": found,
                    "shared": _shared(found, dose),
                    "sets": _sets(found, score, effects),
                },
            }
        )
    return rows


def _places(frame: pd.DataFrame, several: bool) -> dict[Neuron, Rows]:
    """Where each neuron stands, in every kept ranking."""
    found: dict[Neuron, Rows] = defaultdict(list)
    for row in frame.sort_values(["score", "rank"], kind="stable").to_dict("records"):
        label = relation_label(row["relation"], row["language"], several=several)
        found[row["layer"], row["neuron"]].append(row | {"label": label})
    return found


def _shared(found: Rows, dose: int) -> dict[str, list[str]]:
    held: dict[str, list[str]] = defaultdict(list)
    for place in found:
        if place["rank"] <= dose:
            held[place["score"]].append(place["label"])
    return dict(held)


def _home_effects(results: Results, score: str) -> dict[str, Rows]:
    """The effect at home of each relation's ranked sets, the smallest dose first."""
    rows = within_language(results.effects)
    at_home = rows["relation"].astype(str) == rows["ablated"].astype(str)
    rows = rows[at_home & (rows["kind"] == "ranked") & (rows["score"] == score)]
    change = rows["correct"].astype(float) - rows["correct_intact"].astype(float)
    cells = rows.assign(change=change, label=rows["ablated"].astype(str))
    table = cells.groupby(["label", "dose"])["change"].agg(effect="mean", n="size").reset_index()
    curves: dict[str, Rows] = defaultdict(list)
    for row in table.to_dict("records"):
        curves[row["label"]].append(row)
    return curves


def _sets(found: Rows, score: str, effects: dict[str, Rows]) -> Rows:
    """The smallest ablated set of each relation that holds a neuron."""
    sets = []
    for place in found:
        if place["score"] == score:
            held = (row for row in effects.get(place["label"], []) if row["dose"] >= place["rank"])
            smallest = next(held, None)
            if smallest is not None:
                sets.append(smallest)
    return sets
