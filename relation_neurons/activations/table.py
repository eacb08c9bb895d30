"""One neuron's pooled activation on every prompt, as a tidy table for a histogram or a spreadsheet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from relation_neurons.errors import ActivationError
from relation_neurons.neurons import neuron_name, parse_neuron

if TYPE_CHECKING:
    from relation_neurons.activations.collect import ActivationTable

__all__ = ["neuron_activations"]

_COLUMNS = ["prompt_id", "kind", "relation", "language", "subject", "text"]


def neuron_activations(
    table: ActivationTable, neuron: str | tuple[int, int], recall: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Reads one neuron out of an activation table.

    Args:
        table: what `collect_activations` gives.
        neuron: its name, such as `L16N302`, or (layer, index).
        recall: what `measure_recall` gives; adds the column known (missing for prompts not asked).

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
