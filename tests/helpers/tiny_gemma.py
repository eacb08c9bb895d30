"""A tiny Gemma 3 as a GGUF file, with the names and the layout that llama.cpp gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf

from helpers import tiny_families

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
PIECES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES += [
    "\N{LOWER ONE EIGHTH BLOCK}",
    *"aeiodlrsth",
    "th",
    "the",
    "\N{LOWER ONE EIGHTH BLOCK}the",
]
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def gemma() -> Any:
    """Six layers, of which the last sees all tokens; a window shorter than the prompts."""
    return tiny_families.family(
        "Gemma 3",
        len(SPECIAL) + len(PIECES),
        num_hidden_layers=6,
        layer_types=None,
        query_pre_attn_scalar=256,  # no GGUF file holds it; transformers takes this one
    )


def write_gguf(model: Any, path: Path) -> Path:
    """Writes it in float32."""
    config = model.config
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_sliding_window(config.sliding_window)
    writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*SPECIAL, *PIECES])
    writer.add_token_scores([-float(place) for place in range(len(SPECIAL) + len(PIECES))])
    kinds = [gguf.TokenType.CONTROL] * 4 + [gguf.TokenType.BYTE] * 256
    kinds += [gguf.TokenType.NORMAL] * (len(PIECES) - 256)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(True)
    for name, tensor in model.state_dict().items():
        value = tensor.numpy()
        if name == "lm_head.weight":  # tied
            continue
        if name == "model.embed_tokens.weight":
            writer.add_tensor("token_embd.weight", value)
        elif name == "model.norm.weight":
            writer.add_tensor("output_norm.weight", value + 1)
        else:
            _, _, layer, rest = name.split(".", 3)
            short = NAMES[rest.removesuffix(".weight")]
            writer.add_tensor(f"blk.{layer}.{short}.weight", value + (1 if "norm" in short else 0))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
