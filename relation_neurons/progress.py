"""Progress: a bar with the time left, for what takes over two seconds in a terminal or a notebook."""

from __future__ import annotations

import os
import sys
import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # without ipywidgets a notebook's bar is text
    from tqdm.auto import tqdm

__all__ = ["progress_bar"]

_DELAY = 2.0


def progress_bar(total: int, what: str, unit: str = "prompt") -> tqdm:
    """Opens a bar that the caller updates; silent off a terminal and a notebook, or where told to be.

    The environment variable `RELATION_NEURONS_QUIET` tells it to be.
    """
    quiet = True if os.environ.get("RELATION_NEURONS_QUIET") else None  # None: only off a terminal
    if quiet is None and _in_notebook():  # whose output is no terminal
        quiet = False
    return tqdm(total=total, desc=what, unit=f" {unit}s", delay=_DELAY, disable=quiet, leave=False)


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this."""
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    return running is not None and "IPKernelApp" in running.config
