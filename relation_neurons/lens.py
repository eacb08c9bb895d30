"""What is taken from TransformerLens, imported without its warnings."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.loading_from_pretrained import (
        NEED_REMOTE_CODE_MODELS,
        OFFICIAL_MODEL_NAMES,
        get_official_model_name,
    )
    from transformer_lens.pretrained.weight_conversions import convert_llama_weights
    from transformer_lens.utilities import get_device_for_block_index

__all__ = [
    "NEED_REMOTE_CODE_MODELS",
    "OFFICIAL_MODEL_NAMES",
    "HookedTransformer",
    "HookedTransformerConfig",
    "convert_llama_weights",
    "get_device_for_block_index",
    "get_official_model_name",
]
