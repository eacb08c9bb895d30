"""Runs notebooks and keeps what they show: python scripts/run_notebooks.py [notebooks/NAME.ipynb …].

Figures are kept as Plotly's own JSON and, where Kaleido and a browser are present, as PNG, so that they
show both in Jupyter and on a page that cannot run scripts; plotly.js is not kept.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
RENDERER = "plotly_mimetype+png"


def run(path: Path) -> None:
    """Executes one notebook in its folder and writes it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


def main(names: list[str]) -> None:
    os.environ["PLOTLY_RENDERER"] = RENDERER
    os.environ["RELATION_NEURONS_QUIET"] = "1"
    for path in [Path(name) for name in names] or sorted(FOLDER.glob("*.ipynb")):
        started = time.monotonic()
        run(path)
        size = path.stat().st_size / 1e3
        print(f"{path.name}: {time.monotonic() - started:.0f} s, {size:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
