"""The tables of docs/calibration.md: kept as CSV beside the page, and shown in it between two comments."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "calibration.md"
COUNTS = {"relations", "draws", "runs", "rows"}
FACTORS = {"inflation"}


def kept(name: str) -> Path:
    """The file of a script's tables: `runs` or `draws`."""
    return DOCS / f"calibration_{name}.csv"


def markdown(name: str) -> dict[str, str]:
    """The tables of a file as the page shows them, by name; a column that a table lacks is left out."""
    every = pd.read_csv(kept(name), keep_default_na=False, na_values=[""])
    return {
        str(table): _table(part.drop(columns="table").dropna(axis=1, how="all"))
        for table, part in every.groupby("table", sort=False)
    }


def write(name: str, tables: dict[str, pd.DataFrame]) -> None:
    """Keeps a script's tables, and shows them in the page."""
    every = pd.concat([part.assign(table=table) for table, part in tables.items()])
    every = every[["table", *every.columns.drop("table")]].convert_dtypes()
    every.round(4).to_csv(kept(name), index=False)
    page = PAGE.read_text(encoding="utf-8")
    for table, text in markdown(name).items():
        block = f"<!-- {name}: {table} -->\n\n{text}\n\n<!-- end -->"
        page, found = re.subn(
            rf"<!-- {name}: {table} -->.*?<!-- end -->", lambda _, b=block: b, page, flags=re.DOTALL
        )
        if found != 1:
            raise ValueError(f"{PAGE.name} has {found} places for {table!r} of {name}; expected 1.")
    PAGE.write_text(page, encoding="utf-8")


def _table(part: pd.DataFrame) -> str:
    lines = [" | ".join(part.columns), " | ".join("---" for _ in part.columns)]
    lines += [
        " | ".join(_cell(column, value) for column, value in row.items())
        for row in part.to_dict("records")
    ]
    return "\n".join(f"| {line} |" for line in lines)


def _cell(column: str, value: object) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, str):
        return value
    if column in COUNTS:
        return f"{value:,.0f}"
    return f"{value:.2f}" if column in FACTORS else f"{value:.1%}"
