"""Null: how high the best of many neurons scores by chance (pitfall 12).

    p = (1 + permutations whose maximum reaches the observed maximum) / (1 + permutations)

The floor of AP is the prevalence of positives, and the maximum over tens of thousands of neurons
lies far above it. So labels are permuted, the maximum over all neurons is taken anew, and a neuron
counts only beyond the null's 95% line. As the line is that of a maximum, it allows for the number
of neurons: where no neuron tells the relation, 95% of runs find none beyond it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from relation_neurons.activations.table import ActivationTable
from relation_neurons.errors import TooFewFactsError, UnknownOptionError, near_matches
from relation_neurons.ranking.detection_tasks import CONTRASTS, rank_families
from relation_neurons.ranking.known import advice_for_ranking, left_out_relations
from relation_neurons.relations.relation import MIN_KNOWN
from relation_neurons.scoring.permutations import LEVEL, maximum_nulls
from relation_neurons.version import renamed

__all__ = ["null_maximum", "null_sentence"]

_LEAST = math.ceil(1 / LEVEL) - 1


@renamed(scores="contrasts")
def null_maximum(
    table: ActivationTable,
    recall: pd.DataFrame,
    *,
    permutations: int = 50,
    contrasts: Sequence[str] = ("specific", "background"),
    min_known: int = MIN_KNOWN,
    seed: int = 0,
) -> pd.DataFrame:
    """Compares every relation's best neuron with the best neuron under permuted labels.

    Positives and negatives are those of `rank_neurons`. Labels move by fact: all prompts of a fact
    go together, a neutral prompt on its own. Nothing is shared between relations, as each has prompts
    of its own among which labels move.

    Args:
        table: pooled activations of the detection prompts.
        recall: what `measure_recall` gives.
        permutations: 19 or more; p cannot be below 1 / (1 + permutations).
        contrasts: which rankings are tested.
        min_known: as in `rank_neurons`.
        seed: of the permutations.

    Returns:
        A row per (relation, language, score): positives, negatives (prompts), prevalence (positives
        of both), observed_max, null_mean and null_95 (of the maxima), p_value, beyond (neurons whose
        AP is above null_95; 0 exactly where p_value > 0.05), neurons, permutations, verdict.

    Raises:
        UnknownOptionError: fewer than 19 permutations, or a contrast that is none.
        TooFewFactsError: no relation has enough positives and negatives.
    """
    _check(permutations, contrasts)
    families, membership = rank_families(
        table.prompts, recall, min_known, left_out_relations(recall, min_known)
    )
    wanted = [i for i, (contrast, *_) in enumerate(families) if contrast in contrasts]
    if not wanted:
        raise TooFewFactsError(
            f"No relation has {min_known} known prompts and as many negatives for the contrast "
            f"{' or '.join(contrasts)}. {advice_for_ranking(table.prompts)}"
        )
    members = membership[wanted]
    labels = [families[i] for i in wanted]
    nulls = maximum_nulls(
        table.values.flatten(1),
        members,
        _units(table.prompts),
        permutations=permutations,
        seeds=[[seed, zlib.crc32("/".join(label).encode())] for label in labels],
    )
    rows = []
    for (contrast, relation, language), member, null in zip(labels, members, nulls, strict=True):
        positives, negatives = int((member == 1).sum()), int((member == 0).sum())
        beyond = int((null.ap > null.line).sum())
        rows.append(
            {
                "relation": relation,
                "language": language,
                "score": contrast,
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


def null_sentence(row: Mapping[str, Any] | pd.Series) -> str:
    """Says in words what one row of `null_maximum` shows.

    >>> null_sentence({"relation": "food", "score": "specific", "observed_max": 0.31, "null_95": 0.35,
    ...                "p_value": 0.4, "beyond": 0, "neurons": 500, "permutations": 50})
    'food (specific): no neurons beyond chance; the best AP of 500 is 0.31, chance reaches 0.35 (p = 0.40).'
    """
    found = (
        f"{row['beyond']:,} of {row['neurons']:,} neurons beyond chance; the best AP is"
        if row["beyond"]
        else f"no neurons beyond chance; the best AP of {row['neurons']:,} is"
    )
    least = 1 / (1 + row["permutations"])
    p = row["p_value"]
    said = f"p = {p:.2f}" if p > LEVEL else f"p = {p:.2g}"
    if math.isclose(p, least):
        said += f", the least that {row['permutations']} permutations can show"
    return (
        f"{row['relation']} ({row['score']}): {found} {row['observed_max']:.2f}, chance reaches "
        f"{row['null_95']:.2f} ({said})."
    )


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
