"""Recall against Hugging Face's generate, the formulas, and other batch sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import relation_neurons as rn
from relation_neurons.inference.batches import make_batches
from relation_neurons.inference.recall import answer_prompts, plan_passes


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_pitfall_2_batched_equals_single(model, prompts, recall, table, batch_size):
    """Pooled activations, log-probability and correctness, intact and ablated."""
    again = rn.measure_recall(model, prompts, batch_size=batch_size)
    np.testing.assert_allclose(again["logprob"], recall["logprob"], atol=1e-4)
    clear = recall["margin"].abs() > 1e-3
    assert (again["known"] == recall["known"])[clear].all()
    pooled = rn.collect_activations(model, prompts.detection, batch_size=batch_size)
    torch.testing.assert_close(pooled.values, table.values, atol=1e-5, rtol=1e-4)
    plan = plan_passes(prompts.held_out)
    neurons = [(0, 5), (1, 7), (1, 30)]
    with rn.ablated(model, neurons) as hooks:
        one = answer_prompts(model, plan, batch_size=batch_size, before_batch=hooks.start)
    with rn.ablated(model, neurons) as hooks:
        other = answer_prompts(model, plan, batch_size=16, before_batch=hooks.start)
    np.testing.assert_allclose(one.logprob, other.logprob, atol=1e-4)


@pytest.mark.parametrize("ablate", [False, True])
def test_greedy_recall_equals_generate(model, tiny_folder, prompts, ablate):
    """One teacher-forced pass decides what Hugging Face's greedy decoding produces."""
    hf_model = AutoModelForCausalLM.from_pretrained(tiny_folder).eval()
    asked = prompts.take((prompts.frame["kind"] == "fact") & (prompts.frame["prompt_id"] % 4 == 0))
    neurons = [(0, n) for n in range(0, 96, 3)] if ablate else []

    def zero(_module, args):
        hidden = args[0].clone()
        first = 0 if hidden.shape[1] > 1 else 1  # cached steps hold no first position
        hidden[:, 1 - first :, [n for _, n in neurons]] = 0
        return (hidden,)

    handle = (
        hf_model.model.layers[0].mlp.down_proj.register_forward_pre_hook(zero) if ablate else None
    )
    expected = []
    for tokens, answers in zip(asked.tokens, asked.answers, strict=True):
        out = hf_model.generate(
            torch.tensor([tokens]),
            attention_mask=torch.ones(1, len(tokens), dtype=torch.long),
            max_new_tokens=max(map(len, answers)),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, len(tokens) :].tolist()
        expected.append(any(tuple(out[: len(a)]) == a for a in answers))
    if handle is not None:
        handle.remove()
        with rn.ablated(model, neurons) as hooks:
            found = answer_prompts(model, plan_passes(asked), before_batch=hooks.start)
    else:
        found = answer_prompts(model, plan_passes(asked))
    clear = np.abs(found.margin) > 1e-3  # arithmetic decides a tie
    assert clear.mean() > 0.9
    assert (found.correct == expected)[clear].all()
    assert 0 < sum(expected) < len(expected) or ablate


def test_what_the_tiny_checkpoint_knows_is_decided_by_clear_margins(prompts, recall):
    """So that no other test rests on what a processor's arithmetic leaves of a tie."""
    facts = recall.merge(prompts.frame[["prompt_id", "kind", "answer"]], on="prompt_id")
    facts = facts[facts["kind"] == "fact"]
    assert (facts["known"] == (facts["answer"] != "grey")).all()
    assert facts["margin"].abs().min() > 0.5


def test_margin_and_logprob_are_their_formulas(model, prompts):
    asked = prompts.take(prompts.frame["kind"] == "fact").take(np.arange(30) < 6)
    out = answer_prompts(model, plan_passes(asked))
    for row in range(len(asked)):
        tokens, (answer,) = asked.tokens[row], asked.answers[row]
        with torch.inference_mode():
            logits = model(torch.tensor([tokens + answer]))[0, len(tokens) - 1 : -1]
        own = logits[range(len(answer)), list(answer)]
        others = logits.clone()
        others[range(len(answer)), list(answer)] = -torch.inf
        assert out.margin[row] == pytest.approx(float((own - others.amax(1)).min()), abs=1e-4)
        logprob = float(logits.log_softmax(1)[range(len(answer)), list(answer)].sum())
        assert out.logprob[row] == pytest.approx(logprob, abs=1e-4)


def test_the_best_of_several_accepted_answers_counts(model, relations):
    """Aliases: the best margin, and each answer's own log-probability (pitfalls 6 and 9)."""
    (capital,) = [r for r in relations if r.name == "country_capital"]
    fact = capital.facts[0]
    wrong = next(f.objects[0] for f in capital.facts if f.objects != fact.objects)
    single, aliased = (
        rn.make_prompts(
            [
                rn.Relation(
                    "x", (rn.Fact(fact.subject, objects), *capital.facts[1:]), capital.templates
                )
            ],
            model.tokenizer,
            held_out=0.4,
            background=False,
        )
        for objects in (fact.objects, (wrong, *fact.objects))
    )
    a, b = rn.measure_recall(model, single), rn.measure_recall(model, aliased)
    here = a["subject"] == fact.subject
    np.testing.assert_allclose(a["margin"][here], b["margin"][here], atol=1e-5)
    np.testing.assert_allclose(a["logprob"][here], b["logprob"][here], atol=1e-5)


def test_a_sequence_that_begins_another_is_run_once(prompts):
    plan = plan_passes(prompts.held_out)
    answers = sum(len(a) for a in prompts.held_out.answers)
    assert sum(map(len, plan.reads)) == answers
    for shorter in plan.sequences:
        assert not any(o != shorter and o[: len(shorter)] == shorter for o in plan.sequences)


def test_batches_are_left_padded_longest_first_and_complete():
    sequences = [[5] * n for n in (3, 9, 1, 9, 4)]
    batches = list(make_batches(sequences, batch_size=2, pad_id=0))
    assert [b.tokens.shape[1] for b in batches] == [9, 4, 1]
    assert sorted(int(r) for b in batches for r in b.rows) == [0, 1, 2, 3, 4]
    for batch in batches:
        assert batch.mask[:, -1].all()
        assert [len(sequences[r]) for r in batch.rows] == batch.lengths.tolist()
        assert (batch.tokens[~batch.mask] == 0).all()
