"""Random neurons to compare a ranked set with: drawn afresh for each dose, and how much draws can differ.

Each ranked neuron has, in each draw, an order of its own of the neurons that may stand for it: the `NEAREST`
of its layer whose contribution is nearest, shuffled, then the rest of the layer by distance. In the order of
rank, each takes the first that is neither ranked at this dose nor taken. So the control of a dose does not
depend on the other doses of a sweep, is disjoint from the ranked set, and is nearly the same at doses nearby.

    draw overlap    o = mean over pairs of draws of (neurons in both / neurons of one)
    effective draws = n / (1 + (n - 1) o)

Where a set takes much of a layer, its draws have few neurons left to choose from: they resemble one another,
and their spread says little about random sets. `control_spread` reports how far.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from relation_neurons.errors import DoseError, UnknownOptionError, near_matches

__all__ = [
    "CONTROL_KINDS",
    "NEAREST",
    "draw_control",
    "draw_overlap",
    "effective_draws",
    "largest_matched",
]

CONTROL_KINDS = ("control_contribution", "control_layer")

NEAREST = 40
"""Neurons of the layer among which a match is drawn. With 10, two draws share a tenth of their neurons; with
40, a thirtieth."""


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

    Args:
        ranked: layer and neuron of a ranked set, best first. The draw depends on no other set.
        neurons: every neuron with its contribution, in (layer, neuron) order.
        kind: one of `CONTROL_KINDS`: `control_contribution` matches layer and contribution, `control_layer`
            the layer alone.
        draw: number of the draw.
        seed: of the run.
        label: what the control is for (contrast, relation, language); part of the seed.

    Returns:
        layer and neuron, a row per ranked neuron in the same order.

    Raises:
        DoseError: a layer with more than half of its neurons ranked, which leaves no disjoint match.
    """
    if kind not in CONTROL_KINDS:
        raise UnknownOptionError(f"No control {kind!r}. {near_matches(kind, CONTROL_KINDS)}")
    width = int(neurons["neuron"].max()) + 1
    loudness = np.log(neurons["contribution"].to_numpy(dtype=np.float64) + 1e-12).reshape(-1, width)
    by_loudness = {
        layer: np.argsort(loudness[layer], kind="stable") for layer in set(ranked["layer"])
    }
    words = [seed, draw, zlib.crc32(f"{kind}/{label}".encode())]
    targets = ranked["layer"].to_numpy() * width + ranked["neuron"].to_numpy()
    taken = np.zeros(loudness.size, dtype=bool)
    taken[targets] = True
    drawn = np.empty(len(targets), dtype=np.int64)
    for i, target in enumerate(targets):
        layer, own = divmod(int(target), width)
        rng = np.random.default_rng([*words, int(target)])
        free = ~taken[layer * width : (layer + 1) * width]
        if not free.any():
            share = float((targets // width == layer).sum() / width)
            raise DoseError(
                f"Layer {layer} has no neuron left for a control: {share:.0%} of it is ranked "
                "at this dose. Expected at most half; give a smaller dose, or control_draws=0."
            )
        first = NEAREST if kind == "control_contribution" else width - 1
        near = _nearest(loudness[layer], by_loudness[layer], own, first)
        order = near[rng.permutation(len(near))]
        if not free[order].any():
            order = _nearest(loudness[layer], by_loudness[layer], own, width - 1)[len(near) :]
        drawn[i] = layer * width + order[free[order].argmax()]
        taken[drawn[i]] = True
    return pd.DataFrame({"layer": drawn // width, "neuron": drawn % width})


def _nearest(
    loudness: Float[np.ndarray, " neuron"], by_loudness: np.ndarray, own: int, count: int
) -> np.ndarray:
    """Returns the neurons of a layer that are nearest to one of them in loudness, the nearest first."""
    ordered = loudness[by_loudness]
    first = int(np.searchsorted(ordered, loudness[own]))
    last = int(np.searchsorted(ordered, loudness[own], side="right"))
    window = by_loudness[max(0, first - count) : last + count]
    window = window[window != own]
    distance = np.abs(loudness[window] - loudness[own])
    return window[np.lexsort((window, distance))][:count]


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


def draw_overlap(draws: Sequence[pd.DataFrame]) -> float:
    """Returns the mean share of neurons that two draws of a control have in common; NaN with one draw.

    >>> one = pd.DataFrame({"layer": [0, 0], "neuron": [1, 2]})
    >>> draw_overlap([one, one.assign(neuron=[2, 3])])
    0.5
    """
    if len(draws) < 2:
        return float("nan")
    every = pd.concat([draw[["layer", "neuron"]] for draw in draws])
    times = every.value_counts().to_numpy(dtype=np.float64)
    pairs = len(draws) * (len(draws) - 1) / 2
    return float((times * (times - 1) / 2).sum() / pairs / len(draws[0]))


def effective_draws(draws: int, overlap: float) -> float:
    """Returns how many draws without a neuron in common would say as much about the mean of random sets.

        n / (1 + (n - 1) o)

    >>> effective_draws(10, 0.0), round(effective_draws(10, 0.5), 2)
    (10.0, 1.82)
    """
    return draws / (1 + (draws - 1) * overlap) if draws > 1 else float(draws)
