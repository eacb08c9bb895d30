"""`BACKEND`, the backend of the installed TransformerLens, chosen when this module loads."""

from __future__ import annotations

import importlib.metadata

from relation_neurons.backends.base import Backend

__all__ = ["BACKEND"]


def _installed() -> Backend:
    major = int(importlib.metadata.version("transformer-lens").split(".")[0])
    if major < 4:
        from relation_neurons.backends.hooked_transformer import HookedTransformerBackend

        return HookedTransformerBackend()
    from relation_neurons.backends.transformer_bridge import BridgeBackend

    return BridgeBackend()


BACKEND = _installed()
"""HookedTransformer on TransformerLens 3.9, TransformerBridge on 4.3 and later."""
