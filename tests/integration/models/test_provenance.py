"""A model that is not what its name or path gives: seen early, and sent to no worker."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

import relation_neurons as rn
from relation_neurons.engines.ray_engine import _off_the_gpu
from relation_neurons.errors import EngineError, ModelLoadError, OutOfMemoryError
from relation_neurons.inference.out_of_memory import explain_out_of_memory
from relation_neurons.models.provenance import change_since_loaded, fingerprints, loaded_from


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return rn.planted_model(tmp_path_factory.mktemp("planted"), relations=2, subjects=20)


@contextlib.contextmanager
def edited(model):
    """One number of one weight is another for a while, past autograd's own count of changes."""
    name, weight = list(model.named_parameters())[-1]
    before = weight.data.flatten()[7].clone()
    weight.data.view(-1)[7] += 1
    try:
        yield name
    finally:
        weight.data.view(-1)[7] = before


def test_the_engine_takes_a_model_as_it_was_loaded_also_after_an_ablation(planted):
    engine = rn.RayEngine(workers=1)
    with rn.ablated(planted.model, ["L0N1"]):
        pass
    engine.check(planted.model)
    engine.check(rn.load_model(planted.model))


def test_a_model_that_was_changed_in_place_is_refused_before_anything_starts(planted, as_a_user):
    engine = rn.RayEngine(workers=1)
    with edited(planted.model) as name:
        assert change_since_loaded(planted.model) == name
        for model in (planted.model, rn.load_model(planted.model)):  # taken anew, it stays changed
            with pytest.raises(EngineError, match=rf"{name} is not what was loaded.*load it again"):
                engine.check(model)
        with pytest.raises(EngineError, match="is not what was loaded"):
            list(engine.work(planted.model, None, [0]))
    engine.check(planted.model)
    assert loaded_from(planted.model) == str(planted.folder)


def _permanent(model):
    model.add_hook("blocks.0.mlp.hook_post", lambda value, hook: value, is_permanent=True)
    return lambda: model.reset_hooks(including_permanent=True)


def _plain(model):
    module = model.blocks[0]
    return module.register_forward_hook(lambda *_: None).remove


def _ablation(model):
    context = rn.ablated(model, ["L0N1"])
    context.__enter__()
    return lambda: context.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("hang", "where"),
    [(_permanent, r"blocks\.0\.mlp\.hook_post"), (_plain, r"\w+"), (_ablation, "forward")],
)
def test_a_model_that_something_is_hooked_to_is_refused(planted, hang, where):
    engine = rn.RayEngine(workers=1)
    take_away = hang(planted.model)
    try:
        with pytest.raises(EngineError, match=rf"hooked to the model \({where}\).*Remove it"):
            engine.check(planted.model)
    finally:
        take_away()
    engine.check(planted.model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_fingerprint_changes_with_a_number_and_with_the_order_of_rows_only(as_a_user, dtype):
    layer = torch.nn.Linear(70, 50).to(dtype).requires_grad_(False)
    before = fingerprints(layer)
    across = torch.nn.Linear(70, 50).to(dtype).requires_grad_(False)
    across.weight = torch.nn.Parameter(layer.weight.T.contiguous().T)  # laid out the other way
    across.bias = torch.nn.Parameter(layer.bias.clone())
    assert fingerprints(across) == before and len(before) == 2
    layer.weight[[3, 4]] = layer.weight[[4, 3]]
    assert {n for n, v in fingerprints(layer).items() if v != before[n]} == {"weight"}
    layer.weight[[3, 4]] = layer.weight[[4, 3]]
    layer.bias[-1] = torch.nextafter(layer.bias[-1].float(), torch.tensor(9.0)) + 0.1
    assert {n for n, v in fingerprints(layer).items() if v != before[n]} == {"bias"}


class Weight:
    """A stand-in for a tensor that is somewhere."""

    def __init__(self, device):
        self.device = device

    @property
    def data(self):
        return self

    @data.setter
    def data(self, other):
        self.device = other.device

    def to(self, device):
        return Weight(device)


def test_what_lay_on_several_devices_comes_back_to_each(as_a_user):
    weights = [Weight("cuda:0"), Weight("cuda:1"), Weight("cuda:2")]
    module = SimpleNamespace(
        parameters=lambda recurse: weights[:2], buffers=lambda recurse: weights[2:]
    )
    model = SimpleNamespace(cfg=SimpleNamespace(device="cuda:0"), modules=lambda: [module])
    with pytest.raises(KeyError), _off_the_gpu(model):
        assert {weight.device for weight in weights} == {"cpu"}
        raise KeyError
    assert [weight.device for weight in weights] == ["cuda:0", "cuda:1", "cuda:2"]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_memory_that_runs_out_while_a_model_is_loaded_is_said_as_that(planted, monkeypatch, error):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(OutOfMemoryError, match="does not fit into memory while it is loaded"):
        rn.load_model(planted.folder, device="cpu")


def test_other_failures_to_load_stay_what_they_are():
    with pytest.raises(ModelLoadError, match="cut off"), explain_out_of_memory("m"):
        raise ModelLoadError("cut off") from ValueError("short")
    with pytest.raises(OutOfMemoryError, match=r"^one prompt$"), explain_out_of_memory("m"):
        raise OutOfMemoryError("one prompt") from MemoryError()
