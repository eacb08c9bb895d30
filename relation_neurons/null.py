"""Null: how high the best of many neurons scores by chance (pitfall 12).

    p = (1 + permutations whose maximum reaches the observed maximum) / (1 + permutations)

The floor of AP is the prevalence of positives, and the maximum over tens of thousands of neurons
lies far above it. So labels are permuted, the maximum over all neurons is taken anew, and a neuron
counts only beyond the null's 95% line. As the line is that of a maximum, it allows for the number
of neurons: where no neuron tells the relation, 95% of runs find none beyond it.
"""

from __future__ import annotations

import inspect
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from relation_neurons.activations import ActivationTable
from relation_neurons.errors import (
    ActivationError,
    TooFewFactsError,
    UnknownOptionError,
    near_matches,
)
from relation_neurons.progress import progress_bar
from relation_neurons.ranking import SCORES, _families, left_out_relations
from relation_neurons.relations import MIN_KNOWN
from relation_neurons.scores import _sort_keys

__all__ = ["MaximumNull", "maximum_nulls", "null_maximum", "null_sentence", "permuted_labels"]

LEVEL = 0.05
_LEAST = math.ceil(1 / LEVEL) - 1
_CHUNK = 1 << 22  # sort keys held at once: 32 MB


@dataclass(frozen=True)
class MaximumNull:
    """What the neurons score for one family, and what the best of them scores by chance."""

    ap: Float[np.ndarray, " neuron"]
    """Average precision under the true labels."""
    maxima: Float[np.ndarray, " permutation"]
    """The highest average precision of any neuron, under each permutation of the labels."""

    @property
    def line(self) -> float:
        """The null's 95% quantile: what at most one run in twenty goes beyond by chance.

        The ceil(0.95 (1 + permutations))-th smallest maximum, so that a neuron lies beyond it exactly
        where p is at most 0.05.
        """
        place = math.ceil((1 - LEVEL) * (1 + len(self.maxima)) - 1e-9)
        return float(np.sort(self.maxima)[place - 1])

    @property
    def p_value(self) -> float:
        """The share of permutations that reach the observed maximum, the true labels among them."""
        return float((1 + (self.maxima >= self.ap.max()).sum()) / (1 + len(self.maxima)))


