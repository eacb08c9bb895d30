"""Tests of cells: whether a ranked set's effect on a relation exceeds that of its controls.

Two things vary, and a cell is significant only if the effect stands out from both:

- the facts: a sign-flip test over facts on the ranked set's change minus the mean of its controls';
- the set: another set of random neurons, matched in the same way, has another effect on the same
  prompts. The mean change under the ranked set is compared with the spread of the means under its
  control draws, by Student's t. A variance from few draws is imprecise, so it is moderated (as in
  Smyth 2004, with a fixed prior): s^2 = (4 s0^2 + d s^2) / (4 + d), where s0^2 is pooled over all sets
  judged on the same relation and d is the number of draws minus one. The pooled variance counts for
  less than 4 if the other sets have fewer degrees of freedom, so that none is counted twice.

Ranked sets can differ from one another by more than matched random ones do without any effect: on a
random model by a third more variance, and then one shuffled run in eight claims a cell. The matrix itself
shows how much, by genomic control (Devlin and Roeder 1999): the median, over the cells away from home, of
the chi-square that corresponds to p_draws, divided by its expected 0.455, is the `inflation`; if it is
above 1, the variances are multiplied by it. Cells whose controls all have the same effect are left out.

The p-value of a cell is the larger of the two (an intersection-union test, so its level holds), and
Benjamini-Hochberg corrects it over the matrix (method 11; pitfall 26).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from relation_neurons.analysis.effects import effect_cells, of_contrast

__all__ = [
    "ALPHA",
    "control_draw_means",
    "draw_spread",
    "false_discovery",
    "inflation",
    "judge_cells",
    "pooled_draw_test",
    "two_sided",
]

ALPHA = 0.05
"""False-discovery rate at which a cell is called significant."""
PRIOR_FREEDOM = 4
"""Degrees of freedom that the pooled variance counts for, limited to those of the other sets."""
LEAST_CELLS = 6
"""Fewest cells away from home that the inflation is estimated from: those of three relations."""
_ROUNDING = 1e-12
"""Smaller differences and spreads are rounding errors."""


def control_draw_means(
    effects: pd.DataFrame, by: Sequence[str], *, contrast: str, control: str, quantity: str
) -> pd.DataFrame:
    """Returns the mean change of each cell's prompts under each control draw.

    Returns:
        A row per cell of `by` and draw: change.
    """
    rows = of_contrast(effects, contrast)
    rows = rows[rows["kind"] == control]
    change = rows[quantity].astype(float) - rows[f"{quantity}_intact"].astype(float)
    keys = [rows[name].astype(str) for name in by]
    return change.groupby([*keys, rows["draw"]]).mean().rename("change").reset_index()


def draw_spread(draws: pd.DataFrame, by: Sequence[str], judged: Sequence[str]) -> pd.DataFrame:
    """Returns the variance between control draws of each cell, moderated by cells judged on the same prompts.

    Args:
        draws: from `control_draw_means`.
        by: the columns that name a cell.
        judged: those of them that say what is judged (relation, language).

    Returns:
        A row per cell: draws, variance (NaN with one draw everywhere) and freedom (degrees of freedom).
    """
    cells = draws.groupby(list(by))["change"].agg(["size", "var"]).reset_index()
    cells["own"] = cells["size"] - 1
    cells["squares"] = cells["own"] * cells["var"].fillna(0.0)
    pooled = cells.groupby(list(judged))[["squares", "own"]].transform("sum")
    prior = pooled["squares"] / pooled["own"].where(pooled["own"] > 0)
    freedom = np.minimum(PRIOR_FREEDOM + cells["own"], pooled["own"])
    weight = freedom - cells["own"]
    return cells[list(by)].assign(
        draws=cells["size"],
        variance=(weight * prior + cells["squares"]) / freedom.where(freedom > 0),
        freedom=freedom,
    )


def judge_cells(
    paired: pd.DataFrame,
    draws: pd.DataFrame,
    by: Sequence[str],
    judged: Sequence[str],
    *,
    quantity: str = "correct",
    seed: int = 0,
) -> pd.DataFrame:
    """Averages and tests the cells of one dose.

    Returns:
        The columns of `effect_cells`, and draws (of the control), draw_error (standard error of the
        difference between sets, inflation included) with its degrees of freedom, inflation (see
        `inflation`), p_draws, p_value (the larger of p_sign_flip and p_draws), q_value
        (Benjamini-Hochberg over all cells) and significant (q_value at most `ALPHA`).
        With one control draw the spread is unknown: p_draws is NaN and nothing is significant.
    """
    cells = effect_cells(paired, by, quantity=quantity, seed=seed)
    if len(draws):
        cells = cells.merge(draw_spread(draws, by, judged), on=list(by), how="left")
    else:
        cells = cells.assign(draws=0, variance=np.nan, freedom=0)
    cells["draws"] = cells["draws"].fillna(0).astype(int)
    cells["draw_error"] = np.sqrt(cells["variance"] * (1 + 1 / cells["draws"].clip(lower=1)))
    cells["p_draws"] = two_sided(cells["difference"], cells["draw_error"], cells["freedom"])
    away = (cells["ablated"] != cells["relation"]) & (cells["draw_error"] > _ROUNDING)
    cells["inflation"] = inflation(cells.loc[away, "p_draws"])
    cells["draw_error"] *= np.sqrt(cells["inflation"])
    cells["p_draws"] = two_sided(cells["difference"], cells["draw_error"], cells["freedom"])
    cells["p_value"] = cells[["p_sign_flip", "p_draws"]].max(axis=1, skipna=False)
    cells["q_value"] = false_discovery(cells["p_value"])
    cells["significant"] = cells["q_value"] <= ALPHA
    return cells.drop(columns="variance")


def inflation(p_draws: pd.Series) -> float:
    """Returns how much more ranked sets vary than their controls: genomic control's factor, at least 1.

    median(chi-square of one degree of freedom that corresponds to p) / 0.455, over cells without an
    expected effect; 1 with fewer than `LEAST_CELLS` of them.

    >>> inflation(pd.Series([0.6] * 6)), round(inflation(pd.Series([0.3173] * 6)), 2)
    (1.0, 2.2)
    """
    there = p_draws.dropna().to_numpy(float)
    if len(there) < LEAST_CELLS:
        return 1.0
    found = np.median(stats.chi2.isf(there, 1)) / stats.chi2.median(1)
    return max(1.0, float(found))


def two_sided(difference: Any, error: Any, freedom: Any) -> np.ndarray:
    """Returns Student's two-sided p-value; 1 where both difference and error are 0.

    >>> two_sided([2.0, 0.0], [1.0, 0.0], [9, 9]).round(3).tolist()
    [0.077, 1.0]
    """
    size, spread = np.abs(np.asarray(difference, float)), np.asarray(error, float)
    size, spread = (np.where(part < _ROUNDING, 0.0, part) for part in (size, spread))
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(size / spread, np.asarray(freedom, float))
    return np.where((size == 0) & (spread == 0), 1.0, p)


def pooled_draw_test(home: pd.DataFrame) -> float:
    """Returns p_draws of the mean over prompts of several relations' cells, whose draws are independent.

    t = sum(w d) / sqrt(sum(w^2 e^2)), w = n / sum(n), e = draw_error; freedom by Welch-Satterthwaite
    """
    weight = (home["n"] / home["n"].sum()).to_numpy(float)
    parts = (weight * home["draw_error"].to_numpy(float)) ** 2
    freedom = home["freedom"].to_numpy(float)
    total = parts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        welch = total**2 / np.sum(parts**2 / freedom)
    if np.sqrt(total) < _ROUNDING:
        welch = freedom.sum()
    difference = float((weight * home["difference"].to_numpy(float)).sum())
    return float(two_sided(difference, np.sqrt(total), welch))


def false_discovery(p_values: pd.Series) -> np.ndarray:
    """Returns Benjamini-Hochberg q-values; NaN stays NaN and is not counted.

    >>> false_discovery(pd.Series([0.01, 0.04, float("nan"), 0.5])).round(2).tolist()
    [0.03, 0.06, nan, 0.5]
    """
    values = np.asarray(p_values, dtype=np.float64)
    found = np.full(len(values), np.nan)
    there = ~np.isnan(values)
    if there.any():
        found[there] = multipletests(values[there], method="fdr_bh")[1]
    return found
