"""What the package needs from a hooked model, whichever TransformerLens is installed.

TransformerLens 3.9 makes a `HookedTransformer`, which has its own weights and forward pass;
TransformerLens 4 removed it and makes a `TransformerBridge` around the Hugging Face model. Both carry
the same hook points under the same names. What differs between them is a `Backend`; the rest of the
package is typed against `HookedModel` and knows neither class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

__all__ = ["Backend", "DownProjection", "FinalNorm", "HookedModel", "TreeBlock", "TreeParts"]


@runtime_checkable
class HookedModel(Protocol):
    """A language model with TransformerLens's hook points: what `load_model` returns."""

    cfg: Any
    """`n_layers`, `d_model`, `d_mlp`, `d_vocab`, `n_ctx`, `dtype`, `device`, `model_name`, …"""
    tokenizer: Any
    blocks: Any
    forward: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Logits for tokens, with `attention_mask` where rows are padded."""

    def hooks(self, *args: Any, **kwargs: Any) -> Any:
        """A context in which functions are hooked by the names of hook points."""

    def run_with_hooks(self, *args: Any, **kwargs: Any) -> Any:
        """One call under hooks."""

    def to_tokens(self, *args: Any, **kwargs: Any) -> Any:
        """Tokens of texts, as TransformerLens makes them."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The weights with their names."""

    def modules(self) -> Iterator[nn.Module]:
        """Every module, hook points included."""


@dataclass(frozen=True)
class DownProjection:
    """The matrix through which one layer's neurons write to the residual stream."""

    weight: Float[Tensor, "d_mlp d_model"]
    bias: Float[Tensor, " d_model"] | None
    module: nn.Module
    """What the model runs; its output is `neurons @ weight + bias`."""
    scale: Float[Tensor, " d_model"] | None = None
    """The weight of a norm between the projection and the stream (Gemma 3), None without one."""


@dataclass(frozen=True)
class FinalNorm:
    """The norm before the unembedding."""

    scale: Float[Tensor, " d_model"] | None
    """Its weight as a factor; None where it has none."""
    centred: bool
    """Whether it subtracts the mean (LayerNorm) or not (RMSNorm)."""


@dataclass(frozen=True)
class TreeBlock:
    """One block of a Llama or a Gemma 3, for passes over prefix trees."""

    norm: Callable[[Tensor], Tensor]
    q: tuple[Tensor, Tensor | None]
    """Weight [head x d_head, d_model] and bias."""
    k: tuple[Tensor, Tensor | None]
    v: tuple[Tensor, Tensor | None]
    o: tuple[Tensor, Tensor | None]
    """Weight [d_model, head x d_head] and bias."""
    d_head: int
    scale: float
    mlp: Callable[[Tensor], Tensor]
    """Norm and MLP, with the MLP's hook points."""
    head_norms: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] | None = None
    """Norms over d_head of queries and keys, before they are rotated (Gemma 3)."""
    after: Callable[[Tensor], Tensor] | None = None
    """A norm between attention and the stream (Gemma 3)."""
    window: int | None = None
    """How many tokens, itself included, each token sees; None for all before it."""


@dataclass(frozen=True)
class TreeParts:
    """A Llama or a Gemma 3 in parts."""

    embed: Callable[[Tensor], Tensor]
    block: Callable[[int], TreeBlock]
    rotation: Callable[[Int[Tensor, "batch pos"], int, int], tuple[Tensor, Tensor]]
    """Sine and cosine [batch, pos, d_head] of positions, of how many there may be, in a layer."""
    final_norm: Callable[[Tensor], Tensor]
    unembedding: tuple[Tensor, Tensor | None]
    """Weight [d_vocab, d_model] and bias."""


@runtime_checkable
class Backend(Protocol):
    """What differs between the versions of TransformerLens."""

    name: str
    """The class of its models."""
    versions: str
    kind: type
    """That class."""
    known: Sequence[str]
    """The names on the Hugging Face hub that it knows."""

    def names(self) -> list[str]:
        """The names that it knows, in order."""
        return sorted(self.known)

    def official_name(self, name: str) -> str:
        """The name on the hub for a name or an alias; ValueError where there is none."""

    def holds(self, model: nn.Module) -> bool:
        """Whether a model is one of its own."""
        return isinstance(model, self.kind)

    def takes(self, config: Any) -> bool:
        """Whether `wrap` takes a model of this Hugging Face config."""

    def needs_code(self) -> tuple[str, ...]:
        """The beginnings of names that TransformerLens would load with code from the hub."""

    def wrap(self, hf_model: Any, name: str, dtype: torch.dtype) -> Any:
        """Puts hooks around a Hugging Face model; tensors are copied only to change the dtype."""

    def load_by_name(self, name: str, dtype: torch.dtype) -> Any:
        """A model of the hub that `wrap` does not take, on the CPU."""

    def cast(self, model: Any, dtype: torch.dtype) -> None:
        """Changes a held model's dtype."""

    def put(self, model: Any, device: torch.device) -> Any:
        """Moves a model to a device."""

    def spread(self, model: Any, count: int) -> Any:
        """Puts a model's blocks on several devices, from `cfg.device` on."""

    def set_tokenizer(self, model: Any, tokenizer: Any) -> None:
        """Sets the model's tokenizer, unchanged."""

    def hook_points(self, model: HookedModel) -> Mapping[str, nn.Module]:
        """Every hook point by its name."""

    def residual(
        self, model: HookedModel, tokens: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream after the last block, for padded rows."""

    def logits(
        self, model: HookedModel, residual: Float[Tensor, "read d_model"]
    ) -> Float[Tensor, "read d_vocab"]:
        """Final norm, unembedding and soft cap."""

    def down_projection(self, model: HookedModel, layer: int) -> DownProjection:
        """A layer's down projection."""

    def final_norm(self, model: HookedModel) -> FinalNorm:
        """The norm before the unembedding."""

    def unembedding(self, model: HookedModel) -> Float[Tensor, "d_model d_vocab"]:
        """The unembedding."""

    def tree_parts(self, model: HookedModel) -> TreeParts | None:
        """The parts of a plain Llama or Gemma 3; None for any other architecture."""
