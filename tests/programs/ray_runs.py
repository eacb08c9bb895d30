"""Runs on a real Ray cluster; integration/engines/test_ray.py starts it and reads what it found.

Usage: python ray_runs.py FOLDER. `found.json` says what happened. Few workers are started, as each takes
seconds to load its libraries.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parents[1]))

import ray  # noqa: E402

import relation_neurons as rn  # noqa: E402
from helpers.small_options import small  # noqa: E402
from relation_neurons.experiment import run as experiment  # noqa: E402
from relation_neurons.storage.chunks import Chunks  # noqa: E402

OPTIONS = small(checks=("background",), home_draws=12, blocks=2)


class After:
    """Calls a function once so many tables of a run were kept."""

    def __init__(self, count: int, act) -> None:
        self.count, self.act, self.made = count, act, Chunks.make

    def __enter__(self):
        kept, made = 0, self.made

        def make(chunks, place, key, table):
            nonlocal kept
            found = made(chunks, place, key, table)
            kept += 1
            if kept == self.count:
                self.act()
            return found

        Chunks.make = make

    def __exit__(self, *_):
        Chunks.make = self.made


def failed(run) -> dict:
    """What a run raises."""
    began = time.monotonic()
    try:
        run()
    except BaseException as error:
        return {"error": type(error).__name__, "message": str(error), "s": time.monotonic() - began}
    return {"error": None}


def stop() -> None:
    """Ctrl-C: a terminal sends it to every process of the group, Ray's among them."""
    os.killpg(os.getpgrp(), signal.SIGINT)


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    experiment.report_stage = lambda *_: None  # is made of the tables, which are what is looked at
    folder = Path(sys.argv[1])
    planted = rn.planted_model(folder / "model", relations=3, seed=0)
    model, relations = planted.model, planted.relations
    found: dict = {"engine": []}

    def run(name: str, engine="local", **more):
        said: list[str] = []
        began = time.monotonic()
        try:
            rn.run(
                model,
                relations,
                out=folder / name,
                engine=engine,
                log=said.append,
                **OPTIONS,
                **more,
            )
        finally:
            found[name] = {"said": said, "s": time.monotonic() - began}

    run("local")
    held = rn.planted_model(relations=3, seed=0)
    found["held"] = failed(
        lambda: rn.run(held.model, relations, out=folder / "held", engine="ray", **OPTIONS)
    )
    with rn.RayEngine(workers=2, log=lambda line: found["engine"].append(line)) as engine:

        def kill() -> None:
            found["processes"] = engine.processes
            os.kill(engine.processes[0], signal.SIGKILL)

        run("ray", engine)
        with After(18, kill):
            run("killed", engine)
        with After(20, stop):
            found["stopped by"] = failed(lambda: run("stopped", engine))
        found["left"] = len(list((folder / "stopped" / "parts").rglob("*.parquet")))
        run("stopped")  # goes on in this process
        with After(20, stop):
            failed(lambda: run("begun here"))
        run("begun here", engine)
    found["ended"] = not ray.is_initialized()

    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=256 << 20)
    weights = folder / "model" / "model.safetensors"
    start = weights.read_bytes()[:1000]
    weights.unlink()  # and not overwritten: this process's own weights are read from that file
    weights.write_bytes(start)
    found["cannot load"] = failed(lambda: run("cut", "ray", workers=2))
    found["left alone"] = ray.is_initialized()
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
