"""Tests of cells: whether a ranked set's effect on a relation exceeds that of its controls.

Two things vary, and a cell is significant only if the effect stands out from both:

- the facts: a sign-flip test over facts on the ranked set's change minus the mean of its controls';
- the set: other random neurons, matched in the same way, have another effect on the same prompts. The ranked
  set is judged by its rank among them (`draw_tests`), which supposes no shape of their tails.

The p-value of a cell is the larger of the two (an intersection-union test, so its level holds). There are two
families, each corrected by itself:

- `home`, the primary claims: does a relation's set harm its own facts? One-sided; Benjamini-Hochberg over the
  cells at home. Beyond the draws that are judged on all prompts, further ones are judged at home alone,
  until the answer is clear (`draws_needed` says how many more that takes, 0 where it is clear).
- `away`, the secondary ones: two-sided, by the step-down maximum over whole sets. They are claimed only
  where harm at home is shown, of a relation or of all together.

Draws that resemble one another say little: past a `draw_overlap` of `LARGEST_OVERLAP` a cell has no
p-value, and below it the inflation is at least (1 + o) / (1 - o) (method 11; pitfall 26).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from relation_neurons.ablation.controls import effective_draws
from relation_neurons.analysis.draw_tests import (
    ALPHA,
    LEAST_DRAWS,
    all_relations_p,
    away_p,
    deflated,
    draws_needed,
    inflation,
    least_p,
    mid_p,
    overlap_inflation,
    sequential_p,
)
from relation_neurons.analysis.effects import effect_cells, of_contrast, relations_and_subjects
from relation_neurons.analysis.resampling import by_fact, sign_flip_test

__all__ = [
    "LARGEST_OVERLAP",
    "HarmTest",
    "claim_families",
    "control_draw_means",
    "false_discovery",
    "judge_all",
    "judge_cells",
    "judge_home",
]

LARGEST_OVERLAP = 0.25
"""Mean share of neurons that a set's draws may have in common; past it the set has no p-value."""

_CELL = ["ablated", "relation"]
_ROUNDING = 1e-12


def control_draw_means(
    effects: pd.DataFrame, *, contrast: str, control: str, quantity: str
) -> pd.DataFrame:
    """Returns the mean change of each cell's prompts under each control draw.

    Args:
        effects: the sweep's table at one dose, within languages.
        contrast: the contrast of the ranking whose sets are used.
        control: the kind of control.
        quantity: `correct` or `margin`.

    Returns:
        A row per (ablated, relation, draw): change, and draw_overlap (of the set's draws; NaN in a
        table of an earlier version).
    """
    rows = of_contrast(effects, contrast)
    rows = rows[rows["kind"] == control]
    change = rows[quantity].astype(float) - rows[f"{quantity}_intact"].astype(float)
    table = pd.DataFrame({name: rows[name].astype(str) for name in _CELL}).assign(
        draw=rows["draw"],
        change=change,
        draw_overlap=rows["draw_overlap"].astype(float) if "draw_overlap" in rows else np.nan,
    )
    return table.groupby([*_CELL, "draw"]).mean().reset_index()


def judge_cells(
    paired: pd.DataFrame,
    draws: pd.DataFrame,
    further: pd.DataFrame | None = None,
    *,
    quantity: str = "correct",
    seed: int = 0,
) -> pd.DataFrame:
    """Averages and tests the cells of one dose.

    Args:
        paired: from `paired_changes`, at one dose.
        draws: from `control_draw_means`: the draws that were judged on all prompts.
        further: the same of draws that were judged at home alone.
        quantity: `correct` or `margin`.
        seed: of the sign flips and deals.

    Returns:
        The columns of `effect_cells` (p_sign_flip is one-sided at home), and family (`home` / `away`),
        draws (that were read), draw_overlap, effective_draws (see `effective_draws`), inflation,
        p_draws (deflated), p_value (the larger of p_sign_flip and p_draws), q_value (see the module
        docstring), least_p (the smallest p_draws that the draws can show), draws_needed (how many more
        would make the answer clear) and significant.
    """
    own = _Sets.of(paired, draws, further, quantity)
    at_home = paired["ablated"] == paired["relation"]
    judged = [_judge_home(paired, own, quantity, seed)] if at_home.any() else []
    away = paired[~at_home]
    if len(away):
        cells = effect_cells(away, _CELL, quantity=quantity, seed=seed)
        judged.append(_judge_away(cells, own, seed))
    cells = pd.concat(judged).sort_values(_CELL, ignore_index=True)
    cells["effective_draws"] = [
        effective_draws(int(n), 0.0 if np.isnan(o) else o)
        for n, o in zip(cells["draws"], cells["draw_overlap"], strict=True)
    ]
    shown = cells.loc[cells["family"] == "home", "significant"].any()
    if not shown:
        shown = judge_all(paired, draws, cells, quantity=quantity, seed=seed).p_value <= ALPHA
    cells["significant"] &= (cells["family"] == "home") | bool(shown)
    return cells


