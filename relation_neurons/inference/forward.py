"""The forward pass over either kind of batch, and which hooks a model has.

Padded rows go through TransformerLens's own forward pass. Prefix trees go through a leaner one that
only Llama and Gemma 3 have here: the same weights and the same MLP with its hook points, fused
attention in between, and no hook point inside attention. So it is taken only where nobody has hooked
the model but this package.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from relation_neurons.backends.base import HookedModel, TreeBlock
from relation_neurons.backends.installed import BACKEND
from relation_neurons.errors import ContextLengthError
from relation_neurons.inference.batches import Batch, make_batches
from relation_neurons.inference.prefix_trees import TreeBatch, make_tree_batches
from relation_neurons.inference.stock_model import changed_module, current_hook_point

__all__ = [
    "attach",
    "attach_to",
    "final_residual",
    "hooked_at",
    "model_batches",
    "takes_trees",
    "tree_residual",
    "unembed",
    "unembed_parts",
]

_VOCABULARY_AT_ONCE = 1024
"""Tokens whose logits, at a few hundred positions, stay in a processor's cache until they are used."""


@dataclass(frozen=True)
class _OwnHook:
    """A hook of this package, which knows what a batch of prefix trees is."""

    name: str
    act: Callable[[Tensor, str], Tensor | None]

    def __call__(self, _module: Any, _inputs: Any, value: Tensor) -> Tensor | None:
        return self.act(value, self.name)


def attach(model: HookedModel, name: str, act: Callable[[Tensor, str], Tensor | None]) -> Any:
    """Hooks a hook point directly, so that nothing else resets or outlives it."""
    return attach_to(current_hook_point(model, name), name, act)


def attach_to(point: nn.Module, name: str, act: Callable[[Tensor, str], Tensor | None]) -> Any:
    """Hooks this very module under the name of a hook point."""
    return point.register_forward_hook(_OwnHook(name, act))


