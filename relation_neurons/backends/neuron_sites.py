"""Hook points of neurons, what neurons write, logit weights, and the hash of a model's weights."""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor

from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.installed import BACKEND
from relation_neurons.errors import UnknownSiteError, near_matches

__all__ = [
    "SITES",
    "logit_weights",
    "neuron_count",
    "output_direction",
    "output_norms",
    "site_hook",
    "site_width",
    "weight_hash",
]

SITES = {
    "post": "blocks.{layer}.mlp.hook_post",
    "gate": "blocks.{layer}.mlp.hook_pre",
    "up": "blocks.{layer}.mlp.hook_pre_linear",
    "out": "blocks.{layer}.hook_mlp_out",
}
"""Where a neuron is read and ablated; `out` is a dimension of what the MLP writes."""


def site_hook(model: HookedModel, site: str, layer: int) -> str:
    """Returns the name of a site's hook point at one layer.

    Raises:
        UnknownSiteError: no such site, or a model without it (`up` needs a gated MLP).
    """
    if site not in SITES:
        raise UnknownSiteError(f"No site {site!r}. {near_matches(site, SITES)}")
    name = SITES[site].format(layer=layer)
    if name not in BACKEND.hook_points(model):
        raise UnknownSiteError(
            f"This model has no {name} for the site {site!r}; `up` needs a gated MLP. Use `post`."
        )
    return name


def site_width(model: HookedModel, site: str = "post") -> int:
    """Returns the neurons per layer at a site: d_mlp, or d_model at `out`."""
    site_hook(model, site, 0)
    return int(model.cfg.d_model if site == "out" else model.cfg.d_mlp)


def neuron_count(model: HookedModel, site: str = "post") -> int:
    """Returns the neurons of the whole model at a site."""
    return int(model.cfg.n_layers) * site_width(model, site)


def output_norms(model: HookedModel, site: str = "post") -> Float[Tensor, "layer d_mlp"]:
    """Returns the norm of what one unit of each neuron writes to the residual stream (1 at `out`).

    Where a norm stands behind the MLP (Gemma 3), its weight counts and its division does not: that is
    one positive number for all neurons of a layer at a token.
    """
    layers = int(model.cfg.n_layers)
    if site == "out":
        return torch.ones(layers, model.cfg.d_model)
    return torch.stack([_rows(model, layer).norm(dim=1).cpu() for layer in range(layers)])


def output_direction(
    model: HookedModel, layer: int, neuron: int, site: str = "post"
) -> Float[Tensor, " d_model"]:
    """Returns what one unit of a neuron writes to the residual stream, in float32.

    That is `W_out[layer, neuron]`, times the weight of the norm behind the MLP where there is one; also
    at `gate` and `up`. At `out` it is the dimension itself.
    """
    site_hook(model, site, layer)
    if site == "out":
        direction = torch.zeros(model.cfg.d_model)
        direction[neuron] = 1.0
        return direction
    return _rows(model, layer, neuron).cpu()


def _rows(
    model: HookedModel, layer: int, neuron: int | slice = slice(None)
) -> Float[Tensor, "*neuron d_model"]:
    """Rows of a layer's down projection, in float32."""
    down = BACKEND.down_projection(model, layer)
    rows = down.weight[neuron].detach().float()
    return rows if down.scale is None else rows * down.scale.detach().float()


def logit_weights(
    model: HookedModel, direction: Float[Tensor, " d_model"]
) -> Float[Tensor, " d_vocab"]:
    """Returns what a direction of the residual stream adds to each token's logit, up to a scale.

        logit weight of token t = sum over i of direction[i] * g[i] * W_U[i, t]

    with g the final norm's weight. The norm's division by the stream's root mean square is left
    out: it is one positive number for all tokens, so their order is right and the unit is not
    logits. (A LayerNorm also subtracts the direction's mean.) A direction has no biases.
    """
    norm = BACKEND.final_norm(model)
    weighted = direction.float()
    if norm.centred:
        weighted = weighted - weighted.mean()
    if norm.scale is not None:
        weighted = weighted * norm.scale.detach().float().cpu()
    unembedding = BACKEND.unembedding(model).detach()
    return (weighted.to(unembedding.device) @ unembedding.float()).cpu()


def weight_hash(model: HookedModel) -> str:
    """SHA-256 over every parameter's name, dtype, shape and bytes."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name}|{parameter.dtype}|{tuple(parameter.shape)}|".encode())
        flat = parameter.detach().contiguous().cpu().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
