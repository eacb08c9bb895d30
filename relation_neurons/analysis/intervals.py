"""Intervals over facts: of a mean of net flips, and of a median of margins.

Net flips lie between -1 and 1 and are often 0. Among few facts that never change, a bootstrap or Student's
interval has no width, though the next fact may change. So one lost and one won fact are added to each
relation's facts, as Agresti and Coull (1998) add to counts and Agresti and Min (2005) to pairs:

    m' = sum(v) / (n + 2),   s'^2 = (sum(v^2) + 2) / (n + 2) - m'^2,   m' +- t(n - 1) s' / sqrt(n + 2)

Where none of n facts changes, this reaches to about 3 / n either way, as the rule of three does.

Margins have tails for which no interval of a mean is known to hold, so the median over facts takes its
place. Its interval runs between two of the ordered values and holds whatever the distribution.

Prompts of one fact change together, and facts of one subject may, in several relations: such prompts are
a cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import special

__all__ = ["Part", "combined_interval", "difference_interval", "flip_interval", "median_interval"]

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Part:
    """One relation's share in a number: a mean over its prompts, taken `weight` times."""

    values: Float[np.ndarray, " prompt"]
    """The prompts' net flips, or their differences from a control's."""
    clusters: np.ndarray
    """The subject of each prompt, or its fact."""
    weight: float = 1.0


