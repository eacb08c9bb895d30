"""Names of neurons, as they are printed: the layer, then the index in it."""

from __future__ import annotations

import re

from relation_neurons.errors import AblationError

__all__ = ["neuron_name", "parse_neuron"]


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
