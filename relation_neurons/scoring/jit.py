"""Compiling: numba's, and where it keeps what it compiled.

numba keeps compiled functions as pickles. Those are this package's own code in another form and hold no
data, but whoever can write them can run code. So they lie in a folder of the user's own that nobody else
can write, never beside data or sources that others hand over; where there is no such folder, or with
`RELATION_NEURONS_COMPILE_ANEW=1`, nothing is kept and each start compiles anew.
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
    """Compiles the plain function, also where a test's import hook has wrapped it to check shapes."""
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
    """Makes a folder that only this user can write, or gives None where it is not so."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
    except OSError:
        return None
    if os.name == "nt":  # a user's folders are the user's own there
        return folder
    mine = found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return folder if mine and os.access(folder, os.W_OK) else None
