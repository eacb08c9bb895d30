"""Parsers of CSV, TSV, JSON, JSON Lines and LRE files into rows that are not yet validated.

`loading` builds relations from them, and `checks` reports what is wrong with them.
"""

from __future__ import annotations

import difflib
import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from relation_neurons.errors import RelationFormatError

__all__ = [
    "SUFFIXES",
    "RawRelation",
    "Row",
    "read_path",
    "read_rows",
    "read_shipped_text",
    "read_table_file",
]

_COLUMNS = ("relation", "subject", "object")

_OPTIONAL = ("language", "id", "year", "template", "form", "side", "separator")

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")

_TEMPLATE_KEYS = ("text", "form", "side", "separator")


class Row(NamedTuple):
    """One row of a source."""

    subject: str
    objects: tuple[str, ...]
    id: str = ""
    year: int | None = None


@dataclass
class RawRelation:
    """A relation as its source states it."""

    name: str
    language: str
    where: str
    """The file or other source it was read from."""
    rows: list[Row] = field(default_factory=list)
    templates: list[dict[str, Any]] = field(default_factory=list)
    """Each with `text`, and with `form`, `side` and `separator` if stated."""
    description: str = ""
    source: str = ""


def read_rows(frame: pd.DataFrame, where: str) -> list[RawRelation]:
    """Reads a table with a row per fact: relation, subject, object.

    Optional columns are language, id and year, and template, form, side and separator; each distinct
    template is read once, whichever row it is on.

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
            f"{where} lacks the column {missing[0]!r}; expected relation, subject and object, and "
            f"template if the relation is not a shipped one. Found: {', '.join(map(str, frame.columns))}."
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
            f"{where}: row {nameless[0] + 1} has no relation; expected one in every row, and "
            f"{nameless.size} lack it."
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
    """Rejects columns that occur twice, and those that look like a misspelt one."""
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
                f"{where} has a column {column!r}, which is not read; did you mean {near[0]!r}? Rename it, "
                "or leave it out."
            )


def _cell(value: Any, column: str, where: str) -> str:
    """Returns a cell as text: whole numbers without decimals, several objects joined by line breaks."""
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
        raise RelationFormatError(
            f"{where}: found the year {text!r}; expected a number."
        ) from error


def read_table_file(path: Path) -> pd.DataFrame:
    """Reads a CSV or TSV file as text.

    Raises:
        RelationFormatError: the file is not UTF-8, or its separator or number of fields is wrong.
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
            f"{path} cannot be read as a table: {str(error).strip()}. Each row needs as many fields as the "
            "header; put a value that contains a comma into quotation marks."
        ) from error
    if len(table.columns) == 1 and any(mark in str(table.columns[0]) for mark in ";\t"):
        raise RelationFormatError(
            f"{path} is not separated by {'tabs' if path.suffix.lower() == '.tsv' else 'commas'}: its header "
            f"is {table.columns[0]!r}. Save it that way, or pass a DataFrame: pandas.read_csv(path, sep=';')."
        )
    return table


def read_path(path: Path) -> list[RawRelation]:
    """Reads a file, or every file in a folder and its subfolders.

    Raises:
        RelationFormatError: there is nothing to read, or a file is in none of the formats.
    """
    if path.is_dir():
        files = sorted(
            (
                file
                for file in path.rglob("*")
                if file.suffix.lower() in SUFFIXES
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
            ),
            key=lambda file: (file.parent, file.stem, file.suffix),
        )
        if not files:
            raise RelationFormatError(
                f"No relation file in {path}; expected {', '.join(SUFFIXES)} (LRE, shipped or tabular)."
            )
        return [raw for file in files for raw in read_path(file)]
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise RelationFormatError(
            f"{path} has {f'the suffix {suffix}' if suffix else 'no suffix'}; expected {', '.join(SUFFIXES)}."
        )
    if suffix in (".csv", ".tsv"):
        return read_rows(read_table_file(path), str(path))
    text = _read_text(path)
    if suffix == ".jsonl":
        return _from_json_rows(_json_lines(text, str(path)), str(path))
    return read_shipped_text(text, str(path))


