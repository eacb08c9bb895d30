"""The null of the maximum: the AP that the best of many neurons reaches by chance (pitfall 12).

    p = (1 + permutations whose maximum reaches the observed maximum) / (1 + permutations)

The floor of AP is the prevalence of positives, and the maximum over tens of thousands of neurons
lies far above it. So labels are permuted, the maximum over all neurons is taken again, and a neuron
counts only beyond the null's 95% line. As the line is that of a maximum, it allows for the number
of neurons: where no neuron detects the relation, 95% of runs find none beyond it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int

from relation_neurons.activations.table import ActivationTable
from relation_neurons.errors import TooFewFactsError, UnknownOptionError, near_matches
from relation_neurons.ranking.detection_tasks import (
    CONTRASTS,
    KNOWN_CONTRASTS,
    detection_tasks,
    task_membership,
)
from relation_neurons.ranking.known import advice_for_ranking
from relation_neurons.relations.relation import MIN_KNOWN
from relation_neurons.scoring.permutations import LEVEL, maximum_nulls
from relation_neurons.version import renamed

__all__ = ["null_maximum"]

_LEAST = math.ceil(1 / LEVEL) - 1


@renamed(scores="contrasts")
def null_maximum(
    table: ActivationTable,
    recall: pd.DataFrame,
    *,
    permutations: int = 50,
    contrasts: Sequence[str] = KNOWN_CONTRASTS,
    min_known: int = MIN_KNOWN,
    seed: int = 0,
) -> pd.DataFrame:
    """Compares every relation's best neuron with the best neuron under permuted labels.

    Positives and negatives are those of `rank_neurons`. Labels move by fact: all prompts of a fact
    go together, a neutral prompt on its own. Nothing is shared between tasks: each permutes labels among
    its own prompts, with its own seed.

    Args:
        table: pooled activations of the detection prompts.
        recall: what `measure_recall` returns.
        permutations: 19 or more; p cannot be below 1 / (1 + permutations).
        contrasts: the contrasts that are tested.
        min_known: as in `rank_neurons`.
        seed: of the permutations.

    Returns:
        A row per (relation, language, score): positives, negatives (prompts), prevalence (positives
        of both), observed_max, null_mean and null_95 (of the maxima), p_value, beyond (neurons whose
        AP is above null_95; 0 exactly where p_value > 0.05), neurons, permutations, verdict.

    Raises:
        UnknownOptionError: fewer than 19 permutations, or a contrast that does not exist.
        TooFewFactsError: no relation has enough positives and negatives.
    """
    _check(permutations, contrasts)
    ordered = [contrast for contrast in CONTRASTS if contrast in contrasts]
    tasks = detection_tasks(table.prompts, recall, contrasts=ordered, min_known=min_known)
    if not tasks:
        raise TooFewFactsError(
            f"No relation has {min_known} known prompts and as many negatives for the contrast "
            f"{' or '.join(contrasts)}. {advice_for_ranking(table.prompts)}"
        )
    members = task_membership(tasks)
    nulls = maximum_nulls(
        table.values.flatten(1),
        members,
        _units(table.prompts),
        permutations=permutations,
        seeds=[[seed, zlib.crc32("/".join(task.key).encode())] for task in tasks],
    )
    rows = []
    for task, member, null in zip(tasks, members, nulls, strict=True):
        positives, negatives = int((member == 1).sum()), int((member == 0).sum())
        beyond = int((null.ap > null.line).sum())
        rows.append(
            {
                "relation": task.relation,
                "language": task.language,
                "score": task.contrast,
                "positives": positives,
                "negatives": negatives,
                "prevalence": positives / (positives + negatives),
                "observed_max": float(null.ap.max()),
                "null_mean": float(null.maxima.mean()),
                "null_95": null.line,
                "p_value": null.p_value,
                "beyond": beyond,
                "neurons": len(null.ap),
                "permutations": permutations,
                "verdict": "beyond chance" if beyond else "no neurons beyond chance",
            }
        )
    return pd.DataFrame(rows)


def _check(permutations: int, contrasts: Sequence[str]) -> None:
    if permutations < _LEAST:
        raise UnknownOptionError(
            f"{permutations} permutations cannot bring p to {LEVEL}; expected {_LEAST} or more."
        )
    for contrast in contrasts:
        if contrast not in CONTRASTS:
            raise UnknownOptionError(
                f"No contrast {contrast!r}. {near_matches(contrast, CONTRASTS)}"
            )


def _units(prompts: pd.DataFrame) -> Int[np.ndarray, " prompt"]:
    """Numbers the facts; a neutral prompt is a unit of its own."""
    alone = (prompts["kind"] == "background").to_numpy()
    fact = prompts.groupby(["kind", "relation", "language", "fact"], sort=True).ngroup().to_numpy()
    return np.where(alone, len(prompts) + np.arange(len(prompts)), fact).astype(np.int64)
