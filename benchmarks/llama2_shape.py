"""The paper's main experiment at the shape of Llama-2, with random weights.

    python -m benchmarks.llama2_shape [--shape 7b|13b|scaled]

12 relations, 250 detection and 50 held-out prompts each, doses of 10 to 3,000, every relation's ranked
set and one control judged on every relation. Random weights stand in for the gated checkpoint: the
arithmetic is the same. As they know no fact, every fact counts as known. Without a GPU with room for the
shape a scaled-down one runs on the CPU, and the rows say so.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import relation_neurons as rn
from benchmarks import timing
from relation_neurons.ablation.sets import plan_sweep
from relation_neurons.inference.prefix_trees import make_tree_batches
from relation_neurons.inference.recall import plan_passes
from relation_neurons.inference.residual_cache import IntactStreams
from relation_neurons.relations.prompts import Prompts

COMMAND = "python -m benchmarks.llama2_shape"


@dataclass(frozen=True)
class Shape:
    """A model and an experiment."""

    layers: int
    d_model: int
    d_mlp: int
    heads: int
    vocabulary: int
    relations: int
    detection: int
    held_out: int
    doses: tuple[int, ...]
    batch_size: int
    goal_seconds: float | None = None

    @property
    def weights(self) -> int:
        """Weights of all blocks, without embeddings."""
        return self.layers * (4 * self.d_model**2 + 3 * self.d_model * self.d_mlp)

    @property
    def gigabytes(self) -> float:
        """What loading takes in half precision, with room for a batch."""
        return 2e-9 * (self.weights + 2 * self.vocabulary * self.d_model) * 2.2 + 2


_DOSES = (10, 30, 100, 300, 1_000, 3_000)
SHAPES = {
    "7b": Shape(32, 4_096, 11_008, 32, 32_000, 12, 250, 50, _DOSES, 256, 120),
    "13b": Shape(40, 5_120, 13_824, 40, 32_000, 12, 250, 50, _DOSES, 256, 240),
    "scaled": Shape(4, 256, 688, 4, 2_000, 4, 30, 12, (10, 30, 100), 64),
    "smallest": Shape(2, 32, 86, 2, 200, 3, 14, 10, (4, 8), 64),
}


def rows(size: str) -> list[dict[str, str]]:
    """The full shapes where a GPU has room, else the scaled-down one."""
    if size == "small":
        return run("smallest")
    room = torch.cuda.mem_get_info()[0] / 1e9 if torch.cuda.is_available() else 0.0
    fitting = [name for name in ("7b", "13b") if SHAPES[name].gigabytes <= room]
    return [one for name in fitting or ["scaled"] for one in run(name)]


def run(name: str) -> list[dict[str, str]]:
    """Runs the experiment at one shape."""
    shape = SHAPES[name]
    device = torch.device("cuda" if name in ("7b", "13b") else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = random_llama(shape, device, dtype)
    prompts = random_prompts(shape)
    ceiling = matmul_rate(device, dtype)
    start = time.perf_counter()
    recall = rn.measure_recall(model, prompts, batch_size=shape.batch_size).assign(known=True)
    table = rn.collect_activations(model, prompts.detection, batch_size=shape.batch_size)
    ranking = rn.rank_neurons(
        table, recall, contrasts=("specific",), keep=max(shape.doses), order="index"
    )
    found = time.perf_counter() - start
    start = time.perf_counter()
    options: Any = {"control_draws": {"control_contribution": 1}, "seed": 0}
    effects = rn.ablation_sweep(
        model, prompts.held_out, ranking, shape.doses, batch_size=shape.batch_size, **options
    )
    swept = time.perf_counter() - start
    tokens, token_layers, conditions = computed(model, prompts, ranking, shape, options)
    rate = 2 * shape.weights * token_layers / shape.layers / swept
    peak = (
        f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB on the GPU, "
        if device.type == "cuda"
        else ""
    ) + f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB of the process"
    which = (
        f"Llama-2 {name.upper()} shape on {torch.cuda.get_device_name()}"
        if device.type == "cuda"
        else "a scaled-down Llama shape on the CPU; no GPU run has been made"
    )
    where = f"{which}, random weights, {dtype}".replace("torch.", "")
    assert len(effects) == conditions * shape.relations * shape.held_out
    goal = (
        f"<= {shape.goal_seconds:.0f} s" if shape.goal_seconds else "- (7B <= 120 s, 13B <= 240 s)"
    )
    return [
        timing.row(
            "Main experiment: seconds",
            goal,
            f"{found + swept:.1f} s ({found:.1f} to find, {swept:.1f} to ablate)",
            found + swept,
            COMMAND,
            f"{where}; {shape.relations} relations, {shape.relations * shape.detection:,} and "
            f"{shape.relations * shape.held_out} prompts, {conditions} ablated sets; {peak}; wall clock",
        ),
        timing.row(
            "Sweep: share of the measured matrix-product rate",
            ">= 0.4" if device.type == "cuda" else "- (GPU >= 0.4)",
            f"{rate / ceiling:.2f} ({rate / 1e12:.3g} of {ceiling / 1e12:.3g} TFLOP/s)",
            rate / ceiling,
            COMMAND,
            f"{where}; {tokens / swept:,.0f} tokens/s computed; products with weights of blocks only",
        ),
    ]


def random_llama(shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
    """A hooked Llama with random weights, made where it will be."""
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=4_096,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return rn.load_model(LlamaForCausalLM(config).eval(), dtype=dtype, device=device)
    finally:
        torch.set_default_dtype(before)


def random_prompts(shape: Shape, seed: int = 0) -> Prompts:
    """Prompts of the lengths that facts have: a BOS, 4 to 8 words of template, a subject, an answer."""
    rng = np.random.default_rng(seed)
    records, tokens, answers = [], [], []
    for relation in range(shape.relations):
        words = rng.integers(3, shape.vocabulary, rng.integers(4, 9)).tolist()
        split = int(rng.integers(1, len(words)))
        for fact in range(shape.detection + shape.held_out):
            subject = rng.integers(3, shape.vocabulary, rng.integers(1, 5)).tolist()
            answer = tuple(rng.integers(3, shape.vocabulary, rng.integers(1, 4)).tolist())
            tokens.append((1, *words[:split], *subject, *words[split:]))
            answers.append((answer,))
            records.append(
                {
                    "prompt_id": len(records),
                    "kind": "fact",
                    "relation": f"relation {relation}",
                    "language": "en",
                    "fact": f"{relation}-{fact}",
                    "subject": f"{relation}-{fact}",
                    "answer": "",
                    "template": f"{relation}",
                    "form": "statement",
                    "template_held_out": False,
                    "text": "",
                    "side": "detection" if fact < shape.detection else "held_out",
                }
            )
    return Prompts(pd.DataFrame(records), tuple(tokens), tuple(answers), 0)


def computed(
    model: Any, prompts: Prompts, ranking: Any, shape: Shape, options: dict[str, Any]
) -> tuple[int, int, int]:
    """Tokens, and tokens x layers, of the whole sweep with its intact pass; and how many sets."""
    plan = plan_passes(prompts.held_out)
    starts = [reads[0][1] - 1 for reads in plan.reads]
    trees = make_tree_batches(plan.sequences, starts, batch_size=shape.batch_size, pad_id=0)
    conditions = plan_sweep(ranking, shape.doses, **options)
    lowest = [int(condition.neurons["layer"].min()) for condition in conditions]
    streams = IntactStreams(model, trees, lowest)
    each = sum(batch.tokens.numel() for batch in trees)
    run = shape.layers + sum(shape.layers - streams.start(layer) for layer in lowest)
    return each * (1 + len(lowest)), each * run, len(lowest)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the device's own large matrix product in the model's dtype."""
    n = 8_192 if device.type == "cuda" else 1_024
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog=COMMAND)
    parser.add_argument("--shape", choices=SHAPES)
    chosen = parser.parse_args().shape
    timing.show(run(chosen) if chosen else rows("full"))
