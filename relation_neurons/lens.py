"""What is taken from TransformerLens, imported without its warnings."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.loading_from_pretrained import (
        OFFICIAL_MODEL_NAMES,
        get_official_model_name,
    )
    from transformer_lens.pretrained.weight_conversions import convert_llama_weights

__all__ = [
    "OFFICIAL_MODEL_NAMES",
    "HookedTransformer",
    "HookedTransformerConfig",
    "convert_llama_weights",
    "get_official_model_name",
]
