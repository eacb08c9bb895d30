"""Heatmaps: interference, overlap, transfer, and layers. Read through `plots`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from relation_neurons import plot_style as look
from relation_neurons.errors import UnknownOptionError, UnknownRelationError, near_matches
from relation_neurons.plot_style import UNITS, interval, label, number, require

__all__ = ["interference", "layers", "overlap", "transfer"]

_CELLS = ("dose", "n", "effect", "control", "low", "high")
_HOME_EDGE = "The outlined diagonal is home."


def interference(matrix: pd.DataFrame, *, quantity: str = "correct") -> go.Figure:
    """Draws the effect of every relation's set on every relation, with zero in the middle.

    Cells that are significant after the correction over the matrix carry a star.

    Args:
        matrix: from `interference_matrix`: ablated, relation, dose, n, effect, control, low, high,
            p_value, q_value, draws, significant.
        quantity: what the effect is, `correct` or `margin`.
    """
    tested = ("p_value", "q_value", "draws", "significant")
    require(matrix, ("ablated", "relation", *_CELLS, *tested), "interference.interference_matrix")
    names = list(dict.fromkeys([*matrix["ablated"].astype(str), *matrix["relation"].astype(str)]))
    rows = [name for name in names if (matrix["ablated"].astype(str) == name).any()]
    limit = max(0.1, float(matrix["effect"].abs().max()))
    signs = np.where(matrix["significant"], "*", "")
    numbers = [number(v) + mark for v, mark in zip(matrix["effect"], signs, strict=True)]
    cells = matrix.assign(
        row=matrix["ablated"].astype(str),
        column=matrix["relation"].astype(str),
        value=matrix["effect"],
        text=numbers if len(names) <= 16 else signs,
        hover=[_changes(row, quantity) + _tested(row) for row in matrix.to_dict("records")],
    )
    subtitle = (
        f"{int(matrix['dose'].iloc[0]):,} neurons ablated. {_HOME_EDGE} Blue is improvement, orange is "
        f"harm.<br>{_star(matrix)}"
    )
    if len(matrix) < len(rows) * len(names):
        subtitle += " Grey: another language; see transfer."
    return look.heat_plot(
        cells,
        rows=rows,
        columns=names,
        limit=(-limit, limit),
        colours=look.DIVERGING,
        bar=UNITS[quantity][0],
        title="Interference",
        subtitle=subtitle,
        x_title="Relation judged",
        y_title="Relation whose neurons are ablated",
        outlined=[(i, names.index(name)) for i, name in enumerate(rows)],
    )


def overlap(matrix: pd.DataFrame, *, value: str = "shared") -> go.Figure:
    """Draws how many neurons the top sets of two relations (or languages) share.

    Args:
        matrix: from `overlap_matrix`: relation, language, other, other_language, score, dose,
            shared, expected, ratio, jaccard, p_value.
        value: `shared` (neurons), `jaccard` (share of the union) or `ratio` (to chance).

    Raises:
        UnknownOptionError: another value.
    """
    bars = {"shared": "neurons shared", "jaccard": "Jaccard index", "ratio": "times chance"}
    if value not in bars:
        raise UnknownOptionError(f"No value {value!r}. {near_matches(value, bars)}")
    pairs = ("relation", "language", "other", "other_language", "score", "dose")
    require(matrix, (*pairs, *bars, "expected", "p_value"), "versatility.overlap_matrix")
    cells = matrix.assign(row=_named(matrix), column=_named(matrix, "other", "other_language"))
    cells = cells[cells["row"] != cells["column"]]
    names = list(dict.fromkeys(_named(matrix)))
    digits = 2 if value == "jaccard" else 0
    cells = cells.assign(
        value=cells[value].astype(float),
        text=[f"{v:.{digits}f}" if len(names) <= 24 else "" for v in cells[value]],
        hover=[
            f"<i>{label(c.row)}</i> and <i>{label(c.column)}</i> share {c.shared} of their "
            f"top {c.dose:,} neurons<br>(chance {c.expected:.2g}; {c.ratio:.3g} times; "
            f"p = {c.p_value:.2g})"
            for c in cells.itertuples()
        ],
    )
    dose, expected, score = matrix.iloc[0][["dose", "expected", "score"]]
    chance = {"shared": expected, "jaccard": expected / (2 * dose - expected), "ratio": 1.0}[value]
    top = cells["value"].max()
    return look.heat_plot(
        cells,
        rows=names,
        columns=names,
        limit=(0.0, max(float(top), 3 * chance) if np.isfinite(top) else 1.0),
        colours=look.SEQUENTIAL,
        bar=bars[value],
        title=f"Overlap of the top {dose:,} neurons, score “{label(score)}”",
        subtitle=f"Chance expects {chance:.2g} ({bars[value]}) for any pair. "
        "The grey diagonal is a set with itself.",
        x_title="Relation",
        y_title="Relation",
    )


def transfer(matrix: pd.DataFrame, *, score: str | None = None) -> go.Figure:
    """Draws how far a set carries over: between languages where there are several, else relations.

    Args:
        matrix: from `transfer_matrix`: ablated, ablated_language, relation, language, dose, n,
            effect, control, low, high, transfer.
        score: which ranking's sets it is of, for the title.
    """
    pairs = ("ablated", "ablated_language", "relation", "language")
    require(matrix, (*pairs, *_CELLS, "transfer"), "versatility.transfer_matrix")
    several = matrix["language"].nunique() > 1
    if several:  # one block a relation, its languages side by side
        matrix = matrix[matrix["ablated"].astype(str) == matrix["relation"].astype(str)]
    cells = matrix.assign(
        row=_named(matrix, "ablated", "ablated_language"),
        column=matrix["language"].astype(str) if several else _named(matrix),
        value=matrix["transfer"].astype(float),
        text=[number(v, 1) if np.isfinite(v) else "" for v in matrix["transfer"].astype(float)],
        hover=[
            f"{_changes(row, 'correct')}<br>transfer {number(row['transfer'])}"
            for row in matrix.to_dict("records")
        ],
    )
    rows, columns = list(dict.fromkeys(cells["row"])), list(dict.fromkeys(cells["column"]))
    if len(columns) > 24:
        cells["text"] = ""
    home = cells[matrix["ablated_language"].astype(str) == matrix["language"].astype(str)]
    home = home[home["ablated"].astype(str) == home["relation"].astype(str)]
    return look.heat_plot(
        cells,
        rows=rows,
        columns=columns,
        limit=(-1.0, 1.0),
        colours=look.REVERSED,
        bar="share of the own set's effect",
        title=f"Transfer between {'languages' if several else 'relations'}"
        + (f", score “{label(score)}”" if score else ""),
        subtitle="Effect beyond the control, as a share of what the judged own set does. Outlined: home. "
        "Grey: too little to say.<br>Colours end at 1 (as much as the own set) and at \N{MINUS SIGN}1 "
        "(as much, the other way).",
        x_title="Language judged" if several else "Relation judged",
        y_title="Relation whose neurons are ablated",
        outlined=[
            (rows.index(a), columns.index(b))
            for a, b in zip(home["row"], home["column"], strict=True)
        ],
    )


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
    even = dose / len(every)
    top = top.assign(row=_named(top), sinks=top["is_sink"].astype(int), value=1)
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
            f"<br>({c.sinks} of them sink neurons; evenly spread: {even:.1f})"
            for c in cells.itertuples()
        ],
    )
    subtitle = f"Spread evenly over the layers it would be {even:.1f} neurons in each."
    if relation is not None and len(names) == 1:
        return _layer_bars(cells, relation, dose, even, subtitle)
    return look.heat_plot(
        cells,
        rows=names,
        columns=[str(layer) for layer in every],
        limit=(0.0, max(1.0, float(cells["value"].max()))),
        colours=look.SEQUENTIAL,
        bar="neurons",
        title=f"Layers of the top {dose:,} neurons, score “{label(score)}”",
        subtitle=f"{subtitle} • marks sink neurons among them.",
        x_title="Layer",
        y_title="Relation",
        slanted=False,
    )


def _star(matrix: pd.DataFrame) -> str:
    """Says what a star means, or why there can be none."""
    draws = int(matrix["draws"].max())
    if draws < 2:
        return (
            f"{draws or 'No'} control draw: nothing can be tested against the spread of controls."
        )
    count = int(matrix["significant"].sum())
    return (
        f"* marks the {count} of {len(matrix)} cells that differ from {draws} matched control draws, over "
        "facts and over draws (false-discovery rate 5%)."
    )


def _tested(row: dict[str, Any]) -> str:
    """The cell's test in words, for the hover text."""
    if not np.isfinite(row["p_value"]):
        return "<br>Not tested: that takes two control draws."
    verdict = "significant" if row["significant"] else "not significant"
    return f"<br>{verdict}: p = {row['p_value']:.2g}, q = {row['q_value']:.2g}"