def null_maximum(
    table: ActivationTable,
    recall: pd.DataFrame,
    *,
    permutations: int = 50,
    scores: Sequence[str] = ("specific", "background"),
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
        scores: which rankings are tested.
        min_known: as in `rank_neurons`.
        seed: of the permutations.

    Returns:
        A row per (relation, language, score): positives, negatives (prompts), prevalence (positives
        of both), observed_max, null_mean and null_95 (of the maxima), p_value, beyond (neurons whose
        AP is above null_95; 0 exactly where p_value > 0.05), neurons, permutations, verdict.

    Raises:
        UnknownOptionError: fewer than 19 permutations, or a score that is none.
        TooFewFactsError: no relation has enough positives and negatives.
    """
    _check(permutations, scores)
    families, membership = _families(
        table.prompts, recall, min_known, left_out_relations(recall, min_known)
    )
    wanted = [i for i, (score, *_) in enumerate(families) if score in scores]
    if not wanted:
        raise TooFewFactsError(
            f"No relation has {min_known} known prompts and as many negatives for the score "
            f"{' or '.join(scores)}. Add facts that the model knows, or lower min_known."
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
    for (score, relation, language), member, null in zip(labels, members, nulls, strict=True):
        positives, negatives = int((member == 1).sum()), int((member == 0).sum())
        beyond = int((null.ap > null.line).sum())
        rows.append(
            {
                "relation": relation,
                "language": language,
                "score": score,
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


def maximum_nulls(
    activations: Float[Tensor, "prompt neuron"] | Int[Tensor, "prompt neuron"],
    membership: Int8[Tensor, "family prompt"],
    units: Int[np.ndarray, " prompt"],
    *,
    permutations: int,
    seeds: Sequence[Sequence[int]],
) -> list[MaximumNull]:
    """Scores every neuron for each family, under the true labels and under permuted ones.

    Each neuron is sorted once. Then only positives are visited: each adds (positives so far / prompts
    so far) to every permutation it is a positive of, so the cost is that of the positives alone.

    Args:
        activations: one value per prompt and neuron, ties allowed (pitfall 10).
        membership: 1 for a positive of the family, 0 for a negative, -1 for neither.
        units: prompts of the same unit keep one label between them.
        permutations: how many.
        seeds: of each family's permutations.

    Raises:
        ActivationError: NaN or Inf in the activations.
    """
    if activations.is_floating_point() and not bool(torch.isfinite(activations).all()):
        raise ActivationError("Activations hold NaN or Inf; expected finite values.")
    prompts, neurons = activations.shape
    plans = []
    for member, seed in zip(membership.numpy(), seeds, strict=True):
        permuted = permuted_labels(member, units, permutations, seed=seed)
        plans.append(_plan(member, np.concatenate([(member == 1)[None], permuted])))
    ap = np.empty((len(plans), neurons))
    maxima = np.zeros((len(plans), permutations))
    step = max(1, _CHUNK // max(prompts, 1))
    with progress_bar(neurons, "chance", "neuron") as bar:
        for start in range(0, neurons, step):
            keys = _sort_keys(activations[:, start : start + step])
            here = ap[:, start : start + len(keys)]
            np.maximum(maxima, _scan_in_threads(keys, plans, here), out=maxima)
            bar.update(len(keys))
    return [
        MaximumNull(own.round(12), best.round(12)) for own, best in zip(ap, maxima, strict=True)
    ]


def permuted_labels(
    member: Int8[np.ndarray, " prompt"],
    units: Int[np.ndarray, " prompt"],
    permutations: int,
    *,
    seed: Sequence[int],
) -> Bool[np.ndarray, "permutation prompt"]:
    """Draws positives among a family's prompts, by whole units, as many as there are.

    Units are taken in random order as long as they fit. Where none is left that fits, the number of
    positives is as near as one more unit brings it.
    """
    rng = np.random.default_rng(list(seed))
    inside = np.flatnonzero(member >= 0)
    _, unit = np.unique(units[inside], return_inverse=True)
    sizes = np.bincount(unit)
    wanted = int((member == 1).sum())
    drawn = np.zeros((permutations, len(member)), dtype=bool)
    for row in drawn:
        chosen = np.zeros(len(sizes), dtype=bool)
        left = wanted
        for i in rng.permutation(len(sizes)):
            if sizes[i] <= left:
                chosen[i] = True
                left -= int(sizes[i])
        spare = np.where(chosen, np.iinfo(np.int64).max, sizes)
        if left and not chosen.all() and spare.min() - left < left:
            chosen[int(spare.argmin())] = True
        row[inside] = chosen[unit]
    return drawn


def _check(permutations: int, scores: Sequence[str]) -> None:
    if permutations < _LEAST:
        raise UnknownOptionError(
            f"{permutations} permutations cannot bring p to {LEVEL}; expected {_LEAST} or more."
        )
    for score in scores:
        if score not in SCORES:
            raise UnknownOptionError(f"No score {score!r}. {near_matches(score, SCORES)}")


def _units(prompts: pd.DataFrame) -> Int[np.ndarray, " prompt"]:
    """Numbers the facts; a neutral prompt is a unit of its own."""
    alone = (prompts["kind"] == "background").to_numpy()
    fact = prompts.groupby(["kind", "relation", "language", "fact"], sort=True).ngroup().to_numpy()
    return np.where(alone, len(prompts) + np.arange(len(prompts)), fact).astype(np.int64)


_Plan = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _plan(member: np.ndarray, labels: Bool[np.ndarray, "labelling prompt"]) -> _Plan:
    """For each prompt: whether it counts, and which labellings (0 is the true one) call it positive."""
    prompt, labelling = np.nonzero(labels.T)
    starts = np.searchsorted(prompt, np.arange(len(member) + 1)).astype(np.int64)
    return member >= 0, starts, labelling.astype(np.int64), labels.sum(axis=1).astype(np.float64)


def _scan_in_threads(
    keys: np.ndarray, plans: Sequence[_Plan], ap: Float[np.ndarray, "family neuron"]
) -> Float[np.ndarray, "family permutation"]:
    """Sorts and scans blocks of neurons side by side (see `scores` on threads)."""
    workers = os.cpu_count() or 1
    blocks = [block for block in np.array_split(np.arange(len(keys)), workers) if block.size]

    def work(block: np.ndarray) -> np.ndarray:
        rows = slice(int(block[0]), int(block[-1]) + 1)
        keys[rows].sort(axis=1)
        best = np.zeros((len(plans), len(plans[0][3]) - 1))
        for family, plan in enumerate(plans):
            _scan(keys[rows], *plan, ap[family, rows], best[family])
        return best

    with ThreadPoolExecutor(workers) as pool:
        return np.max(list(pool.map(work, blocks)), axis=0)


def _scan_loop(
    keys: np.ndarray,
    counts: np.ndarray,
    starts: np.ndarray,
    labelling: np.ndarray,
    positives: np.ndarray,
    ap: np.ndarray,
    best: np.ndarray,
) -> None:
    """Walks each neuron's sorted prompts; tied ones all see the hits at the end of their tie."""
    neurons, prompts = keys.shape
    low = np.uint64(0xFFFFFFFF)
    high = np.uint64(32)
    for neuron in range(neurons):
        hits = np.zeros(len(positives))
        total = np.zeros(len(positives))
        seen = 0.0
        at = 0
        while at < prompts:
            value = keys[neuron, at] >> high
            end = at + 1
            while end < prompts and keys[neuron, end] >> high == value:
                end += 1
            for i in range(at, end):
                prompt = keys[neuron, i] & low
                if counts[prompt]:
                    seen += 1.0
                    for k in range(starts[prompt], starts[prompt + np.uint64(1)]):
                        hits[labelling[k]] += 1.0
            for i in range(at, end):
                prompt = keys[neuron, i] & low
                if counts[prompt]:
                    for k in range(starts[prompt], starts[prompt + np.uint64(1)]):
                        total[labelling[k]] += hits[labelling[k]] / seen
            at = end
        ap[neuron] = total[0] / positives[0]
        for family in range(len(best)):
            found = total[family + 1] / positives[family + 1]
            if found > best[family]:
                best[family] = found


# Compiled from the plain function, also where a test's import hook has wrapped it to check shapes.
_scan = numba.njit(nogil=True, cache=True)(inspect.unwrap(_scan_loop))
