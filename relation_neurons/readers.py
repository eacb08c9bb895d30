"""Readers: relations from wherever they are - shipped sets, LRE json, CSV, a DataFrame."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from relation_neurons.errors import (
    RelationFormatError,
    TemplateError,
    UnknownRelationError,
    near_matches,
)
from relation_neurons.relations import Fact, Relation, Template, subject_key

__all__ = ["list_shipped", "load_background", "load_relations"]

_COLUMNS = ("relation", "subject", "object")


def load_relations(source: Any, *, names: Sequence[str] | None = None) -> tuple[Relation, ...]:
    """Reads relations from wherever they are.

    Args:
        source: a shipped set (`demo`) or one of its relations, a file or folder of json in the
            shipped or the LRE format, a CSV or TSV with `relation, subject, object` (and
            optional `template`, `language`), a DataFrame with those columns, or relations.
        names: keeps only these relations.

    Raises:
        UnknownRelationError: no such set, relation or path.
        RelationFormatError: data that is not in one of the formats.

    >>> [r.name for r in load_relations("demo")][:1] != []
    True
    """
    if isinstance(source, Relation):
        relations = [source]
    elif isinstance(source, pd.DataFrame):
        relations = _from_frame(source, "the DataFrame")
    elif isinstance(source, (str, Path)):
        relations = _from_name_or_path(str(source))
    elif isinstance(source, Iterable):
        relations = list(source)
        wrong = next((r for r in relations if not isinstance(r, Relation)), None)
        if wrong is not None:
            raise RelationFormatError(f"Found a {type(wrong).__name__} where a Relation belongs.")
    else:
        raise RelationFormatError(f"Cannot read relations from a {type(source).__name__}.")
    seen: set[tuple[str, str]] = set()
    for relation in relations:
        key = (relation.name, relation.language)
        if key in seen:
            raise RelationFormatError(f"Relation {key} comes twice; names must differ.")
        seen.add(key)
    if names is not None:
        have = {relation.name for relation in relations}
        for name in names:
            if name not in have:
                raise UnknownRelationError(f"No relation {name!r}. {near_matches(name, have)}")
        relations = [relation for relation in relations if relation.name in set(names)]
    if not relations:
        raise RelationFormatError(f"No relation found in {source!r}.")
    return tuple(relations)


def list_shipped() -> dict[str, tuple[str, ...]]:
    """Gives the shipped sets and the relations in each."""
    root = resources.files("relation_neurons") / "data"
    sets: dict[str, tuple[str, ...]] = {}
    for folder in sorted(root.iterdir(), key=lambda entry: entry.name):
        if folder.is_dir():
            files = sorted(e.name for e in folder.iterdir() if e.name.endswith(".json"))
            if files:
                sets[folder.name] = tuple(name.removesuffix(".json") for name in files)
    return sets


def load_background() -> tuple[tuple[str, str], ...]:
    """Gives the neutral prompts shipped with the package, as (text, form)."""
    path = resources.files("relation_neurons") / "data" / "background.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    return tuple((row["text"], row["form"]) for row in data["prompts"])


def _from_name_or_path(name: str) -> list[Relation]:
    shipped = list_shipped()
    root = resources.files("relation_neurons") / "data"
    if name in shipped:
        return [
            _from_json_text((root / name / f"{r}.json").read_text("utf-8"), r)
            for r in shipped[name]
        ]
    for set_name, members in shipped.items():
        if name in members:
            return [_from_json_text((root / set_name / f"{name}.json").read_text("utf-8"), name)]
    path = Path(name).expanduser()
    try:
        exists = bool(name.strip()) and path.exists()
    except OSError:  # a name too long for a path
        exists = False
    if not exists:
        known = [*shipped, *(r for members in shipped.values() for r in members)]
        raise UnknownRelationError(
            f"{name!r} is no shipped set, no shipped relation and no path. {near_matches(name, known)}"
        )
    if path.is_dir():
        files = sorted(path.rglob("*.json"))
        if not files:
            raise RelationFormatError(f"No .json file in {path}; expected LRE or shipped format.")
        return [_from_json_file(file) for file in files]
    if path.suffix == ".json":
        return [_from_json_file(path)]
    if path.suffix in {".csv", ".tsv"}:
        return _from_frame(_read_table(path), str(path))
    raise RelationFormatError(
        f"{path} is a {path.suffix or 'nameless'} file; expected .json, .csv or .tsv."
    )


def _from_json_file(path: Path) -> Relation:
    try:
        return _from_json_text(path.read_text(encoding="utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise RelationFormatError(f"{path} is not UTF-8: {error.reason}.") from error
    except OSError as error:
        raise RelationFormatError(f"{path} cannot be read: {error.strerror}.") from error


def _from_json_text(text: str, where: str) -> Relation:
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RelationFormatError(f"{where} is not JSON: {error}.") from error
    if not isinstance(data, dict):
        raise RelationFormatError(f"{where} holds a {type(data).__name__}; expected an object.")
    try:
        if "samples" in data:
            pairs = [_pair(s["subject"], s["object"]) for s in data["samples"]]
            templates = _lre_templates(data)
        else:
            pairs = [_pair(f["subject"], f["objects"]) for f in data["facts"]]
            templates = [Template(**template) for template in data["templates"]]
        name = str(data.get("name") or Path(where).stem)
    except (KeyError, TypeError) as error:
        raise RelationFormatError(
            f"{where}: {error!r}. Expected 'facts' with 'subject' and 'objects' beside 'templates' "
            "(the shipped format), or 'samples' with 'subject' and 'object' (LRE)."
        ) from error
    slug = "_".join(name.split()).replace("/", "_")
    return _build(
        slug,
        pairs,
        templates,
        language=str(data.get("language", "en")),
        description=str(data.get("description", name)),
        source=str(data.get("source", where)),
    )


def _pair(subject: Any, objects: Any) -> tuple[str, tuple[str, ...]]:
    """Takes texts and numbers as they are, and nothing else."""
    listed = objects if isinstance(objects, list) else [objects]
    for value in (subject, *listed):
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise TypeError(f"found {value!r} where a text belongs")
    return str(subject), tuple(str(value) for value in listed)


def _lre_templates(data: Mapping[str, Any]) -> list[Template]:
    """Zero-shot templates first, then the few-shot ones, each once; the last one is held out."""
    texts = [*data.get("prompt_templates_zs", []), *data.get("prompt_templates", [])]
    unique = list(dict.fromkeys(str(text).rstrip() for text in texts))
    return _with_sides([Template(text, form=_form(text)) for text in unique])


def _with_sides(templates: list[Template]) -> list[Template]:
    """Where no side is stated, the last of several templates is held out."""
    if len(templates) > 1:
        templates[-1] = replace(templates[-1], side="held_out")
    return templates


def _form(text: str) -> str:
    return "question" if "?" in text else "statement"


def _read_table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(
            path,
            sep="\t" if path.suffix == ".tsv" else ",",
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
        )
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise RelationFormatError(f"{path} cannot be read as a table: {error}.") from error


def _from_frame(frame: pd.DataFrame, where: str) -> list[Relation]:
    missing = [column for column in _COLUMNS if column not in frame.columns]
    if missing:
        raise RelationFormatError(
            f"{where} lacks the column {missing[0]!r}; expected relation, subject, object, and "
            f"template where the relation is not a shipped one. Found: {', '.join(map(str, frame.columns))}."
        )
    frame = frame.astype(object).where(frame.notna(), "").astype(str)
    if "language" not in frame:
        frame["language"] = "en"
    frame["language"] = frame["language"].str.strip().replace("", "en")
    nameless = np.flatnonzero(frame["relation"].str.strip() == "")
    if nameless.size:
        raise RelationFormatError(
            f"{where}: row {nameless[0] + 1} has no relation; {nameless.size} rows lack one."
        )
    relations = []
    for (name, language), group in frame.groupby(["relation", "language"], sort=True):
        texts = list(dict.fromkeys(t for t in group.get("template", []) if t))
        templates = _with_sides([Template(t, form=_form(t)) for t in texts]) or _shipped_templates(
            str(name)
        )
        pairs = [_pair(s, o) for s, o in zip(group["subject"], group["object"], strict=True)]
        relations.append(_build(str(name), pairs, templates, language=str(language), source=where))
    return relations


def _shipped_templates(name: str) -> list[Template]:
    known = [r for members in list_shipped().values() for r in members]
    if name not in known:
        raise TemplateError(
            f"Relation {name!r} comes without a template and is not a shipped one. Add a column "
            f"'template' with at least two wordings. {near_matches(name, known)}"
        )
    return list(_from_name_or_path(name)[0].templates)


def _build(
    name: str,
    pairs: Sequence[tuple[str, tuple[str, ...]]],
    templates: Sequence[Template],
    **rest: Any,
) -> Relation:
    """Merges a subject's several objects into one fact and counts what that did (pitfall 9)."""
    merged: dict[str, tuple[str, tuple[str, ...]]] = {}
    notes = {"read": len(pairs), "duplicates": 0, "merged": 0, "empty": 0}
    for subject, objects in pairs:
        subject = " ".join(subject.split())
        objects = tuple(dict.fromkeys(" ".join(o.split()) for o in objects if o.strip()))
        if not subject or not objects:
            notes["empty"] += 1
            continue
        key = subject_key(subject)
        known_subject, known_objects = merged.get(key, (subject, ()))
        if known_objects:
            notes["duplicates" if set(objects) <= set(known_objects) else "merged"] += 1
        merged[key] = (known_subject, tuple(dict.fromkeys((*known_objects, *objects))))
    facts = tuple(Fact(subject, objects) for subject, objects in merged.values())
    return Relation(name=name, facts=facts, templates=tuple(templates), notes=notes, **rest)
