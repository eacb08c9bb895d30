"""Dot chart: a row of dots with intervals per name, which four figures are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from relation_neurons.plots.style import GREY, INK, LIGHT, finish
from relation_neurons.plots.text import LONGEST, label, tick_size

__all__ = ["Style", "dot_plot"]


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
