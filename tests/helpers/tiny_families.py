"""Tiny random checkpoints of each family, from Hugging Face configs, always the same."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OlmoConfig,
    PhiConfig,
    Qwen3Config,
)

_ROTARY = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
_GROUPED = {**_ROTARY, "num_key_value_heads": 2}

FAMILIES: dict[str, tuple[type, dict[str, Any]]] = {
    "Llama": (LlamaConfig, _GROUPED),
    "GPT-2": (GPT2Config, {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "Pythia": (GPTNeoXConfig, {**_ROTARY, "rotary_pct": 0.5}),
    "Mistral": (MistralConfig, {**_GROUPED, "sliding_window": 8, "head_dim": 16}),
    "Qwen 3": (Qwen3Config, {**_GROUPED, "head_dim": 16}),
    "Gemma 3": (
        Gemma3TextConfig,
        {
            **_GROUPED,
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "tie_word_embeddings": True,
        },
    ),
    "Phi": (PhiConfig, _ROTARY),
    "OLMo": (OlmoConfig, _ROTARY),
}
"""Each family's config and its sizes; windows are shorter than the prompts, so that they matter."""


def family(name: str, vocab: int, *, seed: int = 0, **changes: Any) -> Any:
    """A random model of three layers with 96 neurons each (192 for GPT-2)."""
    kind, sizes = FAMILIES[name]
    return random_model(kind(vocab_size=vocab, **{**sizes, **changes}), seed)


def mixture(vocab: int) -> Any:
    """A mixture of experts."""
    return random_model(MixtralConfig(vocab_size=vocab, **_GROUPED, num_local_experts=2), 0)


def random_model(config: Any, seed: int) -> Any:
    """Weights, biases and norms drawn wider than at initialisation, so that each of them matters."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * (0.1 if parameter.ndim > 1 else 0.2))
    model.config.architectures = [type(model).__name__]
    return model
