"""Overlap of top sets: of two relations as a matrix, of more as an UpSet plot; public through `plots`."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from relation_neurons.analysis.dealt_overlap import NO_DEALS
from relation_neurons.errors import UnknownOptionError, near_matches
from relation_neurons.plots.charts import heat_plot
from relation_neurons.plots.style import (
    BLUE,
    INK,
    LIGHT,
    LONGEST,
    SEQUENTIAL,
    finish,
    label,
    left_out_line,
    named,
    require,
    shots_line,
    tick_size,
)

__all__ = ["intersections", "overlap"]

ORDERS = ("given", "clustered")
_BELOW = 20  # under a plot whose lower axis has no title


def overlap(matrix: pd.DataFrame, *, value: str = "shared", order: str = "given") -> go.Figure:
    """Draws how many neurons the top sets of two relations (or languages) share.

    Args:
        matrix: from `overlap_matrix`: relation, language, other, other_language, score, dose,
            shared, expected, ratio, jaccard, p_value, q_value. What its `attrs` say is written below
            the title: how much all pairs share and by chance, or why that is not known, and which
            relations are left out.
        value: `shared` (neurons), `jaccard` (share of the union) or `ratio` (to chance; empty where
            that is not known, or is none).
        order: `given`, or `clustered`: relations that share much are neighbours (average linkage of
            1 - Jaccard, with optimal leaf order).

    Raises:
        UnknownOptionError: the value or order is unknown.
    """
    bars = {"shared": "neurons shared", "jaccard": "Jaccard index", "ratio": "times chance"}
    if value not in bars:
        raise UnknownOptionError(f"There is no value {value!r}. {near_matches(value, bars)}")
    if order not in ORDERS:
        raise UnknownOptionError(f"There is no order {order!r}. {near_matches(order, ORDERS)}")
    pairs = ("relation", "language", "other", "other_language", "score", "dose")
    require(matrix, (*pairs, *bars, "expected", "p_value", "q_value"), "overlap_matrix")
    cells = matrix.assign(row=named(matrix), column=named(matrix, "other", "other_language"))
    names = list(dict.fromkeys(cells["row"]))
    if order == "clustered":
        names = _clustered(cells, names)
    cells = cells[cells["row"] != cells["column"]]
    digits = 2 if value == "jaccard" else 0
    cells = cells.assign(
        value=cells[value].astype(float),
        text=[
            f"{v:.{digits}f}" if len(names) <= 24 and np.isfinite(v) else "" for v in cells[value]
        ],
        hover=[
            f"<i>{label(c.row)}</i> and <i>{label(c.column)}</i> share {c.shared} of their "
            f"top {c.dose:,} neurons<br>({_against_chance(c)})"
            for c in cells.itertuples()
        ],
    )
    dose, contrast = matrix.iloc[0][["dose", "score"]]
    expected = cells["expected"].mean()
    chance = {"shared": expected, "jaccard": expected / (2 * dose - expected), "ratio": 1.0}[value]
    top = cells["value"].max()
    least = max(3 * chance if np.isfinite(chance) else 0.0, 0.0 if value == "jaccard" else 1.0)
    return heat_plot(
        cells,
        rows=names,
        columns=names,
        limit=(0.0, max(float(top), least) if np.isfinite(top) else 1.0),
        colours=SEQUENTIAL,
        bar=bars[value],
        title=f"Overlap of the top {dose:,} neurons, contrast “{label(contrast)}”",
        subtitle=_chance_line(matrix, expected)
        + "<br>The grey diagonal is a set with itself."
        + ("<br>Relations that share much are neighbours." if order == "clustered" else "")
        + shots_line(matrix)
        + left_out_line(matrix),
        x_title="Relation",
        y_title="Relation",
    )


def intersections(table: pd.DataFrame, *, most: int = 25) -> go.Figure:
    """Draws which neurons relations share, as an UpSet plot.

    A column is a combination of relations; its bar counts the neurons in the top sets of exactly those.

    Args:
        table: from `set_intersections`: relations, degree, shared, expected, ratio, p_value, names, score,
            dose.
        most: how many combinations are shown, those with most neurons first.

    Raises:
        RelationFormatError: a column is missing, or there is no row.
    """
    counts = ("relations", "degree", "shared", "expected", "ratio", "p_value")
    require(table, (*counts, "names", "score", "dose"), "set_intersections")
    shown = table.sort_values(["shared", "degree"], ascending=False, kind="stable").head(most)
    held = pd.Series([name for combination in shown["relations"] for name in combination])
    rows = held.value_counts(sort=True).index.tolist()
    place = {name: i for i, name in enumerate(rows)}
    per_row = 26 if len(rows) <= 12 else 20 if len(rows) <= 24 else 16
    height = 190 + per_row * len(rows)
    fig = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        row_heights=[170, per_row * len(rows)],
        vertical_spacing=20 / height,
    )
    fig.add_bar(
        x=list(range(len(shown))),
        y=shown["shared"].to_numpy(),
        text=[f"{count:,}" for count in shown["shared"]],
        textposition="outside",
        cliponaxis=False,
        marker={"color": BLUE},
        hovertext=[_combined(row) for row in shown.itertuples()],
        hoverinfo="text",
    )
    _dot_matrix(fig, [[place[n] for n in names] for names in shown["relations"]], len(rows))
    dose, contrast = shown.iloc[0][["dose", "score"]]
    ticks = [label(name, longest=LONGEST) for name in rows]
    fig.update_yaxes(title_text="neurons", rangemode="tozero", row=1)
    fig.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=ticks,
        tickfont={"size": tick_size(len(rows))},
        range=[len(rows) - 0.5, -0.5],
        showgrid=False,
        ticks="",
        row=2,
    )
    fig.update_xaxes(range=[-0.6, len(shown) - 0.4], showticklabels=False, showgrid=False, ticks="")
    fig.update_layout(bargap=0.35)
    hidden = f" The {len(shown)} largest of {len(table)}." if len(table) > len(shown) else ""
    fig = finish(
        fig,
        f"Neurons that relations share, top {dose:,}, contrast “{label(contrast)}”",
        "A column counts the neurons that are in the top sets of the marked relations and of no other."
        f"<br>Neurons of one relation alone are left out.{hidden}"
        + (f"<br>{_no_null(table)}." if table["expected"].isna().all() else "")
        + shots_line(table)
        + left_out_line(table),
        height=height,
        width=max(760, 240 + 30 * len(shown)),
    )
    return fig.update_layout(margin_b=_BELOW, height=fig.layout.height - 60 + _BELOW)


def _dot_matrix(fig: go.Figure, columns: list[list[int]], rows: int) -> None:
    """Marks each combination's relations, joined by a line, on a grid of faint dots."""
    grid = [(i, j) for i in range(len(columns)) for j in range(rows)]
    marked = [(i, j) for i, own in enumerate(columns) for j in own]
    place = {"row": 2, "col": 1}
    for points, colour in ((grid, LIGHT), (marked, INK)):
        fig.add_scatter(
            x=[i for i, _ in points],
            y=[j for _, j in points],
            mode="markers",
            marker={"color": colour, "size": 10 if rows <= 24 else 8},
            hoverinfo="skip",
            **place,
        )
    ends = [[(i, min(own)), (i, max(own)), (None, None)] for i, own in enumerate(columns)]
    joined = [point for pair in ends for point in pair]
    fig.add_scatter(
        x=[x for x, _ in joined],
        y=[y for _, y in joined],
        mode="lines",
        line={"color": INK, "width": 2},
        hoverinfo="skip",
        **place,
    )


