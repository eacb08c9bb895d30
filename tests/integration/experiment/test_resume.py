"""A run that is killed, and what is left of it: the same tables in the end, and nothing computed twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import PROGRAMS

SCRIPT = PROGRAMS / "killed_run.py"
TABLES = ("prompts", "recall", "ranking", "neurons", "collateral", "effects", "blocks")


def _killed(folder: Path, moments: int, seed: int) -> dict:
    subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), str(moments), str(seed)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize(
    "moments", [3, pytest.param(25, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_a_killed_run_goes_on_to_the_same_bytes_and_computes_no_chunk_twice(tmp_path, moments):
    found = _killed(tmp_path, moments, seed=moments)
    assert len(found["runs"]) == moments
    for number, run in enumerate(found["runs"]):
        assert run["resumed"] == 0
        out, whole = tmp_path / f"killed-{number}", tmp_path / "whole"
        names = {p.relative_to(whole) for p in whole.rglob("*") if p.is_file()}
        assert names == {p.relative_to(out) for p in out.rglob("*") if p.is_file()}
        for name in names:
            assert (out / name).read_bytes() == (whole / name).read_bytes(), (name, run)
        log = out.with_suffix(".log").read_text().split()
        assert log
        assert len(log) == len(set(log)), run
    assert found["runs"][0]["kept"] >= 5  # what was made is there after the kill, not only noted
