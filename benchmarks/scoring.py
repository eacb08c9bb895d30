"""Scoring: average precision of every neuron for every relation, against other ways to compute it.

    python benchmarks/scoring.py [--size small|full]

Every ratio is of two times measured side by side on the same threads: rounds take turns, and the shortest
counts. Threads are torch's (OMP_NUM_THREADS). `rows` gives the table to `make bench`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from relation_neurons.scoring.scores import family_scores

COMMAND = "python benchmarks/scoring.py"
RELATIONS = 12
PROMPTS = {"small": 240, "full": 1_200}
NEURONS = {"small": 512, "full": 46_080}  # SmolLM2-135M
SAMPLE = {"small": 4, "full": 128}
LARGE = {"small": (300, 4_096), "full": (3_000, 352_256)}  # Llama-2-7B
ROUNDS = {"small": 1, "full": 3}


def rows(size: str) -> list[dict[str, str]]:
    """Measures everything at one size.

    Args:
        size: `small`, which only shows that it works, or `full`.

    Returns:
        Rows of text: what, goal, measured, ratio, command, note.
    """
    return [
        *against_torch_sort(size),
        *against_scikit_learn(size),
        *in_half_precision(size),
        *memory(size),
        *on_cuda(size),
    ]


def against_torch_sort(size: str) -> list[dict[str, str]]:
    """The time of all scores in sorts of the same matrix."""
    prompts, neurons = PROMPTS[size], NEURONS[size]
    table, member = random_table(prompts, neurons)
    columns = table.T.contiguous()
    ours, sort = shortest(
        ROUNDS[size],
        lambda: family_scores(table, member),
        lambda: torch.sort(columns, dim=1),
    )
    return [
        _row(
            f"AP and d' of {_shape(prompts, neurons)} x {RELATIONS} relations, in torch.sort(dim=1)",
            "at most 0.4",
            f"{ours:.3g} s against {sort:.3g} s",
            f"{ours / sort:.2f}",
            f"float32; the sort is of the contiguous neuron x prompt matrix; {_threads()}",
        )
    ]


def against_scikit_learn(size: str) -> list[dict[str, str]]:
    """How often faster than scikit-learn called per neuron and relation, and how far apart."""
    prompts, neurons, sample = PROMPTS[size], NEURONS[size], SAMPLE[size]
    table, member = random_table(prompts, neurons)
    workers = torch.get_num_threads()
    with ProcessPoolExecutor(workers) as pool:
        few = table[:, :workers].numpy().T
        list(pool.map(_scikit_learn, few, [member.numpy()] * workers))  # starts the processes
        began = time.perf_counter()
        expected = _in_pool(pool, table[:, :sample], member, workers)
        theirs = (time.perf_counter() - began) / sample * neurons
    (ours,) = shortest(ROUNDS[size], lambda: family_scores(table, member))
    found = family_scores(table[:, :sample].contiguous(), member).average_precision
    off = np.abs(found - expected).max()
    for kind, values in _awkward(prompts, sample).items():
        found = family_scores(values, member).average_precision
        exact = np.stack([_scikit_learn(v, member.numpy()) for v in values.double().numpy().T], 1)
        off = max(off, np.abs(found - exact).max())
        print(f"  {kind}: within {np.abs(found - exact).max():.1g}", file=sys.stderr)
    return [
        _row(
            f"scikit-learn's average_precision_score per neuron and relation, {_shape(prompts, neurons)}",
            "at least 400 times as long",
            f"{theirs:.4g} s against {ours:.3g} s",
            f"{theirs / ours:,.0f}",
            f"a pool of {workers} processes, timed on {sample} neurons x {RELATIONS} relations and "
            f"extrapolated; the scores here include d'; {_threads()}",
        ),
        _row(
            "largest difference from scikit-learn",
            "at most 1e-6",
            f"{off:.1g}",
            f"{off / 1e-6:.1g}",
            f"{sample} neurons each of float32, float16, bfloat16, integers, constants, ±0, subnormals",
        ),
    ]


def in_half_precision(size: str) -> list[dict[str, str]]:
    """Half precision, whose many ties are one threshold each, against float32."""
    table, member = random_table(PROMPTS[size], NEURONS[size])
    found = []
    for dtype in (torch.float16, torch.bfloat16):
        half = table.to(dtype)
        ours, single = shortest(
            ROUNDS[size],
            lambda half=half: family_scores(half, member),
            lambda: family_scores(table, member),
        )
        found.append(
            _row(
                f"the same in {str(dtype).removeprefix('torch.')}, in the time of float32",
                "",
                f"{ours:.3g} s against {single:.3g} s",
                f"{ours / single:.2f}",
                "read where it lies, never copied to float32",
            )
        )
    return found


def memory(size: str) -> list[dict[str, str]]:
    """Peak memory above a memory-mapped half-precision table, in a process of its own."""
    prompts, neurons = LARGE[size]
    script = Path(__file__).with_name("scoring_memory.py")
    command = [sys.executable, str(script), str(prompts), str(neurons)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    measured = json.loads(said)
    above, allowed = measured["above"] / 1e9, 1.5 * neurons / LARGE["full"][1]
    return [
        _row(
            f"peak memory above the table, {_shape(prompts, neurons)} x {RELATIONS} relations",
            f"at most {allowed:.2g} GB",
            f"{above:.2g} GB, {measured['scores'] / 1e9:.2g} of them the scores",
            f"{above / allowed:.2f}",
            f"a memory-mapped float16 file of {measured['table'] / 1e9:.2g} GB; {measured['seconds']:.3g} s; "
            f"{_threads()}",
            f"python benchmarks/{script.name} {prompts} {neurons}",
        )
    ]


def on_cuda(size: str) -> list[dict[str, str]]:
    """The same scores on a graphics card, in sorts of the same matrix there."""
    prompts, neurons = PROMPTS[size], NEURONS[size]
    what = f"AP and d' on a graphics card, {_shape(prompts, neurons)}, in torch.sort(dim=1) there"
    if not torch.cuda.is_available():
        return [_row(what, "", "not measured", "", "no CUDA device on this machine")]
    table, member = random_table(prompts, neurons)
    here = table.cuda()
    columns = here.T.contiguous()

    def sort() -> None:
        torch.sort(columns, dim=1)
        torch.cuda.synchronize()

    ours, theirs = shortest(ROUNDS[size], lambda: family_scores(here, member), sort)
    measured = f"{ours:.3g} s against {theirs:.3g} s"
    return [_row(what, "", measured, f"{ours / theirs:.2f}", torch.cuda.get_device_name())]


def shortest(rounds: int, *ways: Callable[[], object]) -> list[float]:
    """Runs each way in turn, once to warm up and then `rounds` times; the shortest time of each, in s."""
    took = [[] for _ in ways]
    for round_ in range(rounds + 1):
        for way, times in zip(ways, took, strict=True):
            began = time.perf_counter()
            way()
            if round_:
                times.append(time.perf_counter() - began)
    return [min(times) for times in took]


def random_table(prompts: int, neurons: int, relations: int = RELATIONS) -> tuple[Tensor, Tensor]:
    """Random activations, and each relation against all others."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(prompts, neurons, generator=generator)
    labels = torch.randperm(prompts, generator=generator) % relations
    return table, (labels[None] == torch.arange(relations)[:, None]).to(torch.int8)