def final_residual(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos d_model"]:
    """Runs every block over padded rows and returns the residual stream after the last one."""
    _require_context(model, tokens.shape[1])
    return BACKEND.residual(model, tokens, mask)


def unembed(
    model: HookedModel, residual: Float[Tensor, "read d_model"]
) -> Float[Tensor, "read d_vocab"]:
    """Returns float32 logits for single positions of the final residual stream."""
    return _capped(model, BACKEND.logits(model, residual).float())


def unembed_parts(
    model: HookedModel, residual: Float[Tensor, "read d_model"]
) -> Iterator[tuple[slice, Float[Tensor, "read some"]]]:
    """Yields the logits of `unembed`, a part of the vocabulary at a time; the caller may change them.

    All at once on a GPU, and where the model does not `takes_trees`: then a hook may want to see them.
    """
    parts = BACKEND.tree_parts(model) if takes_trees(model) else None
    if parts is None or residual.device.type != "cpu":
        yield slice(0, model.cfg.d_vocab), unembed(model, residual)
        return
    hidden = parts.final_norm(residual[None])[0]
    weight, bias = parts.unembedding
    for start in range(0, len(weight), _VOCABULARY_AT_ONCE):
        here = slice(start, min(start + _VOCABULARY_AT_ONCE, len(weight)))
        logits = F.linear(hidden, weight[here], None if bias is None else bias[here])
        yield here, _capped(model, logits.float())


def _capped(model: HookedModel, logits: Float[Tensor, "read some"]) -> Float[Tensor, "read some"]:
    cap = model.cfg.output_logits_soft_cap
    return logits if cap is None or cap <= 0 else cap * torch.tanh(logits / cap)


def takes_trees(model: HookedModel) -> bool:
    """Whether the model runs batches of prefix trees with the outcome of padded rows.

    True for a Llama or a Gemma 3 on one device that nobody but this package has hooked, outside any
    ablation with a set per row.
    """
    unchanged = _forward_is_known(model) and not changed_module(model)
    return unchanged and not _hooked_by_others(model) and BACKEND.tree_parts(model) is not None


def model_batches(
    model: HookedModel,
    sequences: Sequence[Sequence[int]],
    answer_starts: Sequence[int] | None = None,
    *,
    batch_size: int,
    pad_id: int,
    tree_batch_size: int | None = None,
) -> list[Batch | TreeBatch]:
    """Batches sequences as the model takes them: as prefix trees, which are faster, or padded rows.

    Args:
        model: what `load_model` returns.
        sequences: tokens.
        answer_starts: the position of each prompt's last token; None: there are no answers.
        batch_size: see `make_batches` and `make_tree_batches`.
        pad_id: fills rows up.
        tree_batch_size: for prefix trees, where it is another one.
    """
    device = next(model.parameters()).device
    if not takes_trees(model):
        return [*make_batches(sequences, batch_size=batch_size, pad_id=pad_id, device=device)]
    size = batch_size if tree_batch_size is None else tree_batch_size
    return [
        *make_tree_batches(sequences, answer_starts, batch_size=size, pad_id=pad_id, device=device)
    ]


def hooked_at(model: HookedModel) -> str:
    """Names a module that is hooked or changed, or `forward` for the whole pass; empty where none is.

    Hooks of this package count too, and so does an ablation that is open.
    """
    if _ablations(model) or not _forward_is_known(model):
        return "forward"
    if changed := changed_module(model):
        return changed
    names = {id(point): name for name, point in BACKEND.hook_points(model).items()}
    for module in model.modules():
        if any(not _built_in(hook) for hook in _hooks(module)) or _backward_hooks(module):
            return names.get(id(module), type(module).__name__)
    return ""


def tree_residual(
    model: HookedModel,
    batch: TreeBatch,
    *,
    start: int = 0,
    residual: Float[Tensor, "batch pos d_model"] | None = None,
    keep: Collection[int] = (),
    read: Int[Tensor, " read"] | None = None,
) -> tuple[Float[Tensor, "row at d_model"], dict[int, Float[Tensor, "batch pos d_model"]]]:
    """Runs blocks over prefix trees; an ablation that is open applies.

    Args:
        model: a model that `takes_trees`.
        batch: the trees.
        start: the block to begin in, where the stream that enters its MLP is given.
        residual: that stream; by default all is run, from the tokens.
        keep: blocks for which the stream that enters their MLP is kept.
        read: positions of the flattened batch that are wanted, all by default. What the last block's
            MLP writes elsewhere nobody reads, so it is not run there.

    Returns:
        The stream after the last block, at [batch, pos] or at [1, read], and what was kept.
    """
    longest = int(batch.depth.max()) + 1
    _require_context(model, longest)
    parts = BACKEND.tree_parts(model)
    assert parts is not None
    kept: dict[int, Tensor] = {}
    ablations = _ablations(model)
    with contextlib.ExitStack() as stack:
        for ablation in ablations:
            stack.enter_context(ablation.over(batch))
        stream = parts.embed(batch.tokens) if residual is None else residual
        seen: dict[int | None, tuple[Tensor, tuple[Tensor, Tensor]]] = {}
        for layer in range(start, model.cfg.n_layers):
            block = parts.block(layer)
            if residual is None or layer > start:
                if block.window not in seen:  # layers of one window turn alike
                    sin, cos = (
                        part[:, None] for part in parts.rotation(batch.depth, longest, layer)
                    )
                    seen[block.window] = _visible(batch, block.window)[:, None], (sin, cos)
                attended = _attend(block, block.norm(stream), *seen[block.window])
                stream = stream + (attended if block.after is None else block.after(attended))
            if layer in keep:
                kept[layer] = stream
            if read is not None and layer == model.cfg.n_layers - 1:
                stream = stream.flatten(0, 1)[read][None]
                for ablation in ablations:
                    ablation.only_at(read)
            stream = stream + block.mlp(stream)
    return stream, kept


def _visible(batch: TreeBatch, window: int | None) -> Bool[Tensor, "batch pos pos"]:
    """Which tokens each token attends to: its ancestors, within the window where there is one."""
    if window is None or int(batch.depth.max()) < window:
        return batch.visible
    return batch.visible & (batch.depth[:, :, None] - batch.depth[:, None, :] < window)


def _attend(
    block: TreeBlock,
    x: Float[Tensor, "batch pos d_model"],
    visible: Bool[Tensor, "batch 1 pos pos"],
    rotation: tuple[Float[Tensor, "batch 1 pos d_head"], Float[Tensor, "batch 1 pos d_head"]],
) -> Float[Tensor, "batch pos d_model"]:
    """Attention in which each token attends to its ancestors."""
    q, k, v = (
        F.linear(x, *part).view(*x.shape[:2], -1, block.d_head).transpose(1, 2)
        for part in (block.q, block.k, block.v)
    )
    if block.head_norms is not None:
        q, k = block.head_norms[0](q), block.head_norms[1](k)
    q, k = _rotate(q, rotation), _rotate(k, rotation)
    heads = q.shape[1]
    shared = k.shape[1] != heads
    if shared and x.device.type != "cpu":  # elsewhere only some kernels share keys between heads
        k, v = (
            part[:, :, None]
            .expand(-1, -1, heads // part.shape[1], -1, -1)
            .reshape(len(part), heads, -1, block.d_head)
            for part in (k, v)
        )
        shared = False
    z = F.scaled_dot_product_attention(
        q, k, v, attn_mask=visible, scale=block.scale, enable_gqa=shared
    )
    return F.linear(z.transpose(1, 2).reshape(*x.shape[:2], -1), *block.o)


def _rotate(
    x: Float[Tensor, "batch head pos d_head"], rotation: tuple[Tensor, Tensor]
) -> Float[Tensor, "batch head pos d_head"]:
    sin, cos = rotation
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


def _require_context(model: HookedModel, longest: int) -> None:
    if longest > model.cfg.n_ctx:
        raise ContextLengthError(
            f"A prompt with its answer has {longest} tokens; this model reads "
            f"{model.cfg.n_ctx}. Shorten the template or drop the fact."
        )


def _forwards(model: HookedModel) -> Iterator[Any]:
    """The model's forward pass, wrapper by wrapper, the outermost first."""
    forward = vars(model).get("forward")
    while forward is not None:
        yield forward
        forward = getattr(forward, "__wrapped__", None)


def _ablations(model: HookedModel) -> list[Any]:
    """The ablations that are open, the innermost context first."""
    return [f.ablation for f in _forwards(model) if hasattr(f, "ablation")]


def _forward_is_known(model: HookedModel) -> bool:
    """Whether only ablations with one set for all rows wrap the model's forward pass."""
    for forward in _forwards(model):
        ablation = getattr(forward, "ablation", None)
        if ablation is None and getattr(forward, "__func__", None) is not type(model).forward:
            return False
        if ablation is not None and ablation.per_row:
            return False
    return True


def _hooked_by_others(model: HookedModel) -> bool:
    for module in model.modules():
        if any(not isinstance(hook, _OwnHook) and not _built_in(hook) for hook in _hooks(module)):
            return True
        if _backward_hooks(module):
            return True
    return False


def _hooks(module: nn.Module) -> list[Any]:
    return [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]


def _backward_hooks(module: nn.Module) -> bool:
    return bool(module._backward_hooks or module._backward_pre_hooks)


def _built_in(hook: Any) -> bool:
    """Hugging Face and the bridge register hooks on their own modules, for hook points and outputs.

    What a user hooks by the name of a hook point comes from elsewhere in TransformerLens.
    """
    home = str(getattr(hook, "__module__", ""))
    return home.startswith(("transformers.", "transformer_lens.model_bridge."))
