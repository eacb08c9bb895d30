"""Histograms of one neuron's activation, and the layers of top neurons; public through `plots`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from relation_neurons.errors import (
    RelationFormatError,
    UnknownOptionError,
    UnknownRelationError,
    near_matches,
)
from relation_neurons.plots.charts import heat_plot
from relation_neurons.plots.style import (
    BLUE,
    GREY,
    INK,
    LONGEST,
    RED,
    SEQUENTIAL,
    finish,
    label,
    named,
    require,
    tick_size,
)
from relation_neurons.version import renamed

__all__ = ["activations", "layers"]

_NEEDED = ("neuron", "kind", "relation", "language", "activation")

_TALLEST = 0.86
"""Height of a row's tallest bar, as a share of the row."""


def activations(table: pd.DataFrame, relation: str | None = None, *, bins: int = 60) -> go.Figure:
    """Draws the distribution of a neuron's activation over the prompts of each relation.

    Every row has the same bins and is scaled to its own tallest bar; the triangle marks the row's mean.

    Args:
        table: from `neuron_activations`, of one neuron: neuron, kind, relation, language, activation.
        relation: the relation to highlight; by default that with the highest mean.
        bins: the number of bins over the whole range.

    Raises:
        RelationFormatError: a column is missing, there is no row, or there are several neurons.
        UnknownRelationError: the table has no such relation.
    """
    require(table, _NEEDED, "neuron_activations")
    neurons = list(dict.fromkeys(table["neuron"]))
    if len(neurons) > 1:
        raise RelationFormatError(
            f"The table holds {len(neurons)} neurons ({', '.join(neurons[:3])}, …); expected one."
        )
    rows = table.assign(row=_rows(table))
    means = rows.groupby("row")["activation"].mean().sort_values(ascending=False, kind="stable")
    facts = set(rows.loc[rows["kind"] == "fact", "row"])
    if relation is not None and relation not in set(table["relation"]):
        known = sorted(set(table["relation"]))
        raise UnknownRelationError(
            f"There are no prompts of {relation!r}. {near_matches(relation, known)}"
        )
    best = next((name for name in means.index if name in facts), means.index[0])
    chosen = set(rows.loc[rows["relation"] == relation, "row"]) & facts if relation else {best}
    edges = np.histogram_bin_edges(rows["activation"], bins=bins)
    fig = go.Figure()
    for place, name in enumerate(means.index):
        values = rows.loc[rows["row"] == name, "activation"].to_numpy(float)
        colour = RED if name in chosen else BLUE if name in facts else GREY
        fig.add_trace(_bars(values, edges, place, str(name), colour))
    fig.add_scatter(
        x=means.to_numpy(float),
        y=np.arange(len(means)),
        mode="markers",
        marker={"symbol": "triangle-up", "size": 9, "color": INK},
        hovertext=[f"<i>{label(name)}</i>: mean {mean:.3g}" for name, mean in means.items()],
        hoverinfo="text",
    )
    fig.add_vline(x=0, line={"color": GREY, "width": 1}, layer="below")
    fig.update_layout(barmode="overlay", bargap=0)
    fig.update_xaxes(title_text="pooled activation")
    fig.update_yaxes(
        tickvals=list(range(len(means))),
        ticktext=[label(name, longest=LONGEST) for name in means.index],
        tickfont={"size": tick_size(len(means))},
        range=[len(means) - 0.6, -1],
        ticks="",
    )
    tall = 44 if len(means) <= 12 else 30 if len(means) <= 24 else 22
    return finish(
        fig,
        f"Activation of {label(neurons[0])} by relation",
        "Each row is scaled to its own tallest bar; triangles are means, the highest first."
        "<br>Grey: neutral prompts, and the relations' templates with nonsense subjects.",
        height=max(220, tall * len(means)),
        width=860,
    )


def _rows(table: pd.DataFrame) -> pd.Series:
    """Returns the row of each prompt: its relation, neutral prompts or nonsense subjects."""
    names = named(table)
    names = names.where(table["kind"] != "background", "neutral prompts")
    return names.where(table["kind"] != "nonsense", names + " (nonsense)")


def _bars(values: np.ndarray, edges: np.ndarray, place: int, name: str, colour: str) -> go.Bar:
    """Returns the histogram of one row."""
    counts, _ = np.histogram(values, bins=edges)
    held = np.flatnonzero(counts)
    heights = counts[held] / counts.max() * _TALLEST
    return go.Bar(
        x=(edges[held] + edges[held + 1]) / 2,
        y=-heights,
        base=place,
        width=np.diff(edges)[held],
        marker={"color": colour, "line": {"width": 0}},
        hovertext=[
            f"{counts[i]} of {len(values)} prompts of <i>{label(name)}</i><br>"
            f"between {edges[i]:.3g} and {edges[i + 1]:.3g}"
            for i in held
        ],
        hoverinfo="text",
    )


@renamed(score="contrast")
def layers(
    ranking_frame: pd.DataFrame,
    neurons: pd.DataFrame,
    relation: str | None = None,
    *,
    contrast: str = "specific",
    dose: int = 100,
) -> go.Figure:
    """Draws in which layers the top neurons lie: bars for one relation, a heatmap for all.

    Args:
        ranking_frame: `Ranking.frame`: score, relation, language, rank, layer, neuron, is_sink.
        neurons: `Ranking.neurons`: layer, neuron.
        relation: one relation; all of them by default.
        contrast: the contrast of the ranking.
        dose: how many neurons from the top of each ranking.
    """
    columns = ("score", "relation", "language", "rank", "layer", "neuron", "is_sink")
    require(ranking_frame, columns, "rank_neurons (Ranking.frame)")
    require(neurons, ("layer", "neuron"), "rank_neurons (Ranking.neurons)")
    top = ranking_frame[(ranking_frame["score"] == contrast) & (ranking_frame["rank"] <= dose)]
    if top.empty:
        known = sorted(set(ranking_frame["score"]))
        raise UnknownOptionError(
            f"There is no ranking of the contrast {contrast!r}. {near_matches(contrast, known)}"
        )
    if relation is not None:
        known = list(dict.fromkeys(top["relation"]))
        top = top[top["relation"] == relation]
        if top.empty:
            raise UnknownRelationError(
                f"There is no ranking of {relation!r}. {near_matches(relation, known)}"
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
            f"<br>({c.sinks} of them sink neurons; an even spread would give {even[c.layer]:.1f})"
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
        title=f"Layers of the top {dose:,} neurons, contrast “{label(contrast)}”",
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
