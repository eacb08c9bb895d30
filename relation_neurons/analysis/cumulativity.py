"""Cumulativity: the more of r's neurons are ablated, the more facts of r are lost.

This is finding (i) of the paper, read from the sweep's table at home (facts of r) and elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from relation_neurons.ablation.controls import CONTROL_KINDS
from relation_neurons.analysis.effects import (
    QUANTITIES,
    fact_changes,
    fact_keys,
    of_contrast,
    paired_changes,
    same_language,
)
from relation_neurons.analysis.resampling import (
    RESAMPLES,
    bootstrap_interval,
    by_fact,
    expanded_tail,
)
from relation_neurons.analysis.trend import trends
from relation_neurons.errors import RelationFormatError, UnknownOptionError, near_matches
from relation_neurons.relations.relation import ALL_RELATIONS
from relation_neurons.version import renamed

__all__ = ["dose_curves", "dose_numbers", "joint_effect"]

_SET = ["ablated", "ablated_language", "where"]

_HALF_DOSE_SALT = 0x68616C
"""Keeps the half dose's resamples of facts apart from other draws from the same seed."""


@renamed(score="contrast")
def dose_curves(
    effects: pd.DataFrame, *, contrast: str = "specific", quantity: str = "correct", seed: int = 0
) -> pd.DataFrame:
    """Returns the change against the intact model at every dose, for ranked sets and both controls.

    Args:
        effects: the sweep's table. With several languages, each set is judged in its own.
        contrast: the contrast of the ranking whose sets are used.
        quantity: `correct` (net flips per prompt) or `margin` (logits).

    Returns:
        A row per (ablated, ablated_language, where, kind, dose): n (prompts), facts, effect (the mean
        over prompts; a control's draws are averaged per prompt first), low, high (95% bootstrap over
        facts). `where` is `home` or `elsewhere`.
    """
    _check(quantity)
    rows = of_contrast(same_language(effects), contrast)
    rows = rows.assign(fact=fact_keys(rows), where=_where(rows))
    by = [*_SET, "kind", "dose"]
    found = []
    for key, cell in rows.groupby(by, observed=True):
        values = fact_changes(cell, quantity)
        low, high = bootstrap_interval(values, seed=seed)
        found.append(
            {
                **dict(zip(by, key, strict=True)),
                "n": cell["prompt_id"].nunique(),
                "facts": len(values),
                "effect": float(values.mean()),
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

    The trend is read against random sets of the same doses (see `trends`), as more ablation does more harm
    whatever is ablated.

    Args:
        effects: the sweep's table. With several languages, each set is judged in its own.
        contrast: the contrast of the ranking whose sets are used.
        quantity: `correct` (net flips per prompt) or `margin` (logits).
        control: the control that the area and the trend are compared with.
        seed: of the bootstrap over facts.

    Returns:
        A row per (ablated, ablated_language, where) and, as `all relations`, per (ablated_language,
        where): n (prompts), facts, doses, largest_effect (by size) and largest_dose (where it occurs),
        last_effect (at the largest dose); half_dose, at which half of last_effect is first reached by
        linear interpolation over log dose, half_low and half_high (an end at the smallest dose means
        that dose or below), and half_reason (why these are NaN, or empty); area, area_low, area_high;
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
            curve = _fact_curves(cell, f"{quantity}_change")
            beside = _fact_curves(cell, f"{quantity}_control").dropna(axis=1)
            rows.append(
                {
                    **dict(zip(_SET, key, strict=True)),
                    "n": cell["prompt_id"].nunique(),
                    "facts": len(curve),
                    "doses": curve.shape[1],
                    **_sizes(curve),
                    **_half(curve, seed)._asdict(),
                    **_areas(curve, beside, seed),
                }
            )
    found = trends(effects, contrast=contrast, quantity=quantity, control=control, seed=seed)
    return pd.DataFrame(rows).merge(found, on=_SET, how="left")


def joint_effect(blocks: pd.DataFrame, *, quantity: str = "margin", seed: int = 0) -> pd.DataFrame:
    """Compares the effect of disjoint blocks of a ranking together with the sum of their effects alone.

        difference = effect of all blocks at once - sum of the blocks' effects, per prompt

    Below 0, the blocks do more harm together than alone: no single block, and so no single neuron,
    carries the relation; the others compensate for the loss of one. Above 0, they overlap in what
    they break. Net flips are bounded by -1, so sums are read in `margin`. Blocks of random neurons
    (`block_sweep(control_draws=…)`) show how effects of any such neurons add up.

    Args:
        blocks: from `block_sweep`.
        quantity: `margin` (logits) or `correct` (net flips per prompt).
        seed: of the bootstrap over facts.

    Returns:
        A row per (ablated, ablated_language, score, kind): size (neurons per block), blocks, n (prompts),
        facts, joint, sum_of_blocks, difference with its 95% interval low and high, and
        block_1, block_2, … (the effect of each).

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
        joint, each = table[0].to_numpy(), table.drop(columns=0)
        facts = table.index.get_level_values("fact")
        difference = by_fact(joint - each.sum(axis=1).to_numpy(), facts)
        low, high = bootstrap_interval(difference, seed=seed)
        found.append(
            {
                **dict(zip(by, key, strict=True)),
                "size": int(cell.loc[cell["block"] > 0, "dose"].iloc[0]),
                "blocks": each.shape[1],
                "n": len(table),
                "facts": len(difference),
                "joint": float(joint.mean()),
                "sum_of_blocks": float(each.mean().sum()),
                "difference": float(difference.mean()),
                "low": low,
                "high": high,
                **{f"block_{block}": float(value) for block, value in each.mean().items()},
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


def _fact_curves(cell: pd.DataFrame, column: str) -> pd.DataFrame:
    """Returns a row per fact and a column per dose, with the mean over facts equal to that over prompts."""
    table = cell.groupby(["prompt_id", "fact", "dose"])[column].mean().unstack("dose")
    facts = table.index.get_level_values("fact")
    return pd.DataFrame({int(dose): by_fact(table[dose].to_numpy(), facts) for dose in table})


def _sizes(curve: pd.DataFrame) -> dict[str, float]:
    means = curve.mean()
    dose = means.abs().idxmax()
    return {
        "largest_effect": float(means[dose]),
        "largest_dose": int(dose),
        "last_effect": float(means.iloc[-1]),
    }


class _Half(NamedTuple):
    """The dose at half effect with its interval, or the reason why there is none."""

    half_dose: float = float("nan")
    half_low: float = float("nan")
    half_high: float = float("nan")
    half_reason: str = ""


def _half(curve: pd.DataFrame, seed: int) -> _Half:
    doses, values = curve.columns.to_numpy(dtype=np.float64), curve.to_numpy()
    half = float(_half_doses(values.mean(axis=0)[None], doses)[0])
    if half == np.inf:
        return _Half(half_reason="no harm at the largest dose")
    if half == -np.inf:
        return _Half(half_reason=f"reached at the smallest dose, {curve.columns[0]:,}, or below it")
    count = len(values)
    weights = np.random.default_rng([seed, _HALF_DOSE_SALT]).multinomial(
        count, np.full(count, 1 / count), size=RESAMPLES
    )
    drawn = _half_doses(weights @ values / count, doses)
    tail = expanded_tail(max(count, 2))
    if (drawn == np.inf).mean() > tail:
        return _Half(half_reason="no clear harm at the largest dose: its interval reaches 0")
    low, high = (np.quantile(drawn, q, method="inverted_cdf") for q in (tail, 1 - tail))
    return _Half(half, max(float(low), float(doses[0])), max(float(high), float(doses[0])))


def _half_doses(
    curves: Float[np.ndarray, "curve dose"], doses: Float[np.ndarray, " dose"]
) -> Float[np.ndarray, " curve"]:
    """Returns where each curve first reaches half its last value: -inf at the first dose, inf if no harm."""
    half = curves[:, -1] / 2
    at = (curves <= half[:, None]).argmax(axis=1)
    row, before = np.arange(len(curves)), np.maximum(at - 1, 0)
    gone, left = curves[row, before] - half, half - curves[row, at]
    share = np.divide(gone, gone + left, out=np.zeros_like(gone), where=gone + left > 0)
    logs = np.log(doses)
    found = np.exp(logs[before] + share * (logs[at] - logs[before]))
    return np.where(half >= 0, np.inf, np.where(at == 0, -np.inf, found))


def _areas(curve: pd.DataFrame, control: pd.DataFrame, seed: int) -> dict[str, float]:
    area = _area(curve)
    low, high = bootstrap_interval(area, seed=seed)
    found = {"area": float(area.mean()), "area_low": low, "area_high": high}
    shared = [dose for dose in curve if dose in control]
    beside = _area(control[shared]) if shared else np.full(len(curve), np.nan)
    difference = (_area(curve[shared]) if shared else area) - beside
    low, high = bootstrap_interval(difference, seed=seed)
    return found | {
        "control_doses": len(shared),
        "control_area": float(beside.mean()),
        "area_difference": float(difference.mean()),
        "difference_low": low,
        "difference_high": high,
    }


def _area(curve: pd.DataFrame) -> Float[np.ndarray, " fact"]:
    """Returns each fact's mean change over log dose, by the trapezoid rule; with one dose, that change."""
    logs = np.log(curve.columns.to_numpy(dtype=np.float64))
    if len(logs) == 1:
        return curve.to_numpy()[:, 0]
    return np.trapezoid(curve.to_numpy(), logs, axis=1) / (logs[-1] - logs[0])