def judge_home(
    paired: pd.DataFrame,
    draws: pd.DataFrame,
    further: pd.DataFrame | None = None,
    *,
    quantity: str = "correct",
    seed: int = 0,
) -> pd.DataFrame:
    """Tests the cells at home alone, as `judge_cells` does.

    Args:
        paired: as in `judge_cells`, and so are the others; the cells away from home give the inflation.

    Returns:
        The columns of `judge_cells` but effective_draws, a row per relation.
    """
    return _judge_home(paired, _Sets.of(paired, draws, further, quantity), quantity, seed)


class HarmTest(NamedTuple):
    """Whether the ranked sets of all relations together do more harm at home than their controls."""

    p_sign_flip: float
    """One-sided, over subjects: a subject's facts in several relations move together."""
    p_draws: float
    """See `all_relations_p`; deflated."""
    p_value: float
    """The larger of the two."""


def judge_all(
    paired: pd.DataFrame,
    draws: pd.DataFrame,
    cells: pd.DataFrame,
    *,
    quantity: str = "correct",
    seed: int = 0,
) -> HarmTest:
    """Tests the harm at home over all relations, from the draws that were judged on all prompts.

    Where there is one relation only, its own cell's rank is taken, from all its draws.

    Args:
        paired: as in `judge_cells`.
        draws: as in `judge_cells`.
        cells: from `judge_cells`; the inflation is the mean of the cells at home.
        quantity: `correct` or `margin`.
        seed: of the sign flips and deals.
    """
    own = _Sets.of(paired, draws, None, quantity)
    home = cells[(cells["family"] == "home") & cells["ablated"].map(own.can_vary)]
    home = home[[len(own.at_home(name)) > 0 for name in home["ablated"]]]
    if len(home) > 1:
        ranked = np.array([own.ranked[name, name] for name in home["ablated"]])
        found = all_relations_p(ranked, [own.at_home(name) for name in home["ablated"]], seed=seed)
        p_draws = deflated(found, float(home["inflation"].mean()))
    else:
        p_draws = float(home["p_draws"].iloc[0]) if len(home) else float("nan")
    at_home = paired[paired["ablated"] == paired["relation"]]
    difference = at_home[f"{quantity}_difference"].dropna()
    _, subjects = relations_and_subjects(at_home.loc[difference.index, "fact"])
    flips = sign_flip_test(by_fact(difference.to_numpy(), subjects), alternative="less", seed=seed)
    return HarmTest(flips, p_draws, float(np.maximum(flips, p_draws)))


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


