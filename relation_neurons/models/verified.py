"""Verified models: which families were run against plain Hugging Face, with which TransformerLens.

The numbers are those that `scripts/verify_families.py` measured and left in the package's data.
"""

from __future__ import annotations

import json
from importlib import resources

__all__ = ["COLUMNS", "markdown_table", "verified_families"]

COLUMNS = ("family", "architecture", "TransformerLens 3.9", "TransformerLens 4")
_WORLDS = ("HookedTransformer", "TransformerBridge")


def verified_families() -> list[tuple[str, str, str, str]]:
    """A row per family: name, architecture, and the largest difference of logits with either version.

    The difference is the larger one of logits and neurons, over padded rows of ragged lengths, from
    Hugging Face's own on each row alone.
    """
    data = resources.files("relation_neurons") / "data" / "families.json"
    table = json.loads(data.read_text(encoding="utf-8"))
    rows = []
    for name, entry in table[_WORLDS[0]]["families"].items():
        found = [table[world]["families"][name] for world in _WORLDS]
        differences = [f"{max(one['logits'], one['neurons']):.0e}" for one in found]
        rows.append((name, entry["architecture"], *differences))
    return sorted(rows)


def markdown_table() -> str:
    """The same as the table in `docs/models.md`."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *verified_families()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
