"""The published procedure, as it is described, against this package on the same prompts and answers.

    python -m benchmarks.published [--size small|full]

The stand-in is written from the description: plain Hugging Face, one prompt at a time; answers by greedy
decoding of up to 10 new tokens (with a key/value cache); everything anew for each dose; and for the
activations a full pass over all prompts for each relation, kept as Python lists. It runs on a sample,
whose size is in the table; this package runs on all prompts, and both are counted per prompt.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch

import relation_neurons as rn
from benchmarks import fixtures, timing
from relation_neurons.inference.recall import answer_prompts, plan_passes
from relation_neurons.relations.prompts import Prompts

COMMAND = "python -m benchmarks.published"
NEW_TOKENS = 10
ANSWERED = {"small": 3, "full": 6}
CAPTURED = {"small": 3, "full": 8}
OURS = {"small": 24, "full": 136}


def rows(size: str) -> list[dict[str, str]]:
    """Measures both stages at one size."""
    return [ablation(size), capture(size)]


def ablation(size: str) -> dict[str, str]:
    """Answers under one ablated set."""
    hooked, plain, neurons = (
        fixtures.model(size),
        fixtures.hugging_face(size),
        fixtures.neurons(size),
    )
    every = fixtures.some(fixtures.prompts(size).held_out, OURS[size])
    sample = fixtures.some(every, ANSWERED[size])
    found: dict[str, Any] = {}

    def ours() -> None:
        with rn.ablated(hooked, neurons) as hooks:
            found["ours"] = answer_prompts(hooked, plan_passes(every), before_batch=hooks.start)

    def published() -> None:
        found["published"] = decode_greedily(plain, sample, neurons)

    spent = timing.seconds({"ours": ours, "published": published}, 1)
    correct = dict(zip(every.frame["prompt_id"], found["ours"].correct, strict=True))
    same = sum(
        correct[i] == c for i, c in zip(sample.frame["prompt_id"], found["published"], strict=True)
    )
    ours_each, published_each = spent["ours"] / len(every), spent["published"] / len(sample)
    return timing.row(
        "Sweep, time per prompt and dose: published procedure / this package",
        ">= 20",
        f"{published_each / ours_each:.0f} ({1e3 * published_each:.0f} ms against {1e3 * ours_each:.1f} ms)",
        published_each / ours_each,
        COMMAND,
        f"published: a sample of {len(sample)} prompts; ours: {len(every)} in batches; they agree on "
        f"{same} of {len(sample)} outcomes",
    )


def capture(size: str) -> dict[str, str]:
    """Activations of every neuron, with a full pass for each relation."""
    hooked, plain = fixtures.model(size), fixtures.hugging_face(size)
    detection = fixtures.prompts(size).detection
    every, sample = (fixtures.some(detection, count[size]) for count in (OURS, CAPTURED))
    relations = detection.frame.loc[detection.frame["kind"] == "fact", "relation"].nunique()
    spent = timing.seconds(
        {
            "ours": lambda: rn.collect_activations(hooked, every),
            "published": lambda: activation_lists(plain, sample),
        },
        1,
    )
    ours_each, one_pass = spent["ours"] / len(every), spent["published"] / len(sample)
    return timing.row(
        "Activations, time per prompt: published procedure / this package",
        "-",
        f"{relations * one_pass / ours_each:.0f} ({one_pass / ours_each:.1f} for one of its passes)",
        relations * one_pass / ours_each,
        COMMAND,
        f"published: a sample of {len(sample)} prompts, one pass timed and counted once for each of the "
        f"{relations} relations; ours: {len(every)} prompts, one pass for all relations",
    )


@torch.inference_mode()
def decode_greedily(model: Any, prompts: Prompts, neurons: pd.DataFrame) -> list[bool]:
    """Decodes up to 10 tokens for each prompt, neurons set to zero everywhere but at the first position."""
    handles = []
    for layer, of_layer in neurons.groupby("layer"):
        index = of_layer["neuron"].tolist()

        def zero(_module: Any, args: Any, index: list[int] = index) -> Any:
            hidden = args[0].clone()
            hidden[:, 1 if hidden.shape[1] > 1 else 0 :, index] = 0
            return (hidden,)

        down = model.model.layers[int(layer)].mlp.down_proj
        handles.append(down.register_forward_pre_hook(zero))
    try:
        correct = []
        for tokens, answers in zip(prompts.tokens, prompts.answers, strict=True):
            out = model.generate(
                torch.tensor([tokens]),
                attention_mask=torch.ones(1, len(tokens), dtype=torch.long),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=prompts.pad_id,
            )[0, len(tokens) :].tolist()
            correct.append(any(tuple(out[: len(answer)]) == answer for answer in answers))
        return correct
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def activation_lists(model: Any, prompts: Prompts) -> list[list[list[float]]]:
    """The mean activation of every neuron on every prompt, prompt by prompt, as Python lists."""
    seen: list[list[float]] = []
    handles = [
        layer.mlp.down_proj.register_forward_pre_hook(
            lambda _m, args: seen.append(args[0][0, 1:].mean(dim=0).tolist())
        )
        for layer in model.model.layers
    ]
    try:
        table = []
        for tokens in prompts.tokens:
            seen = []
            model(torch.tensor([tokens]))
            table.append(seen)
        return table
    finally:
        for handle in handles:
            handle.remove()


if __name__ == "__main__":
    timing.main("published", rows)
