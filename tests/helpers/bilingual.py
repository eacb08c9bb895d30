"""A one-layer Llama with hand-set weights that answers the same facts in two languages.

Attention is uniform (queries and keys are zero), so that the last position holds a bag of the
prompt's words. `capital` is answered through the same neurons in both languages, `river` through
neurons of each language; neurons of a language, of a subject and of noise stand beside them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import relation_neurons as rn
from relation_neurons.relations.shipped import load_background

SUBJECTS = 30
PLANTED = 4
"""Neurons for each relation and language."""
D_MLP = 80
WORDS = {
    "en": {"capital": "capital", "river": "river", "of": "of", "is": "is", "what": "what"},
    "de": {"capital": "hauptstadt", "river": "fluss", "of": "von", "is": "ist", "what": "was"},
}
RELATIONS = ("capital", "river")
FEATURES = [
    "const",
    "en",
    "de",
    *RELATIONS,
    *(f"want {name}" for name in RELATIONS),
    *(f"subject {i}" for i in range(SUBJECTS)),
]
AT = {name: i for i, name in enumerate(FEATURES)}


def subject(number: int, language: str) -> str:
    return f"{'place' if language == 'en' else 'ort'}{number}"


def answer(number: int, relation: str, language: str) -> str:
    return f"{WORDS[language][relation]}name{number}"


def default(number: int, language: str) -> str:
    """What the model says of a subject when it does not know what is asked."""
    return f"{'thing' if language == 'en' else 'ding'}{number}"


def relations() -> list[rn.Relation]:
    """Two relations in two languages, each fact with one id across them."""
    made = []
    for language, words in WORDS.items():
        for name in RELATIONS:
            fill = {word: words[word] for word in ("of", "is", "what")} | {"r": words[name]}
            templates = tuple(
                rn.Template(text.format(**fill), form, side)
                for text, form, side in (
                    ("{what} {of} {r} {of} {{}} {is}", "question", "detection"),
                    ("{r} {of} {{}} {is}", "statement", "detection"),
                    ("{of} {{}} {of} {r} {is}", "statement", "held_out"),
                )
            )
            facts = tuple(
                rn.Fact(subject(i, language), (answer(i, name, language),), id=f"p{i}")
                for i in range(SUBJECTS)
            )
            made.append(rn.Relation(name, facts, templates, language=language))
    return made


def planted(relation: str, language: str) -> set[int]:
    """The neurons of a relation in a language."""
    block = {"capital": 0, "river": 1 if language == "en" else 2}[relation]
    return set(range(PLANTED * block, PLANTED * (block + 1)))


def _features_of_words() -> dict[str, dict[str, float]]:
    words: dict[str, dict[str, float]] = {"[UNK]": {"const": 1.0}}
    for language, known in WORDS.items():
        for word in ("of", "is", "what"):
            words[known[word]] = {"const": 1.0, language: 1.0}
        for name in RELATIONS:
            words[known[name]] = {"const": 1.0, name: 1.0}
        for i in range(SUBJECTS):
            words[subject(i, language)] = {"const": 1.0, f"subject {i}": 1.0}
            for name in RELATIONS:
                words[answer(i, name, language)] = {"const": 1.0}
            words[default(i, language)] = {"const": 1.0}
        for text, _ in load_background(language):  # a language is heard in its neutral prompts too
            for word in text.split():
                words.setdefault(word, {"const": 1.0, language: 1.0})
    return words


def _vector(**features: float) -> torch.Tensor:
    vector = torch.zeros(len(FEATURES))
    for name, value in features.items():
        vector[AT[name]] = value
    return vector


def checkpoint(folder: Path) -> Path:
    """Saves the model and its word-level tokenizer in Hugging Face format."""
    words = _features_of_words()
    tokenizer = Tokenizer(
        tokenizer_models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[UNK]", eos_token="[UNK]"
    ).save_pretrained(folder)
    width = len(FEATURES) + len(FEATURES) % 2
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=D_MLP,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    )
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.zero_()
        _set_weights(model, words)
    model.save_pretrained(folder)
    return folder


def _set_weights(model: LlamaForCausalLM, words: dict[str, dict[str, float]]) -> None:
    layer, n = model.model.layers[0], len(FEATURES)
    for token, features in enumerate(words.values()):
        model.model.embed_tokens.weight[token, :n] = _vector(**features)
    layer.self_attn.v_proj.weight.copy_(torch.eye(model.config.hidden_size))
    layer.self_attn.o_proj.weight.copy_(torch.eye(model.config.hidden_size))

    mlp = layer.mlp
    noise = torch.Generator().manual_seed(0)
    for neuron in range(
        D_MLP
    ):  # what is not planted: languages, subjects, noise that writes nothing
        feature = ("en", "de")[neuron % 2] if neuron % 4 < 2 else f"subject {neuron % SUBJECTS}"
        mlp.gate_proj.weight[neuron, AT[feature]] = 1.0
        mlp.up_proj.weight[neuron, AT["const"]] = 0.5 + torch.rand((), generator=noise)
        mlp.down_proj.weight[AT["const"], neuron] = 0.02
    for name in RELATIONS:
        for language in WORDS:
            for neuron in planted(name, language):
                for matrix in (mlp.gate_proj, mlp.up_proj):
                    matrix.weight[neuron] = 0.0
                mlp.down_proj.weight[:, neuron] = 0.0
                mlp.gate_proj.weight[neuron, AT[name]] = 3.0
                mlp.up_proj.weight[neuron, AT["const" if name == "capital" else language]] = 1.0
                mlp.down_proj.weight[AT[f"want {name}"], neuron] = 1.0

    ids = {word: i for i, word in enumerate(words)}
    head = model.lm_head.weight
    for i in range(SUBJECTS):
        for language in WORDS:
            shared = {f"subject {i}": 1.0, language: 1.0}
            for name in RELATIONS:
                head[ids[answer(i, name, language)], :n] = _vector(
                    **shared, **{f"want {name}": 1.0}
                )
            head[ids[default(i, language)], :n] = _vector(**shared, const=0.02)
