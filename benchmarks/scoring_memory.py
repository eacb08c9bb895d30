"""Memory of scoring, above a memory-mapped half-precision table; Linux, in a process of its own.

    python benchmarks/scoring_memory.py PROMPTS NEURONS

Prints bytes and seconds as JSON. The table is written to the folder for temporary files, a prompt at a time.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from relation_neurons.scoring.scores import family_scores

RELATIONS = 12


def measure_memory(prompts: int, neurons: int) -> dict[str, float]:
    """Scores a memory-mapped float16 table and watches the memory that belongs to no file, in bytes."""
    labels = torch.arange(prompts) % RELATIONS
    member = (labels[None] == torch.arange(RELATIONS)[:, None]).to(torch.int8)
    family_scores(torch.zeros(prompts, 64, dtype=torch.float16), member)  # compiles
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "activations.f16"
        with path.open("wb") as file:  # a prompt at a time: the table is never in memory
            for prompt in range(prompts):
                generator = torch.Generator().manual_seed(prompt)
                row = torch.randn(neurons, generator=generator).half()
                file.write(row.numpy().tobytes())
        mapped = torch.from_file(
            str(path), shared=True, size=prompts * neurons, dtype=torch.float16
        ).view(prompts, neurons)
        peak, done = [0], threading.Event()
        before = _private_bytes()

        def watch() -> None:
            while not done.wait(0.005):
                peak[0] = max(peak[0], _private_bytes())

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.perf_counter()
        found = family_scores(mapped, member)
        seconds = time.perf_counter() - began
        peak[0] = max(peak[0], _private_bytes())
        done.set()
        watcher.join()
        parts = (found.average_precision, found.d_prime, found.mean_positive, found.mean_negative)
        return {
            "above": peak[0] - before,
            "scores": sum(part.nbytes for part in parts),
            "table": mapped.numel() * 2,
            "seconds": seconds,
        }


def _private_bytes() -> int:
    """Resident memory of this process that belongs to no file, from Linux's /proc."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(measure_memory(*map(int, sys.argv[1:]))))
