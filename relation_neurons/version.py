"""The version, in one place: `pyproject.toml` reads it here, and so does every manifest."""

from __future__ import annotations

import importlib.metadata

__all__ = ["package_versions"]

__version__ = "0.2.0"


def package_versions() -> dict[str, str]:
    """The versions that decide a run's numbers."""
    others = ("torch", "transformer_lens", "transformers", "numpy", "pandas")
    return {
        "relation_neurons": __version__,  # not the metadata: those of an old checkout may be stale
        **{name: importlib.metadata.version(name) for name in others},
    }
