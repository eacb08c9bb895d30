"""Pools a neuron's values at the tokens of a prompt into one value.

Pads are masked, answers are never pooled, and the first attended position - an attention sink, BOS
or not - is left out unless asked for (method 5; pitfalls 1 and 3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relation_neurons.errors import ActivationError, UnknownOptionError, near_matches

__all__ = ["POOLS", "first_positions", "pool", "pool_paths", "pooled_positions"]

POOLS = ("mean", "last", "max", "include_first")
"""`include_first` is the mean over every real token, the paper's."""


def first_positions(mask: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    """Marks each row's first attended position."""
    return mask & (mask.cumsum(dim=1) == 1)


def pool(
    activations: Float[Tensor, "batch pos d_mlp"],
    mask: Bool[Tensor, "batch pos"],
    how: str = "mean",
    context: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch d_mlp"]:
    """Pools activations over the real tokens of each prompt.

    Args:
        activations: of left-padded rows.
        mask: True at real tokens.
        how: one of `POOLS`.
        context: how many of each row's first tokens are demonstrations, which are not pooled.

    Raises:
        ActivationError: a prompt of one token, which leaves nothing without the first position.
    """
    if how not in POOLS:
        raise UnknownOptionError(f"No pooling {how!r}. {near_matches(how, POOLS)}")
    values = activations.float()
    if how == "last":
        return values[:, -1]
    keep = pooled_positions(mask, how, context)
    counts = keep.sum(dim=1, keepdim=True)
    _require_tokens(counts)
    if how == "max":
        return values.masked_fill(~keep[..., None], -torch.inf).amax(dim=1)
    return values.masked_fill(~keep[..., None], 0.0).sum(dim=1) / counts


def pooled_positions(
    mask: Bool[Tensor, "batch pos"], how: str, context: Int[Tensor, " batch"] | None
) -> Bool[Tensor, "batch pos"]:
    """Marks the tokens that are pooled."""
    leave_out = torch.full((len(mask), 1), 0 if how == "include_first" else 1, device=mask.device)
    if context is not None:
        leave_out = torch.maximum(leave_out, context[:, None])
    return mask & (mask.cumsum(dim=1) > leave_out)


def pool_paths(
    activations: Float[Tensor, "token d_mlp"],
    paths: Int[Tensor, "prompt pos"],
    keep: Bool[Tensor, "prompt pos"],
    how: str = "mean",
) -> Float[Tensor, "prompt d_mlp"]:
    """Pools activations of prompts that share tokens.

    Args:
        activations: of all tokens of a batch.
        paths: where each prompt's tokens stand among them, left-padded.
        keep: the tokens that are pooled; see `pooled_positions`.
        how: one of `POOLS`.

    Raises:
        ActivationError: a prompt of one token, which leaves nothing without the first position.
    """
    if how == "last":
        return activations[paths[:, -1]].float()
    counts = keep.sum(dim=1)
    _require_tokens(counts)
    offsets = counts.cumsum(dim=0) - counts
    mode = "max" if how == "max" else "mean"
    return F.embedding_bag(paths[keep], activations.float(), offsets, mode=mode)


def _require_tokens(counts: Int[Tensor, "*prompt"]) -> None:
    if (counts == 0).any():
        raise ActivationError(
            "A prompt of one token has nothing to pool once the first position is left out. "
            "Use a longer template, or pool='include_first'."
        )
