"""The null spectrum (AP beside what chance reaches) and stability of rankings; public through `plots`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from relation_neurons.plots.charts import Style, dot_plot
from relation_neurons.plots.style import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    RED,
    SOFT,
    finish,
    label,
    require,
)
from relation_neurons.ranking.stability import stability_summary
from relation_neurons.relations.relation import relation_label
from relation_neurons.version import renamed

__all__ = ["spectrum", "stability"]

_RANKED = ("score", "relation", "language", "rank", "ap")

_NULL = ("score", "relation", "language", "null_95", "prevalence", "beyond", "p_value")

_POINTS = 200

STYLES = {
    "halves": Style("other half of the facts", RED, "circle"),
    "seeds": Style("another draw of the facts", BLUE, "diamond"),
    "templates": Style("another template", PURPLE, "square"),
    "relations": Style("one relation fewer to tell from", GREEN, "triangle-up"),
    "chance": Style("by chance", SOFT, "line-ns-open"),
}

_COLUMNS = ("relation", "language", "score", "dose", "what", "shared", "expected")


@renamed(score="contrast")
def spectrum(ranking: pd.DataFrame, null: pd.DataFrame, *, contrast: str = "specific") -> go.Figure:
    """Draws AP by rank for each relation, with the null's 95% line (pitfall 12).

    Neurons above the dashed line are beyond chance; the dotted line is the prevalence, the floor of AP.

    Args:
        ranking: the frame of `Ranking`: score, relation, language, rank, ap.
        null: from `null_maximum`: score, relation, language, null_95, prevalence, beyond, p_value.
        contrast: the contrast of the ranking that is drawn.

    Raises:
        RelationFormatError: a column is missing, or there is no row of that contrast.
    """
    require(ranking, _RANKED, "rank_neurons")
    require(null, _NULL, "null_maximum")
    null = null[null["score"] == contrast]
    require(null, _NULL, f"null_maximum(contrasts=({contrast!r},))")
    several = null["language"].nunique() > 1
    across = min(4, len(null))
    down = -(-len(null) // across)
    names = [relation_label(p.relation, p.language, several=several) for p in null.itertuples()]
    height = max(260, 150 * down + 72 * (down - 1))
    fig = make_subplots(
        rows=down,
        cols=across,
        shared_yaxes="all",
        subplot_titles=[label(name, longest=26) for name in names],
        vertical_spacing=72 / height,
        horizontal_spacing=0.045,  # the last rank of one panel stands beside the first of the next
    )
    for i, row in enumerate(null.itertuples()):
        same = (ranking["relation"] == row.relation) & (ranking["language"] == row.language)
        here = ranking[same & (ranking["score"] == contrast)].sort_values("rank")
        place = {"row": i // across + 1, "col": i % across + 1}
        fig.add_trace(_line(here, row, legend=i == 0), **place)
        for height_at, dash in ((row.null_95, "dash"), (row.prevalence, "dot")):
            fig.add_hline(y=height_at, line={"color": GREY, "dash": dash}, **place)
    for name, dash in (("chance reaches (95%)", "dash"), ("prevalence", "dot")):
        fig.add_scatter(
            x=[None], y=[None], mode="lines", name=name, line={"color": GREY, "dash": dash}
        )
    fig.update_annotations(font={"size": 13})
    fig.update_xaxes(type="log", dtick=1)
    fig.update_yaxes(range=[0, 1.03])
    fig.update_yaxes(title_text="average precision", col=1)
    for column in range(1, across + 1):
        last = down if (down - 1) * across + column <= len(null) else down - 1
        fig.update_xaxes(title_text="rank", row=last, col=column)
    subtitle = "Neurons above the dashed line are beyond chance; the rank axis is logarithmic."
    finish(fig, "Neurons beyond chance", subtitle, height=height, width=980, legend=True)
    return fig.update_layout(legend_y=1 + 30 / height, margin_t=fig.layout.margin.t + 26)


def _line(here: pd.DataFrame, row: Any, *, legend: bool) -> go.Scatter:
    """Returns the line of AP by rank, thinned out evenly along the logarithmic axis."""
    held = len(here)
    kept = np.unique(np.geomspace(1, max(held, 1), _POINTS).round().astype(int)) - 1
    here = here.iloc[kept[kept < held]]
    chance = f"{row.beyond:,} neurons beyond chance (p = {row.p_value:.2g})"
    return go.Scatter(
        x=here["rank"].to_numpy(),
        y=here["ap"].to_numpy(float),
        mode="lines",
        line={"color": BLUE},
        name="ranked neurons",
        hovertext=[f"Rank {p.rank:,}: AP {p.ap:.2f}<br>{chance}" for p in here.itertuples()],
        hoverinfo="text",
        showlegend=legend,
    )


@renamed(score="contrast")
def stability(frame: pd.DataFrame, *, contrast: str = "specific") -> go.Figure:
    """Draws the share of each relation's top set that is found again.

    Args:
        frame: from `ranking_stability`: relation, language, score, dose, what, shared, expected.
        contrast: the contrast of the ranking that is drawn.
    """
    require(frame, _COLUMNS, "ranking_stability")
    here = frame[frame["score"] == contrast]
    require(here, _COLUMNS, f"ranking_stability(contrasts=({contrast!r},))")
    several = here["language"].nunique() > 1
    table = stability_summary(here).dropna(subset=["share"])
    table["row"] = [
        relation_label(p.relation, p.language, several=several) for p in table.itertuples()
    ]
    table["hover"] = [
        f"<i>{label(p.row)}</i>, {STYLES[p.what].name}:<br>{p.share:.0%} of the top set found again "
        f"({p.low:.0%} to {p.high:.0%} over {p.comparisons} comparisons; {p.chance:.1%} by chance)"
        for p in table.itertuples()
    ]
    chance = table.drop_duplicates("row").assign(
        what="chance", share=lambda t: t["chance"], low=float("nan"), high=float("nan")
    )
    chance["hover"] = [f"By chance: {p.share:.1%} of the top set" for p in chance.itertuples()]
    points = pd.concat([table, chance]).rename(columns={"share": "effect"})
    order = table[table["what"] == table["what"].iloc[0]] if len(table) else table
    rows = [*order.sort_values("share", ascending=False)["row"], *table["row"]]
    dose = int(here["dose"].iloc[0])
    fig = dot_plot(
        points,
        STYLES,
        list(dict.fromkeys(rows)),
        title="How much of a relation's top set is found again",
        subtitle=f"{dose:,} neurons by the contrast {label(contrast)}, ranked again from other evidence."
        "<br>Marks are means over the comparisons, lines their range.",
        x_title="Share of the top set found again",
    )
    return fig.update_xaxes(range=[-0.03, 1.03], tickformat=".0%")
