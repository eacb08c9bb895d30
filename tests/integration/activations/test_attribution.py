"""Attribution against plain Hugging Face autograd, a finite difference, and other batch sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import relation_neurons as rn
from relation_neurons.activations.attribution import collect_attribution
from relation_neurons.backends.installed import BACKEND
from relation_neurons.errors import ActivationError, AnswerError, HookError, UnknownOptionError
from relation_neurons.inference.recall import answer_prompts, plan_passes


@pytest.fixture(scope="module")
def some(prompts):
    """A few prompts of every kind: answers of one token and of several, and none."""
    detection = prompts.detection
    kept = np.arange(len(detection)) % 11 == 0
    kept |= (detection.frame["kind"] == "background") & (np.arange(len(detection)) % 29 == 0)
    return detection.take(kept)


@pytest.fixture(scope="module")
def attribution(model, some):
    return collect_attribution(model, some)


def by_hugging_face(hf_model, tokens, answer, site):
    """Activation x gradient at every position, one prompt alone, with forward hooks."""
    tracked = []

    def keep(value):
        value.retain_grad()
        tracked.append(value)

    handles = []
    for block in hf_model.model.layers:
        if site == "post":
            handles.append(
                block.mlp.down_proj.register_forward_pre_hook(lambda _m, args: keep(args[0]))
            )
        else:
            part = {"gate": block.mlp.gate_proj, "up": block.mlp.up_proj, "out": block.mlp}[site]
            handles.append(part.register_forward_hook(lambda _m, _i, out: keep(out)))
    logits = hf_model(torch.tensor([tokens + answer[:-1]])).logits[0, len(tokens) - 1 :]
    logprob = logits.log_softmax(1)[range(len(answer)), list(answer)].sum()
    logprob.backward()
    for handle in handles:
        handle.remove()
    return [(value * value.grad)[0].detach() for value in tracked]


def pooled_by_hand(values, how):
    return {
        "mean": values[1:].mean(0),
        "last": values[-1],
        "max": values[1:].amax(0),
        "include_first": values.mean(0),
    }[how]


@pytest.mark.parametrize(
    ("site", "how"),
    [
        ("post", "mean"),
        ("post", "last"),
        ("post", "max"),
        ("post", "include_first"),
        ("gate", "mean"),
        ("up", "mean"),
        ("out", "mean"),
    ],
)
def test_equals_plain_hugging_face_autograd(model, tiny_folder, some, site, how):
    hf_model = AutoModelForCausalLM.from_pretrained(tiny_folder).float().eval()
    found = collect_attribution(model, some, site=site, pool=how, batch_size=7)
    lengths = set()
    for row, answers in enumerate(some.answers):
        if not answers:
            assert found[row].isnan().all()
            continue
        lengths.add(len(answers[0]))
        tokens = some.tokens[row]
        for layer, values in enumerate(by_hugging_face(hf_model, tokens, answers[0], site)):
            expected = pooled_by_hand(values[: len(tokens)], how)
            torch.testing.assert_close(found[row, layer], expected, atol=2e-5, rtol=1e-3)
    assert len(lengths) > 1, "answers of one token only would not show where the prompt ends"


def test_equals_a_finite_difference_of_the_log_probability(model, some, attribution):
    """Ablating with the scale 1 - eps takes away eps times the sum over tokens, to first order."""
    rows = [row for row, a in enumerate(some.answers) if a and len(a[0]) == 1][:3]
    assert rows
    eps = 0.02
    for row in rows:
        alone = some.take(np.arange(len(some)) == row)
        plan = plan_passes(alone)
        largest = attribution[row].abs().flatten().topk(4).indices.tolist()
        for flat in largest:
            neuron = [(flat // 96, flat % 96)]
            logprob = []
            for scale in (1 - eps, 1 + eps):
                with rn.ablated(model, neuron, mode="scale", value=scale) as hooks:
                    out = answer_prompts(model, plan, before_batch=hooks.start)
                logprob.append(float(out.logprob[0]))
            slope = (logprob[1] - logprob[0]) / (2 * eps)
            expected = float(attribution[row].flatten()[flat]) * (len(some.tokens[row]) - 1)
            assert slope == pytest.approx(expected, rel=0.05, abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_pitfall_2_batched_equals_single(model, some, attribution, batch_size):
    again = collect_attribution(model, some, batch_size=batch_size)
    torch.testing.assert_close(again, attribution, atol=1e-5, rtol=1e-3, equal_nan=True)


def test_no_parameter_gets_a_gradient_and_no_hook_stays(model, some, attribution):
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(
        point._forward_hooks or point._backward_hooks for point in model.hook_dict.values()
    )
    assert not attribution.requires_grad
    with torch.inference_mode():
        inside = collect_attribution(model, some)
    torch.testing.assert_close(inside, attribution, equal_nan=True)


def test_of_several_accepted_answers_the_best_counts(model, some, attribution):
    row = next(row for row, answers in enumerate(some.answers) if answers)
    other = next(a[0] for a in some.answers if a and a[0] != some.answers[row][0])
    pair = (some.answers[row][0], other)
    margins = [
        answer_prompts(
            model, plan_passes(replace(some, answers=tuple((answer,) for _ in some.tokens)))
        ).margin[row]
        for answer in pair
    ]
    best = pair[int(np.argmax(margins))]
    both, alone = (
        replace(
            some,
            answers=tuple(given if i == row else a for i, a in enumerate(some.answers)),
        )
        for given in (pair[::-1], (best,))
    )
    torch.testing.assert_close(
        collect_attribution(model, both)[row], collect_attribution(model, alone)[row]
    )


def test_demonstrations_are_not_pooled(model, relations):
    shown = rn.make_prompts(relations, model.tokenizer, held_out=0.4, shots=1, nonsense=0, seed=0)
    fact = shown.frame["kind"] == "fact"
    few = shown.take(fact & (shown.frame["side"] == "detection")).take(np.arange(8) < 8)
    bare = replace(few, context=())
    assert all(context > 1 for context in few.context)
    assert not torch.allclose(collect_attribution(model, few), collect_attribution(model, bare))


def test_pitfall_18_a_hook_that_does_not_fire_is_an_error(model, some, monkeypatch):
    # Fires only where it is switched on; a bridge does not even take a function for it.
    monkeypatch.setattr(
        "relation_neurons.activations.attribution.site_hook",
        lambda m, s, layer: "blocks.0.mlp.hook_post" if layer == 0 else "blocks.1.hook_mlp_in",
    )
    bridge = BACKEND.name == "TransformerBridge"
    kind, said = (ValueError, "use_hook_mlp_in is False") if bridge else (HookError, "not fire")
    with pytest.raises(kind, match=said):
        collect_attribution(model, some)


def test_pitfall_4_a_neuron_with_nan_is_named(model, some):
    weight = model.blocks[1].mlp.W_in
    before = weight[0, 17].item()
    weight[0, 17] = float("nan")
    try:
        with pytest.raises(ActivationError, match="attribution of L"):
            collect_attribution(model, some)
    finally:
        weight[0, 17] = before


def test_prompts_without_answers_and_unknown_poolings_are_errors(model, some):
    with pytest.raises(AnswerError, match="has an answer"):
        collect_attribution(model, some.take(some.frame["kind"] == "background"))
    with pytest.raises(UnknownOptionError, match="mean"):
        collect_attribution(model, some, pool="men")


def test_attribution_finds_neurons_whose_ablation_costs_more(model, prompts, recall, table):
    """On the prompts it was measured on, its top set lowers the log-probability, its bottom raises it."""
    attribution = collect_attribution(model, prompts.detection)
    asked = prompts.detection.take(
        (prompts.detection.frame["relation"] == "country_colour")
        & (prompts.detection.frame["kind"] == "fact")
    )
    plan = plan_passes(asked)
    intact = answer_prompts(model, plan).logprob.mean()
    changed = []
    for bottom in (False, True):
        ranking = rn.rank_neurons(
            table, recall, by="attribution", attribution=attribution, bottom=bottom, min_known=5
        )
        with rn.ablated(model, ranking.top("country_colour", 8)) as hooks:
            after = answer_prompts(model, plan, before_batch=hooks.start)
        changed.append(after.logprob.mean() - intact)
    assert changed[0] < -0.5 and changed[1] > 0.05


@pytest.mark.parametrize("how", ["mean", "include_first", "last"])
def test_active_shares_equal_what_run_with_cache_counts(model, some, how):
    """How often a neuron is active is read at the gate, over the tokens that a mean is over."""
    table = rn.collect_activations(model, some, pool=how, active=True, batch_size=5)
    first = 0 if how == "include_first" else 1
    for row in range(len(some)):
        tokens = torch.tensor([some.tokens[row]])
        with torch.inference_mode():
            _, cache = model.run_with_cache(tokens, attention_mask=torch.ones_like(tokens))
        for layer in range(model.cfg.n_layers):
            gate = torch.nn.functional.silu(cache[f"blocks.{layer}.mlp.hook_pre"][0, first:])
            torch.testing.assert_close(table.active[row, layer], (gate > 0).float().mean(0))
        assert table.token_counts[row] == tokens.shape[1] - first
    plain = rn.collect_activations(model, some, pool=how, batch_size=5)
    assert plain.active is None and plain.token_counts is None
    assert torch.equal(plain.values, table.values)
    assert torch.equal(table.take(np.arange(len(some)) == 3).active[0], table.active[3])


def test_no_neuron_is_active_at_out(model, some):
    with pytest.raises(rn.errors.UnknownSiteError, match="no activation function"):
        rn.collect_activations(model, some, site="out", active=True)
