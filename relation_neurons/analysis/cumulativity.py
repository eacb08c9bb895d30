"""Cumulativity: the more of r's neurons are ablated, the more facts of r are lost.

This is finding (i) of the paper, read from the sweep's table at home (facts of r) and elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import optimize

from relation_neurons.ablation.controls import CONTROL_KINDS
from relation_neurons.analysis.effects import (
    QUANTITIES,
    Estimate,
    estimate,
    fact_keys,
    middle,
    of_contrast,
    paired_changes,
    prompt_changes,
    same_language,
)
from relation_neurons.analysis.resampling import by_fact
from relation_neurons.analysis.trend import trends
from relation_neurons.errors import RelationFormatError, UnknownOptionError, near_matches
from relation_neurons.relations.relation import ALL_RELATIONS
from relation_neurons.version import renamed

__all__ = ["dose_curves", "dose_numbers", "joint_effect"]

_SET = ["ablated", "ablated_language", "where"]


@renamed(score="contrast", seed=None)
def dose_curves(
    effects: pd.DataFrame, *, contrast: str = "specific", quantity: str = "correct"
) -> pd.DataFrame:
    """Returns the change against the intact model at every dose, for ranked sets and both controls.

    Args:
        effects: the sweep's table. With several languages, each set is judged in its own.
        contrast: the contrast of the ranking whose sets are used.
        quantity: `correct` (net flips per prompt) or `margin` (logits).

    Returns:
        A row per (ablated, ablated_language, where, kind, dose): n (prompts), facts, effect (the mean
        over prompts, or of margins the median over facts; a control's draws are averaged per prompt
        first) and its 95% interval low and high (see `intervals`). `where` is `home` or `elsewhere`.
    """
    _check(quantity)
    rows = of_contrast(same_language(effects), contrast)
    rows = rows.assign(fact=fact_keys(rows), where=_where(rows))
    by = [*_SET, "kind", "dose"]
    found = []
    for key, cell in rows.groupby(by, observed=True):
        mean = prompt_changes(cell, quantity)
        facts = mean.index.get_level_values("fact")
        effect, low, high = estimate(mean.to_numpy(), facts, quantity)
        found.append(
            {
                **dict(zip(by, key, strict=True)),
                "n": len(mean),
                "facts": facts.nunique(),
                "effect": effect,
                "low": low,
                "high": high,
            }
        )
    order = {"ranked": 0, **{kind: i + 1 for i, kind in enumerate(CONTROL_KINDS)}}
    return (
        pd.DataFrame(found)
        .sort_values(by, key=lambda column: column.map(order) if column.name == "kind" else column)
        .reset_index(drop=True)
    )


@renamed(score="contrast")
def dose_numbers(
    effects: pd.DataFrame,
    *,
    contrast: str = "specific",
    quantity: str = "correct",
    control: str = "control_contribution",
    seed: int = 0,
) -> pd.DataFrame:
    """Summarises each dose curve in numbers: its size, half-effect dose, area and trend.

        area = integral of the effect over log dose / range of log dose: the mean effect over doses
        half_dose = first dose at which 2 * change - change at the largest dose is at most 0

    Both are computed per prompt and summed up like any effect: averaged over prompts, or of margins the
    median over facts. The interval of the half dose holds the doses at which the interval of that
    difference reaches 0.

    The trend is read against random sets of the same doses (see `trends`), as more ablation does more harm
    whatever is ablated.

    Args:
        effects: the sweep's table. With several languages, each set is judged in its own.
        contrast: the contrast of the ranking whose sets are used.
        quantity: `correct` (net flips per prompt) or `margin` (logits).
        control: the control that the area and the trend are compared with.
        seed: of the deals of the trend.

    Returns:
        A row per (ablated, ablated_language, where) and, as `all relations`, per (ablated_language,
        where): n (prompts), facts, doses, largest_effect (by size) and largest_dose (where it occurs),
        last_effect (at the largest dose); half_dose, at which half of last_effect is first reached by
        linear interpolation over log dose, half_low and half_high (an end at the smallest dose means
        that dose or below), and half_reason (why any of these is NaN, or empty); area, area_low, area_high;
        control_doses (doses with a control) and, over these, control_area and area_difference (area
        minus control_area) with difference_low and difference_high, NaN without a control; slope,
        control_slope, trend_draws and p_trend (see `trends`). Intervals are 95%.
    """
    _check(quantity)
    paired = paired_changes(same_language(effects), contrast=contrast, control=control)
    paired = paired.assign(where=_where(paired))
    rows = []
    for part in (paired, paired.assign(ablated=ALL_RELATIONS)):
        for key, cell in part.groupby(_SET, sort=True):
            curve = _prompt_curves(cell, f"{quantity}_change")
            beside = _prompt_curves(cell, f"{quantity}_control").dropna(axis=1)
            facts = curve.index.get_level_values("fact")
            by_facts = np.column_stack([by_fact(curve[dose].to_numpy(), facts) for dose in curve])
            rows.append(
                {
                    **dict(zip(_SET, key, strict=True)),
                    "n": len(curve),
                    "facts": len(by_facts),
                    "doses": curve.shape[1],
                    **_sizes(curve, quantity),
                    **_half(curve, quantity)._asdict(),
                    **_areas(curve, beside, quantity),
                }
            )
    found = trends(effects, contrast=contrast, quantity=quantity, control=control, seed=seed)
    return pd.DataFrame(rows).merge(found, on=_SET, how="left")


@renamed(seed=None)
def joint_effect(blocks: pd.DataFrame, *, quantity: str = "margin") -> pd.DataFrame:
    """Compares the effect of disjoint blocks of a ranking together with the sum of their effects alone.

        difference = effect of all blocks at once - sum of the blocks' effects, per prompt

    Below 0, the blocks do more harm together than alone: no single block, and so no single neuron,
    carries the relation; the others compensate for the loss of one. Above 0, they overlap in what
    they break. Net flips are bounded by -1, so sums are read in `margin`. Blocks of random neurons
    (`block_sweep(control_draws=…)`) show how effects of any such neurons add up.

    Args:
        blocks: from `block_sweep`.
        quantity: `margin` (logits) or `correct` (net flips per prompt).

    Returns:
        A row per (ablated, ablated_language, score, kind): size (neurons per block), blocks, n (prompts),
        facts, joint, sum_of_blocks, difference with its 95% interval low and high, and
        block_1, block_2, … (the effect of each). Of margins each is a median over facts, so that
        difference need not be joint minus sum_of_blocks; net flips are averaged over prompts.

    Raises:
        RelationFormatError: there is no column `block`, or no joint ablation.
    """
    _check(quantity)
    if "block" not in blocks.columns or not (blocks["block"] == 0).any():
        raise RelationFormatError(
            "The table has no joint ablation (block 0); expected what block_sweep returns."
        )
    change = blocks[quantity].astype(float) - blocks[f"{quantity}_intact"].astype(float)
    rows = blocks.assign(change=change, fact=fact_keys(blocks))
    by = ["ablated", "ablated_language", "score", "kind"]
    found = []
    for key, cell in rows.groupby(by, sort=False, observed=True):
        table = cell.groupby(["prompt_id", "fact", "block"])["change"].mean().unstack("block")
        each, facts = table.drop(columns=0), table.index.get_level_values("fact")
        joint, total = table[0].to_numpy(), each.sum(axis=1).to_numpy()
        difference, low, high = estimate(joint - total, facts, quantity)
        found.append(
            {
                **dict(zip(by, key, strict=True)),
                "size": int(cell.loc[cell["block"] > 0, "dose"].iloc[0]),
                "blocks": each.shape[1],
                "n": len(table),
                "facts": facts.nunique(),
                "joint": middle(joint, facts, quantity),
                "sum_of_blocks": middle(total, facts, quantity),
                "difference": difference,
                "low": low,
                "high": high,
                **{f"block_{i}": middle(each[i].to_numpy(), facts, quantity) for i in each},
            }
        )
    return pd.DataFrame(found)


def _check(quantity: str) -> None:
    if quantity not in QUANTITIES:
        raise UnknownOptionError(
            f"There is no quantity {quantity!r}. {near_matches(quantity, QUANTITIES)}"
        )


def _where(rows: pd.DataFrame) -> np.ndarray:
    home = rows["relation"].astype(str) == rows["ablated"].astype(str)
    return np.where(home, "home", "elsewhere")


def _prompt_curves(cell: pd.DataFrame, column: str) -> pd.DataFrame:
    """Returns a row per (prompt_id, fact) and a column per dose."""
    table = cell.groupby(["prompt_id", "fact", "dose"])[column].mean().unstack("dose")
    return table.rename(columns=int)


def _sizes(curve: pd.DataFrame, quantity: str) -> dict[str, float]:
    facts = curve.index.get_level_values("fact")
    found = pd.Series({dose: middle(curve[dose].to_numpy(), facts, quantity) for dose in curve})
    dose = found.abs().idxmax()
    return {
        "largest_effect": float(found[dose]),
        "largest_dose": int(dose),
        "last_effect": float(found.iloc[-1]),
    }


class _Half(NamedTuple):
    """The dose at half effect with its interval, or the reason why there is none."""

    half_dose: float = float("nan")
    half_low: float = float("nan")
    half_high: float = float("nan")
    half_reason: str = ""


def _half(curve: pd.DataFrame, quantity: str) -> _Half:
    doses = curve.columns.to_numpy(dtype=np.float64)
    facts = curve.index.get_level_values("fact")
    beyond = 2 * curve.to_numpy() - curve.to_numpy()[:, -1:]  # falls to 0 where half is reached

    def left(place: float) -> Estimate:
        before, share = int(place), place % 1
        after = min(before + 1, len(doses) - 1)
        return estimate((1 - share) * beyond[:, before] + share * beyond[:, after], facts, quantity)

    at_doses = [left(float(place)) for place in range(len(doses))]
    if not at_doses[-1].value < 0:
        return _Half(half_reason="no harm at the largest dose")
    if at_doses[0].value <= 0:
        return _Half(half_reason=f"reached at the smallest dose, {curve.columns[0]:,}, or below it")
    if at_doses[-1].high >= 0:
        return _Half(half_reason="no clear harm at the largest dose: its interval reaches 0")
    ends = ["value"] if np.isnan(at_doses[-1].high) else ["value", "low", "high"]
    places = [_first_reached(left, at_doses, end) for end in ends]
    found = np.exp(np.interp(places, np.arange(len(doses)), np.log(doses))).tolist()
    if len(found) == 1:
        return _Half(found[0], half_reason="no interval: fewer than six facts, or all alike")
    return _Half(*found)


def _first_reached(left: Callable[[float], Estimate], at_doses: list[Estimate], end: str) -> float:
    """Returns where an end of the estimate is first at most 0, as a place among the doses.

    Where it is unknown, the lower end counts as there, the upper one as not yet there.
    """

    def height(found: Estimate) -> float:
        value = float(getattr(found, end))
        return value if np.isfinite(value) else (-1.0 if end == "low" else 1.0)

    last = len(at_doses) - 1
    first = next((i for i, found in enumerate(at_doses) if height(found) <= 0), last)
    if first == 0:
        return 0.0
    return float(optimize.brentq(lambda at: height(left(at)), first - 1.0, float(first)))


def _areas(curve: pd.DataFrame, control: pd.DataFrame, quantity: str) -> dict[str, float]:
    facts = curve.index.get_level_values("fact")
    own = _area(curve)
    area = estimate(own, facts, quantity)
    shared = [dose for dose in curve if dose in control]
    beside = _area(control[shared]) if shared else np.full(len(curve), np.nan)
    difference = estimate((_area(curve[shared]) if shared else own) - beside, facts, quantity)
    return {
        "area": area.value,
        "area_low": area.low,
        "area_high": area.high,
        "control_doses": len(shared),
        "control_area": middle(beside, facts, quantity),
        "area_difference": difference.value,
        "difference_low": difference.low,
        "difference_high": difference.high,
    }


def _area(curve: pd.DataFrame) -> Float[np.ndarray, " prompt"]:
    """Returns each prompt's mean change over log dose, by the trapezoid rule; with one dose, that change."""
    logs = np.log(curve.columns.to_numpy(dtype=np.float64))
    if len(logs) == 1:
        return curve.to_numpy()[:, 0]
    return np.trapezoid(curve.to_numpy(), logs, axis=1) / (logs[-1] - logs[0])
