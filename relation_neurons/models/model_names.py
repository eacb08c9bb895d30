"""Model names: what TransformerLens lists, but for what would open a door."""

from __future__ import annotations

from relation_neurons.backends.installed import WORLD
from relation_neurons.errors import ModelLoadError, UnknownModelError, near_matches
from relation_neurons.models.registry import EMBEDDED

__all__ = ["OPEN", "known_models", "official_name", "refuse_foreign_code"]

OPEN = "A model of a verified family in a folder (docs/models.md) loads without either."
_PICKLED = ("NeelNanda/", "ArthurConmy/", "Baidicoot/")


def known_models() -> list[str]:
    """Lists every name that `load_model` takes, the embedded ones first."""
    official = (name for name in WORLD.names() if not _closed(name))
    return [*EMBEDDED, *sorted(official)]


def official_name(name: str) -> str:
    """Gives the hub's name of a model that TransformerLens lists.

    Raises:
        UnknownModelError: it lists none of that name.
        ModelLoadError: it would be loaded from a pickle.
    """
    try:
        official = WORLD.official_name(name)
    except ValueError as error:
        raise UnknownModelError(
            f"{name!r} is no known model, no folder and no .gguf file. {near_matches(name, known_models())}"
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
    if official.startswith(WORLD.needs_code()):
        raise ModelLoadError(
            f"{official} is loaded by TransformerLens with trust_remote_code, which is never on here. {OPEN}"
        )


def _closed(official: str) -> str:
    """Why a name that TransformerLens lists is not loaded; nothing for most."""
    if official.startswith(_PICKLED):
        return "comes as a pickle (.pth), and loading one runs whatever code is in it"
    return ""
