"""Capture: pooled activations of every neuron, against forward passes that keep nothing.

python -m benchmarks.capture [--size small|full]
"""

from __future__ import annotations

from typing import Any

import torch

import relation_neurons as rn
from benchmarks import fixtures, timing
from relation_neurons.inference.batches import make_batches
from relation_neurons.inference.forward import tree_residual
from relation_neurons.inference.prefix_trees import make_tree_batches

COMMAND = "python -m benchmarks.capture"
PROMPTS = {"small": 12, "full": 96}
REPEATS = {"small": 1, "full": 2}
BATCH_SIZE = 64
PADDED_BATCH_SIZE = 24  # of so few prompts 64 at a time would be a quarter padding


def rows(size: str) -> list[dict[str, str]]:
    """Measures capture at one size."""
    hooked, plain = fixtures.model(size), fixtures.hugging_face(size)
    asked = fixtures.some(fixtures.prompts(size).detection, PROMPTS[size])
    padded = list(make_batches(asked.tokens, batch_size=PADDED_BATCH_SIZE, pad_id=asked.pad_id))
    trees = make_tree_batches(asked.tokens, batch_size=BATCH_SIZE, pad_id=asked.pad_id)
    spent = timing.seconds(
        {
            "capture": lambda: rn.collect_activations(hooked, asked, batch_size=BATCH_SIZE),
            "same batches": lambda: _over_trees(hooked, trees),
            "TransformerLens": lambda: _over_rows(hooked, padded),
            "Hugging Face": lambda: _over_hugging_face(plain, padded),
        },
        REPEATS[size],
    )
    tokens = sum(map(len, asked.tokens))
    computed = sum(batch.tokens.numel() for batch in trees)
    real = sum(int(batch.mask.sum()) for batch in trees)
    in_rows = sum(batch.tokens.numel() for batch in padded)
    speed = {name: tokens / time for name, time in spent.items()}
    each = (spent["TransformerLens"] / in_rows) / (spent["capture"] / computed)
    size_note = (
        f"{len(asked)} prompts, {tokens:,} tokens; prefix trees compute {computed:,}, of them "
        f"{1 - real / computed:.1%} padding; padded rows {in_rows:,}, {1 - tokens / in_rows:.1%} padding; "
        f"counted in tokens that each really computes the ratio is {each:.2f}"
    )

    def against(name: str, what: str, goal: str, note: str = "") -> dict[str, str]:
        ratio = spent[name] / spent["capture"]
        measured = f"{ratio:.2f} ({speed['capture']:.0f} against {speed[name]:.0f} tokens/s)"
        return timing.row(what, goal, measured, ratio, COMMAND, note)

    return [
        against(
            "TransformerLens",
            "Capture, prompt tokens/s / plain HookedTransformer forward without hooks",
            ">= 0.9",
            size_note,
        ),
        against(
            "Hugging Face",
            "Capture, prompt tokens/s / plain Hugging Face forward",
            ">= 0.75",
            "the same padded, length-sorted rows, without logits",
        ),
        against(
            "same batches",
            "Capture / the same pass over the same prefix trees without hooks",
            ">= 0.9",
            "what pooling in the hooks costs, with nothing gained by sharing",
        ),
    ]


@torch.inference_mode()
def _over_trees(model: Any, batches: Any) -> None:
    for batch in batches:
        tree_residual(model, batch)


@torch.inference_mode()
def _over_rows(model: Any, batches: Any) -> None:
    for batch in batches:
        model(
            batch.tokens,
            attention_mask=batch.mask.long(),
            return_type=None,
            stop_at_layer=model.cfg.n_layers,
        )


@torch.inference_mode()
def _over_hugging_face(model: Any, batches: Any) -> None:
    for batch in batches:
        model.model(input_ids=batch.tokens, attention_mask=batch.mask.long(), use_cache=False)


if __name__ == "__main__":
    timing.main("capture", rows)
