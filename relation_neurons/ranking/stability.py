"""How much of a relation's top set is found again from other evidence.

Two rankings of the same relation, made from different evidence, are compared by the neurons that
their top sets share:

| what | the two rankings come from |
| --- | --- |
| `halves` | disjoint halves of the subjects, positives and negatives alike: no prompt is in both |
| `seeds` | two draws of the detection facts, each without another random share of the subjects |
| `templates` | one detection template each, against the same negatives |
| `relations` | all other relations, and all but one of them (only `specific`) |

    shared = |A and B|,  expected by chance = dose^2 / neurons,  jaccard = shared / |A or B|

A subject is on one side with all its prompts, in every relation and language (pitfall 16). Halves
are drawn so that each relation's known and unknown facts, and the neutral prompts, part evenly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from relation_neurons.activations.table import ActivationTable
from relation_neurons.errors import TooFewFactsError, UnknownOptionError, near_matches
from relation_neurons.neurons import resolve_doses
from relation_neurons.ranking.detection_tasks import (
    KNOWN_CONTRASTS,
    DetectionTask,
    detection_tasks,
    known_prompts,
)
from relation_neurons.ranking.known import advice_for_ranking
from relation_neurons.relations.relation import MIN_KNOWN, subject_key
from relation_neurons.relations.split import connected_groups
from relation_neurons.scoring.scores import family_average_precision, standardised_difference
from relation_neurons.version import renamed

__all__ = [
    "WHAT",
    "RankingPair",
    "find_subjects",
    "ranking_pairs",
    "ranking_stability",
    "redraw_subjects",
    "split_halves",
    "stability_summary",
    "top_neurons",
]

WHAT = ("halves", "seeds", "templates", "relations")

_CELLS = 1 << 24  # average precisions held at once: 128 MB


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
    return connected_groups(subjects, facts + subjects.max() + 1, size)[subjects]


@dataclass(frozen=True)
class RankingPair:
    """Two rankings of one detection task to compare."""

    task: DetectionTask
    what: str
    repeat: int
    left_out: str
    first: Int8[np.ndarray, " prompt"]
    """1 for a positive, 0 for a negative, -1 for neither."""
    second: Int8[np.ndarray, " prompt"]


def ranking_pairs(
    tasks: Sequence[DetectionTask],
    prompts: pd.DataFrame,
    known: Bool[np.ndarray, " prompt"],
    repeats: int,
    set_aside: float,
    seed: int,
) -> list[RankingPair]:
    """Lists every comparison; each draw is the same for all relations, languages and contrasts."""
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
    for task in tasks:
        for what, sides in (("halves", halves), ("seeds", draws)):
            for repeat, (one, other) in enumerate(sides):
                first, second = task.membership(one, one), task.membership(other, other)
                made.append(RankingPair(task, what, repeat, "", first, second))
        template = prompts["template"].to_numpy(str)
        names = dict.fromkeys(template[task.positive])
        for repeat, (one, other) in enumerate(combinations(names, 2)):
            first, second = (task.membership(positives=template == name) for name in (one, other))
            made.append(RankingPair(task, "templates", repeat, "", first, second))
        made += _without_one(task, prompts["relation"].to_numpy(str))
    return made


def _without_one(task: DetectionTask, relations: np.ndarray) -> Iterator[RankingPair]:
    """Leaves each other relation out of the negatives in turn."""
    if task.contrast != "specific":
        return
    whole = task.membership()
    for repeat, name in enumerate(dict.fromkeys(relations[task.negative])):
        kept = task.membership(negatives=relations != name)
        yield RankingPair(task, "relations", repeat, name, whole, kept)


@renamed(scores="contrasts")
def ranking_stability(
    table: ActivationTable,
    recall: pd.DataFrame,
    *,
    dose: int | float | str,
    contrasts: Sequence[str] = KNOWN_CONTRASTS,
    repeats: int = 5,
    min_known: int = MIN_KNOWN,
    set_aside: float = 0.2,
    seed: int = 0,
) -> pd.DataFrame:
    """Compares each relation's top set with the one that other evidence leads to.

    Args:
        table: pooled activations of the detection prompts.
        recall: what `measure_recall` returns, for both sides.
        dose: neurons in a top set, a count or a share such as `"0.2%"`.
        contrasts: `specific`, `background` or both.
        repeats: draws of `halves` and of `seeds`.
        min_known: known facts (and negatives) that each ranking needs.
        set_aside: share of the subjects that each draw of `seeds` leaves out.
        seed: of the draws.

    Returns:
        A row per comparison: relation, language, score, dose, what, repeat, left_out, shared,
        expected, jaccard, n_first, n_second (positive prompts of each ranking). `repeat` counts
        draws, pairs of templates (in the order of the prompts) and left-out relations; `left_out`
        names those and is empty elsewhere. Where either ranking has too few known facts, shared
        and jaccard are NaN. Relations that `rank_neurons` leaves out have no row.

    Raises:
        UnknownOptionError: another contrast, no repeat, or a share outside 0 to 1.
        DoseError: a dose below 1 or above the number of neurons.
        TooFewFactsError: no relation can be ranked.
    """
    for contrast in contrasts:
        if contrast not in KNOWN_CONTRASTS:
            raise UnknownOptionError(
                f"No stability of {contrast!r}. {near_matches(contrast, KNOWN_CONTRASTS)}"
            )
    if repeats < 1 or not 0 < set_aside < 1:
        raise UnknownOptionError(
            f"repeats is {repeats} and set_aside {set_aside}; expected one repeat at least, and a "
            "share between 0 and 1."
        )
    values = table.values.flatten(1)
    count = resolve_doses([dose], values.shape[1])[0]
    prompts = table.prompts.reset_index(drop=True)
    tasks = detection_tasks(prompts, recall, contrasts=contrasts, min_known=min_known)
    if not tasks:
        raise TooFewFactsError(
            f"No relation can be ranked, so there is no stability to measure. {advice_for_ranking(prompts)}"
        )
    pairs = ranking_pairs(tasks, prompts, known_prompts(prompts, recall), repeats, set_aside, seed)
    tops = _top_sets(values, pairs, prompts["fact"].to_numpy(str), count, min_known)
    expected = count**2 / values.shape[1]
    return pd.DataFrame([_row(pair, count, expected, tops) for pair in pairs])


def stability_summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Averages the share of a top set that is found again.

    Args:
        frame: what `ranking_stability` returns.

    Returns:
        A row per relation, language, score and what: share (mean of shared / dose), low and high
        (least and most over the comparisons), chance (dose / neurons), comparisons (how many have
        a number; the share is NaN where none has).
    """
    keys = ["relation", "language", "score", "what"]
    rows = frame.assign(
        share=frame["shared"] / frame["dose"], chance=frame["expected"] / frame["dose"]
    )
    found = rows.groupby(keys, sort=False, observed=True).agg(
        share=("share", "mean"),
        low=("share", "min"),
        high=("share", "max"),
        chance=("chance", "mean"),
        comparisons=("share", "count"),
    )
    return found.reset_index()


