"""The largest average precision of all neurons, under the true labels and under permuted ones.

Each neuron is sorted once (see `radix_sort`). Then only positives are visited: each adds (positives so
far / prompts so far) to every permutation it is a positive of, so the cost is that of the positives alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from relation_neurons.errors import ActivationError
from relation_neurons.scoring.inputs import Columns, in_threads
from relation_neurons.scoring.jit import compiled
from relation_neurons.scoring.radix_sort import sort_block

__all__ = ["LEVEL", "MaximumNull", "maximum_nulls", "permuted_labels"]

LEVEL = 0.05
_CHUNK = 1 << 20  # activations that a thread takes at a time


@dataclass(frozen=True)
class MaximumNull:
    """The neurons' scores in one detection task, and the best score that chance reaches."""

    ap: Float[np.ndarray, " neuron"]
    """Average precision under the true labels."""
    maxima: Float[np.ndarray, " permutation"]
    """The highest average precision of any neuron, under each permutation of the labels."""

    @property
    def line(self) -> float:
        """The null's 95% quantile, which at most one run in twenty exceeds by chance.

        It is the ceil(0.95 (1 + permutations))-th smallest maximum, so that a neuron exceeds it exactly
        if p is at most 0.05.
        """
        place = math.ceil((1 - LEVEL) * (1 + len(self.maxima)) - 1e-9)
        return float(np.sort(self.maxima)[place - 1])

    @property
    def p_value(self) -> float:
        """The share of permutations, with the true labels as one, that reach the observed maximum."""
        return float((1 + (self.maxima >= self.ap.max()).sum()) / (1 + len(self.maxima)))


def maximum_nulls(
    activations: Float[Tensor, "prompt neuron"] | Int[Tensor, "prompt neuron"],
    membership: Int8[Tensor, "task prompt"],
    units: Int[np.ndarray, " prompt"],
    *,
    permutations: int,
    seeds: Sequence[Sequence[int]],
) -> list[MaximumNull]:
    """Scores every neuron in each detection task, under the true labels and under permuted ones.

    Each neuron is sorted once. Then only positives are visited: each adds (positives so far / prompts
    so far) to every permutation it is a positive of, so the cost is that of the positives alone.

    Args:
        activations: one value per prompt and neuron, ties allowed (pitfall 10).
        membership: 1 for a positive of the task, 0 for a negative, -1 for neither.
        units: prompts of the same unit always share one label.
        permutations: how many permutations.
        seeds: the seed of each task's permutations.

    Raises:
        ActivationError: the activations contain NaN or Inf.
    """
    prompts, neurons = activations.shape
    plans = []
    for member, seed in zip(membership.numpy(), seeds, strict=True):
        permuted = permuted_labels(member, units, permutations, seed=seed)
        plans.append(_plan(member, np.concatenate([(member == 1)[None], permuted])))
    ap = np.empty((len(plans), neurons))
    maxima = np.zeros((len(plans), permutations))
    columns, room = Columns(activations.cpu()), Lock()

    def work(start: int, stop: int) -> bool:
        best, finite = _scan_columns(columns, start, stop, plans, ap)
        with room:
            np.maximum(maxima, best, out=maxima)
        return finite

    if not in_threads(work, neurons, max(1, _CHUNK // max(prompts, 1)), "chance"):
        raise ActivationError("Activations contain NaN or Inf; expected finite values.")
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
    """Draws as many positives as there are among a task's prompts, by whole units.

    Units are taken in random order as long as they fit. If no remaining unit fits, one more is taken
    if that brings the number of positives nearer.
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


_Plan = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _plan(member: np.ndarray, labels: Bool[np.ndarray, "labelling prompt"]) -> _Plan:
    """Returns whether each prompt counts, and which labellings (0 is the true one) call it positive."""
    prompt, labelling = np.nonzero(labels.T)
    starts = np.searchsorted(prompt, np.arange(len(member) + 1)).astype(np.int64)
    return member >= 0, starts, labelling.astype(np.int64), labels.sum(axis=1).astype(np.float64)


def _scan_columns(
    columns: Columns,
    start: int,
    stop: int,
    plans: Sequence[_Plan],
    ap: Float[np.ndarray, "task neuron"],
) -> tuple[Float[np.ndarray, "task permutation"], bool]:
    """Sorts and scans neurons start to stop; returns the maxima, and whether all activations are finite."""
    bits, table, _, first, last = columns.read(start, stop)
    keys = np.empty((stop - start, columns.prompts), dtype=np.uint64)
    number = np.arange(columns.prompts, dtype=np.uint64)
    finite = bool(sort_block(bits, table, first, last, number, keys))
    best = np.zeros((len(plans), len(plans[0][3]) - 1))
    for task, plan in enumerate(plans):
        _scan(keys, *plan, ap[task, start:stop], best[task])
    return best, finite


@compiled
def _scan(keys, counts, starts, labelling, positives, ap, best):
    """Scans each neuron's sorted prompts; tied ones all count the hits at the end of their tie."""
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
            if end == prompts or keys[neuron, end] >> high != value:  # not tied, the common case
                prompt = keys[neuron, at] & low
                if counts[prompt]:
                    seen += 1.0
                    for k in range(starts[prompt], starts[prompt + np.uint64(1)]):
                        own = labelling[k]
                        so_far = hits[own] + 1.0
                        hits[own] = so_far
                        total[own] += so_far / seen
                at = end
                continue
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
        for permutation in range(len(best)):
            found = total[permutation + 1] / positives[permutation + 1]
            if found > best[permutation]:
                best[permutation] = found
