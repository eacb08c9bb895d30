"""Memory: a batch that does not fit is halved, and outcomes do not depend on it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import relation_neurons as rn
from relation_neurons.ablation.collateral import collateral_damage
from relation_neurons.ablation.text_job import _Part
from relation_neurons.activations.attribution import collect_attribution
from relation_neurons.backends.installed import BACKEND
from relation_neurons.errors import OutOfMemoryError, UnknownOptionError
from relation_neurons.inference.batches import make_batches
from relation_neurons.inference.forward import _ablations, attach
from relation_neurons.inference.logits import IntactPredictions
from relation_neurons.inference.out_of_memory import is_out_of_memory, run_halving
from relation_neurons.inference.prefix_trees import make_tree_batches
from relation_neurons.inference.recall import answer_prompts, plan_passes
from relation_neurons.models.devices import count_devices, place_model
from relation_neurons.ranking.stability import ranking_stability
from relation_neurons.storage import memmap as mapping
from relation_neurons.storage.memmap import mapped_table, parse_size, room_for_table

TEXT = [
    "The capital of Aldor is Paris.",
    "We name the food, which is warm bread.",
    "Brenin is red.",
]
pytestmark = pytest.mark.filterwarnings("ignore:A batch of:RuntimeWarning")


@contextlib.contextmanager
def room_for(model, tokens, *, only_ablated=False, error=torch.OutOfMemoryError):
    """Fails in the first layer of every pass of more tokens, as a device would that is too small."""
    failed: list[int] = []

    def act(value, _name):
        size = value.shape[0] * value.shape[1]
        if size > tokens and not (only_ablated and not _ablations(model)):
            failed.append(size)
            raise error("out of memory, says the test")

    handle = attach(model, "blocks.0.mlp.hook_post", act)
    try:
        yield failed
    finally:
        handle.remove()


@contextlib.contextmanager
def padded_rows(model):
    """Somebody else's hook, because of which no batch is a prefix tree."""
    handle = model.hook_dict["blocks.0.hook_resid_pre"].register_forward_hook(lambda *a: None)
    try:
        yield
    finally:
        handle.remove()


def _same(one, other):
    """What the design calls equal between batches."""
    np.testing.assert_allclose(one.logprob, other.logprob, atol=1e-4, rtol=0)
    sure = np.abs(one.margin) > 1e-3
    assert (one.correct == other.correct)[sure].all()
    right = sure & one.correct  # between wrong answers rounding may choose, which no margin shows
    said = [np.array(outcomes.predicted)[right].tolist() for outcomes in (one, other)]
    assert said[0] == said[1] and right.any()


@pytest.mark.parametrize("batched", [contextlib.nullcontext, padded_rows])
def test_batches_that_do_not_fit_are_halved_and_outcomes_stay(model, prompts, batched):
    asked = prompts.take(prompts.frame["kind"] == "fact")
    plan = plan_passes(asked)
    with batched(model) if batched is padded_rows else batched():
        whole = answer_prompts(model, plan)
        batches = plan.batches(model, 64)
        before = len(batches)
        with room_for(model, 120) as failed, pytest.warns(RuntimeWarning, match="batch_size of"):
            halved = answer_prompts(model, plan, batches=batches)
        assert failed and len(batches) > before
        assert max(batch.tokens.numel() for batch in batches) <= 120
        assert sorted(row for b in batches for row in b.rows) == list(range(len(plan.sequences)))
        _same(halved, whole)
        with room_for(model, 120) as failed:
            answer_prompts(model, plan, batches=batches)
        assert not failed  # whoever goes on with the same batches does not fail again


def test_activations_that_do_not_fit_at_once_are_the_same(model, prompts, table):
    with room_for(model, 200) as failed:
        halved = rn.collect_activations(model, prompts.detection)
    assert failed
    for name in ("values", "mean", "contribution", "first_contribution"):
        torch.testing.assert_close(getattr(halved, name), getattr(table, name), atol=1e-5, rtol=0)


def test_attribution_that_does_not_fit_at_once_is_the_same(model, prompts):
    some = prompts.detection.take(np.arange(len(prompts.detection)) < 20)
    whole = collect_attribution(model, some)
    with room_for(model, 60) as failed:
        halved = collect_attribution(model, some)
    assert failed
    torch.testing.assert_close(halved, whole, atol=1e-5, rtol=0, equal_nan=True)


@pytest.mark.parametrize("only_ablated", [False, True])
def test_a_sweep_that_does_not_fit_at_once_is_the_same(
    model, prompts, ranking, effects, only_ablated
):
    """Also where only the ablated passes do not fit, whose streams were kept for whole batches."""
    with room_for(model, 200, only_ablated=only_ablated) as failed:
        halved = rn.ablation_sweep(
            model, prompts.held_out, ranking, (4, 12), control_draws=2, seed=0
        )
    assert failed
    assert len(failed) < 30  # once a batch, not once an ablated set
    for name in ("logprob", "logprob_intact"):
        np.testing.assert_allclose(halved[name], effects[name], atol=1e-4, rtol=0)
    sure = effects["margin"].abs() > 1e-3
    assert (halved["correct"] == effects["correct"])[sure].all()
    assert (effects["logprob"] - effects["logprob_intact"]).abs().max() > 0.01


