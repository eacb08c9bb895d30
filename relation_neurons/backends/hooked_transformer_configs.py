"""Configs for HookedTransformer, built from Hugging Face's own, family by family.

Only options that the weight conversions of TransformerLens carry over are taken; any other is refused
here, or by the comparison with Hugging Face when the model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from relation_neurons.errors import ModelLoadError

__all__ = ["CONFIGS", "hooked_config"]


def hooked_config(config: Any, name: str, dtype: torch.dtype) -> dict[str, Any]:
    """Builds TransformerLens's config from the checkpoint's.

    Raises:
        ModelLoadError: an option that the conversion of the weights would drop.
    """
    architecture = config.architectures[0]
    return {
        "model_name": name,
        "original_architecture": architecture,
        "dtype": dtype,
        "init_weights": False,
        "device": "cpu",
        "d_vocab": config.vocab_size,
        **CONFIGS[architecture](config, name),
    }


def _sizes(config: Any) -> dict[str, Any]:
    """What the configs of all families but GPT-2 call by the same names."""
    heads = config.num_attention_heads
    return {
        "d_model": config.hidden_size,
        "d_head": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "n_heads": heads,
        "d_mlp": config.intermediate_size,
        "n_layers": config.num_hidden_layers,
        "n_ctx": config.max_position_embeddings,
        "positional_embedding_type": "rotary",
        "rotary_adjacent_pairs": False,
    }


def _rms(config: Any, name: str) -> dict[str, Any]:
    """RMSNorm, grouped queries and a gated MLP without biases: Llama and its kin."""
    _require_absent(config, name, "attention_bias", "mlp_bias")
    sizes = _sizes(config)
    grouped = config.num_key_value_heads != config.num_attention_heads
    return sizes | {
        "n_key_value_heads": config.num_key_value_heads if grouped else None,
        "eps": config.rms_norm_eps,
        "act_fn": getattr(config, "hidden_act", None),
        "normalization_type": "RMS",
        "final_rms": True,
        "gated_mlp": True,
        "rotary_dim": sizes["d_head"],
    }


def _llama(config: Any, name: str) -> dict[str, Any]:
    rope = _rope(config, name, "default", "llama3")
    fields = _rms(config, name) | {"rotary_base": rope["rope_theta"]}
    if rope.get("rope_type") == "llama3":
        fields |= {
            "use_NTK_by_parts_rope": True,
            "NTK_original_ctx_len": rope.get(
                "original_max_position_embeddings", config.max_position_embeddings
            ),
            "NTK_by_parts_low_freq_factor": rope.get("low_freq_factor", 1.0),
            "NTK_by_parts_high_freq_factor": rope.get("high_freq_factor", 4.0),
            "NTK_by_parts_factor": rope.get("factor", 1.0),
        }
    return fields


def _mistral(config: Any, name: str) -> dict[str, Any]:
    fields = _rms(config, name) | {"rotary_base": _rope(config, name)["rope_theta"]}
    # Its conversion names the keys as for grouped queries, grouped or not.
    fields["n_key_value_heads"] = config.num_key_value_heads
    return fields | _windows(config, [bool(config.sliding_window)] * config.num_hidden_layers)


def _qwen3(config: Any, name: str) -> dict[str, Any]:
    _require_absent(config, name, "use_sliding_window")
    base = _rope(config, name)["rope_theta"]
    return _rms(config, name) | {"rotary_base": base, "use_qk_norm": True}


def _gemma3(config: Any, name: str) -> dict[str, Any]:
    _require_absent(config, name, "attn_logit_softcapping", "final_logit_softcapping")
    ropes = config.rope_parameters
    for rope in ropes.values():
        if rope.get("rope_type", "default") != "default":
            raise _refused(name, f"scales its positions by {rope['rope_type']!r}")
    local = [kind == "sliding_attention" for kind in config.layer_types]
    fields = _rms(config, name) | {
        "n_key_value_heads": config.num_key_value_heads,
        "act_fn": config.hidden_activation,
        "rotary_base": ropes["full_attention"]["rope_theta"],
        "rotary_base_local": ropes["sliding_attention"]["rope_theta"],
        "attn_scale": config.query_pre_attn_scalar**0.5,
        "use_qk_norm": True,
        "use_normalization_before_and_after": True,
    }
    return fields | _windows(config, local)


def _gpt2(config: Any, name: str) -> dict[str, Any]:
    _require_absent(config, name, "add_cross_attention")
    return {
        "d_model": config.n_embd,
        "d_head": config.n_embd // config.n_head,
        "n_heads": config.n_head,
        "d_mlp": config.n_inner or 4 * config.n_embd,
        "n_layers": config.n_layer,
        "n_ctx": config.n_positions,
        "eps": config.layer_norm_epsilon,
        "act_fn": config.activation_function,
        "use_attn_scale": config.scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": config.scale_attn_by_inverse_layer_idx,
        "normalization_type": "LN",
    }


def _layer_norm(config: Any, name: str, share: float) -> dict[str, Any]:
    """LayerNorm, and rotary positions over a share of each head's dimensions."""
    rope, sizes = _rope(config, name), _sizes(config)
    return sizes | {
        "act_fn": config.hidden_act,
        "normalization_type": "LN",
        "rotary_dim": round(rope.get("partial_rotary_factor", share) * sizes["d_head"]),
        "rotary_base": rope["rope_theta"],
    }