def top_neurons(
    values: Float[Tensor, "prompt neuron"],
    membership: Int8[Tensor, "task prompt"],
    dose: int,
) -> Int[np.ndarray, "task dose"]:
    """Returns each task's best neurons in the order of `rank_neurons`, best first.

    The standardised difference is computed only where it can decide: for the neurons whose AP,
    rounded to 1e-6, is not below that of the last one taken.

    >>> table = torch.tensor([[3.0, 0.0], [2.0, 1.0], [1.0, 2.0]])
    >>> top_neurons(table, torch.tensor([[1, 0, 0], [0, 0, 1]], dtype=torch.int8), 1).tolist()
    [[0], [1]]
    """
    best = np.empty((len(membership), dose), dtype=np.int64)
    used = (membership >= 0).any(
        dim=0
    )  # sorting the others, such as nonsense prompts, would be wasted
    step = max(1, _CELLS // values.shape[1])
    for start in range(0, len(membership), step):
        rows = membership[start : start + step, used]
        precision = _precision(values, used, rows)
        for i, ap in enumerate(precision):
            least = np.partition(ap, len(ap) - dose)[len(ap) - dose]
            able = np.flatnonzero(ap >= least)
            some = values[:, able][used]
            d_prime = standardised_difference(some, rows[i : i + 1])[0][0].numpy()
            best[start + i] = able[np.lexsort((-d_prime, -ap[able]))[:dose]]
    return best


def _precision(
    values: Float[Tensor, "prompt neuron"],
    used: Bool[Tensor, " prompt"],
    membership: Int8[Tensor, "task used"],
) -> Float[np.ndarray, "task neuron"]:
    """AP on the prompts that are used, of some neurons at a time: the table may lie in a file."""
    if bool(used.all()):
        return family_average_precision(values, membership).numpy().round(6)
    width = max(1, _CELLS // len(values))
    parts = [
        family_average_precision(some[used], membership) for some in values.split(width, dim=1)
    ]
    return torch.cat(parts, dim=1).numpy().round(6)


def _top_sets(
    values: Float[Tensor, "prompt neuron"],
    pairs: Sequence[RankingPair],
    facts: np.ndarray,
    dose: int,
    min_known: int,
) -> dict[bytes, frozenset[int]]:
    """Ranks each distinct set of positives and negatives once, where it has enough of both."""
    distinct = {row.tobytes(): row for pair in pairs for row in (pair.first, pair.second)}
    enough = {
        key: row
        for key, row in distinct.items()
        if len(set(facts[row == 1])) >= min_known and (row == 0).sum() >= min_known
    }
    if not enough:
        return {}
    membership = torch.from_numpy(np.stack(list(enough.values())))
    best = top_neurons(values, membership, dose)
    return {key: frozenset(map(int, row)) for key, row in zip(enough, best, strict=True)}


def _row(
    pair: RankingPair, dose: int, expected: float, tops: dict[bytes, frozenset[int]]
) -> dict[str, object]:
    first, second = (tops.get(row.tobytes()) for row in (pair.first, pair.second))
    shared = float("nan") if first is None or second is None else float(len(first & second))
    return {
        "relation": pair.task.relation,
        "language": pair.task.language,
        "score": pair.task.contrast,
        "dose": dose,
        "what": pair.what,
        "repeat": pair.repeat,
        "left_out": pair.left_out,
        "shared": shared,
        "expected": expected,
        "jaccard": shared / (2 * dose - shared),
        "n_first": int((pair.first == 1).sum()),
        "n_second": int((pair.second == 1).sum()),
    }
