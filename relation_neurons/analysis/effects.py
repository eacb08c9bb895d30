"""The effect of an ablation, paired per prompt with its controls, in cells and per fact.

Every held-out prompt counts, known or not: known facts can only be lost and unknown ones only gained.
Each prompt is compared with itself under the mean of the set's control draws (method 11; pitfalls 23
and 26). The unit of resampling is the fact: its prompts in several templates change together, so
intervals and tests over single prompts would be too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from relation_neurons.ablation.controls import CONTROL_KINDS
from relation_neurons.analysis.resampling import bootstrap_interval, by_fact, sign_flip_test
from relation_neurons.errors import DoseError, UnknownOptionError, near_matches
from relation_neurons.relations.relation import relation_label

__all__ = [
    "QUANTITIES",
    "effect_cells",
    "fact_changes",
    "fact_keys",
    "of_contrast",
    "only_dose",
    "paired_changes",
    "same_language",
    "subject_keys",
    "within_language",
]

QUANTITIES = ("correct", "margin")
"""`correct`: net flips per prompt, from -1 to 1; `margin`: change of the answer's margin, in logits."""

_KEYS = ["ablated", "ablated_language", "score", "dose"]


def paired_changes(
    effects: pd.DataFrame, *, contrast: str = "specific", control: str = "control_contribution"
) -> pd.DataFrame:
    """Pairs each prompt's change under the ranked set with its mean change under the controls.

    Args:
        effects: the sweep's table.
        contrast: the contrast of the ranking whose sets are used.
        control: `control_contribution` (default) or `control_layer`.

    Returns:
        A row per (ablated set, dose, prompt): ablated, ablated_language, score, dose, prompt_id,
        relation, language, fact (see `fact_keys`), and for both quantities `<quantity>_change`,
        `<quantity>_control` and `<quantity>_difference`; the last two are NaN where no control was
        drawn.
    """
    if control not in CONTROL_KINDS:
        raise UnknownOptionError(
            f"There is no control {control!r}. {near_matches(control, CONTROL_KINDS)}"
        )
    rows = of_contrast(effects, contrast).assign(
        correct_change=lambda t: t["correct"].astype(float) - t["correct_intact"].astype(float),
        margin_change=lambda t: t["margin"].astype(float) - t["margin_intact"].astype(float),
        fact=fact_keys,
    )
    changes = [f"{quantity}_change" for quantity in QUANTITIES]
    paired = rows.loc[
        rows["kind"] == "ranked", [*_KEYS, "prompt_id", "relation", "language", "fact", *changes]
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
    """Keeps the effects of sets on prompts of their own language; the rest is transfer."""
    return effects[effects["ablated_language"].astype(str) == effects["language"].astype(str)]


def within_language(effects: pd.DataFrame, *, several: bool | None = None) -> pd.DataFrame:
    """Keeps what `same_language` does; with several languages, names include the language.

    Args:
        effects: the sweep's table.
        several: whether names include it; by default where the table has several languages.
    """
    rows = same_language(effects)
    if several is None:
        several = len(rows) < len(effects) or rows["language"].nunique() > 1
    if not several:
        return rows if len(rows) < len(effects) else effects
    named = {
        name: [
            relation_label(relation, language, several=True)
            for relation, language in zip(rows[name], rows["language"], strict=True)
        ]
        for name in ("ablated", "relation")
    }
    return rows.assign(**named)


def of_contrast(effects: pd.DataFrame, contrast: str) -> pd.DataFrame:
    """Keeps the sets of one contrast.

    Raises:
        UnknownOptionError: no set of that contrast was ablated.
    """
    known = set(effects["score"].astype(str))
    if contrast not in known:
        raise UnknownOptionError(
            f"There are no effects of the contrast {contrast!r}. {near_matches(contrast, known)}"
        )
    return effects[effects["score"] == contrast]


def fact_keys(effects: pd.DataFrame) -> pd.Series:
    """Returns a key for the fact of each row, the same in all its templates and languages.

    In an older table without the column `fact`, each prompt counts as a fact of its own.
    """
    if "fact" not in effects.columns:
        return effects["prompt_id"].astype(str)
    relation = effects["relation"].astype(str)
    language = effects["language"].astype(str)
    bare = [name.removesuffix(f" ({lang})") for name, lang in zip(relation, language, strict=True)]
    return pd.Series(bare, index=effects.index) + "/" + effects["fact"].astype(str)


def subject_keys(facts: pd.Series) -> pd.Series:
    """Returns the subject of each fact from `fact_keys`, the same in all relations that ask for it."""
    return facts.astype(str).str.split("/", n=1).str[-1]


def fact_changes(rows: pd.DataFrame, quantity: str = "correct") -> Float[np.ndarray, " fact"]:
    """Returns the change against the intact model per fact; a prompt's draws or sets are averaged first.

    Args:
        rows: rows of `effects`, with `fact` from `fact_keys`.
        quantity: `correct` or `margin`.
    """
    change = rows[quantity].astype(float) - rows[f"{quantity}_intact"].astype(float)
    prompt = [rows["prompt_id"], rows["fact"]]
    mean = change.groupby(prompt, observed=True).mean()
    return by_fact(mean.to_numpy(), mean.index.get_level_values(1).to_numpy())


def effect_cells(
    paired: pd.DataFrame, by: Sequence[str], *, quantity: str = "correct", seed: int = 0
) -> pd.DataFrame:
    """Averages paired changes within cells, with intervals and sign-flip tests over facts.

    Returns:
        A row per cell of `by`: n (prompts), facts, effect (mean change under the ranked set), control,
        difference (effect - control), its 95% bootstrap interval over facts, low and high, and
        p_sign_flip (see `sign_flip_test`).
    """
    if quantity not in QUANTITIES:
        raise UnknownOptionError(
            f"There is no quantity {quantity!r}. {near_matches(quantity, QUANTITIES)}"
        )
    rows = []
    for key, cell in paired.groupby(list(by), sort=True, observed=True):
        difference = by_fact(cell[f"{quantity}_difference"].to_numpy(), cell["fact"])
        low, high = bootstrap_interval(difference, seed=seed)
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                "n": len(cell),
                "facts": len(difference),
                "effect": float(cell[f"{quantity}_change"].mean()),
                "control": float(cell[f"{quantity}_control"].mean()),
                "difference": float(difference.mean()),
                "low": low,
                "high": high,
                "p_sign_flip": sign_flip_test(difference, seed=seed),
            }
        )
    return pd.DataFrame(rows)


def only_dose(paired: pd.DataFrame, dose: int | None) -> tuple[pd.DataFrame, int]:
    """Keeps one dose, by default the middle one of those swept.

    Raises:
        DoseError: the dose was not swept.
    """
    doses = sorted(int(d) for d in paired["dose"].unique())
    chosen = doses[len(doses) // 2] if dose is None else int(dose)
    if chosen not in doses:
        raise DoseError(
            f"A dose of {chosen} was not swept; there are {', '.join(map(str, doses))}."
        )
    return paired[paired["dose"] == chosen], chosen
