"""Plot style: the one template and palette, and the two charts that every figure is made of.

The palette is Okabe and Ito's, which colour-blind readers can tell apart; blue is improvement,
orange-red is harm, and a diverging scale has zero in the middle.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from relation_neurons.errors import RelationFormatError

__all__ = [
    "BLUE",
    "DIVERGING",
    "GREY",
    "INK",
    "RED",
    "REVERSED",
    "SEQUENTIAL",
    "TEMPLATE",
    "UNITS",
    "Style",
    "dot_plot",
    "finish",
    "heat_plot",
    "interval",
    "label",
    "number",
    "require",
    "tick_size",
]

INK, GREY, LIGHT = "#222222", "#7A7A7A", "#E4E4E4"
BLUE, RED, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
DIVERGING: list[list[Any]] = [
    [0, "#B84A00"],
    [0.2, RED],
    [0.5, "#FFFFFF"],
    [0.8, BLUE],
    [1, "#005A8F"],
]
"""Harm to improvement, for values from -limit to limit."""
REVERSED = [[1 - at, colour] for at, colour in reversed(DIVERGING)]
SEQUENTIAL: list[list[Any]] = [[0, "#FFFFFF"], [0.35, "#9CCBE8"], [1, "#005A8F"]]

UNITS = {
    "correct": (
        "net flips per prompt",
        "Change in share of correct answers<br>(net flips per prompt)",
    ),
    "margin": ("logits", "Change of the answer's margin (logits)"),
}
"""Per quantity: its unit in words, and the title of its axis."""

_AXIS = {
    "automargin": True,
    "gridcolor": LIGHT,
    "linecolor": GREY,
    "ticks": "outside",
    "tickcolor": GREY,
    "ticklen": 4,
    "zeroline": False,
    "title": {"font": {"size": 13}, "standoff": 12},
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "Inter, Segoe UI, Helvetica, Arial, sans-serif", "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "colorway": [BLUE, RED, GREEN, PURPLE, "#E69F00", "#56B4E9"],
        "hoverlabel": {"align": "left", "bgcolor": "white", "font": {"size": 13, "color": INK}},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "legend": {
            "orientation": "h",
            "x": 0,
            "yanchor": "bottom",
            "font": {"size": 12},
        },
    }
)
_DIGITS = 2
_LONGEST = 30


class Style(NamedTuple):
    """How one kind of point or line is drawn and named."""

    name: str
    colour: str
    symbol: str


def require(table: pd.DataFrame, columns: Iterable[str], made_by: str) -> None:
    """Checks that a table can be drawn.

    Raises:
        RelationFormatError: a column is missing, or there is no row.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        found = ", ".join(map(str, table.columns)) or "none"
        raise RelationFormatError(
            f"The table lacks the column {missing[0]!r}; expected what {made_by} gives. "
            f"Found: {found}."
        )
    if table.empty:
        raise RelationFormatError(f"The table has no row; expected what {made_by} gives.")


def label(name: Any, *, longest: int | None = None) -> str:
    """Makes text from data fit for a figure: spaces for underscores, markup shown as text.

    >>> label("country_capital <b>")
    'country capital &lt;b&gt;'
    """
    text = " ".join(str(name).replace("_", " ").split())
    if longest is not None and len(text) > longest:
        text = text[: longest - 1].rstrip() + "…"
    return html.escape(text, quote=False)


def number(value: float | None, digits: int = _DIGITS) -> str:
    """Writes a signed change with a true minus sign; `n/a` where there is none.

    >>> number(-0.123), number(0.0), number(0.5)
    ('\N{MINUS SIGN}0.12', '0.00', '+0.50')
    """
    if value is None or not math.isfinite(value):
        return "n/a"
    rounded = round(float(value), digits)
    sign = "\N{MINUS SIGN}" if rounded < 0 else "+" if rounded > 0 else ""
    return f"{sign}{abs(rounded):.{digits}f}"


def interval(low: float | None, high: float | None) -> str:
    """Writes an interval in words."""
    return f"{number(low)} to {number(high)}"


def tick_size(count: int) -> int:
    """Font size of an axis with `count` names."""
    return 13 if count <= 12 else 11 if count <= 24 else 10


def finish(
    fig: go.Figure, title: str, subtitle: str, *, height: int, width: int, legend: bool = False
) -> go.Figure:
    """Sets title, subtitle and sizes; `height` is that of the plot area without its margins."""
    lines = subtitle.count("<br>") + 1 if subtitle else 0
    entries = {t.name for t in fig.data if t.showlegend is not False} if legend else set()
    rows = math.ceil(sum(46 + 6.2 * len(str(name)) for name in entries) / (width - 140))
    top = 52 + 19 * max(lines, 2) + 24 * rows
    fig.update_layout(
        template=TEMPLATE,
        title={
            "text": f"<b>{title}</b>",
            "subtitle": {"text": subtitle, "font": {"size": 13, "color": "#555555"}},
            "font": {"size": 17},
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "top",
            "yref": "container",
            "pad": {"l": 16, "t": 16},
        },
        width=width,
        height=height + top + 60,
        margin={"l": 30, "r": 24, "t": top, "b": 60},
        showlegend=legend,
        legend_y=1 + 8 / height,
    )
    return fig


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
    """Draws a row of dots per name, one dot a style, with intervals.

    Args:
        points: columns row, what, effect, hover and, for intervals, low and high.
        styles: how each `what` is drawn, in drawing order from the top of a row.
        rows: names from top to bottom.
        title: the figure's title.
        subtitle: what stands below it.
        x_title: the quantity with its unit.
        total: a last row that is set apart by a line.
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
    names = [label(name, longest=_LONGEST) for name in rows]
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
    """Draws a heatmap with a text in each cell; cells that are missing or NaN stay grey.

    Args:
        cells: columns row, column, value, text (what stands in the cell) and hover.
        rows: names of the rows, top first.
        columns: names of the columns.
        limit: values of the scale's two ends.
        colours: the scale.
        bar: the scale's title, with its unit.
        title: the figure's title.
        subtitle: what stands below it.
        x_title: title of the columns.
        y_title: title of the rows.
        outlined: (row, column) of cells with a dark frame.
        slanted: whether column names are long.
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
                "title": {"text": bar, "side": "right", "font": {"size": 12}},
                "thickness": 12,
                "outlinewidth": 0,
                "tickfont": {"size": 11},
            },
        )
    )
    angle = 0 if not slanted else -90 if len(columns) > 24 else -40
    for axis, names, name_title in (("x", columns, x_title), ("y", rows, y_title)):
        fig.update_layout(
            {
                f"{axis}axis": {
                    "title": {"text": name_title},
                    "tickvals": list(range(len(names))),
                    "ticktext": [label(name, longest=_LONGEST) for name in names],
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
    return fig.update_layout(plot_bgcolor="#EDEDED")
