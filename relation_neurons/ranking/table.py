"""The ranking as a table: the top neurons of every relation under every contrast."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from relation_neurons.errors import (
    DoseError,
    UnknownOptionError,
    UnknownRelationError,
    near_matches,
)
from relation_neurons.neurons import neuron_name
from relation_neurons.notebook_html import table_view
from relation_neurons.ranking.detection_tasks import CONTRASTS
from relation_neurons.relations.relation import relation_label
from relation_neurons.version import renamed

__all__ = ["Ranking"]

_SHOWN = 4
"""Neurons of each relation that a notebook shows."""


@dataclass(frozen=True)
class Ranking:
    """The top neurons of every relation under every contrast."""

    frame: pd.DataFrame
    """score, relation, language, rank (from 1), layer, neuron, ap, d_prime, mean_positive,
    mean_negative, is_sink, value (the criterion's; a table of an older run lacks it)."""
    neurons: pd.DataFrame
    """Every neuron, in (layer, neuron) order: layer, neuron, mean, contribution, is_sink."""
    site: str = "post"
    left_out: dict[str, str] = field(default_factory=dict)
    """Relations without a ranking, with the reason; named with their language where there are
    several."""
    by: str = "average_precision"
    """The criterion ranked by; see `criteria`."""
    bottom: bool = False
    """Whether it holds the other end: the most anti-correlated neurons, those first."""
    shots: bool = False
    """Whether solved examples stood in front of the prompts it was made from."""
    overlap_null: pd.DataFrame | None = None
    """What chance shares, from `overlap_null`: a saved run has it, `rank_neurons` leaves it out."""

    def __repr__(self) -> str:
        kept = int(self.frame["rank"].max()) if len(self.frame) else 0
        by = "" if self.by == "average_precision" else f" by {self.by}"
        held = f"{self.end} {kept} of {len(self.neurons)} {self.site} neurons{by}"
        return f"Ranking({', '.join(self.relations)}; {held})"

    def _repr_html_(self) -> str:
        """A ranking: the first neurons of each relation under each contrast."""
        frame = self.frame
        several = frame["language"].nunique() > 1
        rows = []
        for (contrast, relation, language), part in frame.groupby(
            ["score", "relation", "language"], sort=False
        ):
            best = part.nsmallest(_SHOWN, "rank")
            names = [neuron_name(r.layer, r.neuron) for r in best.itertuples()]
            label = relation_label(relation, language, several=several)
            rows.append((label, contrast, f"{best['ap'].iloc[0]:.3f}", ", ".join(names)))
        kept = int(frame["rank"].max()) if len(frame) else 0
        note = (
            f"The {self.end} {kept:,} of {len(self.neurons):,} neurons at {self.site}, by "
            f"{self.by.replace('_', ' ')}."
        )
        if self.left_out:
            note += f" Left out: {', '.join(self.left_out)}."
        head = ("Relation", "Contrast", "First AP", "First neurons")
        count = len(self.relations)
        title = f"Ranking of {count} relation{'' if count == 1 else 's'}"
        return table_view(title, note, (head, rows))

    @property
    def end(self) -> str:
        """`top` or `bottom`."""
        return "bottom" if self.bottom else "top"

    @property
    def relations(self) -> list[str]:
        """The relations that have a ranking."""
        return list(self.frame["relation"].unique())

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The relations that have a ranking, each with its language."""
        pairs = self.frame[["relation", "language"]].drop_duplicates()
        return list(pairs.itertuples(index=False, name=None))

    @renamed(score="contrast")
    def labels(self, contrast: str) -> dict[tuple[str, str], str]:
        """Names the relations with a ranking of that contrast, by their language where there are several."""
        several = self.frame["language"].nunique() > 1
        ranked = self.frame[self.frame["score"] == contrast][["relation", "language"]]
        pairs = ranked.drop_duplicates().itertuples(index=False, name=None)
        return {pair: relation_label(*pair, several=several) for pair in pairs}

    @renamed(score="contrast")
    def missing(self, contrast: str) -> dict[str, str]:
        """Names the relations without a ranking of that contrast, with the reason."""
        labels = self.labels(contrast)
        several = self.frame["language"].nunique() > 1
        unranked = {
            relation_label(*pair, several=several): (
                f"has no {contrast!r} ranking: too few prompts of its kind or of others"
            )
            for pair in self.pairs
            if pair not in labels
        }
        return {**self.left_out, **unranked}

    @property
    def width(self) -> int:
        """Neurons per layer."""
        return int(self.neurons["neuron"].max()) + 1

    @renamed(score="contrast")
    def languages(self, relation: str, contrast: str = "specific") -> list[str]:
        """The languages in which a relation has a ranking."""
        here = self.frame[(self.frame["relation"] == relation) & (self.frame["score"] == contrast)]
        return list(here["language"].unique())

    @renamed(score="contrast")
    def top(
        self, relation: str, dose: int, *, contrast: str = "specific", language: str | None = None
    ) -> pd.DataFrame:
        """Returns the first `dose` neurons, best first (of a bottom ranking, the lowest first).

        Raises:
            UnknownRelationError: no ranking of that relation, contrast and language.
            DoseError: a dose below 1 or above what the ranking holds.
        """
        if relation not in self.relations:
            reasons = [self.left_out.get(name) for name in (relation, f"{relation} ({language})")]
            reason = next((found for found in reasons if found), None)
            raise UnknownRelationError(
                f"{relation!r} was left out: {reason}."
                if reason
                else f"No ranking of {relation!r}. {near_matches(relation, self.relations)}"
            )
        if contrast not in CONTRASTS:
            raise UnknownOptionError(
                f"No contrast {contrast!r}. {near_matches(contrast, CONTRASTS)}"
            )
        language = language or (self.languages(relation, contrast) or ["en"])[0]
        rows = self.frame[
            (self.frame["relation"] == relation)
            & (self.frame["score"] == contrast)
            & (self.frame["language"] == language)
        ]
        if rows.empty:
            raise UnknownRelationError(
                f"{relation!r} has no {contrast!r} ranking in {language!r}: too few such prompts."
            )
        if not 1 <= dose <= len(rows):
            raise DoseError(
                f"A dose of {dose} was asked for; the ranking of {relation!r} holds {len(rows)} of "
                f"the model's {len(self.neurons)} neurons. Give a smaller dose, or rank_neurons(keep=…)."
            )
        return rows.head(dose).reset_index(drop=True)
