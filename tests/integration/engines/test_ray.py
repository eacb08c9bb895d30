"""Runs on real Ray: the same bytes as in one process, whatever dies; one error where nothing can be done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import PROGRAMS

SCRIPT = PROGRAMS / "ray_runs.py"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        start_new_session=True,  # a process group of its own, which it sends Ctrl-C
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return folder, json.loads((folder / "found.json").read_text())


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "engines.json"
    }


@pytest.mark.parametrize("name", ["ray", "killed", "stopped", "begun here"])
def test_the_folder_is_byte_for_byte_the_local_engines(runs, name):
    folder, _ = runs
    there, here = _files(folder / name), _files(folder / "local")
    assert {"collateral.parquet", "effects.parquet", "blocks.parquet"} < here.keys() == there.keys()
    assert not [file for file in here if here[file] != there[file]]


def test_a_cluster_is_started_and_ended_where_there_is_none_and_left_alone_where_there_is(runs):
    folder, found = runs
    assert found["ended"] and found["left alone"]
    noted = json.loads((folder / "ray" / "engines.json").read_text())["engines"]
    assert noted == [
        {"engine": "ray", "address": "started for the run", "workers": 2, "threads": 1}
    ]
    assert not (folder / "local" / "engines.json").exists()


def test_a_worker_killed_by_sigkill_changes_nothing_but_the_time(runs):
    _, found = runs
    assert len(found["processes"]) == 2
    died = [line for line in found["engine"] if "died" in line]
    assert len(died) == 1 and f"process {found['processes'][0]}" in died[0]


def test_a_run_stopped_by_ctrl_c_goes_on_on_another_engine(runs):
    _, found = runs
    assert found["stopped by"]["error"] == "KeyboardInterrupt" and found["left"] >= 1
    assert any("going on after" in line for line in found["stopped"]["said"])
    assert any("going on after" in line for line in found["begun here"]["said"])


def test_a_worker_that_cannot_load_the_model_stops_the_run_with_its_error_once(runs):
    folder, found = runs
    failure, said = found["cannot load"], found["cut"]["said"]
    assert failure["error"] == "ModelLoadError"
    assert f"cannot load {folder / 'model'}: " in failure["message"]
    assert "Every machine needs the model" in failure["message"]
    assert any("2 workers" in line for line in said)
    assert not [line for line in said if "died" in line or "another" in line]


def test_a_held_model_is_refused_before_anything_is_computed(runs):
    folder, found = runs
    assert found["held"]["error"] == "EngineError"
    assert "load_model(folder)" in found["held"]["message"]
    assert not (folder / "held" / "prompts.parquet").exists()
