"""Sign-flip tests over facts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

__all__ = ["by_fact", "sign_flip_test"]

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
