"""Breakdown: where the time of an ablated pass, of capture and of a plain forward goes, per token.

python -m benchmarks.breakdown [--size small|full]

This is what stands beside a missed goal of the other parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

import relation_neurons as rn
from benchmarks import capture, fixtures, sweep, timing
from relation_neurons.inference.prefix_trees import make_tree_batches

COMMAND = "python -m benchmarks.breakdown"
KINDS = {
    "attention": ("attention", "flash", "efficient"),
    "products": ("mm", "addmm", "bmm", "baddbmm", "linear", "mkldnn", "matmul", "dot"),
    "copies": (
        "copy_",
        "cat",
        "index",
        "gather",
        "scatter",
        "stack",
        "clone",
        "fill",
        "slice",
        "empty",
    ),
}
"""How the names of torch's operations are told apart; the rest is elementwise."""


def rows(size: str) -> list[dict[str, str]]:
    """Profiles each kind of pass over the same prompts."""
    hooked = fixtures.model(size)
    held_out = fixtures.some(fixtures.prompts(size).held_out, sweep.PROMPTS[size])
    plan, padded = sweep.plan_padded(held_out)
    trees = plan.batches(hooked, sweep.BATCH_SIZE)
    detection = fixtures.some(fixtures.prompts(size).detection, capture.PROMPTS[size])
    forests = make_tree_batches(
        detection.tokens, batch_size=capture.BATCH_SIZE, pad_id=detection.pad_id
    )
    neurons = fixtures.neurons(size)
    passes: dict[str, tuple[Callable[[], Any], Any]] = {
        "Plain forward, padded rows, no logits": (lambda: sweep.plain(hooked, padded), padded),
        "The same pass over prefix trees": (lambda: sweep.over_trees(hooked, trees), trees),
        "Ablated pass": (lambda: sweep.ablated_pass(hooked, neurons, plan, trees), trees),
        "Capture": (
            lambda: rn.collect_activations(hooked, detection, batch_size=capture.BATCH_SIZE),
            forests,
        ),
    }
    made = []
    for what, (run, batches) in passes.items():
        run()
        tokens = sum(batch.tokens.numel() for batch in batches)
        spent, taken = _profiled(run, int(hooked.cfg.d_vocab))
        parts = ", ".join(f"{kind} {1e6 * s / tokens:,.0f}" for kind, s in spent.items())
        made.append(
            timing.row(
                f"{what}: share of the time in the blocks' matrix products",
                "-",
                f"{spent['products'] / taken:.0%} of {1e6 * taken / tokens:,.0f} µs a token",
                spent["products"] / taken,
                COMMAND,
                f"µs a token, {tokens:,} tokens: {parts}",
            )
        )
    return made


def _profiled(run: Callable[[], Any], vocabulary: int) -> tuple[dict[str, float], float]:
    """Seconds by kind, and in all; what no operation takes is Python's."""
    with (
        profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen,
        record_function("whole"),
    ):
        run()
    spent = dict.fromkeys((*KINDS, "unembedding", "elementwise", "Python"), 0.0)
    whole = 0.0
    for event in seen.key_averages(group_by_input_shape=True):
        if event.key == "whole":
            whole = event.cpu_time_total * 1e-6
            spent["Python"] += event.self_cpu_time_total * 1e-6
            continue
        spent[_kind(event, vocabulary)] += event.self_cpu_time_total * 1e-6
    return spent, whole


def _kind(event: Any, vocabulary: int) -> str:
    if any(vocabulary in shape for shape in event.input_shapes if isinstance(shape, list)):
        return "unembedding"
    name = event.key.removeprefix("aten::")
    for kind, parts in KINDS.items():
        if any(part in name for part in parts):
            return kind
    return "elementwise"


if __name__ == "__main__":
    timing.main("breakdown", rows)
