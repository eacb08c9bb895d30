"""Families: which prompts are the positives and the negatives of each relation under each contrast.

| contrast | positives | negatives |
| --- | --- | --- |
| `specific` | known prompts of the relation | prompts of all other relations (the paper's) |
| `background` | known prompts of the relation | neutral prompts |
| `unknown` | prompts of the relation that the model gets wrong | as `specific` |
| `nonsense` | prompts of the relation about nonsense subjects | as `specific` |

A prompt that is neither for a family plays no part in its scores. A family needs `min_known` subjects
among its positives, not prompts: several templates of three subjects are still three.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool

from relation_neurons.ranking.known import left_out_relations
from relation_neurons.relations.relation import relation_label

__all__ = ["CONTRASTS", "DetectionTask", "detection_tasks", "rank_families"]

CONTRASTS = ("specific", "background", "unknown", "nonsense")


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
        for contrast, positive, negative in (
            ("specific", same & fact & known, others),
            ("background", same & fact & known, background & (prompts["language"] == language)),
            ("unknown", same & fact & ~known, others),
            ("nonsense", same & nonsense, others),
        ):
            subjects = prompts.loc[positive, "subject"].nunique()
            if subjects < min_known or negative.sum() < min_known:
                continue
            families.append((contrast, relation, language))
            rows.append(np.where(positive, 1, np.where(negative, 0, -1)).astype(np.int8))
    return families, torch.from_numpy(
        np.array(rows, dtype=np.int8).reshape(len(rows), len(prompts))
    )


@dataclass(frozen=True)
class DetectionTask:
    """A relation under one contrast: which prompts are its positives and negatives."""

    contrast: str
    relation: str
    language: str
    positive: Bool[np.ndarray, " prompt"]
    negative: Bool[np.ndarray, " prompt"]


def detection_tasks(
    prompts: pd.DataFrame,
    known: Bool[np.ndarray, " prompt"],
    recall: pd.DataFrame,
    contrasts: Sequence[str],
    min_known: int,
) -> list[DetectionTask]:
    """Lists what `rank_neurons` ranks: relations in a language, with enough known facts."""
    left_out = left_out_relations(recall, min_known)
    several = recall["language"].nunique() > 1
    kind, relations, languages = (
        prompts[c].to_numpy(str) for c in ("kind", "relation", "language")
    )
    fact, families = kind == "fact", []
    pairs = prompts.loc[fact, ["relation", "language"]].drop_duplicates()
    for relation, language in pairs.itertuples(index=False):
        if relation_label(relation, language, several=several) in left_out:
            continue
        here = languages == language
        positive = here & fact & known & (relations == relation)
        negatives = {
            "specific": here & fact & (relations != relation),
            "background": here & (kind == "background"),
        }
        families += [
            DetectionTask(contrast, relation, language, positive, negatives[contrast])
            for contrast in contrasts
            if min(positive.sum(), negatives[contrast].sum()) >= min_known
        ]
    return families
