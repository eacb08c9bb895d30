"""Ranking: the neurons of each relation, by how well their activation detects its prompts.

Four rankings per relation, from one pass over the prompts (method 3 and 6):

| score | positives | negatives |
| --- | --- | --- |
| `specific` | known prompts of the relation | prompts of all other relations (the paper's) |
| `background` | known prompts of the relation | neutral prompts |
| `unknown` | prompts of the relation that the model gets wrong | as `specific` |
| `nonsense` | prompts of the relation about nonsense subjects | as `specific` |

By which value is another choice, the same for all of them: average precision, or one of its rivals
(see `criteria`).
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from relation_neurons.activations import ActivationTable
from relation_neurons.criteria import (
    applicable_families,
    applicable_scores,
    criterion_values,
    require_end,
)
from relation_neurons.errors import (
    AblationError,
    DoseError,
    TooFewFactsError,
    UnknownOptionError,
    UnknownRelationError,
    near_matches,
)
from relation_neurons.relations import MIN_KNOWN, relation_label
from relation_neurons.scores import family_average_precision, standardised_difference

__all__ = [
    "SCORES",
    "Ranking",
    "known_counts",
    "left_out_relations",
    "neuron_name",
    "parse_neuron",
    "rank_neurons",
    "resolve_doses",
]

SCORES = ("specific", "background", "unknown", "nonsense")
ORDERS = ("d_prime", "index")


@dataclass(frozen=True)
class Ranking:
    """The top neurons of every relation under every score."""

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

    def __repr__(self) -> str:
        kept = int(self.frame["rank"].max()) if len(self.frame) else 0
        by = "" if self.by == "average_precision" else f" by {self.by}"
        held = f"{self.end} {kept} of {len(self.neurons)} {self.site} neurons{by}"
        return f"Ranking({', '.join(self.relations)}; {held})"

    def _repr_html_(self) -> str:
        from relation_neurons.object_view import ranking_html

        return ranking_html(self)

    @property
    def end(self) -> str:
        """`top` or `bottom`."""
        return "bottom" if self.bottom else "top"

    @property
    def relations(self) -> list[str]:
        """The relations that have a ranking."""
        return list(dict.fromkeys(self.frame["relation"]))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The relations that have a ranking, each with its language."""
        pairs = self.frame[["relation", "language"]].drop_duplicates()
        return list(pairs.itertuples(index=False, name=None))

    def labels(self, score: str) -> dict[tuple[str, str], str]:
        """Names the relations with a ranking of that score, by their language where there are several."""
        several = self.frame["language"].nunique() > 1
        ranked = self.frame[self.frame["score"] == score][["relation", "language"]]
        pairs = ranked.drop_duplicates().itertuples(index=False, name=None)
        return {pair: relation_label(*pair, several=several) for pair in pairs}

    @property
    def width(self) -> int:
        """Neurons per layer."""
        return int(self.neurons["neuron"].max()) + 1

    def languages(self, relation: str, score: str = "specific") -> list[str]:
        """The languages in which a relation has a ranking."""
        here = self.frame[(self.frame["relation"] == relation) & (self.frame["score"] == score)]
        return list(dict.fromkeys(here["language"]))

    def top(
        self, relation: str, dose: int, *, score: str = "specific", language: str | None = None
    ) -> pd.DataFrame:
        """Gives the first `dose` neurons, best first (of a bottom ranking, the lowest first).

        Raises:
            UnknownRelationError: no ranking of that relation, score and language.
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
        if score not in SCORES:
            raise UnknownOptionError(f"No score {score!r}. {near_matches(score, SCORES)}")
        language = language or (self.languages(relation, score) or ["en"])[0]
        rows = self.frame[
            (self.frame["relation"] == relation)
            & (self.frame["score"] == score)
            & (self.frame["language"] == language)
        ]
        if rows.empty:
            raise UnknownRelationError(
                f"{relation!r} has no {score!r} ranking in {language!r}: too few such prompts."
            )
        if not 1 <= dose <= len(rows):
            raise DoseError(
                f"A dose of {dose} was asked for; the ranking of {relation!r} holds {len(rows)} of "
                f"the model's {len(self.neurons)} neurons. Give a smaller dose, or rank_neurons(keep=…)."
            )
        return rows.head(dose).reset_index(drop=True)


def rank_neurons(
    table: ActivationTable,
    recall: pd.DataFrame,
    *,
    by: str = "average_precision",
    bottom: bool = False,
    scores: Sequence[str] = SCORES,
    attribution: Float[Tensor, "prompt layer d_mlp"] | None = None,
    keep: int | None = None,
    order: str = "d_prime",
    min_known: int = MIN_KNOWN,
) -> Ranking:
    """Ranks every neuron for every relation under every score.

    Order: the criterion's value (AP rounded to 1e-6), then the standardised difference
    (`order="index"`: nothing, as in the published code), then (layer, neuron) (method 7; pitfall 11).
    Neurons without a value come last.

    Args:
        table: pooled activations of the detection prompts.
        recall: what `measure_recall` gives, for both sides.
        by: the criterion; one of `criteria.CRITERIA`. Scores that it cannot rank are left out.
        bottom: ranks from the other end, in exactly the reverse order: the most anti-correlated
            neurons. It holds half of the neurons at most, so that no neuron of a top set as large is
            in it (pitfall 14).
        scores: the scores to rank; all of them by default.
        attribution: of the table's prompts, from `collect_attribution`; for `by="attribution"`.
        keep: ranked neurons kept per relation and score; 2% of them, at least 1,000, by default.
        order: `d_prime` or `index`.
        min_known: known facts a relation needs on either side, or it is left out by name.

    Raises:
        TooFewFactsError: every relation is left out, or there is only one and no neutral prompt.
        ActivationError: the criterion needs what was not collected.
        UnknownOptionError: a criterion, score or order that does not exist, or a criterion that ranks
            none of the scores.
    """
    if order not in ORDERS:
        raise UnknownOptionError(f"No order {order!r}. {near_matches(order, ORDERS)}")
    wanted = _wanted_scores(by, bottom, scores)
    left_out = left_out_relations(recall, min_known)
    if keep is not None and keep < 1:
        raise DoseError(f"keep is {keep}; expected at least one neuron.")
    families, membership = _families(table.prompts, recall, min_known, left_out)
    if not families:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise TooFewFactsError(
            f"No relation is left to rank ({reasons or 'no family has positives and negatives'}). "
            "Often the wording is at fault: one that the answer must follow at once helps. Else add facts "
            "that the model knows, hold out more of them (held_out), take a model that knows more, or lower "
            "min_known (an AP of 1 is then nearly free)."
        )
    kept_families = applicable_families(by, families, wanted)
    families, membership = [families[i] for i in kept_families], membership[kept_families]
    layers, width = table.values.shape[1:]
    flat = table.values.flatten(1)
    value = criterion_values(by, table, families, membership, attribution=attribution)
    d_prime, positive, negative = (
        part.numpy() for part in standardised_difference(flat, membership)
    )
    neurons = _neuron_frame(table)
    most = layers * width // (2 if bottom else 1)
    keep = min(keep or max(1000, layers * width // 50), most)
    tie = d_prime if order == "d_prime" else np.zeros_like(d_prime)
    kept = np.stack([_order(*row, bottom)[:keep] for row in zip(value, tie, strict=True)])
    ap = value if by == "average_precision" else _kept_precision(flat, membership, kept)
    frames = []
    for i, (score, relation, language) in enumerate(families):
        best = kept[i]
        frames.append(
            pd.DataFrame(
                {
                    "score": score,
                    "relation": relation,
                    "language": language,
                    "rank": np.arange(1, keep + 1, dtype=np.int32),
                    "layer": (best // width).astype(np.int32),
                    "neuron": (best % width).astype(np.int32),
                    "ap": ap[i, best],
                    "d_prime": d_prime[i, best].astype(np.float32),
                    "mean_positive": positive[i, best].astype(np.float32),
                    "mean_negative": negative[i, best].astype(np.float32),
                    "is_sink": neurons["is_sink"].to_numpy()[best],
                    "value": value[i, best],
                }
            )
        )
    frame = pd.concat(frames, ignore_index=True)
    return Ranking(frame, neurons, table.site, left_out, by=by, bottom=bottom)


def known_counts(recall: pd.DataFrame) -> pd.DataFrame:
    """Counts facts and known facts per relation, language and side.

    A fact counts as known on a side when the model answers at least one of its prompts there.
    """
    facts = recall.groupby(["relation", "language", "side", "subject"], sort=True)["known"].any()
    return facts.groupby(level=[0, 1, 2]).agg(facts="size", known="sum").reset_index()


def resolve_doses(
    doses: Sequence[int | float | str], neurons: int | None = None
) -> tuple[int, ...]:
    """Turns doses (a count, or a share such as `"0.2%"`) into increasing counts.

    Without the number of neurons, only their form is checked.

    Raises:
        DoseError: a dose below 1 or above the number of neurons.

    >>> resolve_doses(["0.2%", 10], 46080)
    (10, 92)
    """
    counts = set()
    for dose in doses:
        try:
            if isinstance(dose, str) and dose.strip().endswith("%"):
                count = round(float(dose.strip()[:-1]) / 100 * (neurons or 1_000_000))
            else:
                count = int(dose)
        except (ValueError, TypeError, OverflowError) as error:
            raise DoseError(
                f"{dose!r} is no dose; expected a count or a share such as 0.2%."
            ) from error
        if count < 1 or (neurons is not None and count > neurons):
            there = f"this model has {neurons}" if neurons else "one is the least"
            raise DoseError(f"A dose of {dose} is {count} neurons; {there}.")
        counts.add(count)
    if not counts:
        raise DoseError("No dose was given; expected at least one.")
    return tuple(sorted(counts))


def neuron_name(layer: int, neuron: int) -> str:
    """Names a neuron.

    >>> neuron_name(16, 302)
    'L16N302'
    """
    return f"L{layer}N{neuron}"


def parse_neuron(name: str) -> tuple[int, int]:
    """Reads a neuron's name.

    >>> parse_neuron("L16N302")
    (16, 302)
    """
    match = re.fullmatch(r"L(\d+)N(\d+)", name.strip(), flags=re.IGNORECASE)
    if match is None:
        raise AblationError(f"{name!r} names no neuron; expected the form L16N302.")
    return int(match[1]), int(match[2])


def left_out_relations(recall: pd.DataFrame, min_known: int = MIN_KNOWN) -> dict[str, str]:
    """Names the relations with too few known facts on a side, with the reason.

    Where the prompts are in several languages, each is named with its own.
    """
    reasons: dict[str, str] = {}
    several = recall["language"].nunique() > 1
    for (relation, language), rows in known_counts(recall).groupby(["relation", "language"]):
        counts = {row.side: (int(row.known), int(row.facts)) for row in rows.itertuples()}
        sides = [(side, *counts.get(side, (0, 0))) for side in ("detection", "held_out")]
        if any(known < min_known for _, known, _ in sides):
            said = " and ".join(f"{known} of {facts} {side}" for side, known, facts in sides)
            name = relation_label(relation, language, several=several)
            reasons[name] = f"knows {said} facts, {min_known} are needed on each side"
    return reasons


def _wanted_scores(by: str, bottom: bool, scores: Sequence[str]) -> tuple[str, ...]:
    """The scores asked for that the criterion can rank."""
    for score in scores:
        if score not in SCORES:
            raise UnknownOptionError(f"No score {score!r}. {near_matches(score, SCORES)}")
    wanted = applicable_scores(by, scores)
    require_end(by, bottom)
    if not wanted:
        raise UnknownOptionError(
            f"{by} cannot rank the score {', '.join(scores) or '(none)'}; it ranks "
            f"{', '.join(applicable_scores(by, SCORES))}."
        )
    return wanted


def _order(
    value: Float[np.ndarray, " neuron"], tie: Float[np.ndarray, " neuron"], bottom: bool
) -> np.ndarray:
    """Neurons from the best, or from the lowest in exactly the reverse order."""
    filled = np.where(np.isnan(value), -np.inf, value)
    order = np.lexsort((-tie, -filled))  # stable: the index decides last
    return order[::-1] if bottom else order


def _kept_precision(
    flat: Float[Tensor, "prompt neuron"], membership: torch.Tensor, kept: np.ndarray
) -> Float[np.ndarray, "family neuron"]:
    """AP of the neurons that are kept somewhere; NaN for the others, which no table shows."""
    some = np.unique(kept)
    ap = np.full((len(membership), flat.shape[1]), np.nan)
    ap[:, some] = family_average_precision(flat[:, some], membership).numpy().round(6)
    return ap


def _families(
    prompts: pd.DataFrame, recall: pd.DataFrame, min_known: int, left_out: Container[str]
) -> tuple[list[tuple[str, str, str]], torch.Tensor]:
    """Names every (score, relation, language) and which prompts are its positives and negatives.

    A relation that is left out has no ranking; its prompts are negatives of the others like any.
    """
    known = (
        prompts["prompt_id"].map(recall.set_index("prompt_id")["known"]).fillna(False).astype(bool)
    )
    fact, nonsense = prompts["kind"] == "fact", prompts["kind"] == "nonsense"
    background = prompts["kind"] == "background"
    families: list[tuple[str, str, str]] = []
    rows: list[np.ndarray] = []
    pairs = prompts.loc[fact, ["relation", "language"]].drop_duplicates()
    several = recall["language"].nunique() > 1
    for relation, language in pairs.itertuples(index=False):
        if relation_label(relation, language, several=several) in left_out:
            continue
        same = (prompts["relation"] == relation) & (prompts["language"] == language)
        others = fact & (prompts["relation"] != relation) & (prompts["language"] == language)
        for score, positive, negative in (
            ("specific", same & fact & known, others),
            ("background", same & fact & known, background & (prompts["language"] == language)),
            ("unknown", same & fact & ~known, others),
            ("nonsense", same & nonsense, others),
        ):
            if positive.sum() < min_known or negative.sum() < min_known:
                continue
            families.append((score, relation, language))
            rows.append(np.where(positive, 1, np.where(negative, 0, -1)).astype(np.int8))
    return families, torch.from_numpy(
        np.array(rows, dtype=np.int8).reshape(len(rows), len(prompts))
    )


def _neuron_frame(table: ActivationTable) -> pd.DataFrame:
    _, layers, width = table.values.shape
    return pd.DataFrame(
        {
            "layer": np.repeat(np.arange(layers, dtype=np.int32), width),
            "neuron": np.tile(np.arange(width, dtype=np.int32), layers),
            "mean": table.mean.flatten().numpy(),
            "contribution": table.contribution.flatten().numpy(),
            "is_sink": table.is_sink.flatten().numpy(),
        }
    )
