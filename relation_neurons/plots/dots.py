"""Dot plots of the headline, specificity, contrasts and criteria; public through `plots`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from relation_neurons.formatting import interval, number
from relation_neurons.plots.charts import Style, dot_plot
from relation_neurons.plots.style import (
    BLUE,
    FAINT,
    GREEN,
    PURPLE,
    RED,
    SOFT,
    UNITS,
    label,
    require,
)
from relation_neurons.relations.relation import ALL_RELATIONS

__all__ = ["CONTRASTS", "WHAT", "headline", "score_comparison", "specificity", "standings"]

WHAT = {
    "home": Style("home", RED, "circle"),
    "elsewhere": Style("elsewhere", BLUE, "diamond"),
    "control_contribution": Style("contribution control, at home", SOFT, "square-open"),
    "control_layer": Style("layer control, at home", FAINT, "triangle-up-open"),
}
CONTRASTS = {
    "specific": Style("known facts", RED, "circle"),
    "background": Style("known, against neutral prompts", PURPLE, "square"),
    "unknown": Style("facts it gets wrong", BLUE, "diamond"),
    "nonsense": Style("nonsense subjects", GREEN, "triangle-up"),
}
CRITERIA = {
    "average_precision": "AP",
    "auroc": "AUROC",
    "d_prime": "d\N{PRIME}",
    "probe": "L1 probe",
}
"""Short names of criteria; the others keep their own."""


def specificity(table: pd.DataFrame, *, quantity: str = "correct") -> go.Figure:
    """Draws each set's effect at home beside its effect elsewhere and that of other relations' sets.

    Args:
        table: from `specificity`: ablated, home, elsewhere, others_here.
        quantity: the quantity of the effect, `correct` or `margin`.
    """
    require(table, ("ablated", "home", "elsewhere", "others_here"), "specificity")
    said = {
        "home": "Ablating neurons of <i>{0}</i> changes <i>{0}</i>",
        "elsewhere": "Ablating neurons of <i>{0}</i> changes the other relations, on average",
        "others_here": "Ablating other relations' neurons changes <i>{0}</i>, on average",
    }
    points = table.melt("ablated", list(said), "what", "effect").rename(columns={"ablated": "row"})
    points["hover"] = [
        f"{said[p.what].format(label(p.row))}:<br>{number(p.effect)} {UNITS[quantity][0]}"
        for p in points.itertuples()
    ]
    styles = {
        "home": Style("its set on its facts (home)", RED, "circle"),
        "elsewhere": Style("its set on other relations (row)", BLUE, "diamond"),
        "others_here": Style("others' sets on its facts (column)", SOFT, "square-open"),
    }
    return dot_plot(
        points.dropna(subset=["effect"]),
        styles,
        table.sort_values("home")["ablated"].tolist(),
        title="Specificity, both ways",
        subtitle="A set is specific if home lies to the left of both other marks.",
        x_title=UNITS[quantity][1],
    )


def score_comparison(table: pd.DataFrame, *, dose: int | None = None) -> go.Figure:
    """Draws the home effect of sets ranked on known facts beside that of the other contrasts.

    Args:
        table: from `analysis.contrasts.known_against_others`, or `summary["scores"]` of a run:
            relation, score, effect, low, high, control, n.
        dose: number of neurons ablated, for the subtitle.
    """
    columns = ("relation", "score", "effect", "low", "high", "control", "n")
    require(table, columns, "known_against_others")
    ranked = table.assign(row=table["relation"], what=table["score"], hover="")
    ranked["hover"] = [
        f"Neurons of <i>{label(p.relation)}</i> ranked on "
        f"{CONTRASTS[p.score].name if p.score in CONTRASTS else label(p.score)}:<br>"
        f"{number(p.effect)} net flips per prompt ({p.n} prompts; control {number(p.control)};<br>"
        f"95% interval {interval(p.low, p.high)})"
        for p in ranked.itertuples()
    ]
    main = next(s for s in [*CONTRASTS, *ranked["score"]] if (ranked["score"] == s).any())
    control = ranked[(ranked["score"] == main) & ranked["control"].notna()]
    control = control.assign(what="control", effect=control["control"], low=np.nan, high=np.nan)
    matched = Style("contribution control", SOFT, "square-open")
    return dot_plot(
        pd.concat([ranked, control]),
        {**CONTRASTS, "control": matched},
        _worst_first(table[table["score"] == main]),
        title="Sets ranked on known facts and on checks, each at home",
        subtitle=_dosed(dose)
        + "If sets ranked on facts that the model gets wrong, or on nonsense subjects, harm as much,"
        "<br>what was found is the relation's question, not its recall.",
        x_title=UNITS["correct"][1],
        total=_total(table),
    )


def standings(table: pd.DataFrame, *, quantity: str = "correct") -> go.Figure:
    """Draws how specific the sets of each criterion, site and end are, the most specific first.

    Args:
        table: from `Comparison.standings`: by, site, end, dose, home, control, specificity, low, high.
        quantity: the quantity of the effect, `correct` or `margin`.
    """
    columns = ("by", "site", "end", "dose", "home", "control", "specificity", "low", "high")
    require(table, columns, "Comparison.standings")
    names = [
        f"{CRITERIA.get(p.by, p.by)}, {p.site}{', bottom' if p.end == 'bottom' else ''}"
        for p in table.itertuples()
    ]
    said = {
        "specificity": "Specificity of",
        "home": "At home, mean over relations, for",
        "control": "Contribution-matched random neurons beside",
    }
    points = pd.concat(
        [
            pd.DataFrame(
                {
                    "row": names,
                    "what": what,
                    "effect": table[what].to_numpy(),
                    "low": table["low"].to_numpy() if what == "specificity" else np.nan,
                    "high": table["high"].to_numpy() if what == "specificity" else np.nan,
                    "hover": [
                        f"{start} <i>{label(name)}</i> ({dose} neurons):<br>"
                        f"{number(value)} {UNITS[quantity][0]}"
                        for name, dose, value in zip(names, table["dose"], table[what], strict=True)
                    ],
                }
            )
            for what, start in said.items()
        ],
        ignore_index=True,
    )
    styles = {
        "specificity": Style("specificity: home minus the other sets on it", RED, "circle"),
        "home": Style("home", BLUE, "diamond"),
        "control": Style("contribution control, at home", SOFT, "square-open"),
    }
    return dot_plot(
        points,
        styles,
        names,
        title="Which criterion finds the most specific sets",
        subtitle="Further left is more specific harm. A set that breaks everything has much effect at home "
        "and little specificity.<br>Lines are 95% intervals over facts.",
        x_title=UNITS[quantity][1],
    )


def headline(table: pd.DataFrame, *, dose: int | None = None) -> go.Figure:
    """Draws a run in one figure: the effect at home, elsewhere and of both controls, per relation.

    Args:
        table: from `analysis.contrasts.headline`, or `summary["headline"]` of a run: relation, what,
            effect, low, high, n; rows of the relation `all relations` come last, set apart.
        dose: number of neurons ablated, for the subtitle.
    """
    require(table, ("relation", "what", "effect", "low", "high", "n"), "headline")
    said = {
        "home": "Ablating neurons of <i>{0}</i> changes <i>{0}</i>",
        "elsewhere": "Ablating neurons of <i>{0}</i> changes other relations",
        "control_contribution": "Ablating contribution-matched random neurons changes <i>{0}</i>",
        "control_layer": "Ablating layer-matched random neurons changes <i>{0}</i>",
    }
    known = table[table["what"].isin(said)]
    points = known.assign(
        row=known["relation"],
        hover=[
            f"{said[p.what].format(label(p.relation))}:<br>{number(p.effect)} net flips per prompt "
            f"({p.n} prompts;<br>95% interval {interval(p.low, p.high)})"
            for p in known.itertuples()
        ],
    )
    return dot_plot(
        points,
        WHAT,
        _worst_first(known[known["what"] == "home"]),
        title="What ablating a relation's neurons costs, at home and elsewhere",
        subtitle=_dosed(dose)
        + "Home: the relation's own held-out facts; controls are random neurons.<br>"
        "Lines are 95% intervals over facts.",
        x_title=UNITS["correct"][1],
        total=_total(table),
    )


def _worst_first(table: pd.DataFrame) -> list[str]:
    """Returns relations by their effect, most harm first, with all relations together last."""
    names = table.sort_values("effect", kind="stable")["relation"].tolist()
    return sorted(dict.fromkeys(names), key=lambda name: name == ALL_RELATIONS)


def _total(table: pd.DataFrame) -> str | None:
    return ALL_RELATIONS if (table["relation"] == ALL_RELATIONS).any() else None


def _dosed(dose: int | None) -> str:
    return "" if dose is None else f"{dose:,} neurons ablated. "