class _Sets(NamedTuple):
    """The mean change of each cell under the ranked set and under every draw of its control."""

    ranked: dict[tuple[str, str], float]
    draws: dict[tuple[str, str], np.ndarray]
    further: dict[str, np.ndarray]
    overlap: dict[str, float]

    @classmethod
    def of(
        cls,
        paired: pd.DataFrame,
        draws: pd.DataFrame,
        further: pd.DataFrame | None,
        quantity: str,
    ) -> _Sets:
        ranked = paired.groupby(_CELL)[f"{quantity}_change"].mean().to_dict()
        drawn = {
            key: part.sort_values("draw")["change"].to_numpy() for key, part in draws.groupby(_CELL)
        }
        later = {}
        if further is not None and len(further):
            at_home = further[further["ablated"] == further["relation"]]
            later = {
                str(name): part.sort_values("draw")["change"].to_numpy()
                for name, part in at_home.groupby("ablated")
            }
        overlap = draws.groupby("ablated")["draw_overlap"].mean()
        if further is not None and len(further):  # one draw alone has no overlap
            overlap = overlap.combine_first(further.groupby("ablated")["draw_overlap"].mean())
        return cls(ranked, drawn, later, overlap.to_dict())

    def can_vary(self, name: str) -> bool:
        """Whether the draws of a set differ enough to say anything."""
        overlap = self.overlap.get(name, float("nan"))
        return bool(np.isnan(overlap) or overlap <= LARGEST_OVERLAP)

    def at(self, ablated: str, relation: str) -> np.ndarray:
        """The draws of a cell that were judged on all prompts, in their order."""
        if not self.can_vary(ablated):
            return np.empty(0)
        return self.draws.get((ablated, relation), np.empty(0))

    def at_home(self, name: str) -> np.ndarray:
        """Those of a cell at home."""
        return self.at(name, name)

    def inflated(self, cells: pd.DataFrame) -> pd.DataFrame:
        """Adds each cell's draw overlap and inflation: genomic control, or what the overlap causes."""
        p_values = [
            mid_p(value, self.at(*key))
            for key, value in self.ranked.items()
            if key[0] != key[1] and len(self.at(*key)) >= LEAST_DRAWS
        ]
        common = inflation(np.array(p_values))
        overlap = cells["ablated"].map(self.overlap).astype(float)
        factors = [max(common, overlap_inflation(min(o, 0.99))) for o in overlap]
        return cells.assign(draw_overlap=overlap, inflation=factors)


def _judge_home(paired: pd.DataFrame, own: _Sets, quantity: str, seed: int) -> pd.DataFrame:
    """Judges the cells at home, one-sided."""
    at_home = paired[paired["ablated"] == paired["relation"]]
    home = own.inflated(effect_cells(at_home, _CELL, quantity=quantity, seed=seed))
    home["family"] = "home"
    by_relation = dict(list(at_home.groupby("relation")))
    rows = []
    for name, factor in zip(home["ablated"], home["inflation"], strict=True):
        part = by_relation[name]
        difference = by_fact(part[f"{quantity}_difference"].to_numpy(), part["fact"])
        base = own.at_home(name)
        drawn = np.concatenate([base, own.further.get(name, base[:0])]) if base.size else base
        p, read, stopped = sequential_p(own.ranked[name, name], drawn)
        flips = sign_flip_test(difference, alternative="less", seed=seed)
        rows.append((flips, deflated(p, factor), read, least_p(read, factor=factor), stopped))
    columns = ["p_sign_flip", "p_draws", "draws", "least_p", "stopped"]
    table = home.assign(**pd.DataFrame(rows, columns=columns, index=home.index))
    table["p_value"] = table[["p_sign_flip", "p_draws"]].max(axis=1, skipna=False)
    table["q_value"] = false_discovery(table["p_value"])
    count = int(table["p_value"].notna().sum())
    needed = [draws_needed(max(count, 1), factor=factor) for factor in table["inflation"]]
    clear = table["stopped"].astype(bool) | ~(table["p_sign_flip"] <= ALPHA) | (table["draws"] == 0)
    enough = table["least_p"] * count <= ALPHA + _ROUNDING
    table["significant"] = (table["q_value"] <= ALPHA + _ROUNDING) & enough
    more = np.maximum(np.array(needed, dtype=int) - table["draws"].to_numpy(int), 0)
    table["draws_needed"] = np.where(clear, 0, more)
    return table.drop(columns="stopped")


