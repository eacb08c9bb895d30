"""Interference: ablating r's neurons changes, often improves, facts of another relation.

Finding (iii) of the paper. An improvement counts where it beats the control on the same prompts,
over all held-out facts, with the share of majority answers beside it (pitfalls 7 and 23).
"""

from __future__ import annotations

import pandas as pd

from relation_neurons.errors import UnknownRelationError
from relation_neurons.statistics import effect_cells, only_dose, paired_changes, within_language

__all__ = ["interference_matrix", "specificity"]


def interference_matrix(
    effects: pd.DataFrame,
    *,
    dose: int | None = None,
    quantity: str = "correct",
    score: str = "specific",
    control: str = "control_contribution",
    seed: int = 0,
) -> pd.DataFrame:
    """Effect of every relation's set on every relation's held-out facts, at one dose.

    Args:
        effects: the sweep's table. Of several languages, each set is judged in its own; for the rest
            see `transfer_matrix`.
        dose: neurons ablated; the middle dose of the sweep by default.
        quantity: `correct` (net flips per prompt) or `margin` (logits).
        score: which ranking's sets.
        control: what the effect is compared with.

    Returns:
        A row per (ablated, relation): dose, n, effect, control, difference (effect - control) with
        its 95% interval low and high, and intact (share of prompts the intact model gets right).
    """
    effects = within_language(effects)
    paired, chosen = only_dose(paired_changes(effects, score=score, control=control), dose)
    cells = effect_cells(paired, ["ablated", "relation"], quantity=quantity, seed=seed)
    once = effects.drop_duplicates("prompt_id")
    intact = (
        once.assign(relation=once["relation"].astype(str))
        .groupby("relation")["correct_intact"]
        .mean()
    )
    cells.insert(2, "dose", chosen)
    return cells.assign(intact=cells["relation"].map(intact))


def specificity(matrix: pd.DataFrame, *, column: str = "effect") -> pd.DataFrame:
    """Specificity of each relation's set, both ways (method 10; pitfall 24).

    Row: its effect at home minus its mean effect elsewhere. Column: its effect at home minus the
    mean effect of the other relations' sets there. Negative is specific harm.

    Args:
        matrix: from `interference_matrix`.
        column: `effect`, or `difference` for the effect beyond the control.

    Returns:
        ablated, home, elsewhere, others_here, row, column. NaN where there is one relation only.
    """
    table = matrix.pivot(index="ablated", columns="relation", values=column)
    unjudged = sorted(set(table.index) - set(table.columns))
    if unjudged:
        raise UnknownRelationError(
            f"{unjudged[0]!r} was ablated but not judged; specificity needs the effect at home."
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
