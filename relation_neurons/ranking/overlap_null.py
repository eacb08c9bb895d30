"""The null of overlap: the neurons that top sets share where prompts are dealt out to relations anew.

Two relations ranked against the same neutral prompts share negatives, and neurons correlate. So on noise
they share several times dose^2 / neurons; relations ranked against one another share less than that. Neither
is supposed here, both are counted. Under one contrast all prompts that rank, neutral ones among them, are
shuffled by whole facts, and each takes over the role that another one played: positive of a relation,
negative, or neither. Every relation is ranked again from as many positives and negatives as before;
relations have the negatives in common that they had, none of the positives, and neurons correlate as they do.

    expected = mean over deals of the neurons shared
    p = (1 + deals that share as many) / (1 + deals)

A fact keeps its prompts together wherever they fit, and in other languages as often as it did: a relation in
two languages has about as many facts in common as before. Prompts of one fact are alike, so what is dealt
must come in facts throughout: the shipped neutral prompts say everything twice, as a statement and as
a question, and these two are one fact, with its translations.

Of each deal the neurons in two or more of its top sets are kept, with their ranks, so overlap at any
smaller dose and of any combination of relations can be read from them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from relation_neurons.activations.table import ActivationTable
from relation_neurons.errors import (
    DoseError,
    TooFewFactsError,
    UnknownOptionError,
    near_matches,
)
from relation_neurons.ranking.detection_tasks import (
    CONTRASTS,
    KNOWN_CONTRASTS,
    DetectionTask,
    detection_tasks,
)
from relation_neurons.ranking.known import advice_for_ranking
from relation_neurons.ranking.rank import ORDERS
from relation_neurons.relations.relation import MIN_KNOWN
from relation_neurons.scoring.deals import DealtRoles, dealt_precision
from relation_neurons.scoring.scores import standardised_difference
from relation_neurons.version import renamed

__all__ = ["LEAST_DEALS", "deal_roles", "overlap_null", "whole_facts"]

LEAST_DEALS = 19
"""With fewer no p-value is as low as 0.05."""

_CELLS = 1 << 25  # average precisions held at once: 256 MB


@renamed(scores="contrasts")
def overlap_null(
    table: ActivationTable,
    recall: pd.DataFrame,
    *,
    keep: int = 100,
    deals: int = 99,
    contrasts: Sequence[str] = KNOWN_CONTRASTS,
    order: str = "d_prime",
    min_known: int = MIN_KNOWN,
    seed: int = 0,
) -> pd.DataFrame:
    """Ranks every relation again under dealt roles, and keeps the neurons that top sets share.

    `overlap_matrix` and `set_intersections` read what chance expects from it. Relations, positives,
    negatives and the order of neurons are those of `rank_neurons` by average precision.

    Args:
        table: pooled activations of the detection prompts.
        recall: what `measure_recall` returns, for both sides.
        keep: size of the top sets, the largest dose at which overlap is to be judged.
        deals: 19 or more; p cannot be below 1 / (1 + deals).
        contrasts: the contrasts that are dealt.
        order: as in `rank_neurons`.
        min_known: as in `rank_neurons`.
        seed: of the deals; each contrast and deal has its own draws.

    Returns:
        score, deal (from 1), relation, language, layer, neuron, rank (from 1): a row for each neuron
        that stands in two or more of a deal's sets, once for each of them. The last neuron of every set is
        there too, so that the table says which sets there are and how deep they go.

    Raises:
        UnknownOptionError: fewer than 19 deals, or a contrast or order that does not exist.
        DoseError: `keep` is below 1 or above the number of neurons.
        TooFewFactsError: no relation has enough positives and negatives.
    """
    _check(deals, contrasts, order)
    values = table.values.flatten(1)
    width = table.values.shape[2]
    if not 1 <= keep <= values.shape[1]:
        raise DoseError(f"keep is {keep}; expected 1 to {values.shape[1]} neurons.")
    prompts = table.prompts.reset_index(drop=True)
    ordered = [contrast for contrast in CONTRASTS if contrast in contrasts]
    tasks = detection_tasks(prompts, recall, contrasts=ordered, min_known=min_known)
    if not tasks:
        raise TooFewFactsError(
            f"No relation can be ranked, so no overlap can be judged. {advice_for_ranking(prompts)}"
        )
    games = _games(tasks, prompts, deals, seed)
    cells = len(tasks) * values.shape[1]
    found: list[list[Int[np.ndarray, "task keep"]]] = [[] for _ in games]
    step = max(1, _CELLS // cells)
    for start in range(0, deals, step):
        dealt = [DealtRoles(game.roles, game.dealt[start : start + step]) for game in games]
        scored = dealt_precision(values, dealt)
        for one, ap, kept in zip(dealt, scored, found, strict=True):
            for i in range(len(ap)):
                member = _membership(one.tasks, one.roles[i])
                kept.append(_best(values, ap[i].round(6), member, keep, order))
    parts = []
    for contrast in dict.fromkeys(game.contrast for game in games):
        own = [i for i, game in enumerate(games) if game.contrast == contrast]
        named = [task for i in own for task in games[i].tasks]
        for deal in range(deals):
            sets = np.concatenate([found[i][deal] for i in own])
            parts.append(_shared(contrast, deal + 1, named, sets, values.shape[1], width))
    return pd.concat(parts, ignore_index=True)


def whole_facts(prompts: pd.DataFrame) -> Int[np.ndarray, " prompt"]:
    """Numbers the facts: a fact is one in all its wordings and languages.

    So is what a neutral prompt says: a question belongs to the statement before it, and to those at the
    same place in other languages.

    >>> frame = pd.DataFrame({
    ...     "kind": ["fact", "fact", "fact"] + ["background"] * 4,
    ...     "relation": ["capital"] * 3 + [""] * 4,
    ...     "fact": ["Peru", "Peru", "Chad"] + [""] * 4,
    ...     "language": ["en", "de", "en", "en", "en", "en", "de"],
    ...     "form": ["statement"] * 4 + ["question", "statement", "statement"],
    ... })
    >>> whole_facts(frame).tolist()
    [0, 0, 1, 2, 2, 3, 2]
    """
    neutral = (prompts["kind"] == "background").to_numpy()
    asks = (prompts["form"] == "question").to_numpy()
    place = np.zeros(len(prompts), dtype=np.int64)
    for language in prompts["language"].unique():
        own = np.flatnonzero(neutral & (prompts["language"] == language).to_numpy())
        again = np.zeros(len(own), dtype=bool)
        again[1:] = asks[own][1:] & ~asks[own][:-1]
        place[own] = np.cumsum(~again)
    said = prompts["fact"].astype(str).where(~neutral, place.astype(str))
    parts = [prompts["kind"].astype(str), prompts["relation"].astype(str), said]
    return pd.MultiIndex.from_arrays(parts).factorize()[0]


def deal_roles(
    roles: Int[np.ndarray, " prompt"],
    languages: Int[np.ndarray, " prompt"],
    facts: Int[np.ndarray, " prompt"],
    rng: np.random.Generator,
) -> Int[np.ndarray, " prompt"]:
    """Gives the roles to other prompts, those of a fact together.

    In each language every role is played by as many prompts as before. Large facts choose first, each
    among the roles that still have room for it, in proportion to how many such facts they have room for.
    A fact is parted only where no role has room for all of it. Languages come one after another, the one
    with most prompts first; there and here about as many facts as before have two given roles.

    Args:
        roles: the role of each prompt in its language, or -1 for one that plays none.
        languages: the language of each prompt, a number.
        facts: the fact of each prompt, a number.
        rng: of the deal.

    >>> roles, facts = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 2, 2])
    >>> english = np.zeros(6, dtype=int)
    >>> deal_roles(roles, english, facts, np.random.default_rng(1)).tolist()
    [1, 1, 0, 0, 0, 0]
    """
    dealt = np.full(len(roles), -1, dtype=np.int64)
    before: dict[int, tuple[int, int]] = {}
    now: dict[int, tuple[int, int]] = {}
    counts = np.bincount(languages[roles >= 0])
    for language in np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]:
        inside = np.flatnonzero((roles >= 0) & (languages == language))
        names, first, place, sizes = np.unique(
            facts[inside], return_index=True, return_inverse=True, return_counts=True
        )
        left = np.bincount(roles[inside])
        true = roles[inside[first]]
        drawn = np.full(len(names), -1, dtype=np.int64)
        if now:
            _follow(drawn, left, [(before.get(n), now.get(n)) for n in names], true, sizes, rng)
        for size in np.unique(sizes)[::-1]:
            able = rng.permutation(np.flatnonzero((sizes == size) & (drawn < 0)))
            room = rng.permutation(np.repeat(np.arange(len(left)), left // size))
            taken = room[: len(able)]
            drawn[able[: len(taken)]] = taken
            left -= size * np.bincount(taken, minlength=len(left))
        dealt[inside] = drawn[place.reshape(-1)]
        loose = inside[dealt[inside] < 0]
        dealt[loose] = rng.permutation(np.repeat(np.arange(len(left)), left))
        for name, was, at in zip(names, true, inside[first], strict=True):
            before.setdefault(int(name), (int(language), int(was)))
            now.setdefault(int(name), (int(language), int(dealt[at])))
    return dealt


def _follow(
    drawn: Int[np.ndarray, " fact"],
    left: Int[np.ndarray, " role"],
    known: Sequence[tuple[tuple[int, int] | None, tuple[int, int] | None]],
    true: Int[np.ndarray, " fact"],
    sizes: Int[np.ndarray, " fact"],
    rng: np.random.Generator,
) -> None:
    """Gives facts that have a role in another language the one that goes with it, as often as before."""
    pairs: dict[tuple[int, int], list[int]] = {}
    asking: dict[tuple[int, int], list[int]] = {}
    for i, (was, here) in enumerate(known):
        if was is not None and here is not None:
            pairs.setdefault(was, []).append(int(true[i]))
            asking.setdefault(here, []).append(i)
    for there in sorted(asking):
        wanted = rng.permutation(np.array(pairs.get(there, []), dtype=np.int64))
        for i, role in zip(rng.permutation(asking[there]), wanted, strict=False):
            if left[role] >= sizes[i]:
                drawn[i] = role
                left[role] -= sizes[i]


@dataclass(frozen=True, eq=False)
class _Game:
    """The tasks of a contrast in one language, and the deals of their roles."""

    contrast: str
    tasks: list[DetectionTask]
    roles: Int8[np.ndarray, "task role"]
    dealt: Int[np.ndarray, "deal prompt"]


def _games(
    tasks: Sequence[DetectionTask], prompts: pd.DataFrame, deals: int, seed: int
) -> list[_Game]:
    """Deals the roles of each contrast, all its languages together."""
    facts = whole_facts(prompts)
    languages, names = pd.factorize(prompts["language"])
    games = []
    for contrast in dict.fromkeys(task.contrast for task in tasks):
        of_contrast = [task for task in tasks if task.contrast == contrast]
        played = np.full(len(prompts), -1, dtype=np.int64)
        parts = []
        for number, language in enumerate(names):
            own = [task for task in of_contrast if task.language == language]
            if own:
                role, kinds = _roles(own)
                played[role >= 0] = role[role >= 0]
                parts.append((number, own, kinds))
        dealt = np.stack(
            [
                deal_roles(played, languages, facts, rng)
                for rng in _generators(contrast, deals, seed)
            ]
        )
        for number, own, kinds in parts:
            here = np.where(languages == number, dealt, -1)
            games.append(_Game(contrast, own, kinds, here))
    return games


def _generators(contrast: str, deals: int, seed: int) -> Iterator[np.random.Generator]:
    for deal in range(1, deals + 1):
        yield np.random.default_rng([seed, zlib.crc32(contrast.encode()), deal])


def _roles(
    tasks: Sequence[DetectionTask],
) -> tuple[Int[np.ndarray, " prompt"], Int8[np.ndarray, "task role"]]:
    """Numbers the roles: prompts of one role are positives and negatives of the same tasks."""
    member = np.stack([task.membership() for task in tasks])
    inside = (member >= 0).any(axis=0)
    kinds, number = np.unique(member[:, inside], axis=1, return_inverse=True)
    role = np.full(member.shape[1], -1, dtype=np.int64)
    role[inside] = number.reshape(-1)
    return role, kinds


def _membership(
    tasks: Int8[np.ndarray, "task role"], roles: Int[np.ndarray, " prompt"]
) -> Int8[np.ndarray, "task prompt"]:
    """Returns 1 for a positive, 0 for a negative and -1 for neither."""
    return np.where(roles >= 0, tasks[:, roles], np.int8(-1))


def _best(
    values: Float[Tensor, "prompt neuron"],
    ap: Float[np.ndarray, "task neuron"],
    member: Int8[np.ndarray, "task prompt"],
    keep: int,
    order: str,
) -> Int[np.ndarray, "task keep"]:
    """Returns each task's best neurons in the order of `rank_neurons`, best first.

    The standardised difference is computed only for neurons that it can order: those with a tied AP.
    """
    able = []
    for row in ap:
        least = np.partition(row, len(row) - keep)[len(row) - keep]
        able.append(np.flatnonzero(row >= least))
    tie = np.zeros(ap.shape)
    if order == "d_prime":
        tied = [_repeated(row, some) for row, some in zip(ap, able, strict=True)]
        if len(some := np.unique(np.concatenate(tied))):
            difference = standardised_difference(values[:, some], torch.from_numpy(member))[0]
            tie[:, some] = difference.numpy()
    return np.stack(
        [
            some[np.lexsort((-second[some], -row[some]))[:keep]]
            for row, second, some in zip(ap, tie, able, strict=True)
        ]
    )


def _repeated(
    row: Float[np.ndarray, " neuron"], some: Int[np.ndarray, " able"]
) -> Int[np.ndarray, " tied"]:
    """Returns those of some neurons that have the value of another one."""
    _, place, counts = np.unique(row[some], return_inverse=True, return_counts=True)
    return some[counts[place.reshape(-1)] > 1]


def _shared(
    contrast: str,
    deal: int,
    tasks: Sequence[DetectionTask],
    sets: Int[np.ndarray, "task keep"],
    neurons: int,
    width: int,
) -> pd.DataFrame:
    """Lists the neurons in two or more sets of a deal, and the last one of each set."""
    kept = np.bincount(sets.reshape(-1), minlength=neurons)[sets] > 1
    kept[:, -1] = True
    task, place = np.nonzero(kept)
    neuron = sets[task, place]
    return pd.DataFrame(
        {
            "score": contrast,
            "deal": np.full(len(task), deal, dtype=np.int32),
            "relation": np.array([one.relation for one in tasks], dtype=object)[task],
            "language": np.array([one.language for one in tasks], dtype=object)[task],
            "layer": (neuron // width).astype(np.int32),
            "neuron": (neuron % width).astype(np.int32),
            "rank": (place + 1).astype(np.int32),
        }
    )


def _check(deals: int, contrasts: Sequence[str], order: str) -> None:
    if deals < LEAST_DEALS:
        raise UnknownOptionError(
            f"{deals} deals cannot bring p to 0.05; expected {LEAST_DEALS} or more."
        )
    for contrast in contrasts:
        if contrast not in CONTRASTS:
            raise UnknownOptionError(
                f"No contrast {contrast!r}. {near_matches(contrast, CONTRASTS)}"
            )
    if order not in ORDERS:
        raise UnknownOptionError(f"No order {order!r}. {near_matches(order, ORDERS)}")
