"""`load_relations`: any source, from a shipped set to a DataFrame, to `Relation` objects."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from relation_neurons.errors import (
    RelationFormatError,
    TemplateError,
    UnknownRelationError,
    near_matches,
)
from relation_neurons.relations.formats import (
    RawRelation,
    Row,
    read_path,
    read_rows,
)
from relation_neurons.relations.relation import Fact, Relation, Template, subject_key
from relation_neurons.relations.shipped import read_shipped, shipped_files

__all__ = ["build_relation", "clean_text", "load_relations", "read_source"]

_NO_MEANING = "\u00ad\u200b\u200e\u200f\u2060\ufeff"
"""Invisible characters that change nothing but the tokens: soft hyphen, zero-width space, marks."""


def load_relations(
    source: Any,
    *,
    names: Sequence[str] | None = None,
    languages: Sequence[str] | str | None = None,
) -> tuple[Relation, ...]:
    """Reads relations from any source.

    Args:
        source: a shipped set (`demo`, `atlas`), one of its relations (`country_capital`, or
            `demo/country_capital`), `lre` once it is fetched, a file or a folder of files (JSON in
            the shipped or the LRE format, JSON Lines, CSV, TSV), several of these separated by
            commas, a DataFrame with relation, subject and object, or relations.
        names: keeps only these relations.
        languages: keeps only these, or `"all"`. By default a shipped set is read in English, and
            everything else in all the languages it has.

    Raises:
        UnknownRelationError: there is no such set, relation, language or path.
        RelationFormatError: the data is in none of the formats.

    >>> [r.name for r in load_relations("demo")][:1] != []
    True
    """
    if isinstance(source, Relation):
        source = [source]
    if isinstance(source, (str, Path, pd.DataFrame)):
        relations = [build_relation(raw) for raw in read_source(source, languages=languages)]
    elif isinstance(source, Iterable):
        relations = list(source)
        for wrong in relations:
            if not isinstance(wrong, Relation):
                raise RelationFormatError(
                    f"Found a {type(wrong).__name__} among the relations; expected Relation objects only."
                )
    else:
        raise RelationFormatError(
            f"Cannot read relations from a {type(source).__name__}; expected a name, a path, a DataFrame "
            "or Relation objects."
        )
    seen: set[tuple[str, str]] = set()
    for relation in relations:
        key = (relation.name, relation.language)
        if key in seen:
            raise RelationFormatError(f"Relation {key} comes twice; expected names that differ.")
        seen.add(key)
    if languages is not None and _languages(languages) != ("all",):
        wanted = _languages(languages)
        spoken = {relation.language for relation in relations}
        for language in wanted:
            if language not in spoken:
                known = spoken or {
                    one for s in shipped_files().values() for r in s.values() for one in r
                }
                raise UnknownRelationError(
                    f"No relation in the language {language!r}. {near_matches(language, known)}"
                )
        relations = [relation for relation in relations if relation.language in wanted]
    if names is not None:
        names = [names] if isinstance(names, str) else names
        have = {relation.name for relation in relations}
        for name in names:
            if name not in have:
                raise UnknownRelationError(f"No relation {name!r}. {near_matches(name, have)}")
        relations = [relation for relation in relations if relation.name in set(names)]
    if not relations:
        raise RelationFormatError(f"No relation found in {source!r}.")
    return tuple(relations)


def read_source(
    source: str | Path | pd.DataFrame, *, languages: Sequence[str] | str | None = None
) -> list[RawRelation]:
    """Reads a source as it stands, before anything is merged or rejected; see `load_relations`."""
    if isinstance(source, pd.DataFrame):
        return read_rows(source, "the DataFrame")
    name = str(source)
    sets = shipped_files()
    if name in sets:
        members = [(name, relation) for relation in sets[name]]
    elif "/" in name and name.partition("/")[2] in sets.get(name.partition("/")[0], {}):
        members = [(name.partition("/")[0], name.partition("/")[2])]
    else:
        members = [(kept, name) for kept in sets if name in sets[kept]][:1]
    if members:
        wanted = ("en",) if languages is None else _languages(languages)
        return [
            raw
            for kept, relation in members
            for language in sets[kept][relation]
            if wanted == ("all",) or language in wanted
            for raw in read_shipped(kept, relation, language)
        ]
    path = _path(name)
    if path is not None:
        found = read_path(path)
        if languages is None or languages == "all":
            return found
        return [raw for raw in found if raw.language in _languages(languages)] or found
    if "," in name:
        parts = [part.strip() for part in name.split(",") if part.strip()]
        return [raw for part in parts for raw in read_source(part, languages=languages)]
    if name == "lre":
        from relation_neurons.relations.lre import lre_folder

        return read_path(lre_folder())
    known = sorted({*sets, *(r for members in sets.values() for r in members)})
    if "/" in name or Path(name).suffix:
        raise UnknownRelationError(
            f"There is no file, folder or shipped relation {name!r}; expected one of these."
        )
    raise UnknownRelationError(
        f"{name!r} is not a shipped set, a shipped relation or a path. {near_matches(name, known)}"
    )


def build_relation(raw: RawRelation) -> Relation:
    """Builds a relation; a subject's objects become one fact, and what was merged is counted (pitfall 9).

    Raises:
        TemplateError: a template cannot be used, or there is none.
        RelationFormatError: no fact is left.
    """
    merged: dict[str, Fact] = {}
    notes = {"read": len(raw.rows), "duplicates": 0, "merged": 0, "empty": 0, "repaired": 0}
    for row in raw.rows:
        subject = clean_text(row.subject)
        objects = tuple(dict.fromkeys(o for o in map(clean_text, row.objects) if o))
        notes["repaired"] += _is_dirty(row)
        if not subject or not objects:
            notes["empty"] += 1
            continue
        key = subject_key(subject)
        known = merged.get(key)
        if known is None:
            merged[key] = Fact(subject, objects, row.id, row.year)
            continue
        notes["duplicates" if set(objects) <= set(known.objects) else "merged"] += 1
        merged[key] = replace(
            known,
            objects=tuple(dict.fromkeys((*known.objects, *objects))),
            id=known.id or row.id,
            year=max((y for y in (known.year, row.year) if y is not None), default=None),
        )
    return Relation(
        name=raw.name,
        facts=tuple(merged.values()),
        templates=tuple(_make_templates(raw)),
        language=raw.language,
        description=raw.description,
        source=raw.source,
        notes=notes,
    )


def _make_templates(raw: RawRelation) -> list[Template]:
    """Makes the stated templates; if no side is stated, the last of several is held out."""
    stated: list[dict[str, Any]] = []
    for template in raw.templates or _shipped_templates(raw):
        text = template["text"]
        cleaned = clean_text(text) + (" " if text != text.rstrip() else "")
        if {**template, "text": cleaned} not in stated:
            stated.append({**template, "text": cleaned})
    made = [Template(**{"form": _form(t["text"]), **t}) for t in stated]
    if len(made) > 1 and not any("side" in t for t in stated):
        made[-1] = replace(made[-1], side="held_out")
    return made


def _form(text: str) -> str:
    return (
        "question" if "?" in text or "\uff1f" in text else "statement"
    )  # with the full-width mark


def _shipped_templates(raw: RawRelation) -> list[dict[str, Any]]:
    for name, members in shipped_files().items():
        if raw.language in members.get(raw.name, {}):
            return read_shipped(name, raw.name, raw.language)[0].templates
    known = [r for members in shipped_files().values() for r in members]
    raise TemplateError(
        f"Relation {raw.name!r} comes without a template and is not a shipped one in "
        f"{raw.language!r}. Add a column 'template' with at least two wordings. "
        f"{near_matches(raw.name, known)}"
    )


def clean_text(text: str) -> str:
    """Undoes double escapes, drops invisible characters, and normalises white space.

    >>> clean_text("Bras\\\\u00edlia\\u200b ")
    'Brasília'
    """
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    kept = (
        c for c in text if c.isspace() or (c not in _NO_MEANING and unicodedata.category(c) != "Cc")
    )
    return " ".join("".join(kept).split())


def _is_dirty(row: Row) -> bool:
    """Whether cleaning changes more than white space."""
    return any(clean_text(text) != " ".join(text.split()) for text in (row.subject, *row.objects))


def _languages(languages: Sequence[str] | str) -> tuple[str, ...]:
    texts = languages.split(",") if isinstance(languages, str) else languages
    if not isinstance(texts, Iterable) or not all(isinstance(text, str) for text in texts):
        raise UnknownRelationError(
            f"languages is {languages!r}; expected language codes, such as 'en,de'."
        )
    return tuple(text.strip().lower() for text in texts if text.strip())


def _path(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path if name.strip() and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a null character, an unknown ~user
        return None
