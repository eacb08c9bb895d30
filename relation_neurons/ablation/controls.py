"""Controls: random neurons matched to a ranked set.

Ranked neurons are up to 13 times louder than their layer, and loud random neurons cost five times
as much as quiet ones; so a control is matched on layer *and* contribution by default
(method 9; pitfall 22).
"""

from __future__ import annotations

import zlib

import numpy as np
import pandas as pd

from relation_neurons.errors import DoseError, UnknownOptionError, near_matches

__all__ = ["CONTROL_KINDS", "draw_control", "largest_matched"]

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
        label: what the control is for (relation, score, language); goes into the seed.

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
