"""The theme of all figures: template, palette and labels, and its dark and print versions.

The palette is Okabe and Ito's, which colour-blind readers can tell apart; blue is improvement,
orange-red is harm, and diverging scales are centred at zero. Figures are drawn light; `themed` returns
the same figure in another theme, with every colour replaced by its counterpart.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from relation_neurons.errors import RelationFormatError, UnknownOptionError, near_matches

__all__ = [
    "DIVERGING",
    "LONGEST",
    "REVERSED",
    "SEQUENTIAL",
    "TEMPLATE",
    "TEMPLATES",
    "UNITS",
    "finish",
    "label",
    "left_out_line",
    "named",
    "require",
    "require_theme",
    "shots_line",
    "themed",
    "tick_size",
]

INK, SOFT, GREY, LIGHT, MISSING, PAPER = (
    "#222222",
    "#555555",
    "#7A7A7A",
    "#E4E4E4",
    "#EDEDED",
    "#FFFFFF",
)

FAINT = "#999999"

BLUE, RED, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"

_DEEP_RED, _DEEP_BLUE, _PALE_BLUE = "#B84A00", "#005A8F", "#9CCBE8"

DIVERGING: list[list[Any]] = [
    [0, _DEEP_RED],
    [0.2, RED],
    [0.5, PAPER],
    [0.8, BLUE],
    [1, _DEEP_BLUE],
]
"""Harm to improvement, for values from -limit to limit."""

REVERSED = [[1 - at, colour] for at, colour in reversed(DIVERGING)]

SEQUENTIAL: list[list[Any]] = [[0, PAPER], [0.35, _PALE_BLUE], [1, _DEEP_BLUE]]

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
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "colorway": [BLUE, RED, GREEN, PURPLE, "#E69F00", "#56B4E9"],
        "hoverlabel": {"align": "left", "bgcolor": PAPER, "font": {"size": 13, "color": INK}},
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

_DARK = {
    INK: "#E9EAEC",
    SOFT: "#BDC0C5",
    GREY: "#92969D",
    FAINT: "#84888F",
    LIGHT: "#363A41",
    MISSING: "#30343A",
    PAPER: "#16181C",
    BLUE: "#4FA9E2",
    RED: "#F07F35",
    GREEN: "#2FC295",
    PURPLE: "#E39AC4",
    _DEEP_RED: "#FFB98C",
    _DEEP_BLUE: "#AEDCFA",
    _PALE_BLUE: "#2F6F9E",
}

_PRINT = {INK: "#000000", GREY: "#4D4D4D", LIGHT: "#D2D2D2", SOFT: "#3A3A3A"}

_COLOURS = {"light": {}, "dark": _DARK, "print": _PRINT}

_COLOURED = ("color", "colorscale", "colorway")

_ABOVE = 16  # margin above a plot without a title

UNITS = {
    "correct": (
        "net flips per prompt",
        "Change in share of correct answers<br>(net flips per prompt)",
    ),
    "margin": ("logits", "Median change of the answer's margin<br>over facts (logits)"),
}
"""For each quantity, its unit in words and the title of its axis."""

LONGEST = 30
"""Most characters of a name on an axis."""

_DIGITS = 2

_LINE, _LINES = 110, 4
"""Characters per line below a title, and most lines for the names of what is left out."""


def themed(fig: go.Figure, theme: str) -> go.Figure:
    """Returns a copy of a figure of `plots` in another theme.

    Args:
        fig: a figure from a function of `plots`.
        theme: `light`; `dark`, for a dark page or slide; or `print`, black on white without title
            and subtitle, which belong in a paper's caption.

    Raises:
        UnknownOptionError: the theme is unknown.
    """
    require_theme(theme)
    copy = go.Figure(_recoloured(fig.to_plotly_json(), _COLOURS[theme]))
    if theme == "print" and copy.layout.title.text:
        removed = _title_height(copy.layout.title.subtitle.text or "") - _ABOVE
        copy.update_layout(
            title=None, margin_t=copy.layout.margin.t - removed, height=copy.layout.height - removed
        )
    return copy


def require_theme(theme: str) -> None:
    """Checks a theme's name.

    Raises:
        UnknownOptionError: there is no such theme.
    """
    if theme not in _COLOURS:
        raise UnknownOptionError(f"There is no theme {theme!r}. {near_matches(theme, _COLOURS)}")


def finish(
    fig: go.Figure, title: str, subtitle: str, *, height: int, width: int, legend: bool = False
) -> go.Figure:
    """Sets title, subtitle and size; `height` is that of the plot area without its margins."""
    entries = {t.name for t in fig.data if t.showlegend is not False} if legend else set()
    rows = math.ceil(sum(46 + 6.2 * len(str(name)) for name in entries) / (width - 140))
    top = _title_height(subtitle) + 24 * rows
    fig.update_layout(
        template=TEMPLATE,
        title={
            "text": f"<b>{title}</b>",
            "subtitle": {"text": subtitle, "font": {"size": 13, "color": SOFT}},
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


def _title_height(subtitle: str) -> int:
    lines = subtitle.count("<br>") + 1 if subtitle else 0
    return 52 + 19 * max(lines, 2)


def _recoloured(part: Any, colours: dict[str, str], *, colour: bool = False) -> Any:
    """Replaces colours in colour properties only, because a relation may be named like a colour."""
    if isinstance(part, dict):
        return {
            key: _recoloured(value, colours, colour=str(key).endswith(_COLOURED))
            for key, value in part.items()
        }
    if isinstance(part, (list, tuple)):
        return [_recoloured(value, colours, colour=colour) for value in part]
    if colour and isinstance(part, str):
        return _counterpart(part, colours)
    return part


def _counterpart(colour: str, colours: dict[str, str]) -> str:
    if not colour.startswith("rgba("):
        return colours.get(colour.upper(), colour)
    *channels, alpha = colour[5:-1].split(",")
    same = colours.get("#" + "".join(f"{int(c):02X}" for c in channels))
    return f"{_rgba(same)[:-1]},{alpha})" if same else colour


def _rgba(colour: str) -> str:
    """Returns a hex colour as rgba, without the alpha."""
    return f"rgba({','.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"


TEMPLATES = {
    name: go.layout.Template(_recoloured(TEMPLATE.to_plotly_json(), colours))
    for name, colours in _COLOURS.items()
}
"""The template of each theme, for figures of your own."""


def require(table: pd.DataFrame, columns: Iterable[str], made_by: str) -> None:
    """Checks that a table can be drawn.

    Raises:
        RelationFormatError: a column is missing, or there is no row.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        found = ", ".join(map(str, table.columns)) or "none"
        raise RelationFormatError(
            f"The table lacks the column {missing[0]!r}; expected what {made_by} returns. "
            f"Found: {found}."
        )
    if table.empty:
        raise RelationFormatError(f"The table has no row; expected what {made_by} returns.")


