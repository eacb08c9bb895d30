"""Interference: ablating r's neurons changes, often improves, facts of another relation.

This is finding (iii) of the paper. An improvement counts if it exceeds the control on the same prompts,
over all held-out facts, and is read beside the share of majority answers (pitfalls 7 and 23).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from relation_neurons.analysis.cell_tests import control_draw_means, judge_cells, judge_home
from relation_neurons.analysis.effects import (
    only_dose,
    paired_changes,
    same_language,
    within_language,
)
from relation_neurons.analysis.resampling import RESAMPLES, by_fact, resampled_interval
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
        A row per (ablated, relation): dose, n (prompts), facts, effect, control, difference (effect -
        control) with its 95% interval low and high, p_sign_flip, family, draws, draw_overlap,
        effective_draws, inflation, p_draws, p_value, q_value, least_p, draws_needed and significant
        (see `cell_tests`), and intact (share of prompts that the intact model gets right).
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
        The columns of `judge_home`, indexed by (relation, language).
    """
    effects = effects[(effects["dose"] == dose) & (effects["score"].astype(str) == contrast)]
    named = within_language(effects)
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


@renamed(score="contrast")
def specificity_intervals(
    effects: pd.DataFrame,
    *,
    dose: int | None = None,
    quantity: str = "correct",
    contrast: str = "specific",
    seed: int = 0,
) -> pd.DataFrame:
    """Returns the specificity of each relation's set, both ways, with 95% bootstrap intervals over facts.

    The facts of each judged relation are resampled, the same ones for every set, so that row and
    column keep their pairing.

    Args:
        effects: the sweep's table. With several languages, each set is judged in its own.
        dose: neurons ablated; the middle dose of the sweep by default.
        quantity: `correct` (net flips per prompt) or `margin` (logits).
        contrast: the contrast of the ranking whose sets are used.
        seed: of the bootstrap.

    Returns:
        ablated, home, home_low, home_high, elsewhere, others_here, row, row_low, row_high, column,
        column_low, column_high (see `specificity`). The last row, `all relations`, is the mean of all.
    """
    paired, _ = only_dose(paired_changes(within_language(effects), contrast=contrast), dose)
    names = sorted(set(paired["ablated"]))
    means, resampled = _cell_means(paired, names, quantity, seed)
    measures = {name: _both_ways(values) for name, values in (("", means), ("b", resampled))}
    facts = paired.groupby("relation")["fact"].nunique().reindex(names).to_numpy()
    rows = []
    for i, name in enumerate([*names, ALL_RELATIONS]):
        row: dict[str, Any] = {"ablated": name}
        whole = i == len(names)
        count = int(facts.sum() if whole else facts[i])
        for what, values in measures[""].items():
            drawn = measures["b"][what]
            row[what] = float(values.mean() if whole else values[i])
            if what in ("home", "row", "column"):
                spread = drawn.mean(axis=1) if whole else drawn[:, i]
                row[f"{what}_low"], row[f"{what}_high"] = resampled_interval(
                    float(row[what]), spread, count
                )
        rows.append(row)
    return pd.DataFrame(rows)


def _cell_means(
    paired: pd.DataFrame, names: list[str], quantity: str, seed: int
) -> tuple[Float[np.ndarray, "ablated relation"], Float[np.ndarray, "draw ablated relation"]]:
    """Returns the mean change of each cell, as measured and with each relation's facts resampled."""
    means = np.full((len(names), len(names)), np.nan)
    resampled = np.full((RESAMPLES, len(names), len(names)), np.nan)
    for j, relation in enumerate(names):
        here = paired[paired["relation"] == relation]
        if here.empty:
            raise UnknownRelationError(
                f"{relation!r} was ablated but not judged; expected its effect at home, which specificity "
                "needs."
            )
        table = here.pivot(index="prompt_id", columns="ablated", values=f"{quantity}_change")
        facts = here.drop_duplicates("prompt_id").set_index("prompt_id")["fact"].loc[table.index]
        judged = [name in table.columns for name in names]  # sets of another language are not
        values = np.column_stack([by_fact(table[name].to_numpy(), facts) for name in table.columns])
        values = values[:, [table.columns.get_loc(n) for n in np.array(names)[judged]]]
        count = len(values)
        rng = np.random.default_rng([seed, j])
        weights = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
        means[judged, j], resampled[:, judged, j] = values.mean(axis=0), weights @ values
    return means, resampled


def _both_ways(
    cells: Float[np.ndarray, "*draw ablated relation"],
) -> dict[str, Float[np.ndarray, "*draw ablated"]]:
    """Computes home, elsewhere, others_here, row and column from a matrix of effects."""
    there = ~np.isnan(cells)
    home = np.diagonal(cells, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        elsewhere = (np.nansum(cells, axis=-1) - home) / (there.sum(axis=-1) - 1)
        others = (np.nansum(cells, axis=-2) - home) / (there.sum(axis=-2) - 1)
    alone = (there.sum(axis=-1) < 2), (there.sum(axis=-2) < 2)
    elsewhere, others = np.where(alone[0], np.nan, elsewhere), np.where(alone[1], np.nan, others)
    return {
        "home": home,
        "elsewhere": elsewhere,
        "others_here": others,
        "row": home - elsewhere,
        "column": home - others,
    }