def _changes(row: dict[str, Any], quantity: str) -> str:
    return (
        f"Ablating {row['dose']:,} neurons of <i>{label(row['ablated'])}</i> changes "
        f"<i>{label(row['relation'])}</i>:<br>{number(row['effect'])} {UNITS[quantity][0]} "
        f"({row['n']} prompts; control {number(row['control'])};<br>95% interval of the difference "
        f"{interval(row['low'], row['high'])})"
    )


def _layer_bars(
    cells: pd.DataFrame, relation: str, dose: int, even: float, subtitle: str
) -> go.Figure:
    fig = go.Figure()
    for name, heights, colour in (
        ("other neurons", cells["value"] - cells["sinks"], look.BLUE),
        ("sink neurons", cells["sinks"], look.RED),
    ):
        fig.add_bar(
            x=cells["layer"].to_numpy(),
            y=heights.to_numpy(),
            name=name,
            marker={"color": colour},
            hovertext=cells["hover"].tolist(),
            hoverinfo="text",
        )
    fig.add_hline(y=even, line={"color": look.INK, "dash": "dash", "width": 1})
    fig.update_layout(barmode="stack", bargap=0.15)
    fig.update_xaxes(title_text="Layer", showgrid=False, range=[-0.6, len(cells) - 0.4])
    fig.update_yaxes(title_text=f"Neurons in the top {dose:,}", rangemode="tozero")
    title = f"Layers of the neurons of {label(relation, longest=40)}"
    return look.finish(fig, title, f"{subtitle} (Dashed.)", height=300, width=860, legend=True)


def _named(table: pd.DataFrame, name: str = "relation", language: str = "language") -> pd.Series:
    """Names of relations, with the language where there are several."""
    if table[language].nunique() < 2:
        return table[name].astype(str)
    return table[name].astype(str) + " (" + table[language].astype(str) + ")"