def label(name: Any, *, longest: int | None = None) -> str:
    """Returns text from data as a figure shows it: spaces for underscores, markup as text.

    >>> label("country_capital <b>")
    'country capital &lt;b&gt;'
    """
    text = " ".join(str(name).replace("_", " ").split())
    if longest is not None and len(text) > longest:
        text = text[: longest - 1].rstrip() + "…"
    return html.escape(text, quote=False)


def tick_size(count: int) -> int:
    """Returns the font size of an axis with `count` names."""
    return 13 if count <= 12 else 11 if count <= 24 else 10


def named(table: pd.DataFrame, name: str = "relation", language: str = "language") -> pd.Series:
    """Returns names of relations, with the language if there are several."""
    if table[language].nunique() < 2:
        return table[name].astype(str)
    return table[name].astype(str) + " (" + table[language].astype(str) + ")"


def shots_line(table: pd.DataFrame) -> str:
    """Returns a line for below a title if a table's `attrs["shots"]` says that solved examples were used.

    >>> table = pd.DataFrame()
    >>> shots_line(table)
    ''
    >>> table.attrs["shots"] = True
    >>> shots_line(table)
    '<br>Asked behind solved examples: relations share neurons for following these, too.'
    """
    if not table.attrs.get("shots"):
        return ""
    return "<br>Asked behind solved examples: relations share neurons for following these, too."


def left_out_line(table: pd.DataFrame) -> str:
    """Returns lines for below a title that name the relations in a table's `attrs["left_out"]`.

    >>> table = pd.DataFrame()
    >>> left_out_line(table)
    ''
    >>> table.attrs["left_out"] = {"noun_plural": "knows 3 of 9 facts"}
    >>> left_out_line(table)
    '<br><b>Not shown</b>, too little known to be ranked: noun plural.'
    """
    names = [label(name, longest=LONGEST) for name in table.attrs.get("left_out", ())]
    if not names:
        return ""
    start = "Not shown, too little known to be ranked: "
    for shown in range(len(names), 0, -1):
        rest = f" and {len(names) - shown} more" if shown < len(names) else ""
        lines = textwrap.wrap(f"{start}{', '.join(names[:shown])}{rest}.", _LINE)
        if len(lines) <= _LINES:
            break
    return "<br>" + "<br>".join(lines).replace("Not shown", "<b>Not shown</b>", 1)