def _judge_away(away: pd.DataFrame, own: _Sets, seed: int) -> pd.DataFrame:
    """Judges the cells away from home, two-sided, all of them together."""
    away = own.inflated(away).assign(family="away")
    keys = list(zip(away["ablated"], away["relation"], strict=True))
    factors = away["inflation"].to_numpy(float)
    drawn = [own.at(*key) for key in keys]
    table = away.assign(draws=[len(d) for d in drawn])
    tests = _away_tests(keys, own, seed)
    columns: dict[str, list[float]] = {
        name: [] for name in ("p_draws", "q_draws", "least_p", "draws_needed")
    }
    for key, draws, factor in zip(keys, drawn, factors, strict=True):
        found, count = tests.get(key, (float("nan"), float("nan"))), len(draws)
        columns["p_draws"].append(deflated(found[0], factor, sides=2))
        columns["q_draws"].append(deflated(found[1], factor, sides=2))
        columns["least_p"].append(least_p(count, factor=factor, sides=2))
        needed = draws_needed(1, factor=factor, sides=2)
        columns["draws_needed"].append(max(needed - count, 0) if count else 0)
    table = table.assign(**columns)
    table["p_value"] = table[["p_sign_flip", "p_draws"]].max(axis=1, skipna=False)
    table["q_value"] = np.maximum(table.pop("q_draws"), false_discovery(table["p_sign_flip"]))
    table["significant"] = (table["q_value"] <= ALPHA + _ROUNDING) & (table["draws_needed"] == 0)
    return table


def _away_tests(
    keys: Sequence[tuple[str, str]], own: _Sets, seed: int
) -> dict[tuple[str, str], tuple[float, float]]:
    """Returns the p-values, own and adjusted, of every cell away from home that has draws."""
    rows = sorted({a for a, r in keys if len(own.at(a, r))})
    columns = sorted({r for _, r in keys})
    if not rows:
        return {}
    wanted = {(a, r) for a, r in keys if len(own.at(a, r))}
    ranked = np.full((len(rows), len(columns)), np.nan)
    draws = []
    for i, ablated in enumerate(rows):
        count = min(len(own.at(ablated, r)) for r in columns if (ablated, r) in wanted)
        values = np.full((count, len(columns)), np.nan)
        for j, relation in enumerate(columns):
            if (ablated, relation) in wanted:
                ranked[i, j] = own.ranked[ablated, relation]
                values[:, j] = own.at(ablated, relation)[:count]
        draws.append(values)
    found = away_p(ranked, draws, seed=seed)
    return {
        (rows[i], columns[j]): (float(found.own[i, j]), float(found.adjusted[i, j]))
        for i, j in np.argwhere(~np.isnan(ranked)).tolist()
    }


def claim_families(matrix: pd.DataFrame) -> pd.DataFrame:
    """Counts the claims of each family of cells, and says how small a p-value its draws can reach.

    Args:
        matrix: from `interference_matrix`.

    Returns:
        A row per family (`home`, `away`) that has cells: cells, tested (cells with a p-value),
        fewest_draws and most_draws (random sets that were read, of tested cells), draw_overlap (the
        largest), inflation (the largest), least_p (the smallest p_draws that the most draws can show),
        draws_needed (how many more draws would make the answer of every cell clear; 0 where they are),
        unclear (cells that are not significant and whose answer takes more), harmed and improved
        (significant cells, by sign), and open (cells away from home whose q-value is low, which is no
        claim as no harm at home is shown).
    """
    rows = []
    for name in ("home", "away"):
        cells = matrix[matrix["family"] == name]
        if cells.empty:
            continue
        tested = cells[cells["p_value"].notna()]
        sure = cells[cells["significant"]]
        below = (cells["q_value"] <= ALPHA) & (cells["draws_needed"] == 0)
        pending = cells[(cells["draws_needed"] > 0) & ~cells["significant"]]
        rows.append(
            {
                "family": name,
                "cells": len(cells),
                "tested": len(tested),
                "fewest_draws": int(tested["draws"].min()) if len(tested) else 0,
                "most_draws": int(tested["draws"].max()) if len(tested) else 0,
                "draw_overlap": float(cells["draw_overlap"].max()),
                "inflation": float(cells["inflation"].max()),
                "least_p": float(cells["least_p"].min()),
                "draws_needed": int(pending["draws_needed"].max()) if len(pending) else 0,
                "unclear": len(pending),
                "harmed": int((sure["difference"] < 0).sum()),
                "improved": int((sure["difference"] > 0).sum()),
                "open": int((below & ~cells["significant"]).sum()) if name == "away" else 0,
            }
        )
    return pd.DataFrame(rows)
