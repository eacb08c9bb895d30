"""The progress bar, shown in a terminal or a notebook for work that takes over two seconds."""

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
    """Opens a progress bar that the caller updates.

    It is shown in a terminal or a notebook only, and not at all where the environment variable
    `RELATION_NEURONS_QUIET` is set.
    """
    quiet = (
        True if os.environ.get("RELATION_NEURONS_QUIET") else None
    )  # None: shown in a terminal only
    if quiet is None and _in_notebook():  # its output is not a terminal
        quiet = False
    return tqdm(total=total, desc=what, unit=f" {unit}s", delay=_DELAY, disable=quiet, leave=False)


def _in_notebook() -> bool:
    """Whether a Jupyter kernel is running this."""
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    return running is not None and "IPKernelApp" in running.config