def _combined(row: Any) -> str:
    """Describes a combination in words, with its first neurons."""
    which = [f"<i>{label(name)}</i>" for name in row.relations]
    said = f"{', '.join(which[:-1])} and {which[-1]}" if len(which) > 1 else which[0]
    names = ", ".join(map(str, row.names[:6])) + (", …" if len(row.names) > 6 else "")
    count = f"{row.shared:,} neuron" + ("s are" if row.shared != 1 else " is")
    return (
        f"{count} in the top {row.dose:,} of<br>{said},<br>and of no other relation "
        f"({_against_chance(row)}):<br>{names}"
    )


def _against_chance(row: Any) -> str:
    """Says how a count compares with chance, as far as that is known."""
    if not np.isfinite(row.expected):
        return "no null"
    times = f"; {row.ratio:.3g} times" if np.isfinite(row.ratio) else ""
    q = f", q = {row.q_value:.2g}" if hasattr(row, "q_value") else ""
    return f"chance {row.expected:.2g}{times}; p = {row.p_value:.2g}{q}"


def _no_null(table: pd.DataFrame) -> str:
    """Says why a table has no null."""
    said = html.escape(table.attrs.get("no_null") or NO_DEALS, quote=False)
    return f"<b>{said[:1].upper()}{said[1:7]}</b>{said[7:]}, so what is chance is not known"


def _chance_line(matrix: pd.DataFrame, expected: float) -> str:
    """Says how much is shared by chance, by a pair and by all pairs together."""
    if not np.isfinite(expected):
        return f"{_no_null(matrix)}."
    line = (
        f"By chance a pair shares {expected:.2g} neurons, the mean over dealt roles of the prompts."
    )
    known = matrix.attrs
    if not np.isfinite(known.get("p_total", np.nan)):
        return line
    return (
        f"{line}<br>All pairs together share {known['shared_total']:,.0f}, by chance "
        f"{known['expected_total']:,.3g} (p = {known['p_total']:.2g}, {known['deals']} deals)."
    )


def _clustered(cells: pd.DataFrame, names: list[str]) -> list[str]:
    """Orders names so that those with a high Jaccard index are neighbours."""
    if len(names) < 3:
        return names
    shared = cells.pivot_table(index="row", columns="column", values="jaccard").loc[names, names]
    distance = 1 - shared.to_numpy(float)
    np.fill_diagonal(distance, 0)
    tree = hierarchy.linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    return [names[i] for i in hierarchy.leaves_list(tree)]
