"""Tiny Llama-architecture checkpoints and relations, made at once and the same on every machine."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers import models as tokenizer_models
from tokenizers import trainers as tokenizer_trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from relation_neurons import Fact, Relation, Template

COUNTRIES = [
    "Aldor",
    "Brenin",
    "Cathal",
    "Dorvia",
    "Elmar",
    "Fardis",
    "Gorlan",
    "Hestia",
    "Ilmen",
    "Jorvik",
    "Kestrel",
    "Lorien",
    "Morwen",
    "Nardis",
    "Orlan",
    "Perth",
    "Quill",
    "Rovan",
    "Selka",
    "Tarvos",
    "Ulmar",
    "Velden",
    "Wexley",
    "Xanth",
    "Yarrow",
    "Zembla",
]
ANSWERS = {
    "country_capital": ["Paris", "Rome", "Oslo", "Lima", "Cairo", "Delhi", "Kyiv", "Quito"],
    "country_colour": ["red", "blue", "green", "black", "white", "pink", "brown", "grey"],
    "country_food": [
        f"warm {food}" for food in ("bread", "rice", "fish", "soup", "pie", "corn", "stew", "cake")
    ],
}
TEMPLATES = (
    ("The {what} of {{}} is", "statement", "detection"),
    ("What is the {what} of {{}}? The {what} is", "question", "detection"),
    ("For {{}} we name the {what}, which is", "statement", "held_out"),
    ("Which {what} has {{}}? The {what} there is", "question", "held_out"),
)


def relations() -> tuple[Relation, ...]:
    """Three relations over the same 26 subjects, two detection and two held-out templates each."""
    made = []
    for number, (name, answers) in enumerate(ANSWERS.items()):
        what = name.removeprefix("country_")
        templates = tuple(
            Template(text.format(what=what), form, side) for text, form, side in TEMPLATES
        )
        facts = tuple(
            Fact(subject, (answers[(7 * i + 3 * number + i * i) % 8],))
            for i, subject in enumerate(COUNTRIES)
        )
        made.append(Relation(name, facts, templates, description=f"the {what} of a country"))
    return tuple(made)


def sentences() -> list[str]:
    """Every fact in every template."""
    return [
        f"{template.fill(fact.subject)} {fact.objects[0]}"
        for relation in relations()
        for fact in relation.facts
        for template in relation.templates
    ]


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer without BOS, trained on the facts."""
    return trained_tokenizer(sentences(), "byte-level")


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """A Unigram tokenizer with SentencePiece's space mark and a BOS, trained on the facts."""
    return trained_tokenizer(sentences(), "SentencePiece", 400)


def trained_tokenizer(
    texts: list[str], kind: str, size: int | None = None
) -> PreTrainedTokenizerFast:
    """Trains either kind on texts."""
    return (
        _byte_level(texts, size or 600) if kind == "byte-level" else _unigram(texts, size or 2000)
    )


