"""Puts the figures of the reference run beside the documentation's pages, as mkdocs builds them.

A hook of mkdocs (see mkdocs.yml): pages show `reference/headline.png`, which is no copy that could
fall behind `results/reference/figures/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

FIGURES = Path(__file__).parents[1] / "results" / "reference" / "figures"


def on_files(files: Files, *, config: Any) -> Files:
    """Adds each figure to the files of the site."""
    for path in sorted(FIGURES.glob("*.png")):
        uri = f"reference/{path.name}"
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files
