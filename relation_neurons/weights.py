"""Weights: what neurons write, and which weights a model has."""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor

from relation_neurons.lens import HookedTransformer
from relation_neurons.sites import site_hook

__all__ = ["logit_weights", "output_direction", "output_norms", "weight_hash"]


def output_norms(model: HookedTransformer, site: str = "post") -> Float[Tensor, "layer d_mlp"]:
    """Gives the norm of what one unit of each neuron writes to the residual stream (1 at `out`)."""
    if site == "out":
        return torch.ones(model.cfg.n_layers, model.cfg.d_model)
    return torch.stack([block.mlp.W_out.float().norm(dim=1).cpu() for block in model.blocks])


def output_direction(
    model: HookedTransformer, layer: int, neuron: int, site: str = "post"
) -> Float[Tensor, " d_model"]:
    """Gives what one unit of a neuron writes to the residual stream, in float32.

    That is `W_out[layer, neuron]`, also at `gate` and `up`; at `out`, the dimension itself.
    """
    site_hook(model, site, layer)
    if site == "out":
        direction = torch.zeros(model.cfg.d_model)
        direction[neuron] = 1.0
        return direction
    return model.blocks[layer].mlp.W_out[neuron].detach().float().cpu()


def logit_weights(
    model: HookedTransformer, direction: Float[Tensor, " d_model"]
) -> Float[Tensor, " d_vocab"]:
    """Gives what a direction of the residual stream adds to each token's logit, up to a scale.

        logit weight of token t = sum over i of direction[i] * g[i] * W_U[i, t]

    with g the final norm's weight. The norm's division by the stream's root mean square is left
    out: it is one positive number for all tokens, so their order is right and the unit is not
    logits. (A LayerNorm also subtracts the direction's mean.) Biases are no part of a direction.
    """
    norm = str(model.cfg.normalization_type or "")
    weighted = direction.float()
    if norm.startswith("LN"):
        weighted = weighted - weighted.mean()
    scale = getattr(getattr(model, "ln_final", None), "w", None)
    if scale is not None:
        weighted = weighted * scale.detach().float().cpu()
    unembedding = model.unembed.W_U.detach()
    return (weighted.to(unembedding.device) @ unembedding.float()).cpu()


def weight_hash(model: HookedTransformer) -> str:
    """SHA-256 over every parameter's name, dtype, shape and bytes."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name}|{parameter.dtype}|{tuple(parameter.shape)}|".encode())
        flat = parameter.detach().contiguous().cpu().flatten()
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()
