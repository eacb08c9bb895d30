"""Where a model came from, and whether it has changed since."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relation_neurons.backends.base import HookedModel

__all__ = ["change_since_loaded", "fingerprints", "keep_source", "loaded_from", "note_source"]

_AT_ONCE = 1 << 22
"""Numbers of a tensor that are summed at once, in eight bytes each."""
_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def loaded_from(model: Any) -> str | None:
    """What `load_model` was given, from which another process can load the same; None if it was held."""
    return getattr(model, "loaded_from", None)


def note_source(source: str | None, model: Any) -> HookedModel:
    """Notes what a model was loaded from; None where another process cannot load the same."""
    model.loaded_from = source
    model.loaded_fingerprints = None if source is None else fingerprints(model)
    return model


def keep_source(source: str | None, changed: str, model: Any) -> HookedModel:
    """Notes the source of a model that was loaded before; one that was changed since stays changed.

    Args:
        source: None where another process cannot load the same.
        changed: what `change_since_loaded` returned before it was loaded again.
        model: the model.
    """
    return model if source is not None and changed else note_source(source, model)


def change_since_loaded(model: Any) -> str:
    """Names a weight that is not what was loaded; empty where all are.

    Two neurons that changed places within a tensor's row may go unseen; `weight_hash` sees everything.
    """
    loaded = getattr(model, "loaded_fingerprints", None)
    if loaded is None:
        return ""
    here = fingerprints(model)
    return next((name for name in (*loaded, *here) if loaded.get(name) != here.get(name)), "")


def fingerprints(model: HookedModel) -> dict[str, int]:
    """A number for each weight that changes when it does; much quicker than a hash.

    It is made of the bits themselves, so that it is the same on every device:

        sum over rows i of (2 i + 1) * (sum of row i's bits, as whole numbers), modulo 2^64
    """
    return {name: _fingerprint(weight) for name, weight in model.named_parameters()}


def _fingerprint(weight: Tensor) -> int:
    if weight.numel() == 0:
        return 0
    bits = weight.detach().view(_WORDS[weight.element_size()])
    bits = bits[None] if bits.ndim == 0 else bits
    rows = max(1, _AT_ONCE * len(bits) // bits.numel())
    parts = [_row_sums(part) for part in bits.split(rows)]
    sums = torch.cat(parts)
    factors = torch.arange(1, 2 * len(sums), 2, dtype=torch.int64, device=sums.device)
    return int((sums * factors).sum())


def _row_sums(bits: Tensor) -> Tensor:
    """Each row's sum, on the CPU for Apple's devices, which lack wide numbers."""
    bits = bits.cpu() if bits.device.type == "mps" else bits
    return bits.to(torch.int64).flatten(1).sum(dim=1) if bits.ndim > 1 else bits.to(torch.int64)
