"""Models: a name, a folder or a GGUF file to a hooked model.

With `lens`, `sites`, `weights` and `passes`, whose names stand here too, the one seam to
TransformerLens: no other module names its classes or hook points. Weights are loaded as they are (no
folding, no centring), so that a neuron is the checkpoint's own.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from relation_neurons import checkpoints
from relation_neurons.errors import (
    ModelLoadError,
    UnknownOptionError,
)
from relation_neurons.lens import (
    HookedTransformer,
    HookedTransformerConfig,
    convert_llama_weights,
)
from relation_neurons.model_names import OPEN, known_models, official_name
from relation_neurons.passes import final_residual, unembed
from relation_neurons.placement import choose_device, place_model
from relation_neurons.sites import SITES, neuron_count, site_hook, site_width
from relation_neurons.weights import logit_weights, output_direction, output_norms, weight_hash

__all__ = [
    "SITES",
    "HookedTransformer",
    "choose_device",
    "final_residual",
    "known_models",
    "load_model",
    "loaded_from",
    "logit_weights",
    "neuron_count",
    "output_direction",
    "output_norms",
    "site_hook",
    "site_width",
    "unembed",
    "weight_hash",
]


def load_model(
    name_or_path: Any,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    tokenizer: Any = None,
    n_devices: int | None = None,
) -> HookedTransformer:
    """Loads a model as a HookedTransformer, its weights unprocessed.

    Args:
        name_or_path: `smollm2-135m`; a name that TransformerLens lists, such as
            `meta-llama/Llama-2-7b-hf`; a folder in Hugging Face format or a `.gguf` file of a
            Llama-architecture model; or a model already held (HookedTransformer, Hugging Face).
        dtype: of the weights; float16 on a GPU and float32 elsewhere by default.
        device: CUDA if there, else MPS, else CPU by default; an explicit choice always wins. A held
            model keeps its own dtype and device unless they are given.
        tokenizer: for a held model whose name does not lead to one.
        n_devices: GPUs to spread the layers over, from `device` on; as few as hold it by default. A held
            HookedTransformer stays as it is.

    Raises:
        UnknownModelError: neither a known name nor a path.
        ModelLoadError: truncated, unreachable or unsupported weights, or ones that come as a pickle or with
            code of their own, which are never loaded.
        OutOfMemoryError: the devices do not hold it; what it needs is said.
    """
    if isinstance(name_or_path, torch.nn.Module):
        source = loaded_from(name_or_path) if tokenizer is None else None
        return _from(source, _from_held(name_or_path, dtype, device, tokenizer, n_devices))
    target = choose_device(device)
    precision = _dtype(dtype, target)
    name = str(name_or_path)
    path = Path(name).expanduser()
    if name.lower() in checkpoints.EMBEDDED:
        folder_or_name: str | Path = checkpoints.embedded_checkpoint(name.lower())
    elif path.is_dir() or path.suffix == ".gguf" or (path.is_file()):
        folder_or_name = checkpoints.local_checkpoint(path)
    else:
        folder_or_name = official_name(name)
    if isinstance(folder_or_name, str) and not checkpoints.is_llama(folder_or_name):
        loaded = _from_transformer_lens(folder_or_name, precision, target, n_devices)
        return _from(name, loaded)
    hf_model, own_tokenizer = checkpoints.read_checkpoint(folder_or_name, precision)
    source = None if tokenizer is not None else str(path.resolve()) if path.exists() else name
    chosen = tokenizer or own_tokenizer
    return _from(source, _hook_llama(hf_model, chosen, name, precision, target, n_devices))


def loaded_from(model: torch.nn.Module) -> str | None:
    """What `load_model` was given, from which another process can load the same; None if it was held."""
    return getattr(model, "loaded_from", None)


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    if isinstance(dtype, torch.dtype):
        return dtype
    choices = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in choices:
        raise UnknownOptionError(f"No dtype {dtype!r}; expected {', '.join(choices)}.")
    return choices[dtype]


def _from_held(
    model: torch.nn.Module, dtype: Any, device: Any, tokenizer: Any, n_devices: int | None
) -> HookedTransformer:
    """Takes a model that the caller holds; its own tensors are left as they are."""
    if isinstance(model, HookedTransformer):
        if dtype is not None:
            model.to(_dtype(dtype, torch.device("cpu")), print_details=False)
        if device is not None:
            model.to(choose_device(device), print_details=False)
        if tokenizer is not None:
            _set_tokenizer(model, tokenizer)
        return model
    if not hasattr(model, "config"):
        raise ModelLoadError(
            f"A {type(model).__name__} is no language model; expected a HookedTransformer or a Hugging "
            "Face Llama."
        )
    weight = next(model.parameters())
    name = getattr(model.config, "_name_or_path", "") or "held"
    precision = weight.dtype if dtype is None else _dtype(dtype, weight.device)
    target = weight.device if device is None else choose_device(device)
    chosen = tokenizer or checkpoints.tokenizer_of(model)
    return _hook_llama(model, chosen, name, precision, target, n_devices)


def _hook_llama(
    hf_model: Any,
    tokenizer: Any,
    name: str,
    dtype: torch.dtype,
    device: torch.device,
    n_devices: int | None,
) -> HookedTransformer:
    """Puts a Hugging Face Llama's own tensors behind hooks, without a second copy.

    The parameters become views of the Hugging Face tensors, in their layout; TransformerLens then
    finds the layout it would otherwise make anew in each forward pass.
    """
    config = hf_model.config
    checkpoints.require_llama(config, name)
    cfg = HookedTransformerConfig.from_dict(checkpoints.hooked_config(config, name, dtype))
    weights = {
        key: value.detach().to(dtype) for key, value in convert_llama_weights(hf_model, cfg).items()
    }
    with _quiet():
        model = HookedTransformer(cfg, tokenizer=None, move_to_device=False)
    state = model.state_dict()
    state.update(weights)
    model.load_state_dict(state, assign=True)
    model.requires_grad_(False)
    _set_tokenizer(model, tokenizer)
    del hf_model, weights, state
    return place_model(model, device, n_devices).eval()


def _from_transformer_lens(
    name: str, dtype: torch.dtype, device: torch.device, n_devices: int | None
) -> HookedTransformer:
    try:
        with _quiet():
            model = HookedTransformer.from_pretrained_no_processing(
                name, dtype=dtype, device="cpu", use_safetensors=True
            )
    except Exception as error:  # TransformerLens and the hub raise whatever goes wrong
        raise checkpoints.unreachable(name, error) from error
    if getattr(model.cfg, "trust_remote_code", False):
        raise ModelLoadError(f"{name} asks for code of its own (trust_remote_code). {OPEN}")
    model.requires_grad_(False)
    return place_model(model, device, n_devices).eval()


def _set_tokenizer(model: HookedTransformer, tokenizer: Any) -> None:
    """Keeps the checkpoint's tokenizer as it is; TransformerLens would add a BOS to it."""
    if tokenizer is None:
        return
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
    model.tokenizer = tokenizer
    prepends = len(tokenizer("")["input_ids"]) > 0
    model.cfg.tokenizer_prepends_bos = prepends
    model.cfg.default_prepend_bos = prepends


def _from(source: str | None, model: HookedTransformer) -> HookedTransformer:
    """Checks a model that was just made, and notes where it came from."""
    model.loaded_from = source
    return _checked(model)


def _checked(model: HookedTransformer) -> HookedTransformer:
    """Runs two tokens to see that `hook_post` fires with one value per neuron."""
    seen: list[tuple[int, ...]] = []
    hook = (site_hook(model, "post", 0), lambda value, hook: seen.append(tuple(value.shape)))
    device = next(model.parameters()).device
    with torch.inference_mode():
        model.run_with_hooks(
            torch.zeros(1, 2, dtype=torch.long, device=device),
            return_type=None,
            fwd_hooks=[hook],
            attention_mask=torch.ones(1, 2, dtype=torch.long, device=device),
        )
    if seen != [(1, 2, model.cfg.d_mlp)]:
        raise ModelLoadError(
            f"hook_post of layer 0 gave {seen}; expected one [1, 2, {model.cfg.d_mlp}]."
        )
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides TransformerLens's print and its deprecation warnings."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield
