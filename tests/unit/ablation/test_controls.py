"""Random controls: matched to the ranked set, disjoint from it, nested and seeded."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import relation_neurons as rn
from relation_neurons.errors import DoseError, UnknownOptionError


def all_neurons(layers=4, width=60, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "layer": np.repeat(np.arange(layers), width),
            "neuron": np.tile(np.arange(width), layers),
            "mean": 0.0,
            "contribution": np.exp(rng.normal(size=layers * width) * 1.5),
            "is_sink": False,
        }
    )


def loud(neurons, count=24):
    return (
        neurons.sort_values("contribution", ascending=False)
        .iloc[4 : 4 + count]
        .reset_index(drop=True)
    )


@pytest.mark.parametrize("kind", ["control_contribution", "control_layer"])
def test_controls_are_disjoint_matched_by_layer_nested_and_seeded(kind):
    neurons = all_neurons()
    ranked = loud(neurons)
    control = rn.draw_control(ranked, neurons, kind=kind, seed=5)
    assert control["layer"].tolist() == ranked["layer"].tolist()
    pairs = list(control.itertuples(index=False, name=None))
    assert len(set(pairs)) == len(pairs)
    assert not set(pairs) & set(zip(ranked["layer"], ranked["neuron"], strict=True))
    pd.testing.assert_frame_equal(control, rn.draw_control(ranked, neurons, kind=kind, seed=5))
    for other in ({"seed": 6}, {"seed": 5, "draw": 1}, {"seed": 5, "label": "x"}):
        assert not control.equals(rn.draw_control(ranked, neurons, kind=kind, **other))


def test_pitfall_22_only_the_contribution_control_is_as_loud_as_the_ranked_set():
    neurons = all_neurons(width=200)
    ranked = loud(neurons, 160).iloc[::4].reset_index(drop=True)  # one in four of the loud ones
    loudness = neurons.set_index(["layer", "neuron"])["contribution"]

    def mean(rows):
        return np.exp(
            np.log(loudness.loc[list(zip(rows["layer"], rows["neuron"], strict=True))]).mean()
        )

    matched = mean(rn.draw_control(ranked, neurons, kind="control_contribution"))
    quiet = mean(rn.draw_control(ranked, neurons, kind="control_layer"))
    assert 0.7 * mean(ranked) < matched < 1.4 * mean(ranked)
    assert quiet < 0.3 * mean(ranked)


def test_a_layer_ranked_more_than_half_leaves_no_control():
    neurons = all_neurons(layers=1, width=20)
    with pytest.raises(DoseError, match="55% of it is ranked"):
        rn.draw_control(neurons.head(11), neurons, kind="control_layer")
    with pytest.raises(UnknownOptionError, match="control_layer"):
        rn.draw_control(neurons.head(2), neurons, kind="layer")
