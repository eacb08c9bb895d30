"""The table of facts that flipped under ablation; public through `plots`."""

from __future__ import annotations

import html
import math
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from relation_neurons.errors import UnknownRelationError, near_matches
from relation_neurons.formatting import number
from relation_neurons.plots.style import (
    BLUE,
    INK,
    LIGHT,
    MISSING,
    PAPER,
    RED,
    finish,
    label,
    require,
)

__all__ = ["flips"]

_NEEDED = (
    *("ablated", "relation", "flip", "subject", "answer", "predicted_intact", "predicted"),
    *("margin_intact", "margin", "control_share", "near_tie", "majority"),
)
_HEADS = {
    "neurons ablated": 150,
    "relation asked": 150,
    "subject": 160,
    "answer": 120,
    "intact model says": 120,
    "ablated model says": 120,
    "margin, logits": 110,
    "control flips": 80,
    "note": 196,
}
"""Column headings and widths."""
_ROW, _HEAD, _CHARACTERS = 26, 48, 7.2


def flips(
    table: pd.DataFrame, relation: str | None = None, *, flip: str | None = None, most: int = 25
) -> go.Figure:
    """Lists the facts that a relation's set turned right (blue) or wrong (orange).

    Args:
        table: from `turned_right`: ablated, relation, flip, subject, answer, predicted_intact,
            predicted, margin_intact, margin, control_share, near_tie, majority.
        relation: the relation whose neurons are ablated; all by default.
        flip: `right` or `wrong`, to show only these.
        most: how many rows are shown, from the top of the table.

    Raises:
        RelationFormatError: a column is missing, or there is no row.
        UnknownRelationError: nothing flipped under that relation's set.
    """
    require(table, _NEEDED, "turned_right")
    rows = table if flip is None else table[table["flip"] == flip]
    if relation is not None:
        known = sorted(set(rows["ablated"]))
        rows = rows[rows["ablated"] == relation]
        if rows.empty:
            raise UnknownRelationError(
                f"No fact flipped under {relation!r}. {near_matches(relation, known)}"
            )
    require(rows, _NEEDED, f"turned_right (with flips {flip!r})")
    counts = rows["flip"].value_counts()
    shown = rows.head(most)
    cells = [_row(row) for row in shown.to_dict("records")]
    colours = [BLUE if kind == "right" else RED for kind in shown["flip"]]
    fig = go.Figure(
        go.Table(
            columnwidth=list(_HEADS.values()),
            header={
                "values": [f"<b>{head}</b>" for head in _HEADS],
                "align": "left",
                "fill": {"color": MISSING},
                "line": {"color": LIGHT},
                "font": {"color": INK, "size": 12},
                "height": _HEAD,
            },
            cells={
                "values": list(map(list, zip(*cells, strict=True))),
                "align": "left",
                "fill": {"color": PAPER},
                "line": {"color": LIGHT},
                "font": {
                    "color": [colours if head == "ablated model says" else INK for head in _HEADS],
                    "size": 12,
                },
                "height": _ROW,
            },
        )
    )
    whose = "Facts" if relation is None else f"Facts under the set of {label(relation, longest=40)}"
    first = f" The first {len(shown)} of {len(rows)}." if len(rows) > len(shown) else ""
    finish(
        fig,
        f"{whose}: {counts.get('right', 0)} turned right, {counts.get('wrong', 0)} turned wrong",
        "Blue: turned right; orange: turned wrong. Control flips: the share of random draws that flip it "
        f"too.<br>Near tie: the intact margin is within 0.2 logits.{first}",
        height=_ROW * len(shown) + _HEAD + 4,
        width=sum(_HEADS.values()),
    )
    return fig.update_layout(margin={"l": 16, "r": 16, "b": 10}, height=fig.layout.height - 50)


def _row(row: dict[str, Any]) -> list[str]:
    """Returns a flip's cells, cut to the width of their columns."""
    share = row["control_share"]
    notes = [name for name in ("majority", "near_tie") if row[name]]
    said = [
        *(str(row[name]).replace("_", " ") for name in ("ablated", "relation")),
        *(str(row[name]) for name in ("subject", "answer", "predicted_intact", "predicted")),
        f"{number(row['margin_intact'])} → {number(row['margin'])}",
        "n/a" if math.isnan(share) else f"{share:.0%}",
        ", ".join(notes).replace("_", " ").replace("majority", "majority answer"),
    ]
    return [_cut(text, width) for text, width in zip(said, _HEADS.values(), strict=True)]


def _cut(text: str, width: int) -> str:
    """Returns text as one line that fits its column, with markup shown as text."""
    longest = int((width - 12) / _CHARACTERS)
    text = " ".join(text.split())
    text = text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
    return html.escape(text, quote=False)
