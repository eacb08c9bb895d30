"""Sites: the hook points at which neurons are read and ablated."""

from __future__ import annotations

from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.installed import WORLD
from relation_neurons.errors import UnknownSiteError, near_matches

__all__ = ["SITES", "neuron_count", "site_hook", "site_width"]

SITES = {
    "post": "blocks.{layer}.mlp.hook_post",
    "gate": "blocks.{layer}.mlp.hook_pre",
    "up": "blocks.{layer}.mlp.hook_pre_linear",
    "out": "blocks.{layer}.hook_mlp_out",
}
"""Where a neuron is read and ablated; `out` is a dimension of what the MLP writes."""


def site_hook(model: HookedModel, site: str, layer: int) -> str:
    """Gives the hook point of a site at one layer, making sure that the model has it.

    Raises:
        UnknownSiteError: no such site, or a model without it (`up` needs a gated MLP).
    """
    if site not in SITES:
        raise UnknownSiteError(f"No site {site!r}. {near_matches(site, SITES)}")
    name = SITES[site].format(layer=layer)
    if name not in WORLD.hook_points(model):
        raise UnknownSiteError(
            f"This model has no {name} for the site {site!r}; `up` needs a gated MLP. Use `post`."
        )
    return name


def site_width(model: HookedModel, site: str = "post") -> int:
    """Gives the neurons per layer at a site: d_mlp, or d_model at `out`."""
    site_hook(model, site, 0)
    return int(model.cfg.d_model if site == "out" else model.cfg.d_mlp)


def neuron_count(model: HookedModel, site: str = "post") -> int:
    """Gives the neurons of the whole model at a site."""
    return int(model.cfg.n_layers) * site_width(model, site)
