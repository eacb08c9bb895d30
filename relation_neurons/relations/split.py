"""The split into detection and held-out subjects and templates (method 1 and 2).

The side is decided per entity: a subject that occurs in several relations is one entity, and so
are the subjects of one fact in its languages (pitfall 16).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from relation_neurons.errors import RelationFormatError, TemplateError, TooFewFactsError
from relation_neurons.relations.relation import Fact, Relation, Side, Template, subject_key
from relation_neurons.relations.selection import by_lot

__all__ = [
    "choose_templates",
    "connected_groups",
    "draw_shots",
    "find_entities",
    "require_links",
    "split_subjects",
]


def find_entities(relations: Sequence[Relation]) -> dict[str, str]:
    """Returns every subject's entity, named by its first subject key.

    Two subjects are one entity if their `subject_key` is the same, if they belong to one fact (the
    same relation and id in two languages), or if other subjects link them.
    """
    keys = sorted({subject_key(fact.subject) for one in relations for fact in one.facts})
    number = {key: i for i, key in enumerate(keys)}
    first: dict[tuple[str, str], int] = {}
    links: list[tuple[int, int]] = []
    for relation in relations:
        for fact in relation.facts:
            if fact.id:
                here = number[subject_key(fact.subject)]
                links.append((here, first.setdefault((relation.name, fact.id), here)))
    ends = np.array(links, dtype=np.int64).reshape(-1, 2)
    component = connected_groups(ends[:, 0], ends[:, 1], len(keys))
    _, name = np.unique(component, return_index=True)
    return {key: keys[name[component[i]]] for i, key in enumerate(keys)}


def connected_groups(
    first: Int[np.ndarray, " link"], second: Int[np.ndarray, " link"], count: int
) -> Int[np.ndarray, " node"]:
    """Numbers the groups of nodes that links hold together, directly or through others.

    >>> connected_groups(np.array([0, 1]), np.array([1, 3]), 4).tolist()
    [0, 0, 1, 0]
    """
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def require_links(relations: Sequence[Relation]) -> None:
    """Rejects a relation in several languages whose facts are not linked by ids.

    Raises:
        RelationFormatError: fewer than half of a language's facts have the id (or the subject) of a
            fact in another language, so that the split could not keep them on one side.
    """
    for one in relations:
        others = {
            fact.key
            for other in relations
            if other.name == one.name and other.language != one.language
            for fact in other.facts
        }
        linked = sum(fact.key in others for fact in one.facts)
        if others and linked < len(one.facts) / 2:
            raise RelationFormatError(
                f"Relation {one.name!r} comes in several languages, and only {linked} of its "
                f"{len(one.facts)} facts in {one.language!r} have an id that another language has too; "
                "expected at least half. Give a fact the same 'id' in all languages: it must not be used "
                "for detection in one and held out in another."
            )


def split_subjects(
    relations: Sequence[Relation], held_out: int | float = 50, *, seed: int = 0
) -> dict[str, Side]:
    """Decides the side of every subject, once for all relations and languages (pitfall 16).

    Entities are visited in a seeded order; one is held out if at least half of the relations it
    occurs in still need held-out ones. A relation needs `held_out` of them (a count, or a share
    below 1), and at most half of its own.

    Returns:
        The side of each `subject_key`.

    Raises:
        TooFewFactsError: a relation with fewer than two entities, or a senseless `held_out`.
    """
    if not 0 < held_out < float("inf") or (held_out > 1 and held_out != int(held_out)):
        raise TooFewFactsError(f"held_out is {held_out}; expected a count or a share below 1.")
    entity_of = find_entities(relations)
    where: dict[str, list[int]] = {}
    wanted: list[float] = []
    for number, relation in enumerate(relations):
        entities = {entity_of[subject_key(fact.subject)] for fact in relation.facts}
        if len(entities) < 2:
            raise TooFewFactsError(
                f"Relation {relation.name!r} has {len(entities)} subject; a split needs at "
                "least two, and some 30 to mean anything. Add facts, or leave it out."
            )
        count = round(held_out * len(entities)) if held_out < 1 else int(held_out)
        wanted.append(max(1, min(count, len(entities) // 2)))
        for entity in entities:
            where.setdefault(entity, []).append(number)
    order = np.random.default_rng(seed).permutation(len(where))
    entities_sorted = sorted(where)
    sides: dict[str, Side] = {}
    for position in order:
        entity = entities_sorted[position]
        open_ = sum(wanted[number] > 0 for number in where[entity])
        if 2 * open_ >= len(where[entity]) and open_ > 0:
            sides[entity] = "held_out"
            for number in where[entity]:
                wanted[number] -= 1
        else:
            sides[entity] = "detection"
    return {key: sides[entity] for key, entity in entity_of.items()}


def choose_templates(
    relation: Relation, hold_out: int | None = None, single: bool = False
) -> tuple[tuple[Template, ...], tuple[Template, ...]]:
    """Returns the templates for detection and those for judging; see `make_prompts`."""
    detect, judge = relation.templates_of("detection"), relation.templates_of("held_out")
    if not detect:
        raise TemplateError(
            f"Relation {relation.name!r} has no detection template; give one the side 'detection'."
        )
    if single:
        return detect[:1], detect[:1]
    if hold_out is None:
        return detect, judge or detect
    if hold_out < 0:
        raise TooFewFactsError(f"hold_out_templates is {hold_out}; expected 0 or more.")
    borrowed = max(0, min(hold_out - len(judge), len(detect) - 1))
    kept = len(detect) - borrowed
    judge = (*judge[:hold_out], *detect[kept:])
    return detect[:kept], judge or detect[:kept]


def draw_shots(
    relation: Relation, sides: Mapping[str, Side], shots: int, *, seed: int = 0
) -> tuple[Fact, ...]:
    """Draws the facts shown as solved examples, from the detection side, the same in each language.

    Raises:
        TooFewFactsError: there are too few detection facts.
    """
    if shots < 0:
        raise TooFewFactsError(f"shots is {shots}; expected 0 or more.")
    pool = [fact for fact in relation.facts if sides[subject_key(fact.subject)] == "detection"]
    if shots and len(pool) <= shots:
        raise TooFewFactsError(
            f"Relation {relation.name!r} has {len(pool)} detection facts, too few to show {shots} and "
            "ask others. Take fewer shots, or leave it out."
        )
    return tuple(by_lot(f"shots of {relation.name}", pool, seed)[:shots])
