"""Progress: a bar with the time left, for what takes over two seconds in a terminal."""

from __future__ import annotations

import os

from tqdm.auto import tqdm

__all__ = ["progress_bar"]

_DELAY = 2.0


def progress_bar(total: int, what: str, unit: str = "prompt") -> tqdm:
    """Opens a bar that the caller updates; silent where output is not a terminal."""
    quiet = True if os.environ.get("RELATION_NEURONS_QUIET") else None  # None: only off a terminal
    return tqdm(total=total, desc=what, unit=f" {unit}s", delay=_DELAY, disable=quiet, leave=False)