def flip_interval(
    values: Float[np.ndarray, " prompt"], facts: np.ndarray, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Returns the interval of a mean of net flips over one relation's prompts.

    Args:
        values: each prompt's net flip, from -1 to 1, or its difference from a control's mean.
        facts: the fact of each prompt.
        confidence: how often the interval should hold the mean.

    Returns:
        Its ends. They are NaN if there is one fact only or a value is missing.

    >>> low, high = flip_interval(np.zeros(10), np.arange(10))
    >>> round(low, 2), round(high, 2)
    (-0.28, 0.28)
    >>> low, high = flip_interval(np.array([-1.0] * 8 + [0.0] * 12), np.arange(20))
    >>> round(low, 2), round(high, 2)
    (-0.62, -0.1)
    """
    return combined_interval([Part(values, facts)], confidence=confidence)


def combined_interval(parts: Sequence[Part], *, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the interval of a weighted sum of several relations' means of net flips.

        sum_j w_j m_j,   V_j = w_j^2 s'_j^2 / (n_j + 2),   V = max(sum_j V_j, variance over clusters)
        degrees of freedom: (sum V_j)^2 / sum(V_j^2 / (n_j - 1))

    m_j is a mean over prompts and n_j the number of clusters in part j. The variance over clusters sums
    what a cluster contributes to all parts it is in; where it is the larger one, the degrees of freedom
    are at most the largest n_j less one. The added facts widen the interval; they move its middle too if
    there is one part. In several parts they would draw it to 0 by as much each, so the middle is the
    estimate.

    Args:
        parts: one per relation. Parts that are subtracted have a negative weight.
        confidence: how often the interval should hold the sum.

    Returns:
        Its ends, within what such values can reach. They are NaN without two clusters, or if a value is
        missing.

    >>> home, others = Part(np.full(10, -0.5), np.arange(10)), Part(np.zeros(40), np.arange(40), -1.0)
    >>> low, high = combined_interval([home, others])
    >>> round(low, 2), round(high, 2)
    (-0.82, -0.18)
    """
    estimate = shrunk = reach = added = 0.0
    variances, freedoms, names, scores = [], [], [], []
    for part in parts:
        found, codes = np.unique(part.clusters, return_inverse=True)
        count = len(found)
        if count == 0 or np.isnan(part.values).any() or np.isnan(part.weight):
            return float("nan"), float("nan")
        sums = np.bincount(codes, weights=part.values, minlength=count)
        sizes = np.bincount(codes, minlength=count).astype(np.float64)
        size = sizes.mean()
        total = sizes.sum() + 2 * size
        mean = sums.sum() / total
        own = part.weight * (sums - sizes * mean) / total
        more = part.weight * np.array([-1.0 - mean, 1.0 - mean]) * size / total
        estimate += part.weight * sums.sum() / sizes.sum()
        shrunk += part.weight * mean
        reach += abs(part.weight) * max(1.0, float(np.abs(part.values).max()))
        added += (more**2).sum()
        variances.append((own**2).sum() + (more**2).sum())
        freedoms.append(max(count - 1, 1))
        names.append(found)
        scores.append(own)
    every, codes = np.unique(np.concatenate(names), return_inverse=True)
    if len(every) < 2:
        return float("nan"), float("nan")
    own_variances = np.array(variances)
    variance = own_variances.sum()
    freedom = variance**2 / (own_variances**2 / np.array(freedoms)).sum()
    recurring = len(codes) / len(every)  # parts that a cluster is in
    between = (np.bincount(codes, weights=np.concatenate(scores)) ** 2).sum()
    between = (between + np.sqrt(recurring) * added) * (1 + 1 / max(freedoms))
    if between > variance:
        variance, freedom = between, min(freedom, max(freedoms))
    middle = shrunk if len(parts) == 1 else estimate
    half = special.stdtrit(freedom, (1 + confidence) / 2) * np.sqrt(variance)
    return max(float(middle - half), -reach), min(float(middle + half), reach)


def median_interval(
    values: Float[np.ndarray, " fact"],
    clusters: np.ndarray | None = None,
    *,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Returns the interval of a median over facts: two of the ordered values.

        from the k-th smallest to the k-th largest,   k the largest with P(Binomial(n, 1/2) < k) <= tail

    It holds at least as often as `confidence` says, whatever the distribution. Clusters of facts widen it
    as fewer facts would: n is divided by the design effect of being above or below the median. An end that
    ties with the median gives way to the next value.

    Args:
        values: a value per fact.
        clusters: the subject of each fact, if one may have several facts.
        confidence: how often the interval should hold the median.

    Returns:
        Its ends. They are NaN below six facts (at 95%), if a value is missing, or if all are equal.

    >>> median_interval(np.arange(10.0))
    (1.0, 8.0)
    >>> median_interval(np.arange(20.0)), median_interval(np.arange(20.0), np.arange(20) // 2)
    ((5.0, 14.0), (2.0, 17.0))
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    count = len(ordered)
    if count == 0 or np.isnan(ordered).any() or ordered[0] == ordered[-1]:
        return float("nan"), float("nan")
    middle = np.median(ordered)
    effective = float(count)
    if clusters is not None:
        side = np.sign(values - middle)
        sums = np.bincount(np.unique(clusters, return_inverse=True)[1], weights=side)
        effect = float((sums**2).sum() / (side**2).sum())
        if len(sums) == 1:
            return float("nan"), float("nan")
        if effect > 1:
            effective *= (1 - 1 / len(sums)) / effect
    trials = int(effective + _ROUNDING)
    tail = (1 - confidence) / 2
    k = int((special.bdtr(np.arange(trials // 2), trials, 0.5) <= tail).sum())
    if k == 0:
        return float("nan"), float("nan")
    share = (k - 1) / (trials - 1)  # of the ordered values that lie outside, at either end
    place = int(share * (count - 1) + _ROUNDING)
    low, high = float(ordered[place]), float(ordered[count - 1 - place])
    if low == middle and ordered[0] < middle:
        low = float(ordered[ordered < middle][-1])
    if high == middle and ordered[-1] > middle:
        high = float(ordered[ordered > middle][0])
    return low, high


def difference_interval(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> tuple[float, float]:
    """Returns the interval of a difference of two numbers from their own intervals.

        low = a - b - sqrt((a - a_low)^2 + (b_high - b)^2),   high likewise

    This is MOVER (Zou and Donner 2008), for two numbers that do not hang together.

    Args:
        first: the number a, and the ends of its interval.
        second: the number b that is subtracted, and the ends of its interval.

    >>> low, high = difference_interval((-2.0, -5.0, -1.0), (1.0, 0.0, 5.0))
    >>> round(low, 2), round(high, 2)
    (-8.0, -1.59)
    """
    value = first[0] - second[0]
    below = np.hypot(first[0] - first[1], second[2] - second[0])
    above = np.hypot(first[2] - first[0], second[0] - second[1])
    return float(value - below), float(value + above)
