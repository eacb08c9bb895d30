"""The sets of neurons that a sweep ablates: ranked sets and their controls."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from relation_neurons.ablation.hooks import Ablation, ablated
from relation_neurons.backends.base import HookedModel
from relation_neurons.errors import DoseError, UnknownOptionError, near_matches
from relation_neurons.neurons import resolve_doses
from relation_neurons.ranking.detection_tasks import CONTRASTS
from relation_neurons.ranking.table import Ranking
from relation_neurons.storage.chunks import chunk_key, packed, unpacked

__all__ = [
    "CONTROL_KINDS",
    "AblatedSets",
    "Condition",
    "draw_control",
    "largest_matched",
    "plan_sweep",
]

CONTROL_KINDS = ("control_contribution", "control_layer")

_NEAREST = 10


def draw_control(
    ranked: pd.DataFrame,
    neurons: pd.DataFrame,
    *,
    kind: str,
    draw: int = 0,
    seed: int = 0,
    label: str = "",
) -> pd.DataFrame:
    """Draws one control neuron for each ranked one, disjoint from all of them.

    The first k rows are the control at dose k, so that controls nest over doses. `contribution`
    draws among the ten unused neurons of the same layer whose contribution is nearest.

    Args:
        ranked: layer and neuron of a ranked set, best first.
        neurons: every neuron with its contribution, in (layer, neuron) order.
        kind: one of `CONTROL_KINDS`.
        draw: number of the draw; each has its own generator.
        seed: of the run.
        label: what the control is for (contrast, relation, language); part of the seed.

    Returns:
        layer and neuron, a row per ranked neuron.

    Raises:
        DoseError: a layer with more than half of its neurons ranked, which leaves no disjoint match.
    """
    if kind not in CONTROL_KINDS:
        raise UnknownOptionError(f"No control {kind!r}. {near_matches(kind, CONTROL_KINDS)}")
    rng = np.random.default_rng([seed, draw, CONTROL_KINDS.index(kind), zlib.crc32(label.encode())])
    width = int(neurons["neuron"].max()) + 1
    loudness = np.log(neurons["contribution"].to_numpy(dtype=np.float64) + 1e-12)
    free = np.ones(len(neurons), dtype=bool)
    chosen_ids = ranked["layer"].to_numpy() * width + ranked["neuron"].to_numpy()
    free[chosen_ids] = False
    drawn = np.empty(len(ranked), dtype=np.int64)
    for i, target in enumerate(chosen_ids):
        start = int(target) // width * width
        candidates = start + np.flatnonzero(free[start : start + width])
        if candidates.size == 0:
            share = float((chosen_ids // width == target // width).sum() / width)
            raise DoseError(
                f"Layer {start // width} has no neuron left for a control: {share:.0%} of it is ranked "
                "at this dose. Expected at most half; give a smaller dose, or control_draws=0."
            )
        if kind == "control_contribution":
            distance = np.abs(loudness[candidates] - loudness[target])
            candidates = candidates[np.argsort(distance, kind="stable")[:_NEAREST]]
        drawn[i] = rng.choice(candidates)
        free[drawn[i]] = False
    return pd.DataFrame({"layer": drawn // width, "neuron": drawn % width})


def largest_matched(ranked: pd.DataFrame, width: int) -> int:
    """The largest dose at which at most half of every layer is ranked.

    Beyond it a control that is disjoint from the set cannot be matched on layer, so none is drawn.

    Args:
        ranked: layer and neuron of a ranked set, best first.
        width: neurons per layer.

    >>> ranked = pd.DataFrame({"layer": [0, 1, 0, 0], "neuron": [0, 0, 1, 2]})
    >>> largest_matched(ranked, 4)
    3
    """
    beyond = np.flatnonzero(ranked.groupby("layer").cumcount().to_numpy() >= width // 2)
    return int(beyond[0]) if beyond.size else len(ranked)


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

    Above the dose at which more than half of a layer is ranked there is no disjoint match in that
    layer, and so no control: the ranked set is ablated alone (see `largest_matched`).

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
                        label=f"{contrast}/{relation}/{language}",
                    )
                    sets.append((kind, draw, control))
            conditions += [
                Condition(relation, language, kind, contrast, dose, draw, neurons.head(dose))
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
