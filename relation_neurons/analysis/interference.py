"""Interference: ablating r's neurons changes, often improves, facts of another relation.

This is finding (iii) of the paper. An improvement counts if it exceeds the control on the same prompts,
over all held-out facts, and is read beside the share of majority answers (pitfalls 7 and 23).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from relation_neurons.analysis.cell_tests import control_draw_means, judge_cells, judge_home
from relation_neurons.analysis.effects import (
    Estimate,
    estimate,
    mean_over_relations,
    middle,
    only_dose,
    paired_changes,
    relations_and_subjects,
    same_language,
    within_language,
)
from relation_neurons.analysis.intervals import Part, combined_interval, difference_interval
from relation_neurons.errors import UnknownRelationError
from relation_neurons.relations.relation import ALL_RELATIONS
from relation_neurons.version import renamed

__all__ = ["draws_at", "home_cells", "interference_matrix", "specificity", "specificity_intervals"]


@renamed(score="contrast")
def interference_matrix(
    effects: pd.DataFrame,
    home_draws: pd.DataFrame | None = None,
    *,
    dose: int | None = None,
    quantity: str = "correct",
    contrast: str = "specific",
    control: str = "control_contribution",
    seed: int = 0,
) -> pd.DataFrame:
    """Returns the effect of every relation's set on every relation's held-out facts, at one dose.

    Args:
        effects: the sweep's table. With several languages, each set is judged in its own; for the
            others see `transfer_matrix`.
        home_draws: further draws of the control that were judged at home alone (`Results.home_draws`).
        dose: neurons ablated; the middle dose of the sweep by default.
        quantity: `correct` (net flips per prompt) or `margin` (logits).
        contrast: the contrast of the ranking whose sets are used.
        control: the control that the effect is compared with.

    Returns:
        A row per (ablated, relation): dose, the columns of `effect_cells` (of margins effect, control and
        difference are medians over facts), family, draws, draw_overlap, effective_draws, inflation, p_draws,
        p_value, q_value, least_p, draws_needed and significant (see `cell_tests`), and intact (share of
        prompts that the intact model gets right).
    """
    swept, effects = effects, within_language(effects)
    paired, chosen = only_dose(paired_changes(effects, contrast=contrast, control=control), dose)
    draws, further = draws_at(
        swept, home_draws, chosen, contrast=contrast, control=control, quantity=quantity
    )
    cells = judge_cells(paired, draws, further, quantity=quantity, seed=seed)
    once = effects.drop_duplicates("prompt_id")
    intact = (
        once.assign(relation=once["relation"].astype(str))
        .groupby("relation")["correct_intact"]
        .mean()
    )
    cells.insert(2, "dose", chosen)
    return cells.assign(intact=cells["relation"].map(intact))


def home_cells(
    effects: pd.DataFrame,
    home_draws: pd.DataFrame | None = None,
    *,
    dose: int,
    contrast: str = "specific",
    seed: int = 0,
) -> pd.DataFrame:
    """Returns the cells at home of `interference_matrix` by relation and language.

    Args:
        effects: as in `interference_matrix`, and so are the others.

    Returns:
        The columns of `judge_home`, indexed by (relation, language); no row where no relation's facts were
        asked under its own set.
    """
    effects = effects[(effects["dose"] == dose) & (effects["score"].astype(str) == contrast)]
    named = within_language(effects)
    if not (named["ablated"].astype(str) == named["relation"].astype(str)).any():
        return pd.DataFrame()
    draws, further = draws_at(effects, home_draws, dose, contrast=contrast)
    home = judge_home(paired_changes(named, contrast=contrast), draws, further, seed=seed)
    own = same_language(effects)
    once = own.assign(label=named.loc[own.index, "ablated"].astype(str)).drop_duplicates("label")
    pairs = {row.label: (str(row.ablated), str(row.ablated_language)) for row in once.itertuples()}
    index = pd.MultiIndex.from_tuples(
        [pairs[label] for label in home["ablated"]], names=["relation", "language"]
    )
    return home.set_index(index)


def draws_at(
    effects: pd.DataFrame,
    home_draws: pd.DataFrame | None,
    dose: int,
    *,
    contrast: str = "specific",
    control: str = "control_contribution",
    quantity: str = "correct",
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Returns the control draws of one dose: those judged on all prompts, and those judged at home alone.

    Args:
        effects: the sweep's table.
        home_draws: as in `interference_matrix`.
        dose: neurons ablated.
        contrast: as in `interference_matrix`, and so are control and quantity.

    Returns:
        Two tables of `control_draw_means`; the second is None where there are no further draws.
    """
    asked = {"contrast": contrast, "control": control, "quantity": quantity}
    named = within_language(effects)
    draws = control_draw_means(named[named["dose"] == dose], **asked)
    if home_draws is None or home_draws.empty:
        return draws, None
    several = len(named) < len(effects) or named["language"].nunique() > 1
    there = within_language(home_draws, several=several)
    there = there[(there["dose"] == dose) & (there["score"].astype(str) == contrast)]
    return draws, control_draw_means(there, **asked) if len(there) else None


