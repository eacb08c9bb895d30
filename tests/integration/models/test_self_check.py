"""The self-check catches what it is for; each fault is put into a model that passes."""

from __future__ import annotations

import pytest
import torch

import relation_neurons as rn
from helpers import tiny_families
from relation_neurons.backends.installed import BACKEND
from relation_neurons.backends.neuron_sites import SITES
from relation_neurons.errors import ModelLoadError
from relation_neurons.models.self_check import (
    _padded,
    _require_received,
    _tolerance,
    record_reference,
    self_check,
)

pytestmark = pytest.mark.backends

POST = "blocks.{}.mlp.hook_post"


@pytest.fixture
def hf_model():
    return tiny_families.family("Llama", 300)


@pytest.fixture
def sound(hf_model):
    return rn.load_model(hf_model, device="cpu")


def test_a_sound_model_passes_and_keeps_no_hook(sound):
    self_check(sound)
    points = BACKEND.hook_points(sound).values()
    assert not any(point._forward_hooks for point in points)


def test_a_shifted_hook(sound, monkeypatch):
    """hook_post of a layer is really the next layer's."""
    points = dict(BACKEND.hook_points(sound))
    points[POST.format(0)], points[POST.format(1)] = points[POST.format(1)], points[POST.format(0)]
    monkeypatch.setattr(type(BACKEND), "hook_points", lambda self, model: points)
    with pytest.raises(ModelLoadError, match="layer 0 is not what the down projection receives"):
        self_check(sound)


def test_values_shifted_by_one_position(sound):
    """What looks at the hook sees the token before."""
    point = BACKEND.hook_points(sound)[POST.format(1)]
    real = point.register_forward_hook
    point.register_forward_hook = lambda hook: real(
        lambda m, i, value: hook(m, i, value.roll(1, 1))
    )
    with pytest.raises(ModelLoadError, match="layer 1 is not what the down projection receives"):
        self_check(sound)


def test_a_wrong_site(sound, monkeypatch):
    """The values before the gate's product, which have the same shape."""
    monkeypatch.setitem(SITES, "post", SITES["up"])
    with pytest.raises(ModelLoadError, match="layer 0 is not what the down projection receives"):
        self_check(sound)


def test_a_site_of_another_width(sound, monkeypatch):
    monkeypatch.setitem(SITES, "post", SITES["out"])
    with pytest.raises(ModelLoadError, match=r"\[\[2, 6, 48\]\]; expected once, with \[2, 6, 96\]"):
        self_check(sound)


def test_a_hook_that_does_nothing(sound):
    """It shows the right values, and what is returned from it goes nowhere."""
    point = BACKEND.hook_points(sound)[POST.format(2)]
    real = point.register_forward_hook

    point.register_forward_hook = lambda hook: real(
        lambda module, inputs, value: (hook(module, inputs, value), None)[1]
    )
    with pytest.raises(ModelLoadError, match="layer 2 does nothing"):
        self_check(sound)


def test_a_hook_that_never_fires_and_one_that_is_not_there(sound, monkeypatch):
    points = dict(BACKEND.hook_points(sound))
    points[POST.format(1)] = type(points[POST.format(1)])()
    monkeypatch.setattr(type(BACKEND), "hook_points", lambda self, model: points)
    with pytest.raises(ModelLoadError, match="layer 1 fired with nothing"):
        self_check(sound)
    del points[POST.format(1)]
    with pytest.raises(ModelLoadError, match="layer 1 is not there"):
        self_check(sound)


def test_logits_that_are_not_hugging_faces(sound, hf_model):
    """One weight changed after loading, and one that only the final norm has."""
    evidence = record_reference(hf_model)
    self_check(sound, evidence)
    other = tiny_families.family("Llama", 300)
    with torch.no_grad():
        other.model.norm.weight.mul_(1.5)
    with pytest.raises(ModelLoadError, match="logits of a row differ"):
        self_check(sound, record_reference(other))
    other = tiny_families.family("Llama", 300, seed=1)
    with pytest.raises(ModelLoadError, match="Hugging Face's own down projection"):
        self_check(sound, record_reference(other))


def test_a_world_that_pads_wrongly(hf_model, monkeypatch):
    """The mask is ignored, as in batches of the bridge before 4.3."""
    real = type(BACKEND).residual
    monkeypatch.setattr(
        type(BACKEND),
        "residual",
        lambda self, model, tokens, mask: real(self, model, tokens, torch.ones_like(mask)),
    )
    with pytest.raises(ModelLoadError, match="Hugging Face"):
        rn.load_model(hf_model, device="cpu")


def test_half_precision_passes(hf_model):
    assert rn.load_model(hf_model, dtype="bfloat16", device="cpu").cfg.dtype == torch.bfloat16


def test_a_fault_beside_a_position_that_dwarfs_the_others(sound):
    """As the first position does in SmolLM2: ten thousand times as large, and the fault is at another."""
    _, mask = _padded(300, torch.device("cpu"))
    post = torch.randn(*mask.shape, 96, generator=torch.Generator().manual_seed(0))
    post[:, 0] *= 1e4
    down = BACKEND.down_projection(sound, 1)
    output = post @ down.weight
    output = output if down.bias is None else output + down.bias
    _require_received(sound, 1, post, output, _tolerance(torch.bfloat16))
    shifted = post.clone()
    shifted[:, 1:] = shifted[:, 1:].roll(1, 2)
    with pytest.raises(ModelLoadError, match="layer 1 is not what the down projection receives"):
        _require_received(sound, 1, shifted, output, _tolerance(torch.bfloat16))
