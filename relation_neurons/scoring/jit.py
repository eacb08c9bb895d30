"""Compilation with numba, and where compiled code is cached.

numba caches compiled functions as pickles. They are this package's own code in another form and hold no
data, but whoever can write them can run code. So they are kept in a folder that only the user can
write, never beside data or sources from others; without such a folder, or with
`RELATION_NEURONS_COMPILE_ANEW=1`, nothing is kept and each start compiles again.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from relation_neurons.storage.files import cache_folder

__all__ = ["compiled", "own_folder"]

_ANEW = "RELATION_NEURONS_COMPILE_ANEW"


def compiled(function: Callable) -> Any:
    """Compiles a function with numba, unwrapped from a test's import hook that checks shapes."""
    plain = inspect.unwrap(function)
    folder = None if os.environ.get(_ANEW) else own_folder(cache_folder() / "compiled")
    if folder is None:
        return numba.njit(nogil=True, error_model="numpy")(plain)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)  # read while a function is decorated
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(plain)
    finally:
        numba.config.CACHE_DIR = before


def own_folder(folder: Path) -> Path | None:
    """Creates a folder and returns it, or None unless this user alone can write it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
    except OSError:
        return None
    if os.name == "nt":  # on Windows a user's folders are private
        return folder
    mine = found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return folder if mine and os.access(folder, os.W_OK) else None
