"""Ablated sets: which neurons each condition of a job ablates, and to what; plain data that can be sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from relation_neurons.ablation.context import ablated
from relation_neurons.ablation.hooks import Ablation
from relation_neurons.ablation.sets import Condition
from relation_neurons.backends.base import HookedModel
from relation_neurons.ranking.table import Ranking
from relation_neurons.storage.chunks import chunk_key, packed, unpacked

__all__ = ["AblatedSets"]


@dataclass(frozen=True)
class AblatedSets:
    """The conditions of a job and how they are ablated."""

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

    def plain(self) -> dict[str, Any]:
        """Gives the sets as plain data: text, and a table as the bytes of a parquet file."""
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
    def of_plain(cls, data: dict[str, Any]) -> AblatedSets:
        """Reads what `plain` gave."""
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
