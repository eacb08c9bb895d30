"""TransformerLens 3.9: a HookedTransformer, with weights converted from Hugging Face."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from typing_extensions import override

from relation_neurons.backends.base import (
    Backend,
    DownProjection,
    FinalNorm,
    HookedModel,
    TreeBlock,
    TreeParts,
)
from relation_neurons.backends.hooked_transformer_configs import CONFIGS, hooked_config
from relation_neurons.errors import HookError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.loading_from_pretrained import (
        NEED_REMOTE_CODE_MODELS,
        OFFICIAL_MODEL_NAMES,
        get_official_model_name,
    )
    from transformer_lens.pretrained import weight_conversions
    from transformer_lens.utilities import get_device_for_block_index

__all__ = ["HookedTransformerBackend"]

_CONVERSIONS = {
    "LlamaForCausalLM": weight_conversions.convert_llama_weights,
    "GPT2LMHeadModel": weight_conversions.convert_gpt2_weights,
    "GPTNeoXForCausalLM": weight_conversions.convert_neox_weights,
    "MistralForCausalLM": weight_conversions.convert_mistral_weights,
    "Qwen3ForCausalLM": weight_conversions.convert_qwen3_weights,
    "Gemma3ForCausalLM": weight_conversions.convert_gemma_weights,
    "PhiForCausalLM": weight_conversions.convert_phi_weights,
    "OlmoForCausalLM": weight_conversions.convert_olmo_weights,
}


class HookedTransformerBackend(Backend):
    """See `Backend`."""

    name = "HookedTransformer"
    versions = "TransformerLens 3.9"
    kind = HookedTransformer
    known = OFFICIAL_MODEL_NAMES

    @override
    def official_name(self, name: str) -> str:
        return str(get_official_model_name(name))

    @override
    def takes(self, config: Any) -> bool:
        return (config.architectures or [""])[0] in CONFIGS

    @override
    def needs_code(self) -> tuple[str, ...]:
        return tuple(NEED_REMOTE_CODE_MODELS)

    @override
    def wrap(self, hf_model: Any, name: str, dtype: torch.dtype) -> Any:
        """Puts a Hugging Face model's own tensors behind hooks.

        For Llama there is no second copy: the parameters become views of the Hugging Face tensors, in
        their layout; TransformerLens then finds the layout that it would otherwise make again in each pass.
        """
        cfg = HookedTransformerConfig.from_dict(hooked_config(hf_model.config, name, dtype))
        convert = _CONVERSIONS[cfg.original_architecture]
        weights = {key: value.detach().to(dtype) for key, value in convert(hf_model, cfg).items()}
        with _quiet():
            model = HookedTransformer(cfg, tokenizer=None, move_to_device=False)
        state = model.state_dict()
        for key in state.keys() - weights.keys():  # a bias that the family does not have
            if key.rsplit(".", 1)[-1].lstrip("_").startswith("b_"):
                weights[key] = torch.zeros_like(state[key])
        state.update(weights)
        model.load_state_dict(state, assign=True)
        model.requires_grad_(False)
        return model.eval()

    @override
    def load_by_name(self, name: str, dtype: torch.dtype) -> Any:
        with _quiet():
            model = HookedTransformer.from_pretrained_no_processing(
                name, dtype=dtype, device="cpu", use_safetensors=True
            )
        model.requires_grad_(False)
        return model.eval()

    @override
    def cast(self, model: Any, dtype: torch.dtype) -> None:
        model.to(dtype, print_details=False)

    @override
    def put(self, model: Any, device: torch.device) -> Any:
        return model.to(device, print_details=False)

    @override
    def spread(self, model: Any, count: int) -> Any:
        """Embedding first, the blocks in equal shares, and what reads the stream where it ends."""
        model.cfg.n_devices = count
        last = get_device_for_block_index(model.cfg.n_layers - 1, model.cfg)
        for name, module in model.named_children():
            if name == "blocks":
                for layer, block in enumerate(module):
                    block.to(get_device_for_block_index(layer, model.cfg))
            else:
                module.to(
                    last if name in ("ln_final", "unembed") else torch.device(model.cfg.device)
                )
        return model

    @override
    def set_tokenizer(self, model: Any, tokenizer: Any) -> None:
        """Keeps the tokenizer as it is; TransformerLens would add a BOS to it."""
        model.tokenizer = tokenizer

    @override
    def hook_points(self, model: HookedModel) -> Mapping[str, nn.Module]:
        return _of(model).hook_dict

    @override
    def residual(
        self, model: HookedModel, tokens: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch pos d_model"]:
        return model(tokens, attention_mask=mask.long(), stop_at_layer=model.cfg.n_layers)

    @override
    def logits(
        self, model: HookedModel, residual: Float[Tensor, "read d_model"]
    ) -> Float[Tensor, "read d_vocab"]:
        hidden = residual[None]
        if model.cfg.normalization_type is not None:
            hidden = _of(model).ln_final(hidden)
        return _of(model).unembed(hidden)[0]

    @override
    def down_projection(self, model: HookedModel, layer: int) -> DownProjection:
        block = _of(model).blocks[layer]
        mlp = _with(block, "W_out", layer)
        norm_behind = model.cfg.use_normalization_before_and_after
        after = _with(block, "ln2_post", layer).ln2_post.w if norm_behind else None
        return DownProjection(mlp.W_out, mlp.b_out, mlp, after)

    @override
    def final_norm(self, model: HookedModel) -> FinalNorm:
        scale = getattr(getattr(model, "ln_final", None), "w", None)
        return FinalNorm(scale, str(model.cfg.normalization_type or "").startswith("LN"))

    @override
    def unembedding(self, model: HookedModel) -> Float[Tensor, "d_model d_vocab"]:
        return _of(model).unembed.W_U

    @override
    def tree_parts(self, model: HookedModel) -> TreeParts | None:
        cfg = model.cfg
        gemma = cfg.original_architecture == "Gemma3ForCausalLM"
        plain = (
            (gemma or cfg.original_architecture == "LlamaForCausalLM")
            and cfg.gated_mlp
            and cfg.positional_embedding_type == "rotary"
            and not cfg.rotary_adjacent_pairs
            and cfg.rotary_dim == cfg.d_head
            and cfg.n_devices == 1
            and (gemma or not cfg.use_local_attn)
            and cfg.use_qk_norm == cfg.use_normalization_before_and_after == gemma
            and cfg.attn_scores_soft_cap <= 0
        )
        return _parts(_of(model)) if plain else None


def _of(model: HookedModel) -> Any:
    """The model, typed as the class that TransformerLens made."""
    return model


def _with(block: nn.Module, name: str, layer: int) -> Any:
    """The one module in a block that has a weight or a norm, behind whatever was wrapped round it."""
    inside = [one for one in block.modules() if not isinstance(one, nn.ModuleDict)]
    found = [one for one in inside if name in (*one._parameters, *one._modules)]
    found = found or [one for one in inside if hasattr(one, name)]  # a parametrised weight
    if len(found) != 1:
        raise HookError(
            f"Block {layer} has {len(found)} modules with {name}, where one was expected: it was replaced by "
            "something that is no block of TransformerLens. Wrap the block or its MLP, so that the original "
            "stays inside."
        )
    return found[0]


def _parts(model: Any) -> TreeParts:
    def block(layer: int) -> TreeBlock:
        return _tree_block(model.blocks[layer])

    def rotation(
        depth: Int[Tensor, "batch pos"], longest: int, layer: int
    ) -> tuple[Float[Tensor, "batch pos d_head"], Float[Tensor, "batch pos d_head"]]:
        attention, cfg = model.blocks[layer].attn, model.cfg
        sin, cos = attention.rotary_sin, attention.rotary_cos
        if len(sin) < longest:
            sin, cos = attention.calculate_sin_cos_rotary(
                cfg.rotary_dim, longest, base=attention._rotary_base(), dtype=cfg.dtype
            )
        return sin.to(depth.device)[depth], cos.to(depth.device)[depth]

    unembed = model.unembed
    return TreeParts(model.embed, block, rotation, model.ln_final, (unembed.W_U.T, unembed.b_U))


def _tree_block(block: Any) -> TreeBlock:
    attention = block.attn
    own = "_" if hasattr(attention, "_W_K") else ""  # of the groups, not repeated for each head
    heads, d_model, width = attention.W_Q.shape
    q, k, v = (
        (
            _flat(getattr(attention, f"{mark}W_{name}")),
            getattr(attention, f"{mark}b_{name}").flatten(),
        )
        for mark, name in (("", "Q"), (own, "K"), (own, "V"))
    )
    out = attention.W_O.reshape(heads * width, d_model).T
    gemma = block.cfg.use_normalization_before_and_after
    return TreeBlock(
        norm=block.ln1,
        q=q,
        k=k,
        v=v,
        o=(out, attention.b_O),
        d_head=width,
        scale=1 / attention.attn_scale,
        mlp=lambda x: block.apply_mlp(block.ln2(x)),
        head_norms=(attention.q_norm, attention.k_norm) if gemma else None,
        after=block.ln1_post if gemma else None,
        window=block.cfg.window_size if attention.attn_type == "local" else None,
    )


def _flat(weight: Float[Tensor, "head d_model d_head"]) -> Float[Tensor, "out d_model"]:
    """A view where the checkpoint's layout is kept."""
    heads, d_model, width = weight.shape
    return weight.transpose(1, 2).reshape(heads * width, d_model)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides TransformerLens's print and its deprecation warnings."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield
