"""Every family, from tiny random checkpoints, against plain Hugging Face and through the whole path."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import relation_neurons as rn
from helpers import tiny, tiny_families
from helpers.paths import ROOT
from relation_neurons.backends.installed import BACKEND
from relation_neurons.backends.neuron_sites import output_direction, output_norms, site_hook
from relation_neurons.errors import ModelLoadError
from relation_neurons.inference.recall import answer_prompts, plan_passes
from relation_neurons.models.checkpoints import down_projection_path
from relation_neurons.models.registry import markdown_table, verified_families

pytestmark = pytest.mark.backends

NEURONS = [(0, 3), (1, 5), (2, 7), (2, 90)]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.byte_level_tokenizer()


@pytest.fixture(scope="module", params=sorted(tiny_families.FAMILIES))
def both(request, tokenizer):
    """A family's Hugging Face model, and the same behind hooks."""
    hf_model = tiny_families.family(request.param, len(tokenizer))
    return hf_model, rn.load_model(hf_model, tokenizer=tokenizer, device="cpu")


@pytest.fixture(scope="module")
def asked(tokenizer):
    few = [replace(relation, facts=relation.facts[:8]) for relation in tiny.relations()]
    return rn.make_prompts(few, tokenizer, held_out=0.4, seed=0)


def test_pooled_neurons_are_hugging_faces(both, asked):
    """Batched and padded here; one prompt at a time, under a forward hook, there."""
    hf_model, model = both
    table = rn.collect_activations(model, asked.detection)
    received = {}
    modules = dict(hf_model.named_modules())
    handles = [
        modules[down_projection_path(type(hf_model).__name__, layer)].register_forward_pre_hook(
            lambda _m, inputs, layer=layer: received.__setitem__(layer, inputs[0])
        )
        for layer in range(3)
    ]
    for row in range(0, len(asked.detection), 11):
        with torch.inference_mode():
            hf_model(torch.tensor([asked.detection.tokens[row]]))
        for layer in range(3):
            expected = received[layer][0, 1:].mean(0)
            torch.testing.assert_close(table.values[row, layer], expected, atol=1e-5, rtol=1e-4)
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("ablate", [False, True])
def test_batched_is_single(both, asked, ablate):
    _, model = both
    plan = plan_passes(asked.held_out)

    def ask(batch_size):
        if not ablate:
            return answer_prompts(model, plan, batch_size=batch_size)
        with rn.ablated(model, NEURONS) as hooks:
            return answer_prompts(model, plan, batch_size=batch_size, before_batch=hooks.start)

    single = ask(1)
    batched = ask(16)
    np.testing.assert_allclose(batched.logprob, single.logprob, atol=1e-4)
    np.testing.assert_allclose(batched.margin, single.margin, atol=1e-4)


def test_aliases_with_one_first_word_do_not_depend_on_the_batch(both, asked):
    """Where that word is the worst one their margins tie, and rounding must not choose between them."""
    _, model = both
    facts = asked.held_out.take(asked.held_out.frame["kind"] == "fact")
    answers = []
    for tokens in facts.tokens:
        with torch.inference_mode():
            unlikely = int(model(torch.tensor([tokens]))[0, -1].argmin())
        answers.append(((unlikely,), (unlikely, 5, 6, 7), (unlikely, 8), (unlikely, 9, 10)))
    plan = plan_passes(replace(facts, answers=tuple(answers)))
    single = answer_prompts(model, plan, batch_size=1)
    for batch_size in (3, 16, 64):
        batched = answer_prompts(model, plan, batch_size=batch_size)
        np.testing.assert_allclose(batched.logprob, single.logprob, atol=1e-4)
        np.testing.assert_allclose(batched.margin, single.margin, atol=1e-4)
        np.testing.assert_array_equal(batched.answer_length, single.answer_length)


def test_the_whole_path(both, asked):
    """Random weights know nothing, so every fact is counted as known here."""
    _, model = both
    recall = rn.measure_recall(model, asked).assign(known=True)
    table = rn.collect_activations(model, asked.detection)
    ranking = rn.rank_neurons(table, recall, min_known=2)
    effects = rn.ablation_sweep(model, asked.held_out, ranking, (8,), control_draws=1, seed=0)
    matrix = rn.interference_matrix(effects)
    assert {"country_capital", "country_colour", "country_food"} <= set(effects["ablated"])
    changed = effects[effects["kind"] == "ranked"]
    assert (changed["margin"] != changed["margin_intact"]).mean() > 0.9
    assert np.isfinite(changed["margin"]).all() and len(matrix) > 0


def test_what_a_neuron_writes(both):
    """A neuron so loud that the MLP puts out nothing else moves the stream along its direction."""
    _, model = both
    seen = []

    def raise_neuron(value, hook):
        value[:, :, 4] += 1000.0
        return value

    hooks = [
        (site_hook(model, "post", 1), raise_neuron),
        (site_hook(model, "out", 1), lambda value, hook: seen.append(value.clone())),
    ]
    with torch.inference_mode():
        model.run_with_hooks(torch.tensor([[5, 6, 7]]), fwd_hooks=hooks, return_type=None)
    direction = output_direction(model, 1, 4)
    cosines = torch.nn.functional.cosine_similarity(seen[0][0], direction[None], dim=1)
    assert float(cosines.min()) > 0.999
    assert float(output_norms(model)[1, 4]) == pytest.approx(float(direction.norm()), rel=1e-5)


def test_a_mixture_of_experts_is_refused(tokenizer, tmp_path):
    hf_model = tiny_families.mixture(len(tokenizer))
    with pytest.raises(ModelLoadError, match=r"mixture of experts.*no activation at most tokens"):
        rn.load_model(hf_model)
    hf_model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="num_local_experts = 2"):
        rn.load_model(tmp_path)


def test_an_option_that_would_be_dropped_is_refused_or_honoured(tokenizer):
    """A HookedTransformer has no place for a Llama's biases; a bridge runs Hugging Face's own."""
    hf_model = tiny_families.family("Llama", len(tokenizer), attention_bias=True)
    if BACKEND.name == "HookedTransformer":
        with pytest.raises(ModelLoadError, match="attention_bias = True"):
            rn.load_model(hf_model)
    else:
        rn.load_model(hf_model)  # the self-check compares it with Hugging Face


def test_a_folder_of_another_family_loads(tokenizer, tmp_path):
    hf_model = tiny_families.family("Mistral", len(tokenizer))
    hf_model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = rn.load_model(tmp_path, device="cpu")
    assert model.tokenizer("Aldor")["input_ids"] == tokenizer("Aldor")["input_ids"]


def test_the_documented_table_is_the_measured_one():
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert markdown_table() in text
    for name, (config, _) in tiny_families.FAMILIES.items():
        (row,) = [row for row in verified_families() if row[0] == name]
        assert row[1] in config.__name__.replace("TextConfig", "ForCausalLM").replace(
            "GPT2Config", "GPT2LMHeadModel"
        ).replace("Config", "ForCausalLM")
        assert all(float(difference) < 1e-5 for difference in row[2:])
