"""Tests among random sets: does a ranked set do more than random sets matched to it, on the same prompts?

Under the null hypothesis a ranked set is one more draw of its own control, so that all of them are
exchangeable, and p is a share of the ways to deal out which of them is the ranked one. No shape of the tails
is supposed, and no relation's draws are compared with another's:

    one cell        p = (1 + draws that do at least as much) / (1 + draws)
    all relations   p = share of the deals (one set of each relation stands for its ranked one) with as
    much harm

Draws may come one by one until the answer is clear (Besag and Clifford 1991): once `EXCEEDANCES` of n
draws do at least as much, p = EXCEEDANCES / n, which holds its level exactly.

Ranked sets can differ from one another by more than matched random ones do, without any effect. The
cells away from home show how much, by genomic control (Devlin and Roeder 1999) on ranks, and p-values
are deflated by it:

    inflation = median(chi-square of one degree of freedom that belongs to p, ties counted half) /
    0.455, at least 1 deflated  = 1 - Phi(z / sqrt(inflation)),  z the normal deviate of p
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

__all__ = [
    "ALPHA",
    "EXCEEDANCES",
    "AwayTest",
    "all_relations_p",
    "away_p",
    "deflated",
    "draws_needed",
    "inflation",
    "least_p",
    "mid_p",
    "overlap_inflation",
    "rank_p",
    "sequential_p",
]

ALPHA = 0.05
"""Error rate at which a cell is called significant."""
EXCEEDANCES = 10
"""Draws that do at least as much, after which a cell is drawn for no more."""
LEAST_CELLS = 6
"""Fewest cells away from home that the inflation is estimated from: those of three relations."""
LEAST_DRAWS = 4
"""Fewest draws with which a cell tells anything of the inflation."""
_TIE = 1e-9
"""Means of changes that differ by less are equal but for rounding."""
_DEALS_AT_ONCE = 500
_MARGIN = 1.25
"""Draws beyond the fewest that suffice, so that a single claim does not rest on the last one."""
_DEAL_SALT, _STEP_SALT = 0x6465616C, 0x6D617854
"""Keep deals apart from other draws from the same seed."""


def rank_p(value: float, draws: Float[np.ndarray, " draw"]) -> float:
    """Returns the p-value (harm) of one set among random ones, ties counted against it; NaN without a draw.

    Args:
        value: what the ranked set does: the mean change of the cell's prompts.
        draws: what each control draw does to the same prompts; NaN counts as at least as much.

    >>> rank_p(-0.5, np.array([-0.1, 0.0, -0.5])), rank_p(-0.1, np.zeros(39))
    (0.5, 0.025)
    """
    if draws.size == 0 or np.isnan(value):
        return float("nan")
    return (1 + int((~(draws > value + _TIE)).sum())) / (1 + draws.size)


def sequential_p(value: float, draws: Float[np.ndarray, " draw"]) -> tuple[float, int, bool]:
    """Returns the p-value (harm) of a cell that is drawn for until enough draws do as much.

    Later draws, if there are any, are not read, so that a table with more of them says the same.

    Returns:
        p: `EXCEEDANCES` / draws read if it stopped, else that of `rank_p`; the draws read; whether it
            stopped.

    >>> sequential_p(-0.1, np.array([-0.2, 0.0] * 20))
    (0.5263157894736842, 19, True)
    """
    hits = np.cumsum(~(draws > value + _TIE))
    if draws.size and hits[-1] >= EXCEEDANCES:
        read = int(np.searchsorted(hits, EXCEEDANCES)) + 1
        return EXCEEDANCES / read, read, True
    return rank_p(value, draws), int(draws.size), False


def mid_p(value: float, draws: Float[np.ndarray, " draw"]) -> float:
    """Returns the two-sided p-value of a set among draws with ties counted half, as the inflation needs it.

    >>> mid_p(0.0, np.zeros(9)), mid_p(-1.0, np.zeros(9))
    (1.0, 0.1)
    """
    tied = (np.abs(draws - value) <= _TIE).sum()
    below = ((draws < value - _TIE).sum() + 0.5 * tied + 0.5) / (draws.size + 1)
    return float(2 * min(below, 1 - below))


def inflation(p_values: Float[np.ndarray, " cell"]) -> float:
    """Returns how much more ranked sets vary than their draws, from cells without an expected effect.

    Args:
        p_values: `mid_p` of the cells away from home.

    Returns:
        The factor of the module docstring, at least 1; 1 with fewer than `LEAST_CELLS` cells.

    >>> inflation(np.full(6, 0.6)), round(inflation(np.full(6, 0.3173)), 2)
    (1.0, 2.2)
    """
    there = p_values[~np.isnan(p_values)]
    if len(there) < LEAST_CELLS:
        return 1.0
    return max(1.0, float(np.median(stats.chi2.isf(there, 1)) / stats.chi2.median(1)))


def overlap_inflation(overlap: float) -> float:
    """Returns the inflation that draws with neurons in common cause: (1 + o) / (1 - o), 1 where o is
    not known.

    Where effects add up over neurons, draws that share a part o of them vary by 1 - o among themselves, and
    a set that shares none with them stands apart from them by 1 + o.

    >>> round(overlap_inflation(0.1), 3), overlap_inflation(float("nan"))
    (1.222, 1.0)
    """
    return 1.0 if np.isnan(overlap) else (1 + overlap) / (1 - overlap)


def deflated(p_value: float, factor: float, *, sides: int = 1) -> float:
    """Returns a p-value whose normal deviate is divided by the square root of the inflation.

    >>> deflated(0.01, 1.0), round(deflated(0.01, 1.2), 4)
    (0.01, 0.0168)
    """
    if factor == 1 or np.isnan(p_value):
        return float(p_value)
    return float(sides * stats.norm.sf(stats.norm.isf(p_value / sides) / np.sqrt(factor)))


def least_p(draws: int, *, factor: float = 1.0, sides: int = 1) -> float:
    """Returns the smallest p-value that so many draws can show, given the inflation; NaN without any.

    >>> least_p(9), round(least_p(199, factor=1.2), 4)
    (0.1, 0.0094)
    """
    return deflated(1 / (1 + draws), factor, sides=sides) if draws else float("nan")


def draws_needed(cells: int, *, factor: float = 1.0, sides: int = 1) -> int:
    """Returns the draws after which one cell alone can be significant among so many (Benjamini-Hochberg).

    A quarter more than the fewest that reach q = 0.05. With the fewest, one claim would rest on the
    last draw.

    Args:
        cells: the family's; 1 where the p-values hold over all of them.
        factor: the inflation.
        sides: of the p-value that is deflated.

    >>> [draws_needed(cells) for cells in (1, 2, 4, 8)], draws_needed(8, factor=1.2)
    ([24, 49, 99, 199], 402)
    """
    least = deflated(ALPHA / cells, 1 / factor, sides=sides)
    return math.ceil(_MARGIN / least - 1e-6) - 1


def all_relations_p(
    ranked: Float[np.ndarray, " relation"],
    draws: Sequence[Float[np.ndarray, " _"]],
    *,
    deals: int = 99_999,
    seed: int = 0,
) -> float:
    """Returns the p-value that all relations' ranked sets together do as much harm by chance.

        T = sum over relations of (effect - median of the relation's sets) / their standard deviation
        p = (1 + deals whose T is at most the observed) / (1 + deals)

    In each deal one set of every relation, its ranked one or a draw of its control, stands for its
    ranked set; median and deviation are over all of them and the same in each deal, so the test is
    exact whatever the tails. Each relation's harm counts in units of what its own random sets do:
    otherwise one relation whose random sets now and then break everything hides the others. Where there
    are few deals, all of them are counted.

    >>> round(all_relations_p(np.array([-1.0, -1.0]), [np.zeros(4), np.zeros(4)]), 6)
    0.04
    """
    pools = []
    for own, drawn in zip(ranked, draws, strict=True):
        sets = np.append(own, drawn[~np.isnan(drawn)])
        spread = sets.std()
        pools.append((sets - np.median(sets)) / spread if spread > _TIE else np.zeros(len(sets)))
    if not pools:
        return float("nan")
    observed = sum(pool[0] for pool in pools)
    if math.prod(map(len, pools)) <= deals:
        total = np.zeros(1)
        for pool in pools:
            total = (total[:, None] + pool).ravel()
        return float((total <= observed + _TIE).mean())
    rng = np.random.default_rng([seed, _DEAL_SALT])
    total = np.zeros(deals)
    for pool in pools:
        total += pool[rng.integers(len(pool), size=deals)]
    return float((1 + (total <= observed + _TIE).sum()) / (1 + deals))


class AwayTest(NamedTuple):
    """Two-sided p-values of cells away from home; NaN for cells that are left out."""

    own: Float[np.ndarray, "relation cell"]
    """Of each cell by itself: (1 + draws that lie as far out) / (1 + draws)."""
    adjusted: Float[np.ndarray, "relation cell"]
    """Those that hold over all cells together."""


def away_p(
    ranked: Float[np.ndarray, "relation cell"],
    draws: Sequence[Float[np.ndarray, "_ cell"]],
    *,
    deals: int = 9_999,
    seed: int = 0,
) -> AwayTest:
    """Returns two-sided p-values, of each cell and by Westfall and Young's step-down maximum over all.

    A cell's statistic is its distance from the median of the relation's sets, in units of the root mean
    square on that side over all sets that are judged on the same relation. For the maximum each relation's
    sets, its ranked one and its draws, are dealt anew as wholes, with their effects on all cells.

    Args:
        ranked: effect of each relation's set on each judged relation; NaN for cells that are left out.
        draws: the same of each relation's draws.
        deals: random ones.
        seed: of the deals.
    """
    pools = [np.concatenate([own[None], drawn]) for own, drawn in zip(ranked, draws, strict=True)]
    centred = [pool - np.median(pool, axis=0) for pool in pools]
    low, high = _one_sided_spread(np.concatenate(centred))
    scaled = [np.maximum(-values / low, values / high) for values in centred]
    own = np.stack([(values >= values[0] - _TIE).mean(axis=0) for values in scaled])
    observed = np.stack([values[0] for values in scaled]).ravel()
    rng = np.random.default_rng([seed, _STEP_SALT])
    chosen = [rng.integers(len(values), size=deals) for values in scaled]
    there = np.flatnonzero(~np.isnan(observed))
    order = there[np.argsort(observed[there], kind="stable")]
    above = np.zeros(len(order))
    for start in range(0, deals, _DEALS_AT_ONCE):
        some = slice(start, start + _DEALS_AT_ONCE)
        dealt = [values[rows[some]] for values, rows in zip(scaled, chosen, strict=True)]
        running = np.maximum.accumulate(np.concatenate(dealt, axis=1)[:, order], axis=1)
        above += (running >= observed[order] - _TIE).sum(axis=0)
    p = np.full(len(observed), np.nan)
    p[order] = np.maximum.accumulate((1 + above[::-1]) / (1 + deals))[::-1]
    own[np.isnan(ranked)] = np.nan
    return AwayTest(own, np.maximum(p.reshape(ranked.shape), own))


def _one_sided_spread(
    values: Float[np.ndarray, "set cell"],
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """Returns the root mean square below and above 0 of each column, infinite where nothing lies there."""
    there: Bool[np.ndarray, " cell"] = ~np.isnan(values).all(axis=0)
    spreads = []
    for side in (np.minimum, np.maximum):
        spread = np.full(values.shape[1], np.inf)
        spread[there] = np.sqrt(np.nanmean(side(values[:, there], 0) ** 2, axis=0))
        spreads.append(np.where(spread > 0, spread, np.inf))
    return spreads[0], spreads[1]
