"""Plot text: what a table must hold, and names and numbers made fit for a figure."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable
from typing import Any

import pandas as pd

from relation_neurons.errors import RelationFormatError

__all__ = [
    "LONGEST",
    "UNITS",
    "label",
    "left_out_line",
    "named",
    "require",
    "shots_line",
    "tick_size",
]

UNITS = {
    "correct": (
        "net flips per prompt",
        "Change in share of correct answers<br>(net flips per prompt)",
    ),
    "margin": ("logits", "Change of the answer's margin (logits)"),
}
"""Per quantity: its unit in words, and the title of its axis."""
LONGEST = 30
"""Characters of a name on an axis."""
_DIGITS = 2
_LINE, _LINES = 110, 4
"""Characters of a line below a title, and lines that names of what is left out may take."""


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


def tick_size(count: int) -> int:
    """Font size of an axis with `count` names."""
    return 13 if count <= 12 else 11 if count <= 24 else 10


def named(table: pd.DataFrame, name: str = "relation", language: str = "language") -> pd.Series:
    """Names of relations, with the language where there are several."""
    if table[language].nunique() < 2:
        return table[name].astype(str)
    return table[name].astype(str) + " (" + table[language].astype(str) + ")"


def shots_line(table: pd.DataFrame) -> str:
    """Says, below a title, that solved examples stood in front, where a table's `attrs["shots"]` does.

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
    """Names what a table's `attrs["left_out"]` says is not in it, as lines below a title.

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
