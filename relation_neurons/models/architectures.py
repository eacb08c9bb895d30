"""Architectures: where Hugging Face keeps the down projection of each, and which have no neurons here.

A mixture of experts is refused. Its experts have hidden units, but a token meets only a few of them,
so a unit has no activation at most tokens and there is no table of one value per prompt and neuron.
"""

from __future__ import annotations

from typing import Any

from relation_neurons.errors import ModelLoadError

__all__ = ["architecture_of", "down_projection_path", "require_dense"]

_DOWN = {
    "GPT2LMHeadModel": "transformer.h.{}.mlp.c_proj",
    "GPTNeoXForCausalLM": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    "PhiForCausalLM": "model.layers.{}.mlp.fc2",
}
_USUAL = "model.layers.{}.mlp.down_proj"

_EXPERTS = (
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "moe_num_experts",
    "num_routed_experts",
    "moe_intermediate_size",
)
"""What configs call the number of experts, or their size."""


def architecture_of(config: Any) -> str:
    """The class that a checkpoint's config names, or the kind of its config."""
    return str((getattr(config, "architectures", None) or [config.model_type])[0])


def down_projection_path(architecture: str, layer: int) -> str:
    """Where Hugging Face keeps a layer's down projection."""
    return _DOWN.get(architecture, _USUAL).format(layer)


def require_dense(config: Any, name: str) -> None:
    """Refuses a mixture of experts.

    Raises:
        ModelLoadError: it is one; why that does not go is said.
    """
    text = getattr(config, "text_config", config)
    found = [option for option in _EXPERTS if getattr(text, option, None)]
    if found:
        raise ModelLoadError(
            f"{name} is a mixture of experts ({found[0]} = {getattr(text, found[0])}): each token is sent "
            "to a few experts, so most neurons have no activation at most tokens, and what ablating one "
            "does depends on where tokens are sent. Neurons are defined here for dense MLPs; take a "
            "dense model."
        )
