"""`load_model`: from a name, a folder, a GGUF file or an object to a model with hooks.

Weights are loaded as they are (no folding, no centring), so that a neuron is the checkpoint's own, and
every model passes the self-check or is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.installed import BACKEND
from relation_neurons.errors import ModelLoadError, UnknownOptionError
from relation_neurons.inference.out_of_memory import explain_out_of_memory
from relation_neurons.models import checkpoints
from relation_neurons.models.checkpoints import architecture_of, require_dense
from relation_neurons.models.devices import choose_device, place_model
from relation_neurons.models.provenance import (
    change_since_loaded,
    keep_source,
    loaded_from,
    note_source,
)
from relation_neurons.models.registry import (
    OPEN,
    PACKAGED_MODELS,
    official_name,
    refuse_foreign_code,
)
from relation_neurons.models.self_check import record_reference, self_check

__all__ = ["load_model"]


def load_model(
    name_or_path: Any,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    tokenizer: Any = None,
    n_devices: int | None = None,
) -> HookedModel:
    """Loads a model with hook points, its weights unprocessed.

    With TransformerLens 3.9 that is a HookedTransformer, with 4.3 or later a TransformerBridge; what
    the package does with either is the same.

    Args:
        name_or_path: `smollm2-135m` or `gemma3-270m`; a name that TransformerLens lists, such as
            `meta-llama/Llama-2-7b-hf`; a folder in Hugging Face format or a `.gguf` file, of an
            architecture that `docs/models.md` lists; or a model already held (one of
            TransformerLens's own, or Hugging Face's).
        dtype: of the weights; float16 on a GPU and float32 elsewhere by default.
        device: CUDA if there, else MPS, else CPU by default; an explicit choice always wins. A held
            model keeps its own dtype and device unless they are given.
        tokenizer: for a held model whose name does not lead to one.
        n_devices: GPUs to spread the layers over, from `device` on; as few as hold it by default. A held
            model of TransformerLens's own stays as it is.

    Raises:
        UnknownModelError: neither a known name nor a path.
        ModelLoadError: truncated, unreachable or unsupported weights, or ones that come as a pickle or with
            code of their own, which are never loaded; a mixture of experts; or a model that failed its
            self-check.
        OutOfMemoryError: the devices do not hold it; the message says what it needs.
    """
    with explain_out_of_memory(name_or_path):
        if isinstance(name_or_path, torch.nn.Module):
            source = loaded_from(name_or_path) if tokenizer is None else None
            changed = change_since_loaded(name_or_path)
            held = _from_held(name_or_path, dtype, device, tokenizer, n_devices)
            return keep_source(source, changed, held)
        return _loaded(name_or_path, dtype, device, tokenizer, n_devices)


def _loaded(
    name_or_path: Any, dtype: Any, device: Any, tokenizer: Any, n_devices: int | None
) -> HookedModel:
    """Loads by name or from disk."""
    target = choose_device(device)
    precision = _dtype(dtype, target)
    name = str(name_or_path)
    path = Path(name).expanduser()
    if name.lower() in PACKAGED_MODELS:
        folder_or_name: str | Path = checkpoints.packaged_checkpoint(name.lower())
    elif path.is_dir() or path.suffix == ".gguf" or (path.is_file()):
        folder_or_name = checkpoints.local_checkpoint(path)
    else:
        folder_or_name = official_name(name)
    if isinstance(folder_or_name, str):
        config = checkpoints.config_of(folder_or_name)
        if config is not None:
            require_dense(config, name)
        if config is None or not BACKEND.takes(config):
            refuse_foreign_code(folder_or_name)
            return note_source(name, _by_name(folder_or_name, precision, target, n_devices))
    hf_model, own_tokenizer = checkpoints.read_checkpoint(folder_or_name, precision)
    source = None if tokenizer is not None else str(path.resolve()) if path.exists() else name
    chosen = tokenizer or own_tokenizer
    return note_source(source, _wrapped(hf_model, chosen, name, precision, target, n_devices))


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    if isinstance(dtype, torch.dtype):
        return dtype
    choices = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in choices:
        raise UnknownOptionError(f"There is no dtype {dtype!r}; expected {', '.join(choices)}.")
    return choices[dtype]


def _from_held(
    model: torch.nn.Module, dtype: Any, device: Any, tokenizer: Any, n_devices: int | None
) -> HookedModel:
    """Takes a model that the caller holds; its own tensors are left as they are."""
    if BACKEND.holds(model):
        held: Any = model
        if dtype is not None:
            BACKEND.cast(held, _dtype(dtype, torch.device("cpu")))
        if device is not None:
            BACKEND.put(held, choose_device(device))
        if tokenizer is not None:
            _set_tokenizer(held, tokenizer)
        self_check(held)
        return held
    if type(model).__module__.startswith("transformer_lens."):
        raise ModelLoadError(
            f"A {type(model).__name__} is not the class that {BACKEND.versions} makes; expected a "
            f"{BACKEND.name}. Load by name or from a folder, or give the Hugging Face model."
        )
    if not hasattr(model, "config"):
        raise ModelLoadError(
            f"A {type(model).__name__} is not a language model; expected a {BACKEND.name} or a Hugging Face "
            "model."
        )
    weight = next(model.parameters())
    name = getattr(model.config, "_name_or_path", "") or "held"
    precision = weight.dtype if dtype is None else _dtype(dtype, weight.device)
    target = weight.device if device is None else choose_device(device)
    chosen = tokenizer or checkpoints.tokenizer_of(model)
    return _wrapped(model, chosen, name, precision, target, n_devices)


def _wrapped(
    hf_model: Any,
    tokenizer: Any,
    name: str,
    dtype: torch.dtype,
    device: torch.device,
    n_devices: int | None,
) -> HookedModel:
    """Puts hooks into a Hugging Face model and compares what they show with the model itself."""
    config = hf_model.config
    require_dense(config, name)
    architecture = architecture_of(config)
    if not config.architectures:
        config.architectures = [type(hf_model).__name__]
    if not BACKEND.takes(config):
        raise ModelLoadError(
            f"{name} is a {architecture}, which {BACKEND.versions} does not take from a folder or file here; "
            "relation-neurons models lists the architectures that were verified."
        )
    evidence = record_reference(hf_model)
    try:
        model: HookedModel = BACKEND.wrap(hf_model, name, dtype)
    except ModelLoadError:
        raise
    except Exception as error:  # conversions fail in their own ways on what they do not expect
        raise ModelLoadError(
            f"{name} ({architecture}) cannot be turned into a {BACKEND.name}: {type(error).__name__}: "
            f"{error}. See docs/models.md for the architectures that were verified."
        ) from error
    del hf_model
    _set_tokenizer(model, tokenizer)
    model = place_model(model, device, n_devices)
    self_check(model, evidence)
    return model


def _by_name(
    name: str, dtype: torch.dtype, device: torch.device, n_devices: int | None
) -> HookedModel:
    """A model that only TransformerLens itself knows how to load."""
    try:
        model: HookedModel = BACKEND.load_by_name(name, dtype)
    except ModelLoadError:
        raise
    except Exception as error:  # TransformerLens and the hub raise whatever goes wrong
        raise checkpoints.unreachable(name, error) from error
    if getattr(model.cfg, "trust_remote_code", False):
        raise ModelLoadError(f"{name} asks for code of its own (trust_remote_code). {OPEN}")
    model = place_model(model, device, n_devices)
    self_check(model)
    return model


def _set_tokenizer(model: HookedModel, tokenizer: Any) -> None:
    """Keeps the checkpoint's tokenizer as it is; TransformerLens would add a BOS to it."""
    if tokenizer is None:
        return
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
    BACKEND.set_tokenizer(model, tokenizer)
    prepends = len(tokenizer("")["input_ids"]) > 0
    model.cfg.tokenizer_prepends_bos = prepends
    model.cfg.default_prepend_bos = prepends
