"""The sweep: one ablated set over the held-out prompts, and what is not computed again.

python -m benchmarks.sweep [--size small|full]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import relation_neurons as rn
from benchmarks import fixtures, timing
from relation_neurons.inference.batches import make_batches
from relation_neurons.inference.forward import final_residual, tree_residual
from relation_neurons.inference.recall import Outcomes, TeacherForcing, answer_prompts, plan_passes
from relation_neurons.inference.residual_cache import IntactStreams
from relation_neurons.relations.prompts import Prompts

COMMAND = "python -m benchmarks.sweep"
PROMPTS = {"small": 12, "full": 64}
FEW_SHOT = {"small": 6, "full": 16}
SHOTS = {"small": 2, "full": 5}
REPEATS = {"small": 1, "full": 4}
BATCH_SIZE = 64


def rows(size: str) -> list[dict[str, str]]:
    """Measures the sweep at one size."""
    return [*throughput(size), *few_shot(size), *reuse(size), *half_precision(size)]


def throughput(size: str) -> list[dict[str, str]]:
    """One ablated set, in tokens that are really computed, against a plain batched forward."""
    hooked, neurons = fixtures.model(size), fixtures.neurons(size)
    plan, padded = plan_padded(fixtures.some(fixtures.prompts(size).held_out, PROMPTS[size]))
    trees = plan.batches(hooked, BATCH_SIZE)
    spent = timing.seconds(
        {
            "sweep": lambda: ablated_pass(hooked, neurons, plan, trees),
            "plain": lambda: plain(hooked, padded),
            "with logits": lambda: _with_logits(hooked, padded),
            "trees": lambda: over_trees(hooked, trees),
        },
        REPEATS[size],
    )
    computed = sum(batch.tokens.numel() for batch in trees)
    in_rows = sum(batch.tokens.numel() for batch in padded)
    speed = computed / spent["sweep"], in_rows / spent["plain"], in_rows / spent["with logits"]
    return [
        timing.row(
            "Ablated pass with its reads, tokens/s / plain batched HookedTransformer forward",
            ">= 0.85",
            f"{speed[0] / speed[2]:.2f} ({speed[0]:.0f} against {speed[2]:.0f} tokens/s)",
            speed[0] / speed[2],
            COMMAND,
            f"{plan.prompts} prompts, {len(neurons)} neurons; padding counts as computed on either side; "
            "the plain forward gives its logits, as a call of the model does",
        ),
        timing.row(
            "The same / a plain forward that makes no logits at all",
            ">= 0.85",
            f"{speed[0] / speed[1]:.2f} ({speed[0]:.0f} against {speed[1]:.0f} tokens/s)",
            speed[0] / speed[1],
            COMMAND,
            "the ablated pass has its hooks, and the logits of the answers",
        ),
        timing.row(
            "The same prompts: time of the padded forward / time of the ablated pass",
            "-",
            f"{spent['plain'] / spent['sweep']:.2f}",
            spent["plain"] / spent["sweep"],
            COMMAND,
            f"{in_rows:,} tokens in padded rows, {computed:,} in prefix trees",
        ),
        timing.row(
            "Ablated pass / the same pass over the same prefix trees, no ablation, no logits",
            "-",
            f"{spent['trees'] / spent['sweep']:.2f}",
            spent["trees"] / spent["sweep"],
            COMMAND,
            "what hooks, their check and the unembedding of the answers cost",
        ),
    ]


def few_shot(size: str) -> list[dict[str, str]]:
    """Few-shot prompts, which share what they begin with."""
    hooked = fixtures.model(size)
    asked = fixtures.prompts(size, SHOTS[size]).held_out
    first = asked.frame["relation"].iloc[0]
    asked = asked.take(asked.frame["relation"] == first)
    plan, padded = plan_padded(fixtures.some(asked, FEW_SHOT[size]))
    trees = plan.batches(hooked, BATCH_SIZE)
    spent = timing.seconds(
        {"trees": lambda: over_trees(hooked, trees), "plain": lambda: plain(hooked, padded)}, 1
    )
    in_rows = sum(batch.tokens.numel() for batch in padded)
    return [
        timing.row(
            f"{SHOTS[size]}-shot prompts: time of padded rows / time of prefix trees",
            "-",
            f"{spent['plain'] / spent['trees']:.1f}",
            spent["plain"] / spent["trees"],
            COMMAND,
            f"{plan.prompts} prompts of one relation: {in_rows:,} tokens against "
            f"{sum(batch.tokens.numel() for batch in trees):,}",
        )
    ]


def reuse(size: str) -> list[dict[str, str]]:
    """Tokens x layers that a whole sweep computes, against every sequence on its own."""
    hooked = fixtures.model(size)
    made = []
    for shots in (0, SHOTS[size]):
        asked = fixtures.prompts(size, shots).held_out
        plan, padded = plan_padded(asked.take(asked.frame["kind"] == "fact"))
        trees = plan.batches(hooked, BATCH_SIZE)
        lowest = _lowest_layers(size)
        kept = IntactStreams(hooked, trees, lowest)
        layers = hooked.cfg.n_layers
        run = sum(layers - kept.start(layer) for layer in lowest)
        naive = sum(map(len, plan.sequences)) * layers * len(lowest)
        computed = sum(batch.tokens.numel() for batch in trees) * run
        real = sum(int(batch.mask.sum()) for batch in trees)
        in_rows = sum(batch.tokens.numel() for batch in padded)
        below = 1 - run / (layers * len(lowest))
        made.append(
            timing.row(
                f"Tokens x layers saved, {shots if shots else 'zero'}-shot",
                "-",
                f"{1 - computed / naive:.1%}",
                naive / computed,
                COMMAND,
                f"{len(plan.sequences)} sequences, {sum(map(len, plan.sequences)):,} tokens "
                f"({in_rows:,} in padded rows); {real:,} distinct; layers below the lowest ablated one: "
                f"{below:.1%}; counted, not timed",
            )
        )
    return made


def _lowest_layers(size: str) -> list[int]:
    """The lowest layer of each set: the reference run's ranked ones, whose controls have the same."""
    if size == "small":
        return [int(fixtures.neurons(size, seed)["layer"].min()) for seed in range(8)]
    ranking = rn.load_results("results/reference").ranking
    return [
        int(ranking.top(relation, dose)["layer"].min())
        for relation in ranking.relations
        for dose in (23, 92, 369)
    ]


