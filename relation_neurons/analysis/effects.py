"""The effect of an ablation, paired per prompt with its controls, in cells and per fact.

Every held-out prompt counts, known or not: known facts can only be lost and unknown ones only gained.
Each prompt is compared with itself under the mean of the set's control draws (method 11; pitfalls 23
and 26). What counts is the fact: its prompts in several templates change together, so intervals and
tests over single prompts would be too narrow. Over several relations it is the subject, for the same
reason (see `intervals`).

Net flips are averaged over prompts. Of margins the *median over facts* is told, of each fact's mean over its
prompts: they have tails for which no interval of a mean holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from relation_neurons.ablation.controls import CONTROL_KINDS
from relation_neurons.analysis.intervals import Part, combined_interval, median_interval
from relation_neurons.analysis.resampling import by_fact, sign_flip_test
from relation_neurons.errors import DoseError, UnknownOptionError, near_matches
from relation_neurons.relations.relation import relation_label

__all__ = [
    "QUANTITIES",
    "Estimate",
    "effect_cells",
    "estimate",
    "fact_changes",
    "fact_keys",
    "mean_over_relations",
    "middle",
    "of_contrast",
    "only_dose",
    "paired_changes",
    "prompt_changes",
    "relations_and_subjects",
    "same_language",
    "within_language",
]

QUANTITIES = ("correct", "margin")
"""`correct`: net flips per prompt, from -1 to 1; `margin`: change of the answer's margin, in logits.

Net flips are means over prompts, margins medians over facts.
"""

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


def relations_and_subjects(
    facts: np.ndarray | pd.Series | pd.Index,
) -> tuple[np.ndarray, np.ndarray]:
    """Splits keys of facts into relation and subject.

    Where each prompt counts as a fact of its own, it is its own subject, of one nameless relation.

    >>> [part.tolist() for part in relations_and_subjects(np.array(["capital/fr", "3"]))]
    [['capital', ''], ['fr', '3']]
    """
    keys, codes = np.unique(np.asarray(facts).astype(str), return_inverse=True)
    parts = [key.partition("/") if "/" in key else ("", "/", key) for key in keys]
    return np.array([part[0] for part in parts])[codes], np.array([part[2] for part in parts])[
        codes
    ]


class Estimate(NamedTuple):
    """A number and its 95% interval; NaN where it is unknown."""

    value: float
    low: float
    high: float


def middle(
    values: Float[np.ndarray, " prompt"],
    facts: np.ndarray | pd.Series | pd.Index,
    quantity: str = "correct",
) -> float:
    """Returns the mean net flips over prompts, or the median over facts of each one's mean margin."""
    if quantity == "margin" and not np.isnan(values).any():
        codes, _ = pd.factorize(np.asarray(facts))
        return float(np.median(np.bincount(codes, weights=values) / np.bincount(codes)))
    return float(np.mean(values))


def estimate(
    values: Float[np.ndarray, " prompt"],
    facts: np.ndarray | pd.Series | pd.Index,
    quantity: str = "correct",
) -> Estimate:
    """Returns the value of `middle` with its 95% interval (see `intervals`).

    Args:
        values: each prompt's change, or its difference from another.
        facts: the fact of each prompt, from `fact_keys`. Facts of several relations about one subject are
            a cluster.
        quantity: `correct` or `margin`.
    """
    value = middle(values, facts, quantity)
    if np.isnan(value):
        return Estimate(value, value, value)
    if quantity == "margin":
        codes, keys = pd.factorize(np.asarray(facts))
        per_fact = np.bincount(codes, weights=values) / np.bincount(codes)
        return Estimate(value, *median_interval(per_fact, relations_and_subjects(keys)[1]))
    relations, subjects = relations_and_subjects(facts)
    inside = [relations == name for name in np.unique(relations)]
    parts = [Part(values[here], subjects[here], float(here.mean())) for here in inside]
    return Estimate(value, *combined_interval(parts))


def mean_over_relations(
    values: Sequence[Float[np.ndarray, " _prompt"]],
    facts: Sequence[np.ndarray],
    quantity: str = "correct",
) -> Estimate:
    """Returns the mean over relations of their mean net flips, or the median margin over all their facts.

    Args:
        values: each relation's prompts, as for `estimate`.
        facts: the facts of these.
        quantity: `correct` or `margin`.
    """
    if quantity == "margin":
        return estimate(np.concatenate(values), np.concatenate(facts), quantity)
    weight = 1 / len(values)
    subjects = [relations_and_subjects(keys)[1] for keys in facts]
    parts = [Part(part, own, weight) for part, own in zip(values, subjects, strict=True)]
    return Estimate(float(np.mean([part.mean() for part in values])), *combined_interval(parts))


def prompt_changes(rows: pd.DataFrame, quantity: str = "correct") -> pd.Series:
    """Returns the change against the intact model per prompt_id and fact; draws or sets are averaged.

    Args:
        rows: rows of `effects`, with `fact` from `fact_keys`.
        quantity: `correct` or `margin`.
    """
    change = rows[quantity].astype(float) - rows[f"{quantity}_intact"].astype(float)
    return change.groupby([rows["prompt_id"], rows["fact"]], observed=True).mean()


def fact_changes(rows: pd.DataFrame, quantity: str = "correct") -> Float[np.ndarray, " fact"]:
    """Returns the change against the intact model per fact, scaled as in `by_fact`.

    Args:
        rows: rows of `effects`, with `fact` from `fact_keys`.
        quantity: `correct` or `margin`.
    """
    mean = prompt_changes(rows, quantity)
    return by_fact(mean.to_numpy(), mean.index.get_level_values(1).to_numpy())


def effect_cells(
    paired: pd.DataFrame, by: Sequence[str], *, quantity: str = "correct", seed: int = 0
) -> pd.DataFrame:
    """Sums up paired changes within cells, with intervals and sign-flip tests over facts.

    Returns:
        A row per cell of `by`: n (prompts), facts, effect (the change under the ranked set), control,
        difference (effect - control, per prompt), its 95% interval low and high, mean_difference and
        p_sign_flip (see `sign_flip_test`). With `correct` they are means over prompts. With `margin`
        effect, control and difference are medians over facts, so that difference need not be effect
        minus control; mean_difference is the mean over prompts, which p_sign_flip tests.
    """
    if quantity not in QUANTITIES:
        raise UnknownOptionError(
            f"There is no quantity {quantity!r}. {near_matches(quantity, QUANTITIES)}"
        )
    rows = []
    for key, cell in paired.groupby(list(by), sort=True, observed=True):
        change, control, paired_difference = (
            cell[f"{quantity}_{name}"].to_numpy(float)
            for name in ("change", "control", "difference")
        )
        difference = estimate(paired_difference, cell["fact"], quantity)
        values = by_fact(paired_difference, cell["fact"])
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                "n": len(cell),
                "facts": len(values),
                "effect": middle(change, cell["fact"], quantity),
                "control": middle(control, cell["fact"], quantity),
                "difference": difference.value,
                "low": difference.low,
                "high": difference.high,
                "mean_difference": float(values.mean()),
                "p_sign_flip": sign_flip_test(values, seed=seed),
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
