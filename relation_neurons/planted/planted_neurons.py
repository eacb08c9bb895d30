"""The planted model's neurons: where each lies and what it is (the roles: see `planted`)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from relation_neurons.planted.facts import NOUNS

__all__ = ["LAYERS", "place_neurons"]

LAYERS = 3
"""Sinks lie in the first; relation, shared and interfering neurons in the others."""
_SPARE = 2.5
"""Neurons for each one with a role; the rest are noise."""


def place_neurons(facts: pd.DataFrame, neurons: int, distractors: bool, seed: int) -> pd.DataFrame:
    """Draws where every neuron lies and what it is.

    Returns:
        layer, neuron, role, relation, other; in (layer, neuron) order, every neuron of the model.
    """
    names = list(dict.fromkeys(facts["relation"]))
    wanted: list[tuple[str, str, str]] = []
    wanted += [("relation", name, "") for name in names for _ in range(neurons)]
    wanted += [
        ("shared", first, second)
        for first, second in zip(names[::2], names[1::2], strict=False)
        for _ in range(neurons // 2)
    ]
    wanted += [("interfering", names[0], names[-1])] * max(4, neurons // 2)
    late = len(wanted)
    if distractors:
        wanted += [
            ("template", name, word)
            for name in names
            for word in NOUNS[name]
            for _ in range(neurons)
        ]
        wanted += [("entity", "", subject) for subject in dict.fromkeys(facts["subject"])]
        wanted += [(role, "", "") for role in ("question", "loud", "sink") for _ in range(neurons)]
    width = 32 * max(4, int(np.ceil(len(wanted) * _SPARE / LAYERS / 32)))
    rng = np.random.default_rng([seed, 0x706C616E])
    free = rng.permutation(LAYERS * width).tolist()
    placed = [("noise", "", "")] * (LAYERS * width)
    for number, what in enumerate(wanted):
        layers = (1, 2) if number < late else (0,) if what[0] == "sink" else range(LAYERS)
        place = next(i for i, slot in enumerate(free) if slot // width in layers)
        placed[free.pop(place)] = what
    role, relation, other = zip(*placed, strict=True)
    return pd.DataFrame(
        {
            "layer": np.repeat(np.arange(LAYERS), width),
            "neuron": np.tile(np.arange(width), LAYERS),
            "role": role,
            "relation": relation,
            "other": other,
        }
    )
