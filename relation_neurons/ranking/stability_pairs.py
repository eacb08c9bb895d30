"""Pairs of rankings of one relation from different evidence, whose top sets `stability` compares.

Every draw is the same for all relations, languages and scores, and takes whole subjects (pitfall 16).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int8

from relation_neurons.ranking.known import left_out_relations
from relation_neurons.ranking.redraws import redraw_subjects, split_halves
from relation_neurons.relations.relation import relation_label

__all__ = ["RankingPair", "RelationFamily", "ranking_pairs", "relation_families"]


@dataclass(frozen=True)
class RelationFamily:
    """A relation under one score: which prompts are its positives and negatives."""

    score: str
    relation: str
    language: str
    positive: Bool[np.ndarray, " prompt"]
    negative: Bool[np.ndarray, " prompt"]


@dataclass(frozen=True)
class RankingPair:
    """Two rankings of one family to compare."""

    family: RelationFamily
    what: str
    repeat: int
    left_out: str
    first: Int8[np.ndarray, " prompt"]
    """1 for a positive, 0 for a negative, -1 for neither."""
    second: Int8[np.ndarray, " prompt"]


def relation_families(
    prompts: pd.DataFrame,
    known: Bool[np.ndarray, " prompt"],
    recall: pd.DataFrame,
    scores: Sequence[str],
    min_known: int,
) -> list[RelationFamily]:
    """Lists what `rank_neurons` ranks: relations in a language, with enough known facts."""
    left_out = left_out_relations(recall, min_known)
    several = recall["language"].nunique() > 1
    kind, relations, languages = (
        prompts[c].to_numpy(str) for c in ("kind", "relation", "language")
    )
    fact, families = kind == "fact", []
    pairs = prompts.loc[fact, ["relation", "language"]].drop_duplicates()
    for relation, language in pairs.itertuples(index=False):
        if relation_label(relation, language, several=several) in left_out:
            continue
        here = languages == language
        positive = here & fact & known & (relations == relation)
        negatives = {
            "specific": here & fact & (relations != relation),
            "background": here & (kind == "background"),
        }
        families += [
            RelationFamily(score, relation, language, positive, negatives[score])
            for score in scores
            if min(positive.sum(), negatives[score].sum()) >= min_known
        ]
    return families


def ranking_pairs(
    families: Sequence[RelationFamily],
    prompts: pd.DataFrame,
    known: Bool[np.ndarray, " prompt"],
    repeats: int,
    set_aside: float,
    seed: int,
) -> list[RankingPair]:
    """Lists every comparison; each draw is the same for all relations, languages and scores."""
    everywhere = np.ones(len(prompts), dtype=bool)
    halves, draws = [], []
    for repeat in range(repeats):
        half = split_halves(prompts, known, np.random.default_rng([seed, 0, repeat]))
        halves.append((half, ~half))
        first, second = (
            redraw_subjects(prompts, set_aside, np.random.default_rng([seed, 1, repeat, draw]))
            for draw in range(2)
        )
        draws.append((first, second))
    made = []
    for family in families:
        for what, sides in (("halves", halves), ("seeds", draws)):
            for repeat, (one, other) in enumerate(sides):
                first, second = _member(family, one, one), _member(family, other, other)
                made.append(RankingPair(family, what, repeat, "", first, second))
        template = prompts["template"].to_numpy(str)
        names = dict.fromkeys(template[family.positive])
        for repeat, (one, other) in enumerate(combinations(names, 2)):
            first, second = (_member(family, template == name, everywhere) for name in (one, other))
            made.append(RankingPair(family, "templates", repeat, "", first, second))
        made += _without_one(family, prompts["relation"].to_numpy(str))
    return made


def _without_one(family: RelationFamily, relations: np.ndarray) -> Iterator[RankingPair]:
    """Leaves each other relation out of the negatives in turn."""
    if family.score != "specific":
        return
    everywhere = np.ones(len(relations), dtype=bool)
    whole = _member(family, everywhere, everywhere)
    for repeat, name in enumerate(dict.fromkeys(relations[family.negative])):
        kept = _member(family, everywhere, relations != name)
        yield RankingPair(family, "relations", repeat, name, whole, kept)


def _member(
    family: RelationFamily, positives: np.ndarray, negatives: np.ndarray
) -> Int8[np.ndarray, " prompt"]:
    positive, negative = family.positive & positives, family.negative & negatives
    return np.where(positive, 1, np.where(negative, 0, -1)).astype(np.int8)
