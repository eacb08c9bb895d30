"""Progress: a bar with the time left, for what takes over two seconds in a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

from tqdm.auto import tqdm

__all__ = ["progress_bar", "track"]

Item = TypeVar("Item")
_DELAY = 2.0


def progress_bar(total: int, what: str, unit: str = "prompt") -> tqdm:
    """Opens a bar that the caller updates; silent where output is not a terminal."""
    quiet = True if os.environ.get("RELATION_NEURONS_QUIET") else None  # None: only off a terminal
    return tqdm(total=total, desc=what, unit=f" {unit}s", delay=_DELAY, disable=quiet, leave=False)


def track(items: Iterable[Item], total: int, what: str, unit: str) -> Iterable[Item]:
    """Yields `items` under a bar."""
    with progress_bar(total, what, unit) as bar:
        for item in items:
            yield item
            bar.update(1)
