"""The demo's sweep: one ablated pass over all its held-out prompts, as it was and as it is.

    python -m benchmarks.demo [--size small|full]

As it was: every sequence a padded row through TransformerLens's own forward pass, from the first layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import relation_neurons as rn
from benchmarks import fixtures, timing
from relation_neurons.inference.batches import make_batches
from relation_neurons.inference.recall import answer_prompts, plan_passes

COMMAND = "python -m benchmarks.demo"
BATCH_SIZE = 64
REPEATS = {"small": 1, "full": 2}


def rows(size: str) -> list[dict[str, str]]:
    """Measures one condition of the demo, whose time is that of every other."""
    hooked, neurons = fixtures.model(size), fixtures.neurons(size)
    asked = fixtures.prompts(size).held_out
    plan = plan_passes(asked.take(asked.frame["kind"] == "fact"))
    padded = list(make_batches(plan.sequences, batch_size=BATCH_SIZE, pad_id=plan.pad_id))
    trees = plan.batches(hooked, BATCH_SIZE)
    found: dict[str, Any] = {}

    def run(name: str, batches: Any) -> None:
        with rn.ablated(hooked, neurons) as hooks:
            found[name] = answer_prompts(hooked, plan, batches=batches, before_batch=hooks.start)

    spent = timing.seconds(
        {"before": lambda: run("before", padded), "now": lambda: run("now", trees)},
        REPEATS[size],
    )
    apart = float(np.abs(found["before"].logprob - found["now"].logprob).max())
    same = found["before"].correct == found["now"].correct
    return [
        timing.row(
            "The demo's sweep: time of a pass as it was / as it is",
            ">= 2",
            f"{spent['before'] / spent['now']:.2f} ({spent['before']:.2f} s against {spent['now']:.2f} s)",
            spent["before"] / spent["now"],
            COMMAND,
            f"{plan.prompts} prompts, {len(neurons)} neurons; "
            f"{sum(batch.tokens.numel() for batch in padded):,} tokens against "
            f"{sum(batch.tokens.numel() for batch in trees):,}; log-probabilities differ by "
            f"{apart:.0e} at most, {int((~same).sum())} outcomes do",
        )
    ]


if __name__ == "__main__":
    timing.main("demo", rows)
