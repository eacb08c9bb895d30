"""Every benchmark in one run, written to benchmarks/RESULTS.md.

    python -m benchmarks.run [--size small|full] [--only capture,sweep] [--out benchmarks/RESULTS.md]

A part that is run replaces its own section; with `--only` the sections of the other parts stay.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks import timing
from relation_neurons import plots
from relation_neurons.errors import ResultsError

PARTS = {
    "scoring": "Scoring",
    "capture": "Capture",
    "sweep": "Sweep",
    "demo": "The demo's sweep, before and after",
    "whole_demo": "The whole demo, before and after",
    "published": "Against the published procedure",
    "scale": "Scale",
    "workers": "Ray workers",
    "llama2_shape": "Llama-2 shape",
    "breakdown": "Where the time goes",
}
HEADER = """# Benchmarks

Ratios of things that were run side by side in one process; each competitor counts by its best turn. The
command of all rows is `make bench` (`python -m benchmarks.run`). Numbers are of the machine that each
section names, and of no other.
"""
GPU = """No GPU run has been made yet: everything below was measured on a CPU, and the Llama-2 rows
at a scaled-down shape. On a machine with a GPU `python -m benchmarks.llama2_shape` runs 7B and 13B where
they fit.
"""


def section(part: str, size: str) -> str:
    """Runs one part and gives its section."""
    rows = importlib.import_module(f"benchmarks.{part}").rows(size)
    lines = [
        f"## {PARTS[part]}\n",
        f"{timing.machine()}; size {size}.\n",
        "| ratio | goal | what | measured | command | note |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in rows:
        cells = [one[key] for key in ("ratio", "goal", "what", "measured", "command", "note")]
        cells[4] = f"`{cells[4]}`"
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    if part == "scale":
        lines.append("\n![Time over prompts, neurons and relations](scale.svg)")
    return "\n".join(lines) + "\n"


def merged(before: str, made: dict[str, str]) -> str:
    """Puts new sections in the place of the old ones, and says so where no GPU was used."""
    old = dict(re.findall(r"^(## [^\n]+)\n(.*?)(?=^## |\Z)", before, re.S | re.M))
    parts = [HEADER]
    for part, title in PARTS.items():
        heading = f"## {title}"
        if part in made:
            parts.append(made[part])
        elif heading in old:
            parts.append(f"{heading}\n{old[heading].rstrip()}\n")
    if "B shape on " not in "".join(parts):
        parts.insert(1, GPU)
    return "\n".join(parts)


def _draw(size: str, folder: Path) -> None:
    """Draws how cost grows, where there is a browser to make an image with."""
    try:
        plots.save(
            importlib.import_module("benchmarks.scale").figure(size), folder / "scale.svg", scale=1
        )
    except ResultsError as error:
        print(f"no figure: {error}", flush=True)


def main(arguments: Sequence[str] | None = None) -> Path:
    """Runs the parts asked for and gives the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run")
    parser.add_argument("--size", choices=timing.SIZES, default="full")
    there = [part for part in PARTS if importlib.util.find_spec(f"benchmarks.{part}")]
    parser.add_argument("--only", default=",".join(there), help=", ".join(there))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/RESULTS.md"))
    asked = parser.parse_args(arguments)
    chosen = asked.only.split(",")
    if not set(chosen) <= set(there):
        parser.error(f"--only takes {', '.join(there)}; found {asked.only}")
    for part in chosen:
        made = {part: section(part, asked.size)}
        before = asked.out.read_text(encoding="utf-8") if asked.out.exists() else ""
        asked.out.write_text(merged(before, made), encoding="utf-8")
        print(made[part], flush=True)
        if part == "scale":
            _draw(asked.size, asked.out.parent)
    return asked.out


if __name__ == "__main__":
    main()