def _awkward(prompts: int, neurons: int) -> dict[str, Tensor]:
    """Columns with many ties and those at the edge of what floats can say."""
    normal, _ = random_table(prompts, neurons)
    zeros = torch.where(normal > 0, 0.0, -0.0)
    zeros[normal.abs() > 1] = 1.0
    return {
        "float16": normal.half(),
        "bfloat16": normal.bfloat16(),
        "integers": (normal * 3).to(torch.int64),
        "8-bit integers": (normal * 3).to(torch.int8),
        "constants": torch.ones_like(normal),
        "±0": zeros,
        "subnormals": (normal * 100).round() * 1e-45,
    }


def _in_pool(pool: ProcessPoolExecutor, values: Tensor, member: Tensor, workers: int) -> np.ndarray:
    columns = values.numpy().T
    each = max(1, len(columns) // (4 * workers))
    found = pool.map(_scikit_learn, columns, [member.numpy()] * len(columns), chunksize=each)
    return np.stack(list(found), axis=1)


def _scikit_learn(column: np.ndarray, member: np.ndarray) -> np.ndarray:
    return np.array([average_precision_score(positive == 1, column) for positive in member])


def _shape(prompts: int, neurons: int) -> str:
    return f"{prompts:,} prompts x {neurons:,} neurons"


def _threads() -> str:
    count = torch.get_num_threads()
    return f"{count} thread{'s' if count > 1 else ''}"


def _row(
    what: str, goal: str, measured: str, ratio: str, note: str, command: str = COMMAND
) -> dict[str, str]:
    return {
        "what": what,
        "goal": goal,
        "measured": measured,
        "ratio": ratio,
        "command": command,
        "note": note,
    }


def main() -> None:
    """Prints the rows as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("small", "full"), default="full")
    chosen = parser.parse_args()
    print("| ratio | goal | what | measured | note |\n| --- | --- | --- | --- | --- |")
    for row in rows(chosen.size):
        cells = (row["ratio"], row["goal"], row["what"], row["measured"], row["note"])
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
