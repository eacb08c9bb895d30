"""Puts the figures of the committed runs beside the documentation's pages, as mkdocs builds them.

A hook of mkdocs (see mkdocs.yml): pages show `reference/headline.png`, which is no copy that could
fall behind `results/reference/figures/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).parents[1] / "results"
RUNS = ("reference", "comparison")


def on_files(files: Files, *, config: Any) -> Files:
    """Adds each figure to the files of the site."""
    for run in RUNS:
        for path in sorted((RESULTS / run / "figures").glob("*.png")):
            files.append(File.generated(config, f"{run}/{path.name}", abs_src_path=str(path)))
    return files
