"""The HTML of objects in a notebook: a heading, a line, and small tables.

It knows no class of the package; each class calls it in its `_repr_html_`. Jinja escapes text from data.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["ROWS", "make_environment", "table_view"]

ROWS = 12
"""Rows of a table that a notebook shows; more are counted."""


def make_environment() -> Environment:
    """Returns a Jinja environment over the package's templates, with every value from data escaped."""
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
        title: the heading; underscores become spaces.
        note: a sentence below it.
        tables: the names of a table's columns, and its rows.
        shown: rows of each table that are shown.
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
