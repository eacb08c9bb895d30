"""Saves the planted model as a Hugging Face folder: a word-level tokenizer and weights."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers import models as tokenizer_models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from relation_neurons.planted.facts import vocabulary
from relation_neurons.planted.weights import LAYERS, residual_width, set_weights
from relation_neurons.storage.files import share

__all__ = ["save_checkpoint"]

_SPECIAL = ("[UNK]", "[PAD]", "<s>")


def save_checkpoint(folder: Path, facts: pd.DataFrame, truth: pd.DataFrame, seed: int) -> None:
    """Saves the model of these facts and neurons."""
    words = [*_SPECIAL, *vocabulary(facts)]
    ids = {word: i for i, word in enumerate(words)}
    _tokenizer(ids).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=residual_width(facts),
        intermediate_size=int(truth["neuron"].max()) + 1,
        num_hidden_layers=LAYERS,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=128,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
        bos_token_id=ids["<s>"],
        eos_token_id=ids["[PAD]"],
        pad_token_id=ids["[PAD]"],
    )
    with torch.device("meta"):  # shapes only
        shapes = {
            name: value.shape for name, value in LlamaForCausalLM(config).state_dict().items()
        }
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    set_weights(state, words, facts, truth, seed)
    config.save_pretrained(folder)
    weights = folder / "model.safetensors"
    save_file(state, weights, metadata={"format": "pt"})
    share(weights)


def _tokenizer(ids: dict[str, int]) -> PreTrainedTokenizerFast:
    """A token a word, and `<s>` before the first."""
    tokenizer = Tokenizer(tokenizer_models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", ids["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        bos_token="<s>",
        eos_token="[PAD]",
    )