def specificity(matrix: pd.DataFrame, *, column: str = "effect") -> pd.DataFrame:
    """Returns the specificity of each relation's set, both ways (method 10; pitfall 24).

    Row: its effect at home minus its mean effect elsewhere. Column: its effect at home minus the
    mean effect of the other relations' sets there. Negative is specific harm.

    Args:
        matrix: from `interference_matrix`.
        column: `effect`, or `difference` for the effect beyond the control.

    Returns:
        ablated, home, elsewhere, others_here, row, column. NaN if there is only one relation.
    """
    table = matrix.pivot(index="ablated", columns="relation", values=column)
    unjudged = sorted(set(table.index) - set(table.columns))
    if unjudged:
        raise UnknownRelationError(
            f"{unjudged[0]!r} was ablated but not judged; expected its effect at home, which specificity "
            "needs."
        )
    rows = []
    for relation in table.index:
        home = float(table.loc[relation, relation])
        elsewhere = float(table.loc[relation].drop(relation).mean())
        others_here = float(table[relation].drop(relation).mean())
        rows.append(
            {
                "ablated": relation,
                "home": home,
                "elsewhere": elsewhere,
                "others_here": others_here,
                "row": home - elsewhere,
                "column": home - others_here,
            }
        )
    return pd.DataFrame(rows)


@renamed(score="contrast", seed=None)
def specificity_intervals(
    effects: pd.DataFrame,
    *,
    dose: int | None = None,
    quantity: str = "correct",
    contrast: str = "specific",
) -> pd.DataFrame:
    """Returns the specificity of each relation's set, both ways, with 95% intervals (see `intervals`).

    Net flips are averaged as in `specificity`. Of margins, home, elsewhere and others_here are medians
    over facts (elsewhere over those of all other relations); row is home minus elsewhere, its interval
    joined from those of the two (MOVER, Zou and Donner 2008); and column is the median over facts of
    the change under the own set minus the mean of those under the others.

    Args:
        effects: the sweep's table. With several languages, each set is judged in its own.
        dose: neurons ablated; the middle dose of the sweep by default.
        quantity: `correct` (net flips per prompt) or `margin` (logits).
        contrast: the contrast of the ranking whose sets are used.

    Returns:
        ablated, home, home_low, home_high, elsewhere, others_here, row, row_low, row_high, column,
        column_low, column_high. The last row, `all relations`, is the mean of all; of margins, the
        median over all relations' facts, and row is column.
    """
    paired, _ = only_dose(paired_changes(within_language(effects), contrast=contrast), dose)
    judged = [_judged(paired, name, quantity) for name in sorted(set(paired["ablated"]))]
    rows = [_specificity_of(one, judged, quantity) for one in judged]
    rows.append(_specificity_of_all(judged, quantity))
    return pd.DataFrame(rows)


class _Judged(NamedTuple):
    """What every set does to the prompts of one relation."""

    name: str
    changes: dict[str, np.ndarray]
    facts: np.ndarray

    @property
    def home(self) -> np.ndarray:
        """The changes under the relation's own set."""
        return self.changes[self.name]

    @property
    def others(self) -> np.ndarray:
        """The mean changes under the other sets; NaN if there is none."""
        found = [values for name, values in self.changes.items() if name != self.name]
        return np.mean(found, axis=0) if found else np.full(len(self.facts), np.nan)


def _judged(paired: pd.DataFrame, name: str, quantity: str) -> _Judged:
    here = paired[paired["relation"] == name]
    if here.empty:
        raise UnknownRelationError(
            f"{name!r} was ablated but not judged; expected its effect at home, which specificity needs."
        )
    table = here.pivot(index="prompt_id", columns="ablated", values=f"{quantity}_change")
    facts = here.drop_duplicates("prompt_id").set_index("prompt_id")["fact"].loc[table.index]
    changes = {ablated: table[ablated].to_numpy(float) for ablated in table}
    return _Judged(name, changes, facts.to_numpy(str))


def _specificity_of(one: _Judged, judged: Sequence[_Judged], quantity: str) -> dict[str, Any]:
    away = [other for other in judged if other is not one and one.name in other.changes]
    home = estimate(one.home, one.facts, quantity)
    if not away:
        elsewhere = row = Estimate(float("nan"), float("nan"), float("nan"))
    elif quantity == "margin":
        pooled = np.concatenate([other.changes[one.name] for other in away])
        elsewhere = estimate(pooled, np.concatenate([other.facts for other in away]), quantity)
        row = Estimate(home.value - elsewhere.value, *difference_interval(home, elsewhere))
    else:
        values = [other.changes[one.name] for other in away]
        elsewhere = mean_over_relations(values, [other.facts for other in away])
        shares = [(one.home, one.facts, 1.0)]
        shares += [(v, o.facts, -1 / len(away)) for v, o in zip(values, away, strict=True)]
        parts = [Part(v, relations_and_subjects(facts)[1], w) for v, facts, w in shares]
        row = Estimate(home.value - elsewhere.value, *combined_interval(parts))
    column = estimate(one.home - one.others, one.facts, quantity)
    others = middle(one.others, one.facts, quantity)
    return _as_row(one.name, home, elsewhere.value, others, row, column)


def _specificity_of_all(judged: Sequence[_Judged], quantity: str) -> dict[str, Any]:
    """Over all relations row and column are one number: the diagonal's mean minus that of the rest."""
    facts = [one.facts for one in judged]
    home, others, both = (
        mean_over_relations(values, facts, quantity)
        for values in (
            [one.home for one in judged],
            [one.others for one in judged],
            [one.home - one.others for one in judged],
        )
    )
    return _as_row(ALL_RELATIONS, home, others.value, others.value, both, both)


def _as_row(
    name: str, home: Estimate, elsewhere: float, others: float, row: Estimate, column: Estimate
) -> dict[str, Any]:
    return {
        "ablated": name,
        "home": home.value,
        "home_low": home.low,
        "home_high": home.high,
        "elsewhere": elsewhere,
        "others_here": others,
        "row": row.value,
        "row_low": row.low,
        "row_high": row.high,
        "column": column.value,
        "column_low": column.low,
        "column_high": column.high,
    }
