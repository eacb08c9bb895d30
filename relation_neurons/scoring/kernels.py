"""Average precision, AUROC and d' of neurons: one scan of a neuron's sorted prompts serves all tasks.

The sorted keys carry the class of each prompt (see `inputs.PromptGroups`). A division is made only where
a detection task gains a hit. Compiled by numba; neurons are read, sorted and scanned block by block
while they are in cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from relation_neurons.scoring.inputs import Columns, PromptGroups
from relation_neurons.scoring.jit import compiled
from relation_neurons.scoring.radix_sort import (
    BLOCK,
    BUCKETS,
    column_stride,
    read_block,
    sort_column,
)

__all__ = ["FLOOR", "Scores", "empty_scores", "score_columns"]

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
FLOOR = 2.0**-24  # as a share of the two means; a smaller spread is float32's rounding


@dataclass(frozen=True)
class Scores:
    """The scores from one pass over the activations; each has a column per neuron, or none."""

    average_precision: Float[np.ndarray, "task _"]
    auroc: Float[np.ndarray, "task _"]
    d_prime: Float[np.ndarray, "task _"]
    mean_positive: Float[np.ndarray, "task _"]
    mean_negative: Float[np.ndarray, "task _"]


def empty_scores(tasks: int, neurons: int, wanted: tuple[str, ...]) -> Scores:
    """Allocates arrays for the wanted scores."""
    names = ("average_precision", "auroc", "d_prime", "mean_positive", "mean_negative")
    needed = {*wanted, *(names[3:] if "d_prime" in wanted else ())}
    return Scores(*(np.empty((tasks, neurons if n in needed else 0)) for n in names))


def score_columns(
    columns: Columns, classes: PromptGroups, found: Scores, start: int, stop: int
) -> bool:
    """Scores neurons start to stop into `found`; returns whether all activations are finite."""
    bits, table, values, first, last = columns.read(start, stop)
    shift = start - first
    return bool(
        _score(
            bits,
            table,
            values,
            first,
            last,
            shift,
            classes.labels,
            classes.hit,
            classes.counted,
            classes.groups,
            classes.positive,
            classes.negative,
            classes.sizes,
            found.average_precision,
            found.auroc,
            found.d_prime,
            found.mean_positive,
            found.mean_negative,
        )
    )


@compiled
def _score(
    bits,
    table,
    values,
    start,
    stop,
    shift,
    labels,
    hit,
    counted,
    groups,
    positive,
    negative,
    sizes,
    precision,
    auroc,
    d_prime,
    mean_positive,
    mean_negative,
):
    """Reads neurons block by block; sorts and scans each while its block is in cache."""
    prompts = bits.shape[0]
    task_count = len(positive)
    moments, ranked = d_prime.shape[1] > 0, precision.shape[1] > 0
    areas = auroc.shape[1] > 0
    keys = np.empty((BLOCK, column_stride(prompts)), dtype=np.uint32)
    one, other = np.empty(prompts, dtype=np.uint64), np.empty(prompts, dtype=np.uint64)
    counts = np.empty((3, BUCKETS), dtype=np.int32)
    seen, before = np.empty(counted.shape[1], np.int32), np.empty(counted.shape[1], np.int32)
    hits, gained = np.empty(len(groups), np.int64), np.zeros(len(groups), np.int64)
    total = np.empty(len(groups))
    gathered = len(sizes) if moments else 0
    origins, sums, squares = (
        np.empty((gathered, BLOCK)),
        np.empty((gathered, BLOCK)),
        np.empty((gathered, BLOCK)),
    )
    finite = True
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        sums[:] = 0
        squares[:] = 0
        finite &= read_block(bits, table, values, first, last, labels, keys, origins, sums, squares)
        for j in range(last - first if ranked or areas else 0):
            column = sort_column(keys[j, :prompts], labels, one, other, counts)
            at = first + shift + j
            if ranked:
                _precision(column, hit, counted, groups, seen, hits, gained, total)
                for f in range(task_count):
                    precision[f, at] = total[f] / hits[f] if hits[f] else np.nan
            if areas:
                _above(column, hit, counted, groups, seen, before, hits, gained, total)
                for f in range(task_count):
                    pairs = hits[f] * (seen[groups[f]] - hits[f])
                    auroc[f, at] = 1 - total[f] / pairs if pairs else np.nan
        if moments:
            _standardise(
                origins[:, : last - first],
                sums[:, : last - first],
                squares[:, : last - first],
                positive,
                negative,
                sizes,
                first + shift,
                d_prime,
                mean_positive,
                mean_negative,
            )
    return finite


@compiled
def _precision(column, hit, counted, groups, seen, hits, gained, total):
    """Sums (hits gained) x (hits / prompts seen) over the thresholds; tied prompts share one."""
    seen[:] = 0
    hits[:] = 0
    total[:] = 0
    if len(seen) == 1:
        _precision_of_one_group(column, hit, counted, groups, seen, hits, gained, total)
        return
    at = 0
    while at < len(column):
        packed = column[at]
        if at + 1 < len(column) and column[at + 1] ^ packed <= _LOW:
            at = _precision_of_tie(column, at, hit, counted, groups, seen, hits, gained, total)
            continue
        c = np.intp(packed & _LOW)
        for g in range(len(seen)):
            seen[g] += counted[c, g]
        for k in range(hit.shape[1]):
            f = hit[c, k]
            so_far = hits[f] + 1
            hits[f] = so_far
            total[f] += so_far / seen[groups[f]]
        at += 1


@compiled
def _precision_of_one_group(column, hit, counted, groups, seen, hits, gained, total):
    """`_precision` for tasks that all count the same prompts, so that their number stays in a register."""
    count = np.int64(0)
    at = 0
    while at < len(column):
        packed = column[at]
        if at + 1 < len(column) and column[at + 1] ^ packed <= _LOW:
            seen[0] = count
            at = _precision_of_tie(column, at, hit, counted, groups, seen, hits, gained, total)
            count = np.int64(seen[0])
            continue
        c = np.intp(packed & _LOW)
        count += counted[c, 0]
        for k in range(hit.shape[1]):
            f = hit[c, k]
            so_far = hits[f] + 1
            hits[f] = so_far
            total[f] += so_far / count
        at += 1


@compiled
def _count_tie(column, at, hit, counted, seen, gained):
    """Counts the prompts tied from `at` on; returns where they end."""
    first = column[at]
    while at < len(column) and column[at] ^ first <= _LOW:
        c = np.intp(column[at] & _LOW)
        for g in range(len(seen)):
            seen[g] += counted[c, g]
        for k in range(hit.shape[1]):
            gained[hit[c, k]] += 1
        at += 1
    return at


@compiled
def _precision_of_tie(column, at, hit, counted, groups, seen, hits, gained, total):
    """Adds one threshold of several tied prompts; returns where they end."""
    end = _count_tie(column, at, hit, counted, seen, gained)
    for i in range(at, end):
        c = np.intp(column[i] & _LOW)
        for k in range(hit.shape[1]):
            f = hit[c, k]
            if gained[f]:
                hits[f] += gained[f]
                total[f] += gained[f] * (hits[f] / seen[groups[f]])
                gained[f] = 0
    return end


@compiled
def _above(column, hit, counted, groups, seen, before, hits, gained, total):
    """Counts the negatives above each positive, tied ones as half."""
    seen[:] = 0
    hits[:] = 0
    total[:] = 0
    at = 0
    while at < len(column):
        packed = column[at]
        if at + 1 == len(column) or column[at + 1] ^ packed > _LOW:
            c = np.intp(packed & _LOW)
            for g in range(len(seen)):
                seen[g] += counted[c, g]
            for k in range(hit.shape[1]):
                f = hit[c, k]
                hits[f] += 1
                total[f] += seen[groups[f]] - hits[f]
            at += 1
            continue
        for g in range(len(seen)):  # a slice's check of lengths takes seconds to compile
            before[g] = seen[g]
        end = _count_tie(column, at, hit, counted, seen, gained)
        for i in range(at, end):
            c = np.intp(column[i] & _LOW)
            for k in range(hit.shape[1]):
                f = hit[c, k]
                if gained[f]:
                    misses_before = before[groups[f]] - hits[f]
                    hits[f] += gained[f]
                    misses = seen[groups[f]] - hits[f]
                    total[f] += gained[f] * (misses_before + misses) / 2
                    gained[f] = 0
        at = end


@compiled
def _standardise(
    origins, sums, squares, positive, negative, sizes, start, d_prime, mean_positive, mean_negative
):
    """Turns the classes' distances to their origins into each task's means and standardised difference.

    The squared distances to a side's mean are those within its classes and those of the classes' means;
    neither is a difference of large numbers.
    """
    width = sums.shape[1]
    centre, within = np.empty((len(sizes), width)), np.empty((len(sizes), width))
    for c in range(len(sizes)):
        for j in range(width):
            centre[c, j] = origins[c, j] + sums[c, j] / sizes[c]
            within[c, j] = max(squares[c, j] - sums[c, j] ** 2 / sizes[c], 0.0)
    mean, variance = np.empty((2, width)), np.empty((2, width))
    for f in range(len(positive)):
        for side in range(2):
            members = positive[f] if side == 0 else negative[f]
            mean[side] = 0
            variance[side] = 0
            count = 0
            for c in range(len(sizes)):
                if members[c]:
                    count += sizes[c]
                    for j in range(width):
                        mean[side, j] += sizes[c] * centre[c, j]
            count = max(count, 1)
            for j in range(width):
                mean[side, j] /= count
            for c in range(len(sizes)):
                if members[c]:
                    for j in range(width):
                        apart = centre[c, j] - mean[side, j]
                        variance[side, j] += within[c, j] + sizes[c] * apart * apart
            for j in range(width):
                variance[side, j] /= count
        for j in range(width):
            above, below = mean[0, j], mean[1, j]
            spread = np.sqrt((variance[0, j] + variance[1, j]) / 2)
            known = spread > FLOOR * (abs(above) + abs(below))
            d_prime[f, start + j] = (above - below) / spread if known else 0.0
            mean_positive[f, start + j] = above
            mean_negative[f, start + j] = below
