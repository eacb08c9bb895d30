"""The activation table, and one neuron's pooled activation on every prompt as a tidy table."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relation_neurons.errors import (
    ActivationError,
)
from relation_neurons.neurons import neuron_name, parse_neuron
from relation_neurons.notebook_html import ROWS, table_view
from relation_neurons.relations.prompts import KIND_PHRASES
from relation_neurons.relations.relation import relation_label

__all__ = ["ActivationTable", "neuron_activations"]

_COLUMNS = ["prompt_id", "kind", "relation", "language", "subject", "text"]

SINK_RATIO = 10.0
"""A sink neuron contributes this many times more at the first position than the loudest neuron of the
whole model does elsewhere (SmolLM2 has seven; the loudest, L11N1229, writes 200 times that much)."""


def neuron_activations(
    table: ActivationTable, neuron: str | tuple[int, int], recall: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Reads one neuron out of an activation table.

    Args:
        table: what `collect_activations` returns.
        neuron: its name, such as `L16N302`, or (layer, index).
        recall: what `measure_recall` returns; adds the column known (missing for prompts not asked).

    Returns:
        A row per prompt: prompt_id, kind, relation, language, subject, text, neuron, activation (the
        pooled value, in the activation's own unit), and known.

    Raises:
        ActivationError: the table has no such neuron.
    """
    layer, index = parse_neuron(neuron) if isinstance(neuron, str) else neuron
    _, layers, width = table.values.shape
    if not (0 <= layer < layers and 0 <= index < width):
        raise ActivationError(
            f"The table has no neuron {neuron_name(layer, index)}; expected one from L0N0 to "
            f"{neuron_name(layers - 1, width - 1)}."
        )
    found = table.prompts[_COLUMNS].assign(
        neuron=neuron_name(layer, index),
        activation=table.values[:, layer, index].double().numpy(),
    )
    if recall is not None:
        known = recall.drop_duplicates("prompt_id").set_index("prompt_id")["known"]
        found["known"] = found["prompt_id"].map(known.astype("boolean"))
    return found.reset_index(drop=True)


@dataclass(frozen=True)
class ActivationTable:
    """Pooled activations with the prompts they belong to."""

    values: Float[Tensor, "prompt layer d_mlp"]
    """float32, whatever the model's dtype (pitfall 4)."""
    prompts: pd.DataFrame
    """The frame of `Prompts`, aligned with the first axis."""
    mean: Float[Tensor, "layer d_mlp"]
    """Mean activation over the tokens of the detection facts' prompts, first position apart."""
    contribution: Float[Tensor, "layer d_mlp"]
    """Mean |activation| over the same tokens, times the norm of the neuron's output row."""
    first_contribution: Float[Tensor, "layer d_mlp"]
    """The same at the first attended position."""
    pool: str
    site: str
    active: Float[Tensor, "prompt layer d_mlp"] | None = None
    """Share of each prompt's pooled tokens (see `token_counts`) at which the activation function's
    output is above 0; None unless asked for."""
    token_counts: Int[Tensor, " prompt"] | None = None
    """Tokens that `active` is a share of: those that the mean is over, whatever the pooling."""

    def __repr__(self) -> str:
        prompts, layers, width = self.values.shape
        shape = f"{prompts} prompts, {layers} layers x {width}"
        return f"ActivationTable({shape}, pool={self.pool}, site={self.site})"

    def _repr_html_(self) -> str:
        """An activation table: whose prompts its rows are, and its loudest neurons, sinks first."""
        count, layers, width = self.values.shape
        frame, sinks = self.prompts, self.is_sink
        several = frame["language"].nunique() > 1
        asked = [
            (
                relation_label(relation, language, several=several),
                KIND_PHRASES.get(kind, kind),
                f"{len(part):,}",
                part["template"].nunique(),
            )
            for (relation, language, kind), part in frame.groupby(
                ["relation", "language", "kind"], sort=False
            )
        ]
        louder = (self.contribution + sinks * self.first_contribution).flatten()
        places = louder.topk(min(ROWS, len(louder))).indices.tolist()
        loud = [
            (
                neuron_name(place // width, place % width),
                f"{self.contribution.flatten()[place]:.3g}",
                f"{self.first_contribution.flatten()[place]:.3g}",
                "sink" if sinks.flatten()[place] else "",
            )
            for place in places
        ]
        note = (
            f"One value per prompt and neuron at {self.site}, pooled by {self.pool.replace('_', ' ')}. "
            "Below, the loudest neurons: mean |activation| times the norm of what they write."
        )
        title = f"Activations of {count:,} prompts, {layers} layers of {width:,} neurons"
        return table_view(
            title,
            note,
            (("Relation", "Prompts", "Count", "Templates"), asked),
            (("Neuron", "Elsewhere", "At the first position", "Flag"), loud),
        )

    @property
    def is_sink(self) -> Bool[Tensor, "layer d_mlp"]:
        """Neurons that write the attention sink at the first position."""
        return self.first_contribution > SINK_RATIO * self.contribution.max()

    def take(self, keep: np.ndarray | pd.Series) -> ActivationTable:
        """Returns some of the prompts; the neurons' typical values stay as they are."""
        rows = np.flatnonzero(np.asarray(keep))
        return replace(
            self,
            values=self.values[rows],
            prompts=self.prompts.iloc[rows].reset_index(drop=True),
            active=None if self.active is None else self.active[rows],
            token_counts=None if self.token_counts is None else self.token_counts[rows],
        )
