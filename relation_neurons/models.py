"""Models: a name, a folder or a GGUF file to a hooked model.

The one seam to TransformerLens: no other module names its classes or hook points. Weights are
loaded as they are (no folding, no centring), so that a neuron is the checkpoint's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relation_neurons import checkpoints
from relation_neurons.errors import (
    ContextLengthError,
    ModelLoadError,
    UnknownModelError,
    UnknownOptionError,
    UnknownSiteError,
    near_matches,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.loading_from_pretrained import (
        OFFICIAL_MODEL_NAMES,
        get_official_model_name,
    )
    from transformer_lens.pretrained.weight_conversions import convert_llama_weights

__all__ = [
    "SITES",
    "HookedTransformer",
    "choose_device",
    "final_residual",
    "known_models",
    "load_model",
    "logit_weights",
    "neuron_count",
    "output_direction",
    "output_norms",
    "site_hook",
    "site_width",
    "unembed",
    "weight_hash",
]

SITES = {
    "post": "blocks.{layer}.mlp.hook_post",
    "gate": "blocks.{layer}.mlp.hook_pre",
    "up": "blocks.{layer}.mlp.hook_pre_linear",
    "out": "blocks.{layer}.hook_mlp_out",
}
"""Where a neuron is read and ablated; `out` is a dimension of what the MLP writes."""


def load_model(
    name_or_path: Any,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    tokenizer: Any = None,
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

    Raises:
        UnknownModelError: neither a known name nor a path.
        ModelLoadError: truncated, unreachable or unsupported weights.
    """
    if isinstance(name_or_path, torch.nn.Module):
        return _checked(_from_held(name_or_path, dtype, device, tokenizer))
    target = choose_device(device)
    precision = _dtype(dtype, target)
    name = str(name_or_path)
    path = Path(name).expanduser()
    if name.lower() in checkpoints.EMBEDDED:
        folder_or_name: str | Path = checkpoints.embedded_checkpoint(name.lower())
    elif path.is_dir() or path.suffix == ".gguf" or (path.is_file()):
        folder_or_name = checkpoints.local_checkpoint(path)
    else:
        folder_or_name = _official(name)
    if isinstance(folder_or_name, str) and not checkpoints.is_llama(folder_or_name):
        return _checked(_from_transformer_lens(folder_or_name, precision, target))
    hf_model, own_tokenizer = checkpoints.read_checkpoint(folder_or_name, precision)
    return _checked(_hook_llama(hf_model, tokenizer or own_tokenizer, name, precision, target))


def known_models() -> list[str]:
    """Lists every name that `load_model` takes, the embedded ones first."""
    return [*checkpoints.EMBEDDED, *sorted(OFFICIAL_MODEL_NAMES)]


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Gives the device asked for, else CUDA, else Apple's MPS, else the CPU."""
    if device is not None:
        try:
            chosen = torch.device(device)
        except RuntimeError as error:
            raise UnknownOptionError(f"No device {device!r}: {error}") from error
        there = {
            "cpu": True,
            "cuda": torch.cuda.is_available(),
            "mps": torch.backends.mps.is_available(),
        }
        if not there.get(chosen.type, False):
            here = ", ".join(kind for kind, found in there.items() if found)
            raise UnknownOptionError(
                f"There is no device {chosen} on this machine; there is {here}."
            )
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def site_hook(model: HookedTransformer, site: str, layer: int) -> str:
    """Gives the hook point of a site at one layer, making sure that the model has it.

    Raises:
        UnknownSiteError: no such site, or a model without it (`up` needs a gated MLP).
    """
    if site not in SITES:
        raise UnknownSiteError(f"No site {site!r}. {near_matches(site, SITES)}")
    name = SITES[site].format(layer=layer)
    if name not in model.hook_dict:
        raise UnknownSiteError(
            f"This model has no {name} for the site {site!r}; `up` needs a gated MLP. Use `post`."
        )
    return name


def site_width(model: HookedTransformer, site: str = "post") -> int:
    """Gives the neurons per layer at a site: d_mlp, or d_model at `out`."""
    site_hook(model, site, 0)
    return int(model.cfg.d_model if site == "out" else model.cfg.d_mlp)


def neuron_count(model: HookedTransformer, site: str = "post") -> int:
    """Gives the neurons of the whole model at a site."""
    return int(model.cfg.n_layers) * site_width(model, site)


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


def final_residual(
    model: HookedTransformer, tokens: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos d_model"]:
    """Runs every block and gives the residual stream after the last one."""
    if tokens.shape[1] > model.cfg.n_ctx:
        raise ContextLengthError(
            f"A prompt with its answer has {tokens.shape[1]} tokens; this model reads "
            f"{model.cfg.n_ctx}. Shorten the template or drop the fact."
        )
    return model(tokens, attention_mask=mask.long(), stop_at_layer=model.cfg.n_layers)


def unembed(
    model: HookedTransformer, residual: Float[Tensor, "read d_model"]
) -> Float[Tensor, "read d_vocab"]:
    """Gives float32 logits for single positions of the final residual stream."""
    hidden = residual[None]
    if model.cfg.normalization_type is not None:
        hidden = model.ln_final(hidden)
    logits = model.unembed(hidden)[0].float()
    cap = model.cfg.output_logits_soft_cap
    return logits if cap is None or cap <= 0 else cap * torch.tanh(logits / cap)


def weight_hash(model: HookedTransformer) -> str:
    """SHA-256 over every parameter's name, dtype, shape and bytes."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name}|{parameter.dtype}|{tuple(parameter.shape)}|".encode())
        flat = parameter.detach().contiguous().cpu().flatten()
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()


def _official(name: str) -> str:
    try:
        return get_official_model_name(name)
    except ValueError as error:
        raise UnknownModelError(
            f"{name!r} is no known model, no folder and no .gguf file. {near_matches(name, known_models())}"
        ) from error


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
    model: torch.nn.Module, dtype: Any, device: Any, tokenizer: Any
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
    return _hook_llama(model, tokenizer or checkpoints.tokenizer_of(model), name, precision, target)


def _hook_llama(
    hf_model: Any, tokenizer: Any, name: str, dtype: torch.dtype, device: torch.device
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
    model.cfg.device = str(device)
    return model.to(device, print_details=False).eval()


def _from_transformer_lens(
    name: str, dtype: torch.dtype, device: torch.device
) -> HookedTransformer:
    try:
        with _quiet():
            model = HookedTransformer.from_pretrained_no_processing(
                name, dtype=dtype, device=str(device)
            )
    except Exception as error:  # TransformerLens and the hub raise whatever goes wrong
        raise checkpoints.unreachable(name, error) from error
    model.requires_grad_(False)
    return model.eval()


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
