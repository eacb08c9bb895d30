"""Cumulativity: the more of r's neurons are ablated, the more facts of r are lost.

Finding (i) of the paper. Read from the sweep's table, at home (facts of r) and elsewhere.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from relation_neurons.controls import CONTROL_KINDS
from relation_neurons.errors import UnknownOptionError, near_matches
from relation_neurons.statistics import QUANTITIES, bootstrap_interval, of_score, same_language

__all__ = ["dose_curves"]


def dose_curves(
    effects: pd.DataFrame, *, score: str = "specific", quantity: str = "correct", seed: int = 0
) -> pd.DataFrame:
    """Change against the intact model at every dose, for ranked sets and both controls.

    Args:
        effects: the sweep's table. Of several languages, each set is judged in its own.
        score: which ranking's sets.
        quantity: `correct` (net flips per prompt) or `margin` (logits).

    Returns:
        A row per (ablated, ablated_language, where, kind, dose): n (prompts), effect (the mean over
        prompts; a control's draws are averaged per prompt first), low, high (95% bootstrap).
        `where` is `home` or `elsewhere`.
    """
    if quantity not in QUANTITIES:
        raise UnknownOptionError(f"No quantity {quantity!r}. {near_matches(quantity, QUANTITIES)}")
    rows = of_score(same_language(effects), score)
    change = rows[quantity].astype(float) - rows[f"{quantity}_intact"].astype(float)
    home = rows["relation"].astype(str) == rows["ablated"].astype(str)
    rows = rows.assign(change=change, where=np.where(home, "home", "elsewhere"))
    by = ["ablated", "ablated_language", "where", "kind", "dose"]
    per_prompt = rows.groupby([*by, "prompt_id"], observed=True)["change"].mean().reset_index()
    found = []
    for key, cell in per_prompt.groupby(by, observed=True):
        values = cell["change"].to_numpy()
        low, high = bootstrap_interval(values, seed=seed)
        found.append(
            {
                **dict(zip(by, key, strict=True)),
                "n": len(values),
                "effect": float(values.mean()),
                "low": low,
                "high": high,
            }
        )
    table = pd.DataFrame(found)
    order = {"ranked": 0, **{kind: i + 1 for i, kind in enumerate(CONTROL_KINDS)}}
    return table.sort_values(
        ["ablated", "ablated_language", "where", "kind", "dose"],
        key=lambda column: column.map(order) if column.name == "kind" else column,
    ).reset_index(drop=True)
