"""Tables: CSV, TSV and DataFrames with a row per fact, read cell by cell."""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from relation_neurons.errors import RelationFormatError
from relation_neurons.relations.raw import RawRelation, Row

__all__ = ["read_rows", "read_table_file"]

_COLUMNS = ("relation", "subject", "object")
_OPTIONAL = ("language", "id", "year", "template", "form", "side", "separator")


def read_rows(frame: pd.DataFrame, where: str) -> list[RawRelation]:
    """Reads a table with a row per fact: relation, subject, object.

    Optional columns: language, id, year; and template, form, side and separator, of which each
    distinct template is taken once, on whichever row it stands.

    Raises:
        RelationFormatError: a column is missing, or a row has no relation.
    """
    lower = [str(column).strip().lower() for column in frame.columns]
    known = (*_COLUMNS, *_OPTIONAL)
    named = [
        low if low in known else column for low, column in zip(lower, frame.columns, strict=True)
    ]
    frame = frame.set_axis(named, axis="columns")
    _refuse_columns(named, where)
    missing = [column for column in _COLUMNS if column not in frame.columns]
    if missing:
        raise RelationFormatError(
            f"{where} lacks the column {missing[0]!r}; expected relation, subject, object, and "
            f"template where the relation is not a shipped one. Found: {', '.join(map(str, frame.columns))}."
        )
    texts = pd.DataFrame(
        {
            column: [_cell(value, column, where) for value in frame[column]]
            if column in frame
            else [""] * len(frame)
            for column in (*_COLUMNS, *_OPTIONAL)
        },
        dtype=object,
    )
    texts["language"] = texts["language"].map(lambda text: text.strip().lower() or "en")
    texts["relation"] = texts["relation"].map(str.strip)
    nameless = np.flatnonzero(texts["relation"] == "")
    if nameless.size:
        raise RelationFormatError(
            f"{where}: row {nameless[0] + 1} has no relation; {nameless.size} rows lack one."
        )
    found = []
    for (name, language), group in texts.groupby(["relation", "language"], sort=True):
        raw = RawRelation(str(name).strip(), str(language), where, source=where)
        for record in group.to_dict("records"):
            raw.rows.append(
                Row(
                    record["subject"],
                    tuple(_objects(record["object"])),
                    record["id"].strip(),
                    _year(record["year"], where),
                )
            )
            if record["template"]:
                stated = {"text": record["template"]}
                stated |= {key: record[key] for key in ("form", "side") if record[key]}
                if record["separator"]:
                    stated["separator"] = (
                        "" if record["separator"] == "none" else record["separator"]
                    )
                if stated not in raw.templates:
                    raw.templates.append(stated)
        found.append(raw)
    return found


def _refuse_columns(columns: list[Any], where: str) -> None:
    """Refuses columns that come twice, and those that look like one that is missing."""
    known = (*_COLUMNS, *_OPTIONAL)
    for column in map(str, columns):
        name, _, number = column.rpartition(".")
        if list(map(str, columns)).count(column) > 1 or (name in known and number.isdigit()):
            once = column if column in known else name
            raise RelationFormatError(f"{where} has the column {once!r} twice; expected it once.")
        near = difflib.get_close_matches(column.strip().lower(), known, n=1, cutoff=0.65)
        near += [name for name in ("language",) if column.strip().lower() == "lang"]
        if column not in known and near and near[0] not in columns:
            raise RelationFormatError(
                f"{where} has a column {column!r}, which is not read; is it {near[0]!r}? Rename it, or "
                "leave it out."
            )


def _cell(value: Any, column: str, where: str) -> str:
    """A cell as text; whole numbers without their decimals, several objects with line breaks."""
    if isinstance(value, (list, tuple)) and column == "object":
        return "\n".join(_cell(item, "one object", where) for item in value)
    if not pd.api.types.is_scalar(value):
        raise RelationFormatError(
            f"{where}: column {column!r} holds {value!r}; expected a text or a number."
        )
    if pd.isna(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _objects(text: str) -> list[str]:
    return text.split("\n") or [""]


def _year(text: str, where: str) -> int | None:
    try:
        return int(float(text)) if text.strip() else None
    except (ValueError, OverflowError) as error:
        raise RelationFormatError(f"{where}: the year {text!r}; expected a number.") from error


def read_table_file(path: Path) -> pd.DataFrame:
    """Reads a CSV or TSV file as text.

    Raises:
        RelationFormatError: another encoding, separator or width of rows.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                sep="\t" if path.suffix.lower() == ".tsv" else ",",
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                index_col=False,
            )
    except UnicodeDecodeError as error:
        raise RelationFormatError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}). Save it as “CSV UTF-8”."
        ) from error
    except (ValueError, OSError, pd.errors.ParserWarning) as error:  # parser errors are ValueErrors
        raise RelationFormatError(
            f"{path} cannot be read as a table: {str(error).strip()}. Each row takes as many fields as the "
            "header; put a value with a comma into quotation marks."
        ) from error
    if len(table.columns) == 1 and any(mark in str(table.columns[0]) for mark in ";\t"):
        raise RelationFormatError(
            f"{path} is not separated by {'tabs' if path.suffix.lower() == '.tsv' else 'commas'}: its header "
            f"is {table.columns[0]!r}. Save it so, or as a DataFrame: pandas.read_csv(path, sep=';')."
        )
    return table
