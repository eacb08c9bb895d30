"""TransformerLens 4: a TransformerBridge around the Hugging Face model.

The bridge runs Hugging Face's own forward pass and puts hook points into it, so there is no conversion
of weights, and padded rows are given to Hugging Face with their mask and positions. Nothing is folded:
compatibility mode, which would, is left off.
"""

from __future__ import annotations

import copy
import warnings
import weakref
from collections.abc import Mapping
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
from relation_neurons.errors import ModelLoadError, UnknownOptionError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.exceptions import StopAtLayerException
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformer_lens.supported_models import OFFICIAL_MODEL_NAMES, get_official_model_name

__all__ = ["BridgeBackend"]

_POINTS: weakref.WeakKeyDictionary[nn.Module, Mapping[str, nn.Module]] = weakref.WeakKeyDictionary()


class BridgeBackend(Backend):
    """See `Backend`."""

    name = "TransformerBridge"
    versions = "TransformerLens 4.3 and later"
    kind = TransformerBridge
    known = OFFICIAL_MODEL_NAMES

    @override
    def official_name(self, name: str) -> str:
        return str(get_official_model_name(name))

    @override
    def takes(self, config: Any) -> bool:
        return (config.architectures or [""])[0] in SUPPORTED_ARCHITECTURES

    @override
    def needs_code(self) -> tuple[str, ...]:
        return ()  # Hugging Face reads every model here, and is told to run no code

    @override
    def wrap(self, hf_model: Any, name: str, dtype: torch.dtype) -> Any:
        """Bridges a Hugging Face model's own tensors.

        The bridge puts its components in the place of the model's, so what is bridged is a copy of the
        modules around the same storage; the caller's model stays what it was.
        """
        own = copy.deepcopy(hf_model, memo={id(t): _same_storage(t) for t in _tensors(hf_model)})
        _cast_weights(own, dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = build_bridge_from_module(
                own, own.config.architectures[0], hf_config=own.config, model_name=name
            )
        model.cfg.dtype = dtype
        return model.eval()

    @override
    def load_by_name(self, name: str, dtype: torch.dtype) -> Any:
        raise ModelLoadError(
            f"{name} has an architecture that the installed TransformerLens has no adapter for. Take a "
            "model of a family that docs/models.md lists."
        )

    @override
    def cast(self, model: Any, dtype: torch.dtype) -> None:
        _cast_weights(model, dtype)
        model.cfg.dtype = dtype

    @override
    def put(self, model: Any, device: torch.device) -> Any:
        return model.to(device, print_details=False)

    @override
    def spread(self, model: Any, count: int) -> Any:
        raise UnknownOptionError(
            f"A TransformerBridge runs on one device here, not on {count}. Give a smaller dtype or "
            "n_devices=1, or use TransformerLens 3.9, which spreads a model over several."
        )

    @override
    def set_tokenizer(self, model: Any, tokenizer: Any) -> None:
        """Keeps the tokenizer as it is; the bridge's setter would change it and the vocabulary's size."""
        model._tokenizer = tokenizer

    @override
    def hook_points(self, model: HookedModel) -> Mapping[str, nn.Module]:
        """Cached: the bridge gathers its hook points again each time, which takes longer than a pass."""
        found = _POINTS.get(_of(model))
        if found is None:
            found = _POINTS[_of(model)] = dict(_of(model).hook_dict)
        return found

    @override
    def residual(
        self, model: HookedModel, tokens: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch pos d_model"]:
        handle = self.hook_points(model)["ln_final.hook_in"].register_forward_hook(_Stop())
        try:
            return model(tokens, attention_mask=mask.long())
        finally:
            handle.remove()

    @override
    def logits(
        self, model: HookedModel, residual: Float[Tensor, "read d_model"]
    ) -> Float[Tensor, "read d_vocab"]:
        return _of(model).unembed(_of(model).ln_final(residual[None]))[0]

    @override
    def down_projection(self, model: HookedModel, layer: int) -> DownProjection:
        block = _of(model).blocks[layer]
        # In compatibility mode the bridge computes the MLP itself and leaves the projection out.
        processed = getattr(block.mlp, "_use_processed_weights", False)
        module = block.mlp if processed else block.mlp.out.original_component
        after = getattr(block, "ln2_post", None)
        return DownProjection(
            block.mlp.W_out,
            block.mlp.out.bias,
            module,
            None if after is None else _scale(model, after),
        )

    @override
    def final_norm(self, model: HookedModel) -> FinalNorm:
        norm = _of(model).ln_final
        return FinalNorm(_scale(model, norm), not norm.uses_rms_norm)

    @override
    def unembedding(self, model: HookedModel) -> Float[Tensor, "d_model d_vocab"]:
        return _of(model).unembed.weight.T

    @override
    def tree_parts(self, model: HookedModel) -> TreeParts | None:
        cfg, bridge = model.cfg, _of(model)
        plain = cfg.architecture == "LlamaForCausalLM" and cfg.n_devices == 1
        return _parts(bridge) if plain and not bridge.compatibility_mode else None


class _Stop:
    """Ends a pass where the final norm would begin."""

    def __call__(self, _module: Any, _inputs: Any, value: Tensor) -> None:
        raise StopAtLayerException(value)


def _of(model: HookedModel) -> Any:
    """The model, typed as the class that TransformerLens made."""
    return model


def _same_storage(tensor: Tensor) -> Tensor:
    """Another tensor over the same numbers, which can be moved or cast alone."""
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(tensor.detach(), requires_grad=False)
    return tensor.detach()


def _cast_weights(model: Any, dtype: torch.dtype) -> None:
    """Buffers, such as the frequencies of positions, keep their precision."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _scale(model: HookedModel, norm: Any) -> Tensor | None:
    """A norm's weight as a factor; Gemma keeps what it is above 1."""
    weight = getattr(norm.original_component, "weight", None)
    if weight is None:
        return None
    return 1 + weight if norm.uses_weight_offset else weight


def _parts(model: Any) -> TreeParts:
    def block(layer: int) -> TreeBlock:
        return _tree_block(model.blocks[layer])

    def rotation(
        depth: Int[Tensor, "batch pos"], _longest: int, _layer: int
    ) -> tuple[Float[Tensor, "batch pos d_head"], Float[Tensor, "batch pos d_head"]]:
        like = torch.empty(0, dtype=model.cfg.dtype, device=depth.device)
        cos, sin = model.rotary_emb.original_component(like, depth)
        return sin, cos

    embed, norm, unembed = (
        part.original_component for part in (model.embed, model.ln_final, model.unembed)
    )
    return TreeParts(embed, block, rotation, norm, (unembed.weight, unembed.bias))


def _tree_block(block: Any) -> TreeBlock:
    attention = block.attn.original_component
    q, k, v, o = (
        (linear.weight, linear.bias)
        for linear in (
            part.original_component
            for part in (block.attn.q, block.attn.k, block.attn.v, block.attn.o)
        )
    )
    norm = block.ln2.original_component
    return TreeBlock(
        norm=block.ln1.original_component,
        q=q,
        k=k,
        v=v,
        o=o,
        d_head=attention.head_dim,
        scale=attention.scaling,
        mlp=lambda x: block.mlp(norm(x)),
    )
