"""Families: which prompts are the positives and the negatives of each relation under each score.

| score | positives | negatives |
| --- | --- | --- |
| `specific` | known prompts of the relation | prompts of all other relations (the paper's) |
| `background` | known prompts of the relation | neutral prompts |
| `unknown` | prompts of the relation that the model gets wrong | as `specific` |
| `nonsense` | prompts of the relation about nonsense subjects | as `specific` |

A prompt that is neither for a family plays no part in its scores. A family needs `min_known` subjects
among its positives, not prompts: several templates of three subjects are still three.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import pandas as pd
import torch

from relation_neurons.relations import MIN_KNOWN, relation_label

__all__ = ["KNOW_MORE", "SCORES", "known_counts", "left_out_relations", "rank_families"]

KNOW_MORE = (
    'See what the model says instead of the answer (recall["predicted"]). What helps: solved examples in '
    "front (make_prompts(…, shots=3), --shots 3); more facts; more templates, such that the answer must "
    "follow at once; a model that knows more."
)
"""What to do where too few facts are known, in the order in which it is worth trying."""

SCORES = ("specific", "background", "unknown", "nonsense")


def known_counts(recall: pd.DataFrame) -> pd.DataFrame:
    """Counts facts and known facts per relation, language and side.

    A fact counts as known on a side when the model answers at least one of its prompts there.
    """
    facts = recall.groupby(["relation", "language", "side", "subject"], sort=True)["known"].any()
    return facts.groupby(level=[0, 1, 2]).agg(facts="size", known="sum").reset_index()


def left_out_relations(recall: pd.DataFrame, min_known: int = MIN_KNOWN) -> dict[str, str]:
    """Names the relations with too few known facts on a side, with the reason.

    Where the prompts are in several languages, each is named with its own.
    """
    reasons: dict[str, str] = {}
    several = recall["language"].nunique() > 1
    for (relation, language), rows in known_counts(recall).groupby(["relation", "language"]):
        counts = {row.side: (int(row.known), int(row.facts)) for row in rows.itertuples()}
        sides = [(side, *counts.get(side, (0, 0))) for side in ("detection", "held_out")]
        if any(known < min_known for _, known, _ in sides):
            said = " and ".join(f"{known} of {facts} {side}" for side, known, facts in sides)
            name = relation_label(relation, language, several=several)
            reasons[name] = f"knows {said} facts, {min_known} are needed on each side"
    return reasons


def rank_families(
    prompts: pd.DataFrame, recall: pd.DataFrame, min_known: int, left_out: Container[str]
) -> tuple[list[tuple[str, str, str]], torch.Tensor]:
    """Names every (score, relation, language) and which prompts are its positives and negatives.

    A relation that is left out has no ranking; its prompts are negatives of the others like any.
    """
    known = (
        prompts["prompt_id"].map(recall.set_index("prompt_id")["known"]).fillna(False).astype(bool)
    )
    fact, nonsense = prompts["kind"] == "fact", prompts["kind"] == "nonsense"
    background = prompts["kind"] == "background"
    families: list[tuple[str, str, str]] = []
    rows: list[np.ndarray] = []
    pairs = prompts.loc[fact, ["relation", "language"]].drop_duplicates()
    several = recall["language"].nunique() > 1
    for relation, language in pairs.itertuples(index=False):
        if relation_label(relation, language, several=several) in left_out:
            continue
        same = (prompts["relation"] == relation) & (prompts["language"] == language)
        others = fact & (prompts["relation"] != relation) & (prompts["language"] == language)
        for score, positive, negative in (
            ("specific", same & fact & known, others),
            ("background", same & fact & known, background & (prompts["language"] == language)),
            ("unknown", same & fact & ~known, others),
            ("nonsense", same & nonsense, others),
        ):
            subjects = prompts.loc[positive, "subject"].nunique()
            if subjects < min_known or negative.sum() < min_known:
                continue
            families.append((score, relation, language))
            rows.append(np.where(positive, 1, np.where(negative, 0, -1)).astype(np.int8))
    return families, torch.from_numpy(
        np.array(rows, dtype=np.int8).reshape(len(rows), len(prompts))
    )
