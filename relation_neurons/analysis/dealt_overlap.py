"""What the deals of a run say of overlap at one dose: how much is shared by chance.

`ranking.overlap_null` makes the table of deals; here its top sets are read at any dose that they hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from relation_neurons.ranking.table import Ranking
from relation_neurons.relations.relation import relation_label

__all__ = ["NO_DEALS", "DealtOverlap", "NoNull", "chance_of", "dealt_overlap"]

NO_DEALS = "no null: the run has no overlap deals"
"""Why there is no chance to compare with where nothing was dealt."""


@dataclass(frozen=True)
class NoNull:
    """Why an overlap has no null."""

    reason: str


@dataclass(frozen=True, eq=False)
class DealtOverlap:
    """The top sets of every deal at one dose."""

    member: tuple[Bool[np.ndarray, "_ set"], ...]
    """Of each deal: which of the neurons that any two sets share is in which set."""

    @property
    def deals(self) -> int:
        """How many deals there are."""
        return len(self.member)

    @cached_property
    def shared(self) -> Int[np.ndarray, "deal set set"]:
        """The neurons that two sets share, counted."""
        held = [one.astype(np.float64) for one in self.member]  # so that BLAS multiplies
        return np.stack([one.T @ one for one in held]).astype(np.int64)

    def combined(self) -> dict[tuple[int, ...], Int[np.ndarray, " deal"]]:
        """Counts, for each combination of two sets or more, the neurons in exactly those sets."""
        found: dict[tuple[int, ...], Int[np.ndarray, " deal"]] = {}
        for deal, one in enumerate(self.member):
            combinations = Counter(tuple(np.flatnonzero(row).tolist()) for row in one)
            for sets, count in combinations.items():
                if len(sets) > 1:
                    found.setdefault(sets, np.zeros(self.deals, dtype=np.int64))[deal] = count
        return found


def dealt_overlap(
    ranking: Ranking,
    null: pd.DataFrame | None,
    *,
    dose: int,
    contrast: str,
    sets: Sequence[tuple[str, str]],
) -> DealtOverlap | NoNull:
    """Reads the top sets of every deal at a dose.

    Args:
        ranking: whose overlap is judged.
        null: from `overlap_null`; the ranking's own where it is None.
        dose: size of each set.
        contrast: the contrast of the sets.
        sets: relation and language of each set, in the order of the result.

    Returns:
        The sets, or why there are none.
    """
    null = ranking.overlap_null if null is None else null
    if null is None or null.empty:
        return NoNull(NO_DEALS)
    if ranking.bottom or ranking.by != "average_precision":
        return NoNull("no null: overlap deals are of the top neurons by average precision")
    own = null[null["score"] == contrast]
    if own.empty:
        return NoNull(f"no null: the overlap deals have no contrast {contrast!r}")
    depth = int(own["rank"].max())
    if dose > depth:
        return NoNull(f"no null: the overlap deals hold {depth:,} neurons a set, not {dose:,}")
    relation, relations = pd.factorize(own["relation"])
    language, languages = pd.factorize(own["language"])
    place = np.full((len(relations), len(languages)), -1)
    there = set(zip(relation.tolist(), language.tolist(), strict=True))
    for i, (name, code) in enumerate(sets):
        at = (relations.get_indexer([name]).item(), languages.get_indexer([code]).item())
        if at not in there:
            return NoNull(
                f"no null: the overlap deals lack {relation_label(name, code, several=True)}"
            )
        place[at] = i
    deals = int(own["deal"].max())
    which = place[relation, language]
    inside = (own["rank"].to_numpy() <= dose) & (which >= 0)
    deal, which = own["deal"].to_numpy()[inside] - 1, which[inside]
    layer, neuron = (own[name].to_numpy(np.int64)[inside] for name in ("layer", "neuron"))
    neuron = layer * ranking.width + neuron
    member = []
    for one in range(deals):
        here = deal == one
        names, row = np.unique(neuron[here], return_inverse=True)
        held = np.zeros((len(names), len(sets)), dtype=bool)
        held[row.reshape(-1), which[here]] = True
        member.append(held)
    return DealtOverlap(tuple(member))


def chance_of(
    shared: Int[np.ndarray, " ..."], dealt: Int[np.ndarray, "deal ..."]
) -> tuple[Float[np.ndarray, " ..."], Float[np.ndarray, " ..."]]:
    """Returns the mean over deals, and the p-value of sharing as many.

    >>> expected, p = chance_of(np.array([5]), np.array([[0], [2], [5], [1]]))
    >>> expected.tolist(), p.tolist()
    ([2.0], [0.4])
    """
    expected = np.asarray(dealt.mean(axis=0))
    return expected, np.asarray((1 + (dealt >= shared).sum(axis=0)) / (1 + len(dealt)))
