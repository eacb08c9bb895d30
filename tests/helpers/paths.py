"""Where things are in the repository, whatever folder a test lies in."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PROGRAMS", "ROOT"]

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""

PROGRAMS = ROOT / "tests" / "programs"
"""Scripts that tests start as processes of their own."""
