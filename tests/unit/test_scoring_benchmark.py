"""The scoring benchmark at its smallest size: that it works, not how fast anything is."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from helpers.paths import ROOT

PATH = ROOT / "benchmarks" / "scoring.py"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_it_gives_every_row_and_the_scores_are_exact(monkeypatch):
    spec = importlib.util.spec_from_file_location("scoring", PATH)
    scoring = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "scoring", scoring)  # its processes look it up
    spec.loader.exec_module(scoring)
    rows = scoring.rows("small")
    assert all(set(row) == {"what", "goal", "measured", "ratio", "command", "note"} for row in rows)
    assert all(float(row["ratio"].replace(",", "")) > 0 for row in rows if row["ratio"])
    exact = next(row for row in rows if row["goal"] == "at most 1e-6")
    assert float(exact["measured"]) <= 1e-9
