"""Matrices of effects: interference, and transfer between languages; public through `plots`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from relation_neurons.analysis.cell_tests import claim_families
from relation_neurons.formatting import interval, number
from relation_neurons.plots.charts import heat_plot
from relation_neurons.plots.claims import claim_sentences
from relation_neurons.plots.style import DIVERGING, REVERSED, UNITS, label, named, require
from relation_neurons.version import renamed

__all__ = ["interference", "transfer"]

_CELLS = ("dose", "n", "effect", "control", "low", "high")
_HOME_EDGE = "The outlined diagonal is home."


def interference(matrix: pd.DataFrame, *, quantity: str = "correct") -> go.Figure:
    """Draws the effect of every relation's set on every relation, with zero in the middle.

    A star marks cells that are significant, at home or away from it (see `cell_tests`).

    Args:
        matrix: from `interference_matrix`: ablated, relation, dose, n, effect, control, low, high,
            family, p_value, q_value, draws, least_p, draws_needed, significant, and so on.
        quantity: the quantity of the effect, `correct` or `margin`.
    """
    tested = ("family", "p_value", "q_value", "draws", "draws_needed", "significant")
    require(matrix, ("ablated", "relation", *_CELLS, *tested), "interference_matrix")
    names = list(dict.fromkeys([*matrix["ablated"].astype(str), *matrix["relation"].astype(str)]))
    rows = [name for name in names if (matrix["ablated"].astype(str) == name).any()]
    limit = max(0.1, float(matrix["effect"].abs().max()))
    signs = np.where(matrix["significant"], "*", "")
    numbers = [number(v) + mark for v, mark in zip(matrix["effect"], signs, strict=True)]
    cells = matrix.assign(
        row=matrix["ablated"].astype(str),
        column=matrix["relation"].astype(str),
        value=matrix["effect"],
        text=numbers if len(names) <= 16 else signs,
        hover=[_changes(row, quantity) + _tested(row) for row in matrix.to_dict("records")],
    )
    subtitle = (
        f"{int(matrix['dose'].iloc[0]):,} neurons ablated. {_HOME_EDGE} Blue is improvement, orange is "
        f"harm.<br>{_star(matrix)}"
    )
    if len(matrix) < len(rows) * len(names):
        subtitle += " Grey: another language; see transfer."
    return heat_plot(
        cells,
        rows=rows,
        columns=names,
        limit=(-limit, limit),
        colours=DIVERGING,
        bar=UNITS[quantity][0],
        title="Interference",
        subtitle=subtitle,
        x_title="Relation judged",
        y_title="Relation whose neurons are ablated",
        outlined=[(i, names.index(name)) for i, name in enumerate(rows)],
    )


@renamed(score="contrast")
def transfer(matrix: pd.DataFrame, *, contrast: str | None = None) -> go.Figure:
    """Draws how far sets transfer: between languages if there are several, otherwise between relations.

    Args:
        matrix: from `transfer_matrix`: ablated, ablated_language, relation, language, dose, n,
            effect, control, low, high, transfer.
        contrast: the contrast of the sets, for the title.
    """
    pairs = ("ablated", "ablated_language", "relation", "language")
    require(matrix, (*pairs, *_CELLS, "transfer"), "transfer_matrix")
    several = matrix["language"].nunique() > 1
    if several:  # one block a relation, its languages side by side
        matrix = matrix[matrix["ablated"].astype(str) == matrix["relation"].astype(str)]
    cells = matrix.assign(
        row=named(matrix, "ablated", "ablated_language"),
        column=matrix["language"].astype(str) if several else named(matrix),
        value=matrix["transfer"].astype(float),
        text=[number(v, 1) if np.isfinite(v) else "" for v in matrix["transfer"].astype(float)],
        hover=[
            f"{_changes(row, 'correct')}<br>transfer {number(row['transfer'])}"
            for row in matrix.to_dict("records")
        ],
    )
    rows, columns = list(dict.fromkeys(cells["row"])), list(dict.fromkeys(cells["column"]))
    if len(columns) > 24:
        cells["text"] = ""
    home = cells[matrix["ablated_language"].astype(str) == matrix["language"].astype(str)]
    home = home[home["ablated"].astype(str) == home["relation"].astype(str)]
    return heat_plot(
        cells,
        rows=rows,
        columns=columns,
        limit=(-1.0, 1.0),
        colours=REVERSED,
        bar="share of the own set's effect",
        title=f"Transfer between {'languages' if several else 'relations'}"
        + (f", contrast “{label(contrast)}”" if contrast else ""),
        subtitle="Effect beyond the control, as a share of what the judged own set does. Outlined: home. "
        "Grey: too little to say.<br>Colours end at 1 (as much as the own set) and at \N{MINUS SIGN}1 "
        "(as much, the other way).",
        x_title="Language judged" if several else "Relation judged",
        y_title="Relation whose neurons are ablated",
        outlined=[
            (rows.index(a), columns.index(b))
            for a, b in zip(home["row"], home["column"], strict=True)
        ],
    )


def _star(matrix: pd.DataFrame) -> str:
    """Returns what a star means at home and away from it, or why there is none, a line each."""
    said = claim_sentences(claim_families(matrix))
    marked = "A star marks what is shown. " if matrix["significant"].any() else ""
    return marked + "<br>".join(said.values())


def _tested(row: dict[str, Any]) -> str:
    """Returns the cell's test in words, for the hover text."""
    if not np.isfinite(row["p_value"]):
        return "<br>Not tested: no random sets that differ enough."
    verdict = "significant" if row["significant"] else "not significant"
    if row["draws_needed"]:
        verdict = f"cannot be significant with {row['draws']:,} random sets"
    return f"<br>{verdict}: p = {row['p_value']:.2g}, q = {row['q_value']:.2g}"


def _changes(row: dict[str, Any], quantity: str) -> str:
    return (
        f"Ablating {row['dose']:,} neurons of <i>{label(row['ablated'])}</i> changes "
        f"<i>{label(row['relation'])}</i>:<br>{number(row['effect'])} {UNITS[quantity][0]} "
        f"({row['n']} prompts; control {number(row['control'])};<br>95% interval of the difference "
        f"{interval(row['low'], row['high'])})"
    )
