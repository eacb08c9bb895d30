"""Conditions: every set of neurons that a sweep ablates, ranked sets and their controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from relation_neurons.ablation.controls import CONTROL_KINDS, draw_control, largest_matched
from relation_neurons.errors import UnknownOptionError, near_matches
from relation_neurons.neurons import resolve_doses
from relation_neurons.ranking.detection_tasks import SCORES
from relation_neurons.ranking.table import Ranking

__all__ = ["Condition", "plan_sweep"]


@dataclass(frozen=True)
class Condition:
    """One set of neurons to ablate."""

    ablated: str
    language: str
    kind: str
    score: str
    dose: int
    draw: int
    neurons: pd.DataFrame

    def labels(self) -> dict[str, object]:
        """The columns of `effects` that name it."""
        return {
            "ablated": self.ablated,
            "ablated_language": self.language,
            "kind": self.kind,
            "score": self.score,
            "dose": self.dose,
            "draw": self.draw,
        }


def plan_sweep(
    ranking: Ranking,
    doses: Sequence[int | float | str],
    *,
    scores: Sequence[str] = ("specific",),
    control_draws: int | Mapping[str, int] = 2,
    control_kinds: Sequence[str] = CONTROL_KINDS,
    draws_at: Mapping[int, int] | None = None,
    seed: int = 0,
) -> list[Condition]:
    """Lists every ablation of a sweep: for each relation and dose the ranked set and its controls.

    Above the dose at which more than half of a layer is ranked there is no disjoint match in that
    layer, and so no control: the ranked set is ablated alone (see `controls.largest_matched`).

    Raises:
        DoseError: a dose above what the ranking holds or the model has.
    """
    counts = resolve_doses(doses, len(ranking.neurons))
    conditions: list[Condition] = []
    for score in scores:
        if score not in SCORES:
            raise UnknownOptionError(f"No score {score!r}. {near_matches(score, SCORES)}")
        ranked_here = ranking.frame[ranking.frame["score"] == score]
        for relation, language in (
            ranked_here[["relation", "language"]].drop_duplicates().itertuples(index=False)
        ):
            ranked = ranking.top(relation, counts[-1], score=score, language=language)
            matched = min(counts[-1], largest_matched(ranked, ranking.width))
            sets = [("ranked", 0, ranked)]
            for kind in control_kinds:
                most = max(_draws(kind, dose, control_draws, draws_at) for dose in counts)
                for draw in range(most if matched else 0):
                    control = draw_control(
                        ranked.head(matched),
                        ranking.neurons,
                        kind=kind,
                        draw=draw,
                        seed=seed,
                        label=f"{score}/{relation}/{language}",
                    )
                    sets.append((kind, draw, control))
            conditions += [
                Condition(relation, language, kind, score, dose, draw, neurons.head(dose))
                for dose in counts
                for kind, draw, neurons in sets
                if kind == "ranked"
                or (dose <= matched and draw < _draws(kind, dose, control_draws, draws_at))
            ]
    return conditions


def _draws(
    kind: str,
    dose: int,
    control_draws: int | Mapping[str, int],
    draws_at: Mapping[int, int] | None,
) -> int:
    """Draws of one kind of control at one dose."""
    if kind == "control_contribution" and draws_at and dose in draws_at:
        return draws_at[dose]
    return control_draws if isinstance(control_draws, int) else control_draws.get(kind, 0)