def read_shipped_text(text: str, where: str) -> list[RawRelation]:
    """Reads JSON: one relation in the shipped or the LRE format, or a list of rows.

    Raises:
        RelationFormatError: the text is not JSON, or is in none of these formats.
    """
    data = _json(text, where)
    if isinstance(data, list):
        return _from_json_rows(data, where)
    if not isinstance(data, dict):
        raise RelationFormatError(f"{where} holds a {type(data).__name__}; expected an object.")
    stem = Path(where).stem
    try:
        if "samples" in data:
            return [_from_lre(data, stem, where)]
        name, _, suffix = stem.partition(".")
        language = _language(data.get("language", suffix or "en"))
        return [
            RawRelation(
                name=str(data.get("name") or name),
                language=language,
                where=where,
                rows=[_row(f, f["objects"]) for f in _listed(data["facts"])],
                templates=[_template(t) for t in _listed(data["templates"])],
                description=str(data.get("description", "")),
                source=str(data.get("source", where)),
            )
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise RelationFormatError(
            f"{where}: {error!r}. Expected 'facts' with 'subject' and 'objects' beside 'templates' "
            "(the shipped format), or 'samples' with 'subject' and 'object' (LRE)."
        ) from error


def _from_lre(data: Mapping[str, Any], stem: str, where: str) -> RawRelation:
    """Reads LRE data: zero-shot templates first, then few-shot ones; the relation is named by its file."""
    texts = [
        *_listed(data.get("prompt_templates_zs", [])),
        *_listed(data.get("prompt_templates", [])),
    ]
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"found {text!r} where a template belongs")
    return RawRelation(
        name=stem,
        language=_language(data.get("language", "en")),
        where=where,
        rows=[_row(sample, sample["object"]) for sample in _listed(data["samples"])],
        templates=[{"text": text} for text in dict.fromkeys(text.rstrip() for text in texts)],
        description=str(data.get("name", stem)),
        source=f"LRE ({where})",
    )


def _from_json_rows(rows: Iterable[Any], where: str) -> list[RawRelation]:
    """Reads objects with relation, subject and object (or objects), as in JSON Lines."""
    found: dict[tuple[str, str], RawRelation] = {}
    for number, row in enumerate(rows, start=1):
        try:
            name, language = str(row["relation"]).strip(), _language(row.get("language") or "en")
            if not name:
                raise KeyError("relation")
            raw = found.setdefault(
                (name, language), RawRelation(name, language, where, source=where)
            )
            raw.rows.append(_row(row, row["objects"] if "objects" in row else row["object"]))
            stated = row.get("templates", row.get("template", []))
            for template in stated if isinstance(stated, list) else [stated]:
                read = _template({"text": template} if isinstance(template, str) else template)
                if read not in raw.templates:
                    raw.templates.append(read)
        except (KeyError, TypeError, AttributeError) as error:
            raise RelationFormatError(
                f"{where}: row {number}: {error!r}. Expected an object with relation, subject and "
                "object (or objects), and templates where the relation is not a shipped one."
            ) from error
    return [found[key] for key in sorted(found)]


def _row(fact: Any, objects: Any) -> Row:
    """Reads one fact; its subject and objects must be texts or numbers."""
    listed = objects if isinstance(objects, list) else [objects]
    for value in (fact["subject"], *listed):
        if isinstance(value, bool) or not isinstance(value, (str, int, float)) or value != value:
            raise TypeError(f"found {value!r} where a text belongs")
    identity = "" if fact.get("id") is None else fact["id"]
    if not isinstance(identity, (str, int)):
        raise TypeError(f"found the id {identity!r} where a text belongs")
    year = fact.get("year")
    if year is not None and (isinstance(year, bool) or not isinstance(year, int)):
        raise TypeError(f"found the year {year!r} where a whole number belongs")
    return Row(str(fact["subject"]), tuple(str(v) for v in listed), str(identity), year)


def _language(stated: Any) -> str:
    if not isinstance(stated, str) or not stated.strip() or not stated.isprintable():
        raise TypeError(f"found the language {stated!r}; expected a code such as 'en'")
    return stated.strip().lower()


def _template(stated: Any) -> dict[str, str]:
    if isinstance(stated, str):
        return {"text": stated}
    unknown = sorted(set(stated) - set(_TEMPLATE_KEYS))
    if unknown or "text" not in stated:
        raise TypeError(f"a template has {unknown or 'no text'}; expected {_TEMPLATE_KEYS}")
    wrong = next((value for value in stated.values() if not isinstance(value, str)), None)
    if wrong is not None:
        raise TypeError(f"found {wrong!r} in a template where a text belongs")
    return dict(stated)


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"found a {type(value).__name__} where a list belongs")
    return value


def _json_lines(text: str, where: str) -> list[Any]:
    lines = [line for line in text.split("\n") if line.strip()]
    return [_json(line, f"{where}, line {number}") for number, line in enumerate(lines, start=1)]


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # a number too long for int is a ValueError
        raise RelationFormatError(f"{where} is not JSON: {error}.") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RelationFormatError(f"{path} is not UTF-8: {error.reason}.") from error
    except OSError as error:
        raise RelationFormatError(f"{path} cannot be read: {error.strerror}.") from error
