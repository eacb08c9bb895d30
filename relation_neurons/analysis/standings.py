"""Standings of several ways of choosing neurons, by how specific their sets are.

    S = mean over relations r of (effect of r's set on r - mean effect of the other sets on r)

That is the column specificity. Averaged over relations it equals the row specificity (both are the mean
of the matrix's diagonal minus that of the rest), so S judges both ways at once, and a set that breaks
every relation gains nothing (method 10; pitfall 24). Negative is specific harm; the most negative comes
first. Of margins S is the median over all relations' facts of the change under the own set minus the
mean of those under the other sets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from relation_neurons.analysis.effects import (
    effect_cells,
    mean_over_relations,
    only_dose,
    paired_changes,
    within_language,
)
from relation_neurons.analysis.interference import specificity_intervals
from relation_neurons.relations.relation import relation_label

__all__ = ["CONTENDER", "comparison_standings", "comparison_table", "count_valued"]

CONTENDER = ["by", "site", "end"]
"""The columns that name a contender."""


def comparison_table(
    effects: pd.DataFrame, *, quantity: str = "correct", contrast: str = "specific"
) -> pd.DataFrame:
    """Tabulates the effect of each contender's set for each relation, at home and elsewhere.

    Args:
        effects: from a `Comparison`, with one dose per contender.
        quantity: `correct` (net flips per prompt) or `margin` (logits).
        contrast: the contrast of the ranking whose sets were ablated.

    Returns:
        A row per contender and relation: by, site, end, score, dose, relation; home, elsewhere,
        others_here, row and column with intervals (see `specificity_intervals`); and control, the
        effect of the contribution-matched control at home, with difference (see `effect_cells`),
        difference_low and difference_high. The last row of a contender, `all relations`, has no
        control of its own.
    """
    shown: dict[str, Any] = {"quantity": quantity, "contrast": contrast}
    parts = []
    for names, rows in effects.groupby(CONTENDER, sort=False, observed=True):
        table = specificity_intervals(rows, **shown).rename(columns={"ablated": "relation"})
        paired, dose = only_dose(paired_changes(within_language(rows), contrast=contrast), None)
        at_home = paired[paired["ablated"] == paired["relation"]]
        home = effect_cells(at_home, ["relation"], quantity=quantity)
        home = home[["relation", "control", "difference", "low", "high"]].rename(
            columns={"low": "difference_low", "high": "difference_high"}
        )
        stated = dict(zip(CONTENDER, names, strict=True))
        stated |= {"score": contrast, "dose": dose}
        table = table.merge(home, how="left", on="relation").assign(**stated)
        parts.append(table[[*stated, *[c for c in table.columns if c not in stated]]])
    return pd.concat(parts, ignore_index=True)


def comparison_standings(
    effects: pd.DataFrame, *, quantity: str = "correct", contrast: str = "specific"
) -> pd.DataFrame:
    """Orders contenders by specificity, and compares each with the first one on the same facts.

    Args:
        effects: from a `Comparison`; its first contender is the one that the others are compared with.
        quantity: `correct` (net flips per prompt) or `margin` (logits).
        contrast: the contrast of the ranking whose sets were ablated.

    Returns:
        A row per contender, the most specific first: place, by, site, end, dose; home and control (means
        over relations, or of margins medians over facts); specificity with its 95% interval low and high
        (see `intervals`); and against_first, its specificity minus that of the first contender, per
        prompt (negative: more specific), with against_first_low and against_first_high, which are NaN
        for the first itself. Of margins against_first is the median of that difference.
    """
    contenders, changes = [], []
    for names, rows in effects.groupby(CONTENDER, sort=False, observed=True):
        paired, dose = only_dose(paired_changes(within_language(rows), contrast=contrast), None)
        home = paired[paired["ablated"] == paired["relation"]]
        per_relation = [part for _, part in home.groupby("relation")]
        contenders.append(
            {**dict(zip(CONTENDER, names, strict=True)), "dose": dose}
            | {
                what: mean_over_relations(
                    [part[f"{quantity}_{column}"].to_numpy(float) for part in per_relation],
                    [part["fact"].to_numpy(str) for part in per_relation],
                    quantity,
                ).value
                for what, column in (("home", "change"), ("control", "control"))
            }
        )
        changes.append(_specific_changes(paired, quantity))
    table = pd.DataFrame(contenders)
    keys = [part.index.get_level_values("fact").to_numpy(str) for part in changes[0]]
    against = [[v - first for v, first in zip(one, changes[0], strict=True)] for one in changes]
    for name, prefix, values in (
        ("specificity", "", changes),
        ("against_first", "against_first_", against),
    ):
        found = [mean_over_relations([v.to_numpy() for v in one], keys, quantity) for one in values]
        table[name] = [one.value for one in found]
        table[f"{prefix}low"] = [one.low for one in found]
        table[f"{prefix}high"] = [one.high for one in found]
    table.loc[0, ["against_first_low", "against_first_high"]] = np.nan
    table = table.sort_values("specificity", kind="stable", ignore_index=True)
    table.insert(0, "place", np.arange(1, len(table) + 1))
    return table


def _specific_changes(paired: pd.DataFrame, quantity: str) -> list[pd.Series]:
    """Returns, per judged relation and prompt, the change under its set minus the mean under the others."""
    found = []
    for relation in sorted(set(paired["ablated"])):
        here = paired[paired["relation"] == relation]
        table = here.pivot(
            index=["prompt_id", "fact"], columns="ablated", values=f"{quantity}_change"
        )
        found.append(table[relation] - table.drop(columns=relation).mean(axis=1))
    return found


def count_valued(sets: pd.DataFrame) -> pd.DataFrame:
    """Counts the neurons of each set that the criterion itself chose, not its tie-breaking order."""
    several = sets["language"].nunique() > 1
    labels = [
        relation_label(relation, language, several=several)
        for relation, language in zip(sets["relation"], sets["language"], strict=True)
    ]
    chosen = sets["value"].notna() & ((sets["by"] != "probe") | (sets["value"] != 0))
    counted = sets.assign(relation=labels, with_value=chosen)
    return counted.groupby([*CONTENDER, "relation"], sort=False)["with_value"].sum().reset_index()
