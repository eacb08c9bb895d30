"""A small run that is killed at given moments and resumed; integration/experiment/test_resume.py starts it.

Usage: python killed_run.py FOLDER MOMENTS SEED. Loads everything once; each run is a forked process.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

torch.set_num_threads(1)  # before anything runs, so that a fork is safe
sys.path.insert(0, str(Path(__file__).parents[1]))

import relation_neurons as rn  # noqa: E402
from helpers.small_options import small  # noqa: E402
from relation_neurons.storage.chunks import Chunks  # noqa: E402

OPTIONS = small(
    doses=(4, 8, 12),
    draws=2,
    judged_draws=3,
    home_draws=13,
    checks=("background",),
    blocks=2,
    permutations=19,
    repeats=1,
)


def logged(log: Path) -> None:
    """Notes every chunk once it is kept; one that is noted twice was computed twice."""
    original = Chunks.make

    def make(self, place, key, made):
        there = self.read(place, key) is not None
        found = original(self, place, key, made)
        if not there:
            with log.open("a") as file:
                file.write(f"{self.folder.name}-{place}-{key}\n")
        return found

    Chunks.make = make


def start(source, out: Path) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            logged(out.with_suffix(".log"))
            rn.run(source.model, source.relations, out=out, **OPTIONS)
            code = 0
        finally:
            os._exit(code)
    return pid


def noted(out: Path) -> int:
    """How many chunks of its sweep a run has kept so far."""
    log = out.with_suffix(".log")
    return log.read_text().count("effects-") if log.exists() else 0


def main() -> None:
    folder, moments, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    source = rn.planted_model(relations=3, seed=0)
    began = time.monotonic()
    whole = folder / "whole"
    assert os.waitpid(start(source, whole), 0)[1] == 0
    took = time.monotonic() - began
    rng = random.Random(seed)
    found = []
    for number in range(moments):
        out = folder / f"killed-{number}"
        # At any moment; the first one where chunks are being made, whatever the machine's speed.
        after = 5 if number == 0 else 0
        moment, killed = 0.0 if after else rng.uniform(0, took), False
        while not killed:  # or it ended first, on a machine that is faster now
            shutil.rmtree(out, ignore_errors=True)
            out.with_suffix(".log").unlink(missing_ok=True)
            pid = start(source, out)
            time.sleep(moment)
            while noted(out) < after:
                time.sleep(0.005)
            os.kill(pid, signal.SIGKILL)
            killed = os.waitpid(pid, 0)[1] == signal.SIGKILL
            moment /= 2
        kept, made = len(list(out.glob("parts/*/*.parquet"))), noted(out)
        resumed = os.waitpid(start(source, out), 0)[1]
        found.append({"moment": 2 * moment, "made": made, "kept": kept, "resumed": resumed})
    (folder / "found.json").write_text(json.dumps({"took": took, "runs": found}))


if __name__ == "__main__":
    main()
