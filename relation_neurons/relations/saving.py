"""`save_relations`: relations to files that `load_relations` and other programs read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from relation_neurons.errors import RelationFormatError, near_matches
from relation_neurons.relations.loading import load_relations
from relation_neurons.relations.relation import Relation

__all__ = ["FORMATS", "relations_frame", "save_relations"]

FORMATS = ("csv", "tsv", "jsonl", "json", "lre")


def save_relations(relations: Any, path: str | Path, *, format: str | None = None) -> list[Path]:
    """Writes relations to a file or folder.

    `csv`, `tsv` and `jsonl` are one file; `json` (the shipped format) and `lre` are a folder with a
    file per relation. All but `lre` are read back with the same facts and templates; tables cannot
    hold descriptions and sources. LRE cannot hold ids, years, sides and forms either: the held-out
    templates come last, and only the last of them is held out when the file is read back.

    Args:
        relations: anything that `load_relations` reads.
        path: the file or folder; parent folders are created.
        format: one of `FORMATS`; by default taken from the path's suffix, or `json` if it has none.

    Returns:
        The files written.

    Raises:
        RelationFormatError: the format is unknown, or a file cannot be written.
    """
    loaded, path = load_relations(relations), Path(path)
    suffix = path.suffix.lower().removeprefix(".")
    chosen = format or (suffix if suffix in ("csv", "tsv", "jsonl") else "json")
    if chosen not in FORMATS:
        raise RelationFormatError(
            f"There is no format {chosen!r}. {near_matches(str(chosen), FORMATS)}"
        )
    _refuse(loaded, chosen, path, suffix)
    try:
        if chosen in ("json", "lre"):
            path.mkdir(parents=True, exist_ok=True)
            write = _shipped if chosen == "json" else _lre
            return [_write(path / f"{_stem(one)}.json", write(one)) for one in loaded]
        path.parent.mkdir(parents=True, exist_ok=True)
        if chosen == "jsonl":
            return [_write(path, "".join(_line(row) for one in loaded for row in _rows(one)))]
        frame = relations_frame(loaded)
        frame.to_csv(path, sep="\t" if chosen == "tsv" else ",", index=False, encoding="utf-8")
        return [path]
    except (OSError, ValueError) as error:
        raise RelationFormatError(f"{path} cannot be written: {error}.") from error


def _refuse(relations: Iterable[Relation], chosen: str, path: Path, suffix: str) -> None:
    """Rejects paths that do not fit the format, and relations that could not be read back."""
    folder = chosen in ("json", "lre")
    if suffix != ("" if folder else chosen):
        kind = "a folder, without a suffix" if folder else f"a file that ends in .{chosen}"
        raise RelationFormatError(f"{path} does not fit the format {chosen!r}; expected {kind}.")
    stems: set[str] = set()
    for one in relations if folder else ():
        stem = _stem(one)
        if stem in stems or stem.startswith(".") or (path / f"{stem}.json").exists():
            raise RelationFormatError(
                f"Relation {one.name!r} would be written to {stem}.json, which is taken or hidden. "
                "Rename the relation, or choose an empty folder."
            )
        stems.add(stem)
        spaced = all(template.separator == " " for template in one.templates)
        if chosen == "lre" and (one.language != "en" or not spaced):
            raise RelationFormatError(
                f"Relation {one.name!r} in {one.language!r} cannot be written as LRE, which has neither "
                "languages nor separators, so it would be read back as English. Use another format."
            )


def relations_frame(relations: Iterable[Relation]) -> pd.DataFrame:
    """Returns relations as the table that a CSV file holds: a row per subject and object.

    Returns:
        relation, language, subject, object, id, year, template, form, side, separator. A relation's
        templates are on its first rows, one per row; rows are repeated if there are more templates
        than rows. An empty separator is written as `none`.
    """
    records = []
    for relation in relations:
        pairs = [(fact, answer) for fact in relation.facts for answer in fact.objects]
        for number in range(max(len(pairs), len(relation.templates))):
            fact, answer = pairs[number % len(pairs)]
            record = {
                "relation": relation.name,
                "language": relation.language,
                "subject": fact.subject,
                "object": answer,
                "id": fact.id,
                "year": "" if fact.year is None else str(fact.year),
            }
            if number < len(relation.templates):
                template = relation.templates[number]
                record |= {
                    "template": template.text,
                    "form": template.form,
                    "side": template.side,
                    "separator": template.separator or "none",
                }
            records.append(record)
    columns = ["relation", "language", "subject", "object", "id", "year"]
    columns += ["template", "form", "side", "separator"]
    return pd.DataFrame(records, columns=columns).fillna("")


def _rows(relation: Relation) -> Iterable[dict[str, Any]]:
    """Yields rows of JSON Lines: one fact per line, with the templates on the relation's first line."""
    for number, fact in enumerate(relation.facts):
        head: dict[str, Any] = {"relation": relation.name, "language": relation.language}
        if number == 0:
            head["templates"] = _templates(relation)
        yield head | _fact(fact)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _shipped(relation: Relation) -> str:
    """Returns the shipped format, one template or fact per line, so that a change is one line of a diff."""
    head = {key: getattr(relation, key) for key in ("name", "language", "description", "source")}
    lines = [f" {_dumps(key)}: {_dumps(value)}," for key, value in head.items()]
    parts = {"templates": _templates(relation), "facts": [_fact(fact) for fact in relation.facts]}
    bodies = [
        f" {_dumps(key)}: [\n" + ",\n".join(f"  {_dumps(row)}" for row in rows) + "\n ]"
        for key, rows in parts.items()
    ]
    return "{\n" + "\n".join(lines) + "\n" + ",\n".join(bodies) + "\n}\n"


def _lre(relation: Relation) -> str:
    ordered = [*relation.templates_of("detection"), *relation.templates_of("held_out")]
    data = {
        "name": relation.name.replace("_", " "),
        "prompt_templates": [],
        "prompt_templates_zs": [template.text for template in ordered],
        "properties": {
            "relation_type": "factual",
            "domain_name": "subject",
            "range_name": "object",
            "symmetric": False,
        },
        "samples": [
            {"subject": fact.subject, "object": answer}
            for fact in relation.facts
            for answer in fact.objects
        ],
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _templates(relation: Relation) -> list[dict[str, str]]:
    return [
        {"text": t.text, "form": t.form, "side": t.side}
        | ({} if t.separator == " " else {"separator": t.separator})
        for t in relation.templates
    ]


def _fact(fact: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"id": fact.id} if fact.id else {}
    row |= {"subject": fact.subject, "objects": list(fact.objects)}
    return row if fact.year is None else row | {"year": fact.year}


def _stem(relation: Relation) -> str:
    """Returns a file name made from a relation's name, which must not choose a folder."""
    whole = relation.name if relation.language == "en" else f"{relation.name}.{relation.language}"
    return re.sub(r'[/\\:*?"<>|]', "_", whole)


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
