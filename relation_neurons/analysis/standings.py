"""Standings of several ways of choosing neurons, by how specific their sets are.

    S = mean over relations r of (effect of r's set on r - mean effect of the other sets on r)

That is the column specificity. Averaged over relations it equals the row specificity (both are the mean
of the matrix's diagonal minus that of the rest), so S judges both ways at once, and a set that breaks
every relation gains nothing (method 10; pitfall 24). Negative is specific harm; the most negative comes
first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from relation_neurons.analysis.effects import (
    effect_cells,
    only_dose,
    paired_changes,
    within_language,
)
from relation_neurons.analysis.interference import specificity_intervals
from relation_neurons.analysis.resampling import RESAMPLES, by_fact, resampled_interval
from relation_neurons.relations.relation import relation_label

__all__ = ["CONTENDER", "comparison_standings", "comparison_table", "count_valued"]

CONTENDER = ["by", "site", "end"]
"""The columns that name a contender."""


def comparison_table(
    effects: pd.DataFrame, *, quantity: str = "correct", contrast: str = "specific", seed: int = 0
) -> pd.DataFrame:
    """Tabulates the effect of each contender's set for each relation, at home and elsewhere.

    Args:
        effects: from a `Comparison`, with one dose per contender.
        quantity: `correct` (net flips per prompt) or `margin` (logits).
        contrast: the contrast of the ranking whose sets were ablated.
        seed: of the bootstrap.

    Returns:
        A row per contender and relation: by, site, end, score, dose, relation; home, elsewhere,
        others_here, row and column with intervals (see `specificity_intervals`); and control, the
        mean of the contribution-matched control at home, with difference (home - control),
        difference_low and difference_high. The last row of a contender, `all relations`, has no
        control of its own.
    """
    shown: dict[str, Any] = {"quantity": quantity, "contrast": contrast, "seed": seed}
    parts = []
    for names, rows in effects.groupby(CONTENDER, sort=False, observed=True):
        table = specificity_intervals(rows, **shown).rename(columns={"ablated": "relation"})
        paired, dose = only_dose(paired_changes(within_language(rows), contrast=contrast), None)
        at_home = paired[paired["ablated"] == paired["relation"]]
        home = effect_cells(at_home, ["relation"], quantity=quantity, seed=seed)
        home = home[["relation", "control", "difference", "low", "high"]].rename(
            columns={"low": "difference_low", "high": "difference_high"}
        )
        stated = dict(zip(CONTENDER, names, strict=True))
        stated |= {"score": contrast, "dose": dose}
        table = table.merge(home, how="left", on="relation").assign(**stated)
        parts.append(table[[*stated, *[c for c in table.columns if c not in stated]]])
    return pd.concat(parts, ignore_index=True)


def comparison_standings(
    effects: pd.DataFrame, *, quantity: str = "correct", contrast: str = "specific", seed: int = 0
) -> pd.DataFrame:
    """Orders contenders by specificity, and compares each with the first one on the same facts.

    The facts of each judged relation are resampled, the same ones for every contender, so that the
    difference of two contenders is paired.

    Args:
        effects: from a `Comparison`; its first contender is the one that the others are compared with.
        quantity: `correct` (net flips per prompt) or `margin` (logits).
        contrast: the contrast of the ranking whose sets were ablated.
        seed: of the bootstrap.

    Returns:
        A row per contender, the most specific first: place, by, site, end, dose; home and control (means
        over relations); specificity with its 95% interval low and high; and against_first, its
        specificity minus that of the first contender (negative: more specific), with against_first_low
        and against_first_high.
    """
    contenders, changes = [], []
    for names, rows in effects.groupby(CONTENDER, sort=False, observed=True):
        paired, dose = only_dose(paired_changes(within_language(rows), contrast=contrast), None)
        home = paired[paired["ablated"] == paired["relation"]].groupby("relation")
        contenders.append(
            {
                **dict(zip(CONTENDER, names, strict=True)),
                "dose": dose,
                "home": home[f"{quantity}_change"].mean().mean(),
                "control": home[f"{quantity}_control"].mean().mean(),
            }
        )
        changes.append(_specific_changes(paired, quantity))
    per_relation = [np.column_stack(values) for values in zip(*changes, strict=True)]
    drawn = np.zeros((RESAMPLES, len(contenders)))
    for j, values in enumerate(per_relation):
        rng = np.random.default_rng([seed, j])  # the draws of `specificity_intervals`
        count = len(values)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
        drawn += weights @ values / len(per_relation)
    specificity = np.mean([values.mean(axis=0) for values in per_relation], axis=0)
    facts = sum(map(len, per_relation))
    table = pd.DataFrame(contenders)
    for name, value, spread in (
        ("", specificity, drawn),
        ("against_first", specificity - specificity[0], drawn - drawn[:, :1]),
    ):
        table[name or "specificity"] = value
        ends = [resampled_interval(*both, facts) for both in zip(value, spread.T, strict=True)]
        for i, end in enumerate(("low", "high")):
            table[f"{name}_{end}".lstrip("_")] = [both[i] for both in ends]
    table = table.sort_values("specificity", kind="stable", ignore_index=True)
    table.insert(0, "place", np.arange(1, len(table) + 1))
    return table


def _specific_changes(paired: pd.DataFrame, quantity: str) -> list[Float[np.ndarray, " fact"]]:
    """Returns, per judged relation and fact, the change under its own set minus the mean under the others."""
    found = []
    for relation in sorted(set(paired["ablated"])):
        here = paired[paired["relation"] == relation]
        table = here.pivot(index="prompt_id", columns="ablated", values=f"{quantity}_change")
        facts = here.drop_duplicates("prompt_id").set_index("prompt_id")["fact"].loc[table.index]
        change = table[relation] - table.drop(columns=relation).mean(axis=1)
        found.append(by_fact(change.to_numpy(), facts))
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