def test_neutral_text_that_does_not_fit_at_once_gives_the_same(model, ranking):
    whole = collateral_damage(model, ranking, (20,), text=TEXT)
    with room_for(model, 12, only_ablated=True) as failed:
        halved = collateral_damage(model, ranking, (20,), text=TEXT)
    assert failed
    pd.testing.assert_frame_equal(whole, halved, check_exact=False, atol=1e-6, rtol=0)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_one_prompt_that_does_not_fit_is_an_error_that_says_what_would(model, prompts, error):
    with (
        room_for(model, 3, error=error),
        pytest.raises(OutOfMemoryError, match=r"One prompt of \d+ tokens.*What would fit: shorter"),
    ):
        rn.measure_recall(model, prompts)
    rn.measure_recall(model, prompts)  # nothing is left behind


def test_other_errors_are_not_taken_for_memory(model, prompts):
    with (
        room_for(model, 3, error=ValueError),
        pytest.raises(ValueError, match="says the test"),
    ):
        rn.measure_recall(model, prompts)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))


def _advice(model, batch):
    """What is said where a batch does not fit, by one that is run whole first and then in halves."""

    def run(one):
        if one is batch:
            raise torch.OutOfMemoryError("full")
        return one.tokens.numel()

    with pytest.warns(RuntimeWarning) as said:
        parts = [size for _, size in run_halving(model, [batch], run)]
    return str(said[0].message), max(parts)


@pytest.mark.parametrize("seed", range(5))
def test_the_batch_size_that_is_named_makes_no_batch_larger_than_the_halves_that_fitted(
    model, seed
):
    rng = np.random.default_rng(seed)
    sequences = [(7, *rng.integers(0, 4, rng.integers(3, 25)).tolist()) for _ in range(300)]
    batches = make_tree_batches(sequences, batch_size=40, pad_id=0)
    batch = max(batches, key=lambda one: one.tokens.numel())
    assert len(batch.tokens) > 1
    said, fitted = _advice(model, batch)
    assert f"{len(batch.rows)} sequences" in said
    named = int(re.search(r"batch_size of (\d+) or less", said)[1])
    assert named < 40
    anew = make_tree_batches(sequences, batch_size=named, pad_id=0)
    widest = max(one.tokens.shape[1] for one in anew)
    assert max(one.tokens.numel() for one in anew) <= max(fitted, widest)
    (padded,) = make_batches(sequences, batch_size=300, pad_id=0)
    assert "batch_size of 150 or less" in _advice(model, padded)[0]


def test_no_batch_size_is_named_where_none_would_help(model):
    (row,) = make_tree_batches([(1, 2, 3), (1, 2, 4)], batch_size=1, pad_id=0)
    assert len(row.tokens) == 1
    assert "no batch_size makes it smaller" in _advice(model, row)[0]


def test_a_text_that_does_not_fit_is_told_with_its_length(model):
    (batch,) = make_batches([[1, 2, 3, 4, 5]], batch_size=1, pad_id=0)

    def run(_part):
        raise MemoryError

    read = torch.zeros(4, model.cfg.d_model), torch.tensor([2, 3, 4, 5])
    part = _Part(batch, IntactPredictions.of(model, *read, keep=False))
    with pytest.raises(OutOfMemoryError, match="One prompt of 5 tokens"):
        list(run_halving(model, [part], run))


def test_what_is_kept_for_speed_goes_before_the_error(model):
    batches, there, seen = list(make_batches([[1, 2]], batch_size=1, pad_id=0)), [True], []

    def run(batch):
        seen.append(len(batch.rows))
        if there:
            raise torch.OutOfMemoryError("full")
        return "done"

    assert [found for _, found in run_halving(model, batches, run, there.pop)] == ["done"]
    assert seen == [1, 1]


@pytest.mark.parametrize("size", [1, 4, 100])
def test_halves_of_prefix_trees_hold_the_same_sequences(size):
    rng = np.random.default_rng(0)
    sequences = [(7, *rng.integers(0, 3, rng.integers(2, 12)).tolist()) for _ in range(40)]
    starts = [int(rng.integers(1, len(s))) for s in sequences]
    todo = list(make_tree_batches(sequences, starts, batch_size=size, pad_id=0))
    seen: dict[int, tuple[int, ...]] = {}
    while todo:
        batch = todo.pop()
        halves = batch.halves()
        if halves is not None:
            assert sum(len(half.rows) for half in halves) == len(batch.rows)
            todo += halves
            continue
        (row, columns), own = batch.at[0], int(batch.rows[0])
        seen[own] = tuple(batch.tokens[row, list(columns)].tolist())
        behind = [at >= starts[own] for at in range(len(columns))]
        assert batch.answering[row, list(columns)].tolist() == behind
    assert seen == dict(enumerate(sequences))


