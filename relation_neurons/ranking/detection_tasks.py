"""Detection tasks: which prompts are the positives and negatives of a relation under a contrast.

| contrast | positives | negatives |
| --- | --- | --- |
| `specific` | known prompts of the relation | prompts of all other relations (the paper's) |
| `background` | known prompts of the relation | neutral prompts |
| `unknown` | prompts of the relation that the model gets wrong | as `specific` |
| `nonsense` | prompts of the relation about nonsense subjects | as `specific` |

Positives and negatives are prompts of the same language. A prompt that is neither has no influence on
the task. A task needs `min_known` subjects among its positives, not prompts: several templates of three
subjects are still three.

This is the only definition: the ranking, its null, its stability and the verification of saved tables
all take their tasks from `detection_tasks`.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Int8
from torch import Tensor

from relation_neurons.ranking.known import left_out_relations
from relation_neurons.relations.relation import MIN_KNOWN, relation_label

__all__ = [
    "CONTRASTS",
    "KNOWN_CONTRASTS",
    "DetectionTask",
    "detection_tasks",
    "known_prompts",
    "task_membership",
]

CONTRASTS = ("specific", "background", "unknown", "nonsense")

KNOWN_CONTRASTS = ("specific", "background")
"""The contrasts whose positives are known prompts, for which a run computes null and stability."""


@dataclass(frozen=True, eq=False)
class DetectionTask:
    """To tell a relation's prompts from others: the positives and negatives under one contrast."""

    contrast: str
    relation: str
    language: str
    positive: Bool[np.ndarray, " prompt"]
    negative: Bool[np.ndarray, " prompt"]

    @property
    def key(self) -> tuple[str, str, str]:
        """Its contrast, relation and language, as in the columns of a ranking."""
        return self.contrast, self.relation, self.language

    def membership(
        self,
        positives: bool | Bool[np.ndarray, " prompt"] = True,
        negatives: bool | Bool[np.ndarray, " prompt"] = True,
    ) -> Int8[np.ndarray, " prompt"]:
        """Returns 1 for a positive, 0 for a negative and -1 for neither.

        Args:
            positives: the prompts from which positives are taken; all by default.
            negatives: the prompts from which negatives are taken; all by default.
        """
        positive, negative = self.positive & positives, self.negative & negatives
        return np.where(positive, 1, np.where(negative, 0, -1)).astype(np.int8)


def detection_tasks(
    prompts: pd.DataFrame,
    recall: pd.DataFrame,
    *,
    contrasts: Sequence[str] = CONTRASTS,
    min_known: int = MIN_KNOWN,
    left_out: Container[str] | None = None,
) -> list[DetectionTask]:
    """Lists every task that has enough prompts, in the order of the relations in the data.

    The prompts of a relation that is left out are still negatives of the other relations.

    Args:
        prompts: the frame of an activation table, or of the detection prompts.
        recall: what `measure_recall` returns, for both sides.
        contrasts: the contrasts to list, in this order within a relation.
        min_known: subjects that a task needs among its positives, and prompts among its negatives.
        left_out: names of relations without a task; by default those that know too few facts on
            either side (`left_out_relations`).
    """
    if left_out is None:
        left_out = left_out_relations(recall, min_known)
    several = recall["language"].nunique() > 1
    known = known_prompts(prompts, recall)
    kind, relations, languages = (
        prompts[column].to_numpy(str) for column in ("kind", "relation", "language")
    )
    fact = kind == "fact"
    tasks: list[DetectionTask] = []
    pairs = prompts.loc[fact, ["relation", "language"]].drop_duplicates()
    for relation, language in pairs.itertuples(index=False):
        if relation_label(relation, language, several=several) in left_out:
            continue
        here, own = languages == language, relations == relation
        others = here & fact & ~own
        sides = {
            "specific": (here & own & fact & known, others),
            "background": (here & own & fact & known, here & (kind == "background")),
            "unknown": (here & own & fact & ~known, others),
            "nonsense": (here & own & (kind == "nonsense"), others),
        }
        for contrast in contrasts:
            positive, negative = sides[contrast]
            subjects = prompts.loc[positive, "subject"].nunique()
            if min(subjects, negative.sum()) >= min_known:
                tasks.append(DetectionTask(contrast, relation, language, positive, negative))
    return tasks


def known_prompts(prompts: pd.DataFrame, recall: pd.DataFrame) -> Bool[np.ndarray, " prompt"]:
    """Marks the prompts that the model answers; one without recall counts as not answered."""
    known = prompts["prompt_id"].map(recall.set_index("prompt_id")["known"])
    return known.fillna(False).to_numpy(bool)


def task_membership(tasks: Sequence[DetectionTask]) -> Int8[Tensor, "task prompt"]:
    """Stacks the membership of one task or more."""
    return torch.from_numpy(np.stack([task.membership() for task in tasks]))
