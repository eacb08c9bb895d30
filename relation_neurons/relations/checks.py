"""`check_relations`: what is wrong, odd or worth knowing in relation data, reported without a model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from relation_neurons.errors import RelationFormatError, RelationNeuronsError
from relation_neurons.relations.formats import RawRelation
from relation_neurons.relations.loading import (
    build_relation,
    clean_text,
    load_relations,
    read_source,
)
from relation_neurons.relations.relation import MIN_KNOWN, Relation, Template, subject_key
from relation_neurons.relations.shipped import load_background
from relation_neurons.relations.split import find_entities, require_links

__all__ = ["check_relations"]

_SHOWN = 3
_NEEDED = f"it takes {MIN_KNOWN} known facts to find neurons on and {MIN_KNOWN} others to judge on"
_Found = tuple[str, int, bool, list[str]]


def check_relations(source: Any, *, languages: Sequence[str] | str | None = None) -> pd.DataFrame:
    """Reads any source that `load_relations` reads, and reports what is in it.

    Args:
        source: see `load_relations`; relations that it would reject are reported instead.
        languages: see `load_relations`.

    Returns:
        A row per finding: relation, language, finding, count, stops (whether it would stop a run),
        and examples. Findings with a count of 0 are left out, except `rows read`.

    Raises:
        RelationFormatError: the source cannot be read as relations at all.
        UnknownRelationError: there is no such set, relation or path.

    >>> findings = check_relations("demo/country_capital")
    >>> bool(findings["stops"].any())
    False
    """
    pairs: list[tuple[RawRelation | None, Relation | None, str]]
    if isinstance(source, (str, Path, pd.DataFrame)):
        pairs = [_try(raw) for raw in read_source(source, languages=languages)]
    else:
        pairs = [(None, one, "") for one in load_relations(source, languages=languages)]
    rows: list[dict[str, Any]] = []

    def add(name: str, language: str, found: Iterable[_Found]) -> None:
        for finding, count, stops, examples in found:
            if count or finding == "rows read":
                rows.append(
                    {
                        "relation": name,
                        "language": language,
                        "finding": finding,
                        "count": count,
                        "stops": stops and count > 0,
                        "examples": "; ".join(examples[:_SHOWN]),
                    }
                )

    built = [relation for _, relation, _ in pairs if relation is not None]
    seen: set[tuple[str, str]] = set()
    for raw, relation, reason in pairs:
        named = relation or raw
        assert named is not None
        key = (named.name, named.language)
        if raw is not None:
            add(*key, _in_rows(raw))
            templates = [t for t in raw.templates if _template_fault(t)]
            told = [f"{t['text']!r}: {_template_fault(t)}" for t in templates]
            add(*key, [("templates that cannot be used", len(templates), True, told)])
            if relation is None and not templates:
                add(*key, [("cannot be built", 1, True, [reason])])
        add(*key, [("relations of the same name and language", key in seen, True, [])])
        seen.add(key)
        if relation is not None:
            add(*key, _in_relation(relation))
    add("all relations", "", _across(built))
    if not rows:
        raise RelationFormatError(f"No relation found in {source!r}.")
    columns = ["relation", "language", "finding", "count", "stops", "examples"]
    return pd.DataFrame(rows, columns=columns).astype({"count": int, "stops": bool})


def _try(raw: RawRelation) -> tuple[RawRelation, Relation | None, str]:
    try:
        return raw, build_relation(raw), ""
    except RelationNeuronsError as error:
        return raw, None, str(error)


def _in_rows(raw: RawRelation) -> list[_Found]:
    """Finds what reading does to the rows."""
    objects: dict[str, dict[str, None]] = defaultdict(dict)
    subjects: dict[str, str] = {}
    empty: list[str] = []
    doubled: list[str] = []
    merged: list[str] = []
    for number, row in enumerate(raw.rows, start=1):
        subject, answers = clean_text(row.subject), [clean_text(o) for o in row.objects]
        answers = [answer for answer in answers if answer]
        if not subject or not answers:
            empty.append(f"row {number}: {row.subject!r} -> {', '.join(row.objects)!r}")
            continue
        known = objects[subject_key(subject)]
        subjects.setdefault(subject_key(subject), subject)
        if known:
            (doubled if set(answers) <= set(known) else merged).append(f"{subject} -> {answers[0]}")
        known.update(dict.fromkeys(answers))
    dirty = [
        f"{text!r} becomes {clean_text(text)!r}"
        for row in raw.rows
        for text in (row.subject, *row.objects)
        if clean_text(text) != " ".join(text.split())
    ]
    several = [
        f"{subjects[key]} -> {' | '.join(found)}"
        for key, found in objects.items()
        if len(found) > 1
    ]
    return [
        ("rows read", len(raw.rows), False, []),
        ("rows dropped, empty", len(empty), False, empty),
        ("rows dropped, duplicates", len(doubled), False, doubled),
        ("rows merged into their subject's fact", len(merged), False, merged),
        ("subjects with several objects, all accepted as correct", len(several), False, several),
        ("double escapes or invisible characters, mended", len(dirty), False, dirty),
    ]


def _in_relation(relation: Relation) -> list[_Found]:
    """Finds what a relation that can be built means for a run."""
    facts, templates = relation.facts, relation.templates
    copied = [f"{f.subject} -> {f.objects[0]}" for f in facts if f.copied]
    part = [f"{f.subject} -> {f.objects[0]}" for f in facts if not f.copied and f.copied_in_part]
    answer, share = relation.majority()
    forms = {t.form for t in templates}
    entities = len(set(find_entities([relation]).values()))
    of_id = Counter(fact.id for fact in facts if fact.id)
    shared = [f"{one}: {count} subjects" for one, count in of_id.items() if count > 1]
    detect, judge = relation.templates_of("detection"), relation.templates_of("held_out")
    return [
        ("facts", len(facts), False, [f"{f.subject} -> {' | '.join(f.objects)}" for f in facts]),
        ("wordings to find neurons in", len(detect), False, [repr(t.text) for t in detect]),
        ("wordings to judge them in", len(judge), False, [repr(t.text) for t in judge]),
        ("answers that stand in their subject", len(copied), False, copied),
        ("answers of which the first or last word stands in the subject", len(part), False, part),
        (
            "facts that the commonest answer alone gets right",
            round(share * len(facts)),
            False,
            [f"{answer} ({share:.0%})"],
        ),
        (
            "ids of several subjects, which are held out together or not at all",
            len(shared),
            False,
            shared,
        ),
        ("no detection template", not detect, True, ["give a template the side 'detection'"]),
        (
            "no held-out template",
            bool(detect) and not judge,
            False,
            ["neurons are judged on the wording they are found on"],
        ),
        (
            "templates of one form only",
            len(forms) == 1,
            False,
            [
                f"all {len(templates)} are {t}s, so neurons of the form look like the relation's; add a "
                f"{'question' if t == 'statement' else 'statement'}"
                for t in forms
            ],
        ),
        ("too few facts to split", entities < 2, True, [f"{entities} subject; a split needs two"]),
        (
            "too few facts, the relation will be left out",
            2 <= entities < 2 * MIN_KNOWN,
            False,
            [f"{entities} subjects; {_NEEDED}"],
        ),
        (
            "few facts to spare",
            2 * MIN_KNOWN <= entities < 3 * MIN_KNOWN,
            False,
            [f"{entities} subjects, of which the model must know {2 * MIN_KNOWN}: {_NEEDED}"],
        ),
    ]


def _across(relations: Sequence[Relation]) -> list[_Found]:
    """Finds what concerns several relations at once."""
    where: dict[str, set[str]] = defaultdict(set)
    spelt: dict[str, str] = {}
    for relation in relations:
        for fact in relation.facts:
            where[subject_key(fact.subject)].add(relation.name)
            spelt.setdefault(subject_key(fact.subject), fact.subject)
    shared = [f"{spelt[k]}: {', '.join(sorted(v))}" for k, v in where.items() if len(v) > 1]
    try:
        require_links(relations)
        unlinked = ""
    except RelationNeuronsError as error:
        unlinked = str(error)
    mute = {one.language for one in relations} - {
        one.language for one in relations if load_background(one.language)
    }
    alone = [o for o in relations if sum(o.language == other.language for other in relations) < 2]
    small = bool(relations) and all(2 <= len(r.facts) < 2 * MIN_KNOWN for r in relations)
    return [
        (
            "subjects of several relations, held out from all of them or from none",
            len(shared),
            False,
            shared,
        ),
        ("no relation with facts enough to be ranked", int(small), True, [_NEEDED]),
        ("facts that are not linked between languages", int(bool(unlinked)), True, [unlinked]),
        (
            "one relation only: the contrast `specific` needs two, use --contrast background",
            int(bool(relations) and len(alone) == len(relations)),
            False,
            [],
        ),
        (
            "languages without neutral prompts, so without `background` rankings",
            len(mute),
            False,
            sorted(mute),
        ),
    ]


def _template_fault(stated: dict[str, Any]) -> str:
    try:
        Template(**stated)
    except RelationNeuronsError as error:
        return str(error)
    return ""
