"""The sets of neurons that a sweep ablates: ranked sets and their controls."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from relation_neurons.ablation.controls import (
    CONTROL_KINDS,
    draw_control,
    draw_overlap,
    effective_draws,
    largest_matched,
)
from relation_neurons.ablation.hooks import Ablation, ablated
from relation_neurons.backends.base import HookedModel
from relation_neurons.errors import UnknownOptionError, near_matches
from relation_neurons.neurons import resolve_doses
from relation_neurons.ranking.detection_tasks import CONTRASTS
from relation_neurons.ranking.table import Ranking
from relation_neurons.storage.chunks import chunk_key, packed, unpacked

__all__ = ["AblatedSets", "Condition", "control_spread", "draw_controls", "plan_sweep"]


@dataclass(frozen=True)
class Condition:
    """One set of neurons to ablate."""

    ablated: str
    language: str
    kind: str
    contrast: str
    dose: int
    draw: int
    neurons: pd.DataFrame

    def labels(self) -> dict[str, object]:
        """The columns of `effects` that name it."""
        return {
            "ablated": self.ablated,
            "ablated_language": self.language,
            "kind": self.kind,
            "score": self.contrast,
            "dose": self.dose,
            "draw": self.draw,
        }


def plan_sweep(
    ranking: Ranking,
    doses: Sequence[int | float | str],
    *,
    contrasts: Sequence[str] = ("specific",),
    control_draws: int | Mapping[str, int] = 2,
    control_kinds: Sequence[str] = CONTROL_KINDS,
    draws_at: Mapping[int, int] | None = None,
    seed: int = 0,
) -> list[Condition]:
    """Lists every ablation of a sweep: for each relation and dose the ranked set and its controls.

    Each dose has controls of its own, which are the same whatever other doses are swept. Above the dose at
    which more than half of a layer is ranked there is no disjoint match in that layer, and so no control: the
    ranked set is ablated alone (see `largest_matched`).

    Raises:
        DoseError: a dose above what the ranking holds or the model has.
    """
    counts = resolve_doses(doses, len(ranking.neurons))
    conditions: list[Condition] = []
    for contrast in contrasts:
        if contrast not in CONTRASTS:
            raise UnknownOptionError(
                f"No contrast {contrast!r}. {near_matches(contrast, CONTRASTS)}"
            )
        ranked_here = ranking.frame[ranking.frame["score"] == contrast]
        for relation, language in (
            ranked_here[["relation", "language"]].drop_duplicates().itertuples(index=False)
        ):
            ranked = ranking.top(relation, counts[-1], contrast=contrast, language=language)
            matched = largest_matched(ranked, ranking.width)
            for dose in counts:
                one = Condition(relation, language, "ranked", contrast, dose, 0, ranked.head(dose))
                conditions.append(one)
                for kind in control_kinds if dose <= matched else ():
                    draws = range(_draws(kind, dose, control_draws, draws_at))
                    conditions += draw_controls(one, ranking, draws, kind=kind, seed=seed)
    return conditions


def draw_controls(
    ranked: Condition,
    ranking: Ranking,
    draws: Iterable[int],
    *,
    kind: str = CONTROL_KINDS[0],
    seed: int = 0,
) -> list[Condition]:
    """Draws the control of a ranked set, one set for each number in `draws`; see `draw_control`."""
    label = f"{ranked.contrast}/{ranked.ablated}/{ranked.language}"
    return [
        replace(
            ranked,
            kind=kind,
            draw=draw,
            neurons=draw_control(
                ranked.neurons, ranking.neurons, kind=kind, draw=draw, seed=seed, label=label
            ),
        )
        for draw in draws
    ]


def control_spread(conditions: Sequence[Condition], width: int) -> pd.DataFrame:
    """Says how much of a layer each set takes, and how far the draws of a control can differ.

    Args:
        conditions: from `plan_sweep`.
        width: neurons per layer.

    Returns:
        A row per set, a control's draws together: ablated, ablated_language, kind, score, dose, draws,
        layer_share (the largest share of a layer that the set takes), draw_overlap (mean share of
        neurons that two draws have in common; NaN with one draw) and effective_draws (see
        `effective_draws`).
    """
    groups: dict[tuple[str, str, str, str, int], list[Condition]] = {}
    for one in conditions:
        key = (one.ablated, one.language, one.kind, one.contrast, one.dose)
        groups.setdefault(key, []).append(one)
    rows = []
    for key, draws in groups.items():
        overlap = draw_overlap([one.neurons for one in draws])
        largest = draws[0].neurons.groupby("layer").size().max()
        counted = effective_draws(len(draws), overlap)
        rows.append((*key, len(draws), float(largest / width), overlap, counted))
    names = ["ablated", "ablated_language", "kind", "score", "dose"]
    return pd.DataFrame(
        rows, columns=[*names, "draws", "layer_share", "draw_overlap", "effective_draws"]
    )


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


@dataclass(frozen=True)
class AblatedSets:
    """The ablated sets of a job, and how they are ablated."""

    conditions: tuple[Condition, ...]
    """Their neurons with the columns layer and neuron, and `mean` where the mode needs it."""
    site: str
    mode: str
    positions: str
    value: float | None
    """The factor of `scale`."""

    @classmethod
    def of(
        cls,
        conditions: Sequence[Condition],
        ranking: Ranking,
        *,
        mode: str,
        value: float | None,
        positions: str,
    ) -> AblatedSets:
        """Takes what a model needs to know of planned conditions."""
        means = ranking.neurons["mean"].to_numpy()

        def slim(condition: Condition) -> Condition:
            neurons = condition.neurons[["layer", "neuron"]]
            if mode == "mean":
                places = neurons["layer"] * ranking.width + neurons["neuron"]
                neurons = neurons.assign(mean=means[places.to_numpy()])
            return replace(condition, neurons=neurons)

        return cls(tuple(map(slim, conditions)), ranking.site, mode, positions, value)

    def ablated(self, model: HookedModel, place: int) -> AbstractContextManager[Ablation]:
        """Ablates the set of one condition for as long as the context is open."""
        neurons = self.conditions[place].neurons
        value: Any = self.value
        if self.mode == "mean":
            value = torch.tensor(neurons["mean"].to_numpy(copy=True))
        return ablated(
            model,
            neurons,
            site=self.site,
            mode=self.mode,
            positions=self.positions,
            value=value,
        )

    def first_layers(self) -> list[int]:
        """The lowest ablated layer of each condition."""
        return [int(condition.neurons["layer"].min()) for condition in self.conditions]

    def keys(self, *what: Any) -> list[str]:
        """Names each condition's chunk by its set, by how it is ablated, and by what is asked."""
        return [
            chunk_key(
                condition.labels(),
                condition.neurons[["layer", "neuron"]].to_numpy().tolist(),
                *what,
                self.mode,
                self.value,
                self.positions,
            )
            for condition in self.conditions
        ]

    def to_message(self) -> dict[str, Any]:
        """Returns the sets as plain data: text, and a table as the bytes of a parquet file."""
        neurons = [c.neurons.assign(condition=i) for i, c in enumerate(self.conditions)]
        how = {
            "labels": [condition.labels() for condition in self.conditions],
            "site": self.site,
            "mode": self.mode,
            "positions": self.positions,
            "value": self.value,
        }
        return {"how": json.dumps(how), "neurons": packed(pd.concat(neurons, ignore_index=True))}

    @classmethod
    def from_message(cls, data: dict[str, Any]) -> AblatedSets:
        """Reads what `to_message` returned."""
        how = json.loads(data["how"])
        parts = {
            place: part.drop(columns="condition").reset_index(drop=True)
            for place, part in unpacked(data["neurons"]).groupby("condition")
        }
        conditions = [
            Condition(
                one["ablated"],
                one["ablated_language"],
                one["kind"],
                one["score"],
                one["dose"],
                one["draw"],
                parts[place],
            )
            for place, one in enumerate(how["labels"])
        ]
        return cls(tuple(conditions), how["site"], how["mode"], how["positions"], how["value"])
