"""Layers of the top neurons: bars for one relation, a heatmap for all. Read through `plots`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from relation_neurons.errors import UnknownOptionError, UnknownRelationError, near_matches
from relation_neurons.plots.heat_chart import heat_plot
from relation_neurons.plots.style import BLUE, INK, RED, SEQUENTIAL, finish
from relation_neurons.plots.text import label, named, require

__all__ = ["layers"]


def layers(
    ranking_frame: pd.DataFrame,
    neurons: pd.DataFrame,
    relation: str | None = None,
    *,
    score: str = "specific",
    dose: int = 100,
) -> go.Figure:
    """Draws in which layers the top neurons lie: bars for one relation, a heatmap for all.

    Args:
        ranking_frame: `Ranking.frame`: score, relation, language, rank, layer, neuron, is_sink.
        neurons: `Ranking.neurons`: layer, neuron.
        relation: one relation; all of them by default.
        score: which ranking.
        dose: neurons from the top of each ranking.
    """
    columns = ("score", "relation", "language", "rank", "layer", "neuron", "is_sink")
    require(ranking_frame, columns, "rank_neurons (Ranking.frame)")
    require(neurons, ("layer", "neuron"), "rank_neurons (Ranking.neurons)")
    top = ranking_frame[(ranking_frame["score"] == score) & (ranking_frame["rank"] <= dose)]
    if top.empty:
        known = sorted(set(ranking_frame["score"]))
        raise UnknownOptionError(f"No ranking by {score!r}. {near_matches(score, known)}")
    if relation is not None:
        known = list(dict.fromkeys(top["relation"]))
        top = top[top["relation"] == relation]
        if top.empty:
            raise UnknownRelationError(
                f"No ranking of {relation!r}. {near_matches(relation, known)}"
            )
    every = np.arange(int(neurons["layer"].max()) + 1)
    counts = neurons.groupby("layer").size().reindex(every, fill_value=0)
    even = counts / len(neurons) * dose
    top = top.assign(row=named(top), sinks=top["is_sink"].astype(int), value=1)
    names = list(dict.fromkeys(top["row"]))
    grid = pd.MultiIndex.from_product([names, every], names=["row", "layer"])
    cells = top.groupby(["row", "layer"])[["value", "sinks"]].sum()
    cells = cells.reindex(grid, fill_value=0).reset_index()
    crowded = len(names) > 24 or len(every) > 40
    cells = cells.assign(
        column=cells["layer"].astype(str),
        text=[
            ("" if crowded or not c.value else str(c.value)) + ("•" if c.sinks else "")
            for c in cells.itertuples()
        ],
        hover=[
            f"Layer {c.layer}: {c.value} of the top {dose:,} neurons of <i>{label(c.row)}</i>"
            f"<br>({c.sinks} of them sink neurons; by its share of all neurons: {even[c.layer]:.1f})"
            for c in cells.itertuples()
        ],
    )
    fair = f"{even.min():.1f} neurons in each layer"
    if even.max() - even.min() >= 0.05:
        fair = f"{even.min():.1f} to {even.max():.1f} neurons in a layer"
    subtitle = f"Spread evenly over all neurons it would be {fair}."
    if relation is not None and len(names) == 1:
        return _layer_bars(cells, relation, dose, even, subtitle)
    return heat_plot(
        cells,
        rows=names,
        columns=[str(layer) for layer in every],
        limit=(0.0, max(1.0, float(cells["value"].max()))),
        colours=SEQUENTIAL,
        bar="neurons",
        title=f"Layers of the top {dose:,} neurons, score “{label(score)}”",
        subtitle=f"{subtitle} • marks sink neurons among them.",
        x_title="Layer",
        y_title="Relation",
        slanted=False,
    )


def _layer_bars(
    cells: pd.DataFrame, relation: str, dose: int, even: pd.Series, subtitle: str
) -> go.Figure:
    fig = go.Figure()
    for name, heights, colour in (
        ("other neurons", cells["value"] - cells["sinks"], BLUE),
        ("sink neurons", cells["sinks"], RED),
    ):
        fig.add_bar(
            x=cells["layer"].to_numpy(),
            y=heights.to_numpy(),
            name=name,
            marker={"color": colour},
            hovertext=cells["hover"].tolist(),
            hoverinfo="text",
        )
    fig.add_scatter(
        x=[even.index[0] - 0.5, *even.index, even.index[-1] + 0.5],
        y=[even.iloc[0], *even, even.iloc[-1]],
        mode="lines",
        line={"color": INK, "dash": "dash", "width": 1.5, "shape": "hvh"},
        name="the same number spread over all neurons",
        hoverinfo="skip",
    )
    fig.update_layout(barmode="stack", bargap=0.15)
    fig.update_xaxes(title_text="Layer", showgrid=False, range=[-0.6, len(cells) - 0.4])
    fig.update_yaxes(title_text=f"Neurons in the top {dose:,}", rangemode="tozero")
    title = f"Layers of the neurons of {label(relation, longest=40)}"
    return finish(fig, title, f"{subtitle} (Dashed.)", height=300, width=860, legend=True)
