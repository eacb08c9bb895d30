"""Tiny Llama-architecture checkpoints and relations, made in seconds and always the same."""

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


def train(model: LlamaForCausalLM, tokenizer, *, steps: int = 200) -> None:
    """Makes the model know one answer in eight not at all and the others in every template."""
    kept = [s for s in sentences() if not s.endswith((" Quito", " grey", " cake"))]
    batch = tokenizer(kept, return_tensors="pt", padding=True, padding_side="right")
    labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    model.train()
    for _ in range(steps):
        loss = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels
        ).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()


def checkpoint(folder: Path, *, trained: bool = True) -> Path:
    """Saves a tiny checkpoint in Hugging Face format."""
    tokenizer = byte_level_tokenizer()
    model = llama(tokenizer)
    if trained:
        train(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


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
