"""The report's facts: every fact with what the model knows of it, and every answer that changed, by name."""

from __future__ import annotations

from typing import Any

import pandas as pd

from relation_neurons.analysis.effects import within_language
from relation_neurons.analysis.flips import turned_right
from relation_neurons.relations.relation import relation_label
from relation_neurons.results.results import Results

__all__ = ["fact_rows", "flip_rows", "home_counts"]

_MOST_FLIPS = 1_000
_FACT = ["relation", "language", "side", "subject"]

Rows = list[dict[str, Any]]


def fact_rows(results: Results, dose: int, score: str) -> Rows:
    """Gives a row per fact: what was asked, how often it was known, and what its own set does to it.

    Returns:
        relation, language, label, side, subject, answer, prompts, known (prompts answered correctly);
        lost and won (prompts that its relation's set turns wrong or right), missing for facts that
        were not judged.
    """
    prompts = results.prompts[results.prompts["kind"] == "fact"]
    asked = prompts.merge(results.recall[["prompt_id", "known"]], on="prompt_id")
    home = _at_home(results, dose, score).set_index("prompt_id")
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


def flip_rows(results: Results, dose: int, score: str) -> Rows:
    """Gives the answers that change under a ranked set, those at home first; see `turned_right`.

    At most 1,000: further ones stand in `summary.json`.
    """
    found = results.summary.get("turned")
    if found is None:
        found = turned_right(
            results.effects,
            results.prompts,
            results.recall,
            dose=dose,
            score=score,
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


def home_counts(results: Results, dose: int, score: str) -> Rows:
    """Counts what each relation's own set turns wrong and right: label, asked, lost, won."""
    home = _at_home(results, dose, score)
    return [
        {
            "label": label,
            "asked": len(rows),
            "lost": int((rows["correct_intact"] & ~rows["correct"]).sum()),
            "won": int((~rows["correct_intact"] & rows["correct"]).sum()),
        }
        for label in results.ranking.labels(score).values()
        for rows in [home[home["relation"].astype(str) == label]]
    ]


def _at_home(results: Results, dose: int, score: str) -> pd.DataFrame:
    """Each judged prompt under its own relation's ranked set."""
    table = within_language(results.effects)
    home = table["relation"].astype(str) == table["ablated"].astype(str)
    ranked = (table["kind"] == "ranked") & (table["score"] == score) & (table["dose"] == dose)
    rows = table[home & ranked]
    truth = {name: rows[name].astype(bool) for name in ("correct", "correct_intact")}
    return rows.assign(**truth)
