"""Redraws: other draws of the detection subjects, to see what a ranking owes to the one it was made on.

A subject goes with all its prompts, in every relation and language (pitfall 16).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from relation_neurons.relations.relation import subject_key

__all__ = ["find_subjects", "redraw_subjects", "split_halves"]


def split_halves(
    prompts: pd.DataFrame, known: Bool[np.ndarray, " prompt"], rng: np.random.Generator
) -> Bool[np.ndarray, " prompt"]:
    """Draws one half of the subjects; True at all their prompts.

    Subjects are taken in a drawn order, each to the half where the relations that it occurs in have
    fewer prompts so far; a coin decides between equals.

    Args:
        prompts: the frame of an activation table.
        known: whether the model answers each prompt; known and unknown prompts part evenly each.
        rng: of the draw.
    """
    entity = find_subjects(prompts)
    columns = [prompts["kind"], prompts["relation"], prompts["language"], pd.Series(known)]
    group = pd.MultiIndex.from_arrays(columns).factorize()[0]
    counts = np.zeros((entity.max() + 1, group.max() + 1), dtype=np.int64)
    np.add.at(counts, (entity, group), 1)
    lead = np.zeros(counts.shape[1], dtype=np.int64)
    first = np.zeros(len(counts), dtype=bool)
    coins = rng.random(len(counts)) < 0.5
    for one in rng.permutation(len(counts)):
        lean = int(np.sign(lead[counts[one] > 0]).sum())
        first[one] = coins[one] if lean == 0 else lean < 0
        lead += counts[one] if first[one] else -counts[one]
    return first[entity]


def redraw_subjects(
    prompts: pd.DataFrame, set_aside: float, rng: np.random.Generator
) -> Bool[np.ndarray, " prompt"]:
    """Sets a share of the subjects aside; True at the prompts that stay.

    Neutral prompts and nonsense subjects always stay, as in a run's split.

    Args:
        prompts: the frame of an activation table.
        set_aside: share of all subjects, between 0 and 1.
        rng: of the draw.
    """
    entity, fact = find_subjects(prompts), (prompts["kind"] == "fact").to_numpy()
    subjects = np.unique(entity[fact])
    aside = rng.permutation(subjects)[: round(set_aside * len(subjects))]
    return ~np.isin(entity, aside)


def find_subjects(prompts: pd.DataFrame) -> Int[np.ndarray, " prompt"]:
    """Numbers the subjects: one where the subject is the same, or the fact in another language.

    A neutral prompt stands alone, whatever country it may mention: it states no fact.
    """
    alone = (prompts["kind"] != "fact").to_numpy()
    ids = prompts["prompt_id"].astype(str)
    subject = np.where(alone, "prompt\t" + ids, prompts["subject"].map(subject_key))
    fact = np.where(
        alone,
        "prompt\t" + ids,
        prompts["relation"].astype(str) + "\t" + prompts["fact"].astype(str),
    )
    subjects, facts = pd.factorize(subject)[0], pd.factorize(fact)[0]
    size = int(subjects.max()) + 1 + int(facts.max()) + 1
    ends = (subjects, facts + subjects.max() + 1)
    graph = coo_array((np.ones(len(prompts)), ends), shape=(size, size))
    return connected_components(graph, directed=False)[1][subjects].astype(np.int64)
