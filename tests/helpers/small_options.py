"""The options of a run small enough to be repeated: a planted model, a few ablated sets, seconds."""

from __future__ import annotations

from typing import Any

__all__ = ["small", "small_arguments"]

_OPTIONS: dict[str, Any] = {
    "held_out": 0.4,
    "nonsense": 12,
    "doses": (4, 8),
    "draws": 1,
    "judged_draws": 2,
    "home_draws": 0,
    "checks": (),
    "blocks": 0,
    "permutations": 0,
    "overlap_deals": 0,
    "repeats": 0,
}


def small(**changes: Any) -> dict[str, Any]:
    """The options of a small run, with changes."""
    return {**_OPTIONS, **changes}


def small_arguments(**changes: Any) -> list[str]:
    """The same for the command line."""
    return [
        text
        for name, value in small(**changes).items()
        for text in (
            "--" + name.replace("_", "-"),
            ",".join(map(str, value)) if isinstance(value, tuple) else str(value),
        )
    ]
