"""The TransformerLens that is installed: its world, chosen when this module loads."""

from __future__ import annotations

import importlib.metadata

from relation_neurons.backends.base import World

__all__ = ["WORLD"]


def _installed() -> World:
    major = int(importlib.metadata.version("transformer-lens").split(".")[0])
    if major < 4:
        from relation_neurons.backends.hooked_transformer import HookedTransformers

        return HookedTransformers()
    from relation_neurons.backends.transformer_bridge import Bridges

    return Bridges()


WORLD = _installed()
"""HookedTransformer on TransformerLens 3.9, TransformerBridge on 4.3 and later."""
