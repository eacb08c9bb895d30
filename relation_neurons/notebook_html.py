"""The HTML that `_repr_html_` methods show in a notebook: a heading, a note, and small tables.

It depends on no class of the package; each class calls `table_view`. Jinja escapes text from data.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["ROWS", "make_environment", "table_view"]

ROWS = 12
"""How many rows of a table a notebook shows; the rest are counted."""


def make_environment() -> Environment:
    """Returns a Jinja environment over the package's templates that escapes every value from data."""
    return Environment(
        loader=PackageLoader("relation_neurons"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


def table_view(
    title: str,
    note: str,
    *tables: tuple[Sequence[str], Iterable[Sequence[Any]]],
    shown: int = 2 * ROWS,
) -> str:
    """Returns a heading with tables below it, each cut to its first rows.

    Args:
        title: the heading; underscores are shown as spaces.
        note: a sentence below the heading.
        tables: for each table, its column names and its rows.
        shown: how many rows of each table are shown.
    """
    parts = [(head, list(rows)) for head, rows in tables]
    return (
        _environment()
        .get_template("notebook_view.html.j2")
        .render(
            title=title.replace("_", " "),
            note=note,
            tables=[
                {"head": head, "rows": rows[:shown], "more": len(rows) - shown}
                for head, rows in parts
                if rows
            ],
        )
    )


@functools.cache
def _environment() -> Environment:
    return make_environment()
