"""The choice of facts: sample them, balance answers, drop copied answers, keep those of all languages."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from relation_neurons.errors import TooFewFactsError
from relation_neurons.relations.relation import Fact, Relation, subject_key

__all__ = ["by_lot", "common_facts", "draw_facts", "drop_copied", "limit_objects"]

_BALANCE_SALT = 0x62616C
"""Keeps the order in which facts are dropped to balance objects apart from other draws from the same seed."""


def drop_copied(relation: Relation) -> Relation:
    """Leaves out the facts whose answer occurs in the subject, so that copying would answer them.

    Raises:
        TooFewFactsError: no fact is left.
    """
    facts = tuple(fact for fact in relation.facts if not fact.copied)
    if not facts:
        raise TooFewFactsError(
            f"In every fact of {relation.name!r} the answer occurs in the subject, so none is left. Keep "
            "copied answers, or leave the relation out."
        )
    return replace(relation, facts=facts)


def draw_facts(relation: Relation, count: int, *, seed: int = 0) -> Relation:
    """Draws `count` facts by their ids, so that languages with the same facts keep the same ones.

    Raises:
        TooFewFactsError: the count is below 1.
    """
    if count < 1:
        raise TooFewFactsError(f"max_facts is {count}; expected 1 or more.")
    drawn = {fact.key for fact in by_lot(relation.name, relation.facts, seed)[:count]}
    return replace(relation, facts=tuple(f for f in relation.facts if f.key in drawn))


def by_lot(name: str, facts: Sequence[Fact], seed: int) -> list[Fact]:
    """Orders facts at random; a fact's place in the draw does not depend on the other facts."""
    return sorted(
        facts, key=lambda fact: hashlib.sha256(f"{seed}/{name}/{fact.key}".encode()).digest()
    )


def limit_objects(relation: Relation, share: float, *, seed: int = 0) -> Relation:
    """Balances objects: drops facts until no object answers more than `share` of them.

    Facts of the commonest accepted object are drawn at random and dropped until it is no longer too
    common.

    Raises:
        TooFewFactsError: the share is not between 0 and 1, or too small for so few objects.
    """
    if not 0 < share <= 1:
        raise TooFewFactsError(
            f"The largest share of an object is {share}; expected more than 0 and at most 1."
        )
    rng = np.random.default_rng([seed, _BALANCE_SALT])
    kept = [relation.facts[int(i)] for i in rng.permutation(len(relation.facts))]
    counts = Counter(answer for fact in kept for answer in set(fact.objects))
    while kept and max(counts.values()) > share * len(kept):
        common = min(counts, key=lambda answer: (-counts[answer], answer))
        place = next(i for i, fact in enumerate(kept) if common in fact.objects)
        counts -= Counter(set(kept.pop(place).objects))
    if not kept:
        raise TooFewFactsError(
            f"Relation {relation.name!r} has too few objects for each to answer {share:.0%} of the facts or "
            "less. Give a larger share, or leave the relation out."
        )
    left = {subject_key(fact.subject) for fact in kept}
    return replace(
        relation, facts=tuple(f for f in relation.facts if subject_key(f.subject) in left)
    )


def common_facts(relations: Sequence[Relation]) -> list[Relation]:
    """Keeps the facts that a relation has in all languages given."""
    keys: dict[str, set[str]] = {}
    for one in relations:
        here = {fact.key for fact in one.facts}
        keys[one.name] = keys.get(one.name, here) & here
    left = [
        replace(one, facts=tuple(fact for fact in one.facts if fact.key in keys[one.name]))
        for one in relations
        if keys[one.name]
    ]
    if len(left) < len(relations):
        gone = next(one.name for one in relations if not keys[one.name])
        raise TooFewFactsError(
            f"Relation {gone!r} has no fact that all its languages have; expected common ids. Give a fact "
            "the same 'id' in each language."
        )
    return left