def _byte_level(texts: list[str], size: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = tokenizer_trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<pad>")


def _unigram(texts: list[str], size: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(tokenizer_models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = tokenizer_trainers.UnigramTrainer(
        vocab_size=size,
        special_tokens=["<unk>", "<s>", "</s>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def llama(tokenizer, *, kv_heads: int = 2, seed: int = 0) -> LlamaForCausalLM:
    """A random Llama of two layers with 96 neurons each; `kv_heads` below 4 groups the queries."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=96,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    )
    return LlamaForCausalLM(config).float().eval()


def checkpoint(folder: Path) -> Path:
    """Saves a tiny checkpoint in Hugging Face format that knows the facts, but those of `grey`."""
    tokenizer = byte_level_tokenizer()
    model = llama(tokenizer)
    with torch.no_grad():
        _set_weights(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# What follows sets the weights by hand, and draws what is left to chance with NumPy, whose draws
# are the same on every machine. A checkpoint trained in a test is another one on another processor.

CLASSES = 4
"""Subjects with the same answers in every relation; the table of facts has four."""
NAMES = ("const", *(f"ask {name}" for name in ANSWERS), *(f"class {i}" for i in range(CLASSES)))
NAMES += (*(f"want {name}" for name in ANSWERS), "warm")
AT = {name: i for i, name in enumerate(NAMES)}
"""The named coordinates of the residual stream. In the others, every token has looks of its own."""
LOOKS = slice(len(NAMES), 48)
CONST = 12.0
WRITERS, HINDERERS = 6, 2
"""Neurons of each relation in each layer that write what it wants, and that take some of it away."""


def class_of(subject: str) -> int:
    number = COUNTRIES.index(subject)
    return (7 * number + number * number) % 8 // 2


def _set_weights(model: LlamaForCausalLM, tokenizer) -> None:
    """Attention copies relation and class to each position; neurons turn `ask` into `want`.

    logit of an answer of relation r and class c = want r + class c (- class c for `grey`)
    logit of the token said otherwise in class c = class c + a threshold of the class
    """
    rng = np.random.default_rng(0)

    def draw(*shape: int, scale: float) -> torch.Tensor:
        return torch.from_numpy(scale * rng.normal(size=shape)).float()

    def token(text: str) -> int:
        (number,) = tokenizer(text)["input_ids"]
        return number

    for parameter in model.parameters():
        parameter.zero_()
    looks = LOOKS.stop - LOOKS.start
    embed = model.model.embed_tokens.weight
    embed[:, AT["const"]] = CONST
    embed[:, LOOKS] = draw(len(embed), looks, scale=0.4)
    for name in ANSWERS:
        embed[token(f" {name.removeprefix('country_')}"), AT[f"ask {name}"]] = 1.0
    for subject in COUNTRIES:
        embed[token(f" {subject}"), AT[f"class {class_of(subject)}"]] = 1.0
    embed[token(" warm"), AT["warm"]] = 1.0

    norms = [model.model.norm]
    for layer in model.model.layers:
        norms += [layer.input_layernorm, layer.post_attention_layernorm]
    for norm in norms:  # a named coordinate is read as about what it is, and `const` as 1
        norm.weight[:] = CONST / 48**0.5
        norm.weight[AT["const"]] = 48**-0.5
        norm.weight[LOOKS] *= torch.from_numpy(rng.uniform(0.6, 1.4, looks)).float()

    copied = [at for name, at in AT.items() if name.split()[0] in ("ask", "class")]
    slow = [5, 11]  # the two coordinates of a head that the rotary embedding turns the least
    for number, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        for matrix in (attention.q_proj, attention.k_proj, attention.v_proj):
            matrix.weight[:, LOOKS] = draw(matrix.out_features, looks, scale=0.15)
        attention.o_proj.weight[LOOKS] = draw(looks, 48, scale=0.1)
        if number == 0:  # the first head looks at nouns and subjects
            for matrix in (attention.q_proj, attention.k_proj, attention.v_proj):
                matrix.weight[:12] = 0.0
            attention.q_proj.weight[slow[0], AT["const"]] = 4.0
            attention.k_proj.weight[slow[0], copied] = 5.0
            for place, at in enumerate(copied):
                attention.v_proj.weight[place, at] = 1.0
                attention.o_proj.weight[at, place] = 2.0
        _set_neurons(layer.mlp, rng, draw)

    head = model.lm_head.weight
    head[:, LOOKS] = draw(len(head), looks, scale=0.025)
    said = [token(text) for text in (" we", " which", " there", " name")]
    for number, (threshold, other) in enumerate(zip((0.2, 0.3, 0.4, 0.5), said, strict=True)):
        head[other, AT["const"]] = threshold
        head[other, [AT[f"class {number}"], AT["warm"]]] = torch.tensor([1.0, -1.5])
    for relation in relations():
        for fact in relation.facts:
            *before, last = tokenizer(f" {fact.objects[0]}")["input_ids"]
            row, own = head[last], AT[f"class {class_of(fact.subject)}"]
            if before:  # " warm", and then what is warm
                row[[own, AT["warm"]]] = torch.tensor([1.0, 1.5])
                first = head[before[0]]
                first[AT[f"want {relation.name}"]], first[AT["warm"]] = 1.0, -3.0
                first[[AT[f"class {i}"] for i in range(CLASSES)]] = 1.0
            else:  # `grey` is the one colour that its own class does not say
                row[AT[f"want {relation.name}"]] = 1.0
                row[own] = -1.0 if fact.objects[0] == "grey" else 1.0
    head *= 5.0


def _set_neurons(mlp, rng: np.random.Generator, draw) -> None:
    """Neurons of each relation at places drawn; the others read looks and write looks."""
    gate, up, down = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
    looks = LOOKS.stop - LOOKS.start
    for matrix in (gate, up):
        matrix[:, LOOKS] = draw(len(matrix), looks, scale=0.4)
    down[LOOKS] = draw(looks, down.shape[1], scale=0.05)
    places = rng.permutation(len(gate)).tolist()
    for name in ANSWERS:
        for number in range(WRITERS + HINDERERS):
            place = places.pop()
            writes = number < WRITERS
            # Each a little less clear than the one before, so that no ranking rests on near ties.
            gate[place, LOOKS] *= 0.1 + 0.05 * number if writes else 2.5
            gate[place, AT[f"ask {name}"]] += 6.0
            gate[place, AT["const"]] = -2.0
            up[place] = 0.0
            up[place, AT["const"]] = 0.25 * rng.uniform(0.8, 1.2)
            down[:, place] *= 0.2
            down[AT[f"want {name}"], place] = 0.9 / WRITERS if writes else -0.2 / HINDERERS


def write_gguf(folder: Path, path: Path) -> Path:
    """Writes a tiny checkpoint as GGUF in float32, with the layout that llama.cpp gives it."""
    model = LlamaForCausalLM.from_pretrained(folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    tokens = sorted(tokenizer["vocab"], key=tokenizer["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(tokens) - 1))
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(0)
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    outside = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        if name in outside:
            writer.add_tensor(outside[name], tensor.numpy())
            continue
        _, _, layer, rest = name.split(".", 3)
        short = names[rest.removesuffix(".weight")]
        value = tensor.numpy()
        if short in heads:  # llama.cpp keeps the two halves of a rotary pair side by side
            halves = value.reshape(heads[short], 2, -1, value.shape[1])
            value = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(value.shape))
        writer.add_tensor(f"blk.{layer}.{short}.weight", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
