"""Ray workers: the same sweep by one worker of one thread, by two, and by this process.

    python -m benchmarks.workers [--size small|full] [--sets 30]

Two ratios: by the wall clock, which means something only where two cores are free; and by the CPU time of the
busiest worker, which other work on the machine lengthens little.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import relation_neurons as rn
from benchmarks import fixtures, timing
from relation_neurons.ablation.prompt_job import PromptJob
from relation_neurons.ablation.sets import AblatedSets, Condition

COMMAND = "python -m benchmarks.workers"
SETS = {"small": 6, "full": 30}
BATCH_SIZE = 64
GOAL = ">= 1.7"


def rows(size: str, sets: int | None = None) -> list[dict[str, str]]:
    """Measures the sweep with one worker and with two."""
    torch.set_num_threads(1)
    hooked, job = fixtures.model(size), _job(size, sets or SETS[size])
    one, two = (_measured(hooked, job, workers) for workers in (1, 2))
    here = timing.seconds({"here": lambda: _here(hooked, job)}, 1)["here"]
    same = all(one["tables"][place].equals(two["tables"][place]) for place in one["tables"])
    note = (
        f"{len(job.sets.conditions)} sets, {len(job.asked)} prompts; before it, one worker took "
        f"{one['start']:.0f} s and two {two['start']:.0f} s to start and load; load average "
        f"{one['load']:.1f} and {two['load']:.1f}; the tables are {'the same' if same else 'DIFFERENT'}"
    )
    return [
        timing.row(
            "Sweep, one thread a worker: time of one Ray worker / time of two, by the wall clock",
            GOAL,
            f"{one['wall'] / two['wall']:.2f} ({one['wall']:.0f} s against {two['wall']:.0f} s)",
            one["wall"] / two["wall"],
            COMMAND,
            note,
        ),
        timing.row(
            "The same by the CPU time of the busiest worker",
            GOAL,
            f"{one['cpu'] / two['cpu']:.2f} ({one['cpu']:.0f} s against {two['cpu']:.0f} s)",
            one["cpu"] / two["cpu"],
            COMMAND,
            f"as if each worker had a core to itself; {two['all']:.0f} s by both together",
        ),
        timing.row(
            "CPU time of one Ray worker / of this process without Ray",
            "-",
            f"{one['cpu'] / here:.2f} ({one['cpu']:.0f} s against {here:.0f} s)",
            one["cpu"] / here,
            COMMAND,
            "what sending and keeping tables costs",
        ),
    ]


def _job(size: str, sets: int) -> PromptJob:
    """Random sets of 0.2% of the neurons, on the demo's held-out prompts."""
    conditions = [
        Condition("", "en", "ranked", "specific", len(chosen), seed, chosen)
        for seed in range(sets)
        for chosen in [fixtures.neurons(size, seed)]
    ]
    asked = fixtures.prompts(size).held_out
    facts = asked.take(asked.frame["kind"] == "fact")
    return PromptJob(
        AblatedSets(tuple(conditions), "post", "zero", "no_first", None), facts, BATCH_SIZE
    )


def _measured(hooked: Any, job: PromptJob, workers: int) -> dict[str, Any]:
    """The wall clock and the workers' CPU time of a job, once the workers are there."""
    began = time.perf_counter()
    with rn.RayEngine(workers=workers, threads=1) as engine:
        while len(engine.processes) < workers:
            list(engine.work(hooked, job, range(workers)))
        start = time.perf_counter() - began
        before = [_cpu_seconds(process) for process in engine.processes]
        began = time.perf_counter()
        tables: dict[int, pd.DataFrame] = dict(
            engine.work(hooked, job, range(len(job.sets.conditions)))
        )
        wall = time.perf_counter() - began
        after = [_cpu_seconds(process) for process in engine.processes]
    spent = [new - old for old, new in zip(before, after, strict=True)]
    return {
        "start": start,
        "wall": wall,
        "cpu": max(spent),
        "all": sum(spent),
        "load": os.getloadavg()[0],
        "tables": tables,
    }


def _here(hooked: Any, job: PromptJob) -> None:
    make = job.begin(hooked)
    for place in range(len(job.sets.conditions)):
        make(place)


def _cpu_seconds(process: int) -> float:
    """What a process of this machine has spent so far (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog=COMMAND)
    parser.add_argument("--size", choices=timing.SIZES, default="full")
    parser.add_argument("--sets", type=int)
    given = parser.parse_args()
    timing.show(rows(given.size, given.sets))
