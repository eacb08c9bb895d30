"""Stability plot: how much of each top set other evidence finds again. Read through `plots`."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from relation_neurons.plots.charts import Style, dot_plot
from relation_neurons.plots.style import BLUE, GREEN, PURPLE, RED, SOFT
from relation_neurons.plots.text import label, require
from relation_neurons.ranking.stability import stability_summary
from relation_neurons.relations.relation import relation_label

__all__ = ["stability"]

STYLES = {
    "halves": Style("other half of the facts", RED, "circle"),
    "seeds": Style("another draw of the facts", BLUE, "diamond"),
    "templates": Style("another template", PURPLE, "square"),
    "relations": Style("one relation fewer to tell from", GREEN, "triangle-up"),
    "chance": Style("by chance", SOFT, "line-ns-open"),
}
_COLUMNS = ("relation", "language", "score", "dose", "what", "shared", "expected")


def stability(frame: pd.DataFrame, *, score: str = "specific") -> go.Figure:
    """Draws the share of each relation's top set that is found again.

    Args:
        frame: from `ranking_stability`: relation, language, score, dose, what, shared, expected.
        score: the ranking that is drawn.
    """
    require(frame, _COLUMNS, "ranking_stability")
    here = frame[frame["score"] == score]
    require(here, _COLUMNS, f"ranking_stability(scores=({score!r},))")
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
        subtitle=f"{dose:,} neurons by the score {label(score)}, ranked anew from other evidence."
        "<br>Marks are means over the comparisons, lines their range.",
        x_title="Share of the top set found again",
    )
    return fig.update_xaxes(range=[-0.03, 1.03], tickformat=".0%")