def _neox(config: Any, name: str) -> dict[str, Any]:
    if not getattr(config, "attention_bias", True):
        raise _refused(name, "has no biases in attention, which the conversion expects")
    return _layer_norm(config, name, getattr(config, "rotary_pct", 0.25)) | {
        "eps": config.layer_norm_eps,
        "parallel_attn_mlp": config.use_parallel_residual,
    }


def _phi(config: Any, name: str) -> dict[str, Any]:
    _require_absent(config, name, "qk_layernorm")
    _require_ungrouped(config, name)
    return _layer_norm(config, name, getattr(config, "partial_rotary_factor", 0.5)) | {
        "eps": config.layer_norm_eps,
        "parallel_attn_mlp": True,
    }


def _olmo(config: Any, name: str) -> dict[str, Any]:
    _require_absent(config, name, "attention_bias", "clip_qkv")
    _require_ungrouped(config, name)
    return _layer_norm(config, name, 1.0) | {"eps": 1e-5, "gated_mlp": True}


CONFIGS: dict[str, Callable[[Any, str], dict[str, Any]]] = {
    "LlamaForCausalLM": _llama,
    "GPT2LMHeadModel": _gpt2,
    "GPTNeoXForCausalLM": _neox,
    "MistralForCausalLM": _mistral,
    "Qwen3ForCausalLM": _qwen3,
    "Gemma3ForCausalLM": _gemma3,
    "PhiForCausalLM": _phi,
    "OlmoForCausalLM": _olmo,
}
"""How each architecture's config is read; the architectures of which any checkpoint is taken."""


def _windows(config: Any, local: list[bool]) -> dict[str, Any]:
    """Sliding windows in some layers."""
    if not any(local):
        return {}
    kinds = ["local" if here else "global" for here in local]
    return {"use_local_attn": True, "window_size": config.sliding_window, "attn_types": kinds}


def _rope(config: Any, name: str, *kinds: str) -> dict[str, Any]:
    rope = dict(
        getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    )
    kind = rope.get("rope_type", "default")
    if kind not in (kinds or ("default",)):
        raise _refused(name, f"scales its positions by {kind!r}")
    base = getattr(config, "rope_theta", None) or getattr(config, "rotary_emb_base", None)
    return {"rope_theta": base or 10000.0, **rope}


def _require_absent(config: Any, name: str, *options: str) -> None:
    for option in options:
        if getattr(config, option, None):
            raise _refused(name, f"has {option} = {getattr(config, option)!r}")


def _require_ungrouped(config: Any, name: str) -> None:
    if config.num_key_value_heads not in (None, config.num_attention_heads):
        raise _refused(name, "groups its queries, which this family's conversion does not know")


def _refused(name: str, what: str) -> ModelLoadError:
    return ModelLoadError(
        f"{name} {what}; the conversion to a HookedTransformer would drop or lack that. With "
        "TransformerLens 4.3 or later it runs as it is: pip install -c constraints-tl4.txt."
    )
