"""Dose curves of one relation or of all; public through `plots`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from relation_neurons.errors import UnknownRelationError, near_matches
from relation_neurons.formatting import interval, number
from relation_neurons.plots.dots import WHAT
from relation_neurons.plots.style import GREY, UNITS, finish, label, require

__all__ = ["dose_curve", "dose_curves"]

_CURVES = ("ablated", "ablated_language", "where", "kind", "dose", "effect", "low", "high", "n")


def dose_curve(
    curves: pd.DataFrame,
    relation: str,
    *,
    title: str | None = None,
    language: str | None = None,
    quantity: str = "correct",
) -> go.Figure:
    """Draws one relation's effect at each dose, with 95% intervals.

    Args:
        curves: from `dose_curves`: ablated, ablated_language, where, kind, dose, effect, low, high, n.
        relation: the relation whose neurons are ablated.
        title: the title instead of the relation's name.
        language: the language of the set, if there are several.
        quantity: the quantity of the effect, `correct` or `margin`.

    Raises:
        RelationFormatError: a column is missing.
        UnknownRelationError: there is no curve of that relation.
    """
    require(curves, _CURVES, "dose_curves")
    here = curves[curves["ablated"].astype(str) == relation]
    if language is not None:
        here = here[here["ablated_language"].astype(str) == language]
    if here.empty:
        known = sorted(set(curves["ablated"].astype(str)))
        raise UnknownRelationError(
            f"There is no curve of {relation!r}. {near_matches(relation, known)}"
        )
    here = here[here["ablated_language"] == here["ablated_language"].iloc[0]]
    fig = go.Figure(_lines(here, quantity, legend=True))
    _dose_axes(fig, sorted(map(int, here["dose"].unique())), quantity)
    subtitle = "Bands are 95% intervals over held-out facts."
    name = label(title) if title is not None else f"Neurons of {label(relation, longest=40)}"
    return finish(fig, name, subtitle, height=330, width=860, legend=True)


def dose_curves(curves: pd.DataFrame, *, quantity: str = "correct") -> go.Figure:
    """Draws the dose curves of every relation, as small multiples with one legend.

    Args:
        curves: see `dose_curve`.
        quantity: the quantity of the effect, `correct` or `margin`.
    """
    require(curves, _CURVES, "dose_curves")
    parts = list(curves.groupby(["ablated", "ablated_language"], sort=False, observed=True))
    several = curves["ablated_language"].nunique() > 1
    names = [
        label(f"{name} ({language})" if several else name, longest=26)
        for (name, language), _ in parts
    ]
    across = min(4, len(parts))
    down = -(-len(parts) // across)
    height = max(260, 150 * down + 72 * (down - 1))
    fig = make_subplots(
        rows=down,
        cols=across,
        shared_yaxes="all",
        subplot_titles=names,
        vertical_spacing=72 / height,
        horizontal_spacing=0.03,
    )
    for i, (_, part) in enumerate(parts):
        fig.add_traces(
            _lines(part, quantity, legend=i == 0), rows=i // across + 1, cols=i % across + 1
        )
    fig.update_annotations(font={"size": 13})
    _dose_axes(fig, sorted(map(int, curves["dose"].unique())), quantity)
    fig.update_xaxes(title_text="")
    fig.update_yaxes(title_text="")
    for column in range(1, across + 1):
        last = down if (down - 1) * across + column <= len(parts) else down - 1
        fig.update_xaxes(title_text="neurons ablated", row=last, col=column)
    fig.add_annotation(
        text=UNITS[quantity][1].replace("<br>", " "),
        textangle=-90,
        font={"size": 13},
        **{"xref": "paper", "yref": "paper", "x": 0, "xanchor": "right", "xshift": -44},
        **{"y": 0.5, "yanchor": "middle", "showarrow": False},
    )
    subtitle = "Bands are 95% intervals over held-out facts; the dose axis is logarithmic."
    finish(fig, "Cumulativity", subtitle, height=height, width=980, legend=True)
    return fig.update_layout(
        legend_y=1 + 30 / height, margin={"l": 76, "t": fig.layout.margin.t + 26}
    )


def _lines(curves: pd.DataFrame, quantity: str, *, legend: bool) -> list[go.Scatter]:
    """Returns bands first and lines above them, with one legend group per kind of line."""
    bands, lines = [], []
    for what, style in WHAT.items():
        ranked = what in ("home", "elsewhere")
        here = curves[
            (curves["where"] == (what if ranked else "home"))
            & (curves["kind"].astype(str) == ("ranked" if ranked else what))
        ].sort_values("dose")
        if here.empty:
            continue
        shared: dict[str, Any] = {"legendgroup": what, "name": style.name}
        if what != "elsewhere":
            red, green, blue = (int(style.colour[i : i + 2], 16) for i in (1, 3, 5))
            bands.append(
                go.Scatter(
                    x=[*here["dose"], *here["dose"][::-1]],
                    y=[*here["high"], *here["low"][::-1]],
                    mode="lines",
                    fill="toself",
                    fillcolor=f"rgba({red},{green},{blue},0.15)",
                    line={"width": 0},
                    hoverinfo="skip",
                    showlegend=False,
                    **shared,
                )
            )
        target = "its own facts" if what != "elsewhere" else "facts of other relations"
        whose = (
            f"neurons of <i>{label(here['ablated'].iloc[0])}</i>" if ranked else "random neurons"
        )
        lines.append(
            go.Scatter(
                x=here["dose"].to_numpy(),
                y=here["effect"].to_numpy(float),
                mode="lines+markers",
                line={"color": style.colour, "dash": "dash" if what == "elsewhere" else "solid"},
                marker={"symbol": style.symbol, "size": 8},
                hovertext=[
                    f"Ablating {p.dose:,} {whose} changes {target}:<br>{number(p.effect)} "
                    f"{UNITS[quantity][0]} ({p.n} prompts;<br>95% interval {interval(p.low, p.high)})"
                    for p in here.itertuples()
                ],
                hoverinfo="text",
                showlegend=legend,
                **shared,
            )
        )
    return bands + lines


def _dose_axes(fig: go.Figure, doses: list[int], quantity: str) -> None:
    """Makes the dose axis logarithmic, with a tick at each dose."""
    ends = [np.log10(doses[0]) - 0.12, np.log10(doses[-1]) + 0.12]
    ticks = {"tickvals": doses, "ticktext": [f"{dose:,}" for dose in doses], "tickangle": 0}
    fig.update_xaxes(type="log", range=ends, title_text="Neurons ablated (log scale)", **ticks)
    fig.update_yaxes(title_text=UNITS[quantity][1], zeroline=True, zerolinecolor=GREY)