def half_precision(size: str) -> list[dict[str, str]]:
    """bfloat16 against float32: time, and how many outcomes change."""
    plan, _ = plan_padded(fixtures.some(fixtures.prompts(size).held_out, PROMPTS[size]))
    neurons, found = fixtures.neurons(size), {}

    def run(dtype: str) -> None:
        hooked = fixtures.model(size, dtype)
        found[dtype] = ablated_pass(hooked, neurons, plan, plan.batches(hooked, BATCH_SIZE))

    for dtype in ("float32", "bfloat16"):
        fixtures.model(size, dtype)
    spent = timing.seconds(
        {name: lambda name=name: run(name) for name in ("float32", "bfloat16")}, 1
    )
    one, other = found["float32"], found["bfloat16"]
    changed = one.correct != other.correct
    near = np.abs(one.margin) < 0.2
    return [
        timing.row(
            "bfloat16: time of float32 / time of bfloat16",
            "-",
            f"{spent['float32'] / spent['bfloat16']:.2f}; {changed.mean():.1%} of outcomes changed",
            spent["float32"] / spent["bfloat16"],
            COMMAND,
            f"{int(changed.sum())} of {len(changed)} ablated outcomes, {int((changed & near).sum())} of them "
            f"among the {int(near.sum())} with |margin| < 0.2; this CPU "
            f"{'has' if _has_bf16() else 'has no'} bfloat16 units",
        )
    ]


def _has_bf16() -> bool:
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check and check())


def plan_padded(asked: Prompts) -> tuple[TeacherForcing, list[Any]]:
    """The passes that prompts need, and their batches as padded rows."""
    plan = plan_passes(asked)
    return plan, list(make_batches(plan.sequences, batch_size=BATCH_SIZE, pad_id=plan.pad_id))


def ablated_pass(model: Any, neurons: Any, plan: TeacherForcing, batches: Any) -> Outcomes:
    """One ablated set over all prompts, with its outcomes."""
    with rn.ablated(model, neurons) as hooks:
        return answer_prompts(model, plan, batches=batches, before_batch=hooks.start)


@torch.inference_mode()
def plain(model: Any, batches: Any) -> None:
    """TransformerLens's own forward pass, without logits."""
    for batch in batches:
        final_residual(model, batch.tokens, batch.mask)


@torch.inference_mode()
def _with_logits(model: Any, batches: Any) -> None:
    for batch in batches:
        model(batch.tokens, attention_mask=batch.mask.long())


@torch.inference_mode()
def over_trees(model: Any, batches: Any) -> None:
    """The package's pass over prefix trees, without logits."""
    for batch in batches:
        tree_residual(model, batch)


if __name__ == "__main__":
    timing.main("sweep", rows)
