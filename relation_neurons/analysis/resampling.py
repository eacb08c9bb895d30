"""Bootstrap intervals and sign-flip tests over facts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

__all__ = [
    "RESAMPLES",
    "bootstrap_interval",
    "by_fact",
    "expanded_tail",
    "resampled_interval",
    "sign_flip_test",
]

RESAMPLES = 2000
"""Number of bootstrap resamples."""

_FLIPS = 9999

_SIGN_FLIP_SALT = 0x666C69
"""Keeps the sign-flip test's patterns apart from other draws from the same seed."""


def by_fact(
    values: Float[np.ndarray, " prompt"], facts: np.ndarray | pd.Series | pd.Index
) -> Float[np.ndarray, " fact"]:
    """Sums prompts' values within facts, scaled so that their mean equals that over prompts.

        v_f = (sum of f's values) * facts / prompts

    >>> by_fact(np.array([1.0, 0.0, -1.0, -1.0]), np.array(["a", "a", "b", "b"])).tolist()
    [0.5, -1.0]
    """
    values = np.asarray(values, dtype=np.float64)
    codes, names = pd.factorize(np.asarray(facts))
    sums = np.bincount(codes, weights=values, minlength=len(names))
    return sums * (len(names) / max(len(values), 1))


def sign_flip_test(
    values: Float[np.ndarray, " fact"], *, alternative: str = "two-sided", seed: int = 0
) -> float:
    """Returns the p-value of the sign-flip test of a mean of paired differences.

    Under the null each difference is as likely with the opposite sign. Exact with at most 9,999 sign
    patterns, otherwise from as many random ones.

    Args:
        values: a difference per fact.
        alternative: `two-sided`, or `less` for harm alone.
        seed: of the random patterns.

    >>> sign_flip_test(np.full(5, -1.0)), sign_flip_test(np.full(5, -1.0), alternative="less")
    (0.0625, 0.03125)
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0 or np.isnan(values).any():
        return float("nan")
    if not values.any():
        return 1.0
    found = stats.permutation_test(
        (values,),
        _mean,
        permutation_type="samples",
        vectorized=True,
        alternative=alternative,
        n_resamples=_FLIPS,
        rng=np.random.default_rng([seed, _SIGN_FLIP_SALT]),
    )
    return float(found.pvalue)


def _mean(values: np.ndarray, axis: int) -> Any:
    return values.mean(axis=axis)


def bootstrap_interval(
    values: np.ndarray, *, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Returns the bootstrap interval of a mean: the mean itself if all values are equal, NaN for one value.

    It is the percentile interval, expanded for small samples (Hesterberg 2015, section 3.3): its tails
    are Phi(-sqrt(n / (n - 1)) t), where t is Student's quantile, because a plain one is too narrow by the
    factor sqrt((n - 1) / n) z / t. If few facts change, resamples often contain none of them and the
    interval is too short on one side (it then covers 85% to 92%), so each end is at least as far out as
    Student's.

    >>> low, high = bootstrap_interval(np.array([-1.0, 0.0, -1.0, 0.0] * 5))
    >>> round(low, 2), round(high, 2)
    (-0.75, -0.25)
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2 or np.isnan(values).any():
        return float("nan"), float("nan")
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=1 - 2 * expanded_tail(len(values), confidence),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    half = stats.sem(values) * stats.t.ppf((1 + confidence) / 2, len(values) - 1)
    mean = values.mean()
    return float(min(found.low, mean - half)), float(max(found.high, mean + half))


def resampled_interval(
    value: float, drawn: Float[np.ndarray, " draw"], facts: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Returns the interval of `bootstrap_interval` for a value recomputed from each resample of the facts.

    Student's half width is its quantile times the spread of the draws times sqrt(facts / (facts - 1)).

    >>> low, high = resampled_interval(0.0, np.array([-1.0, 1.0] * 500), 20)
    >>> round(low, 2), round(high, 2)
    (-2.15, 2.15)
    """
    count = max(facts, 2)
    tail = expanded_tail(count, confidence)
    low, high = (float(np.quantile(drawn, share)) for share in (tail, 1 - tail))
    quantile = float(stats.t.ppf((1 + confidence) / 2, count - 1))
    half = quantile * float(drawn.std()) * np.sqrt(count / (count - 1))
    return float(np.minimum(low, value - half)), float(np.maximum(high, value + half))


def expanded_tail(count: int, confidence: float = 0.95) -> float:
    """Returns the share of bootstrap resamples beyond each end of the expanded percentile interval.

    >>> round(expanded_tail(20), 4), round(expanded_tail(10_000), 4)
    (0.0159, 0.025)
    """
    quantile = stats.t.ppf((1 + confidence) / 2, count - 1)
    return float(stats.norm.cdf(-np.sqrt(count / (count - 1)) * quantile))
