"""Does harm grow with the dose more than it does under random sets of the same doses?

More ablation does more harm, whatever is ablated: judged against no change at all, most random sets have a
trend. So a set's slope is read by its rank among the slopes of its control's draws:

    slope = sum over doses of (x - mean x) effect / sum of (x - mean x)^2,  x = log dose
    p     = as in `draw_tests`, deflated by the inflation at the dose with the most draws
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from relation_neurons.analysis.cell_tests import LARGEST_OVERLAP
from relation_neurons.analysis.draw_tests import ALPHA, all_relations_p, deflated, rank_p
from relation_neurons.analysis.effects import of_contrast, same_language
from relation_neurons.analysis.interference import interference_matrix
from relation_neurons.relations.relation import ALL_RELATIONS

__all__ = ["trends"]

_SET = ["ablated", "ablated_language", "where"]
_LEAST_DOSES = 3


def trends(
    effects: pd.DataFrame,
    *,
    contrast: str = "specific",
    quantity: str = "correct",
    control: str = "control_contribution",
    seed: int = 0,
) -> pd.DataFrame:
    """Returns the slope of each set's effect over log dose beside those of its control's draws.

    Only doses with a control count, and only draws that have all of them.

    Args:
        effects: the sweep's table. With several languages, each set is judged in its own.
        contrast: the contrast of the ranking whose sets are used.
        quantity: `correct` or `margin`.
        control: the kind of control.
        seed: of the deals over all relations.

    Returns:
        A row per (ablated, ablated_language, where) and, as `all relations`, per (ablated_language, where)
        over those that have draws: slope (change per unit of log dose), control_slope (mean of the
        draws), trend_draws, and p_trend: one-sided, that random sets' effects fall as steeply. It is NaN
        below three doses with a control, without draws enough to reach 0.05 (19 for one relation, fewer
        for all together), and where draws hardly differ.
    """
    rows = of_contrast(same_language(effects), contrast)
    rows = rows[rows["kind"].isin(["ranked", control])]
    if "draw_overlap" in rows:
        alike = (rows["kind"] == control) & (rows["draw_overlap"] > LARGEST_OVERLAP)
        rows = rows[~alike]
    at_home = rows["relation"].astype(str) == rows["ablated"].astype(str)
    change = rows[quantity].astype(float) - rows[f"{quantity}_intact"].astype(float)
    named = [rows["ablated"].astype(str), rows["ablated_language"].astype(str)]
    where = pd.Series(np.where(at_home, "home", "elsewhere"), index=rows.index, name="where")
    keys = [*named, where, rows["kind"].astype(str), rows["draw"], rows["dose"]]
    curves = change.groupby(keys).mean().unstack("dose")
    found: list[dict[str, Any]] = []
    factor = _inflation(effects, contrast, quantity, control, seed)
    for key, cell in curves.groupby(level=_SET):
        slopes = _slopes(cell.droplevel(_SET), control)
        row = dict(zip(_SET, key, strict=True)) | slopes
        found.append(row | {"p_trend": _p_of_one(slopes, factor)})
    for (language, place), part in pd.DataFrame(found).groupby(["ablated_language", "where"]):
        part = part[part["draws"].map(len) > 0]
        found.append(
            {"ablated": ALL_RELATIONS, "ablated_language": language, "where": place}
            | {name: float(part[name].mean()) for name in ("slope", "control_slope")}
            | {"draws": np.empty(int(part["draws"].map(len).min()) if len(part) else 0)}
            | {"p_trend": _p_of_all(part, factor, seed)}
        )
    table = pd.DataFrame(found)
    return table.assign(trend_draws=table["draws"].map(len)).drop(columns="draws")


def _slopes(curves: pd.DataFrame, control: str) -> dict[str, Any]:
    """Returns the slope of the ranked set and of every draw that has all doses of the control."""
    drawn = curves[curves.index.get_level_values("kind") == control].dropna(axis=1, how="all")
    drawn = drawn.dropna()
    ranked = curves.loc[("ranked", 0), drawn.columns]
    nan = float("nan")
    if len(drawn.columns) < _LEAST_DOSES or drawn.empty:
        return {"slope": nan, "control_slope": nan, "draws": np.empty(0)}
    x = np.log(drawn.columns.to_numpy(dtype=np.float64))
    x = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    draws = drawn.to_numpy() @ x
    return {
        "slope": float(ranked.to_numpy() @ x),
        "control_slope": float(draws.mean()),
        "draws": draws,
    }


def _p_of_one(slopes: dict[str, Any], factor: float) -> float:
    draws = slopes["draws"]
    if not len(draws) or deflated(1 / (1 + len(draws)), factor) > ALPHA:
        return float("nan")
    return deflated(rank_p(slopes["slope"], draws), factor)


def _p_of_all(part: pd.DataFrame, factor: float, seed: int) -> float:
    """Returns the p-value over all relations; NaN where no deal could be as rare as 0.05."""
    if deflated(float(np.prod([1 / (1 + len(d)) for d in part["draws"]])), factor) > ALPHA:
        return float("nan")
    found = all_relations_p(part["slope"].to_numpy(), list(part["draws"]), seed=seed)
    return deflated(found, factor)


def _inflation(
    effects: pd.DataFrame, contrast: str, quantity: str, control: str, seed: int
) -> float:
    """Returns the inflation of the cells at the dose with the most draws."""
    rows = of_contrast(effects, contrast)
    drawn = rows[rows["kind"] == control]
    if drawn.empty:
        return 1.0
    dose = drawn.groupby("dose")["draw"].nunique().idxmax()
    asked: dict[str, Any] = {"contrast": contrast, "quantity": quantity, "control": control}
    matrix = interference_matrix(effects, dose=int(dose), seed=seed, **asked)
    return float(matrix["inflation"].mean())
