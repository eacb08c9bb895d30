"""Statistics: an ablation's effect, paired per prompt and against its controls.

The unit is the prompt, and every held-out prompt counts, known or not: known facts can only fall
and unknown ones only rise. The comparison is the same prompt under the mean of the set's control
draws (method 11; pitfalls 23 and 26).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from relation_neurons.controls import CONTROL_KINDS
from relation_neurons.errors import DoseError, UnknownOptionError, near_matches
from relation_neurons.relations import relation_label

__all__ = [
    "QUANTITIES",
    "bootstrap_interval",
    "effect_cells",
    "of_score",
    "only_dose",
    "paired_changes",
    "same_language",
    "within_language",
]

QUANTITIES = ("correct", "margin")
"""`correct`: net flips per prompt, from -1 to 1; `margin`: change of the answer's margin, in logits."""

_KEYS = ["ablated", "ablated_language", "score", "dose"]
_RESAMPLES = 2000


def paired_changes(
    effects: pd.DataFrame, *, score: str = "specific", control: str = "control_contribution"
) -> pd.DataFrame:
    """Pairs each prompt's change under the ranked set with its mean change under the controls.

    Args:
        effects: the sweep's table.
        score: which ranking's sets.
        control: `control_contribution` (default) or `control_layer`.

    Returns:
        A row per (ablated set, dose, prompt): ablated, ablated_language, score, dose, prompt_id,
        relation, language, and for both quantities `<quantity>_change`, `<quantity>_control` and
        `<quantity>_difference`; the control columns are NaN where none was drawn.
    """
    if control not in CONTROL_KINDS:
        raise UnknownOptionError(f"No control {control!r}. {near_matches(control, CONTROL_KINDS)}")
    rows = of_score(effects, score).assign(
        correct_change=lambda t: t["correct"].astype(float) - t["correct_intact"].astype(float),
        margin_change=lambda t: t["margin"].astype(float) - t["margin_intact"].astype(float),
    )
    changes = [f"{quantity}_change" for quantity in QUANTITIES]
    paired = rows.loc[
        rows["kind"] == "ranked", [*_KEYS, "prompt_id", "relation", "language", *changes]
    ]
    controls = (
        rows[rows["kind"] == control]
        .groupby([*_KEYS, "prompt_id"], observed=True)[changes]
        .mean()
        .rename(columns=lambda name: name.replace("_change", "_control"))
    )
    paired = paired.join(controls, on=[*_KEYS, "prompt_id"])
    for quantity in QUANTITIES:
        paired[f"{quantity}_difference"] = (
            paired[f"{quantity}_change"] - paired[f"{quantity}_control"]
        )
    for column in ("ablated", "ablated_language", "score", "relation", "language"):
        paired[column] = paired[column].astype(str)
    return paired.reset_index(drop=True)


def same_language(effects: pd.DataFrame) -> pd.DataFrame:
    """Keeps what sets do to prompts of their own language; the rest is transfer."""
    return effects[effects["ablated_language"].astype(str) == effects["language"].astype(str)]


def within_language(effects: pd.DataFrame) -> pd.DataFrame:
    """Keeps the same, and names `ablated` and `relation` with their language where there are several."""
    rows = same_language(effects)
    if len(rows) == len(effects) and rows["language"].nunique() < 2:
        return effects
    named = {
        name: [
            relation_label(relation, language, several=True)
            for relation, language in zip(rows[name], rows["language"], strict=True)
        ]
        for name in ("ablated", "relation")
    }
    return rows.assign(**named)


def of_score(effects: pd.DataFrame, score: str) -> pd.DataFrame:
    """Keeps the sets of one ranking.

    Raises:
        UnknownOptionError: no set of that score was ablated.
    """
    known = set(effects["score"].astype(str))
    if score not in known:
        raise UnknownOptionError(f"No effects of the score {score!r}. {near_matches(score, known)}")
    return effects[effects["score"] == score]


def effect_cells(
    paired: pd.DataFrame, by: Sequence[str], *, quantity: str = "correct", seed: int = 0
) -> pd.DataFrame:
    """Averages paired changes within cells.

    Returns:
        A row per cell of `by`: n (prompts), effect (mean change under the ranked set), control,
        difference (effect - control) and its 95% bootstrap interval, low and high.
    """
    if quantity not in QUANTITIES:
        raise UnknownOptionError(f"No quantity {quantity!r}. {near_matches(quantity, QUANTITIES)}")
    rows = []
    for key, cell in paired.groupby(list(by), sort=True, observed=True):
        difference = cell[f"{quantity}_difference"].to_numpy()
        low, high = bootstrap_interval(difference, seed=seed)
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                "n": len(cell),
                "effect": float(cell[f"{quantity}_change"].mean()),
                "control": float(cell[f"{quantity}_control"].mean()),
                "difference": float(difference.mean()),
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(rows)


def bootstrap_interval(
    values: np.ndarray, *, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean, over prompts; the mean itself where all are equal.

    >>> bootstrap_interval(np.array([-1.0, 0.0, -1.0, 0.0]))
    (-1.0, 0.0)
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0 or np.isnan(values).any():
        return float("nan"), float("nan")
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def only_dose(paired: pd.DataFrame, dose: int | None) -> tuple[pd.DataFrame, int]:
    """Keeps one dose, the middle one of those there are where none is named.

    Raises:
        DoseError: a dose that was not swept.
    """
    doses = sorted(int(d) for d in paired["dose"].unique())
    chosen = doses[len(doses) // 2] if dose is None else int(dose)
    if chosen not in doses:
        raise DoseError(
            f"A dose of {chosen} was not swept; there are {', '.join(map(str, doses))}."
        )
    return paired[paired["dose"] == chosen], chosen
