"""The whole demo: `make demo`'s run by the package as it was before any of this, and as it is.

    python -m benchmarks.whole_demo [--size small|full] [--before COMMIT]

As it was: the last commit before passes over prefix trees. The same command, environment and machine.
Both processes take turns of some seconds, one halted while the other runs, so that whatever else the
machine does falls on both alike; counted is the wall-clock time of each one's turns, from its start to its
report. Both compile the scoring anew, as a first run does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import timing
from relation_neurons.inference.batches import make_batches
from relation_neurons.inference.prefix_trees import make_tree_batches
from relation_neurons.inference.recall import plan_passes
from relation_neurons.results.results import read_prompts

COMMAND = "python -m benchmarks.whole_demo"
ROOT = Path(__file__).parents[1]
BEFORE = "66c02fe"
"""The last commit at which every sequence was a padded row of its own."""
TURN = 5
"""Seconds."""
SMALL = "--names word_opposite,country_capital --max-facts 44 --blocks 0"
LABELS = ["kind", "score", "dose", "draw", "ablated", "ablated_language", "prompt_id"]


def rows(size: str, before: str = BEFORE) -> list[dict[str, str]]:
    """Runs the demo with either code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        problem = _unpack(before, folder / "before")
        if problem:
            return [_row("not measured", float("nan"), problem) | {"ratio": ""}]
        runs = {
            which: _start(code, folder / f"{which}-results", size)
            for which, code in (("now", ROOT), ("before", folder / "before"))
        }
        spent = _take_turns(runs)
        for run in runs.values():
            _require_finished(run)
        note = _compared(folder / "before-results", folder / "now-results")
        counted = _tokens(folder / "now-results")
    return [
        _row(
            f"{spent['before'] / spent['now']:.2f} ({spent['before']:.0f} s against {spent['now']:.0f} s)",
            spent["before"] / spent["now"],
            f"{note}; turns of {TURN} s; load average {os.getloadavg()[0]:.1f}",
        ),
        counted,
    ]


def _tokens(results: Path) -> dict[str, str]:
    """What bounds the ratio: tokens through the model, as padded rows and as prefix trees."""
    prompts = read_prompts(results / "prompts.parquet")
    effects, text = (
        pd.read_parquet(results / f"{name}.parquet") for name in ("effects", "collateral")
    )
    facts, held = (part.take(part.frame["kind"] == "fact") for part in (prompts, prompts.held_out))
    asked = held.take(held.frame["prompt_id"].isin(effects["prompt_id"]))
    sets = effects.groupby("prompt_id").size().iloc[0]
    counts = {
        "recall": _both(plan_passes(facts).sequences),
        "capture": _both(prompts.detection.tokens),
        f"{sets} sets": [sets * one for one in _both(plan_passes(asked).sequences)],
        "text under ablation": [(len(text) + 1) * int(text["tokens"].iloc[0])] * 2,
    }
    padded, trees = (sum(counted[i] for counted in counts.values()) for i in (0, 1))
    note = "; ".join(f"{name} {was:,} against {now:,}" for name, (was, now) in counts.items())
    return timing.row(
        "Tokens that it runs, without its blocks: in padded rows / in prefix trees",
        "-",
        f"{padded / trees:.2f} ({padded:,} against {trees:,})",
        padded / trees,
        COMMAND,
        f"counted, not timed; {note}",
    )


def _both(sequences: Any) -> list[int]:
    """Tokens in padded rows, and in prefix trees."""
    kinds: Any = {"batch_size": 64, "pad_id": 0}
    return [
        sum(batch.tokens.numel() for batch in make(sequences, **kinds))
        for make in (make_batches, make_tree_batches)
    ]


def _row(measured: str, ratio: float, note: str) -> dict[str, str]:
    what = "The whole demo, process start to report: time as it was / as it is"
    return timing.row(what, ">= 2", measured, ratio, COMMAND, note)


def _unpack(commit: str, folder: Path) -> str | None:
    """Puts a commit's files into a folder; says why where the history does not hold it."""
    made = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True)
    if made.returncode:
        return f"{commit} is not in this clone: {made.stderr.decode(errors='replace').strip()}"
    with tarfile.open(fileobj=BytesIO(made.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return None


def _start(code: Path, out: Path, size: str) -> subprocess.Popen[str]:
    """Starts the demo's command, as the Makefile of today says it, and halts it."""
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\ndemo:")[1].split("\n\n")[0]
    options = re.sub(r"--out \S+", "", recipe.split(" run ", 1)[1].replace("\\\n", " ")).split()
    if size == "small":
        options += SMALL.split()
    run = subprocess.Popen(
        [sys.executable, "-m", "relation_neurons", "run", *options, "--out", str(out)],
        cwd=code,
        env={**os.environ, "PYTHONPATH": str(code), "RELATION_NEURONS_COMPILE_ANEW": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    run.send_signal(signal.SIGSTOP)
    return run


def _take_turns(runs: dict[str, subprocess.Popen[str]]) -> dict[str, float]:
    """Lets one process at a time run; gives the seconds that each had."""
    spent = dict.fromkeys(runs, 0.0)
    while going := [which for which, run in runs.items() if run.poll() is None]:
        for which in going:
            began = time.perf_counter()
            runs[which].send_signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                runs[which].wait(timeout=TURN)
            spent[which] += time.perf_counter() - began
            if runs[which].returncode is None:
                runs[which].send_signal(signal.SIGSTOP)
    return spent


def _require_finished(run: subprocess.Popen[str]) -> None:
    said = run.communicate()[0]
    if run.returncode:
        raise RuntimeError(f"the demo failed:\n{said[-2000:]}")


def _compared(before: Path, now: Path) -> str:
    """Whether either asked the same of the same sets, and whether the answers are the same."""
    old, new = (pd.read_parquet(folder / "effects.parquet") for folder in (before, now))
    both = old.merge(new, on=LABELS, suffixes=("_before", "_now"))
    if len(old) != len(new) or len(both) != len(old):
        return f"DIFFERENT rows: {len(old)} against {len(new)}, {len(both)} in both"
    changed = int((both["correct_before"] != both["correct_now"]).sum())
    return f"the same {len(new):,} rows of effects, controls included; {changed} outcomes differ"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog=COMMAND)
    parser.add_argument("--size", choices=timing.SIZES, default="full")
    parser.add_argument("--before", default=BEFORE)
    given = parser.parse_args()
    timing.show(rows(given.size, given.before))
