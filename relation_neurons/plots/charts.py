"""The dot chart and the heat chart that most figures are made of."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from relation_neurons.plots.style import (
    GREY,
    INK,
    LIGHT,
    LONGEST,
    MISSING,
    finish,
    label,
    tick_size,
)

__all__ = ["Style", "dot_plot", "heat_plot"]

_BAR_TITLE, _SHORT = 13, 4
"""Characters per line above the colour bar, and of column names that are not slanted."""


class Style(NamedTuple):
    """How one kind of point or line is drawn and named."""

    name: str
    colour: str
    symbol: str


def dot_plot(
    points: pd.DataFrame,
    styles: Mapping[str, Style],
    rows: Sequence[str],
    *,
    title: str,
    subtitle: str,
    x_title: str,
    total: str | None = None,
) -> go.Figure:
    """Draws a row of dots per name, one dot per style, with intervals.

    Args:
        points: the columns row, what, effect, hover and, for intervals, low and high.
        styles: how each `what` is drawn, in drawing order from the top of a row.
        rows: names from top to bottom.
        title: the figure's title.
        subtitle: the text below the title.
        x_title: the quantity with its unit.
        total: the name of a last row that a line sets apart.
    """
    fig = go.Figure()
    place = {name: i for i, name in enumerate(rows)}
    shown = [what for what in styles if (points["what"] == what).any()]
    step = min(0.2, 0.72 / max(len(shown), 1))
    for k, what in enumerate(shown):
        style = styles[what]
        here = points[(points["what"] == what) & points["row"].isin(place)]
        error = None
        if {"low", "high"} <= set(here.columns) and here["low"].notna().any():
            error = {
                "type": "data",
                "symmetric": False,
                "array": (here["high"] - here["effect"]).clip(lower=0).fillna(0).to_numpy(float),
                "arrayminus": (here["effect"] - here["low"])
                .clip(lower=0)
                .fillna(0)
                .to_numpy(float),
                "thickness": 1.5,
                "width": 0,
            }
        fig.add_scatter(
            x=here["effect"].to_numpy(float),
            y=here["row"].map(place).to_numpy(float) + (k - (len(shown) - 1) / 2) * step,
            error_x=error,
            mode="markers",
            marker={
                "color": style.colour,
                "symbol": style.symbol,
                "size": 10,
                "line": {"width": 2 if "-open" in style.symbol else 0, "color": style.colour},
            },
            name=style.name,
            hovertext=here["hover"].tolist(),
            hoverinfo="text",
        )
    names = [label(name, longest=LONGEST) for name in rows]
    if total in place:
        names[place[str(total)]] = f"<b>{label(total)}</b>"
        fig.add_hline(y=place[str(total)] - 0.5, line={"color": INK, "width": 1})
    fig.add_vline(x=0, line={"color": GREY, "width": 1})
    fig.update_xaxes(title_text=x_title)
    fig.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=names,
        tickfont={"size": tick_size(len(rows))},
        range=[len(rows) - 0.5, -0.5],
        showgrid=False,
        ticks="",
        minor={
            "tickvals": [i + 0.5 for i in range(len(rows) - 1)],
            "showgrid": True,
            "gridcolor": LIGHT,
        },
    )
    per_row = (16 if len(rows) <= 12 else 12) * max(len(shown), 2)
    return finish(
        fig, title, subtitle, height=max(160, per_row * len(rows)), width=860, legend=True
    )


def heat_plot(
    cells: pd.DataFrame,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    limit: tuple[float, float],
    colours: list,
    bar: str,
    title: str,
    subtitle: str,
    x_title: str,
    y_title: str,
    outlined: Iterable[tuple[int, int]] = (),
    slanted: bool = True,
) -> go.Figure:
    """Draws a heatmap with text in each cell; cells that are missing or NaN are grey.

    Args:
        cells: the columns row, column, value, text (shown in the cell) and hover.
        rows: names of the rows, top first.
        columns: names of the columns.
        limit: the values at the two ends of the colour scale.
        colours: the colour scale.
        bar: the title of the colour bar, with its unit.
        title: the figure's title.
        subtitle: the text below the title.
        x_title: the title of the columns.
        y_title: the title of the rows.
        outlined: (row, column) of the cells with a dark frame.
        slanted: whether long column names are slanted.
    """
    values = np.full((len(rows), len(columns)), np.nan)
    text = [[""] * len(columns) for _ in rows]
    hover = [[""] * len(columns) for _ in rows]
    down, along = ({name: i for i, name in enumerate(names)} for names in (rows, columns))
    for cell in cells[["row", "column", "value", "text", "hover"]].itertuples(index=False):
        i, j = down[cell.row], along[cell.column]
        values[i, j], text[i][j], hover[i][j] = cell.value, cell.text, cell.hover
    crowd = max(len(rows), len(columns)) if slanted else len(rows)
    tall = 42 if crowd <= 12 else 28 if crowd <= 24 else 17
    wide = 42 if len(columns) <= 12 else 26 if len(columns) <= 40 else 17
    fig = go.Figure(
        go.Heatmap(
            z=values,
            text=text,
            texttemplate="%{text}",
            textfont={"size": 13 if crowd <= 10 else 11 if crowd <= 12 else 10},
            hovertext=hover,
            hoverinfo="text",
            hoverongaps=False,
            zmin=limit[0],
            zmax=limit[1],
            colorscale=colours,
            xgap=1,
            ygap=1,
            colorbar={
                "title": {
                    "text": "<br>".join(textwrap.wrap(bar, _BAR_TITLE)),
                    "side": "top",
                    "font": {"size": 12},
                },
                "thickness": 12,
                "x": 1,
                "xpad": 14,
                "outlinewidth": 0,
                "tickfont": {"size": 11},
            },
        )
    )
    short = max(len(str(name)) for name in columns) <= _SHORT
    angle = 0 if not slanted or short else -90 if len(columns) > 24 else -40
    for axis, names, name_title in (("x", columns, x_title), ("y", rows, y_title)):
        fig.update_layout(
            {
                f"{axis}axis": {
                    "title": {"text": name_title},
                    "tickvals": list(range(len(names))),
                    "ticktext": [label(name, longest=LONGEST) for name in names],
                    "tickfont": {"size": tick_size(len(names))},
                    "tickangle": angle if axis == "x" else 0,
                    "showgrid": False,
                }
            }
        )
    fig.update_xaxes(range=[-0.5, len(columns) - 0.5])
    fig.update_yaxes(range=[len(rows) - 0.5, -0.5])
    for i, j in outlined:
        box = {"x0": j - 0.5, "x1": j + 0.5, "y0": i - 0.5, "y1": i + 0.5}
        fig.add_shape(type="rect", **box, line={"color": INK, "width": 1.5})
    finish(
        fig,
        title,
        subtitle,
        height=max(250, tall * len(rows)) + (70 if slanted else 0),
        width=max(880, 330 + wide * len(columns)),
    )
    return fig.update_layout(plot_bgcolor=MISSING)
