"""The rows of the report's tables, from `summary.json` and the tables of a run."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import pandas as pd

from relation_neurons.analysis.effects import within_language
from relation_neurons.analysis.flips import turned_right
from relation_neurons.formatting import number
from relation_neurons.neurons import neuron_name
from relation_neurons.relations.relation import ALL_RELATIONS, relation_label
from relation_neurons.results.results import Results

__all__ = ["FILTERS", "fact_rows", "flip_rows", "home_counts", "neuron_rows", "tables"]

Rows = list[dict[str, Any]]

_VERDICTS = {
    "recall": "recall",
    "question": "the question: a check harms as much",
    "no effect": "no harm beyond the control",
    "open": "open: a check was not run",
}

_MOST_FLIPS = 1_000

_FACT = ["relation", "language", "side", "subject"]

_MOST_ROWS, _MOST, _FEWEST = 800, 50, 10
"""Most rows of the table, and most and fewest neurons of a relation in it."""

Neuron = tuple[int, int]


def tables(results: Results) -> dict[str, Rows]:
    """Returns the rows of every table beside the figures, empty for what was not run.

    Returns:
        specific, cumulativity, joint, collateral, majority, verdicts and null.
    """
    summary = results.summary
    return {
        "specific": sorted(
            summary.get("specificity") or [], key=lambda row: row["ablated"] == ALL_RELATIONS
        ),
        "cumulativity": _cumulativity(summary),
        "joint": _joint(summary),
        "collateral": _collateral(summary),
        "majority": _majority(summary),
        "verdicts": _verdicts(summary),
        "null": summary.get("null") or [],
    }


def _several(summary: dict[str, Any]) -> bool:
    return len(summary["languages"]) > 1


def _cumulativity(summary: dict[str, Any]) -> Rows:
    rows = [row for row in summary.get("cumulativity") or [] if row["where"] == "home"]
    return [row | {"label": _label(row, summary)} for row in rows]


def _joint(summary: dict[str, Any]) -> Rows:
    rows = summary.get("joint") or []
    random = {
        (row["ablated"], row["ablated_language"]): row["difference"]
        for row in rows
        if row["kind"] != "ranked"
    }
    return [
        row
        | {
            "label": _label(row, summary),
            "first": row["block_1"],
            "last": row[f"block_{row['blocks']}"],
            "random": random.get((row["ablated"], row["ablated_language"])),
        }
        for row in rows
        if row["kind"] == "ranked"
    ]


def _label(row: dict[str, Any], summary: dict[str, Any]) -> str:
    return relation_label(row["ablated"], row["ablated_language"], several=_several(summary))


def _collateral(summary: dict[str, Any]) -> Rows:
    rows = summary.get("collateral") or []
    control = {row["dose"]: row for row in rows if row["kind"] == "control_contribution"}
    return [
        row
        | {
            "control_kl": control.get(row["dose"], {}).get("kl"),
            "control_logloss": control.get(row["dose"], {}).get("logloss_change"),
        }
        for row in rows
        if row["kind"] == "ranked"
    ]


def _majority(summary: dict[str, Any]) -> Rows:
    rows = summary.get("majority") or []
    away = [row for row in rows if row["ablated"] != row["relation"] and row["turned_right"]]
    return sorted(away, key=lambda row: -row["turned_right"])[:20]


def _verdicts(summary: dict[str, Any]) -> Rows:
    compared = {(row["relation"], row["against"]): row for row in summary.get("contrasts") or []}
    against = ("control_contribution", "unknown", "nonsense")
    rows = summary.get("recall") or []
    return [
        {
            "relation": row["relation"],
            "words": _VERDICTS[row["verdict"]],
            "differences": [compared.get((row["relation"], name)) for name in against],
        }
        for row in sorted(rows, key=lambda row: row["relation"] == ALL_RELATIONS)
    ]


def _missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _spaced(name: Any) -> str:
    return str(name).replace("_", " ")


def _percent(value: float | None) -> str:
    return "n/a" if _missing(value) else f"{value:.0%}"


def _three(value: float | None) -> str:
    return "n/a" if _missing(value) else number(value, 3)


def _count(value: float | None) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{round(value):,}"


def _p_value(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "n/a"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


FILTERS = {
    "count": _count,
    "p_value": _p_value,
    "percent": _percent,
    "spaced": _spaced,
    "three": _three,
}
"""The template's filters."""


def fact_rows(results: Results, dose: int, contrast: str) -> Rows:
    """Returns a row per fact: the prompts asked, how many were known, and the effect of its own set.

    Returns:
        relation, language, label, side, subject, answer, prompts, known (prompts answered correctly);
        lost and won (prompts that its relation's set turns wrong or right), missing for facts that
        were not judged.
    """
    prompts = results.prompts[results.prompts["kind"] == "fact"]
    asked = prompts.merge(results.recall[["prompt_id", "known"]], on="prompt_id")
    home = _at_home(results, dose, contrast).set_index("prompt_id")
    lost = home["correct_intact"] & ~home["correct"]
    won = ~home["correct_intact"] & home["correct"]
    asked = asked.assign(
        lost=asked["prompt_id"].map(lost).astype("Int64"),
        won=asked["prompt_id"].map(won).astype("Int64"),
    )
    facts = asked.groupby(_FACT, sort=True, observed=True).agg(
        answer=("answer", "first"),
        prompts=("known", "size"),
        known=("known", "sum"),
        lost=("lost", lambda column: column.sum(min_count=1)),
        won=("won", lambda column: column.sum(min_count=1)),
    )
    several = prompts["language"].nunique() > 1
    return [
        row | {"label": relation_label(row["relation"], row["language"], several=several)}
        for row in facts.reset_index().to_dict("records")
    ]


