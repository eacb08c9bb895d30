"""Timing: competitors take turns, and each counts by its best turn."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

SIZES = ("small", "full")


def seconds(competitors: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Runs competitors in turn, again and again, and gives the least time of each.

    On one CPU thread the time is the process's own, which other work on the machine lengthens little;
    elsewhere it is the wall clock's.
    """
    clock = time.process_time if own_time() else time.perf_counter
    best = dict.fromkeys(competitors, float("inf"))
    for _ in range(repeats):
        for name, run in competitors.items():
            start = clock()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            best[name] = min(best[name], clock() - start)
    return best


def own_time() -> bool:
    """Whether times are the process's own."""
    return torch.get_num_threads() == 1 and not torch.cuda.is_available()


def machine() -> str:
    """The machine in one line."""
    names = [
        line.split(":", 1)[1].strip()
        for path in (Path("/proc/cpuinfo"),)
        if path.exists()
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    clock = "process time, as other work ran beside it" if own_time() else "wall-clock time"
    return (
        f"{names[0] if names else platform.processor() or platform.machine()}, {len(names) or '?'} cores, "
        f"{torch.get_num_threads()} used, {device}, torch {torch.__version__}, Python "
        f"{platform.python_version()}; {clock}"
    )


def row(
    what: str, goal: str, measured: str, ratio: float, command: str, note: str = ""
) -> dict[str, str]:
    """One line of the table; the ratio is what the goal speaks of."""
    return {
        "what": what,
        "goal": goal,
        "measured": measured,
        "ratio": f"{ratio:.3g}",
        "command": command,
        "note": note,
    }


def show(rows: list[dict[str, str]]) -> None:
    """Prints the rows of one module."""
    for one in rows:
        print(f"{one['what']}: {one['measured']} (goal {one['goal']}). {one['note']}", flush=True)


def main(module: str, rows: Callable[[str], list[dict[str, str]]]) -> None:
    """The command of one benchmark."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}")
    parser.add_argument("--size", choices=SIZES, default="full")
    show(rows(parser.parse_args().size))
