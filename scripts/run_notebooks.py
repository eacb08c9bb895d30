"""Runs notebooks and keeps what they show: python scripts/run_notebooks.py [notebooks/NAME.ipynb …].

Figures are kept as Plotly's own JSON and, where Kaleido and a browser are present, as PNG, so that they
show both in Jupyter and on a page that cannot run scripts, in 256 colours to keep them small; plotly.js is
not kept.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import time
from pathlib import Path

import nbformat
import plotly.io as pio
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parents[1] / "notebooks"
FIGURE = "application/vnd.plotly.v1+json"


def run(path: Path) -> None:
    """Executes one notebook in its folder and writes it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=3000,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if FIGURE in output.get("data", {}):
                output.data[FIGURE].get("config", {}).pop("plotlyServerURL", None)
                add_image(output.data)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


def add_image(data: dict) -> None:
    """Adds a figure's PNG beside its JSON; without a browser it stays without one."""
    figure = {name: data[FIGURE][name] for name in ("data", "layout")}
    try:
        png = pio.from_json(json.dumps(figure)).to_image(format="png")
    except Exception as error:  # Kaleido and its browser fail in many ways
        print(f"no image: {type(error).__name__}", file=sys.stderr)
        return
    reduced = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(reduced, "PNG", optimize=True)
    data["image/png"] = base64.b64encode(reduced.getvalue()).decode()


def main(names: list[str]) -> None:
    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype"
    os.environ["RELATION_NEURONS_QUIET"] = "1"
    for path in [Path(name) for name in names] or sorted(FOLDER.glob("*.ipynb")):
        started = time.monotonic()
        run(path)
        size = path.stat().st_size / 1e3
        print(f"{path.name}: {time.monotonic() - started:.0f} s, {size:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
