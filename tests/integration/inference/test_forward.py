"""Passes over prefix trees against plain TransformerLens, plain Hugging Face and padded rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import relation_neurons as rn
from helpers import tiny, tiny_families
from relation_neurons.backends.base import TreeBlock
from relation_neurons.backends.installed import BACKEND
from relation_neurons.backends.neuron_sites import site_hook
from relation_neurons.errors import AblationError, ContextLengthError
from relation_neurons.inference import forward as passes
from relation_neurons.inference import residual_cache as streams_room
from relation_neurons.inference.batches import make_batches
from relation_neurons.inference.forward import takes_trees, tree_residual
from relation_neurons.inference.prefix_trees import TreeBatch, make_tree_batches
from relation_neurons.inference.recall import answer_prompts, plan_passes
from relation_neurons.inference.residual_cache import IntactStreams

pytestmark = pytest.mark.backends


NEURONS = [(0, 5), (1, 7), (1, 30), (1, 90)]


@pytest.fixture(scope="module", params=["zero-shot", "few-shot"])
def asked(request, model, relations):
    made = rn.make_prompts(
        relations,
        model.tokenizer,
        held_out=0.4,
        nonsense=6,
        shots=2 if request.param == "few-shot" else 0,
    )
    return made.held_out


@pytest.fixture
def padded(monkeypatch):
    """Runs what is inside it over padded rows."""

    def run(act):
        with monkeypatch.context() as patch:
            patch.setattr("relation_neurons.inference.forward.takes_trees", lambda model: False)
            return act()

    return run


def same(found, expected):
    np.testing.assert_allclose(found.logprob, expected.logprob, atol=1e-4)
    np.testing.assert_allclose(found.margin, expected.margin, atol=1e-3)
    clear = np.abs(expected.margin) > 1e-3
    assert (found.correct == expected.correct)[clear].all()
    assert [p for p, c in zip(found.predicted, clear, strict=True) if c] == [
        p for p, c in zip(expected.predicted, clear, strict=True) if c
    ]


def assert_stream_is_hugging_faces(model, hf_model, sequences):
    """At every token of every sequence, behind the final norm."""
    for batch in make_tree_batches(sequences, batch_size=4, pad_id=0):
        with torch.inference_mode():
            stream, _ = tree_residual(model, batch)
            for i, member in enumerate(batch.rows):
                row, columns = batch.at[i]
                plain = hf_model(torch.tensor([sequences[member]]), output_hidden_states=True)
                expected = plain.hidden_states[-1][0]
                found = model.ln_final(stream[row, list(columns)][None])[0]
                torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_stream_at_every_token_is_hugging_faces(kv_heads):
    tokenizer = tiny.byte_level_tokenizer()
    hf_model = tiny.llama(tokenizer, kv_heads=kv_heads)
    model = rn.load_model(hf_model, tokenizer=tokenizer)
    sequences = [tokenizer(text)["input_ids"] for text in tiny.sentences()[:40]]
    sequences = [*sequences, *(s[:-2] for s in sequences)]
    assert_stream_is_hugging_faces(model, hf_model, sequences)


def test_the_stream_of_a_gemma_is_hugging_faces():
    """Two rotations, a window of 8 tokens, norms of heads and behind attention and MLP."""
    hf_model = tiny_families.family("Gemma 3", 300)
    model = rn.load_model(hf_model, device="cpu")
    if BACKEND.name == "TransformerBridge":
        assert not takes_trees(model)  # it runs a Gemma over padded rows
        return
    assert takes_trees(model)
    rng = np.random.default_rng(0)
    start = rng.integers(3, 300, 9).tolist()
    sequences = [start + rng.integers(3, 300, size).tolist() for size in (1, 4, 9, 14)]
    sequences += [sequences[2][:-3], sequences[3] + start]
    assert_stream_is_hugging_faces(model, hf_model, sequences)


@pytest.mark.parametrize("site", ["post", "gate", "up", "out"])
@pytest.mark.parametrize("positions", ["no_first", "all", "last"])
def test_trees_give_what_padded_rows_give(model, asked, padded, site, positions):
    plan = plan_passes(asked)
    neurons = [(0, 5), (1, 7), (1, 30)]

    def run(**how):
        with rn.ablated(model, neurons, site=site, positions=positions, **how) as hooks:
            return answer_prompts(model, plan, before_batch=hooks.start)

    for how in ({}, {"mode": "mean", "value": 0.3}, {"mode": "scale", "value": -2.0}):
        same(run(**how), padded(lambda how=how: run(**how)))


def test_nested_ablations_hold_over_trees(model, asked, padded):
    plan = plan_passes(asked)

    def run():
        with (
            rn.ablated(model, [(1, 7)], positions="last") as outer,
            rn.ablated(model, [(1, 7), (0, 5)], mode="scale", value=0.5) as inner,
        ):

            def both(batch, firsts):
                outer.start(batch, firsts)
                inner.start(batch, firsts)

            return answer_prompts(model, plan, before_batch=both)

    same(run(), padded(run))


@pytest.mark.parametrize("pool", ["mean", "last", "max", "include_first"])
def test_capture_over_trees_pools_what_a_cache_holds(model, asked, padded, pool):
    found = rn.collect_activations(model, asked, pool=pool, active=True)
    expected = padded(lambda: rn.collect_activations(model, asked, pool=pool, active=True))
    for name in ("values", "active", "mean", "contribution", "first_contribution"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), atol=1e-5, rtol=1e-4
        )
    assert torch.equal(found.token_counts, expected.token_counts)
    for row in range(0, len(asked), 9):
        _, cache = model.run_with_cache(torch.tensor([asked.tokens[row]]))
        values = cache["blocks.1.mlp.hook_post"][0]
        start = max(asked.context[row] if asked.context else 0, pool != "include_first")
        pooled = {
            "mean": values[start:].mean(0),
            "include_first": values[start:].mean(0),
            "max": values[start:].amax(0),
            "last": values[-1],
        }[pool]
        torch.testing.assert_close(found.values[row, 1], pooled, atol=1e-5, rtol=1e-4)


def test_a_prompt_that_comes_twice_counts_twice(model, prompts):
    some = prompts.detection.take(np.arange(len(prompts.detection)) < 12)
    twice = replace(
        some,
        frame=some.frame.iloc[[*range(12), 3, 3]].reset_index(drop=True),
        tokens=(*some.tokens, some.tokens[3], some.tokens[3]),
        answers=(*some.answers, some.answers[3], some.answers[3]),
    )
    once, again = (rn.collect_activations(model, p) for p in (some, twice))
    torch.testing.assert_close(again.values[12], once.values[3])
    lengths = torch.tensor([len(t) - 1 for t in twice.tokens]).float()
    expected = (lengths[:, None, None] * again.values).sum(0) / lengths.sum()
    torch.testing.assert_close(again.mean, expected, atol=1e-5, rtol=1e-4)


def test_hooks_of_others_are_seen_and_a_set_per_row_is_told_apart(model, prompts):
    assert takes_trees(model)
    seen = []
    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_pattern", lambda v, hook: seen.append(1))]):
        assert not takes_trees(model)
        answer_prompts(model, plan_passes(prompts.held_out))
    assert seen
    handle = model.blocks[0].register_forward_hook(lambda *a: None)
    assert not takes_trees(model)
    handle.remove()
    with rn.ablated(model, NEURONS):
        assert takes_trees(model)
        with rn.ablated(model, per_row=[NEURONS, []]):
            assert not takes_trees(model)
    model.forward = lambda *a, **k: None
    assert not takes_trees(model)
    del model.forward
    assert takes_trees(model)


def test_an_ablation_over_trees_is_checked_and_leaves_no_hook(model, prompts):
    plan = plan_passes(prompts.held_out)
    batches = plan.batches(model, 64)
    assert all(isinstance(batch, TreeBatch) for batch in batches)
    point = model.hook_dict["blocks.1.mlp.hook_post"]
    with pytest.raises(AblationError, match="still holds other values"), rn.ablated(model, NEURONS):
        handle = point.register_forward_hook(lambda _m, _i, out: out + 1.0)
        try:
            answer_prompts(model, plan, batches=batches)
        finally:
            handle.remove()
    assert not any(p._forward_hooks for p in model.hook_dict.values())


def test_trees_under_a_set_per_row_are_an_error(model, prompts):
    plan = plan_passes(prompts.held_out)
    batches = plan.batches(model, 64)
    sets = [NEURONS] * len(plan.sequences)
    with rn.ablated(model, per_row=sets), pytest.raises(AblationError, match="per_row"):
        answer_prompts(model, plan, batches=batches)


def test_a_prompt_longer_than_the_context_is_an_error(model):
    batches = make_tree_batches([[1] * (model.cfg.n_ctx + 1)], batch_size=1, pad_id=0)
    with pytest.raises(ContextLengthError, match="96"):
        tree_residual(model, batches[0])


@pytest.mark.parametrize("limit", [streams_room.STREAM_BYTES, 0])
def test_starting_from_the_intact_stream_changes_nothing(model, asked, limit):
    """Exactly: the same layers over the same batches."""
    plan = plan_passes(asked)
    batches = plan.batches(model, 16)
    kept = IntactStreams(model, batches, [1, 1, 0], limit=limit)
    assert [kept.start(layer) for layer in (0, 1, 5)] == ([0, 1, 1] if limit else [None] * 3)
    first = answer_prompts(model, plan, batches=batches, streams=kept)
    np.testing.assert_array_equal(first.margin, answer_prompts(model, plan, batches=batches).margin)
    ran = []
    handle = model.hook_dict["blocks.0.mlp.hook_post"].register_forward_hook(
        lambda *a: ran.append(1)
    )
    with rn.ablated(model, [(1, 7), (1, 30)]):
        from_stream = answer_prompts(model, plan, batches=batches, streams=kept, first_layer=1)
        handle.remove()
        anew = answer_prompts(model, plan, batches=batches)
    assert len(ran) == (0 if limit else len(batches))
    np.testing.assert_array_equal(from_stream.margin, anew.margin)
    np.testing.assert_array_equal(from_stream.logprob, anew.logprob)


@pytest.mark.parametrize("first_layer", [0, 1])
def test_the_attention_of_the_lowest_ablated_layer_is_not_run_again(
    model, asked, monkeypatch, first_layer
):
    plan = plan_passes(asked)
    batches = plan.batches(model, 16)
    kept = IntactStreams(model, batches, [first_layer])
    answer_prompts(model, plan, batches=batches, streams=kept)
    attended, attend = [], passes._attend
    monkeypatch.setattr(passes, "_attend", lambda *a: (attended.append(1), attend(*a))[1])
    with rn.ablated(model, [(first_layer, 7), (1, 30)]):
        found = answer_prompts(model, plan, batches=batches, streams=kept, first_layer=first_layer)
        assert len(attended) == (model.cfg.n_layers - 1 - first_layer) * len(batches)
        anew = answer_prompts(model, plan, batches=batches)
    np.testing.assert_array_equal(found.margin, anew.margin)


@pytest.mark.parametrize("positions", ["no_first", "all", "last"])
def test_the_last_mlp_is_run_where_something_is_read(model, asked, positions):
    """An ablation of it, too, holds there; what is read is what a pass over all positions gives."""
    last = model.cfg.n_layers - 1
    plan = plan_passes(asked)
    shapes = []
    for batch in plan.batches(model, 16):
        read = batch.answering.flatten().nonzero()[:, 0].flip(0)  # in any order
        with (
            torch.inference_mode(),
            rn.ablated(model, [(0, 5), (last, 7), (last, 30)], positions=positions),
        ):
            whole, _ = tree_residual(model, batch)
            handle = passes.attach(
                model,
                site_hook(model, "post", last),
                lambda value, _name: shapes.append(tuple(value.shape[:2])),
            )
            found, _ = tree_residual(model, batch, read=read)
            handle.remove()
        assert found.shape[:2] == shapes[-1] == (1, len(read))
        assert len(read) < batch.tokens.numel()
        torch.testing.assert_close(found[0], whole.flatten(0, 1)[read], atol=1e-5, rtol=0)


def test_heads_share_keys_on_a_cpu_only(monkeypatch):
    """Elsewhere some kernels do not take fewer keys than queries."""
    asked, attention = [], torch.nn.functional.scaled_dot_product_attention

    def spy(q, k, v, **how):
        asked.append((k.shape[1], how["enable_gqa"]))
        return attention(q, k, v, **how)

    monkeypatch.setattr(passes.F, "scaled_dot_product_attention", spy)
    for device in ("cpu", "meta"):
        wide, narrow, out = (torch.zeros(n, 8, device=device) for n in (8, 4, 8))
        block = TreeBlock(
            norm=torch.nn.Identity(),
            mlp=torch.nn.Identity(),
            q=(wide, None),
            k=(narrow, None),
            v=(narrow, None),
            o=(out, None),
            d_head=2,
            scale=1.0,
        )
        x, turn = torch.zeros(1, 3, 8, device=device), torch.zeros(1, 1, 3, 2, device=device)
        seen = torch.ones(1, 1, 3, 3, dtype=torch.bool, device=device)
        assert passes._attend(block, x, seen, (turn, turn)).shape == x.shape
    assert asked == [(2, True), (4, False)]


def test_streams_that_save_most_are_kept(model, prompts):
    batches = plan_passes(prompts.held_out).batches(model, 16)
    each = 4 * model.cfg.d_model * sum(batch.tokens.numel() for batch in batches)
    kept = IntactStreams(model, batches, [0, 3, 1, 1, 1, 1, 2], limit=each)
    assert kept.layers == {1}
    assert IntactStreams(model, batches, [9, 1, 2], limit=2 * each).layers == {9, 2}
    rows = list(make_batches([[1, 2]], batch_size=1, pad_id=0))
    assert not IntactStreams(model, rows, [1]).layers


def test_padded_rows_are_left_where_the_architecture_is_another():
    assert takes_trees(rn.load_model(tiny_families.family("Llama", 300), device="cpu"))
    assert not takes_trees(rn.load_model(tiny_families.family("Qwen 3", 300), device="cpu"))