def flip_rows(results: Results, dose: int, contrast: str) -> Rows:
    """Returns the answers that change under a ranked set, those at home first; see `turned_right`.

    At most 1,000 are returned; all are in `summary.json`.
    """
    found = results.summary.get("turned")
    if found is None:
        found = turned_right(
            results.effects,
            results.prompts,
            results.recall,
            dose=dose,
            contrast=contrast,
            relations=results.manifest["relations"],
        ).to_dict("records")
    several = results.prompts["language"].nunique() > 1
    rows = sorted(found, key=lambda row: row["where"] != "home")[:_MOST_FLIPS]
    return [
        row
        | {
            "label": relation_label(row["ablated"], row["ablated_language"], several=several),
            "asked": relation_label(row["relation"], row["language"], several=several),
        }
        for row in rows
    ]


def home_counts(results: Results, dose: int, contrast: str) -> Rows:
    """Counts the prompts that each relation's own set turns wrong and right: label, asked, lost, won."""
    home = _at_home(results, dose, contrast)
    return [
        {
            "label": label,
            "asked": len(rows),
            "lost": int((rows["correct_intact"] & ~rows["correct"]).sum()),
            "won": int((~rows["correct_intact"] & rows["correct"]).sum()),
        }
        for label in results.ranking.labels(contrast).values()
        for rows in [home[home["relation"].astype(str) == label]]
    ]


def _at_home(results: Results, dose: int, contrast: str) -> pd.DataFrame:
    """Returns each judged prompt under its own relation's ranked set."""
    table = within_language(results.effects)
    home = table["relation"].astype(str) == table["ablated"].astype(str)
    ranked = (table["kind"] == "ranked") & (table["score"] == contrast) & (table["dose"] == dose)
    rows = table[home & ranked]
    truth = {name: rows[name].astype(bool) for name in ("correct", "correct_intact")}
    return rows.assign(**truth)


def neuron_rows(results: Results, contrast: str, dose: int) -> Rows:
    """Returns the top neurons of each relation as rows, each with a card.

    Args:
        results: a finished run.
        contrast: the contrast of the rankings listed; a card covers every contrast.
        dose: the size of the top sets in which neurons count as shared.

    Returns:
        Rows of the ranking with label (of the relation), name (of the neuron) and card: contribution,
        mean, found (its places in every kept ranking), shared (the relations, by contrast, that hold it
        among their top `dose`) and sets (the smallest ablated set of each relation that holds it:
        label, dose, effect at home, n prompts).
    """
    frame = results.ranking.frame
    of_contrast = frame[frame["score"] == contrast]
    relations = len(of_contrast[["relation", "language"]].drop_duplicates())
    count = max(_FEWEST, min(_MOST, _MOST_ROWS // max(relations, 1)))
    top = of_contrast[of_contrast["rank"] <= count]
    several = frame["language"].nunique() > 1
    wanted = top[["layer", "neuron"]].drop_duplicates()
    places = _places(frame.merge(wanted, on=["layer", "neuron"]), several)
    typical = results.ranking.neurons.merge(wanted, on=["layer", "neuron"])
    loudness = {(row["layer"], row["neuron"]): row for row in typical.to_dict("records")}
    effects = _home_effects(results, contrast)
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
                    "sets": _sets(found, contrast, effects),
                },
            }
        )
    return rows


def _places(frame: pd.DataFrame, several: bool) -> dict[Neuron, Rows]:
    """Returns each neuron's places in every kept ranking."""
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


def _home_effects(results: Results, contrast: str) -> dict[str, Rows]:
    """Returns the effect at home of each relation's ranked sets, the smallest dose first."""
    rows = within_language(results.effects)
    at_home = rows["relation"].astype(str) == rows["ablated"].astype(str)
    rows = rows[at_home & (rows["kind"] == "ranked") & (rows["score"] == contrast)]
    change = rows["correct"].astype(float) - rows["correct_intact"].astype(float)
    cells = rows.assign(change=change, label=rows["ablated"].astype(str))
    table = cells.groupby(["label", "dose"])["change"].agg(effect="mean", n="size").reset_index()
    curves: dict[str, Rows] = defaultdict(list)
    for row in table.to_dict("records"):
        curves[row["label"]].append(row)
    return curves


def _sets(found: Rows, contrast: str, effects: dict[str, Rows]) -> Rows:
    """Returns the smallest ablated set of each relation that holds a neuron."""
    sets = []
    for place in found:
        if place["score"] == contrast:
            held = (row for row in effects.get(place["label"], []) if row["dose"] >= place["rank"])
            smallest = next(held, None)
            if smallest is not None:
                sets.append(smallest)
    return sets