def test_activations_past_the_limit_lie_in_a_file_and_are_the_same(
    model, prompts, table, tmp_path, monkeypatch
):
    made, map_table = [], mapping.mapped_table
    monkeypatch.setattr(mapping, "mapped_table", lambda *a: made.append(a) or map_table(*a))
    given = {"memory": table.values.numel() * 4 - 1, "folder": tmp_path}
    mapped = rn.collect_activations(model, prompts.detection, **given)
    assert [path.parent for path, _ in made] == [tmp_path]
    assert not list(tmp_path.iterdir())  # it goes with the table, however the process ends
    for name in ("values", "mean", "contribution", "first_contribution"):
        assert getattr(mapped, name).numpy().tobytes() == getattr(table, name).numpy().tobytes()
    rn.collect_activations(model, prompts.detection, memory="1GB", folder=tmp_path)
    assert len(made) == 1


def test_rankings_and_stability_of_a_mapped_table_are_the_same(table, recall, ranking, tmp_path):
    values = room_for_table(tuple(table.values.shape), memory=1, folder=tmp_path)
    values[:] = table.values
    mapped = replace(table, values=values)
    pd.testing.assert_frame_equal(rn.rank_neurons(mapped, recall, min_known=5).frame, ranking.frame)
    given = {"dose": 10, "repeats": 1, "min_known": 5}
    pd.testing.assert_frame_equal(
        ranking_stability(mapped, recall, **given), ranking_stability(table, recall, **given)
    )


def test_the_mapped_file_is_safetensors(tmp_path):
    path = tmp_path / "activations.safetensors"
    values = mapped_table(path, (3, 2, 5))
    values[:] = torch.arange(30.0).reshape(3, 2, 5)
    del values
    torch.testing.assert_close(
        load_file(path)["activations"], torch.arange(30.0).reshape(3, 2, 5), atol=0, rtol=0
    )


@pytest.mark.parametrize("text", ["much", "-1GB", "0", ""])
def test_a_size_that_is_none_is_an_error(text):
    with pytest.raises(UnknownOptionError, match="memory is"):
        parse_size(text)


LIMITED = """
import resource, sys, warnings
import torch
import relation_neurons as rn
torch.set_num_threads(1)
from transformers import LlamaConfig, LlamaForCausalLM
source = rn.planted_model(relations=2, seed=0)
tokenizer = source.model.tokenizer
config = LlamaConfig(
    vocab_size=len(tokenizer), hidden_size=64, intermediate_size=16384, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=4, architectures=["LlamaForCausalLM"],
)
torch.manual_seed(0)
model = rn.load_model(LlamaForCausalLM(config).float().eval(), tokenizer=tokenizer)
prompts = rn.make_prompts(source.relations, tokenizer, held_out=0.4, nonsense=0, seed=0)
whole = rn.measure_recall(model, prompts, batch_size=2)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]), resource.RLIM_INFINITY))
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    again = rn.measure_recall(model, prompts, batch_size=1_000_000)
assert any("run in halves" in str(one.message) for one in said), [str(one.message) for one in said]
assert (again["logprob"] - whole["logprob"]).abs().max() < 1e-4
assert (again["known"] == whole["known"])[whole["margin"].abs() > 1e-3].all()
"""


def test_memory_that_really_runs_out_on_the_cpu_halves_the_batch():
    """The whole plan as one batch, whose widest layer takes 54 MB, where 24 MB are left."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(24 << 20)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("free", "expected"), [([30], 1), ([15], None), ([15, 15], 2), ([30, 1], 1), ([9, 9, 9], 3)]
)
def test_a_model_goes_on_as_few_devices_as_hold_it(monkeypatch, free, expected):
    """20 GB of weights in 20 layers; a fifth more is needed to run them."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (int(free[i] * 1e9), int(80e9)))
    needed, cuda = int(20e9), torch.device("cuda")
    if expected is None:
        with pytest.raises(OutOfMemoryError, match=r"take 20\.0 GB and 24\.0 GB are needed.*15\.0"):
            count_devices(needed, cuda, None, 20)
        return
    assert count_devices(needed, cuda, None, 20) == expected
    assert count_devices(needed, cuda, 1, 20) == 1  # a choice stands
    with pytest.raises(UnknownOptionError, match="n_devices is 9"):
        count_devices(needed, cuda, 9, 20)


def test_blocks_are_spread_in_equal_shares_in_their_order(model, monkeypatch):
    """Where there is one device: what would be moved where."""
    moved = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.nn.Module, "to", lambda self, device: moved.append((self, str(device))) or self
    )
    monkeypatch.setattr(model.cfg, "device", "cpu")
    monkeypatch.setattr(model.cfg, "n_devices", 1)
    if BACKEND.name == "TransformerBridge":
        with pytest.raises(UnknownOptionError, match="put on one device here, not 2"):
            place_model(model, torch.device("cuda:0"), 2)
        return
    place_model(model, torch.device("cuda:0"), 2)
    where = {id(module): device for module, device in moved}
    assert [where[id(block)] for block in model.blocks] == ["cuda:0", "cuda:1"]
    assert where[id(model.embed)] == "cuda:0"
    assert where[id(model.ln_final)] == where[id(model.unembed)] == "cuda:1"
