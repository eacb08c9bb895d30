"""The cache: where converted checkpoints and fetched relations are kept."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """The user's cache folder, or what `RELATION_NEURONS_CACHE` says."""
    override = os.environ.get("RELATION_NEURONS_CACHE")
    return Path(override) if override else Path(platformdirs.user_cache_dir("relation_neurons"))
