"""A worker, in this process: jobs come back the same through plain data; who does not fit takes no part."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

import relation_neurons as rn
from relation_neurons.ablation.prompt_job import PromptJob
from relation_neurons.ablation.sets import AblatedSets, plan_sweep
from relation_neurons.ablation.text_job import TextJob
from relation_neurons.backends.neuron_sites import weight_hash
from relation_neurons.engines.worker import Worker, job_message
from relation_neurons.models.provenance import loaded_from
from relation_neurons.storage.chunks import unpacked
from relation_neurons.version import package_versions


def expected(model, **changed):
    return {"weight_hash": weight_hash(model), "versions": package_versions(), **changed}


def job(kind, prompts, ranking, mode="zero", value=None):
    conditions = plan_sweep(ranking, (4, 12), control_draws=1)
    sets = AblatedSets.of(conditions, ranking, mode=mode, value=value, positions="no_first")
    if kind == "reading":
        return TextJob(sets, ("The cat sat on the mat.", "It rained."), 8)
    return PromptJob(sets, prompts.held_out.take(prompts.held_out.frame["kind"] == "fact"), 64)


@pytest.fixture(scope="module")
def worker(model, tiny_folder):
    return Worker(str(tiny_folder), "float32", "cpu", 1, expected(model))


@pytest.mark.parametrize("mode", ["zero", "mean", "scale"])
@pytest.mark.parametrize("kind", ["asking", "reading"])
def test_a_job_that_was_sent_is_the_same_job(model, worker, prompts, ranking, kind, mode):
    one = job(kind, prompts, ranking, mode, 0.5 if mode == "scale" else None)
    message = job_message(one)
    assert type(one).from_message(message).keys() == one.keys()
    parts = {name: part for name, part in message.items() if not isinstance(part, bytes)}
    assert json.loads(json.dumps(parts)) == parts  # nothing but text, numbers and bytes is sent
    make = one.begin(model)
    for place in (0, len(one.keys()) - 1):
        sent = unpacked(worker.make(f"{kind} {mode}", message, place)["table"])
        pd.testing.assert_frame_equal(sent, make(place), check_exact=True)


def test_a_worker_turns_from_one_job_to_another(model, worker, prompts, ranking):
    jobs = {kind: job(kind, prompts, ranking) for kind in ("asking", "reading")}
    for kind in ("asking", "reading", "asking"):
        made = unpacked(worker.make(kind, job_message(jobs[kind]), 1)["table"])
        pd.testing.assert_frame_equal(made, jobs[kind].begin(model)(1), check_exact=True)


def test_other_weights_and_other_versions_take_no_part(model, tiny_folder):
    for changed, match in (
        ({"weight_hash": "f" * 64}, "the weights of .* differ"),
        ({"versions": {**package_versions(), "torch": "1.0"}}, "torch is .* here and 1.0"),
    ):
        worker = Worker(str(tiny_folder), "float32", "cpu", 1, expected(model, **changed))
        for answer in (worker.load(), worker.make("job", {}, 0)):
            assert answer["error"] == "EngineError" and answer["loading"]
            assert pd.Series(answer["message"]).str.contains(match).all()


def test_versions_are_compared_before_weights_are_read():
    """With another TransformerLens weights have other names, so their hash says nothing."""
    other = {"weight_hash": "f" * 64, "versions": {**package_versions(), "torch": "1.0"}}
    answer = Worker("no/such/folder", "float32", "cpu", 1, other).load()
    assert "torch is" in answer["message"] and "here and 1.0" in answer["message"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA error: out of memory")])
def test_memory_that_runs_out_is_sent_back_as_that(monkeypatch, error):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr("relation_neurons.engines.worker.load_model", fail)
    same = {"weight_hash": "f" * 64, "versions": package_versions()}
    answer = Worker("any", "float32", "cpu", 1, same).load()
    assert answer["error"] == "OutOfMemoryError" and answer["loading"]


def test_what_goes_wrong_is_sent_back_as_text(model, worker, tiny_folder, tmp_path):
    broken = shutil.copytree(tiny_folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"nothing")
    answer = Worker(str(broken), "float32", "cpu", 1, expected(model)).load()
    assert (
        answer["error"] == "ModelLoadError" and answer["loading"] and "Traceback" in answer["trace"]
    )
    answer = worker.make("no job", {"kind": "Cooking"}, 0)
    assert answer["error"] == "KeyError" and "loading" not in answer


def test_where_a_model_was_loaded_from_is_known(model, tiny_folder, monkeypatch):
    assert loaded_from(model) == str(tiny_folder.resolve())
    monkeypatch.chdir(tiny_folder.parent)
    assert loaded_from(rn.load_model(tiny_folder.name)) == str(tiny_folder.resolve())
    assert loaded_from(rn.load_model(model)) == str(tiny_folder.resolve())
    assert loaded_from(rn.planted_model(relations=2, subjects=20).model) is None
