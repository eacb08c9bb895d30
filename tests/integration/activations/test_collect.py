"""Pooled activations against run_with_cache, and what may never enter a pool."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import relation_neurons as rn
from relation_neurons.activations.pooling import POOLS, pool
from relation_neurons.errors import ActivationError, HookError, UnknownOptionError


def pooled_by_hand(values, how):
    """The four poolings, written out for one prompt without padding."""
    return {
        "mean": values[1:].mean(0),
        "last": values[-1],
        "max": values[1:].amax(0),
        "include_first": values.mean(0),
    }[how]


@pytest.mark.parametrize("how", POOLS)
@pytest.mark.parametrize("site", ["post", "gate", "up", "out"])
def test_pooling_in_the_hook_equals_pooling_what_run_with_cache_returns(model, prompts, how, site):
    some = prompts.detection.take(np.arange(len(prompts.detection)) % 9 == 0)
    table = rn.collect_activations(model, some, pool=how, site=site, batch_size=5)
    names = {
        "post": "mlp.hook_post",
        "gate": "mlp.hook_pre",
        "up": "mlp.hook_pre_linear",
        "out": "hook_mlp_out",
    }
    for row in range(len(some)):
        tokens = torch.tensor([some.tokens[row]])
        with torch.inference_mode():
            _, cache = model.run_with_cache(tokens, attention_mask=torch.ones_like(tokens))
        for layer in range(model.cfg.n_layers):
            expected = pooled_by_hand(cache[f"blocks.{layer}.{names[site]}"][0], how)
            torch.testing.assert_close(table.values[row, layer], expected, atol=1e-5, rtol=1e-4)


def test_pitfall_1_padding_never_enters_the_pool():
    values = torch.randn(2, 6, 4)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, :3] = False
    for how in POOLS:
        before = pool(values, mask, how)
        loud = values.clone()
        loud[1, :3] = 1e6
        assert torch.equal(before, pool(loud, mask, how))


def test_pitfall_3_the_first_attended_position_is_left_out_unless_asked_for():
    values = torch.zeros(1, 4, 2)
    values[0, 1] = 300.0  # the sink, behind one pad
    mask = torch.tensor([[False, True, True, True]])
    assert pool(values, mask, "mean").abs().max() == 0
    assert pool(values, mask, "max").abs().max() == 0
    assert pool(values, mask, "include_first").max() == 100.0
    values[0, 1] = torch.inf  # in half precision a sink may overflow where nothing is pooled
    assert pool(values, mask, "mean").abs().max() == 0


def test_pooling_one_token_or_with_an_unknown_name_is_an_error():
    with pytest.raises(ActivationError, match="one token"):
        pool(torch.ones(1, 1, 2), torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(UnknownOptionError, match="include_first"):
        pool(torch.ones(1, 2, 2), torch.ones(1, 2, dtype=torch.bool), "include")


def test_pitfall_18_a_hook_that_does_not_fire_is_an_error(model, prompts, monkeypatch):
    monkeypatch.setattr(
        "relation_neurons.activations.collect.site_hook",
        lambda m, s, layer: f"blocks.{min(layer, 0)}.mlp.hook_post",
    )
    monkeypatch.setattr("relation_neurons.activations.collect.Collector.hook", lambda *a, **k: None)
    with pytest.raises(HookError, match="did not fire"):
        rn.collect_activations(model, prompts.detection)


def test_pitfall_4_a_neuron_with_nan_is_named(model, prompts):
    weight = model.blocks[1].mlp.W_in
    before = weight[0, 17].item()
    weight[0, 17] = float("nan")
    try:
        with pytest.raises(ActivationError, match="L1N17"):
            rn.collect_activations(model, prompts.detection)
    finally:
        weight[0, 17] = before


def test_half_precision_is_scored_in_float32(tiny_folder, prompts):
    half = rn.load_model(tiny_folder, dtype="bfloat16", device="cpu")
    table = rn.collect_activations(half, prompts.detection)
    assert table.values.dtype == table.contribution.dtype == torch.float32
